/* LD_PRELOAD: ten seconds of every clock pass in one, so that pauses and deadlines of a process take a tenth of their time.
   Waits for a condition keep their own time: nothing that matters here has such a deadline. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/epoll.h>
#include <time.h>

enum { TIMES = 10, SECOND = 1000000000 };

static int (*clock_of)(clockid_t, struct timespec *);
static long long began[2];

static long long nanoseconds(const struct timespec *time) {
    return (long long)time->tv_sec * SECOND + time->tv_nsec;
}

static struct timespec timespec_of(long long nanoseconds) {
    struct timespec time = {nanoseconds / SECOND, nanoseconds % SECOND};
    return time;
}

__attribute__((constructor)) static void begin(void) {
    struct timespec now;
    clock_of = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    for (clockid_t id = CLOCK_REALTIME; id <= CLOCK_MONOTONIC; id++) {
        clock_of(id, &now);
        began[id] = nanoseconds(&now);
    }
}

int clock_gettime(clockid_t id, struct timespec *time) {
    if (!clock_of) begin();
    int result = clock_of(id, time);
    if (id == CLOCK_REALTIME || id == CLOCK_MONOTONIC)
        *time = timespec_of(began[id] + (nanoseconds(time) - began[id]) * TIMES);
    return result;
}

int epoll_wait(int file, struct epoll_event *events, int most, int milliseconds) {
    static int (*real)(int, struct epoll_event *, int, int);
    if (!real) real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    return real(file, events, most, milliseconds > 0 ? (milliseconds + TIMES - 1) / TIMES : milliseconds);
}

int nanosleep(const struct timespec *asked, struct timespec *left) {
    static int (*real)(const struct timespec *, struct timespec *);
    if (!real) real = (int (*)(const struct timespec *, struct timespec *))dlsym(RTLD_NEXT, "nanosleep");
    struct timespec less = timespec_of(nanoseconds(asked) / TIMES);
    return real(&less, left);
}
