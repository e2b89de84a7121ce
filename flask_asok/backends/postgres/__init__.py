"""Tasks by the application's PostgreSQL, on Procrastinate. START HERE: backend.py."""

from .backend import PostgresBackend

__all__ = ["PostgresBackend"]
