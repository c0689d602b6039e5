#include "support.h"

#include <stdio.h>

#define MOST_THREADS 64

struct start {
    unsigned number;
    void (*work)(unsigned number, void *context);
    void *context;
};

void fail(const char *what) {
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

static void *begin(void *argument) {
    struct start *start = argument;
    start->work(start->number, start->context);
    return NULL;
}

void on_threads(unsigned count, void (*work)(unsigned number, void *context), void *context) {
    pthread_t threads[MOST_THREADS];
    struct start starts[MOST_THREADS];
    if (count > MOST_THREADS)
        fail("starting so many threads");
    for (unsigned number = 0; number < count; number++) {
        starts[number] = (struct start){number, work, context};
        if (pthread_create(&threads[number], NULL, begin, &starts[number]) != 0)
            fail("pthread_create");
    }
    for (unsigned number = 0; number < count; number++)
        pthread_join(threads[number], NULL);
}
