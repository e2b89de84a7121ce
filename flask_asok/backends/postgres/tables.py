"""The tables of the engine and of the store: what a database lacks of them, and how it gets that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import psycopg

from ...errors import NotConfigured
from ...store.postgres.connections import OPTIONS, cause_of, reached
from .hub import PostgresHub

LOCK = 0x61736F6B
"""The advisory lock of the command: "asok". Two that run at once come one after the other."""

OLD = (
    "The tables of Procrastinate in this database are older than its release 3.0. Upgrade them with the migrations of "
    "Procrastinate first."
)

EVENTS = "procrastinate_trigger_function_status_events"

MIGRATIONS = (
    ("03.00.00_50_post_cancel_notification", f"{EVENTS}_insert_v1", ""),
    ("03.01.00_01_pre_add_heartbeat", "procrastinate_fetch_job_v2", ""),
    ("03.02.00_01_pre_batch_defer_jobs", "procrastinate_defer_jobs_v1", ""),
    ("03.03.00_01_pre_priority_lock_fetch_job", "procrastinate_fetch_job_v2", "other_jobs.priority"),
    ("03.04.00_01_pre_add_retry_failed_job_procedure", "procrastinate_retry_job_v2", ""),
    ("03.04.00_50_post_add_retry_failed_job_procedure", f"{EVENTS}_update_v1", "retried"),
)  # fmt: skip
"""The engine's migrations since 3.0, each with a function, and with words in that, by which it is known as applied."""

OF_3_0 = "procrastinate_cancel_job_v1"


def set_up(hub: PostgresHub) -> list[str]:
    """Make what the database lacks, in one transaction, and return what that was; nothing where it lacks nothing."""
    with _connected(hub) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        lacking = _lacking(connection)
        for _, statements in lacking:
            connection.execute(statements.encode())
    return [what for what, _ in lacking]


def missing_sql(hub: PostgresHub) -> str:
    """Return the statements that `set_up` would run; "" where the database lacks nothing."""
    with _connected(hub) as connection:
        return "\n".join(f"-- {what}\n\n{statements.strip()}\n" for what, statements in _lacking(connection))


@contextmanager
def _connected(hub: PostgresHub) -> Iterator[psycopg.Connection[Any]]:
    schema = hub.settings["schema"]
    with reached(), psycopg.connect(hub.url, prepare_threshold=None, **OPTIONS) as connection:
        try:
            if schema != "public":
                connection.execute(f'SET LOCAL search_path TO "{schema}"'.encode())
            yield connection
        except psycopg.OperationalError:
            raise
        except psycopg.DatabaseError as error:
            raise NotConfigured(f"PostgreSQL refuses to make the tables: {cause_of(error)}") from None


def _lacking(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Return what the database lacks, each with the statements that make it."""
    return [*_lacking_of_engine(connection), *_lacking_of_store(connection)]


def _lacking_of_engine(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    sql = files("procrastinate.sql")
    if not _has(connection, "procrastinate_jobs"):
        return [("The tables of Procrastinate", (sql / "schema.sql").read_text("utf-8"))]
    functions = _functions(connection)
    if OF_3_0 not in functions:
        raise NotConfigured(OLD)
    return [
        (f"Migration {name} of Procrastinate", (sql / "migrations" / f"{name}.sql").read_text("utf-8"))
        for name, function, words in MIGRATIONS
        if function not in functions or words not in functions[function]
    ]


def _lacking_of_store(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    statements = (files("flask_asok.store.postgres") / "schema.sql").read_text("utf-8")
    tables = re.findall(r"IF NOT EXISTS (\w+)", statements)
    functions = set(re.findall(r"(?:FUNCTION|PROCEDURE) (\w+)", statements))
    if all(_has(connection, name) for name in tables) and functions <= _functions(connection).keys():
        return []
    return [("The tables of Flask-Asok", statements)]


def _has(connection: psycopg.Connection[Any], name: str) -> bool:
    found = connection.execute("SELECT to_regclass(%s)", [name]).fetchone()
    return found is not None and found[0] is not None


def _functions(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return the code of the functions, of the engine and of ours, by their names."""
    found = connection.execute(
        "SELECT proname, prosrc FROM pg_proc WHERE proname ~ '^(procrastinate|asok)_' AND pg_function_is_visible(oid)",
        [],
    )
    return dict(found.fetchall())
