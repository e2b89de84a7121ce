"""What the log says of a webhook that was not delivered: enough to find it, in one line, and nothing secret."""

from __future__ import annotations

import html
import itertools
import json
import logging
import socket
import string
import threading
import time
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from flask_asok import FlaskAsok, WebhookUnavailable, background, send_webhook
from flask_asok.recipes.webhooks.excerpt import first_words
from flask_asok.recipes.webhooks.url import parse_url
from flask_asok.recipes.webhooks.webhook import Webhook, compose

TIMEOUT = 10
SESAME = "0PEN-5ESAME"


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    head = [f"HTTP/1.1 {status} Whatever", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "asok.background"]


def failed(url: str, **options: Any) -> Any:
    task = background.using(**{"retries": 0, **options})(
        send_webhook, url, {"n": 1}, id="evt_1", reference="endpoint-7", timeout=5, headers={"X-Key": SESAME}
    )
    task.join(TIMEOUT)
    return task


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        (answer(502, body=b"<html><head><title>Bad gateway</title></head></html>"), ["502", "answer='Bad gateway'"]),
        (answer(400, body=b"invalid_payload"), ["WebhookRejected(", "400", "answer='invalid_payload'"]),
        (answer(410, body=b"channel_is_archived"), ["WebhookGone(", "410", "answer='channel_is_archived'"]),
        (answer(301, "Location: https://b.example/x", body=b"Moved"), ["301", "https://b.example", "answer='Moved'"]),
        (answer(503), ["503"]),
        (b"rubbish\r\n\r\n", ["not HTTP"]),
        (b"", ["closed the connection"]),
    ],
    ids=["502", "Slack", "gone", "redirect", "no words", "rubbish", "closed"],
)
def test_one_line(
    app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture, answered: bytes, words: list[str]
) -> None:
    """One line names the webhook, its endpoint, the status and what the receiver said, with no frame of ours."""
    receiver.answers = [answered]

    task = failed(receiver.url)

    (record,) = records(caplog)
    text = record.getMessage()
    assert text.startswith("Background task send_webhook failed: Webhook")
    for part in ("evt_1", "endpoint-7", f"http://localhost:{receiver.port}", *words):
        assert part in text
    assert record.levelno == logging.ERROR
    assert record.exc_info is None
    assert "\n" not in text
    assert "/hook" not in text
    assert "evt_1" in task.summary.error


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9/", "http://10.0.0.1/", "http://hooks.invalid/", "https://127.0.0.1:9/"],
    ids=["refused", "blocked", "name", "TLS"],
)
def test_no_answer(app: Flask, caplog: pytest.LogCaptureFixture, url: str) -> None:
    """So it is where nothing was answered."""
    failed(url)

    (record,) = records(caplog)
    assert "webhook_id='evt_1', reference='endpoint-7'" in record.getMessage()
    assert record.exc_info is None


def test_retried(app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The line of an attempt that is retried says the same, the receiver's Retry-After included."""
    receiver.answers = [answer(500, body=b"oops"), answer(429, "Retry-After: 0", body=b"rate_limited")]

    failed(receiver.url, retries=2, backoff=0.01)

    first, second = records(caplog)
    assert first.levelno == second.levelno == logging.WARNING
    assert first.getMessage().startswith(
        "Background task send_webhook failed (attempt 1 of 3, next in 0.01 s): WebhookUnavailable("
    )
    assert "status=500, answer='oops'" in first.getMessage()
    assert "next in 0.01 s): WebhookUnavailable(" in second.getMessage()
    assert "answered 429" in second.getMessage()
    assert "webhook_id='evt_1', reference='endpoint-7', status=429, answer='rate_limited'" in second.getMessage()
    assert first.exc_info is second.exc_info is None


def test_abandoned(make_app: Any, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """So do the lines of what a shutdown leaves: running, waiting for its host or a retry, queued, delayed."""
    app = make_app(ASOK_QUEUES={"webhooks": 1, "other": 2})
    receiver.answers = [answer(502, body=b"Bad gateway")]
    began, done = threading.Event(), threading.Event()

    def occupy() -> None:
        began.set()
        done.wait(TIMEOUT)

    with app.app_context():
        retried = background.using(backoff=600)(send_webhook, receiver.url, {}, id="retried", reference="r-1")
        while retried.state != "waiting":
            retried.join(0.01)
        receiver.next()
        receiver.answer_when.clear()
        other = background.using(queue="other")
        other(send_webhook, receiver.url, {}, id="running", reference="r-2")
        receiver.next()
        turn = other(send_webhook, receiver.url, {}, id="turn", reference="r-3")
        while turn.state != "waiting":
            turn.join(0.01)
        background.using(queue="webhooks")(occupy)
        assert began.wait(TIMEOUT)
        background(send_webhook, receiver.url, {}, id="queued", reference="r-4")
        background.using(delay=600)(send_webhook, receiver.url, {}, id="delayed", reference="r-5")
        caplog.clear()
    FlaskAsok().close(app, 0)

    texts = [record.getMessage() for record in records(caplog) if "send_webhook" in record.getMessage()]
    for number, id in enumerate(("retried", "running", "turn", "queued", "delayed"), start=1):
        (text,) = (text for text in texts if f"webhook_id={id!r}, reference='r-{number}'" in text)
        assert text.startswith("Background task send_webhook (")
        assert "abandoned while" in text
    assert sum("status=502, answer='Bad gateway'" in text for text in texts) == 1
    done.set()
    receiver.answer_when.set()
    for thread in threading.enumerate():
        if thread.name.startswith("asok-"):
            thread.join(TIMEOUT)


def test_frames_of_the_application(app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A task of one's own that sends a webhook is shown with its own frames, and with none of ours."""
    receiver.answers = [answer(502)] * 2

    def notify() -> None:
        send_webhook(receiver.url, {}, id="evt_1")

    background.using(retries=1, backoff=0)(notify).join(TIMEOUT)

    told = records(caplog)
    assert all("evt_1" in record.getMessage() for record in told)
    # Of an attempt that is made again they are for those who read DEBUG.
    for record in told:
        if record.levelno == logging.WARNING:
            assert record.exc_info is None
            continue
        shown = logging.Formatter().formatException(record.exc_info)  # type: ignore[arg-type]
        assert "in notify" in shown
        assert "delivery.py" not in shown


@pytest.mark.parametrize("headers", [[], ["Retry-After: 1"]], ids=["backoff", "Retry-After"])
def test_errors_of_the_application(
    app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture, headers: list[str]
) -> None:
    """A backoff that raises is a mistake in the application: its traceback stays, the webhook has its line."""
    receiver.answers = [answer(503, *headers)]

    def wrong(attempt: int) -> float:
        raise LookupError("no such schedule")

    failed(receiver.url, retries=1, backoff=wrong)

    backoff, last = records(caplog)
    assert "no such schedule" in backoff.getMessage()
    assert "in wrong" in logging.Formatter().formatException(backoff.exc_info)  # type: ignore[arg-type]
    assert "webhook_id='evt_1'" in last.getMessage()
    assert last.exc_info is None


def test_unforeseen(
    app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of another kind keeps its traceback, with the webhook at its end."""

    def post(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("flask_asok.recipes.webhooks.transport.Transport.post", post)

    failed(receiver.url)

    assert "webhook_id='evt_1', reference='endpoint-7'" in caplog.text


def test_reference_is_cut(app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A reference cannot break the line, nor flood the log."""
    receiver.answers = [answer(404)]

    background(send_webhook, receiver.url, {}, reference="a\nb\x1b[31m" + "x" * 10_000).join(TIMEOUT)

    (record,) = records(caplog)
    assert "reference='a\\nb\\x1b[31mxxx" in record.getMessage()
    assert len(record.getMessage()) < 600


def webhook(url: str = f"https://hooks.example/services/{SESAME}?key={SESAME}-2", payload: Any = None) -> Webhook:
    return compose(url, payload or {}, headers={"Authorization": f"Bearer {SESAME}-3"}, id="msg_1", timeout=1)


def words(body: bytes, **kwargs: Any) -> str:
    sent = webhook(**kwargs)
    return first_words(sent, parse_url(sent.url), body)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b" invalid_payload\r\n", "invalid_payload"),
        (b"a\x1b[31m\r\nb\x00\xe2\x80\xaec\xff", "a [31m b c\N{REPLACEMENT CHARACTER}"),
        (b"<!DOCTYPE html><style>p {}</style><!-- x --><h1>Not&nbsp;found &amp; gone</h1>", "Not found & gone"),
        (b"x" * 10_000, "x" * 120 + " ..."),
        (b"webhook keyed, services down", "webhook keyed, *** down"),
        (b"See https://docs.example/errors?code=1 for more", "See https://docs.example/*** for more"),
        (
            b"token whsec_abcdef, Authorization: Bearer ey.J0 was wrong",
            "token ***, Authorization: Bearer *** was wrong",
        ),
        (b"Cannot POST /services/%b" % SESAME.encode(), "Cannot POST ***"),
    ],
)
def test_first_words(body: bytes, shown: str) -> None:
    """The first words are on one line, without markup and what drives a terminal, and cut."""
    assert words(body) == shown


WAYS = {
    "plain": str,
    "quoted": lambda text: quote(text, safe=""),
    "html": html.escape,
    "json": json.dumps,
    "php": lambda text: json.dumps(text).replace("/", "\\/"),
    "lower": str.lower,
    "upper": str.upper,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "url", [f"https://h.example/services/{SESAME}?key={SESAME}&b=1#x", f"https://h.example/{SESAME}%2Fx/é;{SESAME}"]
)
def test_echo(way: str, url: str) -> None:
    """A receiver that echoes the request, however written, puts no secret into the log."""
    target = parse_url(url).target
    echo = f"no: {target} {url} Bearer {SESAME}-3 X: {SESAME}-3 " + json.dumps({"path": target.split("/"), "a": "<b>"})

    shown = words(WAYS[way](echo).encode(), url=url, payload={"card": "4111 1111 1111"})

    assert SESAME.lower() not in shown.lower()


def test_echo_of_the_payload() -> None:
    """Nor does one that echoes the payload."""
    payload = {"card": "4111 1111 1111", "n": 1}

    assert words(b"invalid: " + json.dumps(payload).encode(), payload=payload) == 'invalid: {"card": "***", "n": 1}'
    assert words(b'invalid: {"card":"4111 1111 1111","n":1}', payload=payload) == "invalid: ***"


def test_url_of_many_words() -> None:
    """A URL of 1,000 words, all of them echoed, takes no seconds: each had an expression of its own."""
    parts = ["".join(each) for each in itertools.islice(itertools.product(string.ascii_lowercase, repeat=7), 1000)]
    started = time.process_time()

    shown = words(" ".join([*parts, *map(str.upper, parts)]).encode(), url="https://h.example/" + "/".join(parts))

    assert time.process_time() - started < 0.5
    assert set(shown) == set("*** ...")


def test_echo_to_the_log(app: Flask, receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """So it is on the whole way to the log, and the error's own text has none of the receiver's words."""
    caplog.set_level(logging.DEBUG)

    def behave(sock: socket.socket, receiver: Any) -> None:
        request = sock.recv(65536)
        sock.sendall(answer(502, body=request))

    receiver.behave = behave
    task = background.using(retries=0)(
        send_webhook, f"http://localhost:{receiver.port}/{SESAME}", {}, headers={"X-Key": SESAME}
    )

    error = task.exception(TIMEOUT)

    assert isinstance(error, WebhookUnavailable)
    assert str(error) == f"http://localhost:{receiver.port} answered 502."
    assert SESAME not in caplog.text + repr(error)
    assert "POST *** HTTP/1.1" in caplog.text
