"""The chunks of a PNG: its colours, the chunks that Pillow would refuse, and a copy without metadata."""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from . import profile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PLAIN = 1 << 20
"""Bytes that Pillow lets a chunk unfold to; for more it refuses the image."""
_PROFILE = 8 << 20
"""Bytes of a profile that is used; the largest of printers have three million."""
_KEPT = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"bKGD"}
    | {b"pHYs", b"acTL", b"fcTL", b"fdAT"}
)
_TEXTS = 4 << 20
"""Bytes of all texts together that are unfolded, to see that each is small."""

_PIECES_OF_CHUNK = 3
_GREY, _RGB, _GREY_ALPHA = 0, 2, 4


@dataclass(slots=True)
class Head:
    """What the chunks of one PNG say."""

    kind: int = _RGB
    bits: int = 8
    """Of a sample."""
    has_transparency: bool = False
    """True if it says which pixels are transparent, not counting a channel for that."""
    code_points: tuple[int, int, bool] | None = None
    """Primaries, transfer, and whether the range is full: cICP."""
    profile: bytes | None = None
    """Of iCCP, and one of a megabyte or more only: Pillow reads the others."""
    is_srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    hidden: list[tuple[int, int]] = field(default_factory=list)
    """Where each chunk that Pillow would refuse starts, and its length in the file."""
    hidden_texts: list[bytes] = field(default_factory=list)
    """The keywords of those that are texts."""

    @property
    def is_grey(self) -> bool:
        return self.kind in (_GREY, _GREY_ALPHA)

    @property
    def is_misread(self) -> bool:
        """Return True if one colour is transparent, and Pillow would look for it in the wrong bits."""
        return self.has_transparency and self.kind in (_GREY, _RGB) and self.bits not in (1, 8)

    def profiles(self, icc: bytes | None) -> list[bytes]:
        """Return profiles of the colours, the one that counts first; `icc` is what Pillow read."""
        found = []
        if self.code_points is not None:
            primaries, transfer, is_full = self.code_points
            found.append(profile.of_code_points(primaries, transfer, is_grey=self.is_grey, full_range=is_full))
        found.append(self.profile or icc)
        if self.is_srgb:
            found.append(profile.of_code_points(1, 13, is_grey=self.is_grey))
        found.append(profile.of_gamma(self.gamma, self.chromaticities, is_grey=self.is_grey))
        return [one for one in found if one]


def read(file: BinaryIO, most_before: int, most: int) -> Head | None:
    """
    Return what the chunks say, None if this is not a PNG; OSError if Pillow would read them in too many
    pieces, before the pixels or in all.

    Broken chunks are left to Pillow.
    """
    is_png = file.read(8) == SIGNATURE
    head = _read(file, most_before // _PIECES_OF_CHUNK, most // _PIECES_OF_CHUNK) if is_png else None
    file.seek(0)
    return head


def _read(file: BinaryIO, most_before: int, most: int) -> Head:
    head = Head()
    texts, is_before, has_profile = _TEXTS, True, False
    for number, (kind, start, length) in enumerate(_chunks(file)):
        is_before = is_before and kind != b"IDAT"
        if number > (most_before if is_before else most):
            raise OSError("it is in too many pieces")
        if kind in (b"zTXt", b"iTXt", b"tEXt"):
            body = file.read(min(length, _PLAIN))
            size = _unfolded(kind, body, min(_PLAIN, texts + 1))
            texts = max(0, texts - size)
            if size >= _PLAIN or not texts:
                head.hidden.append((start, length + 12))
                head.hidden_texts.append(body.partition(b"\0")[0])
        elif kind == b"iCCP" and (has_profile or not is_before):
            # Only the first counts. Pillow would unfold a megabyte of each, which may be one of thousands.
            head.hidden.append((start, length + 12))
        elif kind == b"iCCP":
            has_profile = True
            unfolded = _unfold(file.read(min(length, _PROFILE)).partition(b"\0")[2][1:], _PROFILE)
            if len(unfolded) >= _PLAIN:
                head.hidden.append((start, length + 12))
                head.profile = unfolded[: int.from_bytes(unfolded[:4], "big")]
        elif is_before and length <= 32 and not _note(head, kind, file.read(length)):
            head.hidden.append((start, length + 12))
    return head


def without(file: BinaryIO, hidden: list[tuple[int, int]]) -> io.RawIOBase:
    """Return `file` with these parts hidden."""
    return _Without(file, hidden)


def strip(data: bytes, head: Head | None, exif: bytes) -> bytes | None:
    """Return the file without metadata other than `exif`, or None if it has no end."""
    # A profile that other programs refuse is not needed: the colours are those of sRGB.
    hidden = {start for start, _ in head.hidden} if head is not None else set()
    kept = bytearray(data[:8])
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if kind == b"IDAT" and exif:
            body = exif.removeprefix(b"Exif\0\0")
            kept += struct.pack(">I", len(body)) + b"eXIf" + body
            kept += struct.pack(">I", zlib.crc32(b"eXIf" + body))
            exif = b""
        if kind in _KEPT and position not in hidden:
            kept += data[position:end]
        if kind == b"IEND":
            return bytes(kept)
        position = end
    return None


class _Without(io.RawIOBase):
    def __init__(self, file: BinaryIO, hidden: list[tuple[int, int]]) -> None:
        super().__init__()
        self._file = file
        self._starts, self._skipped = [0], [0]
        for start, length in hidden:
            self._starts.append(start - self._skipped[-1])
            self._skipped.append(self._skipped[-1] + length)
        self._size = file.seek(0, io.SEEK_END) - self._skipped[-1]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        part = bisect_right(self._starts, self._position)
        left = self._starts[part] - self._position if part < len(self._starts) else len(buffer)
        self._file.seek(self._position + self._skipped[part - 1])
        data = self._file.read(min(left, len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, where it starts and the length of its body, which is read next from `file`."""
    start = 8
    while True:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], start, length
        start += length + 12


def _note(head: Head, kind: bytes, body: bytes) -> bool:
    """Note what a chunk says; return False if it is too short."""
    try:
        match kind:
            case b"IHDR":
                # Of one that is cut off there is nothing to hide.
                head.bits, head.kind = int.from_bytes(body[8:9], "big"), int.from_bytes(body[9:10], "big")
            case b"tRNS":
                head.has_transparency = True
            case b"cICP":
                primaries, transfer, matrix, is_full = body
                head.code_points = head.code_points or ((primaries, transfer, is_full != 0) if matrix == 0 else None)
            case b"sRGB":
                head.is_srgb = body[0] >= 0
            case b"gAMA" if head.gamma is None:
                head.gamma = struct.unpack(">I", body)[0] / 100_000
            case b"cHRM" if head.chromaticities is None:
                head.chromaticities = tuple(one / 100_000 for one in struct.unpack(">8I", body))
    except (ValueError, IndexError, struct.error):
        return False
    return True


def _unfolded(kind: bytes, body: bytes, most: int) -> int:
    """Return the length of a text, at most `most`."""
    words = body.partition(b"\0")[2]
    if kind == b"zTXt":
        return len(_unfold(words[1:], most))
    if kind == b"iTXt" and words[:1] == b"\1":
        return len(_unfold(words[2:].split(b"\0", 2)[-1], most))
    return min(len(body), most)


def _unfold(packed: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return b""
