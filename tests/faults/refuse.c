// Preloaded into the writer's process: the calls that write to its disk fail or stall from the n-th on.
//
// REFUSE_FOLDER  only files below it count        REFUSE_AT     number of the first call that fails (from 1)
// REFUSE_WITH    errno, or 0: stall in fsync only REFUSE_TIMES  how many calls fail, 0: all from then on
// REFUSE_STALL_MS how long a stalled sync takes   REFUSE_COUNT  file that gets the number of calls at exit
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
static const char *folder;
static long at, with, times, stall_ms;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void) {
    folder = getenv("REFUSE_FOLDER");
    at = number("REFUSE_AT");
    with = number("REFUSE_WITH");
    times = number("REFUSE_TIMES");
    stall_ms = number("REFUSE_STALL_MS");
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("REFUSE_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "%ld\n", atomic_load(&calls));
        fclose(file);
    }
}

static int concerns(int fd) {
    char link[64], target[4096];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    return !strncmp(target, folder, strlen(folder)) && !strstr(target, "-shm");
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
