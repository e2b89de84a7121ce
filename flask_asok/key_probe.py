"""The probe in the store, by which processes learn that their keys differ."""

from __future__ import annotations

import logging
from typing import Protocol

from flask import Flask

from .baton import Baton
from .errors import MessageRefused, NotConfigured
from .logs import log
from .packing import Packer

PURPOSE = "probe"

DIFFERENT = "This process has another SECRET_KEY than those that share its store of background tasks"


class Probed(Protocol):
    """The part of a store that keeps the probe."""

    def probe(self, value: str, *, replaces: str = "") -> str:
        """Keep `value` as the probe of the signing key, unless there is one besides `replaces`; return what is kept."""


def tell_key(app: Flask, packer: Packer, store: Probed) -> None:
    """
    Sign the probe, once in each process that sends or takes over tasks, and tell where it is signed with another key.

    A process that serves leaves its own signature there: from then on those with the other key are told.
    """
    baton = app.extensions["asok"].shared("key_probe", Baton)
    # Not in `shared`, which has the application locked: the store may let this wait for another thread.
    if baton.take():
        try:
            _tell(app, packer, store)
        except BaseException:
            baton.put_back()
            raise


def check_key(packer: Packer, found: str | None) -> None:
    """Raise NotConfigured where a worker that finds this probe could run no task of those that send them."""
    try:
        if found is not None:
            packer.signer.verify(found, PURPOSE)
    except MessageRefused:
        raise NotConfigured(
            f"{DIFFERENT}: it takes no task. Give web and workers the same key; SECRET_KEY_FALLBACKS may hold the old "
            "one."
        ) from None


def _tell(app: Flask, packer: Packer, store: Probed) -> None:
    own = packer.signer.sign({"app": app.name}, PURPOSE)
    found = store.probe(own)
    if found == own:
        return
    is_replaced = True
    try:
        # The old key, which will go one day?
        packer.signer.verify(found, PURPOSE)
    except MessageRefused:
        log(
            logging.ERROR,
            "%s: neither can run the tasks of the other. Give all of them the same key; SECRET_KEY_FALLBACKS may hold "
            "the old one.",
            DIFFERENT, app=app,
        )  # fmt: skip
        is_replaced = app.extensions["asok"].serving.is_serving
    if is_replaced:
        store.probe(own, replaces=found)
