"""Replace files in one step: a reader sees the old file or the new one, even if the process is killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Callable

from ... import process
from . import origin

TEMPORARY = ".asok-"
"""Prefix of unfinished files. A killed process may leave one; no reader opens it."""


_look_and_rename = threading.Lock()
"""Held between the look at the file and its replacement: two tasks may work on one image."""


def _renew_lock() -> None:
    global _look_and_rename
    # A thread of the parent may have held it.
    _look_and_rename = threading.Lock()


process.after_fork(_renew_lock)


class Replaced(Exception):
    """Raised when the file to replace is no longer the one that was read."""


class Taken(Exception):
    """Raised when another file, not made from the same image, already has the name."""


def is_same_file(first: os.stat_result, second: os.stat_result) -> bool:
    """Return True if both describe one file, with nothing written to it in between."""
    return (first.st_dev, first.st_ino, first.st_size, first.st_mtime_ns) == (
        second.st_dev, second.st_ino, second.st_size, second.st_mtime_ns,
    )  # fmt: skip


def replace_file(
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

    `check` gets the path of the temporary file, and raises if the file is wrong.

    The file gets the mode and, as far as this process is allowed to, the owner and the group of `like`; by default,
    the umask decides. A symbolic link at `path` is replaced, not followed. With `instead_of`, only that very file is
    replaced; Replaced is raised if another file has taken its place. With `mark`, only a file that ends with it;
    otherwise Taken is raised.
    Raises OSError, or what `check` raises; nothing is left behind.
    """
    # The file of a private image is private from its first byte on.
    temporary, descriptor = create_temporary(os.path.dirname(path), 0o666 if like is None else 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            if like is not None:
                _resemble(file.fileno(), like)
            # Before fsync, which does not know of Python's buffer.
            file.flush()
            flush_to_disk(file.fileno())
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
    # Not tempfile.mkstemp: its files have mode 0600, which the web server cannot read. The umask is left to the kernel,
    # since a process with threads cannot look it up safely.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    path = os.path.join(folder, f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
    return path, os.open(path, flags, mode)


def flush_to_disk(descriptor: int) -> None:
    """Wait until the bytes are on the disk; otherwise a rename could reach it before they do."""
    os.fsync(descriptor)


def rename(temporary: str, path: str, instead_of: os.stat_result | None = None) -> None:
    """Rename the finished file to `path`, over any file, or over `instead_of` alone; raises Replaced."""
    process.renew()
    with _look_and_rename:
        if instead_of is not None and not is_same_file(instead_of, os.stat(path, follow_symlinks=False)):
            raise Replaced(path)
        os.replace(temporary, path)
    _flush_folder(path)


def claim(temporary: str, path: str, mark: bytes) -> None:
    """Rename the finished file to `path` if that is free or holds a file that ends with `mark`; raises Taken."""
    while True:
        with contextlib.suppress(FileExistsError):
            _rename_new(temporary, path)
            break
        # The file may have been deleted since.
        with contextlib.suppress(FileNotFoundError):
            if not origin.may_replace(path, mark):
                raise Taken(path)
            os.replace(temporary, path)
            break
    _flush_folder(path)


def _rename_new(temporary: str, path: str) -> None:
    """Rename to a new name; of several processes only one succeeds, the others get FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        # Without hard links, an empty file reserves the name: no other file is replaced by the rename.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _flush_folder(path: str) -> None:
    if os.name == "posix":
        # The name is stored in the folder's own blocks. Some file systems cannot flush a folder.
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
        try:
            os.fchown(descriptor, like.st_uid, like.st_gid)
        except OSError:
            # The owner is for root to change; the group is for any of its members, and other processes may read by it.
            with contextlib.suppress(OSError):
                os.fchown(descriptor, -1, like.st_gid)
    # After the owner: changing the owner clears bits of the mode.
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode) & 0o777)
