"""``python -m obmalloc`` is the program ``obmalloc`` with this Python."""

import os
import signal
import sys

import obmalloc


def main():
    environment = dict(os.environ)
    environment["OBMALLOC_PYTHON"] = sys.executable
    environment["OBMALLOC_LIBDIR"] = os.path.dirname(obmalloc.library())
    program = obmalloc.program()
    # Python ignores these signals, and a program inherits the signals that are ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, [program] + sys.argv[1:], environment)


main()
