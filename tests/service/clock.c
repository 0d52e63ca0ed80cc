/* Preloaded into the service (clock.py): adds to the monotonic clock what a page shared with the test says, and
   lets CLOCK_BOOTTIME, which goes on in suspend, run so many times as fast as it does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define HANDLES 4096

static volatile int64_t *seconds;
static int64_t factor = 1, start; /* nanoseconds: where the fast clock and the true one agree */
static char fast_timers[HANDLES];

__attribute__((constructor)) static void open_page(void)
{
    const char *path = getenv("CLOCK_PAGE");
    int handle = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = handle < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, handle, 0);
    if (mapped != MAP_FAILED)
        seconds = mapped;
    if (getenv("CLOCK_FACTOR") && getenv("CLOCK_START")) {
        factor = atoll(getenv("CLOCK_FACTOR"));
        start = atoll(getenv("CLOCK_START"));
    }
}

static void set(struct timespec *moment, int64_t nanoseconds)
{
    moment->tv_sec = nanoseconds / SECOND;
    moment->tv_nsec = nanoseconds % SECOND;
}

static int64_t get(const struct timespec *moment)
{
    return moment->tv_sec * SECOND + moment->tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_MONOTONIC && seconds)
        now->tv_sec += *seconds;
    if (result == 0 && clock == CLOCK_BOOTTIME && factor > 1)
        set(now, start + (get(now) - start) * factor);
    return result;
}

int timerfd_create(int clock, int flags)
{
    int handle = syscall(SYS_timerfd_create, clock, flags);
    if (handle >= 0 && handle < HANDLES)
        fast_timers[handle] = clock == CLOCK_BOOTTIME && factor > 1;
    return handle;
}

int timerfd_settime(int handle, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    struct itimerspec true_time = *value;
    if (handle >= 0 && handle < HANDLES && fast_timers[handle] && (flags & TFD_TIMER_ABSTIME))
        set(&true_time.it_value, start + (get(&value->it_value) - start) / factor);
    return syscall(SYS_timerfd_settime, handle, flags, &true_time, old);
}
