"""Runs a workload that needs much memory for a while, and prints how much stays resident.

    memory.py list                  the names of the workloads, as JSON
    memory.py run NAME [TRIM]       samples over time, as a line of JSON (benches/src/memory/mod.rs)

TRIM is the name of a C function that returns unused memory to the system. It is called whenever the
workload has freed much memory. The workloads are those of benches/src/memory/workloads.rs.

Functions import the modules that they need, so that no workload pays for the modules of another one.
"""

import os
import sys
import time

MIB = 1 << 20
PAGE = 4096
PAUSE = 0.02

# The bytes that the garbage collector keeps before an object, such as a tuple.
BEFORE = 16


def resident():
    """Returns the resident memory of this process in bytes."""
    with open("/proc/self/statm", "rb", 0) as statm:
        return int(statm.read().split()[1]) * PAGE


def pages(live):
    """Returns the bytes of the pages that hold a part of an object in the lists `live`.

    A child process counts them, so that the memory of this process does not change.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = set()
        for objects in live:
            for one in objects:
                size = one.__sizeof__()
                begin = id(one) - (BEFORE if type(one) is tuple else 0)
                seen.update(range(begin // PAGE, (id(one) + size - 1) // PAGE + 1))
        os.write(writer, str(len(seen) * PAGE).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb", 0) as file:
        counted = int(file.read())
    os.waitpid(child, 0)
    return counted


class Recorder:
    """Takes samples of the memory of this process."""

    def __init__(self, trim):
        self.start = time.monotonic()
        self.spent = 0.0
        self.samples = []
        self.trim = trim

    def count(self, nbytes, *live, at=None):
        """Takes a sample, and counts the pages with objects of the lists `live`."""
        before = time.process_time()
        rss = resident()
        at = time.monotonic() - self.start if at is None else at
        self.samples.append((at, nbytes, pages(live), rss))
        self.spent += time.process_time() - before

    def glance(self, nbytes):
        """Takes a sample of the resident memory alone."""
        self.samples.append((time.monotonic() - self.start, nbytes, None, resident()))

    def answer(self):
        keys = ("at", "live", "pages", "resident")
        return {
            "samples": [dict(zip(keys, sample)) for sample in self.samples],
            "seconds": time.process_time() - self.spent,
        }


class Objects:
    """Live objects and the sum of their sizes."""

    def __init__(self, seed):
        import random

        self.random = random.Random(seed)
        self.live = []
        self.bytes = 0

    def fill(self, nbytes):
        """Adds objects of sizes as programs have them, until there are `nbytes` bytes."""
        drawn, size_of, add = self.random.random, sys.getsizeof, self.live.append
        total = self.bytes
        while total < nbytes:
            kind = drawn()
            if kind < 0.3:
                one = bytes(int(drawn() * 96))
            elif kind < 0.5:
                one = tuple([None] * int(1 + drawn() * 8))
            elif kind < 0.7:
                one = drawn()
            elif kind < 0.95:
                one = bytes(96 + int(drawn() * 384))
            elif kind < 0.99:
                one = bytes(512 << int(drawn() * 4))
            else:
                one = bytes(8192 << int(drawn() * 3))
            total += size_of(one)
            add(one)
        self.bytes = total

    def keep(self, kept, stays):
        """Drops the objects for which `stays` returns false, and moves the others to `kept`."""
        left = [one for place, one in enumerate(self.live) if stays(place)]
        self.clear()
        kept.live += left
        kept.bytes += sum(map(sys.getsizeof, left))

    def forget(self, most):
        """Drops the oldest objects until `most` are left."""
        excess = max(len(self.live) - most, 0)
        self.bytes -= sum(map(sys.getsizeof, self.live[:excess]))
        del self.live[:excess]

    def clear(self):
        self.live = []
        self.bytes = 0


def idle(seconds):
    """Waits, and then makes some small requests, as an idle program does."""
    time.sleep(max(seconds, 0))
    [bytes(67) for _ in range(1000)]


def rounds(recorder):
    base, built, kept = Objects(1), Objects(2), Objects(3)
    base.fill(32 * MIB)
    recorder.count(base.bytes, base.live)
    for _ in range(50):
        built.fill(48 * MIB)
        recorder.glance(base.bytes + built.bytes + kept.bytes)
        built.keep(kept, lambda place: place % 10_000 == 0)
        kept.forget(100)
        recorder.trim()
        recorder.glance(base.bytes + kept.bytes)
        idle(PAUSE)
        recorder.count(base.bytes + kept.bytes, base.live, kept.live)


class Server:
    """What a worker of a web server keeps between requests."""

    def __init__(self):
        self.base, self.request, self.kept = Objects(1), Objects(2), Objects(3)
        self.base.fill(48 * MIB)

    def serve(self, recorder, glances):
        drawn = self.request.random.random
        self.request.fill(int(MIB * 50 ** drawn()))
        if glances:
            recorder.glance(self.live())
        self.request.keep(self.kept, lambda _: drawn() < 0.001)
        self.kept.forget(1_000)

    def live(self):
        return self.base.bytes + self.request.bytes + self.kept.bytes

    def count(self, recorder, at=None):
        recorder.count(self.live(), self.base.live, self.kept.live, at=at)


def requests(recorder):
    server = Server()
    server.count(recorder)
    for number in range(1, 151):
        server.serve(recorder, True)
        recorder.trim()
        recorder.glance(server.live())
        if number % 10 == 0:
            idle(PAUSE)
            server.count(recorder)


BY_HOUR = [1, 0, 0, 0, 0, 1, 2, 3, 4, 6, 6, 6, 5, 6, 6, 6, 5, 4, 4, 3, 3, 2, 2, 1]


def week(recorder):
    server = Server()
    for hour in range(7 * len(BY_HOUR)):
        end = time.monotonic() + 0.05
        for _ in range(BY_HOUR[hour % len(BY_HOUR)]):
            server.serve(recorder, False)
        recorder.trim()
        idle(end - time.monotonic())
        if hour % 3 == 0:
            server.count(recorder, at=float(hour))


def survivors(recorder, every, at_random):
    count = 3_400_000
    recorder.count(0)
    # An object of this type has 33 bytes more.
    built = [bytes(47) for _ in range(count)]
    recorder.glance(count * 80)
    if at_random:
        import random

        drawn = random.Random(3).random
        kept = [one for one in built if drawn() * every < 1]
    else:
        kept = built[::every]
    del built
    recorder.trim()
    for _ in range(100):
        recorder.glance(len(kept) * 80)
        idle(PAUSE)
    recorder.count(len(kept) * 80, kept)


SIZES = [48, 96, 64, 200, 80, 512, 160, 1000, 72, 4000, 48]


def changing_sizes(recorder):
    import random

    most = 32 * MIB
    shuffled = random.Random(4).shuffle
    old = [bytes(SIZES[0] - 33) for _ in range(most // SIZES[0])]
    recorder.count(most, old)
    for size, before in zip(SIZES[1:], SIZES):
        shuffled(old)
        new, freed = [], 0
        for step in range(8):
            for _ in range(len(old) // (8 - step)):
                old.pop()
                freed += before
                while freed >= size:
                    new.append(bytes(size - 33))
                    freed -= size
            recorder.trim()
            recorder.glance(most)
        old = new
        recorder.count(most, old)


def idle_threads(recorder):
    import threading

    threads, peaks = 16, 3
    phase = threading.Barrier(threads + 1)

    def work(seed):
        objects = Objects(seed)
        for _ in range(peaks):
            phase.wait()
            objects.fill(8 * MIB)
            phase.wait()
            phase.wait()
            objects.clear()
            phase.wait()

    started = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    [thread.start() for thread in started]
    recorder.glance(0)
    for _ in range(peaks):
        phase.wait()
        phase.wait()
        recorder.glance(threads * 8 * MIB)
        phase.wait()
        phase.wait()
        recorder.trim()
        for _ in range(50):
            recorder.glance(0)
            idle(PAUSE)
    [thread.join() for thread in started]


WORKLOADS = {
    "rounds": rounds,
    "requests": requests,
    "1 in 10 survives": lambda recorder: survivors(recorder, 10, False),
    "1 in 100 survives": lambda recorder: survivors(recorder, 100, False),
    "1 in 1,000 survives": lambda recorder: survivors(recorder, 1_000, False),
    "1 in 10,000 survives": lambda recorder: survivors(recorder, 10_000, False),
    "1 in 100 survives, at random": lambda recorder: survivors(recorder, 100, True),
    "1 in 1,000 survives, at random": lambda recorder: survivors(recorder, 1_000, True),
    "changing sizes": changing_sizes,
    "idle threads": idle_threads,
    "a week of requests": week,
}


def trimmer(name):
    """Returns a function that calls the C function `name` of the process."""
    import ctypes

    try:
        function = ctypes.CDLL(None)[name]
    except AttributeError:
        raise SystemExit(f"no library has the function {name}") from None
    function.argtypes = [ctypes.c_size_t]
    return lambda: function(0)


def main():
    command, *rest = sys.argv[1:]
    if command == "list":
        import json

        print(json.dumps(list(WORKLOADS)))
        return
    name, *trim = rest
    recorder = Recorder(trimmer(trim[0]) if trim else lambda: None)
    WORKLOADS[name](recorder)
    import json

    print(json.dumps(recorder.answer()))


if __name__ == "__main__":
    main()
