"""
What happens to a process: it forks, and it ends. All state that a child has to renew is renewed through this file.

uWSGI forks without running the hooks of `os.register_at_fork`: call `renew()` before such state is used, which costs
one comparison there, and nothing elsewhere.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Protocol

_FORKS_UNSEEN = "uwsgi" in sys.modules or not hasattr(os, "register_at_fork")

Hook = Callable[[], object]


class Forking(Protocol):
    """What must be told before its process forks, and after."""

    def before_fork(self) -> None:
        """Get ready: nothing may be in the middle of something. Called in the parent, in the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """Go on as before."""

    def after_fork_in_child(self) -> None:
        """Begin anew, as a process of its own."""


_pid = os.getpid()
_renewals: list[Callable[[], Hook | None]] = []
_forking: weakref.WeakSet[Forking] = weakref.WeakSet()
_told: list[Forking] = []
_ends: list[Hook] = []
_last_ends: list[Hook] = []


def after_fork(renew: Hook) -> None:
    """Call `renew` in each forked child, before other code runs there. A method is held weakly."""
    _renewals.append(weakref.WeakMethod(renew) if isinstance(renew, MethodType) else lambda: renew)


def around_fork(one: Forking) -> None:
    """Tell `one`, which is held weakly, before and after each fork."""
    _forking.add(one)


def renew() -> None:
    """Run the hooks in a child whose fork nobody has told of."""
    if _FORKS_UNSEEN and os.getpid() != _pid:
        _after_in_child()


def at_exit(close: Hook, *, last: bool = False) -> None:
    """Call `close` when the interpreter ends; with `last` after all that were registered without."""
    (_last_ends if last else _ends).append(close)


def _before() -> None:
    global _told
    # Kept: another thread may make one more before the fork is over.
    _told = list(_forking)
    for one in _told:
        one.before_fork()


def _after_in_parent() -> None:
    global _told
    for one in _told:
        one.after_fork_in_parent()
    _told = []


def _after_in_child() -> None:
    global _pid, _told
    _pid = os.getpid()
    for one in _told or list(_forking):
        one.after_fork_in_child()
    _told = []
    for found in list(_renewals):
        hook = found()
        if hook is None:
            _renewals.remove(found)
        else:
            hook()


@atexit.register
def _end() -> None:
    for close in (*reversed(_ends), *reversed(_last_ends)):
        # Ctrl-C pressed again: what is left has been named already.
        with contextlib.suppress(KeyboardInterrupt):
            close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
