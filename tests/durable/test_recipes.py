"""The recipes as durable tasks: tried for longer, by any process, and told of where they are given up."""

import socket
import threading

import durable_jobs as jobs
import pytest

from flask_asok import (
    Cache,
    FlaskAsok,
    Mail,
    background,
    cached,
    resize_image,
    send_mail,
    send_webhook,
    task,
    warm_cache,
)
from flask_asok.recipes.mail.recipe import send_mails
from flask_asok.results import packer_of
from flask_asok.sharing import open_store
from flask_asok.signals import task_abandoned, webhook_failed
from flask_asok.testing.doubles import distribute

WAIT = 10

DAY = 86_400

asok = FlaskAsok()

durable = background.using(durable=True)


@pytest.fixture
def closed_port():
    """A port at which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def settings(closed_port):
    """What lets webhooks and mails fail at once, and be tried again."""
    return {
        "ASOK_WEBHOOK_ALLOW": ["127.0.0.1"],
        "MAIL_SERVER": "127.0.0.1",
        "MAIL_PORT": closed_port,
        "MAIL_DEFAULT_SENDER": "shop@example.com",
    }


@pytest.fixture
def app(make_durable, settings):
    return make_durable(**settings)


@pytest.fixture
def next_app(make_durable, settings):
    return make_durable(**settings)


@pytest.fixture
def url(closed_port):
    return f"http://127.0.0.1:{closed_port}/"


def calls(url):
    """Each recipe that waits for the machine of somebody else, with its arguments."""
    mail = {"to": "ann@example.com", "subject": "Hello", "body": "World"}
    return {
        "webhook": (send_webhook, (url, {}), {}),
        "mail": (send_mail, (), mail),
        "mails": (send_mails, ([mail],), {}),
    }


recipes = pytest.mark.parametrize(
    ("recipe", "retries", "most"), [("webhook", 8, 36 * 3600), ("mail", 6, 6 * 3600), ("mails", 6, 6 * 3600)]
)


def waits_of(options):
    return [options.backoff(attempt) for attempt in range(2, options.retries + 2)]


def fail_first(task):
    """Wait until the first attempt has failed."""
    while task.state != "waiting":
        task.join(0.01)


# Schedules


@recipes
@pytest.mark.parametrize("how", ["call", "app", "distributed"])
def test_tried_for_longer(make_durable, settings, url, recipe, retries, most, how):
    """What survives its process is tried for about a day, or for hours."""
    app = make_durable(**settings, ASOK_DURABLE=how == "app")
    if how == "distributed":
        distribute(app)
    fn, args, kwargs = calls(url)[recipe]
    with app.app_context():
        short = background.using(delay=DAY, durable=False)(fn, *args, **kwargs) if how != "distributed" else None
        door = durable if how == "call" else background
        long = (
            door.using(retry_on=())(fn, *args, **kwargs)
            if how == "distributed"
            else door.using(delay=DAY)(fn, *args, **kwargs)
        )

    assert long.options.retries == retries
    assert most / 2 < sum(waits_of(long.options)) < most
    if short is not None:
        assert short.options.retries < retries
        assert sum(waits_of(short.options)) < 1200
        short.cancel()
        long.cancel()


@recipes
def test_the_next_process_goes_on_with_it(app, next_app, sweep, url, recipe, retries, most):
    """The schedule is in the message: the second attempt is made in another process, and the third is due by it."""
    fn, args, kwargs = calls(url)[recipe]
    with app.app_context():
        left = durable(fn, *args, **kwargs)
        fail_first(left)
    asok.close(app, 5)
    message = packer_of(app).read(open_store(app).read(left.id).message)
    store = open_store(next_app)
    due = store.read(left.id).due
    store.now = lambda: due + 1

    sweep(wait=False)
    with next_app.app_context():
        going = next_app.extensions["asok"].backend.find(left.id)
        while going.attempts < 2 or going.state != "waiting":
            going.join(0.01)

    assert message.options["retries"] == retries
    assert (going.id, going.options.retries) == (left.id, retries)
    assert most / 2 < sum(waits_of(going.options)) < most
    assert store.read(left.id).attempts == 2


def test_what_is_said_counts(app, url):
    """`retries=` and `backoff=` of the call or the function beat those of durable tasks, each for itself."""
    mine = task(retries=2, backoff=7, if_durable={"backoff": [60, 3600]})(jobs.plain_copy())
    with app.app_context():
        later = durable.using(delay=DAY)
        found = [
            later.using(retries=1)(send_webhook, url, {}),
            later.using(backoff=5)(send_webhook, url, {}),
            later(mine),
            later.using(backoff=5)(mine),
            background.using(delay=DAY)(mine),
        ]

    said = [(each.options.retries, each.options.backoff) for each in found]
    assert said[0][0] == 1 and callable(said[0][1])
    assert said[1:] == [(8, 5.0), (2, (60.0, 3600.0)), (2, 5.0), (2, 7.0)]


# Given up


def test_three_deaths(app, next_app, sweep, url, change_record):
    """Where the sweeper gives up it sends `webhook_failed` and `task_abandoned`, with what it takes to replay it."""
    with app.app_context():
        left = durable.using(delay=DAY)(send_webhook, url, {"n": 1}, id="msg_1", reference="endpoint 7")
    for name, value in {"state": "running", "deaths": 2, "due": 1.0, "attempts": 3}.items():
        change_record(app, left.id, name, value)
    asok.close(app, 5)
    heard = []

    def failed(sender, delivery, error):
        heard.append(("webhook_failed", sender, delivery.id, delivery.body, delivery.reference, delivery.attempts))

    def abandoned(sender, task):
        heard.append(("task_abandoned", sender, task.id))

    with webhook_failed.connected_to(failed), task_abandoned.connected_to(abandoned):
        sweep()

    assert sorted(heard, key=lambda said: said[0]) == [
        ("task_abandoned", next_app, left.id),
        ("webhook_failed", next_app, "msg_1", b'{"n":1}', "endpoint 7", 2),
    ]
    assert open_store(next_app).read(left.id).state == "abandoned"


def test_handed_over_is_not_given_up(app, url):
    """A webhook that goes on in another process has not failed, whether it waits or its attempt runs."""
    heard = []
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        webhook_failed.connected_to(lambda *_, **__: heard.append(1)),
    ):
        with app.app_context():
            waiting = durable(send_webhook, url, {})
            running = durable.using(retries=0)(send_webhook, f"http://127.0.0.1:{silent.getsockname()[1]}/", {})
            fail_first(waiting)
            silent.settimeout(WAIT)
            connection, _ = silent.accept()
            asok.close(app, 0)
        thread = next(each for each in threading.enumerate() if each.ident == running.ident)
        connection.close()
        thread.join(WAIT)
        # It may have been on its way to the scheduler when that closed.
        waiting.join(WAIT)

    assert heard == []
    assert (waiting.goes_on, running.goes_on) == (True, True)


# ASOK_DURABLE for the whole application


@pytest.fixture
def all_durable(make_durable, settings):
    app = make_durable(**settings, ASOK_DURABLE=True)
    with app.app_context():
        yield app


def is_written(app, task):
    record = open_store(app).read(task.id)
    return record is not None


def seven():
    return 7


def test_cache_in_memory(all_durable):
    """What warms the memory of this process ends with it, without a word: no other process could do it."""
    cache = Cache(stale=60)

    warmed = background(warm_cache, "a", lambda: 7)

    assert warmed.result(WAIT) == 7
    assert not is_written(all_durable, warmed)
    assert (cache.get("a"), Cache().remember("b", lambda: 8)) == (7, 8)
    assert background(cache.warm, "c", lambda: 9).result(WAIT) == 9
    assert background(cached("d")(lambda: 10).warm).result(WAIT) == 10
    with pytest.raises(Exception, match="CACHE_REDIS_URL"):
        durable(warm_cache, "a", seven)


def test_cache_that_is_stale(all_durable, gate):
    """A refresh is a matter of this process."""
    cache = Cache(ttl=0.001, stale=60)
    cache.set("a", 1)
    loaded = threading.Event()

    def load():
        loaded.set()
        # What it loads is not there before the last look.
        gate.wait(WAIT)
        return 2

    while not loaded.wait(0.01):
        assert cache.remember("a", load) == 1


def test_cache_on_redis(make_durable, redis_port, next_app, sweep):
    """A cache that processes share can be warmed by the next one."""
    shared = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
    app = make_durable(**shared, ASOK_DURABLE=True)
    with app.app_context():
        warmed = background(warm_cache, "durable", jobs.seven, ttl=60)

        assert warmed.state in ("queued", "running", "succeeded")
        warmed.join(WAIT)
        assert is_written(app, warmed)
        assert Cache().get("durable") == 7
        with pytest.raises(TypeError, match="warm_cache"):
            background(warm_cache, "durable", lambda: 8)
        assert background.using(durable=False)(warm_cache, "durable", lambda: 8).result(WAIT) == 8


def test_images(all_durable, tmp_path):
    """A path travels as it is."""
    from PIL import Image

    path = tmp_path / "photo.png"
    Image.new("RGB", (1600, 1200), "teal").save(path)

    done = background(resize_image, path)

    assert done.exception(WAIT) is None
    assert is_written(all_durable, done)
    with Image.open(path) as written:
        assert written.size == (800, 600)


def test_mail_with_attachments(all_durable):
    """What was read at the call goes along."""
    sent = Mail.send(to="ann@example.com", subject="Hello", body="World", attachments=[("a.bin", b"\x00\xff" * 1000)])
    fail_first(sent)

    assert is_written(all_durable, sent)
    assert sent.cancel()


def test_mail_that_is_put_off(app, monkeypatch):
    """What the server puts off is a task of its own, durable if the first one was."""
    from flask_asok.recipes.mail import batch

    started = []

    def deliver(mails, later):
        later(list(mails))
        started.append([each for each in app.extensions["asok"].backend.alive() if each.name == "send_mails"])
        return [None]

    monkeypatch.setattr(batch, "deliver", deliver)
    with app.app_context():
        for door in (durable, background):
            door(send_mail, to="ann@example.com", subject="Hello", body="World").join(WAIT)

    assert [len(each) for each in started] == [1, 2]
    assert [open_store(app).read(each.id) is not None for each in started[1]] == [True, False]
    assert [each.options.retries for each in started[1]] == [6, 3]


def test_a_literal_secret(all_durable, url):
    """A secret is not written down: the error names the setting where it belongs, and shows nothing of it."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    with pytest.raises(TypeError, match="ASOK_WEBHOOK_SECRETS") as refused:
        background(send_webhook, url, {}, secret=secret)

    assert "MfKQ9" not in str(refused.value)
    assert asok.tasks() == []
    background.using(durable=False, delay=DAY)(send_webhook, url, {}, secret=secret).cancel()
