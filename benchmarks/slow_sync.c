/* A disk that takes longer to sync: LD_PRELOAD this, with SYNC_DELAY_MS milliseconds to be added to
   each fsync and fdatasync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static void delay(void)
{
    const char *text = getenv("SYNC_DELAY_MS");
    long ms = text ? atol(text) : 0;
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

#define DELAYED(name)                                 \
    int name(int fd)                                  \
    {                                                 \
        static int (*real)(int);                      \
        if (!real)                                    \
            real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        delay();                                      \
        return real(fd);                              \
    }

DELAYED(fsync)
DELAYED(fdatasync)
