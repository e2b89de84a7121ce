"""The pages of the documentation, run; what lies at the addresses they name is real, and on this machine."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from flask import Flask
from ports import free_port

from flask_asok import FlaskAsok, Task
from flask_asok.signals import task_queued

ROOT = Path(__file__).parents[2]
TIMEOUT = 40
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
FILE = re.compile(r"# ([\w./]+\.py)\n")


@dataclass
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    path: Path
    line: int
    section: str
    """The heading that it stands under."""

    def compiled(self) -> Any:
        """Compile it so that an error points at the line of the page."""
        return compile("\n" * self.line + self.text, self.path, "exec")


def blocks_of(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, in their order."""
    text = path.read_text(encoding="utf-8")
    found = [(block, text.count("\n", 0, block.start(3))) for block in FENCE.finditer(text)]
    return [Block(block[2], block[3], path, line, section_at(text, block.start())) for block, line in found]


def section_at(text: str, position: int) -> str:
    """Return the heading that a place of a page stands under."""
    prose = FENCE.sub("", text[:position])
    return (HEADING.findall(prose) or [""])[-1]


@dataclass
class Page:
    """
    A page, run as its reader would, in a folder of its own.

    Its ```python blocks run in order and share their names. As soon as one of them has made `app`, each of the
    following runs in a POST request to it. A block whose first line is a file name (`# test_shop.py`) is written to
    that file.
    """

    name: str
    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    """What the requests are made with, as for `app.test_request_context`."""
    tasks: list[Task[Any]] = field(default_factory=list)
    """Every task that was started since the page was opened."""

    def run(
        self, *, replace: Mapping[str, str] | None = None, skip: tuple[str, ...] = (), **names: Any
    ) -> dict[str, Any]:
        """
        Run the page and return all names that it leaves.

        `names` are what it takes for granted: a block that makes another `app` does so for itself only. `replace` puts
        something in place of what only a reader's machine has, and blocks with a text of `skip` in them are not run.
        """
        self.names.update(names)
        for block in blocks_of(ROOT / self.name):
            if block.language == "python" and not any(text in block.text for text in skip):
                for old, new in (replace or {}).items():
                    block.text = block.text.replace(old, new)
                self._run(block)
                self.names.update(names)
        return self.names

    def outcomes(self) -> list[tuple[str, str]]:
        """Wait for the tasks, and return the name and the state of each."""
        for task in self.tasks:  # grows as tasks start tasks
            task.join(TIMEOUT)
        return [(task.name, task.state) for task in self.tasks]

    def _run(self, block: Block) -> None:
        file = FILE.match(block.text)
        if file is not None:
            path = self.folder / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            return
        with self._around():
            exec(block.compiled(), self.names)

    def _around(self) -> contextlib.AbstractContextManager[Any]:
        app = self.names.get("app")
        if app is None or "asok" not in app.extensions:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = app.test_request_context(**{"method": "POST", **self.request})
        return context


@pytest.fixture
def blocks():
    """Take the fenced blocks out of a page."""
    return blocks_of


@pytest.fixture
def page(monkeypatch, tmp_path):
    """Open a page in an empty folder; the applications it makes are closed after the test."""
    monkeypatch.chdir(tmp_path)
    # Flask puts it into the virtual environment where that holds the folder of temporary files, and there it stays.
    monkeypatch.setattr(Flask, "auto_find_instance_path", lambda _: str(tmp_path / "instance"))
    opened: list[Page] = []

    def page(name: str, **request: Any) -> Page:
        opened.append(Page(name, tmp_path, {"__name__": "docs_page"}, request))
        return opened[-1]

    def note(app: Flask, task: Task[Any]) -> None:
        opened[-1].tasks.append(task)

    with task_queued.connected_to(note):
        yield page

    for done in opened:
        for app in {id(value): value for value in done.names.values() if isinstance(value, Flask)}.values():
            if "asok" in app.extensions:
                FlaskAsok().close(app, TIMEOUT)
        done.names.clear()
        done.tasks.clear()


class Internet:
    """
    A proxy that leads every https address to a server on this machine, which has a certificate for it and answers 200.

    `received` holds the first line, the headers and the body of what came.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self.received: queue.Queue[tuple[str, str, bytes]] = queue.Queue()
        self._authority = authority
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that has left says nothing at all.
        with contextlib.suppress(OSError, IndexError), connection:
            host = self._read(connection)[0].split()[1].partition(":")[0]
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(host).configure_cert(context)
            with context.wrap_socket(connection, server_side=True) as secured:
                self.received.put(self._read(secured, host))
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    def _read(self, connection: socket.socket, host: str = "") -> tuple[str, str, bytes]:
        with connection.makefile("rb") as file:
            line = file.readline().decode().strip()
            length = 0
            while header := file.readline().strip():
                name, _, value = header.partition(b": ")
                if name.lower() == b"content-length":
                    length = int(value)
            return line, host, file.read(length)


@pytest.fixture
def internet(monkeypatch, tmp_path_factory):
    """Have every application's webhooks end at this machine, whatever address they name."""
    authority = trustme.CA()
    ca_file = tmp_path_factory.mktemp("internet") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    internet = Internet(authority)
    monkeypatch.setattr(
        Flask,
        "default_config",
        {
            **Flask.default_config,
            "ASOK_WEBHOOK_PROXY": f"http://127.0.0.1:{internet.port}",
            "ASOK_WEBHOOK_CA_FILE": str(ca_file),
        },
    )
    yield internet
    internet.close()


class Mailbox:
    """Take every mail."""

    def __init__(self) -> None:
        self.received: queue.Queue[Any] = queue.Queue()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.received.put(envelope)
        return "250 OK"


@pytest.fixture
def mailbox(monkeypatch):
    """Have every application's mail end at an SMTP server of this machine."""
    mailbox = Mailbox()
    port = free_port()
    server = Controller(mailbox, hostname="127.0.0.1", port=port, ready_timeout=30)
    server.start()
    monkeypatch.setattr(
        Flask,
        "default_config",
        {
            **Flask.default_config,
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": port,
            "MAIL_DEFAULT_SENDER": "shop@example.com",
        },
    )
    yield mailbox
    server.stop()
