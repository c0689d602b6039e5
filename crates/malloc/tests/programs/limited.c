/* Allocates small and large blocks until requests are refused, and then continues. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    if (malloc(100 << 20) || errno != ENOMEM)
        return 1;
    char *large = malloc(20 << 20);
    if (!large || realloc(large, 100 << 20))
        return 2;
    free(large);
    size_t count = 0;
    char *last = NULL, *block;
    while ((block = malloc(400))) {
        *(char **)block = last;
        last = block;
        count++;
    }
    if (errno != ENOMEM || count < 50000 || count > 90000)
        return 3;
    while (last) {
        block = last;
        last = *(char **)block;
        free(block);
    }
    return malloc(400) ? puts("done"), 0 : 4;
}
