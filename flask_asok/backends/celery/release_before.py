"""What the records of the release before still say of the tasks that it has sent. To be dropped with the next one."""

from __future__ import annotations

from ...messages.message import Message
from ...summaries import SETTLED
from .engine_store import RedisEngineStore


def is_over_in_records_before(store: RedisEngineStore, message: Message) -> bool:
    """Return True for a task that the release before has settled, or cancelled."""
    with store.reached:
        state, claim = store.redis.hmget(store.key(message.id), "state", f"claim:{message.attempt}")
    return state in SETTLED or claim == "cancelled"
