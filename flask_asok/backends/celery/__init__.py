"""Tasks on Celery workers. START HERE: backend.py, which `ASOK_BACKEND = "celery"` chooses."""

from .backend import CeleryBackend

__all__ = ["CeleryBackend"]
