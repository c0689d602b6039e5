// Calls the functions that obmalloc.h declares.

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include <obmalloc.h>

int main(void) {
    char *small = malloc(100), *large = malloc(10000000), *aligned = aligned_alloc(64, 640);
    obmalloc_figures_t figures = obmalloc_figures();
    if (small == NULL || large == NULL || aligned == NULL) return 1;
    if (figures.heaps != 1 || figures.in_use_bytes < 10000740) return 2;
    if (figures.mapped_bytes < figures.active_bytes || figures.active_bytes < 10000000) return 3;
    if (malloc_usable_size(small) < 100) return 4;
    free_sized(small, 100);
    free_aligned_sized(aligned, 64, 640);
    free(large);
    puts(obmalloc_version());
    return 0;
}
