// A library that is preloaded together with ours. Its constructor may run before ours.

#include <stdlib.h>
#include <string.h>
#include <stdio.h>

static char *kept;

__attribute__((constructor)) static void start(void) {
    kept = malloc(100);
    strcpy(kept, "kept since a constructor");
    for (size_t size = 1; size < 100000; size *= 3) free(malloc(size));
}

__attribute__((destructor)) static void end(void) {
    kept = realloc(kept, 100000);
    puts(kept);
    fflush(stdout);
    free(kept);
}
