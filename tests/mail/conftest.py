"""A real SMTP server for each test, which answers as the test says."""

from __future__ import annotations

import contextlib
import email
import email.policy
import os
import queue
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from flask import Flask

from flask_asok import FlaskAsok, Mail, MailRefused, Task, background, send_mail
from flask_asok.recipes.mail.mime import as_bytes
from flask_asok.recipes.mail.recipe import compose
from flask_asok.signals import task_succeeded

TIMEOUT = 10


class Received:
    """One mail as it came over the wire."""

    def __init__(self, envelope: Any) -> None:
        self.mail_from: str = envelope.mail_from
        self.rcpt_tos: list[str] = envelope.rcpt_tos
        self.content: bytes = envelope.original_content

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.content, policy=email.policy.default)  # type: ignore[return-value]


class Handler:
    """Take every mail, unless the test has put other answers in."""

    def __init__(self) -> None:
        self.received: queue.Queue[Received] = queue.Queue()
        self.data_answers: list[str] = []
        self.rcpt_answers: dict[str, list[str]] = {}
        self.mail_answers: list[str] = []
        self.connections = 0
        self.transactions = 0
        self.logins: list[tuple[bytes, bytes]] = []
        self.data_hook: Callable[[Any], str] | None = None
        self.seen_ids: list[str] = []

    async def handle_MAIL(self, server, session, envelope, address, options) -> str:  # noqa: N802
        self.transactions += 1
        if self.mail_answers and (answer := self.mail_answers.pop(0)):
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802
        answers = self.rcpt_answers.get(address)
        if answers and (answer := answers.pop(0) if len(answers) > 1 else answers[0]) != "250":
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        mail = Received(envelope)
        self.seen_ids.append(mail.message["Message-ID"])
        if self.data_hook is not None:
            answer = self.data_hook(server)
            if answer:
                return answer
        if self.data_answers and (answer := self.data_answers.pop(0)):
            return answer
        self.received.put(mail)
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        if data.password == b"later":
            return AuthResult(success=False, handled=False, message="454 4.7.0 try later")
        return AuthResult(success=data.password == b"secret", handled=False)

    def take(self) -> Received:
        return self.received.get(timeout=TIMEOUT)


class Server(Controller):
    """aiosmtpd on a free port of the loopback interface, in a thread of its own."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        # Bound from now on, for a port that is only looked up may be another process's by then.
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        super().__init__(handler, hostname="127.0.0.1", port=port, ready_timeout=3 * TIMEOUT, **options)

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._listener, ssl=self.ssl_context)

    def _trigger_server(self) -> None:
        """Look whether it answers, with more than aiosmtpd's one second for it, which a busy machine may need."""
        with socket.create_connection((self.hostname, self.port), TIMEOUT) as sock:
            if self.ssl_context:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                sock = context.wrap_socket(sock)
            sock.recv(1024)
            sock.close()

    def factory(self) -> SMTP:
        self.handler.connections += 1
        return super().factory()


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def serve(handler: Handler) -> Iterator[Callable[..., Server]]:
    """Start a server with options of aiosmtpd's."""
    with contextlib.ExitStack() as servers:

        def start(**options: Any) -> Server:
            # Else the server looks up its own name for each connection.
            server = Server(handler, **{"server_hostname": "mx.example.com", **options})
            server.start()
            servers.callback(server.stop)
            # The controller looks once whether its own server answers.
            handler.connections = 0
            return server

        yield start


@pytest.fixture
def make_app() -> Iterator[Callable[..., Flask]]:
    """Make apps whose tasks are done, and whose threads have ended, when the test ends."""
    apps: list[Flask] = []

    def make(server: Server | None = None, **config: Any) -> Flask:
        app = Flask("shop", root_path=os.path.dirname(__file__))
        defaults = {"MAIL_DEFAULT_SENDER": "shop@example.com", "MAIL_SERVER": "127.0.0.1", "ASOK_MAIL_TIMEOUT": 5.0}
        app.config.update(defaults | config)
        if server is not None:
            app.config["MAIL_PORT"] = server.port
        FlaskAsok(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        FlaskAsok().close(app, 5)


@pytest.fixture
def app(make_app: Callable[..., Flask], serve: Callable[..., Server]) -> Iterator[Flask]:
    """An app that sends to a plain server, inside its app context."""
    app = make_app(serve())
    with app.app_context():
        yield app


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def refused() -> Callable[..., MailRefused]:
    """Send a mail, which raises nothing, and give the error of its task."""

    def send(**changed: Any) -> MailRefused:
        task = Mail.send(**{"to": "user@example.com", "subject": "Hello", "body": "World", **changed})
        error = task.exception(TIMEOUT)
        assert isinstance(error, MailRefused)
        assert task.attempts == 1
        return error

    return send


@pytest.fixture(scope="session")
def written() -> Callable[..., bytes]:
    """Write a mail of the arguments of `send_mail`; each line is one that a server takes."""

    def write(**changed: Any) -> bytes:
        content = as_bytes(compose(**{"to": "user@example.com", "sender": "shop@example.com", **changed}))
        assert content.isascii()
        assert max(map(len, content.split(b"\r\n"))) <= 998
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
        return content

    return write


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without the minutes that servers are given to come to terms."""
    monkeypatch.setattr("flask_asok.recipes.mail.recipe._wait", lambda schedule, attempt: 0.01)


@pytest.fixture(scope="session")
def attempt() -> Callable[..., tuple[BaseException | None, float]]:
    """Send once, and give the error and how long it took."""

    def send(app: Flask, **changed: Any) -> tuple[BaseException | None, float]:
        started = time.monotonic()
        with app.app_context():
            mail = {"to": "user@example.com", "subject": "Hello", "body": "World", **changed}
            error = background.using(retries=0)(send_mail, **mail).exception(15)
        return error, time.monotonic() - started

    return send


@pytest.fixture
def succeeded() -> Iterator[Callable[[int], None]]:
    """Wait until so many tasks have succeeded, those included that nobody holds."""
    tasks: queue.Queue[Task[Any]] = queue.Queue()

    def receiver(sender: Flask, task: Task[Any]) -> None:
        tasks.put(task)

    def wait(count: int) -> None:
        for _ in range(count):
            tasks.get(timeout=TIMEOUT)

    with task_succeeded.connected_to(receiver):
        yield wait
