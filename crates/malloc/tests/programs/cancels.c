// Allocates and frees memory for 0.4 seconds in a thread that has been cancelled. The thread must end
// only at its own cancellation point, and must not leave a lock locked. With an argument, the thread
// also raises SIGUSR2.

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile int has_finished;
static void *volatile block;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void *work(void *signals) {
    pthread_cancel(pthread_self());
    for (double end = now() + 0.4; now() < end;) {
        void *blocks[300];
        for (int nth = 0; nth < 300; nth++) blocks[nth] = block = malloc(nth * 100);
        for (int nth = 0; nth < 300; nth++) free(blocks[nth]);
        block = malloc(10000000);
        memset(block, 1, 10000000);
        free(block);
        if (signals) raise(SIGUSR2);
    }
    has_finished = 1;
    pthread_testcancel();
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    void *result = NULL;
    if (pthread_create(&thread, NULL, work, argc > 1 ? argv : NULL)) return 1;
    pthread_join(thread, &result);
    printf("%d %d\n", has_finished, result == PTHREAD_CANCELED);
    fflush(stdout);
    for (int nth = 0; nth < 300; nth++) block = malloc(nth * 10000);
    puts("done");
    return 0;
}
