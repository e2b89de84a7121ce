"""What Redis raises, as an error of ours that says which Redis, why, and what it needs."""

from __future__ import annotations

from ...errors import BackendUnavailable
from ...store.redis import Reached
from ..distributed.engine_store import ForeignRecord


class RecordsReached(Reached):
    """As in every store; where `keys` are closed to us, or another program uses them, the error names them."""

    name = "The Redis that keeps the tasks' records"

    def __init__(self, address: str, keys: str) -> None:
        super().__init__(address)
        self._keys = keys

    def told(self, error: Exception) -> BackendUnavailable:
        from redis.exceptions import NoPermissionError, ResponseError

        if isinstance(error, NoPermissionError):
            return BackendUnavailable(f"{super().told(error)} It needs the keys {self._keys}")
        if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
            return ForeignRecord(f"Another program keeps something under one of the keys {self._keys}")
        return super().told(error)
