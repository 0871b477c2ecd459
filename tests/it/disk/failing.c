/* Preloaded into a process of ours: makes its disk refuse while a file says so.
 *
 *   FAIL_FILE   a file with one line, `<errno number> <directory or file>`: what is written, synced, renamed, made or
 *               removed under it fails with that error. No such file: everything works.
 *
 * Reads never fail: a disk that is full or refuses to write still shows what it has. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The error for `path`, or 0. */
static int refused(const char *path)
{
    const char *control = getenv("FAIL_FILE");
    char line[PATH_MAX + 16], under[PATH_MAX];
    int number = 0, saved = errno;
    int file = control ? NEXT(open)(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        errno = saved;
        return 0;
    }
    ssize_t size = read(file, line, sizeof line - 1);
    close(file);
    errno = saved;
    line[size > 0 ? size : 0] = 0;
    if (sscanf(line, "%d %4095s", &number, under) != 2)
        return 0;
    return strncmp(path, under, strlen(under)) == 0 ? number : 0;
}

static int refused_at(int file)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return refused(path);
}

#define REFUSE(how)        \
    do {                   \
        int number = how;  \
        if (number) {      \
            errno = number; \
            return -1;     \
        }                  \
    } while (0)

ssize_t write(int file, const void *bytes, size_t size)
{
    REFUSE(refused_at(file));
    return NEXT(write)(file, bytes, size);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    REFUSE(refused_at(file));
    return NEXT(writev)(file, parts, count);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at)
{
    REFUSE(refused_at(file));
    return NEXT(pwrite)(file, bytes, size, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at)
{
    REFUSE(refused_at(file));
    return NEXT(pwrite64)(file, bytes, size, at);
}

int fsync(int file)
{
    REFUSE(refused_at(file));
    return NEXT(fsync)(file);
}

int fdatasync(int file)
{
    REFUSE(refused_at(file));
    return NEXT(fdatasync)(file);
}

int rename(const char *from, const char *to)
{
    REFUSE(refused(to));
    return NEXT(rename)(from, to);
}

int unlink(const char *path)
{
    REFUSE(refused(path));
    return NEXT(unlink)(path);
}

int mkdir(const char *path, mode_t mode)
{
    REFUSE(refused(path));
    return NEXT(mkdir)(path, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (flags & O_CREAT && access(path, F_OK) != 0)
        REFUSE(refused(path));
    return NEXT(open64)(path, flags, mode);
}
