"""The recipes in a worker: a webhook that is retried, mail, and a cache on Redis."""

import json
import os
import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import jobs
import pytest
from aiosmtpd.controller import Controller

from flask_asok import Cache, MailRefused, background, send_mail, send_webhook, verify_webhook, warm_cache

ON_POSTGRES = True

SECRET = "whsec_" + "A" * 32


class Receiver(BaseHTTPRequestHandler):
    """Answer 503 to the first webhook, and take the others."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.server.received.put((dict(self.headers), body))
        self.send_response(503 if self.server.asked == 1 else 204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.received, server.asked = queue.Queue(), 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


class Mailbox:
    def __init__(self):
        self.received = queue.Queue()

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.received.put(envelope)
        return "250 OK"


@pytest.fixture
def mailbox(free_port):
    mailbox = Mailbox()
    mailbox.port = free_port
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port, ready_timeout=30)
    controller.start()
    yield mailbox
    controller.stop()


@pytest.fixture
def shop(config, redis, mailbox, start_worker, close):
    """An application whose worker has its settings, and is the only one that has its secret and its password."""
    shared = {
        **config,
        "NAME": f"jobs{os.urandom(4).hex()}",
        "ASOK_WEBHOOK_ALLOW": ["127.0.0.1"],
        "CACHE_REDIS_URL": redis.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": mailbox.port,
        "MAIL_DEFAULT_SENDER": "shop@example.com",
    }
    start_worker({**shared, "ASOK_WEBHOOK_SECRETS": {"hook": SECRET}}, "--concurrency", "1")
    app = jobs.create_app(**shared)
    with app.app_context():
        yield app
    close(app)


def test_webhook(shop, receiver):
    """A webhook that was not taken is sent again, with the same id, signed with a secret that only the worker has."""
    task = background.using(backoff=0.1)(
        send_webhook, f"http://127.0.0.1:{receiver.server_port}/", {"order": 7}, secret="hook"
    )

    assert task.result(40).status == 204
    assert task.attempts == 2
    (first, body), (second, _) = receiver.received.get(timeout=1), receiver.received.get(timeout=1)
    assert first["webhook-id"] == second["webhook-id"]
    assert json.loads(body) == {"order": 7}
    assert verify_webhook(second, body, SECRET) == first["webhook-id"]


def test_webhook_waits_for_hours(shop, receiver):
    """The schedule of the recipe itself travels with its function: the second attempt is due some seconds later."""
    task = background(send_webhook, f"http://127.0.0.1:{receiver.server_port}/", {})
    receiver.received.get(timeout=40)

    while task.state == "running":
        task.join(0.1)

    assert task.state == "waiting"
    assert task.cancel()


def test_webhook_in_testing(config, receiver, start_worker, close):
    """A worker in testing mode signs what it is handed and sends nothing, whatever the mode of its caller."""
    name = f"jobs{os.urandom(4).hex()}"
    start_worker({**config, "NAME": name, "TESTING": True, "ASOK_WEBHOOK_SECRETS": {"hook": SECRET}})
    app = jobs.create_app(**config, NAME=name)
    with app.app_context():
        task = background(send_webhook, f"http://localhost:{receiver.server_port}/", {"order": 7}, secret="hook")
        delivery = task.result(40)
    close(app)

    assert (delivery.status, delivery.json) == (None, {"order": 7})
    assert verify_webhook(delivery.headers, delivery.body, SECRET) == delivery.id
    assert receiver.received.empty()


def test_mail(shop, mailbox):
    """A mail is sent by the worker, with its own settings of the server."""
    task = background(send_mail, to="user@example.com", subject="Hello", body="World")

    task.result(40)

    envelope = mailbox.received.get(timeout=10)
    assert envelope.rcpt_tos == ["user@example.com"]
    assert b"World" in envelope.content


def test_mistyped_address(shop, mailbox):
    """A mail whose address is none raises nothing at the call; its task fails in the worker, and says which."""
    task = background(send_mail, to="j\u00f6rg@b.example\n", subject="Hello\n", body="World")

    error = task.exception(40)

    assert isinstance(error, MailRefused)
    assert "j\u00f6rg@b.example" in str(error)
    assert error.receipts[0].accepted == []
    assert mailbox.received.empty()


def test_worker_in_debug_mode(config, redis, mailbox, start_worker, close, monkeypatch):
    """A worker that was left in debug mode warns of it, and logs no mail: mails hold password links."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    shared = {
        **config,
        "NAME": f"jobs{os.urandom(4).hex()}",
        "MAIL_PORT": mailbox.port,
        "MAIL_DEFAULT_SENDER": "shop@example.com",
    }
    worker = start_worker(shared, "--concurrency", "1")
    app = jobs.create_app(**shared)

    with app.app_context():
        background(send_mail, to="user@example.com", subject="Hello", body="reset-token-123").result(40)
    close(app)

    assert "Set FLASK_DEBUG=0" in worker.log()
    assert "reset-token-123" not in worker.log()
    assert "rcpt TO" not in worker.log()


def test_cache(shop):
    """A value that a worker has loaded is in the cache of every process."""
    background(warm_cache, "posts", jobs.load_posts, ttl=300).result(40)

    assert Cache().get("posts") == ["first", "second"]
