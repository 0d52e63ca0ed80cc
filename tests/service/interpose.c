/* Preloaded into the service: does something at the n-th system call of some kinds.

   What, when and on which file is told through a page that is shared with the test (rig.py): a signal to
   ourselves, of which SIGKILL is a power cut; an error that a failing medium gives; success without doing anything; or a wait that
   the test ends.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, SYNC = 4, RENAME = 8 };        /* kinds */
enum { NOTHING, SIGNAL, FAIL, FAIL_FROM_NOW_ON, HOLD, FORGET };    /* actions */
enum { FORGOTTEN = -1 };

static struct page {
    uint32_t kinds;
    int32_t countdown;   /* calls until the action */
    uint32_t action;
    int32_t argument;    /* signal or errno */
    uint32_t seen;       /* calls of these kinds */
    uint32_t acted;
    char file[256];      /* a part of its path; empty: any file */
} volatile *page;

__attribute__((constructor)) static void open_page(void)
{
    const char *path = getenv("INTERPOSE_PAGE");
    int handle = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = handle < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    if (mapped != MAP_FAILED)
        page = mapped;
}

/* 0: go on; FORGOTTEN: say that it is done; else the errno to fail with. */
static int meet(uint32_t kind, int handle, const char *path)
{
    char link[64], target[4096];
    if (!page || !(page->kinds & kind))
        return 0;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
        ssize_t length = readlink(link, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        path = target;
    }
    if (page->file[0] && !strstr(path, (const char *)page->file))
        return 0;
    __atomic_fetch_add(&page->seen, 1, __ATOMIC_SEQ_CST);
    int left = __atomic_sub_fetch(&page->countdown, 1, __ATOMIC_SEQ_CST);
    if (left > 0 || (left < 0 && page->action != FAIL_FROM_NOW_ON))
        return 0;
    page->acted = 1;
    switch (page->action) {
    case SIGNAL:
        kill(getpid(), page->argument);
        return 0;
    case FAIL:
    case FAIL_FROM_NOW_ON:
        return page->argument;
    case FORGET:
        return FORGOTTEN;
    case HOLD:
        while (page->action == HOLD)
            usleep(500);
    }
    return 0;
}

#define INTERPOSE(type, name, kind, handle, path, done, parameters, arguments) \
    type name parameters                                                    \
    {                                                                       \
        static type (*real) parameters;                                     \
        if (!real)                                                          \
            real = (type (*) parameters)dlsym(RTLD_NEXT, #name);            \
        int error = meet(kind, handle, path);                               \
        if (error == FORGOTTEN)                                             \
            return done;                                                    \
        if (error) {                                                        \
            errno = error;                                                  \
            return -1;                                                      \
        }                                                                   \
        return real arguments;                                              \
    }

INTERPOSE(ssize_t, pread64, READ, f, NULL, n, (int f, void *b, size_t n, off64_t o), (f, b, n, o))
INTERPOSE(ssize_t, preadv64v2, READ, f, NULL, 0,
          (int f, const struct iovec *v, int n, off64_t o, int g), (f, v, n, o, g))
INTERPOSE(ssize_t, pwrite64, WRITE, f, NULL, n, (int f, const void *b, size_t n, off64_t o), (f, b, n, o))
INTERPOSE(int, fdatasync, SYNC, f, NULL, 0, (int f), (f))
INTERPOSE(int, fsync, SYNC, f, NULL, 0, (int f), (f))
INTERPOSE(int, rename, RENAME, -1, b, 0, (const char *a, const char *b), (a, b))
