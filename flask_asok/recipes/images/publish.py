"""Write files so that a reader sees the old one or the new one, never a part, whenever the process dies."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Callable

from . import origin

TEMPORARY = ".asok-"
"""How the names of unfinished files begin. A process that was killed may leave one; nobody reads it."""


_look_and_rename = threading.Lock()
"""Held while a file is seen to be the expected one and replaced: two tasks may work on one picture."""


def _forget_lock() -> None:
    global _look_and_rename
    _look_and_rename = threading.Lock()


if hasattr(os, "register_at_fork"):
    # A thread of the parent may have held it.
    os.register_at_fork(after_in_child=_forget_lock)


class Replaced(Exception):
    """Raised when the file that was to be replaced is no longer the one that was read."""


class Taken(Exception):
    """Raised when what has the name already was not made from the same picture."""


def is_same_file(first: os.stat_result, second: os.stat_result) -> bool:
    """Is this one file, with nothing written to it in between?"""
    return (first.st_dev, first.st_ino, first.st_size, first.st_mtime_ns) == (
        second.st_dev, second.st_ino, second.st_size, second.st_mtime_ns,
    )  # fmt: skip


def publish(
    data: bytes,
    path: str,
    check: Callable[[str], None],
    *,
    like: os.stat_result | None = None,
    instead_of: os.stat_result | None = None,
    mark: bytes | None = None,
) -> None:
    """
    Put `data` at `path` in one step: a temporary file in the same folder, flushed to disk, checked, then renamed.

    `check` gets the path of the temporary file, and raises where that is not what was meant.

    The file gets the mode and, where this process may, the owner of `like`; else what the umask gives. A symbolic link
    at `path` is replaced, not followed. With `instead_of`, only that very file is replaced; Replaced is raised where
    another one has come in its place. With `mark`, only what ends with it; else Taken is raised. Raises OSError, or
    what `check` raises, with nothing left behind.
    """
    # A private picture is so from its first byte on.
    temporary, descriptor = create_temporary(os.path.dirname(path), 0o666 if like is None else 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            if like is not None:
                _resemble(file.fileno(), like)
            # Else the last bytes would be written after the disk was waited for.
            file.flush()
            settle(file.fileno())
        check(temporary)
        if mark is not None:
            claim(temporary, path, mark)
        else:
            rename(temporary, path, instead_of)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def create_temporary(folder: str, mode: int = 0o666) -> tuple[str, int]:
    """Create a new file in `folder`, and return its path and descriptor. `mode` is subject to the umask."""
    # Not tempfile.mkstemp: its files are 0600, unreadable for the web server, and the umask of a process with threads
    # can only be learnt by letting the kernel apply it.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    path = os.path.join(folder, f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
    return path, os.open(path, flags, mode)


def settle(descriptor: int) -> None:
    """Wait until the bytes are on the disk: a rename may reach it before them."""
    os.fsync(descriptor)


def rename(temporary: str, path: str, instead_of: os.stat_result | None = None) -> None:
    """Give the finished file its name, over whatever has it now, or over `instead_of` alone; raises Replaced."""
    with _look_and_rename:
        if instead_of is not None and not is_same_file(instead_of, os.stat(path, follow_symlinks=False)):
            raise Replaced(path)
        os.replace(temporary, path)
    _settle_folder(path)


def claim(temporary: str, path: str, mark: bytes) -> None:
    """Give the finished file a name that nothing has, or something that ends with `mark`; raises Taken."""
    while True:
        with contextlib.suppress(FileExistsError):
            _rename_new(temporary, path)
            break
        # It may be gone by now.
        with contextlib.suppress(FileNotFoundError):
            if not origin.may_replace(path, mark):
                raise Taken(path)
            os.replace(temporary, path)
            break
    _settle_folder(path)


def _rename_new(temporary: str, path: str) -> None:
    """Rename in one step, for one of several at a time; FileExistsError where something has the name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        # Without hard links an empty file takes the name first: nobody has seen another one there.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _settle_folder(path: str) -> None:
    if os.name == "posix":
        # The new name is in the folder's own blocks. Some file systems cannot flush a folder; the file is safe there.
        with contextlib.suppress(OSError):
            folder = os.open(os.path.dirname(path), os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _resemble(descriptor: int, like: os.stat_result) -> None:
    if not hasattr(os, "fchown"):
        return
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, like.st_uid, like.st_gid)
    # After the owner, since changing that clears bits of the mode.
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode) & 0o777)
