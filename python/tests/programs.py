"""Tests of servers and tools on the heap.

The environment needs gunicorn, celery, ipykernel and pytest.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

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


# Each task writes a file that is named after its worker.
TASKS = """
import os, time
import obmalloc
from celery import Celery

app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"
    },
    task_ignore_result=True,
)

@app.task
def note():
    with open("worker-%d" % os.getpid(), "w") as file:
        file.write(str(obmalloc.stats()["in_force"]))
    time.sleep(0.1)
"""


class Load(threading.Thread):
    """Sends requests to a server until it is stopped."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.address = "http://127.0.0.1:%d/" % port
        self.is_stopped = False
        # Whether the heap is in force, for each worker that has answered.
        self.workers = {}

    def run(self):
        while not self.is_stopped:
            try:
                with urllib.request.urlopen(self.address, timeout=5) as answer:
                    found = json.load(answer)
                self.workers[found["pid"]] = found["in_force"]
            except OSError:
                pass
            time.sleep(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.is_stopped = True
        self.join()


class Programs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def put(self, name, text):
        with open(os.path.join(self.folder.name, name), "w") as file:
            file.write(text)

    def start(self, *words, inherited=()):
        """Starts a program on the heap, and kills it after the test if it still runs.

        The program inherits the file descriptors `inherited`.
        """
        program = subprocess.Popen(
            [sys.executable, "-m", "obmalloc", "run"] + list(words),
            cwd=self.folder.name,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=inherited,
        )
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        return program

    def wait_until(self, condition, *told):
        started = time.monotonic()
        while not condition():
            self.assertLess(time.monotonic(), started + 120, told)
            time.sleep(0.05)

    def test_every_worker_of_gunicorn_is_seen_and_its_last_figures_are_kept(self):
        self.put("application.py", APPLICATION)
        # The server inherits the socket, so no other program can take the port before it.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port, inherited = listener.getsockname()[1], listener.fileno()
            server = self.start(
                "-m", "gunicorn", "-w", "2", "-b", "fd://%d" % inherited, "application:app",
                inherited=[inherited],
            )
        with Load(port) as load:
            self.wait_until(lambda: len(load.workers) == 2, load.workers)
            pids = set(load.workers)
            # A process that ends within 10 seconds removes its page.
            time.sleep(12)
            self.wait_until(lambda: pids <= set(self.listed()), pids)
            while_alive = {pid: self.report(pid) for pid in pids}
            trimmed = self.obmalloc("trim", str(min(pids)), "--wait", "60")
            self.assertTrue(trimmed.endswith("returned\n"), trimmed)
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(timeout=60), 0)
        self.assertEqual(load.workers, {pid: True for pid in pids})
        self.assertTrue(pids.isdisjoint(self.listed()))
        for pid, before in while_alive.items():
            self.assertTrue(before["in_force"], before)
            kept = self.report(pid)
            self.assertTrue(kept["in_force"], kept)
            # More arenas may have been mapped since then, but not fewer.
            most = [report["heap"]["arenas"]["highwater"] for report in (before, kept)]
            self.assertLessEqual(most[0], most[1])

    def test_every_worker_of_celery_has_the_heap(self):
        self.put("tasks.py", TASKS)
        for folder in ("queue", "control"):
            os.mkdir(os.path.join(self.folder.name, folder))
        worker = self.start(
            "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "-c", "2",
            "--without-gossip", "--without-mingle", "--without-heartbeat",
        )
        send = "import tasks\nfor _ in range(20): tasks.note.delay()"
        subprocess.check_call(
            [sys.executable, "-c", send], cwd=self.folder.name, env=self.environment()
        )

        def notes():
            names = os.listdir(self.folder.name)
            return [name for name in names if name.startswith("worker-")]

        self.wait_until(lambda: len(notes()) == 2 or worker.poll() is not None)
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(timeout=60), 0)
        for name in notes():
            with open(os.path.join(self.folder.name, name)) as file:
                self.assertEqual(file.read(), "True")
        self.assertEqual(len(notes()), 2)

    def obmalloc(self, *words):
        return subprocess.check_output(
            [sys.executable, "-m", "obmalloc"] + list(words),
            env=self.environment(),
            universal_newlines=True,
        )

    def listed(self):
        """Returns the running processes under the library."""
        try:
            processes = json.loads(self.obmalloc("ps", "--json"))["processes"]
        except subprocess.CalledProcessError:
            processes = []
        # A process that has just been forked has no figures yet.
        return [process["pid"] for process in processes if process["report"]]

    def report(self, pid):
        """Returns the figures of a process, or the last ones of one that has ended."""
        [report] = json.loads(self.obmalloc("stats", "--json", str(pid)))
        self.assertEqual(report["pid"], pid)
        return report

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
