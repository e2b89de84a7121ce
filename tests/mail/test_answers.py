"""What the server answers, and what becomes of the mail and its task."""

from __future__ import annotations

import logging
import socket

import flask_mail
import pytest

from flask_asok import Mail, MailRefused, MailUnavailable, background, send_mail
from flask_asok.recipes.mail.recipe import DURABLE_BACKOFF, backoff, durable_backoff
from flask_asok.signals import mail_refused

TIMEOUT = 10


def drop(server) -> str:
    server.transport.abort()
    return "421 gone"


@pytest.mark.usefixtures("quick")
def test_451_then_250(app, handler):
    """A temporary answer is tried again, with the same Message-ID, and the mail arrives once."""
    handler.data_answers = ["451 4.3.0 later", ""]

    task = Mail.send("user@example.com", "Hello", "World")
    receipt = task.result(TIMEOUT)

    assert task.attempts == 2
    assert handler.seen_ids == [receipt.message_id] * 2
    assert handler.received.qsize() == 1


@pytest.mark.usefixtures("quick")
def test_451_for_ever(app, handler):
    """After the first attempt and 3 retries the task fails, and its error holds the answer."""
    handler.data_answers = ["451 4.3.0 later"] * 10

    task = Mail.send("user@example.com", "Hello", "World")

    with pytest.raises(MailUnavailable, match=r"451 4\.3\.0 later") as caught:
        task.result(TIMEOUT)
    assert task.attempts == 4
    assert caught.value.code == 451


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("where", ["MAIL", "RCPT", "DATA"])
def test_550(app, handler, where):
    """A permanent answer is not tried again, wherever the server gives it."""
    answer = "550 5.1.1 no such user"
    handler.mail_answers = [answer] if where == "MAIL" else []
    handler.rcpt_answers = {"user@example.com": [answer]} if where == "RCPT" else {}
    handler.data_answers = [answer] if where == "DATA" else []

    task = Mail.send("user@example.com", "Hello", "World")

    with pytest.raises(MailRefused, match=r"550 5\.1\.1 no such user") as caught:
        task.result(TIMEOUT)
    assert task.attempts == 1
    assert caught.value.code == 550
    assert caught.value.receipts[0].refused[0].address == "user@example.com"


@pytest.mark.parametrize(("where", "attempts"), [("MAIL", 2), ("RCPT", 2)])
@pytest.mark.usefixtures("quick")
def test_450_before_the_mail(app, handler, where, attempts):
    """A temporary answer to the sender or the recipient (greylisting) is tried again."""
    handler.mail_answers = ["450 wait"] if where == "MAIL" else []
    handler.rcpt_answers = {"user@example.com": ["450 wait", "250"]} if where == "RCPT" else {}

    task = Mail.send("user@example.com", "Hello", "World")

    assert task.result(TIMEOUT).accepted == ["user@example.com"]
    assert task.attempts == attempts


@pytest.mark.usefixtures("quick")
def test_connection_lost(app, handler):
    """A connection that breaks in the middle of the mail is made again."""
    broken = iter([True])
    handler.data_hook = lambda server: drop(server) if next(broken, False) else ""

    task = Mail.send("user@example.com", "Hello", "World")

    assert task.result(TIMEOUT).accepted == ["user@example.com"]
    assert task.attempts == 2
    assert len(set(handler.seen_ids)) == 1


@pytest.mark.usefixtures("quick")
def test_half_refused(app, handler, caplog):
    """Who is refused holds up nobody else: the receipt, a warning and a signal name them."""
    handler.rcpt_answers = {"b@example.com": ["550 unknown"], "d@example.com": ["553 bad"]}
    heard = []
    caplog.set_level(logging.WARNING, "asok.mail")

    def receiver(sender, message_id, refused) -> None:
        heard.append((sender, message_id, [refusal.address for refusal in refused]))

    with mail_refused.connected_to(receiver):
        task = Mail.send([f"{name}@example.com" for name in "abcd"], "Hello", "World")
        receipt = task.result(TIMEOUT)

    assert receipt.accepted == ["a@example.com", "c@example.com"]
    assert [(each.address, each.code, each.text) for each in receipt.refused] == [
        ("b@example.com", 550, "unknown"),
        ("d@example.com", 553, "bad"),
    ]
    assert heard == [(app, receipt.message_id, ["b@example.com", "d@example.com"])]
    assert "b@example.com: 550 unknown" in caplog.text
    assert task.attempts == 1


@pytest.mark.usefixtures("quick")
def test_half_put_off(app, handler, succeeded):
    """Who is put off gets the mail later, and who has it does not get it again."""
    handler.rcpt_answers = {"b@example.com": ["451 later", "451 later", "250"]}

    receipt = Mail.send(["a@example.com", "b@example.com"], "Hello", "World").result(TIMEOUT)

    assert (receipt.accepted, receipt.later, receipt.refused) == (["a@example.com"], ["b@example.com"], [])
    assert handler.take().rcpt_tos == ["a@example.com"]
    assert handler.take().rcpt_tos == ["b@example.com"]
    succeeded(2)
    assert handler.received.empty()


@pytest.mark.usefixtures("quick")
def test_put_off_when_called_directly(app, handler):
    """Called as a plain function it starts nothing in the background: the receipt names who was put off."""
    handler.rcpt_answers = {"b@example.com": ["451 later"]}

    receipt = send_mail(["a@example.com", "b@example.com"], "Hello", "World")

    assert receipt.accepted == ["a@example.com"]
    assert [(each.address, each.is_temporary) for each in receipt.refused] == [("b@example.com", True)]
    assert receipt.later == []


@pytest.mark.usefixtures("quick")
def test_queue_is_full_for_what_is_put_off(app, handler, monkeypatch, caplog):
    """When it cannot be queued again, the receipt says so, and what was accepted is not sent again."""
    from flask_asok import QueueFull

    def full(*args, **kwargs):
        raise QueueFull("full")

    handler.rcpt_answers = {"b@example.com": ["451 later"]}
    monkeypatch.setattr("flask_asok.recipes.mail.recipe._send_later", full)

    receipt = Mail.send(["a@example.com", "b@example.com"], "Hello", "World").result(TIMEOUT)

    assert [each.address for each in receipt.refused] == ["b@example.com"]
    assert "cannot be queued again" in caplog.text
    assert handler.received.qsize() == 1


def test_server_without_smtputf8(make_app, serve, handler):
    """A Message that asks for what the server has not is refused by itself; the others of its batch are sent."""
    app = make_app(serve(enable_SMTPUTF8=False))
    flask_mail.Mail(app)
    with app.app_context():
        message = flask_mail.Message("Hello", ["b@example.com"], body="x", mail_options=["SMTPUTF8"])

        task = Mail.send_many([{"to": "a@example.com"}, message, {"to": "c@example.com"}])
        error = task.exception(TIMEOUT)

    assert isinstance(error, MailRefused)
    assert [bool(receipt.accepted) for receipt in error.receipts] == [True, False, True]


def test_many_refused(app, handler):
    """An error that has a hundred reasons shows some of them."""
    people = [f"u{n}@example.com" for n in range(100)]
    handler.rcpt_answers = {address: ["550 unknown"] for address in people}

    error = Mail.send(people, "Hello", "World").exception(TIMEOUT)

    assert "and 95 more recipients" in str(error)
    assert len(error.receipts[0].refused) == 100


@pytest.mark.usefixtures("quick")
def test_immediate_backend(make_app, serve, handler):
    """On the immediate backend the call comes back when all was tried, put off or not."""
    app = make_app(serve(), ASOK_BACKEND="immediate")
    handler.rcpt_answers = {"b@example.com": ["451 later", "250"]}

    with app.app_context():
        task = Mail.send(["a@example.com", "b@example.com"], "Hello", "World")

    assert task.state == "succeeded"
    assert [handler.received.get_nowait().rcpt_tos for _ in range(2)] == [["a@example.com"], ["b@example.com"]]


@pytest.mark.usefixtures("quick")
def test_no_server(make_app):
    """A server that is not there is temporary: the error names it."""
    app = make_app()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        app.config["MAIL_PORT"] = probe.getsockname()[1]

        with app.app_context():
            task = Mail.send("user@example.com", "Hello", "World")
            error = task.exception(TIMEOUT)

    assert isinstance(error, MailUnavailable)
    assert f"127.0.0.1:{app.config['MAIL_PORT']}" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert task.attempts == 4


@pytest.mark.usefixtures("quick")
def test_goodbye_goes_wrong(app, handler):
    """What breaks after the mail was accepted makes it neither fail nor go twice."""

    async def handle_quit(server, session, envelope):
        return drop(server)

    handler.handle_QUIT = handle_quit

    task = Mail.send("user@example.com", "Hello", "World")

    assert task.result(TIMEOUT).accepted
    assert task.attempts == 1


@pytest.mark.usefixtures("quick")
def test_raising_receiver(app, handler):
    """A receiver of Flask-Mail's signal that raises makes the mail neither fail nor go twice."""
    from flask_mail import email_dispatched

    def receiver(sender, message) -> None:
        raise ValueError("receiver")

    with email_dispatched.connected_to(receiver):
        task = Mail.send("user@example.com", "Hello", "World")

        assert task.result(TIMEOUT).accepted
    assert handler.received.qsize() == 1


def test_directly_it_raises(app, handler):
    """Called as a plain function it tries once and raises."""
    handler.data_answers = ["451 later"]

    with pytest.raises(MailUnavailable):
        send_mail("user@example.com", "Hello", "World")
    assert handler.transactions == 1


def test_failure_is_logged_without_the_body(app, handler, caplog):
    """The log tells who was refused and why; what the mail says stays out of it."""
    handler.data_answers = ["550 no"]

    task = Mail.send("user@example.com", "Hello", "reset-token-123")
    task.join(TIMEOUT)

    assert "Background task send_mail failed: MailRefused" in caplog.text
    assert "user@example.com: 550 no" in caplog.text
    assert "reset-token-123" not in caplog.text


def test_durable_backoff():
    """What survives its process is tried for about five hours."""
    waits = [durable_backoff(attempt) for attempt in range(2, 8)]

    assert all(least <= wait <= least * 1.2 for wait, least in zip(waits, DURABLE_BACKOFF, strict=True))
    assert 4 * 3600 < sum(DURABLE_BACKOFF) < sum(DURABLE_BACKOFF) * 1.2 < 6 * 3600


def test_backoff():
    """The last retry is past the five minutes of greylisting; none comes early."""
    waits = [[backoff(attempt) for _ in range(100)] for attempt in (2, 3, 4)]

    assert [min(wait) >= least for wait, least in zip(waits, (2, 30, 360), strict=True)] == [True] * 3
    assert max(map(max, waits)) <= 432
    assert sum(min(wait) for wait in waits) > 300


def test_a_policy_of_your_own(app, handler):
    """Retries can be set per call, as with every task."""
    handler.data_answers = ["451 later"] * 5

    task = background.using(retries=1, backoff=0)(send_mail, to="user@example.com", subject="Hello", body="World")

    assert isinstance(task.exception(TIMEOUT), MailUnavailable)
    assert task.attempts == 2
