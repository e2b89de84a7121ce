"""The database: one connection for each request and each task, as in Flask's tutorial."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from flask import Flask, current_app, g

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, visitor TEXT NOT NULL, card TEXT NOT NULL, "
    "mode TEXT NOT NULL, response_ms REAL, begun_at REAL NOT NULL, data TEXT NOT NULL DEFAULT '{}')",
    "CREATE INDEX IF NOT EXISTS runs_of_a_visitor ON runs (visitor, card)",
    "CREATE TABLE IF NOT EXISTS deliveries (id INTEGER PRIMARY KEY, webhook_id TEXT NOT NULL, sign_up INTEGER, "
    "status INTEGER NOT NULL, note TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS mails (id INTEGER PRIMARY KEY, sign_up INTEGER, recipient TEXT NOT NULL, "
    "subject TEXT NOT NULL, text TEXT, html TEXT)",
    "CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS visits (post INTEGER NOT NULL, reader INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS products (visitor TEXT NOT NULL, sku TEXT NOT NULL, name TEXT NOT NULL, "
    "price TEXT NOT NULL, imported_at REAL NOT NULL, PRIMARY KEY (visitor, sku))",
    "CREATE TABLE IF NOT EXISTS counts (tick REAL NOT NULL, process INTEGER NOT NULL, products INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cursors (task TEXT PRIMARY KEY, done INTEGER NOT NULL, went_on_at INTEGER)",
)

POSTS = [
    "The page is the promise",
    "What a queue remembers",
    "Slow is a place, not a speed",
    "Letters that wait for nobody",
    "A photograph of the sea",
    "Notes on not blocking",
    "Five ways to be late",
]


def get_db() -> sqlite3.Connection:
    """Return the connection of this request or task; it is closed with it."""
    if "db" not in g:
        path = Path(current_app.config["EXAMPLE_FOLDER"]) / "example.sqlite"
        # Without transactions: each statement here stands for itself.
        g.db = sqlite3.connect(path, timeout=15, isolation_level=None)
        g.db.row_factory = sqlite3.Row
        g.db.execute("PRAGMA synchronous = OFF")
    db: sqlite3.Connection = g.db
    return db


def close_db(error: BaseException | None = None) -> None:
    """Close the connection, if there is one."""
    db = g.pop("db", None)
    if db is not None:
        db.close()


def init_app(app: Flask) -> None:
    """Close connections with their context; make the database where there is none."""
    app.teardown_appcontext(close_db)
    with app.app_context():
        db = get_db()
        db.execute("PRAGMA journal_mode = WAL")
        # The web and the worker may start at the same moment: one makes it all, the other waits.
        db.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            db.execute(statement)
        if db.execute("SELECT 1 FROM posts").fetchone():
            db.execute("COMMIT")
            return
        db.executemany("INSERT INTO posts (title) VALUES (?)", [(title,) for title in POSTS])
        db.execute(
            "WITH RECURSIVE visit (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM visit WHERE n < ?) "
            "INSERT INTO visits SELECT 1 + abs(random() % ?), abs(random() % 90000) FROM visit",
            (app.config["EXAMPLE_VISITS"], len(POSTS)),
        )
        db.execute("COMMIT")
