"""A webhook with a unique key, while it waits for its host."""

from __future__ import annotations

from typing import Any

import pytest

from flask_asok import background, send_webhook

TIMEOUT = 10


@pytest.fixture(params=["memory", "sqlite", "durable", "redis"])
def keyed(request: pytest.FixtureRequest, make_app: Any, tmp_path: Any) -> Any:
    """An app for each store, whose hosts have one slot; and the call with the key."""
    store = {"memory": "memory", "redis": ""}.get(request.param, str(tmp_path / "asok.sqlite3"))
    if request.param == "redis":
        store = f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}/0"
    app = make_app(ASOK_STORE=store, ASOK_WEBHOOK_PER_HOST=1, SECRET_KEY="key" * 10)
    call = background.using(unique="invoice-7", unique_until="start", durable=request.param == "durable")
    with app.app_context():
        yield call


def test_until_start(keyed: Any, make_receiver: Any) -> None:
    """With unique_until="start" the key is free when the webhook is sent, not while it looks for a slot."""
    # Two ports are one host.
    slow, receiver = make_receiver(), make_receiver()
    slow.answer_when.clear()
    receiver.answer_when.clear()
    first = background(send_webhook, slow.url, {})
    slow.next()

    waiting = keyed(send_webhook, receiver.url, {"n": 1})
    while waiting.state != "waiting":
        first.join(0.01)
    for _ in range(10):
        assert keyed(send_webhook, receiver.url, {"n": 2}).id == waiting.id
        first.join(0.01)
    slow.answer_when.set()
    assert receiver.next().body == b'{"n":1}'
    another = keyed(send_webhook, receiver.url, {"n": 3})
    receiver.answer_when.set()

    assert another.id != waiting.id
    assert [task.result(TIMEOUT).attempts for task in (waiting, another)] == [1, 1]
    assert receiver.next().body == b'{"n":3}'
    assert receiver.received.empty()
