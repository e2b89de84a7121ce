"""The store of an application, as durable tasks need it."""

from __future__ import annotations

from flask import Flask

from ..backends.base import NOT_DURABLE
from ..errors import NotConfigured
from ..sharing import open_store
from ..store.durable import DurableStore


def durable_store(app: Flask) -> DurableStore:
    """Return the store of `app`; NotConfigured for one that several machines share."""
    store = open_store(app)
    if not isinstance(store, DurableStore):
        raise NotConfigured(NOT_DURABLE)
    return store
