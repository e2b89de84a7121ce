"""The outcome of an email: the recipients accepted, refused and still to be tried."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer of the SMTP server about one recipient."""

    address: str
    code: int
    """The SMTP answer: 4xx for now, 5xx for good."""
    text: str

    @property
    def is_temporary(self) -> bool:
        """Whether the server asks to try again later (RFC 5321, 4.2.1)."""
        return 400 <= self.code < 500

    def __str__(self) -> str:
        return f"{self.address}: {self.code} {self.text}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a sent email: `Mail.send(...).result()`. Addresses are bare, without names."""

    message_id: str
    """With its angle brackets; the same in every attempt."""
    accepted: list[str]
    """Recipients for whom the server accepted the email. (It may still bounce.)"""
    refused: list[Refusal] = field(default_factory=list)
    """Recipients for whom it refused the email, and that are not tried again."""
    later: list[str] = field(default_factory=list)
    """Recipients that it put off: a further task tries them again."""
