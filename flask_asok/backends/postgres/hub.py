"""What tasks, worker and backend have in common on PostgreSQL: where it is, the store, and the sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from ...errors import NotConfigured
from ...messages.message import Message
from ...store.postgres.connections import Connections
from ..distributed.hub import Hub
from ..scheduler import Scheduler
from .engine_store import PostgresEngineStore
from .session import Transactions

POSTGRES_URL = "postgresql://"

OF_WORKERS = {"enable_seqscan": "off", "jit": "off", "default_transaction_isolation": "read committed"}
"""
The settings of connections that go past any pooler. They keep plans: one that was made while a table was empty must do
when it is full. And each statement is a transaction, made for this level, whatever is the default of the database.
"""


class PostgresHub(Hub):
    """The hub of the postgres backend."""

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self.settings: Mapping[str, Any] = config["ASOK_POSTGRES"]
        self.transactions: Transactions = Transactions(app, self.settings["bind"])

    @property
    def url(self) -> str:
        """The URL for connections of our own: `ASOK_POSTGRES_URL`, or the one of the bind."""
        if self.config["ASOK_POSTGRES_URL"]:
            return str(self.config["ASOK_POSTGRES_URL"])
        engine = self.transactions.engine
        if engine is None or engine.dialect.name != "postgresql":
            raise NotConfigured(
                "The postgres backend needs a PostgreSQL: Flask-SQLAlchemy with one, on the bind that "
                "ASOK_POSTGRES['bind'] names, or ASOK_POSTGRES_URL = 'postgresql://...'."
            )
        return str(engine.url.set(drivername="postgresql").render_as_string(hide_password=False))

    def session_settings(self, *, is_worker: bool) -> dict[str, str]:
        """Return the settings of PostgreSQL for connections of our own."""
        schema = self.settings["schema"]
        found = {} if schema == "public" else {"search_path": schema}
        if self.prepares:
            found |= OF_WORKERS
        # Of a worker's connections only: the last instants of what it has done, and what is repeated then.
        return {**found, "synchronous_commit": "off"} if is_worker and self.settings["relaxed"] else found

    @property
    def prepares(self) -> bool:
        """Can this process prepare statements? It runs tasks, and listens: its connections go past any pooler."""
        return self.settings["listen"] and (self.is_worker or self.config["ASOK_WORKER"] == "web")

    @property
    def store(self) -> PostgresEngineStore:
        """The store, in this process."""
        return self.shared("postgres.store", self._opened)

    def _opened(self) -> PostgresEngineStore:
        connections = Connections(
            self.url, self.settings["pool"], self.session_settings(is_worker=self.is_worker), prepares=self.prepares
        )
        return PostgresEngineStore(
            connections, self.app.name, self.config["ASOK_QUEUES"],
            lease=self.settings["dead_after"], keep=self.settings["keep"],
        )  # fmt: skip

    is_worker: bool = False
    """Is this process one of `flask asok worker`?"""

    def need_store(self) -> PostgresEngineStore:
        """Return the store."""
        return self.store

    @property
    def timeouts(self) -> Scheduler:
        """What watches the timeouts of the tasks that run in this process."""
        return self.shared("postgres.timeouts", Scheduler)

    def publish(self, message: Message, signed: str = "", *, wait: float = 0.0, sent: str = "") -> None:
        """Let a worker have a task whose record is queued."""
        self.store.send(message.id)
