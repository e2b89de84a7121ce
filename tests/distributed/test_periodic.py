"""Periodic tasks on Celery: the processes that serve send them, each tick once; there is no beat."""

import signal
from datetime import UTC, datetime

import jobs
import pytest
from jobs import lines

from flask_asok.periodic import Clock
from flask_asok.state import state_of

ON_POSTGRES = True

MIDNIGHT = datetime(2026, 11, 26, tzinfo=UTC).timestamp()


class Web:
    """A process that serves, played by an application of its own, with a clock that the test sets."""

    def __init__(self, config, name, path, **options):
        self.app = jobs.create_app(**config)
        self.asok = self.app.extensions["asok_of_tests"]
        self.asok.periodic(name=name, args=(str(path),), **options)(jobs.mark_tick)
        self.clock = state_of(self.app).kept(Clock)

    def at(self, seconds):
        self.clock.now = lambda: MIDNIGHT + seconds
        return self.clock.look(self.app)

    def last(self):
        with self.app.app_context():
            return self.asok.periodic_tasks()[0]


@pytest.fixture
def make_web(close, tmp_path):
    made = []

    def make(config, **options):
        # The Redis is that of the session: each test has a name of its own.
        made.append(Web(config, tmp_path.name, tmp_path / "ticks", **options))
        return made[-1]

    yield make
    for web in made:
        close(web.app)


def ticks_of(*minutes):
    return [datetime.fromtimestamp(MIDNIGHT + 60 * minute, UTC).isoformat() for minute in minutes]


def test_each_tick_is_sent_once(config, worker, make_web, tmp_path, wait_until):
    """Of two processes that serve one sends each tick, and a worker runs it: it knows its tick, and all find it."""
    webs = [make_web(config, every=60) for _ in range(2)]
    for web in webs:
        web.at(1)
    found = []
    for minute in range(1, 6):
        for web in webs if minute % 2 else webs[::-1]:
            web.at(minute * 60)
        last = webs[0].last()
        with webs[0].app.app_context():
            handle = webs[0].asok.get(last.last_id)
        handle.join(20)
        found.append((handle.state, handle.scheduled_at.isoformat(), last.last_at.isoformat()))

    assert found == [("succeeded", tick, tick) for tick in ticks_of(1, 2, 3, 4, 5)]
    assert lines(tmp_path / "ticks") == ticks_of(1, 2, 3, 4, 5)
    with webs[1].app.app_context():
        sent = [task.scheduled_at for task in webs[1].asok.tasks(name="mark_tick") if task.id == last.last_id]
    assert sent == [last.last_at]


def test_overlap(redis, make_web, caplog):
    """While a run waits for a worker, or runs in one, the next tick is skipped, in whichever process."""
    config = {"ASOK_CELERY": {"broker_url": redis.url}, "NAME": "no worker"}
    first, second = make_web(config, every=60), make_web(config, every=60)
    for web in (first, second):
        web.at(1)

    first.at(60)
    second.at(120)

    assert "skips its tick of 2026-11-26 00:02:00+00:00: the run before it" in caplog.text
    assert first.last().last_at.minute == 1


@pytest.mark.parametrize("own_broker", ["redis"], indirect=True)
def test_broker_away(own_broker, redis, make_web, start_worker, tmp_path, wait_until, caplog):
    """A broker that is down at a tick: the tick is sent when that is back, once, by any process."""
    name = f"periodic {own_broker.url}"
    config = {"ASOK_CELERY": {"broker_url": own_broker.url, "result_backend": redis.url}, "NAME": name}
    first, second = make_web(config, every=600), make_web(config, every=600)
    for web in (first, second):
        web.at(1)
    own_broker.stop(signal.SIGKILL)
    first.at(600)
    first.at(602)
    assert "could not be started" in caplog.text
    own_broker.start()

    second.at(610)
    first.at(611)
    start_worker(config).ready()

    wait_until(lambda: lines(tmp_path / "ticks"), what="the run")
    with first.app.app_context():
        found = [task.state for task in first.asok.tasks() if task.scheduled_at]
    assert lines(tmp_path / "ticks") == ticks_of(10)
    assert found.count("succeeded") + found.count("running") == 1


def test_without_a_redis(rabbitmq, make_web, tmp_path, caplog):
    """Without a Redis nothing could tell the processes who sends a tick: none does, and the log says what it needs."""
    web = make_web({"ASOK_CELERY": {"broker_url": rabbitmq.url}}, every=60)

    web.at(1)
    web.at(60)

    assert not (tmp_path / "ticks").exists()
    assert caplog.text.count("No periodic task is started: This needs a Redis") == 1
