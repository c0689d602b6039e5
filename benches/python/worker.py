"""A worker that runs benchmarks of pyperformance in the Python that runs it.

    worker.py FOLDER list                what it can run, as a line of JSON
    worker.py FOLDER run NAME CHUNKS     a chunk to warm up, then so many that are measured

FOLDER has pyperformance's scripts. They ask pyperf to run and time their functions. Here `Runner`
takes the place of pyperf, so that everything happens in one process. The clock is that of pyperf,
because reading the processor time is a system call. A script that reads the clock in its inner loop
would mostly measure that call.
"""

import argparse
import json
import os
import platform
import resource
import runpy
import statistics
import sys
import time
import types

# A script, its arguments, the benchmark in it, and the loops of a chunk, which take some 40 ms.
BENCHMARKS = {
    "chaos": ("chaos", ["--iterations", "1500"], "chaos", 1),
    "comprehensions": ("comprehensions", [], "comprehensions", 1000),
    "deepcopy": ("deepcopy", [], "deepcopy", 80),
    "deltablue": ("deltablue", [], "deltablue", 8),
    "float": ("float", [], "float", 1),
    "generators": ("generators", [], "generators", 1),
    "hexiom": ("hexiom", [], "hexiom", 5),
    "json_dumps": ("json_dumps", [], "json_dumps", 4),
    "json_loads": ("json_loads", [], "json_loads", 60),
    "pickle_pure_python": ("pickle", ["--pure-python", "pickle"], "pickle_pure_python", 6),
    "raytrace": ("raytrace", ["--width", "40", "--height", "40"], "raytrace", 1),
    "unpickle_pure_python": ("pickle", ["--pure-python", "unpickle"], "unpickle_pure_python", 8),
    "xml_etree_process": ("xml_etree", ["process"], "xml_etree_process", 1),
}


class Done(Exception):
    """The benchmark has run. The rest of the script is not needed."""


class Runner:
    """Runs the wanted benchmark of a script."""

    wanted = None
    loops = 1
    chunks = 1
    taken = None

    def __init__(self, **_):
        self.metadata = {}
        self.argparser = argparse.ArgumentParser()
        self.args = None

    def parse_args(self, arguments=None):
        self.args = self.argparser.parse_args(arguments)
        return self.args

    def bench_func(self, name, function, *arguments, **_):
        def timed(loops):
            start = time.perf_counter()
            for _ in range(loops):
                function(*arguments)
            return time.perf_counter() - start

        self.run(name, timed)

    def bench_time_func(self, name, function, *arguments, **_):
        self.run(name, lambda loops: function(loops, *arguments))

    def run(self, name, timed):
        if name != Runner.wanted:
            return
        timed(Runner.loops)
        times = [timed(Runner.loops) for _ in range(Runner.chunks)]
        Runner.taken = statistics.median(times) / Runner.loops
        raise Done


def stand_in():
    """Returns what the scripts import as pyperf."""
    pyperf = types.ModuleType("pyperf")
    pyperf.Runner = Runner
    pyperf.perf_counter = time.perf_counter
    pyperf.python_implementation = lambda: platform.python_implementation().lower()
    return pyperf


def resident(name):
    """Returns the bytes that the kernel reports for this process under `name`, or 0."""
    try:
        with open("/proc/self/status") as status:
            lines = [line.split() for line in status if line.startswith(name)]
    except OSError:
        lines = []
    return int(lines[0][1]) * 1024 if lines else 0


def listed():
    workloads = [
        {"name": f"{platform.python_version()} {name}", "group": "python", "weight": "heavy"}
        for name in BENCHMARKS
    ]
    return {"library": None, "workloads": workloads}


def answer(folder, name, chunks):
    script, arguments, Runner.wanted, Runner.loops = BENCHMARKS[name.split(" ", 1)[1]]
    Runner.chunks = chunks
    path = os.path.join(folder, f"bm_{script}", "run_benchmark.py")
    sys.modules["pyperf"] = stand_in()
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    except Done:
        pass
    if Runner.taken is None:
        raise SystemExit(f"{path} has no benchmark {Runner.wanted}")
    peak = resident("VmHWM:")
    nanoseconds = Runner.taken * 1e9
    end = resident("VmRSS:")
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return {
        "nanoseconds": nanoseconds,
        "peak": peak,
        "end": end,
        "faults": faults,
        "overhead": None,
    }


def main():
    folder, command, *rest = sys.argv[1:]
    print(json.dumps(listed() if command == "list" else answer(folder, rest[0], int(rest[1]))))


main()
