"""The answer to one POST, read off its socket: until a deadline, up to a size, however the receiver bends HTTP."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from .deadline import Deadline

LONGEST_ANSWER = 64 * 1024
"""The most bytes of an answer to read, its head included."""
BODY_SECONDS = 1.0
"""How long the body may take after its head: the outcome is known by then, and the delivery still holds its slot."""
LONGEST_REASON = 100
_PIECE = 16 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]+)[ \t]+([1-9][0-9]{2})(?:[ \t](.*))?", re.DOTALL)
_TLS_RECORD = re.compile(rb"[\x15\x16]\x03[\x00-\x04]")
_NO_BODY = frozenset({101, 204, 304})

Fields = dict[str, list[str]]


class Malformed(Exception):
    """The answer is not HTTP, or its head is too long. The text quotes nothing that the receiver sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver answered."""

    status: int
    reason: str = field(repr=False)
    """The words after the status, without unprintable characters."""
    fields: Mapping[str, list[str]] = field(repr=False)
    """The values of each header, by its name in lower case."""
    body: bytes = field(repr=False)
    """Its first bytes, never decompressed; possibly cut off."""
    is_reusable: bool
    """True if the connection can carry another request."""

    def header(self, name: str) -> str | None:
        """Return the first value of a header, named in lower case."""
        return next(iter(self.fields.get(name, ())), None)


class Reader:
    """
    Reads one answer off a socket.

    http.client would not do: it refuses an answer with a hundred headers, and takes a line without a colon for the end
    of the head. Here a 2xx is a delivery as soon as its status has arrived, even if the rest is broken.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._read = bytearray()
        self._at = 0
        self._is_over = False

    @property
    def began(self) -> bool:
        """Return True if any byte of an answer has arrived."""
        return bool(self._read)

    def answer(self) -> Answer:
        """
        Return the final answer, skipping interim ones. 101 is final: the request asked for no other protocol.

        Raises OSError, TimeoutError included, if no head arrives; Malformed if it is not HTTP.
        """
        minor, status, reason, fields = self._head()
        lengths = {length.strip() for value in fields.get("content-length", ()) for length in value.split(",")}
        if len(lengths) > 1:
            raise Malformed("the answer has two lengths")
        self._deadline = self._deadline.within(BODY_SECONDS)
        body = bytearray()
        try:
            is_complete = status in _NO_BODY or self._body(body, fields, "".join(lengths))
        except (OSError, Malformed):
            is_complete = False
        is_kept = _is_kept(minor, fields) and status != 101 and self._at == len(self._read)
        return Answer(status, reason, fields, bytes(body), is_complete and is_kept)

    def head(self) -> Answer:
        """Return the final answer without its body: a 2xx to CONNECT has none. Raises what `answer` raises."""
        _, status, reason, fields = self._head()
        return Answer(status, reason, fields, b"", False)

    def _head(self) -> tuple[int, int, str, Fields]:
        while True:
            minor, status, reason = self._status_line()
            fields = self._fields()
            if not 100 <= status < 200 or status == 101:
                return minor, status, reason, fields

    def _status_line(self) -> tuple[int, int, str]:
        line = b""
        while not line:
            if self._is_over:
                # This end has a text of its own, and on a kept connection the POST is repeated at once.
                raise ConnectionResetError("closed without an answer")
            line = self._line()
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise Malformed(
                "the answer is TLS, not HTTP: should the URL begin with https://?"
                if _TLS_RECORD.match(self._read)
                else "the answer is not HTTP"
            )
        reason = (match[3] or b"").decode(errors="replace")
        printable = "".join(character for character in reason if character.isprintable())
        return int(match[1][:3]), int(match[2]), printable[:LONGEST_REASON].strip()

    def _fields(self) -> Fields:
        fields: Fields = {}
        latest: list[str] = []
        while line := self._line():
            name, colon, value = line.partition(b":")
            if line[:1] in b" \t":
                if latest:
                    latest[-1] += " " + line.strip().decode("latin-1")
            elif colon:
                latest = fields.setdefault(name.strip().lower().decode("latin-1"), [])
                latest.append(value.strip().decode("latin-1"))
        return fields

    def _body(self, body: bytearray, fields: Fields, length: str) -> bool:
        """Read the body into `body`, which keeps what arrives before an error; return True if it is complete."""
        codings = ",".join(fields.get("transfer-encoding", ())).lower()
        if codings.rpartition(",")[2].strip() == "chunked":
            return self._chunks(body) and not length
        if codings or not re.fullmatch("[0-9]{1,18}", length):
            while self._bytes(body, _PIECE):
                pass
            return False
        return self._bytes(body, int(length))

    def _chunks(self, body: bytearray) -> bool:
        while True:
            size = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?", self._line(), re.DOTALL)
            if size is None:
                return False
            if int(size[1], 16) == 0:
                while self._line():
                    pass
                return not self._is_over
            if not self._bytes(body, int(size[1], 16)) or self._line():
                return False

    def _line(self) -> bytes:
        """Return the next line without its end; at the end of the connection what is left, possibly nothing."""
        while (end := self._read.find(b"\n", self._at)) < 0 and self._receive():
            pass
        line = bytes(self._read[self._at : end if end >= 0 else None])
        self._at = end + 1 if end >= 0 else len(self._read)
        return line.removesuffix(b"\r")

    def _bytes(self, body: bytearray, count: int) -> bool:
        """Move `count` bytes to `body`; return False if the connection ended before."""
        while count:
            if self._at == len(self._read) and not self._receive():
                return False
            piece = self._read[self._at : self._at + count]
            self._at += len(piece)
            body += piece
            count -= len(piece)
        return True

    def _receive(self) -> bool:
        """Wait for more of the answer; return False if there is none."""
        if self._is_over:
            return False
        left = LONGEST_ANSWER - len(self._read)
        if not left:
            raise Malformed("the answer is not HTTP: its head is too long")
        # Before each read: a receiver that sends a byte now and then would renew a timeout that is set once.
        self._sock.settimeout(self._deadline.left())
        data = self._sock.recv(min(left, _PIECE))
        self._read += data
        self._is_over = not data
        return bool(data)


def _is_kept(minor: int, fields: Fields) -> bool:
    options = {option.strip() for value in fields.get("connection", ()) for option in value.lower().split(",")}
    return "close" not in options and (minor > 0 or "keep-alive" in options)
