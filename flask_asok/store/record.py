"""What a store knows of one task."""

from __future__ import annotations

from dataclasses import dataclass

from ..progress import Progress
from ..summaries import SETTLED, State
from .history import PastAttempt, attempts_in


@dataclass(slots=True, kw_only=True)
class Record:
    """
    What a store knows of one task. All times are seconds since the epoch, 0.0 for "not yet".

    A record is a snapshot: nothing happens in the store when it is changed.
    """

    id: str
    name: str
    queue: str
    function: str = ""
    """`module:qualname` of the function."""
    origin: str = ""
    """Method and endpoint of the request that started the task, never its path or query."""
    state: State = "queued"
    attempts: int = 0
    enqueued: float = 0.0
    due: float = 0.0
    """When the next attempt may begin."""
    scheduled: float = 0.0
    """The tick of a periodic task."""
    started: float = 0.0
    finished: float = 0.0
    owner: str = ""
    """The token of the process that runs it, or will."""
    claim: int = 0
    """The fencing token: each attempt gets another one, and what an earlier one still writes is refused."""
    deaths: int = 0
    """How many processes ended while they ran it."""
    key: str = ""
    """The unique key that it holds."""
    unique_key: str = ""
    """The one that it has taken, and takes again when it is retried."""
    stopping: bool = False
    """Was the running attempt asked to stop?"""
    progress: Progress | None = None
    error: str = ""
    traceback: str = ""
    outcome: str | None = None
    """The signed value or error."""
    message: str | None = None
    """The signed call of a durable task."""
    history: str = ""
    """What `postpone` has written of earlier attempts: see `past_attempts`."""

    def __post_init__(self) -> None:
        self.unique_key = self.unique_key or self.key

    @property
    def past_attempts(self) -> list[PastAttempt]:
        """Return the attempts that another one has followed, the first one first; of many the latest."""
        return attempts_in(self.history)

    @property
    def is_settled(self) -> bool:
        """Return True if nothing more will happen to the task."""
        return self.state in SETTLED

    @property
    def is_durable(self) -> bool:
        """Return True if another process can run it."""
        return self.message is not None

    @property
    def can_be_retried(self) -> bool:
        """Return True if it did not succeed, and its call is still known."""
        return self.state in ("failed", "abandoned") and self.is_durable
