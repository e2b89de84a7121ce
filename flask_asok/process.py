"""
What happens to a process: it forks, and it ends. All state that a child has to renew is renewed through this file.

uWSGI forks without running the hooks of `os.register_at_fork`: call `renew()` before such state is used, which costs
one comparison there, and nothing elsewhere.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import MethodType
from typing import Protocol

FORKS_UNSEEN = "uwsgi" in sys.modules
"""Does this process fork without running Python's hooks? The module `uwsgi` is only there inside of uWSGI."""

Hook = Callable[[], object]


class Forking(Protocol):
    """What must be told before its process forks, and after."""

    def before_fork(self) -> None:
        """Get ready: nothing may be in the middle of something. Called in the parent, in the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """Go on as before."""

    def after_fork_in_child(self) -> None:
        """Renew all state, as a new process must. After a fork that was not seen, `before_fork` was not called."""


class LateLock:
    """
    A reentrant lock that each process makes for itself, when it first needs it.

    Not before: a thread of the parent may hold the parent's, and gevent may replace all locks after the fork, as under
    gunicorn with `--preload`. All greenlets share the thread that an earlier lock is held by: it would keep none of
    them out, or freeze all of them.
    """

    def __init__(self) -> None:
        self._by_process: dict[int, contextlib.AbstractContextManager[object]] = {}

    def of_process(self) -> contextlib.AbstractContextManager[object]:
        """Return the lock of this process, to be held in a with statement."""
        return self._by_process.setdefault(os.getpid(), threading.RLock())


_pid = os.getpid()
_numbers = itertools.count()
_renewals: dict[int, Callable[[], Hook | None]] = {}
_forking: weakref.WeakSet[Forking] = weakref.WeakSet()
_told: list[Forking] = []
_ends: list[Hook] = []
_last_ends: list[Hook] = []
_lock: LateLock = LateLock()
"""What a thread has that runs the hooks."""
_renewing: bool = False
_ends_early: bool = False


def after_fork(renew: Hook) -> None:
    """Call `renew` in each forked child, before other code runs there. A method is held weakly."""
    number = next(_numbers)
    if isinstance(renew, MethodType):
        _renewals[number] = weakref.WeakMethod(renew, partial(_forget, number))
    else:
        _renewals[number] = lambda: renew


def around_fork(one: Forking) -> None:
    """Tell `one`, which is held weakly, before and after each fork."""
    _forking.add(one)


def renew() -> None:
    """Run the hooks in a child whose fork was not seen; other threads wait until they have run."""
    if not FORKS_UNSEEN or os.getpid() == _pid:
        return
    # Reentrant: a hook may come by here again.
    with _lock.of_process():
        if os.getpid() != _pid and not _renewing:
            _after_in_child()


def is_forked_unseen() -> bool:
    """Return True if this process may be the parent of a fork that is not seen: uWSGI's master, before its workers."""
    if not FORKS_UNSEEN:
        return False
    uwsgi = sys.modules["uwsgi"]
    # The numbers of mules and spoolers, which fork no worker, are not those of workers. A build may have no spooler.
    is_spooler = getattr(uwsgi, "i_am_the_spooler", lambda: False)
    return uwsgi.worker_id() == 0 and uwsgi.mule_id() == 0 and not is_spooler()


def at_exit(close: Hook, *, last: bool = False) -> None:
    """Call `close` when the interpreter ends; with `last` after all that were registered without."""
    (_last_ends if last else _ends).append(close)


def end_before_executors() -> None:
    """
    Let the hooks of `at_exit` run, but for the last ones, before Python closes its thread pools: call it before a task.

    It closes those of `concurrent.futures` before it comes to `atexit`, and tasks need them, asynchronous ones too.
    """
    global _ends_early
    if _ends_early:
        return
    _ends_early = True
    # RuntimeError: the process is ending already.
    with contextlib.suppress(RuntimeError):
        # First, since the latest hook comes first. Not at the top: it makes a lock, which gevent would not replace.
        import concurrent.futures.thread  # noqa: F401

        # A private name, with which concurrent.futures does the same. Without it, tasks end in `atexit`.
        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            register(_end_early)


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
    global _pid, _told, _renewing
    _renewing = True
    try:
        hooks = [one.after_fork_in_child for one in _told or list(_forking)]
        _told = []
        _call_all([*hooks, *filter(None, [find() for find in list(_renewals.values())])])
    finally:
        # Last: until then other threads of a child whose fork was not seen wait in `renew`.
        _pid = os.getpid()
        _renewing = False


def _forget(number: int, _: object) -> None:
    _renewals.pop(number, None)


def _call_all(hooks: Iterable[Hook]) -> None:
    """Call each, though one raises, then raise the last error: Python shows it where nothing can catch it."""
    raised: BaseException | None = None
    for hook in hooks:
        try:
            hook()
        except BaseException as error:
            raised = error
    if raised is not None:
        raise raised


def _are_threads_awaited() -> bool:
    """Will Python wait for threads before `atexit`, which may start tasks until then? Those of executors may not."""
    pools = [
        getattr(sys.modules.get(f"concurrent.futures.{module}"), name, ())
        for module, name in (("thread", "_threads_queues"), ("process", "_threads_wakeups"))
    ]
    return any(
        not (thread.daemon or thread is threading.main_thread() or any(thread in pool for pool in pools))
        for thread in threading.enumerate()
    )


def _end_early() -> None:
    if _are_threads_awaited():
        return
    try:
        _end_all(_ends)
    except BaseException:
        # What is raised here would keep Python from closing the executors.
        sys.excepthook(*sys.exc_info())


def _end_all(*hooks: list[Hook]) -> None:
    renew()
    # Ctrl-C pressed again: the remaining tasks have been named already.
    with contextlib.suppress(KeyboardInterrupt):
        _call_all(itertools.chain.from_iterable(map(_emptied, hooks)))


def _emptied(hooks: list[Hook]) -> Iterator[Hook]:
    while hooks:
        yield hooks.pop()


@atexit.register
def _end() -> None:
    _end_all(_ends, _last_ends)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
