"""What became of a mail: who accepted it, who was refused, who is tried again."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer of the SMTP server to one recipient."""

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
    """What a sent mail gives back: `Mail.send(...).result()`. Addresses are bare, without names."""

    message_id: str
    """With its angle brackets; the same in every attempt."""
    accepted: list[str]
    """Recipients that the server took the mail for. (Taken is not yet delivered.)"""
    refused: list[Refusal] = field(default_factory=list)
    """Recipients that it did not take the mail for, and will not be tried again."""
    later: list[str] = field(default_factory=list)
    """Recipients that it asked to try again later: a further task does."""
