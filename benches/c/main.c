// The command line of the programs, which is that of a worker:
//
//     c-programs list                  what it can run
//     c-programs run PROGRAM CHUNKS    runs a program once
//
// Each answer is a line of JSON (benches/src/protocol.rs). The allocator is whatever the dynamic
// loader binds `malloc` to.

#define _GNU_SOURCE

#include "support.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct entry {
    const char *name;
    program *run;
    // True if the program runs on as many threads as there are processors.
    int is_parallel;
};

static const struct entry PROGRAMS[] = {
    {"alloc-test, 1 thread", alloc_test, 0},
    {"alloc-test", alloc_test, 1},
    {"cache-scratch, 1 thread", cache_scratch, 0},
    {"cache-scratch", cache_scratch, 1},
    {"cache-thrash, 1 thread", cache_thrash, 0},
    {"cache-thrash", cache_thrash, 1},
    {"glibc-simple", glibc_simple, 0},
    {"glibc-thread", glibc_thread, 1},
    {"larson", larson, 1},
    {"malloc-large", malloc_large, 0},
    {"mstress", mstress, 1},
    {"rptest", rptest, 1},
    {"sh6bench", sh6bench, 1},
    {"sh8bench", sh8bench, 1},
    {"xmalloc-test", xmalloc, 1},
};

#define COUNT (sizeof PROGRAMS / sizeof PROGRAMS[0])

// Returns a number of KiB from the kernel's description of this process, in bytes.
static unsigned long long resident(const char *name) {
    char text[8192];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    text[length > 0 ? length : 0] = 0;
    const char *line = strstr(text, name);
    return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10) * 1024;
}

static void list(void) {
    int (*version)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "mi_version");
    char library[32] = "null";
    if (version != NULL) {
        int number = version();
        snprintf(library, sizeof library, "\"%d.%d.%d\"", number / 10000, number / 100 % 100,
                 number % 100);
    }
    printf("{\"library\":%s,\"workloads\":[", library);
    for (size_t place = 0; place < COUNT; place++)
        printf("%s{\"name\":\"%s\",\"group\":\"c\",\"weight\":\"heavy\"}", place ? "," : "",
               PROGRAMS[place].name);
    printf("]}\n");
}

static void run(const struct entry *entry) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = entry->is_parallel && processors > 1 ? (unsigned)processors : 1;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t operations = entry->run(threads);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double nanoseconds =
        (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"nanoseconds\":%f,\"peak\":%llu,\"end\":%llu,\"faults\":%ld,\"overhead\":null}\n",
           nanoseconds / (double)operations, resident("VmHWM:"), resident("VmRSS:"),
           usage.ru_minflt);
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "list") == 0) {
        list();
        return 0;
    }
    for (size_t place = 0; count == 4 && place < COUNT; place++) {
        if (strcmp(arguments[1], "run") == 0 && strcmp(arguments[2], PROGRAMS[place].name) == 0) {
            run(&PROGRAMS[place]);
            return 0;
        }
    }
    fprintf(stderr, "usage: list | run PROGRAM CHUNKS\n");
    return 1;
}
