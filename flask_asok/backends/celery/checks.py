"""What a worker says at its start: of what it cannot promise, and of settings under which tasks are lost."""

from __future__ import annotations

import contextlib
import logging

from ...errors import BackendUnavailable
from ...key_probe import check_key
from ...logs import log
from .engine_store import RedisEngineStore
from .hub import CeleryHub


def check_worker(hub: CeleryHub) -> None:
    """Log what the operator ought to know; NotConfigured for a worker that could run no task."""
    # Raises without a SECRET_KEY: such a worker would refuse every task.
    hub.packer.signer  # noqa: B018
    if hub.store is None:
        log(
            logging.WARNING,
            "No Redis keeps the tasks: those that a lost broker or worker has in memory are lost, one may run twice "
            "at once, and nobody sees their state. Set ASOK_CELERY['result_backend'] = 'redis://...'.",
            app=hub.app,
        )
        return
    try:
        check_key(hub.packer, hub.store.read_probe())
        _check_redis(hub, hub.store)
        if count := hub.store.unswept(hub.config["ASOK_QUEUES"]):
            log(
                logging.INFO,
                "%d tasks wait that no worker of this release has seen: workers of the release before do not send "
                "what was dropped. Upgrade all of them.",
                count, app=hub.app,
            )  # fmt: skip
    except BackendUnavailable as error:
        # Redis may come up later: the worker waits for its broker as well.
        log(logging.WARNING, "%s", error, app=hub.app)


def _check_redis(hub: CeleryHub, store: RedisEngineStore) -> None:
    info: dict[str, object] = {}
    # A user whose ACL forbids it is told nothing, and can do nothing about it.
    with contextlib.suppress(BackendUnavailable), store.reached:
        info = {**store.redis.info("persistence"), **store.redis.info("memory")}
    if info.get("aof_enabled") == 0:
        log(
            logging.WARNING,
            "The Redis of background tasks keeps no append-only file: a restart loses those that were accepted since "
            "its last snapshot. Set appendonly yes.",
            app=hub.app,
        )
    policy = info.get("maxmemory_policy")
    if info.get("maxmemory") and policy != "noeviction":
        log(
            logging.WARNING,
            "The Redis of background tasks drops keys when its memory is full (%s). Set maxmemory-policy noeviction.",
            policy, app=hub.app,
        )  # fmt: skip
