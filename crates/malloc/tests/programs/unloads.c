// Loads the library late, uses it, closes it, and ends with quick_exit.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    void *library = count > 1 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) return 1;
    void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
    void (*release)(void *) = (void (*)(void *))dlsym(library, "free");
    char *block = allocate(100);
    memset(block, 7, 100);
    if (dlclose(library)) return 2;
    Dl_info found;
    if (!dladdr((void *)release, &found)) {
        fputs("the library was unloaded\n", stderr);
        fflush(stderr);
    } else {
        release(block);
    }
    raise(SIGUSR2);
    if (fork() == 0) _exit(0);
    puts("done");
    fflush(stdout);
    quick_exit(0);
}
