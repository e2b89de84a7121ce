"""
Which processes of this machine live: each holds the lock of a file of its own for as long as it does.

The system frees the lock when the process ends, however it ends, and no process id that came again can be mistaken for
a process that has gone. A fork does not inherit it, and a process that is stopped still holds it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from ..errors import BackendUnavailable
from ..process import after_fork

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

SUFFIX = ".alive"

_TOKEN = re.compile("[0-9a-f]{32}")

# A second descriptor of the same file, closed, would free the lock: this process never probes a file in here.
_held: dict[str, int] = {}

# What this process owns in a store that was moved away with its lock files is still its own.
_moved: list[int] = []


def path_of(store: str, token: str) -> Path:
    """Return where the lock file of the process `token` lies, beside its store."""
    return Path(f"{store}.{token}{SUFFIX}")


def begin(store: str, token: str = "") -> str:
    """
    Take the lock of a new file beside `store`, and return the token in its name. Raises OSError.

    With `token`, one that this process has, the file of that is made anew: see `is_held`.
    """
    while True:
        name = token or secrets.token_hex(16)
        path = str(path_of(store, name))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            is_ours = _lock(descriptor) and _is_at(descriptor, path)
            if is_ours:
                _give_to_owner(descriptor, store)
        except OSError:
            os.close(descriptor)
            raise
        if is_ours:
            if path in _held:
                _moved.append(_held[path])
            _held[path] = descriptor
            return name
        # Another process has taken it for the file of a dead process, between its creation and its lock.
        os.close(descriptor)


def is_held(store: str, token: str) -> bool:
    """Return True if the lock file of this process is where others look for it: nobody has deleted or moved it."""
    path = str(path_of(store, token))
    descriptor = _held.get(path)
    if descriptor is None:
        return False
    try:
        if not _is_at(descriptor, path):
            return False
    except OSError:
        # Where it cannot be looked at, no other one can be made.
        return True
    # Whatever in this process has copied the folder has closed the file, by which the system dropped the lock.
    _lock_again(descriptor)
    return True


def is_own(store: str, token: str) -> bool:
    """Return True if this process has taken the lock of that file."""
    return str(path_of(store, token)) in _held


def end(store: str, token: str) -> None:
    """Give the lock back and remove its file; harmless where this process does not hold it."""
    path = str(path_of(store, token))
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        # First the name: a process that finds the lock free must not find the file.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def forget() -> None:
    """Drop, in a forked child, the parent's locks: they are the parent's, and the child has none of them."""
    while _held:
        _, descriptor = _held.popitem()
        os.close(descriptor)
    while _moved:
        os.close(_moved.pop())


after_fork(forget)


def is_alive(store: str, token: str) -> bool:
    """Return True if the process with this token lives. Raises BackendUnavailable where its file cannot be opened."""
    path = str(path_of(store, token))
    if path in _held:
        return True
    if not _TOKEN.fullmatch(str(token)):
        # Of a forged or damaged row, which must not keep others from being looked at: it may be no name of a file.
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BackendUnavailable(f"The lock file {path} cannot be looked at: {error.strerror}.") from None
    try:
        return not _probe(descriptor)
    finally:
        os.close(descriptor)


def tokens(store: str) -> Iterator[str]:
    """Yield the token of each lock file beside `store`, of the dead as well."""
    folder, name = os.path.split(store)
    try:
        entries = os.listdir(folder)
    except OSError as error:
        raise BackendUnavailable(f"The lock files in {folder} cannot be looked at: {error.strerror}.") from None
    for entry in entries:
        if entry.startswith(f"{name}.") and entry.endswith(SUFFIX):
            yield entry[len(name) + 1 : -len(SUFFIX)]


def bury(store: str, token: str) -> None:
    """Remove the lock file of a dead process."""
    with contextlib.suppress(OSError):
        path_of(store, token).unlink()


def _give_to_owner(descriptor: int, store: str) -> None:
    # As SQLite does with files of its own: a command of root leaves no lock that the application cannot look at.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        owner = os.stat(store)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _is_at(descriptor: int, path: str) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


if fcntl is not None:

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    _lock_again = _lock

    def _probe(descriptor: int) -> bool:
        """Return True if nobody holds the lock. Shared, since two who probe at once must not see each other."""
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

else:  # pragma: no cover - Windows

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    _probe = _lock

    def _lock_again(descriptor: int) -> bool:
        """Do nothing: the system drops no lock of a file that is still open."""
        return True
