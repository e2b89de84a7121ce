"""Orders, in the database that the site would have: by Flask-SQLAlchemy, in real transactions."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.exc import DBAPIError

db: Any = SQLAlchemy()


class Order(db.Model):  # type: ignore[misc]
    """What somebody wants to buy."""

    __tablename__ = "example_orders"

    id = db.Column(db.Integer, primary_key=True)
    email = db.Column(db.Text, nullable=False)


def init_app(app: Flask) -> None:
    """Keep them in the PostgreSQL of the tasks, or else in a file; make the table where there is none."""
    url = app.config.get("ASOK_POSTGRES_URL")
    path = Path(app.config["EXAMPLE_FOLDER"]).resolve() / "orders.sqlite"
    own = url.replace("postgresql://", "postgresql+psycopg://", 1) if url else f"sqlite:///{path}"
    app.config.setdefault("SQLALCHEMY_DATABASE_URI", own)
    db.init_app(app)
    # Of several processes that start at the same moment one makes it.
    with app.app_context(), contextlib.suppress(DBAPIError):
        db.create_all()
