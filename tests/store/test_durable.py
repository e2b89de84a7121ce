"""Which store keeps durable tasks."""

from textwrap import dedent

import pytest

from flask_asok import NotConfigured, background


def test_redis_keeps_none(make_app, redis_port):
    """Over a network an engine does that: the error says so."""
    app = make_app(ASOK_STORE=f"redis://127.0.0.1:{redis_port}", ASOK_TASK_MODULES=["textwrap"])

    with (
        app.app_context(),
        pytest.raises(NotConfigured, match=r"ASOK_STORE to a path on this machine, .*ASOK_BACKEND"),
    ):
        background.using(durable=True)(dedent, "x")
