"""``python -m obmalloc`` is the program ``obmalloc`` with this Python."""

import os
import sys

import obmalloc


def main():
    environment = dict(os.environ)
    environment["OBMALLOC_PYTHON"] = sys.executable
    environment["OBMALLOC_LIBDIR"] = os.path.dirname(obmalloc.library())
    program = obmalloc.program()
    os.execve(program, [program] + sys.argv[1:], environment)


main()
