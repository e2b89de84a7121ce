"""The store of an application, as durable tasks need it."""

from __future__ import annotations

from flask import Flask

from ..backends.base import NOT_DURABLE
from ..errors import NotConfigured
from ..key_probe import tell_key
from ..results import packer_of
from ..sharing import open_store
from ..store.durable import DurableStore


def durable_store(app: Flask) -> DurableStore:
    """Return the store of `app`; NotConfigured for one that several machines share."""
    store = open_store(app)
    if not isinstance(store, DurableStore):
        raise NotConfigured(NOT_DURABLE)
    return store


def store_of_calls(app: Flask) -> DurableStore:
    """Return that store, to write calls into or take them over; the first time, tell which key this process has."""
    store = durable_store(app)
    tell_key(app, packer_of(app), store)
    return store
