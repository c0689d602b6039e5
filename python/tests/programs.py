"""Tests of servers and tools on the heap. The environment needs gunicorn, ipykernel and pytest."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from support import environment, main

APPLICATION = """
import json, os
import obmalloc

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    found = {"pid": os.getpid(), "in_force": obmalloc.stats()["in_force"]}
    return [json.dumps(found).encode()]
"""

PLUGIN = """
import pytest

@pytest.mark.limit_memory("1 MB")
def test_small():
    bytes(1000)

@pytest.mark.limit_memory("1 MB")
def test_large():
    bytes(3000000)

kept = []

def test_leak():
    kept.extend([n] for n in range(10000))
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Programs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def put(self, name, text):
        with open(os.path.join(self.folder.name, name), "w") as file:
            file.write(text)

    def test_every_worker_of_gunicorn_has_the_heap_and_the_server_stops(self):
        self.put("application.py", APPLICATION)
        port = free_port()
        words = ["-m", "obmalloc", "run", "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:%d" % port]
        server = subprocess.Popen(
            [sys.executable] + words + ["application:app"],
            cwd=self.folder.name,
            env=self.environment(),
            stderr=subprocess.DEVNULL,
        )
        try:
            workers = self.load(port, 2, 0)
            self.assertEqual(list(workers.values()), [True, True])
            # A process that ends within 10 seconds removes its page.
            workers = self.load(port, 2, 14)
            listed = self.listed()
            self.assertLess(set(workers), set(listed))
            for pid in workers:
                self.assertEqual((pid, listed[pid]["in_force"]), (pid, True))
            # An idle worker trims when it works again.
            with ThreadPoolExecutor() as pool:
                trim = pool.submit(self.obmalloc, "trim", str(min(workers)), "--wait", "30")
                while not trim.done():
                    self.load(port, 1, 0)
            self.assertTrue(trim.result().endswith("returned\n"), trim)
        finally:
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(timeout=60), 0)
        self.assertTrue(set(workers).isdisjoint(self.listed()))
        for pid in workers:
            [report] = json.loads(self.obmalloc("stats", "--json", str(pid)))
            self.assertEqual((report["pid"], report["in_force"]), (pid, True))

    def load(self, port, count, seconds):
        """Sends requests until as many workers have answered, and as many seconds have passed.

        Returns for each worker whether the heap is in force.
        """
        started, workers = time.monotonic(), {}
        while len(workers) < count or time.monotonic() < started + seconds:
            self.assertLess(time.monotonic(), started + 90, workers)
            try:
                with urllib.request.urlopen("http://127.0.0.1:%d/" % port, timeout=5) as answer:
                    found = json.load(answer)
                workers[found["pid"]] = found["in_force"]
            except OSError:
                pass
            time.sleep(0.02)
        return workers

    def obmalloc(self, *words):
        return subprocess.check_output(
            [sys.executable, "-m", "obmalloc"] + list(words),
            env=self.environment(),
            universal_newlines=True,
        )

    def listed(self):
        """Returns the figures of each running process under the library."""
        try:
            processes = json.loads(self.obmalloc("ps", "--json"))["processes"]
        except subprocess.CalledProcessError:
            processes = []
        return {process["pid"]: process["report"] for process in processes}

    def environment(self):
        """Returns variables with which no other process has its page in the same folder."""
        return environment(XDG_RUNTIME_DIR=self.folder.name)

    def test_a_jupyter_kernel_has_the_heap(self):
        from jupyter_client.manager import KernelManager

        manager = KernelManager()
        manager.kernel_spec.argv = [
            sys.executable, "-m", "obmalloc", "run",
            "-m", "ipykernel_launcher", "-f", "{connection_file}",
        ]
        manager.start_kernel(env=environment())
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            printed = []
            client.execute_interactive(
                "import obmalloc; print(obmalloc.stats()['in_force'])",
                timeout=60,
                output_hook=lambda message: printed.append(message["content"].get("text")),
            )
            self.assertIn("True\n", printed)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)

    def pytest(self, *words):
        self.put("test_memory.py", PLUGIN)
        return subprocess.run(
            [sys.executable] + list(words) + ["-p", "no:cacheprovider"],
            cwd=self.folder.name,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            timeout=120,
        )

    def test_the_plugin_limits_memory_and_lists_leaks(self):
        done = self.pytest("-m", "obmalloc", "run", "-m", "pytest", "--obmalloc-leaks")
        self.assertIn("1 failed, 2 passed", done.stdout)
        self.assertIn("and its limit is 1.00 MB", done.stdout)
        leaks = done.stdout.split("obmalloc leaks")[1]
        self.assertIn("::test_leak", leaks)
        self.assertNotIn("::test_small", leaks)

    def test_the_plugin_needs_the_heap_only_for_leaks(self):
        done = self.pytest("-m", "pytest")
        self.assertIn("1 failed, 2 passed", done.stdout)
        done = self.pytest("-m", "pytest", "--obmalloc-leaks")
        self.assertIn("needs the heap", done.stdout)


if __name__ == "__main__":
    main()
