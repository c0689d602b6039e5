"""The obmalloc heap, from Python.

``obmalloc run prog.py`` runs a program on the heap. The functions of this module ask about the heap
of the running process, or start the program again on the heap.
"""

import ctypes
import json
import os
import sys

__all__ = ["NotLoaded", "ensure", "is_loaded", "library", "program", "stats", "trim"]

_FILE = "libobmalloc_cpython.so"
_LD_PRELOAD = "LD_PRELOAD"
_DELETED = b" (deleted)"
_AGAIN = "OBMALLOC_STARTED_AGAIN"


class NotLoaded(RuntimeError):
    """The library is not in this process, or it cannot do what was asked."""


def library():
    """Returns the path of the library for CPython."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", _FILE)


def program():
    """Returns the path of the program ``obmalloc``.

    Raises ``FileNotFoundError`` if it is not beside this package.
    """
    import sysconfig

    here = os.path.dirname(os.path.abspath(__file__))
    # `pip install --target` puts the program into the folder `bin` beside the package.
    folders = [os.path.join(os.path.dirname(here), "bin")]
    schemes = [None] + [name for name in sysconfig.get_scheme_names() if "posix" in name]
    for scheme in schemes:
        paths = sysconfig.get_paths() if scheme is None else sysconfig.get_paths(scheme)
        if os.path.dirname(here) in (paths["purelib"], paths["platlib"]) or scheme is None:
            folders.append(paths["scripts"])
    # A package in `lib/python3.X/site-packages` belongs to the programs in `bin`.
    folders.append(os.path.normpath(os.path.join(here, "../../../../bin")))
    for folder in folders:
        path = os.path.join(folder, "obmalloc")
        if os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("there is no program obmalloc in " + ", ".join(folders))


def _mapped():
    """Returns the path of the library in this process, or ``None``."""
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            # The path is the sixth column, and may contain spaces. The system marks a file that was
            # removed or replaced.
            name = _FILE.encode()
            if line.rstrip().endswith((name, name + _DELETED)):
                return os.fsdecode(line.rstrip().split(None, 5)[5])
    return None


def is_loaded():
    """Returns true if the library is in this process. ``stats()`` tells whether it is in force."""
    return _mapped() is not None


def _function(load, name, signature, *arguments):
    path = _mapped()
    if path is None:
        raise NotLoaded("the library is not in this process: start it with `obmalloc run`")
    # If the file was replaced, its path would load a second library, so we look the function up in
    # the preloaded ones.
    loaded = load(None if path.endswith(os.fsdecode(_DELETED)) else path)
    if not hasattr(loaded, name):
        raise NotLoaded("%s has no function %s" % (path, name))
    function = getattr(loaded, name)
    function.restype = signature
    function.argtypes = arguments
    return function


def stats():
    """Returns the statistics of this process, as ``OBMALLOC_STATS`` writes them at exit.

    Raises ``NotLoaded`` if the library is not in this process.
    """
    # `PyDLL` keeps the GIL during the call. The function needs the GIL to read the heap.
    write = _function(
        ctypes.PyDLL, "obmalloc_stats_json", ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t
    )
    size = 1 << 16
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = write(buffer, size)
        if needed == 0:
            raise NotLoaded("the library found no CPython when it was loaded")
        if needed <= size:
            return json.loads(buffer.raw[:needed].decode())
        size = needed + 4096


def trim():
    """Gives memory that no object uses back to the system, and returns the number of bytes.

    Raises ``NotLoaded`` if the library is not in this process.
    """
    # The function takes the GIL if its thread does not hold it. Up to CPython 3.11, it does not
    # notice that its thread holds the GIL in a subinterpreter, so we release the GIL for the call.
    # In these versions, all interpreters share one heap. Since CPython 3.12, each interpreter has its
    # own heap. We then keep the GIL, so that the function trims the heap of this interpreter.
    load = ctypes.CDLL if sys.version_info < (3, 12) else ctypes.PyDLL
    return _function(load, "obmalloc_trim", ctypes.c_size_t)()


def ensure():
    """Starts the program again on the heap, unless it already runs on it.

    Call it first, because what the program did before is done again. It replaces the process, so
    that the process id stays. It returns if the library is loaded, or if ``OBMALLOC=off`` is set.

    Raises ``NotLoaded`` if the program came from stdin or the library still is not loaded.
    """
    if is_loaded() or os.environ.get("OBMALLOC") == "off":
        os.environ.pop(_AGAIN, None)
        return
    if os.environ.pop(_AGAIN, None):
        raise NotLoaded("the loader did not load %s" % library())
    with open("/proc/self/cmdline", "rb") as line:
        words = [os.fsdecode(word) for word in line.read().split(b"\0")[:-1]]
    if _is_from_stdin(words):
        raise NotLoaded("the program came from stdin, so it cannot be started again")
    environment = dict(os.environ)
    environment[_AGAIN] = "1"
    environment["OBMALLOC_LIBDIR"] = os.path.dirname(library())
    # `obmalloc` knows how to list a path with spaces, so that is not repeated here.
    found = program()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(found, [found, "run", "--", sys.executable] + words[1:], environment)


def _is_from_stdin(words):
    """Returns true if the command line names neither a program nor a module nor code."""
    with_argument = ("-W", "-X", "--check-hash-based-pycs")
    rest = iter(words[1:])
    for word in rest:
        if word == "-":
            return True
        if not word.startswith("-") or word == "--":
            return False
        if not word.startswith("--") and ("c" in word[1:] or "m" in word[1:]):
            return False
        if word in with_argument:
            next(rest, None)
    return True
