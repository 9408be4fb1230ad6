#!/usr/bin/env python3
"""Runs the tests with real processes, those of tests/chaos too:
python3 tests/integration/run.py [--only WORD] [--build FOLDER] [--long].

The last line is "N passed, N failed"; the exit code is 0 when none failed and at least one ran."""

import argparse
import os
import pathlib
import re
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
FOLDERS = (HERE, HERE.parent / "chaos")
sys.path[:0] = map(str, FOLDERS)


class Report(unittest.TestResult):
    """One line a test, as it ends."""

    def startTest(self, test):
        super().startTest(test)
        self.passed = getattr(self, "passed", 0)
        self.began = time.monotonic()

    def line(self, word, test):
        print(f"{word:4}  {time.monotonic() - getattr(self, 'began', time.monotonic()):6.1f} s  {test}", flush=True)

    def addSuccess(self, test):
        self.passed += 1
        self.line("ok", test)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.line("FAIL", test)
        print(self.failures[-1][1], flush=True)

    def addError(self, test, error):
        super().addError(test, error)
        self.line("FAIL", test)
        print(self.errors[-1][1], flush=True)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.line("FAIL", subtest)
            print(self._exc_info_to_string(error, test), flush=True)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line("skip", f"{test}: {reason}")


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--build", default="build", help="folder of the hexgen binary")
    arguments.add_argument("--only", default="", help="run tests whose name matches this expression")
    arguments.add_argument("--long", action="store_true", help="the faults' long forms too")
    given = arguments.parse_args()
    os.environ["HEXGEN_BUILD"] = str(pathlib.Path(given.build).resolve())

    if given.long:
        os.environ["HEXGEN_LONG"] = "1"

    tests = [test for folder in FOLDERS
             for test in flatten(unittest.TestLoader().discover(str(folder), pattern="test_*.py"))]
    suite = unittest.TestSuite(t for t in tests if re.search(given.only, t.id()))
    report = Report()
    suite.run(report)
    passed = getattr(report, "passed", 0)
    failed = len(report.failures) + len(report.errors)
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
