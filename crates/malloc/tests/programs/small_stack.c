/* Asks for figures in a thread with the smallest stack that the C library allows. */

#define _GNU_SOURCE
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <obmalloc.h>

/* mallinfo is deprecated. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void *counts(void *unused)
{
    void *block = malloc(100000);
    struct mallinfo2 figures = mallinfo2();
    if (figures.uordblks < 100000 || obmalloc_figures().in_use_bytes < 100000)
        return NULL;
    if (mallinfo().uordblks < 100000)
        return NULL;
    free(block);
    return unused;
}

int main(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    void *result;
    int argument;
    if (pthread_attr_init(&attributes))
        return 1;
    if (pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN))
        return 2;
    if (pthread_create(&thread, &attributes, counts, &argument))
        return 3;
    if (pthread_join(thread, &result) || result != &argument)
        return 4;
    puts("done");
    return 0;
}
