"""A broker that others can write to makes no worker run anything."""

import json

import jobs
import pytest

from flask_asok import background, send_mail, send_webhook
from flask_asok.backends.celery.app import queue_name
from flask_asok.backends.celery.hub import RUN
from flask_asok.errors import MessageRefused, NotConfigured
from flask_asok.messages.names import Names
from flask_asok.messages.serializer import Serializer
from flask_asok.messages.signer import Signer


def message(app, path, **changes):
    """Return a message as the application itself makes it, sent to nobody."""
    sent = []
    backend = app.extensions["asok"].backend
    backend.start = lambda task, **_: sent.append(task)
    with app.app_context():
        background(jobs.mark, path)
    del backend.start
    return {**sent[0].message.as_payload(), **changes}


def send(app, id, signed):
    app.extensions["asok"].backend.hub.celery_app.tasks[RUN].apply_async(
        args=(signed,), task_id=id, queue=queue_name(app, "default"), retry=False
    )


def forged(signed):
    """Return a message with a signature that is surely another one."""
    content, dot, signature = signed.rpartition(".")
    # Not at its end, whose last bits say nothing.
    return content + dot + ("B" if signature[0] == "A" else "A") + signature[1:]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda app, message: json.dumps(message), "not signed"),
        (lambda app, message: forged(Signer(app).sign(message, "call")), "not signed"),
        (lambda app, message: Signer(app).sign(message, "outcome"), "not signed"),
        (lambda app, message: {"fn": "os:system"}, "not a signed text"),
        (lambda app, message: None, "not a signed text"),
        (lambda app, message: Signer(app).sign({**message, "id": "other"}, "call"), "the id of another one"),
        (lambda app, message: Signer(jobs.create_app("other")).sign(message, "call"), "not signed by 'jobs'"),
        (lambda app, message: Signer(jobs.create_app(SECRET_KEY="x")).sign(message, "call"), "not signed by 'jobs'"),
    ],
    ids=[
        "unsigned", "forged", "another purpose", "not text", "nothing", "another id", "another application",
        "another key",
    ],
)  # fmt: skip
def test_refused(app, worker, tmp_path, wait_until, make, text):
    """What the application has not signed, for this very use, is refused, logged, and never run; the worker goes on."""
    made = message(app, tmp_path / "runs")
    before = worker.log().count("Refused a message")

    send(app, made["id"], make(app, made))

    with app.app_context():
        # Two processes work: these come after it in both.
        assert [background(jobs.add, n).result(20) for n in range(4)] == [0, 1, 2, 3]
    wait_until(lambda: worker.log().count("Refused a message") == before + 1, what="the refusal")
    refusals = worker.log().split("Refused a message for background tasks: ")[1:]
    assert text in refusals[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fn": "os:getcwd"}, "is of no module that ASOK_TASK_MODULES allows"),
        ({"fn": "jobs:os.system"}, "belongs to another module"),
        ({"fn": "flask_asok.cli:sys.exit"}, "belongs to another module"),
        ({"fn": "jobs:background.__class__"}, "belongs to another module"),
        ({"fn": "jobs:create_app.__globals__.get"}, "belongs to another module"),
        ({"fn": "jobs:nothing"}, "is not there"),
        ({"fn": "jobs.nothing:at_all"}, "cannot be imported"),
        ({"fn": 7}, "is of no module"),
        ({"options": {"retries": -1}}, "retries must not be negative"),
        ({"args": [{"__asok__": "bytes", "": "***"}]}, "malformed"),
        ({"args": None}, "TypeError"),
    ],
)
def test_signed_and_not_to_be_run(app, worker, tmp_path, wait_until, changes, text):
    """What this worker cannot run, of a newer release perhaps, is left to others for a while, then listed as failed."""
    made = message(app, tmp_path / "runs", **changes)
    backend = app.extensions["asok"].backend
    store = backend.hub.store

    send(app, made["id"], Signer(app).sign(made, "call"))

    summary = wait_until(lambda: (found := backend.get(made["id"])) and found.error and found, what="the refusal")
    assert summary.state == "queued"
    assert summary.error.startswith("refused by its worker") and text in summary.error
    line = f"{made['name']} ({made['id']}) is left to other workers"
    wait_until(lambda: line in worker.log(), what="the line")
    store.redis.hset(store.key(f"task:{made['id']}"), "left", 1)
    send(app, made["id"], Signer(app).sign(made, "call"))
    wait_until(lambda: backend.get(made["id"]).state == "failed", what="the end of patience")
    assert not (tmp_path / "runs").exists()
    assert made["id"] in app.test_cli_runner().invoke(args=["asok", "failed"]).output
    assert backend.retry(made["id"])
    assert backend.cancel(made["id"])


def test_message_of_a_later_release(app, worker, tmp_path, wait_until):
    """A message of a later release is left to a worker of that, and told of by the name of its task."""
    with app.app_context():
        task = background.using(delay=60)(jobs.mark, tmp_path / "runs")

    send(app, task.id, Signer(app).sign({**task.message.as_payload(), "v": 99}, "call"))

    wait_until(lambda: f"mark ({task.id}) is left to other workers" in worker.log(), what="the line")
    assert "later release" in app.extensions["asok"].backend.get(task.id).error
    assert task.cancel()


def test_sent_again(app, worker, tmp_path):
    """A message that somebody sends once more runs no second time, while the record of the task is kept."""
    made = message(app, tmp_path / "runs")
    signed = Signer(app).sign(made, "call")

    for _ in range(3):
        send(app, made["id"], signed)
        with app.app_context():
            assert [background(jobs.add, n).result(20) for n in range(4)] == [0, 1, 2, 3]

    assert (tmp_path / "runs").read_text().split() == ["1"]


def test_keys_can_be_rotated(config, worker):
    """A message signed with an older key is good while SECRET_KEY_FALLBACKS names it."""
    old = jobs.create_app(SECRET_KEY="old", **config)
    new = jobs.create_app(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "old"], **config)
    signed = Signer(old).sign({"id": "1"}, "call")

    assert Signer(new).verify(signed, "call") == {"id": "1"}
    with pytest.raises(MessageRefused):
        Signer(old).verify(Signer(new).sign({"id": "1"}, "call"), "call")


def test_no_secret_key(config):
    """Without a secret key nothing is sent, and the error says what to set."""
    app = jobs.create_app(SECRET_KEY=None, **config)

    with app.app_context(), pytest.raises(NotConfigured, match="set SECRET_KEY"):
        background(jobs.add, 1)
    done = app.test_cli_runner().invoke(args=["asok", "worker"])
    assert done.exit_code == 2
    assert "set SECRET_KEY" in done.output


def test_values_are_found_by_allowed_names_only():
    """A value that stands for a function, an enumeration or a dataclass resolves in allowed modules only."""
    serializer = Serializer(Names({"jobs"}))

    for kind, data in [
        ("callable", "os:system"),
        ("enum", ["http:HTTPStatus", "OK"]),
        ("dataclass", ["subprocess:Popen", {"args": "id"}]),
        ("dataclass", ["jobs:ShopClosed", {}]),
        ("enum", ["jobs:Order", "OK"]),
        ("bytes", "***"),
        ("no such kind", 1),
    ]:
        with pytest.raises(MessageRefused):
            serializer.decode({"__asok__": kind, "": data})


def test_no_secret_travels(config, app, tmp_path):
    """Neither the SMTP password nor a webhook's secret is ever in a message; a secret is named, or refused."""
    app.config.update(MAIL_USERNAME="me", MAIL_PASSWORD="a-password", MAIL_DEFAULT_SENDER="me@example.com")
    sent = []
    app.extensions["asok"].backend.start = lambda task, **_: sent.append(task)

    with app.app_context():
        background(send_mail, to="you@example.com", subject="Hello", body="World")
        with pytest.raises((ValueError, TypeError), match="ASOK_WEBHOOK_SECRETS"):
            background(send_webhook, "https://example.com/hook", {}, secret="whsec_" + "A" * 32)

    assert len(sent) == 1
    assert "a-password" not in json.dumps(sent[0].message.as_payload())


def test_forged_result(app, worker):
    """A record that was written by somebody else shows in the result, not in the state."""
    store = app.extensions["asok"].backend.hub.store
    with app.app_context():
        task, other = background.using(delay=60)(jobs.add, 1), background.using(delay=60)(jobs.add, 1)

    store.settle(task.id, 0, "succeeded")
    store.settle(other.id, 0, "succeeded", outcome=Signer(app).sign({"value": 1}, "call"))

    for forged in (task, other):
        assert (forged.state, forged.is_alive()) == ("succeeded", False)
        with pytest.raises(MessageRefused):
            forged.result(1)


def test_results_cannot_be_swapped(app):
    """What came out of one task does not pass for what came out of another."""
    hub = app.extensions["asok"].backend.hub
    signed = hub.sign_outcome("a" * 32, {"value": "yes"})

    assert hub.read_outcome("a" * 32, signed) == ("yes", None)
    with pytest.raises(MessageRefused):
        hub.read_outcome("b" * 32, signed)
