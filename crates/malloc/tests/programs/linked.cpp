// Includes obmalloc.h together with C++ headers.

#include <cstdio>
#include <cstdlib>
#include <new>

#include <obmalloc.h>

int main() {
    int *volatile number = new int(7);
    if (obmalloc_figures().in_use_bytes < sizeof *number) return 1;
    delete number;
    free_sized(std::malloc(8), 8);
    std::puts(obmalloc_version());
}
