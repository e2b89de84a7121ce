"""The MAIL_* and ASOK_MAIL_* settings: what is wrong with one is said at once, and by its name."""

from __future__ import annotations

import socket
import threading

import pytest

from flask_asok import Mail, MailRefused
from flask_asok.recipes.mail import smtp
from flask_asok.recipes.mail.server import Server

TIMEOUT = 10


def send(app) -> MailRefused | None:
    """Send a mail, and give the error of its task, which had one attempt."""
    with app.app_context():
        task = Mail.send("user@example.com", "Hello", "World")
        error = task.exception(TIMEOUT)
    assert task.attempts == 1
    return error


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"MAIL_SERVER": None}, "MAIL_SERVER is None"),
        ({"MAIL_SERVER": ""}, "MAIL_SERVER is ''"),
        ({"MAIL_SERVER": " "}, "MAIL_SERVER is ' '"),
        ({"MAIL_SERVER": 25}, "MAIL_SERVER is 25"),
        ({"MAIL_SERVER": "mail.faß.example"}, "xn--"),
        ({"MAIL_SERVER": "a..b"}, "MAIL_SERVER is 'a..b'"),
        ({"MAIL_SERVER": "x" * 64 + ".example"}, "MAIL_SERVER is 'xxx"),
        ({"MAIL_SERVER": "x." * 130 + "example"}, "MAIL_SERVER is 'x.x."),
        ({"MAIL_SERVER": "smtp.example.com:587"}, "MAIL_PORT"),
        ({"MAIL_SERVER": "smtp://smtp.example.com"}, "MAIL_SERVER is 'smtp://smtp"),
        ({"MAIL_SERVER": "[::1]"}, "without brackets"),
        ({"MAIL_SERVER": "a\0b"}, "MAIL_SERVER is 'a\\x00b'"),
        ({"MAIL_PORT": "smtp"}, "MAIL_PORT is 'smtp'"),
        ({"MAIL_PORT": -1}, "MAIL_PORT is -1"),
        ({"MAIL_PORT": 70000}, "MAIL_PORT is 70000"),
        ({"MAIL_USE_TLS": True, "MAIL_USE_SSL": True}, "MAIL_USE_SSL and MAIL_USE_TLS are both set"),
        ({"MAIL_USE_TLS": "1", "MAIL_USE_SSL": "yes"}, "MAIL_USE_SSL and MAIL_USE_TLS are both set"),
        ({"MAIL_USE_TLS": "maybe"}, "MAIL_USE_TLS is 'maybe'"),
        ({"MAIL_USE_SSL": "maybe"}, "MAIL_USE_SSL is 'maybe'"),
        ({"MAIL_SUPPRESS_SEND": "maybe"}, "MAIL_SUPPRESS_SEND is 'maybe'"),
        ({"MAIL_DEBUG": "maybe"}, "MAIL_DEBUG is 'maybe'"),
        ({"MAIL_MAX_EMAILS": "many"}, "MAIL_MAX_EMAILS is 'many'"),
    ],
)
def test_wrong(make_app, config, text):
    """A setting that no mail can be sent by fails the task with its name, once and for good."""
    error = send(make_app(**config))

    assert isinstance(error, MailRefused)
    assert text in str(error)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("smtp.example.com", "smtp.example.com"),
        (" my_mail-1 ", "my_mail-1"),
        ("smtp.example.com.", "smtp.example.com."),
        ("bücher.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("x" * 63 + ".example", "x" * 63 + ".example"),
    ],
)
def test_server(make_app, name, host):
    """Whatever names a server that can be looked up, or is its address, is taken as it is."""
    app = make_app(MAIL_SERVER=name)

    assert Server.of(app).host == host


@pytest.mark.parametrize("off", ["false", "False", "0", "no", "off", "", False, 0, None])
def test_switched_off(make_app, serve, handler, off):
    """What the environment calls off is off."""
    server = serve()
    app = make_app(
        server, MAIL_USE_TLS=off, MAIL_USE_SSL=off, MAIL_DEBUG=off, MAIL_SUPPRESS_SEND=off, MAIL_MAX_EMAILS=""
    )
    app.config["MAIL_PORT"] = str(server.port)

    assert send(app) is None
    assert handler.received.qsize() == 1


@pytest.mark.parametrize("on", ["true", "1", "on", True, 1])
def test_switched_on(make_app, serve, handler, on):
    """What it calls on is on."""
    error = send(make_app(serve(), MAIL_USE_TLS=on))

    assert "STARTTLS" in str(error)


def test_numbers_from_the_environment(make_app, serve, handler):
    """A number may be a text."""
    app = make_app(serve(), MAIL_MAX_EMAILS="2")

    with app.app_context():
        Mail.send_many([{"to": f"u{n}@example.com"} for n in range(4)]).result(TIMEOUT)

    assert handler.connections == 2


@pytest.fixture
def heard(handler):
    """The names that the server was told."""
    names = []

    async def handle_ehlo(server, session, envelope, hostname, responses):
        names.append(hostname)
        session.host_name = hostname
        return responses

    handler.handle_EHLO = handle_ehlo
    return names


@pytest.fixture
def looked_up(monkeypatch):
    """Each time that the name of this machine is looked up, which has not happened in this process yet."""
    calls = []
    real = socket.getfqdn

    def getfqdn(*args):
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    smtp._own_name.cache_clear()
    return calls


@pytest.mark.parametrize("name", ["mail.example.com", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost"])
def test_hello(make_app, serve, heard, looked_up, name):
    """ASOK_MAIL_HELLO is the name that the server is told; nothing is looked up for it."""
    assert send(make_app(serve(), ASOK_MAIL_HELLO=name)) is None

    assert heard == [name]
    assert looked_up == []


@pytest.mark.parametrize(
    "name",
    ["", "mail example", "mail.example.com\r\nMAIL FROM:<a@b>", "mäil.example", "-a", "a..b", "[x]", 7, True, b"a"],
)
def test_wrong_hello(make_app, name):
    """A name that no server takes keeps the app from starting."""
    with pytest.raises((TypeError, ValueError), match="ASOK_MAIL_HELLO"):
        make_app(ASOK_MAIL_HELLO=name)


@pytest.mark.parametrize("path", [7, "", "/nowhere/ca.pem", __file__])
@pytest.mark.parametrize("tls", [True, False])
def test_wrong_certificates(make_app, path, tls):
    """A file of certificates that is not there, or holds none, keeps the app from starting."""
    with pytest.raises((TypeError, ValueError), match="ASOK_MAIL_CA_FILE"):
        make_app(ASOK_MAIL_CA_FILE=path, MAIL_USE_TLS=tls)


def test_one_look_up(make_app, serve, handler, looked_up):
    """The name of this machine is looked up once in a process, whatever the number of mails, apps and threads."""
    apps = [make_app(serve()), make_app(serve())]
    outbox = []

    def receiver(sender, message) -> None:
        outbox.append(message)

    from flask_mail import email_dispatched

    with email_dispatched.connected_to(receiver):
        for app in apps:
            with app.app_context():
                tasks = [Mail.send(f"user{n}@example.com", "Hello", "World") for n in range(5)]
                tasks.append(Mail.send_many([{"to": f"user{n}@example.com"} for n in range(5)]))
                for task in tasks:
                    task.result(TIMEOUT)

    assert len(outbox) == 20
    assert len(looked_up) == 1


def test_one_look_up_at_once(monkeypatch):
    """Nor do threads that need it at the same time look it up twice."""
    barrier, second = threading.Barrier(4), threading.Event()
    calls = []

    def getfqdn(*args):
        calls.append(args)
        # As slow as it takes another one to begin, if one does.
        second.wait(0.5) if len(calls) == 1 else second.set()
        return "mail.example.com"

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    smtp._own_name.cache_clear()
    names = []

    def ask() -> None:
        barrier.wait(TIMEOUT)
        names.append(smtp._hello(None))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    smtp._own_name.cache_clear()

    assert names == ["mail.example.com"] * 4
    assert len(calls) == 1


def test_debug_mode_logs_no_mail(make_app, serve, handler, capfd):
    """An app in debug mode does not print its mails, which hold password links; MAIL_DEBUG does."""
    app = make_app(serve())
    app.debug = True

    assert send(app) is None
    assert capfd.readouterr().err == ""

    app.config["MAIL_DEBUG"] = "1"
    assert send(app) is None
    assert "user@example.com" in capfd.readouterr().err


def test_debug_mode_of_a_mail_of_the_app(make_app, serve, handler, capfd):
    """So does one that has a `Mail(app)` of its own, which takes debug mode for MAIL_DEBUG."""
    import flask_mail

    app = make_app(serve())
    app.debug = True
    assert flask_mail.Mail(app).state.debug

    assert send(app) is None

    assert capfd.readouterr().err == ""
