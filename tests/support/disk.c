/* A disk that fails or stalls: LD_PRELOAD this, with DISK_STATE naming a file. While that file says
   "fail", "full" or "stall", no descriptor of a regular file under DISK_DIR can be written or synced
   (with "fail" and "stall": nor read). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int broken(int fd, int reading)
{
    char link[64], path[PATH_MAX], state[8] = "";
    const char *dir = getenv("DISK_DIR");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !dir || strncmp(path, dir, strlen(dir)))
        return 0;
    int file = syscall(SYS_openat, AT_FDCWD, getenv("DISK_STATE"), O_RDONLY);
    if (file < 0)
        return 0;
    syscall(SYS_read, file, state, sizeof state - 1);
    syscall(SYS_close, file);
    if (!strncmp(state, "stall", 5))
        for (;;)
            sleep(1000);
    if (!strncmp(state, "full", 4) && !reading)
        errno = ENOSPC;
    else if (!strncmp(state, "fail", 4))
        errno = EIO;
    else
        return 0;
    return 1;
}

#define WRAP(reading, type, name, parameters, arguments)             \
    type name parameters                                             \
    {                                                                \
        static type(*real) parameters;                               \
        if (!real)                                                   \
            real = dlsym(RTLD_NEXT, #name);                          \
        return broken(fd, reading) ? -1 : real arguments;            \
    }

WRAP(0, int, fsync, (int fd), (fd))
WRAP(0, int, fdatasync, (int fd), (fd))
WRAP(0, int, ftruncate, (int fd, off_t n), (fd, n))
WRAP(0, int, ftruncate64, (int fd, off64_t n), (fd, n))
WRAP(0, ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
WRAP(0, ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
WRAP(0, ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
WRAP(0, int, posix_fallocate, (int fd, off_t o, off_t n), (fd, o, n))
WRAP(0, int, fallocate, (int fd, int m, off_t o, off_t n), (fd, m, o, n))
WRAP(1, ssize_t, read, (int fd, void *b, size_t n), (fd, b, n))
WRAP(1, ssize_t, pread, (int fd, void *b, size_t n, off_t o), (fd, b, n, o))
WRAP(1, ssize_t, pread64, (int fd, void *b, size_t n, off64_t o), (fd, b, n, o))
