/* Preloaded into the service: adds to the monotonic clock what a page shared with the test says (clock.py). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *seconds;

__attribute__((constructor)) static void open_page(void)
{
    const char *path = getenv("CLOCK_PAGE");
    int handle = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = handle < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, handle, 0);
    if (mapped != MAP_FAILED)
        seconds = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_MONOTONIC && seconds)
        now->tv_sec += *seconds;
    return result;
}
