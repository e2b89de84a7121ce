"""The probe in the store, by which a worker learns that its key is not that of the web processes."""

from __future__ import annotations

import logging

from ...errors import MessageRefused, NotConfigured
from ...logs import log
from .engine_store import EngineStore
from .hub import Hub

PURPOSE = "probe"

DIFFERENT = "This process has another SECRET_KEY than those that share its store of background tasks"


def tell_key(hub: Hub, store: EngineStore) -> None:
    """
    Sign the probe, once in each process that sends tasks.

    One that serves leaves its own signature where it finds another key's: from then on that one's workers are told.
    """
    hub.shared("celery.probe", lambda: _told(hub, store))


def check_key(hub: Hub, store: EngineStore) -> None:
    """Raise NotConfigured where this worker could run no task of those that send them."""
    signer = hub.packer.signer
    found = store.read_probe()
    try:
        if found is not None:
            signer.verify(found, PURPOSE)
    except MessageRefused:
        raise NotConfigured(
            f"{DIFFERENT}: it takes no task. Give web and workers the same key; SECRET_KEY_FALLBACKS may hold the old "
            "one."
        ) from None


def _told(hub: Hub, store: EngineStore) -> bool:
    signer = hub.packer.signer
    own = signer.sign({"app": hub.app.name}, PURPOSE)
    found = store.probe(own)
    if found == own:
        return True
    serves = hub.is_serving
    try:
        signer.verify(found, PURPOSE)
    except MessageRefused:
        log(
            logging.ERROR,
            "%s: workers with the other key cannot run its tasks. Give all of them the same key; SECRET_KEY_FALLBACKS "
            "may hold the old one.",
            DIFFERENT, app=hub.app,
        )  # fmt: skip
    else:
        # The old key, which will go one day.
        serves = True
    if serves:
        store.probe(own, replaces=found)
    return True
