"""Email as a task: its name, its arguments, and what a call without a task does with them."""

from __future__ import annotations

import pytest

from flask_asok import FlaskAsok, Mail, background, send_mail
from flask_asok.recipes.mail import send_mails

TIMEOUT = 10

ARGUMENTS = {
    "subject": "Hello",
    "html": "<p>Hi",
    "cc": "c@example.com",
    "bcc": "d@example.com",
    "sender": "other@example.com",
    "reply_to": "help@example.com",
    "attachments": [("a.txt", "x")],
    "headers": {"Message-ID": "<1@example.com>", "X-A": "1"},
}


def test_names(app, handler):
    """Tasks, and so log lines, are named after the function that the caller knows."""
    tasks = [
        Mail.send("a@example.com", "Hello", "Hi"),
        FlaskAsok.send_mail("a@example.com", "Hello", "Hi"),
        Mail.send_many([{"to": "a@example.com"}]),
        background.using(name="news")(send_mails, [{"to": "a@example.com"}]),
    ]

    assert [task.name for task in tasks] == ["send_mail", "send_mail", "send_mails", "news"]
    for task in tasks:
        task.result(TIMEOUT)


@pytest.mark.usefixtures("quick")
def test_name_of_what_is_put_off(app, handler, succeeded):
    """The task that tries again what the server put off is named too, and runs on the queue of email."""
    handler.rcpt_answers = {"b@example.com": ["451 later", "250"]}

    Mail.send(["a@example.com", "b@example.com"], "Hello", "Hi")

    succeeded(2)
    assert [handler.take().rcpt_tos for _ in range(2)] == [["a@example.com"], ["b@example.com"]]
    assert [(task.name, task.queue) for task in FlaskAsok().tasks()] == [("send_mail", "mail"), ("send_mails", "mail")]


def test_called_directly(app, handler):
    """Called as a plain function, send_mail takes and sends what it takes and sends in the background."""
    direct = send_mail("a@example.com", body="Hi", **ARGUMENTS)
    in_background = Mail.send("a@example.com", body="Hi", **ARGUMENTS).result(TIMEOUT)

    assert direct == in_background
    first, second = handler.take(), handler.take()
    assert (first.mail_from, first.rcpt_tos) == (second.mail_from, second.rcpt_tos)
    for header in ("From", "To", "Cc", "Reply-To", "Subject", "X-A"):
        assert first.message[header] == second.message[header] is not None
    assert [part.get_content_type() for part in first.message.walk()] == [
        part.get_content_type() for part in second.message.walk()
    ]


@pytest.mark.parametrize("send", [Mail.send, send_mail])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), (("a@example.com",), {"copy": "b@example.com"}), (("a@example.com", "Hello", "Hi", "<p>Hi"), {})],
)
def test_misplaced_argument(app, send, args, kwargs):
    """An argument that is missing or unknown is a TypeError at the call."""
    with pytest.raises(TypeError, match="argument"):
        send(*args, **kwargs)


def test_misplaced_option(app):
    """An option among the arguments is a TypeError that says where it belongs."""
    for send in (Mail.send, FlaskAsok.send_mail):
        with pytest.raises(TypeError, match=r"background.using\(delay=60\)"):
            send("a@example.com", "Hello", "Hi", delay=60)
