/* Preloaded into a process of ours: names every durable step below one directory, and kills the process before the n-th.
 *
 *   STEPS_UNDER   the directory; what happens elsewhere is no step
 *   STEPS_LOG     where the steps are written, one per line, as far as the process comes
 *   STEPS_DIE_AT  the step that is not reached, counted from 1; absent: none
 *   STEPS_SHADOW  where is kept what would survive a power cut: of each file what it held at its last sync, of each directory
 *                 what it listed then, both by their inode; power.rs makes a tree of it. Absent: nothing is kept
 *
 * A durable step is a sync, a rename or a removal: between two of them no state is reached that a crash could show. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long steps;

static void step(const char *what, const char *path)
{
    const char *under = getenv("STEPS_UNDER"), *log = getenv("STEPS_LOG"), *die = getenv("STEPS_DIE_AT");
    size_t length = under ? strlen(under) : 0;
    if (!log || !length || strncmp(path, under, length) != 0)
        return;
    long number = atomic_fetch_add(&steps, 1) + 1;
    if (die && number >= atol(die)) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    char line[PATH_MAX + 32];
    int size = snprintf(line, sizeof line, "%s %s\n", what, path + length + 1);
    int file = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0) {
        ssize_t written = write(file, line, (size_t)size);
        (void)written;
        close(file);
    }
}

static void step_of(const char *what, int file)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size > 0) {
        path[size] = 0;
        step(what, path);
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* An inode's number is given out again, its time of birth is not. */
static int identity(int at, const char *name, char *key, size_t size, int *is_directory)
{
    struct statx found;
    if (statx(at, name, *name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH, STATX_INO | STATX_BTIME | STATX_TYPE, &found) != 0)
        return -1;
    if (!S_ISREG(found.stx_mode) && !S_ISDIR(found.stx_mode))
        return -1;
    *is_directory = S_ISDIR(found.stx_mode);
    snprintf(key, size, "%llu-%lld-%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec,
             found.stx_btime.tv_nsec);
    return 0;
}

static void contents(int file, int to)
{
    /* Another descriptor of a database would drop its locks when it is closed; what is only written is none. */
    int own = file;
    if ((fcntl(file, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        own = open(link, O_RDONLY | O_CLOEXEC);
    }
    char block[65536];
    off_t at = 0;
    for (ssize_t size; (size = pread(own, block, sizeof block, at)) > 0; at += size) {
        ssize_t written = write(to, block, (size_t)size);
        (void)written;
    }
    if (own != file)
        close(own);
}

static void listing(int directory, int to)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    DIR *open_directory = opendir(link);
    for (struct dirent *entry; open_directory && (entry = readdir(open_directory));) {
        char key[80];
        int is_directory;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (identity(dirfd(open_directory), entry->d_name, key, sizeof key, &is_directory) == 0)
            dprintf(to, "%c %s %s\n", is_directory ? 'd' : 'f', key, entry->d_name);
    }
    if (open_directory)
        closedir(open_directory);
}

/* What this file or directory is now survives. */
static void survives(int file)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    const char *shadow = getenv("STEPS_SHADOW");
    char key[80], path[PATH_MAX], written[PATH_MAX];
    int is_directory;
    if (!shadow || identity(file, "", key, sizeof key, &is_directory) != 0)
        return;
    pthread_mutex_lock(&one);
    snprintf(path, sizeof path, "%s/%s", shadow, key);
    snprintf(written, sizeof written, "%s/new", shadow);
    int to = open(written, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to >= 0) {
        if (is_directory)
            listing(file, to);
        else
            contents(file, to);
        close(to);
        NEXT(rename)(written, path);
    }
    pthread_mutex_unlock(&one);
}

int fsync(int file)
{
    step_of("sync", file);
    int result = NEXT(fsync)(file);
    if (result == 0)
        survives(file);
    return result;
}

int fdatasync(int file)
{
    step_of("sync", file);
    int result = NEXT(fdatasync)(file);
    if (result == 0)
        survives(file);
    return result;
}

int rename(const char *from, const char *to)
{
    step("rename", to);
    return NEXT(rename)(from, to);
}

int unlink(const char *path)
{
    step("remove", path);
    return NEXT(unlink)(path);
}

int unlinkat(int directory, const char *name, int flags)
{
    if (name[0] == '/')
        step("remove", name);
    else
        step_of("remove in", directory);
    return NEXT(unlinkat)(directory, name, flags);
}
