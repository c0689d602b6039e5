// Loads a C++ library with RTLD_LOCAL, and calls one of its functions.

#include <dlfcn.h>
#include <stdio.h>

int main(int count, char **arguments) {
    void *plugin = count > 1 ? dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (plugin == NULL) return 1;
    int (*attempt)(void) = (int (*)(void))dlsym(plugin, "attempt");
    printf("%d\n", attempt());
    return 0;
}
