// Preloaded into the writer's process: the calls that write to its disk fail or stall from the n-th on.
// `refuse_arm` says which; `refuse_calls` how many calls there were.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;
static char folder[4096];
static long at, with, times, stall_ms;

// Below `below`, `fail_times` calls (0: all) from the `from`-th on (0: none) fail with `error`, or syncs stall (0).
void refuse_arm(const char *below, long from, long error, long fail_times, long stall) {
    strncpy(folder, below, sizeof folder - 1);
    at = from;
    with = error;
    times = fail_times;
    stall_ms = stall;
}

long refuse_calls(void) { return atomic_load(&calls); }

static int concerns(int fd) {
    char link[64], target[4096];
    if (!*folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    size_t depth = strlen(folder);
    return !strncmp(target, folder, depth) && target[depth] == '/' && !strstr(target, "-shm");
}

// 1 when this call is to fail; `syncs`: stalls instead when there is no errno
static int refused(int fd, int syncs) {
    int saved = errno;
    if (!concerns(fd)) {
        errno = saved;
        return 0;
    }
    long mine = atomic_fetch_add(&calls, 1) + 1;
    errno = saved;
    if (!at || mine < at || (times && mine >= at + times)) return 0;
    if (with) {
        errno = (int)with;
        return 1;
    }
    if (syncs) usleep(stall_ms * 1000);
    return 0;
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    return refused(fd, 0) ? -1 : NEXT(pwrite64)(fd, data, size, place);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    return refused(fd, 0) ? -1 : NEXT(pwrite)(fd, data, size, place);
}
ssize_t write(int fd, const void *data, size_t size) {
    return refused(fd, 0) ? -1 : NEXT(write)(fd, data, size);
}
int fdatasync(int fd) { return refused(fd, 1) ? -1 : NEXT(fdatasync)(fd); }
int fsync(int fd) { return refused(fd, 1) ? -1 : NEXT(fsync)(fd); }
int ftruncate64(int fd, off64_t size) { return refused(fd, 0) ? -1 : NEXT(ftruncate64)(fd, size); }
int ftruncate(int fd, off_t size) { return refused(fd, 0) ? -1 : NEXT(ftruncate)(fd, size); }
