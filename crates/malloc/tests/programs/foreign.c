// Frees memory that no allocator returned.

#include <stdlib.h>

static char memory[1000];

int main(void) {
    char *volatile middle = memory + 512;
    free(middle);
    return 0;
}
