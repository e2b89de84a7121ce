"""The probe in the store, by which processes learn that their keys differ."""

from __future__ import annotations

import logging

from flask import Flask

from ..errors import MessageRefused
from ..logs import log
from ..packing import Packer
from ..state import state_of
from ..store.durable import DurableStore

PURPOSE = "probe"


def check_key(app: Flask, store: DurableStore, packer: Packer) -> None:
    """Tell, once in each process, that it signs with another key than those that share the store."""
    state_of(app).shared("durable.probe", lambda: _checked(app, store, packer))


def _checked(app: Flask, store: DurableStore, packer: Packer) -> bool:
    signer = packer.signer
    own = signer.sign({"app": app.name}, PURPOSE)
    found = store.probe(own)
    try:
        signer.verify(found, PURPOSE)
    except MessageRefused:
        log(
            logging.ERROR,
            "This process has another SECRET_KEY than those that share its store of background tasks: they cannot run "
            "its durable tasks, nor can it run theirs. Give all of them the same key; SECRET_KEY_FALLBACKS may hold "
            "the old one.",
            app=app,
        )
        return False
    if found != own:
        # The old key, which will go one day.
        store.probe(own, replaces=found)
    return True
