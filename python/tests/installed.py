"""Tests of the installed package, run by a Python of each environment."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import obmalloc

from support import IN_FORCE, environment, main

# Every process prints whether the heap is in force in it.
MULTIPROCESSING = """
import multiprocessing, sys
import obmalloc

def check(queue):
    queue.put(obmalloc.stats()["in_force"])

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    processes = [context.Process(target=check, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    print([obmalloc.stats()["in_force"]] + found)
"""

ENSURE = """
import os, sys
first = os.getpid() if len(sys.argv) < 3 else int(sys.argv[2])
import obmalloc
obmalloc.ensure()
print(obmalloc.stats()["in_force"], sys.argv[1:], sys.flags.optimize)
"""


def run(*words, **options):
    options.setdefault("env", environment())
    return subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=120,
        **options
    )


class Installed(unittest.TestCase):
    def succeeds(self, *words, **options):
        done = run(*words, **options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return done.stdout

    def test_the_program_runs_this_python_on_the_heap(self):
        program = obmalloc.program()
        out = self.succeeds(program, "run", "--python", sys.executable, "-c", IN_FORCE)
        self.assertEqual(out, "True\n")

    def test_python_m_obmalloc_runs_the_python_that_runs_it(self):
        code = IN_FORCE + "; import sys; print(sys.executable)"
        out = self.succeeds(sys.executable, "-m", "obmalloc", "run", "-c", code)
        self.assertEqual(out, "True\n%s\n" % sys.executable)

    def test_python_m_obmalloc_does_not_pass_on_the_signals_that_python_ignores(self):
        shown = ["grep", "^SigIgn", "/proc/self/status"]
        out = self.succeeds(sys.executable, "-m", "obmalloc", "run", "--", *shown)
        self.assertEqual(out, self.succeeds(*shown))

    def test_the_doctor_says_that_the_heap_is_in_force_in_a_process_and_its_child(self):
        out = self.succeeds(sys.executable, "-m", "obmalloc", "doctor", "--json")
        processes = json.loads(out)["processes"]
        self.assertEqual([process["in_force"] for process in processes], [True, True])

    def test_every_start_method_of_multiprocessing_has_the_heap(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "program.py")
            with open(path, "w") as file:
                file.write(MULTIPROCESSING)
            for method in multiprocessing.get_all_start_methods():
                out = self.succeeds(sys.executable, "-m", "obmalloc", "run", path, method)
                self.assertEqual(out, "[True, True, True]\n", method)

    def test_statistics_are_a_dictionary(self):
        code = "import obmalloc; print(obmalloc.stats()['heap']['bytes']['in_use'] > 10000)"
        out = self.succeeds(sys.executable, "-m", "obmalloc", "run", "-c", code)
        self.assertEqual(out, "True\n")

    def test_statistics_are_available_after_the_library_file_was_replaced(self):
        code = (
            "import obmalloc, os, shutil, sys\n"
            "path = os.path.join(sys.argv[1], 'libobmalloc_cpython.so')\n"
            "shutil.copy(path, path + '.new'); os.replace(path + '.new', path)\n"
            "print(obmalloc.is_loaded(), obmalloc.stats()['in_force'])\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(obmalloc.library(), folder)
            env = dict(environment(), OBMALLOC_LIBDIR=folder)
            words = [obmalloc.program(), "run", "--python", sys.executable, "-c", code, folder]
            result = run(*words, env=env)
            self.assertEqual(result.stdout, "True True\n", result.stderr)

    def test_a_trim_returns_bytes_if_the_library_can_trim(self):
        code = (
            "import ctypes, obmalloc\n"
            "can = hasattr(ctypes.PyDLL(obmalloc.library()), 'obmalloc_trim')\n"
            "try: print(can, obmalloc.trim() >= 0)\n"
            "except obmalloc.NotLoaded as error: print(can, 'has no function' not in str(error))\n"
        )
        out = self.succeeds(sys.executable, "-m", "obmalloc", "run", "-c", code)
        self.assertIn(out, ["True True\n", "False False\n"])

    def test_a_subinterpreter_can_trim(self):
        """Regression test: up to CPython 3.11, the trim waited for the GIL that its thread held."""
        code = (
            "import sys\n"
            "try: import _interpreters as interpreters\n"
            "except ImportError: import _xxsubinterpreters as interpreters\n"
            "with_ctypes = {(3, 12): {'isolated': False}}.get(sys.version_info[:2], {})\n"
            "kind = ['legacy'] if sys.version_info >= (3, 13) else []\n"
            "created = interpreters.create(*kind, **with_ctypes)\n"
            "trim = 'import obmalloc; print(obmalloc.trim() >= 0, flush=True)'\n"
            "failure = interpreters.run_string(created, trim)\n"
            "assert failure is None, failure\n"
            "interpreters.destroy(created)\n"
        )
        if sys.version_info < (3, 8):
            self.skipTest("this Python cannot create a subinterpreter")
        out = self.succeeds(sys.executable, "-m", "obmalloc", "run", "-c", code)
        self.assertEqual(out, "True\n")

    def test_without_the_library_functions_say_so(self):
        self.assertFalse(obmalloc.is_loaded())
        for function in (obmalloc.stats, obmalloc.trim):
            with self.assertRaisesRegex(obmalloc.NotLoaded, "obmalloc run"):
                function()

    def test_ensure_starts_a_program_a_module_or_code_again(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "again.py")
            with open(path, "w") as file:
                file.write(ENSURE)
            out = self.succeeds(sys.executable, "-O", path, "x")
            self.assertEqual(out, "True ['x'] 1\n")
            out = self.succeeds(sys.executable, "-m", "again", "-v", cwd=folder)
            self.assertEqual(out, "True ['-v'] 0\n")
            out = self.succeeds(sys.executable, "-c", ENSURE, "-v")
            self.assertEqual(out, "True ['-v'] 0\n")

    def test_ensure_keeps_the_process(self):
        code = ENSURE + "print(os.getpid())"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment()
        )
        out = process.communicate(timeout=60)[0].decode()
        self.assertEqual(out.split()[-1], str(process.pid))

    def test_ensure_refuses_a_program_from_stdin(self):
        done = run(sys.executable, input=ENSURE)
        self.assertIn("came from stdin", done.stderr)
        self.assertEqual(done.returncode, 1)
        done = run(sys.executable, input=ENSURE, env=environment(OBMALLOC="off"))
        self.assertNotIn("came from stdin", done.stderr)

    def test_the_header_and_both_libraries_are_there(self):
        folder = os.path.dirname(obmalloc.__file__)
        for part in ("lib/libobmalloc.so", "lib/libobmalloc_cpython.so", "include/obmalloc.h"):
            self.assertTrue(os.path.exists(os.path.join(folder, part)), part)
        code = "print('libobmalloc.so' in open('/proc/self/maps').read())"
        out = self.succeeds(sys.executable, "-m", "obmalloc", "run", "--malloc", "-c", code)
        self.assertEqual(out, "True\n")


if __name__ == "__main__":
    main()
