"""Silent, slow and lying servers, and the name that they are told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from flask_asok import MailRefused, MailUnavailable
from flask_asok.recipes.mail import smtp

TIMEOUT = 15


@pytest.fixture
def listen() -> Iterator[Callable[..., int]]:
    """Serve each connection with a function of the test, in a thread; give the port."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    with contextlib.ExitStack() as sockets:

        def start(talk: Callable[[socket.socket, threading.Event], None]) -> int:
            listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve() -> None:
                # Closing a listener wakes nobody who waits in accept().
                listener.settimeout(0.2)
                while not over.is_set():
                    try:
                        sock, _ = listener.accept()
                    except OSError:
                        continue
                    sock.settimeout(TIMEOUT)
                    with sock, contextlib.suppress(OSError):
                        talk(sock, over)

            thread = threading.Thread(target=serve)
            threads.append(thread)
            thread.start()
            return listener.getsockname()[1]

        yield start
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def answer_all(sock: socket.socket, until: bytes) -> None:
    """Speak SMTP up to the command `until`, or with "." up to the end of the mail; do not answer that."""
    sock.sendall(b"220 hello\r\n")
    in_data = False
    for line in sock.makefile("rb"):
        if line == b".\r\n" if in_data else line.upper().startswith(until):
            return
        if not in_data:
            in_data = line.upper().startswith(b"DATA")
            sock.sendall(b"354 go on\r\n" if in_data else b"250 OK\r\n")


def silent(sock, over) -> None:
    over.wait(TIMEOUT)


def silent_after_hello(sock, over) -> None:
    answer_all(sock, until=b"MAIL")
    over.wait(TIMEOUT)


def one_byte_at_a_time(sock, over) -> None:
    while not over.wait(0.1):
        sock.sendall(b"2")


def endless_answer(sock, over) -> None:
    while not over.wait(0.05):
        sock.sendall(b"220-and so on\r\n")


def silent_before_the_mail(sock, over) -> None:
    answer_all(sock, until=b"DATA")
    over.wait(TIMEOUT)


def silent_goodbye(sock, over) -> None:
    answer_all(sock, until=b".")
    sock.sendall(b"250 taken\r\n")
    over.wait(TIMEOUT)


@pytest.mark.parametrize(
    "talk", [silent, silent_after_hello, silent_before_the_mail, one_byte_at_a_time, endless_answer]
)
def test_silent_server(attempt, make_app, listen, talk):
    """A server that does not answer in time holds a thread for `ASOK_MAIL_TIMEOUT`, and is tried again later."""
    app = make_app(MAIL_PORT=listen(talk), MAIL_USE_TLS=False)
    app.extensions["asok"].config["ASOK_MAIL_TIMEOUT"] = 0.5

    error, seconds = attempt(app)

    assert isinstance(error, MailUnavailable)
    assert "timed out" in str(error)
    assert 0.4 < seconds < 5


def test_silent_goodbye(attempt, make_app, listen):
    """A server that has taken the mail and then says nothing more delays the receipt, and no second mail is sent."""
    app = make_app(MAIL_PORT=listen(silent_goodbye))
    app.extensions["asok"].config["ASOK_MAIL_TIMEOUT"] = 1.0

    error, seconds = attempt(app)

    assert error is None
    assert seconds < 5


def test_patience_after_the_mail(attempt, make_app, listen):
    """The answer to the mail itself may take longer: who hangs up there sends the mail twice."""
    answered = threading.Event()

    def scan_first(sock, over) -> None:
        answer_all(sock, until=b".")
        answered.wait(2)
        sock.sendall(b"250 taken\r\n")
        sock.recv(100)

    app = make_app(MAIL_PORT=listen(scan_first))
    app.extensions["asok"].config["ASOK_MAIL_TIMEOUT"] = 1.0

    error, _ = attempt(app)

    assert error is None


def test_large_mail_over_a_slow_line(attempt, make_app, listen):
    """The timeout is for standing still: a mail that takes longer to transmit gets through."""
    app = make_app(MAIL_PORT=listen(slow_server))
    # Six times that has to do for what the system has taken and not yet transmitted, some megabytes.
    app.extensions["asok"].config["ASOK_MAIL_TIMEOUT"] = 1.5

    error, seconds = attempt(app, attachments=[("a.bin", bytes(5_000_000))])

    assert error is None
    assert seconds > 1.5


def slow_server(sock, over) -> None:
    answer_all(sock, until=b"DATA")
    sock.sendall(b"354 go on\r\n")
    end = b""
    while not end.endswith(b"\r\n.\r\n"):
        over.wait(0.02)
        received = sock.recv(65536)
        if not received:
            return
        end = (end + received)[-5:]
    sock.sendall(b"250 taken\r\n")
    sock.recv(100)


@pytest.mark.parametrize(
    "greeting",
    ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.6\r\n", "* OK IMAP4rev1\r\n", "+OK POP3\r\n", "\n"],
)
def test_rubbish(attempt, make_app, listen, greeting):
    """A server that speaks no SMTP is an error of the settings, not tried again, and the error shows what it said."""
    app = make_app(MAIL_PORT=listen(lambda sock, over: sock.sendall(greeting.encode())))

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert (error.code, "is no mail server" in str(error)) == (None, True)
    assert greeting.split("\r\n")[0].strip() in str(error)
    assert "MAIL_PORT" in str(error)


@pytest.mark.parametrize("command", [b"EHLO", b"MAIL", b"RCPT", b"."])
def test_rubbish_later(attempt, make_app, listen, command):
    """One that has greeted and then says rubbish has lost the thread: it is tried again."""

    def babble(sock, over) -> None:
        answer_all(sock, until=command)
        sock.sendall(b"what?\r\n")
        over.wait(TIMEOUT)

    error, _ = attempt(make_app(MAIL_PORT=listen(babble)))

    assert isinstance(error, MailUnavailable)
    assert "what?" in str(error)


def test_busy(attempt, make_app, listen):
    """A server that is too busy to say hello is tried again later."""
    app = make_app(MAIL_PORT=listen(lambda sock, over: sock.sendall(b"421 too many connections\r\n")))

    error, _ = attempt(app)

    assert isinstance(error, MailUnavailable)
    assert error.code == 421


@pytest.mark.parametrize("security", [{}, {"MAIL_USE_TLS": True}, {"MAIL_USERNAME": "shop", "MAIL_PASSWORD": "secret"}])
def test_busy_after_the_greeting(attempt, make_app, listen, security):
    """Nor is one that is too busy for more taken for a server without TLS or login."""

    def too_busy(sock, over) -> None:
        sock.sendall(b"220 hello\r\n")
        for line in sock.makefile("rb"):
            sock.sendall(b"421 4.7.0 try again later\r\n" if line[:4].upper() == b"EHLO" else b"250 OK\r\n")

    app = make_app(MAIL_PORT=listen(too_busy), **security)

    error, _ = attempt(app)

    assert isinstance(error, MailUnavailable)
    assert error.code == 421


def test_rubbish_at_the_login(attempt, make_app, listen):
    """A server whose question at the login is no base64 is an error of the settings."""

    def ask_rubbish(sock, over) -> None:
        sock.sendall(b"220 hello\r\n")
        for line in sock.makefile("rb"):
            sock.sendall(b"334 x\r\n" if line.startswith(b"AUTH") else b"250-hello\r\n250 AUTH CRAM-MD5\r\n")

    app = make_app(MAIL_PORT=listen(ask_rubbish), MAIL_USERNAME="shop", MAIL_PASSWORD="secret")

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "the login is not understood" in str(error)


@pytest.mark.parametrize(("name", "said"), [("mail.example.com", "mail.example.com"), ("7f3c9a1e", "[10.1.2.3]")])
def test_own_name(attempt, make_app, serve, handler, monkeypatch, name, said):
    """A machine without a full name, such as a container, says its address: servers refuse half a name."""
    monkeypatch.setattr(socket, "getfqdn", lambda: name)
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.1.2.3")
    smtp._own_name.cache_clear()
    monkeypatch.setattr(smtp, "_own_name", smtp._own_name.__wrapped__)
    app = make_app(serve())
    heard = []

    async def handle_ehlo(server, session, envelope, hostname, responses):
        heard.append(hostname)
        session.host_name = hostname
        return responses

    handler.handle_EHLO = handle_ehlo

    error, _ = attempt(app)

    assert error is None
    assert heard == [said]


def test_of_flask_mail(make_app, serve, handler):
    """Our Connection does all that Flask-Mail's does: here its `send`, with an envelope sender of its own."""
    import flask_mail

    app = make_app(serve())
    with app.app_context():
        flask_mail.Mail(app)
        message = flask_mail.Message("Hello", ["user@example.com"], body="World")

        with smtp.Connection(app) as made:
            made.send(message, envelope_from="bounces@example.com")

    mail = handler.take()
    assert (mail.mail_from, mail.message["From"]) == ("bounces@example.com", "shop@example.com")


def test_of_flask_mail_refused(make_app, serve, handler):
    """And its error when nobody was accepted."""
    import smtplib

    import flask_mail

    app = make_app(serve())
    handler.rcpt_answers = {"user@example.com": ["550 unknown"]}
    with app.app_context():
        flask_mail.Mail(app)
        message = flask_mail.Message("Hello", ["user@example.com"], body="World")

        with smtp.Connection(app) as made, pytest.raises(smtplib.SMTPRecipientsRefused):
            made.send(message)
