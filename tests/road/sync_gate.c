/* After a sync that has succeeded, if the file named by SYNC_GATE exists: say so in SYNC_GATE.hit and wait for ever.
   So a process can be killed at the instant when its commit is durable and nobody knows it yet. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int gated(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    const char *gate = getenv("SYNC_GATE");
    char hit[4096];
    if (result == 0 && gate && access(gate, F_OK) == 0) {
        snprintf(hit, sizeof hit, "%s.hit", gate);
        close(open(hit, O_CREAT | O_WRONLY, 0600));
        for (;;) pause();
    }
    return result;
}

int fsync(int fd) { return gated("fsync", fd); }
int fdatasync(int fd) { return gated("fdatasync", fd); }
