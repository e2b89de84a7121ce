"""Files opened with care: regular ones only, and read in a bounded number of pieces."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import cast

from . import avif
from .errors import ImageError


class File(io.BufferedReader):
    """A file with a limit on the number of reads: Pillow reads piece by piece, without a bound."""

    _left: int | None = None

    @contextlib.contextmanager
    def patience(self, reads: int) -> Iterator[None]:
        """Raise OSError in the block when more than `reads` pieces are read."""
        self._left = reads
        try:
            yield
        finally:
            self._left = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise OSError("it is in too many pieces")
        return super().read(size)


def claim(file: File) -> str:
    """Return the format that a file claims to be, if it is one that is read as a whole; otherwise an empty str."""
    head = file.read(72)
    file.seek(0)
    if head.startswith(b"\xff\xd8"):
        return "jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    return "avif" if avif.is_avif(head) else ""


def in_memory(data: bytes) -> io.RawIOBase:
    """Return a raw stream of `data` for a `File`."""
    return cast(io.RawIOBase, io.BytesIO(data))


@contextlib.contextmanager
def open_regular(path: str) -> Iterator[File]:
    """Open a regular file for reading; ImageError if `path` is a symbolic link or anything else."""
    if os.path.islink(path):
        raise ImageError(
            f"{path} is a symbolic link, which is not followed. Pass the path of its target.",
            reason="not_a_file",
        )
    # O_NOFOLLOW closes the gap between islink and open; O_NONBLOCK keeps a pipe from blocking the thread.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ImageError(f"{path} is not a regular file.", reason="not_a_file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError(f"{path} is a folder or a device, and not a regular file.", reason="not_a_file")
    with File(io.FileIO(descriptor)) as file:
        yield file
