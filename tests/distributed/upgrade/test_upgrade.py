"""What the release before this one has queued and written runs, and can be read, after an upgrade."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jobs
import pytest
from aiosmtpd.controller import Controller
from PIL import Image

import flask_asok
from flask_asok import Cache, Delivery, FlaskAsok
from flask_asok.messages.message import Message

asok = FlaskAsok()

FROZEN = json.loads((Path(__file__).parent / "queued_before.json").read_text())
"""Made by commit 29f8abb for the application of `jobs.py`: messages of calls, and the values and errors of outcomes."""

SECRET = "whsec_" + "A" * 32


@pytest.fixture
def config(redis):
    return {"ASOK_CELERY": {"broker_url": redis.url, "result_backend": redis.url}}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


class Mailbox:
    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        return "250 OK"


@pytest.fixture
def receiver():
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def mail_port(free_port):
    controller = Controller(Mailbox(), hostname="127.0.0.1", port=free_port, ready_timeout=30)
    controller.start()
    yield free_port
    controller.stop()


@pytest.fixture
def shop(config, redis, mail_port, start_worker, close):
    """The application, and a worker for it."""
    shared = {
        **config,
        "NAME": f"jobs{os.urandom(4).hex()}",
        "ASOK_WEBHOOK_ALLOW": ["127.0.0.1"],
        "ASOK_WEBHOOK_SECRETS": {"hook": SECRET},
        "CACHE_REDIS_URL": redis.url,
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": mail_port,
        "MAIL_DEFAULT_SENDER": "shop@example.com",
    }
    start_worker(shared, "--concurrency", "1")
    app = jobs.create_app(**shared)
    with app.app_context():
        yield app
    close(app)


def frozen_message(name, folder, receiver):
    """Return a message of the release before, with the paths and the port of this test."""
    text = json.dumps(FROZEN["messages"][name])
    return json.loads(
        text.replace("{folder}", str(folder)).replace("127.0.0.1:1/", f"127.0.0.1:{receiver.server_port}/")
    )


def test_queued_before(shop, receiver, tmp_path, wait_until):
    """Every call that was queued before the upgrade runs after it, the recipes' among them, with its own options."""
    Image.new("RGB", (1200, 900), "red").save(tmp_path / "photo.jpg")
    hub = shop.extensions["asok"].backend.hub
    ids = {}
    for name in FROZEN["messages"]:
        message = Message.from_payload(frozen_message(name, tmp_path, receiver))
        ids[name] = message.id
        hub.publish(message)

    def are_over():
        found = [asok.get(id) for id in ids.values()]
        return all(one is not None and one.finished_at for one in found)

    wait_until(are_over, 60, "the end of all tasks")

    assert {name: asok.get(id).error for name, id in ids.items() if asok.get(id).state != "succeeded"} == {}
    assert json.loads(receiver.body) == {"order": 7}
    with Image.open(tmp_path / "photo.jpg") as image:
        assert image.size == (800, 600)
    assert (tmp_path / "photo-small.jpg").exists()
    assert Cache().get("posts") == ["first", "second"]


def test_options_before(app):
    """A call of a recipe that was queued before keeps the recipe's retries, backoff and queue."""
    hub = app.extensions["asok"].backend.hub
    options = {}
    for name, message in FROZEN["messages"].items():
        _, options[name], _ = hub.packer.unpack(Message.from_payload(message))

    assert (options["send_webhook"].retries, options["send_webhook"].queue) == (4, "webhooks")
    assert options["send_webhook"].retry_on == (flask_asok.WebhookUnavailable,)
    assert (options["send_mail"].retries, options["send_mail"].queue) == (3, "mail")
    assert options["send_mails"].retry_on == (flask_asok.MailUnavailable,)
    assert options["add-named"].retry_on == (flask_asok.WebhookUnavailable,)
    assert (options["add"].retries, options["add"].backoff) == (2, (1.0, 2.0))


def test_signed_before(app):
    """A message and an outcome that were signed before the upgrade are accepted after it."""
    hub = app.extensions["asok"].backend.hub

    message = hub.packer.read(FROZEN["signed"]["message"])

    assert message.as_payload() == FROZEN["messages"]["add"]
    assert hub.packer.sign(message) == FROZEN["signed"]["message"]
    assert hub.read_outcome(message.id, FROZEN["signed"]["outcome"]) == (3, None)


def test_values_before(app):
    """What a task returned before the upgrade can be read after it."""
    hub = app.extensions["asok"].backend.hub

    values = {name: hub.packer.serializer.decode(value) for name, value in FROZEN["values"].items()}

    assert isinstance(values["delivery"], Delivery)
    assert (values["delivery"].status, values["delivery"].body) == (503, b"{}")
    assert values["receipt"].refused[0].code == 550
    assert values["renditions"]["small"] == values["picture"]
    assert values["order"] == jobs.Order(7, jobs.Colour.RED)


@pytest.mark.parametrize("encoded", FROZEN["errors"], ids=lambda encoded: encoded["type"].partition(":")[2])
def test_errors_before(app, encoded):
    """An error that a task raised before the upgrade comes back as that, and not as a TaskFailed with its text."""
    error = app.extensions["asok"].backend.hub.packer.serializer.decode_error(encoded)

    assert type(error).__name__ == encoded["type"].partition(":")[2]
    assert str(error) in encoded["text"]


def test_a_field_of_a_later_release(app):
    """A worker passes on what a later release has put into a message, and does not know itself."""
    payload = {**FROZEN["messages"]["add"], "v": 2, "priority": 7}

    message = Message.from_payload(payload)

    assert message.as_payload() == payload
