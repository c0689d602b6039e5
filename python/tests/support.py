"""What the tests share."""

import os
import sys
import unittest

IN_FORCE = "import obmalloc; print(obmalloc.is_loaded() and obmalloc.stats()['in_force'])"


def environment(**changes):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OBMALLOC", "LD_", "PYTHON")) or name == "PYTHONPATH"
    }
    kept.update(changes)
    return kept


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(suite)
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed - len(result.skipped)
    # Cargo prints its tests like this, so they are counted in the same way.
    print("test result: %s. %d passed; %d failed;" % ("FAILED" if failed else "ok", passed, failed))
    sys.exit(failed > 0)
