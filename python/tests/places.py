"""Installs the wheel in every way, and runs a program from there: places.py WHEEL PYTHON.

PYTHON must have pip, pipx and uv.
"""

import os
import subprocess
import sys
import tempfile
import unittest

from support import IN_FORCE, environment, main

WHEEL, PYTHON = sys.argv[1:3]


class Places(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.home = self.at("home")
        os.mkdir(self.home)

    def at(self, *names):
        return os.path.join(self.folder.name, *names)

    def run_with(self, *words, **changes):
        changes.setdefault("HOME", self.home)
        changes.setdefault("XDG_RUNTIME_DIR", "")
        kept = environment(**changes)
        kept.pop("VIRTUAL_ENV", None)
        kept.pop("XDG_CACHE_HOME", None)
        kept.update((name, value) for name, value in changes.items() if name == "VIRTUAL_ENV")
        done = subprocess.run(
            words,
            env=kept,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=300,
        )
        self.assertEqual(done.returncode, 0, done)
        return done.stdout

    def test_a_venv_whose_path_has_a_space(self):
        venv = self.at("with space")
        self.run_with(PYTHON, "-m", "venv", venv)
        self.run_with(os.path.join(venv, "bin/python"), "-m", "pip", "install", "-q", WHEEL)
        out = self.run_with(os.path.join(venv, "bin/obmalloc"), "run", "-c", IN_FORCE)
        self.assertEqual(out, "True\n")
        # A child gets the same variable.
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', %r])" % IN_FORCE
        out = self.run_with(os.path.join(venv, "bin/obmalloc"), "run", "-c", code)
        self.assertEqual(out, "True\n")

    def test_pip_install_target(self):
        target = self.at("target")
        self.run_with(PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--target", target, WHEEL)
        for words in (
            [os.path.join(target, "bin/obmalloc"), "run", "--python", PYTHON, "-c", IN_FORCE],
            [PYTHON, "-m", "obmalloc", "run", "-c", IN_FORCE],
        ):
            self.assertEqual(self.run_with(*words, PYTHONPATH=target), "True\n", words)

    def test_pip_install_user(self):
        base = sys.base_prefix
        python = os.path.join(base, "bin/python3")
        self.run_with(python, "-m", "pip", "install", "-q", "--user", "--no-deps", WHEEL)
        out = self.run_with(python, "-m", "obmalloc", "run", "-c", IN_FORCE)
        self.assertEqual(out, "True\n")
        program = os.path.join(self.home, ".local/bin/obmalloc")
        out = self.run_with(program, "run", "--python", python, "-c", IN_FORCE)
        self.assertEqual(out, "True\n")

    def project(self):
        """Returns a virtual environment with a package that no other environment has."""
        venv = self.at("project")
        self.run_with(PYTHON, "-m", "venv", "--without-pip", venv)
        version = "python%d.%d" % sys.version_info[:2]
        packages = os.path.join(venv, "lib", version, "site-packages")
        with open(os.path.join(packages, "of_project.py"), "w") as file:
            file.write("print('found')")
        return venv

    MAPPED = "import of_project; print('libobmalloc_cpython' in open('/proc/self/maps').read())"

    def test_pipx_finds_the_python_of_the_active_environment(self):
        self.run_with(PYTHON, "-m", "pipx", "install", "-q", WHEEL, "--python", PYTHON)
        program = os.path.join(self.home, ".local/bin/obmalloc")
        out = self.run_with(program, "run", "-c", self.MAPPED, VIRTUAL_ENV=self.project())
        self.assertEqual(out, "found\nTrue\n")

    def test_uv_finds_the_python_of_the_active_environment(self):
        uv = os.path.join(os.path.dirname(PYTHON), "uv")
        install = [uv, "tool", "install", "-q", "--python", PYTHON, "--offline", WHEEL]
        self.run_with(*install)
        program = os.path.join(self.home, ".local/bin/obmalloc")
        project = self.project()
        out = self.run_with(program, "run", "-c", self.MAPPED, VIRTUAL_ENV=project)
        self.assertEqual(out, "found\nTrue\n")
        words = [uv, "tool", "run", "-q", "--offline", "--python", PYTHON, "--from", WHEEL]
        words += ["obmalloc", "run", "-c", self.MAPPED]
        self.assertEqual(self.run_with(*words, VIRTUAL_ENV=project), "found\nTrue\n")

    def test_uv_run_puts_the_package_over_an_environment(self):
        uv = os.path.join(os.path.dirname(PYTHON), "uv")
        project = self.project()
        python = os.path.join(project, "bin/python")
        words = [uv, "run", "-q", "--offline", "--no-project", "--python", python]
        words += ["--with", WHEEL, "obmalloc", "run", "-c", IN_FORCE]
        self.assertEqual(self.run_with(*words), "True\n")


if __name__ == "__main__":
    del sys.argv[1:]
    main()
