"""What is called when a process forks and when it ends."""

import gc
import os
import subprocess
import sys

import pytest

from flask_asok import process

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


class Renewed:
    def __init__(self, fail=False):
        self.pid = os.getpid()
        self.fail = fail
        process.after_fork(self.renew)

    def renew(self):
        self.pid = os.getpid()
        if self.fail:
            raise ValueError("broken")


def exit_code_of_child(check):
    """Return 0 if `check()` is true in a forked child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_renews():
    """Each hook is called in a child, and none in the parent; one that raises keeps no other from it."""
    objects = Renewed(), Renewed(fail=True), Renewed()
    parent = os.getpid()

    code = exit_code_of_child(lambda: [each.pid for each in objects] == [os.getpid()] * 3)

    assert code == 0
    assert [each.pid for each in objects] == [parent] * 3


def test_an_object_is_held_weakly():
    """An object that is renewed in children lives no longer for that."""
    freed = []

    class Freed(Renewed):
        def __del__(self):
            freed.append(True)

    Freed()
    gc.collect()

    assert freed == [True]


def test_the_order_of_the_end():
    """At the end the latest comes first, what was registered as last comes last, and an error keeps none from it."""
    program = """
from flask_asok import process

def fail():
    raise ValueError("broken")

process.at_exit(lambda: print("last"), last=True)
process.at_exit(lambda: print("first"))
process.at_exit(fail)
process.at_exit(lambda: print("second"))
"""

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert ended.stdout.split() == ["second", "first", "last"]
    assert "ValueError: broken" in ended.stderr
