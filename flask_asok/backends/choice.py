"""Which backend an application runs on: the one that `ASOK_BACKEND` names."""

from __future__ import annotations

from importlib.metadata import entry_points

from ..errors import NotConfigured
from .base import Backend

NO_POSTGRES = "The postgres backend needs the extra: pip install 'flask-asok[postgres]'."


def backend_class(name: str) -> type[Backend]:
    """Import the backend that `ASOK_BACKEND` names, and no other."""
    match name:
        case "celery":
            from .celery import CeleryBackend

            return CeleryBackend
        case "postgres":
            try:
                from .postgres import PostgresBackend
            except ImportError:
                raise NotConfigured(NO_POSTGRES) from None

            return PostgresBackend
        case "threads":
            from .threads import ThreadsBackend

            return ThreadsBackend
        case "immediate":
            from .immediate import ImmediateBackend

            return ImmediateBackend
    found = entry_points(group="flask_asok.backends", name=name)
    if not found:
        others = sorted({entry.name for entry in entry_points(group="flask_asok.backends")})
        known = ", ".join(['"threads"', '"immediate"', '"celery"', '"postgres"', *(f'"{other}"' for other in others)])
        raise ValueError(f"ASOK_BACKEND is {name!r}; it must be one of {known}.")
    backend: type[Backend] = next(iter(found)).load()
    return backend
