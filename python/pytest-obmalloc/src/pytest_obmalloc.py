"""A plugin of pytest: limits the memory of tests, and reports tests that leave blocks in use."""

import gc
import re
import tracemalloc

import pytest

_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}

# Fewer bytes are not reported, because pytest itself keeps some for each test: about 50 KB for the
# first one up to CPython 3.11.
_LEAST_LEAK = 64 << 10

_LEAKS = "obmalloc leaks"


def parse_size(text):
    """Returns the bytes of a size such as ``24 MB``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*", str(text), re.IGNORECASE)
    unit = match and match.group(2).upper().replace("I", "")
    if unit is not None and not unit.endswith("B"):
        unit += "B"
    if unit not in _UNITS:
        raise pytest.UsageError("limit_memory needs a size such as '24 MB', not %r" % (text,))
    return int(float(match.group(1)) * _UNITS[unit])


def pytest_addoption(parser):
    group = parser.getgroup("obmalloc")
    group.addoption(
        "--obmalloc-leaks",
        action="store_true",
        help="list the tests after which more bytes are in use on the heap than before",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "limit_memory(size): fail the test if it needs more memory at any moment"
    )
    config.stash[_FOUND] = []
    if config.getoption("--obmalloc-leaks"):
        if in_use() is None:
            raise pytest.UsageError(
                "--obmalloc-leaks needs the heap: obmalloc run -m pytest --obmalloc-leaks"
            )


_FOUND = pytest.StashKey()


def in_use():
    """Returns the bytes of blocks in use on the heap, or ``None`` without the heap."""
    try:
        import obmalloc

        heap = obmalloc.stats()["heap"]
    except (ImportError, RuntimeError):
        return None
    return heap and heap["bytes"]["in_use"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    marker = item.get_closest_marker("limit_memory")
    if marker is None:
        return (yield)
    limit = parse_size(marker.args[0] if marker.args else None)
    was_tracing = tracemalloc.is_tracing()
    if was_tracing:
        tracemalloc.clear_traces()
    else:
        tracemalloc.start(1)
    try:
        result = yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        if not was_tracing:
            tracemalloc.stop()
    if peak > limit:
        pytest.fail(
            "the test needed %.2f MB, and its limit is %.2f MB" % (peak / 2**20, limit / 2**20),
            pytrace=False,
        )
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    if not item.config.getoption("--obmalloc-leaks"):
        return (yield)
    gc.collect()
    before = in_use()
    result = yield
    gc.collect()
    after = in_use()
    if before is not None and after is not None and after - before >= _LEAST_LEAK:
        item.config.stash[_FOUND].append((after - before, item.nodeid))
    return result


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--obmalloc-leaks"):
        return
    found = sorted(config.stash[_FOUND], reverse=True)
    terminalreporter.section(_LEAKS)
    for size, name in found:
        terminalreporter.write_line("%10.1f KB  %s" % (size / 1024, name))
    if not found:
        terminalreporter.write_line("no test left %d KB or more" % (_LEAST_LEAK >> 10))
