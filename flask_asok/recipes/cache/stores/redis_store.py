"""The store that all processes share: Redis, where scripts that run in the server decide the races."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import uuid
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from redis import Redis

from ....logs import log
from ..breaker import Breaker
from ..lifetime import Lifetime
from .serializer import Serializer, freeze
from .store import OF_TASKS, Begun, Entry, Outcome, Store

LONGEST_LOAD = 3_600
"""Seconds for which a load is remembered; the value of one that takes longer is not stored."""

LARGE = 100_000
"""Bytes from which the size of a value may be why Redis does not answer in time."""

UNANNOUNCED = object()
"""The token of a load that could not be announced. Nobody knows whether it was superseded, so it is not stored."""

NEVER = 1e12
"""The Unix time at which a value without an end ends: not every Lua can read infinity."""

# Each key is one hash: v the value, after the Unix times until which it is fresh and kept; f the tokens of the loads in
# flight in the order they began; l the token of the load that others wait for, d when its turn ends (server time).
# A write or delete replaces the hash, and so strikes off every load; nothing is remembered of a deleted key.
# Anything else under the key is foreign: it is treated as missing, and the next load or write replaces it.

_WRITE = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[1])
if ARGV[2] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
"""

_BEGIN = """
local found = redis.pcall('HMGET', KEYS[1], 'v', 'd', 'f')
if found.err then
    redis.call('DEL', KEYS[1])
    found = {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_free = (tonumber(found[2] or '') or 0) <= now
if ARGV[1] == 'alone' then
    local fresh_until = tonumber(string.match(found[1] or '', '^%S+') or '') or 0
    if fresh_until > tonumber(ARGV[2]) then return {'', found[1]} end
    if not is_free then return {''} end
end
local left = redis.call('PTTL', KEYS[1])
redis.call('HSET', KEYS[1], 'f', (found[3] or '') .. ARGV[3] .. ';')
if is_free then redis.call('HSET', KEYS[1], 'l', ARGV[3], 'd', string.format('%d', now + ARGV[4])) end
if left ~= -1 and left < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
return {ARGV[3]}
"""

_PUT = """
local loads = redis.call('HGET', KEYS[1], 'f')
local first, last = string.find(loads or '', ARGV[1] .. ';', 1, true)
if not first then return 0 end
local later = string.sub(loads, last + 1)
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'f', later)
if later == '' then redis.call('HDEL', KEYS[1], 'f') end
redis.call('HDEL', KEYS[1], 'l', 'd')
if ARGV[3] == '' then
    redis.call('PERSIST', KEYS[1])
elseif later == '' then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
    redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[3]), tonumber(ARGV[4])))
end
return 1
"""

_ABORT = """
local loads = redis.call('HGET', KEYS[1], 'f')
local first, last = string.find(loads or '', ARGV[1] .. ';', 1, true)
if first then
    local others = string.sub(loads, 1, first - 1) .. string.sub(loads, last + 1)
    if others == '' then redis.call('HDEL', KEYS[1], 'f') else redis.call('HSET', KEYS[1], 'f', others) end
end
if redis.call('HGET', KEYS[1], 'l') == ARGV[1] then redis.call('HDEL', KEYS[1], 'l', 'd') end
"""

_DELETE = """
local value = redis.pcall('HGET', KEYS[1], 'v')
redis.call('DEL', KEYS[1])
return type(value) == 'string' and string.match(value, '^%S+ (%S+)')
"""


class RedisStore(Store):
    """
    Keeps its values in the Redis behind `client`, each under `prefix` and its key.

    While Redis cannot be reached, the store answers at once for `cooldown` seconds and then tries with one call: reads
    find nothing, writes return False, deletes raise. It logs one line when an outage begins and one when it is over.
    Then it first deletes what this process should have replaced or deleted, so that the old values do not come back.
    """

    shared = True

    def __init__(
        self,
        client: Redis,
        serializer: Serializer,
        *,
        prefix: str = "",
        cooldown: float = 5.0,
        owned: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if client.get_encoder().decode_responses:
            raise ValueError("The cache keeps bytes: give it a Redis client without decode_responses.")
        self._client: Any = client
        self._serializer = serializer
        self._prefix = prefix
        self._clock = clock
        self._is_owned = owned
        self._breaker = Breaker(cooldown, self._delete_many, self._reconnect, client.ping)
        self._write, self._begin, self._put, self._abort, self._delete = map(
            client.register_script, (_WRITE, _BEGIN, _PUT, _ABORT, _DELETE)
        )

    def read(self, key: str) -> Entry | None:
        # Not hget(), which takes half as long again.
        found = self._breaker.call(lambda: self._client.execute_command("HGET", self._prefix + key, "v"), None)
        return None if found is None else self._entry(key, found)

    def read_many(self, keys: list[str]) -> list[Entry | None]:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(self._prefix + key, "v")
        if not keys:
            return []
        # An error in place of one answer means a foreign value under that key.
        found: list[Any] = self._breaker.call(lambda: pipeline.execute(raise_on_error=False), [None] * len(keys))
        return [
            self._entry(key, data) if isinstance(data, bytes) else None for key, data in zip(keys, found, strict=True)
        ]

    def freeze(self, key: str, value: Any) -> Any:
        return freeze(self._serializer, key, value)

    def thaw(self, frozen: Any) -> Any:
        return self._serializer.loads(frozen)

    def write(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        args = self._envelope(frozen, lifetime)
        return self._breaker.call(
            lambda: self._write([self._prefix + key], args) is None, False, large=_large(key, frozen)
        )

    def begin_load(self, key: str, *, alone: bool, seconds: float) -> Begun:
        token = uuid.uuid4().hex
        milliseconds = math.ceil(seconds * 1000)
        longest = max(LONGEST_LOAD * 1000, 2 * milliseconds)
        args = ["alone" if alone else "", repr(self._clock()), token, milliseconds, longest]
        found: list[Any] = self._breaker.call(lambda: self._begin([self._prefix + key], args), [])
        match found:
            case []:
                return Begun(UNANNOUNCED)
            case [_, data]:
                entry = self._entry(key, data)
                return Begun(entry=entry) if entry is not None else self.begin_load(key, alone=False, seconds=seconds)
        return Begun(token if found[0] else None)

    def end_load(self, key: str, token: Any, frozen: Any, lifetime: Lifetime) -> Outcome:
        if token is UNANNOUNCED:
            return Outcome.UNREACHABLE
        args = [token, *self._envelope(frozen, lifetime), LONGEST_LOAD * 1000]
        stored = self._breaker.call(lambda: self._put([self._prefix + key], args), None, large=_large(key, frozen))
        if stored is None:
            return Outcome.UNREACHABLE
        return Outcome.STORED if stored else Outcome.SUPERSEDED

    def abort_load(self, key: str, token: Any) -> None:
        if token is not UNANNOUNCED:
            self._breaker.call(lambda: self._abort([self._prefix + key], [token]), None)

    def delete(self, key: str) -> bool:
        kept_until = self._breaker.call_or_raise(lambda: self._delete([self._prefix + key]), f"{key!r} was not deleted")
        try:
            return kept_until is not None and self._clock() < float(kept_until)
        except ValueError:
            return False

    def clear(self, prefix: str) -> None:
        begins = self._prefix + prefix
        if OF_TASKS.startswith(begins) or begins.startswith(OF_TASKS):
            raise ValueError(
                f"What begins with {begins!r} on this Redis may be a task as well, which would be lost. Give the Cache "
                "a prefix of its own, or set CACHE_KEY_PREFIX."
            )
        self._breaker.call_or_raise(lambda: self._unlink(begins), "The cache was not cleared")

    def invalidate(self, key: str) -> None:
        self._breaker.invalidate(self._prefix + key)

    def close(self) -> None:
        if self._is_owned:
            self._client.close()

    def renew(self) -> None:
        self._breaker.renew()

    def _delete_many(self, names: Iterable[str]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.unlink(name)
        pipeline.execute()

    def _reconnect(self) -> None:
        # The client of a cluster has no pool, and looks for a new primary by itself.
        with contextlib.suppress(AttributeError):
            # Not those in use: their calls would fail in other threads.
            self._client.connection_pool.disconnect(inuse_connections=False)

    def _unlink(self, prefix: str) -> None:
        pattern = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in prefix.replace("\\", "\\\\")) + "*"
        names = iter(self._client.scan_iter(match=pattern, count=1_000))
        while batch := list(islice(names, 1_000)):
            self._delete_many(batch)

    def _entry(self, key: str, data: bytes) -> Entry | None:
        try:
            times, value = data.split(b"\n", 1)
            fresh_until, kept_until = map(float, times.split())
            now = self._clock()
            return (self._serializer.loads(value), now < fresh_until) if now < kept_until else None
        except Exception as error:
            log(logging.WARNING, "What is cached under %r cannot be read: %r", key, error, logger="asok.cache")
            return None

    def _envelope(self, frozen: bytes, lifetime: Lifetime) -> list[Any]:
        """Return the bytes to keep, and for how many milliseconds: "" is for ever."""
        fresh_until = min(self._clock() + lifetime.ttl, NEVER)
        kept_until = min(fresh_until + lifetime.stale, NEVER)
        milliseconds = "" if kept_until == NEVER else math.ceil((lifetime.ttl + lifetime.stale) * 1000)
        return [b"%r %r\n%b" % (fresh_until, kept_until, frozen), milliseconds]


def _large(key: str, frozen: bytes) -> str:
    return f"{key!r} ({len(frozen):,} bytes)" if len(frozen) >= LARGE else ""
