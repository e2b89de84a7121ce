"""The blog: one slow query, kept in a cache that is never cold."""

from __future__ import annotations

import time
from typing import Any

from flask_asok import Cache

from .db import get_db

TTL = 10.0
"""Seconds for which the list is fresh: short, so that a visitor sees it turn stale."""

KEY = "recent_posts"

cache = Cache(ttl=TTL, stale=3600)


def load_recent_posts() -> dict[str, Any]:
    """Return the newest posts with their readers: a count over every visit there ever was."""
    rows = get_db().execute(
        "SELECT title, count(DISTINCT reader) AS readers FROM posts LEFT JOIN visits ON visits.post = posts.id "
        "GROUP BY posts.id ORDER BY posts.id DESC LIMIT 4"
    )
    return {"posts": [dict(row) for row in rows], "counted_at": time.time()}


def add_post(title: str) -> None:
    """Publish a post."""
    get_db().execute("INSERT INTO posts (title) VALUES (?)", (title,))


def kind(recent: dict[str, Any], asked_at: float) -> str:
    """Say how a list came out of the cache: "cold", counted for this reader; "warm", fresh; or "stale"."""
    age = asked_at - recent["counted_at"]
    if age < 0:
        return "cold"
    return "warm" if age < TTL else "stale"
