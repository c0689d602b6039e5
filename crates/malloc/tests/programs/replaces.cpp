// Replaces some forms of operator new and operator delete. The standard says which of the others
// then call them. A block that passes only one form of a pair is corrupted, because each
// replacement keeps a header before its blocks.
//
// REPLACES_ARRAY and REPLACES_ALIGNED say which forms are replaced besides the basic ones.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

enum Form { OBJECT, ARRAY, ALIGNED, FORMS };

struct Header {
    std::size_t mark;
    std::size_t form;
};

static int taken[FORMS], given[FORMS];
static bool fails = false;

static void fail(const char *what) {
    std::fprintf(stderr, "FAILED: %s\n", what);
    std::exit(1);
}

static void *take(std::size_t size, std::size_t align, Form form) {
    taken[form]++;
    if (fails) throw std::bad_alloc();
    const std::size_t before = align > sizeof(Header) ? align : sizeof(Header);
    char *start = static_cast<char *>(std::aligned_alloc(before, before + size));
    if (start == nullptr) throw std::bad_alloc();
    Header *header = reinterpret_cast<Header *>(start + before) - 1;
    header->mark = 0x600d;
    header->form = form;
    return start + before;
}

static void give(void *block, std::size_t align, Form form) {
    given[form]++;
    if (block == nullptr) return;
    const std::size_t before = align > sizeof(Header) ? align : sizeof(Header);
    Header *header = reinterpret_cast<Header *>(block) - 1;
    if (header->mark != 0x600d || header->form != std::size_t(form)) fail("another form's block");
    header->mark = 0;
    std::free(static_cast<char *>(block) - before);
}

void *operator new(std::size_t size) { return take(size, 0, OBJECT); }
void operator delete(void *block) noexcept { give(block, 0, OBJECT); }

#ifdef REPLACES_ARRAY
void *operator new[](std::size_t size) { return take(size, 0, ARRAY); }
void operator delete[](void *block) noexcept { give(block, 0, ARRAY); }
static const Form of_arrays = ARRAY;
#else
static const Form of_arrays = OBJECT;
#endif

#ifdef REPLACES_ALIGNED
void *operator new(std::size_t size, std::align_val_t) { return take(size, 64, ALIGNED); }
void operator delete(void *block, std::align_val_t) noexcept { give(block, 64, ALIGNED); }
static const Form of_aligned = ALIGNED;
#else
static const Form of_aligned = FORMS;
#endif

static const std::align_val_t align{64};
static void *volatile block;

// Calls one form of operator new and one of operator delete. Checks that each calls the
// replacement for `form` once and no other one.
template <typename New, typename Delete>
static void pair(New make, Delete end, Form form, const char *what) {
    int before[2][FORMS];
    std::memcpy(before[0], taken, sizeof taken);
    std::memcpy(before[1], given, sizeof given);
    block = make();
    if (block == nullptr) fail(what);
    std::memset(block, 7, 100);
    end();
    for (int other = 0; other < FORMS; other++) {
        const int calls = other == form;
        if (taken[other] - before[0][other] != calls) fail(what);
        if (given[other] - before[1][other] != calls) fail(what);
    }
}

template <typename New> static void is_null(New make, const char *what) {
    fails = true;
    block = make();
    fails = false;
    if (block != nullptr) fail(what);
}

template <typename New> static void throws(New make, const char *what) {
    fails = true;
    try {
        block = make();
    } catch (const std::bad_alloc &) {
        fails = false;
        return;
    }
    fail(what);
}

int main() {
    const std::size_t size = 100;
    const auto news = {+[] { return ::operator new(size); },
                       +[] { return ::operator new(size, std::nothrow); }};
    const auto deletes = {+[] { ::operator delete(block); }, +[] { ::operator delete(block, size); },
                          +[] { ::operator delete(block, std::nothrow); }};
    for (auto make : news)
        for (auto end : deletes) pair(make, end, OBJECT, "a form for objects");

    const auto array_news = {+[] { return ::operator new[](size); },
                             +[] { return ::operator new[](size, std::nothrow); }};
    const auto array_deletes = {+[] { ::operator delete[](block); },
                                +[] { ::operator delete[](block, size); },
                                +[] { ::operator delete[](block, std::nothrow); }};
    for (auto make : array_news)
        for (auto end : array_deletes) pair(make, end, of_arrays, "a form for arrays");

    const auto aligned_news = {+[] { return ::operator new(size, align); },
                               +[] { return ::operator new[](size, align); },
                               +[] { return ::operator new(size, align, std::nothrow); },
                               +[] { return ::operator new[](size, align, std::nothrow); }};
    const auto aligned_deletes = {+[] { ::operator delete(block, align); },
                                  +[] { ::operator delete(block, size, align); },
                                  +[] { ::operator delete(block, align, std::nothrow); },
                                  +[] { ::operator delete[](block, align); },
                                  +[] { ::operator delete[](block, size, align); },
                                  +[] { ::operator delete[](block, align, std::nothrow); }};
    for (auto make : aligned_news)
        for (auto end : aligned_deletes) pair(make, end, of_aligned, "a form with an alignment");

    throws([] { return ::operator new(size); }, "new");
    throws([] { return ::operator new[](size); }, "new[]");
    is_null([] { return ::operator new(size, std::nothrow); }, "nothrow new");
    is_null([] { return ::operator new[](size, std::nothrow); }, "nothrow new[]");
    if (of_aligned == ALIGNED) {
        throws([] { return ::operator new(size, align); }, "aligned new");
        throws([] { return ::operator new[](size, align); }, "aligned new[]");
        is_null([] { return ::operator new(size, align, std::nothrow); }, "aligned nothrow new");
        is_null([] { return ::operator new[](size, align, std::nothrow); }, "aligned nothrow new[]");
    }
    std::puts("done");
}
