/* Preloaded into a process of ours: names every durable step below one directory, and kills the process before the n-th.
 *
 *   STEPS_UNDER   the directory; what happens elsewhere is no step
 *   STEPS_LOG     where the steps are written, one per line, as far as the process comes
 *   STEPS_DIE_AT  the step that is not reached, counted from 1; absent: none
 *
 * A durable step is a sync, a rename or a removal: between two of them no state is reached that a crash could show. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int fsync(int file)
{
    step_of("sync", file);
    return NEXT(fsync)(file);
}

int fdatasync(int file)
{
    step_of("sync", file);
    return NEXT(fdatasync)(file);
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
