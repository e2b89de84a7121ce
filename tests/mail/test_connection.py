"""Silent, slow and lying servers; TLS and logins."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from flask_asok import Mail, MailRefused, MailUnavailable, background, send_mail
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


def attempt(app, **mail):
    """Send once, and give the error and how long it took."""
    started = time.monotonic()
    with app.app_context():
        mail = {"to": "user@example.com", "subject": "Hello", "body": "World", **mail}
        error = background.using(retries=0)(send_mail, **mail).exception(TIMEOUT)
    return error, time.monotonic() - started


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
def test_silent_server(make_app, listen, talk):
    """A server that does not answer in time holds a thread for `ASOK_MAIL_TIMEOUT`, and is tried again later."""
    app = make_app(MAIL_PORT=listen(talk), MAIL_USE_TLS=False)
    app.extensions["asok"].config["ASOK_MAIL_TIMEOUT"] = 0.5

    error, seconds = attempt(app)

    assert isinstance(error, MailUnavailable)
    assert "timed out" in str(error)
    assert 0.4 < seconds < 5


def test_silent_goodbye(make_app, listen):
    """A server that has taken the mail and then says nothing more delays the receipt, and no second mail is sent."""
    app = make_app(MAIL_PORT=listen(silent_goodbye))
    app.extensions["asok"].config["ASOK_MAIL_TIMEOUT"] = 1.0

    error, seconds = attempt(app)

    assert error is None
    assert seconds < 5


def test_patience_after_the_mail(make_app, listen):
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


def test_large_mail_over_a_slow_line(make_app, listen):
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
def test_rubbish(make_app, listen, greeting):
    """A server that speaks no SMTP is an error of the settings, not tried again, and the error shows what it said."""
    app = make_app(MAIL_PORT=listen(lambda sock, over: sock.sendall(greeting.encode())))

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert (error.code, "is no mail server" in str(error)) == (None, True)
    assert greeting.split("\r\n")[0].strip() in str(error)
    assert "MAIL_PORT" in str(error)


@pytest.mark.parametrize("command", [b"EHLO", b"MAIL", b"RCPT", b"."])
def test_rubbish_later(make_app, listen, command):
    """One that has greeted and then says rubbish has lost the thread: it is tried again."""

    def babble(sock, over) -> None:
        answer_all(sock, until=command)
        sock.sendall(b"what?\r\n")
        over.wait(TIMEOUT)

    error, _ = attempt(make_app(MAIL_PORT=listen(babble)))

    assert isinstance(error, MailUnavailable)
    assert "what?" in str(error)


@pytest.mark.parametrize(("days", "text"), [((-20, -10), "has expired"), ((10, 20), "not yet valid")])
def test_certificate_out_of_date(make_app, serve, handler, ca, ca_file, days, text):
    """A certificate that is out of date is the server's matter: no file of ours would help."""
    now = datetime.now(UTC)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    begin, end = (now + timedelta(days=count) for count in days)
    ca.issue_cert("localhost", not_before=begin, not_after=end).configure_cert(context)
    server = serve(tls_context=context)
    app = make_app(server, MAIL_SERVER="localhost", MAIL_USE_TLS=True, ASOK_MAIL_CA_FILE=ca_file)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert text in str(error)
    assert "ASOK_MAIL_CA_FILE" not in str(error)
    assert "needs a new one" in str(error)


def test_busy(make_app, listen):
    """A server that is too busy to say hello is tried again later."""
    app = make_app(MAIL_PORT=listen(lambda sock, over: sock.sendall(b"421 too many connections\r\n")))

    error, _ = attempt(app)

    assert isinstance(error, MailUnavailable)
    assert error.code == 421


@pytest.mark.parametrize("security", [{}, {"MAIL_USE_TLS": True}, {"MAIL_USERNAME": "shop", "MAIL_PASSWORD": "secret"}])
def test_busy_after_the_greeting(make_app, listen, security):
    """Nor is one that is too busy for more taken for a server without TLS or login."""

    def too_busy(sock, over) -> None:
        sock.sendall(b"220 hello\r\n")
        for line in sock.makefile("rb"):
            sock.sendall(b"421 4.7.0 try again later\r\n" if line[:4].upper() == b"EHLO" else b"250 OK\r\n")

    app = make_app(MAIL_PORT=listen(too_busy), **security)

    error, _ = attempt(app)

    assert isinstance(error, MailUnavailable)
    assert error.code == 421


def test_starttls(make_app, serve, handler, server_tls, ca_file):
    """With MAIL_USE_TLS the mail goes over TLS, verified against the certificates in ASOK_MAIL_CA_FILE."""
    server = serve(tls_context=server_tls, require_starttls=True)
    app = make_app(server, MAIL_SERVER="localhost", MAIL_USE_TLS=True, ASOK_MAIL_CA_FILE=ca_file)

    error, _ = attempt(app)

    assert error is None
    assert handler.take().message["Subject"] == "Hello"


def test_tls_from_the_start(make_app, serve, handler, server_tls, ca_file):
    """With MAIL_USE_SSL as well."""
    server = serve(ssl_context=server_tls, server_hostname="localhost")
    app = make_app(server, MAIL_SERVER="localhost", MAIL_USE_SSL=True, ASOK_MAIL_CA_FILE=ca_file)

    error, _ = attempt(app)

    assert error is None
    assert handler.take().message["Subject"] == "Hello"


@pytest.mark.parametrize("key", ["MAIL_USE_TLS", "MAIL_USE_SSL"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_unverified(make_app, serve, handler, server_tls, ca_file, key, wrong, tmp_path):
    """A certificate of another authority, or for another name: nothing is sent, not even the login."""
    server = serve(**({"ssl_context": server_tls} if key == "MAIL_USE_SSL" else {"tls_context": server_tls}))
    if wrong == "authority":
        trustme.CA().cert_pem.write_to_path(ca_file)
    name = "127.0.0.1" if wrong == "name" else "localhost"
    app = make_app(server, MAIL_SERVER=name, ASOK_MAIL_CA_FILE=ca_file, **{key: True})
    app.config.update(MAIL_USERNAME="shop", MAIL_PASSWORD="secret")

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "ASOK_MAIL_CA_FILE" in str(error)
    assert (handler.transactions, handler.logins) == (0, [])


def test_no_starttls(make_app, serve, handler):
    """Where TLS is wanted and the server has none, nothing is sent in the clear."""
    app = make_app(serve(), MAIL_USE_TLS=True)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "STARTTLS" in str(error)
    assert handler.transactions == 0


def test_tls_on_a_plain_port(make_app, serve, handler):
    """MAIL_USE_SSL on a port without TLS: the error says which setting is for which port."""
    app = make_app(serve(), MAIL_USE_SSL=True)

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "MAIL_USE_TLS" in str(error)


def test_missing_ca_file(make_app, serve, handler):
    """A file of certificates that is not there fails the mail, and is not tried again."""
    app = make_app(serve(), MAIL_USE_TLS=True, ASOK_MAIL_CA_FILE="/no/such/file.pem")

    with app.app_context():
        task = Mail.send("user@example.com", "Hello", "World")

        assert isinstance(task.exception(TIMEOUT), FileNotFoundError)
    assert task.attempts == 1


@pytest.fixture
def login_server(serve, handler, server_tls):
    return serve(tls_context=server_tls, require_starttls=True, auth_required=True, authenticator=handler.authenticate)


def login_app(make_app, server, ca_file, password):
    return make_app(
        server,
        MAIL_SERVER="localhost",
        MAIL_USE_TLS=True,
        MAIL_USERNAME="shop",
        MAIL_PASSWORD=password,
        ASOK_MAIL_CA_FILE=ca_file,
    )


def test_login(make_app, login_server, handler, ca_file):
    """MAIL_USERNAME and MAIL_PASSWORD log in, once per connection."""
    app = login_app(make_app, login_server, ca_file, "secret")

    error, _ = attempt(app)

    assert error is None
    assert handler.logins == [(b"shop", b"secret")]


def test_wrong_password(make_app, login_server, handler, ca_file):
    """A wrong password is not tried again, which could lock the account; it is in no error."""
    app = login_app(make_app, login_server, ca_file, "hunter2")

    with app.app_context():
        task = Mail.send("user@example.com", "Hello", "World")
        error = task.exception(TIMEOUT)

    assert isinstance(error, MailRefused)
    assert (error.code, task.attempts) == (535, 1)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(("username", "password"), [("shop", "hünter2"), ("shöp", "hunter2")])
def test_login_that_is_not_ascii(make_app, login_server, handler, ca_file, caplog, username, password):
    """A login that smtplib cannot send fails with a text that says so; the password is in no log."""
    app = login_app(make_app, login_server, ca_file, password)
    app.config["MAIL_USERNAME"] = username

    error, _ = attempt(app)

    assert isinstance(error, MailRefused)
    assert "must be ASCII" in str(error)
    assert password not in caplog.text
    assert "nter2" not in "".join(traceback.format_exception(error))


def test_login_that_is_a_number(make_app, login_server, handler, ca_file):
    """FLASK_MAIL_PASSWORD=123456 is a number to Flask; it is sent as it was written."""
    app = login_app(make_app, login_server, ca_file, 123456)

    error, _ = attempt(app)

    assert error.code == 535
    assert set(handler.logins) == {(b"shop", b"123456")}


def test_rubbish_at_the_login(make_app, listen):
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
def test_own_name(make_app, serve, handler, monkeypatch, name, said):
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


@pytest.mark.usefixtures("quick")
def test_login_put_off(make_app, login_server, handler, ca_file):
    """A login that the server puts off (454) is tried again."""
    app = login_app(make_app, login_server, ca_file, "later")

    with app.app_context():
        task = Mail.send("user@example.com", "Hello", "World")
        error = task.exception(TIMEOUT)

    assert isinstance(error, MailUnavailable)
    assert (error.code, task.attempts) == (454, 4)


def test_debug_hides_the_password(make_app, login_server, handler, ca_file, capfd):
    """MAIL_DEBUG, which is on in debug mode, prints the conversation but no login."""
    app = login_app(make_app, login_server, ca_file, "secret")
    app.config["MAIL_DEBUG"] = True

    error, _ = attempt(app)

    printed = capfd.readouterr().err
    assert error is None
    assert "user@example.com" in printed
    assert "AUTH PLAIN" not in printed.upper().replace("250-", "").replace("AUTH LOGIN PLAIN", "")
    assert "c2VjcmV0" not in printed
    assert "AHNob3AAc2VjcmV0" not in printed


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
