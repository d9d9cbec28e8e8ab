/* What a disk is asked for, and how long it takes: counts every fsync and fdatasync of a process in the file
   SYNC_COUNTS (two 64-bit numbers, mapped, so that others read them while it runs), and sleeps SYNC_DELAY_US after
   each; below zero, nothing is synced at all. SQLite calls the C library for both, so nothing of this is in the product. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint64_t *counts;
static struct timespec delay;
static int never;
static int (*real_fsync)(int), (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void) {
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *text = getenv("SYNC_DELAY_US");
    long us = text ? atol(text) : 0;
    never = us < 0;
    if (!never) delay = (struct timespec){ us / 1000000, us % 1000000 * 1000 };
    const char *path = getenv("SYNC_COUNTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) counts = mapped;
    close(file);
}

static int synced(int result, int which) {
    if (counts) counts[which]++;
    if (delay.tv_sec || delay.tv_nsec) nanosleep(&delay, NULL);
    return result;
}

int fsync(int file) { return synced(never ? 0 : real_fsync(file), 0); }
int fdatasync(int file) { return synced(never ? 0 : real_fdatasync(file), 1); }
