// Calls operator new and operator delete in every form.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

static void fail(const char *what) {
    std::fprintf(stderr, "FAILED: %s\n", what);
    std::exit(1);
}

static void *used(void *block, std::size_t size, std::size_t align, const char *what) {
    if (block == nullptr || reinterpret_cast<std::uintptr_t>(block) % align != 0) fail(what);
    std::memset(block, 7, size);
    return block;
}

// The compiler cannot know this size, so it keeps the calls.
static volatile std::size_t impossible = std::size_t(1) << 62;

static void *volatile sink;

template <typename Call> static void throws(Call call, const char *what) {
    try {
        call();
    } catch (const std::bad_alloc &) {
        return;
    }
    fail(what);
}

static void every_form(std::size_t size) {
    const std::size_t least = 16;
    ::operator delete(used(::operator new(size), size, least, "new"));
    ::operator delete[](used(::operator new[](size), size, least, "new[]"));
    ::operator delete(used(::operator new(size), size, least, "new"), size);
    ::operator delete[](used(::operator new[](size), size, least, "new[]"), size);
    ::operator delete(used(::operator new(size, std::nothrow), size, least, "nothrow"), std::nothrow);
    ::operator delete[](used(::operator new[](size, std::nothrow), size, least, "nothrow[]"),
                        std::nothrow);
    for (std::size_t bytes = 32; bytes <= 1 << 16; bytes *= 8) {
        const std::align_val_t align{bytes};
        ::operator delete(used(::operator new(size, align), size, bytes, "aligned"), align);
        ::operator delete[](used(::operator new[](size, align), size, bytes, "aligned[]"), align);
        ::operator delete(used(::operator new(size, align), size, bytes, "aligned"), size, align);
        ::operator delete[](used(::operator new[](size, align), size, bytes, "aligned[]"), size,
                            align);
        ::operator delete(used(::operator new(size, align, std::nothrow), size, bytes, "both"),
                          align, std::nothrow);
        ::operator delete[](used(::operator new[](size, align, std::nothrow), size, bytes, "both[]"),
                            align, std::nothrow);
    }
}

static void failures(const char *when) {
    const std::align_val_t align{64};
    throws([] { sink = ::operator new(impossible); }, when);
    throws([] { sink = ::operator new[](impossible); }, when);
    throws([=] { sink = ::operator new(impossible, align); }, when);
    throws([=] { sink = ::operator new[](impossible, align); }, when);
    if (::operator new(impossible, std::nothrow) != nullptr) fail(when);
    if (::operator new[](impossible, std::nothrow) != nullptr) fail(when);
    if (::operator new(impossible, align, std::nothrow) != nullptr) fail(when);
    if (::operator new[](impossible, align, std::nothrow) != nullptr) fail(when);
}

static int calls = 0;

static void removes_itself() {
    if (++calls % 3 == 0) std::set_new_handler(nullptr);
}

static void *reserve = nullptr;

static void frees_the_reserve() {
    if (reserve == nullptr) std::set_new_handler(nullptr);
    ::operator delete(reserve);
    reserve = nullptr;
}

// Requests more memory than the limit allows, until a new-handler has freed enough memory.
static void a_handler_helps() {
    const std::size_t half = 600ul << 20;
    struct rlimit before, limit = {1ul << 30, RLIM_INFINITY};
    getrlimit(RLIMIT_AS, &before);
    limit.rlim_max = before.rlim_max;
    reserve = ::operator new(half);
    setrlimit(RLIMIT_AS, &limit);
    std::set_new_handler(frees_the_reserve);
    ::operator delete(used(::operator new(half), 100, 16, "the handler has freed memory"));
    if (reserve != nullptr) fail("the handler was not called");
    setrlimit(RLIMIT_AS, &before);
    std::set_new_handler(nullptr);
}

struct Guard {
    bool &left;
    ~Guard() { left = true; }
};

struct alignas(256) Wide {
    char bytes[300];
};

int main() {
    for (std::size_t size : {0, 1, 16, 100, 512, 513, 5000, 70000, 3000000}) every_form(size);
    ::operator delete(nullptr);
    ::operator delete[](nullptr, std::size_t(8));
    failures("without a handler");
    std::set_new_handler(removes_itself);
    throws([] { sink = ::operator new(impossible); }, "a handler");
    if (calls != 3) fail("the handler is called until it is removed");
    std::set_new_handler(removes_itself);
    if (::operator new(impossible, std::nothrow) != nullptr || calls != 6) fail("nothrow, a handler");
    std::set_new_handler([] { throw std::bad_alloc(); });
    failures("with a handler that throws");
    std::set_new_handler(nullptr);
    a_handler_helps();
    bool left = false;
    throws([&] {
        Guard guard{left};
        std::vector<char> bytes(impossible / 2);
    }, "a vector");
    if (!left) fail("destructors run when the exception passes");
    volatile std::size_t odd = 48;
    throws([&] { sink = ::operator new(8, std::align_val_t(odd)); }, "an invalid alignment");
    if (::operator new(8, std::align_val_t(odd), std::nothrow) != nullptr) fail("an invalid alignment");
    std::map<std::string, std::unique_ptr<Wide>> map;
    std::thread([&] {
        for (int i = 0; i < 1000; i++) map[std::to_string(i)] = std::make_unique<Wide>();
        throws([] { sink = ::operator new(impossible); }, "in a thread");
    }).join();
    for (auto &entry : map)
        if (reinterpret_cast<std::uintptr_t>(entry.second.get()) % 256 != 0) fail("a wide type");
    map.clear();
    std::puts("done");
}
