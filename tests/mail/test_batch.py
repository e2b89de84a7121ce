"""A batch over one connection, also when the server refuses, puts off or goes away."""

from __future__ import annotations

import pytest

from flask_asok import Mail, MailRefused, MailUnavailable
from flask_asok.recipes.mail import send_mails

TIMEOUT = 10


def drop(server) -> str:
    server.transport.abort()
    return "421 gone"


@pytest.mark.usefixtures("quick")
def test_batch_with_a_refusal(app, handler):
    """In a batch the others are sent; the task fails with the receipts of all."""
    handler.rcpt_answers = {"u1@example.com": ["550 unknown"]}

    task = Mail.send_many([{"to": f"u{n}@example.com", "body": "Hi"} for n in range(3)])

    with pytest.raises(MailRefused, match=r"1 of 3 mails were refused.*u1@example.com: 550 unknown") as caught:
        task.result(TIMEOUT)
    assert [len(receipt.accepted) for receipt in caught.value.receipts] == [1, 0, 1]
    assert handler.received.qsize() == 2
    assert task.attempts == 1


@pytest.mark.usefixtures("quick")
def test_batch_put_off_in_part(app, handler, succeeded):
    """In a batch only the mails that were put off are sent again."""
    handler.data_answers = ["", "451 later", "", "451 again", ""]

    receipts = Mail.send_many([{"to": f"u{n}@example.com", "subject": str(n)} for n in range(3)]).result(TIMEOUT)

    assert [receipt.later for receipt in receipts] == [[], ["u1@example.com"], []]
    assert [handler.take().message["Subject"] for _ in range(3)] == ["0", "2", "1"]
    succeeded(2)
    assert handler.received.empty()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", ["421 too many mails", "421 to a recipient", "drop"])
def test_batch_goes_on_with_a_new_connection(app, handler, answer):
    """A server that ends a connection after some mails gets the rest over another, at once and each once."""
    if answer == "421 too many mails":
        handler.mail_answers = ["", "", answer]
    elif answer == "421 to a recipient":
        handler.rcpt_answers = {"u2@example.com": [answer, "250"]}
    else:
        mails = iter(range(10))
        real = handler.handle_MAIL

        async def handle_mail(server, session, envelope, address, options):
            if next(mails) == 2:
                return drop(server)
            return await real(server, session, envelope, address, options)

        handler.handle_MAIL = handle_mail

    task = Mail.send_many([{"to": f"u{n}@example.com", "subject": str(n)} for n in range(5)])

    assert all(receipt.accepted for receipt in task.result(TIMEOUT))
    assert [handler.take().message["Subject"] for _ in range(5)] == list("01234")
    assert handler.connections == 2
    assert task.attempts == 1


@pytest.mark.usefixtures("quick")
def test_batch_with_an_unsure_mail(app, handler):
    """When the answer to a mail is lost the others go on, and only that one is sent again, under its Message-ID."""
    calls = iter(range(10))
    handler.data_hook = lambda server: drop(server) if next(calls) == 1 else ""

    receipts = Mail.send_many([{"to": f"u{n}@example.com", "subject": str(n)} for n in range(3)]).result(TIMEOUT)

    assert [receipt.later for receipt in receipts] == [[], ["u1@example.com"], []]
    assert [handler.take().message["Subject"] for _ in range(3)] == ["0", "2", "1"]
    assert handler.seen_ids.count(receipts[1].message_id) == 2


@pytest.mark.usefixtures("quick")
def test_batch_cut_short(app, handler, succeeded):
    """When the server goes away in a batch, the rest is sent when it is back."""
    handler.mail_answers = ["", "421 restart", "421 restart", "421 restart"]

    receipts = Mail.send_many([{"to": f"u{n}@example.com", "subject": str(n)} for n in range(3)]).result(TIMEOUT)

    assert [bool(receipt.later) for receipt in receipts] == [False, True, True]
    assert sorted(handler.take().message["Subject"] for _ in range(3)) == list("012")
    succeeded(2)
    assert handler.received.empty()


@pytest.mark.parametrize("lost", ["server", "answer"])
def test_batch_cut_short_when_called_directly(app, handler, lost):
    """Called as a plain function a batch that is cut short raises, and tells which mails were sent."""
    if lost == "server":
        handler.mail_answers = ["", "421 restart", "421 restart"]
    else:
        calls = iter(range(10))
        handler.data_hook = lambda server: drop(server) if next(calls) > 0 else ""

    with pytest.raises(MailUnavailable) as caught:
        send_mails([{"to": f"u{n}@example.com", "subject": str(n)} for n in range(3)])

    assert [bool(receipt.accepted) for receipt in caught.value.receipts] == [True, False, False]
    assert caught.value.code == 421


def test_send_many(app, handler):
    """A batch goes over one connection, and gives a receipt for each mail in order."""
    mails = [{"to": f"user{n}@example.com", "subject": str(n), "body": "Hi"} for n in range(20)]

    receipts = Mail.send_many(mails).result(TIMEOUT)

    assert [receipt.accepted for receipt in receipts] == [[mail["to"]] for mail in mails]
    assert [handler.take().message["Subject"] for _ in mails] == [str(n) for n in range(20)]
    assert handler.connections == 1


def test_send_many_of_nothing(app, handler):
    """An empty batch is no error and no connection."""
    assert Mail.send_many([]).result(TIMEOUT) == []
    assert handler.connections == 0


def test_max_emails(make_app, serve, handler):
    """`MAIL_MAX_EMAILS` is kept: no connection carries more."""
    app = make_app(serve(), MAIL_MAX_EMAILS=2)

    with app.app_context():
        Mail.send_many([{"to": f"u{n}@example.com", "body": "Hi"} for n in range(6)]).join(TIMEOUT)

    assert handler.received.qsize() == 6
    assert handler.connections == 3


@pytest.mark.parametrize("mails", ["a@example.com", {"to": "a@example.com"}])
def test_send_many_takes_a_list(app, mails):
    """What is no list of mails is refused at the call."""
    with pytest.raises(TypeError):
        Mail.send_many(mails)
