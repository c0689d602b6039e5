// A C++ library that a C program loads with RTLD_LOCAL, together with the C++ runtime.

#include <cstddef>
#include <new>

static volatile std::size_t impossible = std::size_t(1) << 62;
static void *volatile sink;

// Makes requests that cannot be served. Returns how many of them failed as the standard requires.
extern "C" int attempt() {
    int right = 0;
    try {
        sink = ::operator new(impossible);
    } catch (const std::bad_alloc &) {
        right++;
    }
    std::set_new_handler([] { throw std::bad_alloc(); });
    try {
        sink = ::operator new[](impossible, std::align_val_t(64));
    } catch (const std::bad_alloc &) {
        right++;
    }
    right += ::operator new(impossible, std::nothrow) == nullptr;
    right += ::operator new[](impossible, std::align_val_t(64), std::nothrow) == nullptr;
    sink = new int[100];
    delete[] static_cast<int *>(sink);
    return right;
}
