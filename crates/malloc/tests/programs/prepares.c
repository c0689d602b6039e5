// A library that allocates memory before each fork. Its constructor runs before that of a preloaded
// library.

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 4 << 20 };

static int prepared;

int times_prepared(void) { return prepared; }

static void *works(void *unused) {
    // The thread opens its heap, and the library maps memory.
    memset(malloc(100), 1, 100);
    free(memset(malloc(LARGE), 1, LARGE));
    return unused;
}

static void prepare(void) {
    pthread_t thread;
    works(NULL);
    if (!pthread_create(&thread, NULL, works, NULL) && !pthread_join(thread, NULL)) prepared++;
}

static void release(void) { works(NULL); }

__attribute__((constructor)) static void start(void) { pthread_atfork(prepare, release, release); }
