"""What a sweeper sends again, and what it leaves alone. No worker is needed: time is moved, and the test looks."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jobs
import pytest

from flask_asok import background
from flask_asok.backends.celery.lengths import lengths_on
from flask_asok.backends.celery.sweeper import Sweeper


@pytest.fixture
def config(redis):
    return {"ASOK_CELERY": {"broker_url": redis.url}}


@pytest.fixture
def hub(ctx):
    return ctx.extensions["asok"].backend.hub


@pytest.fixture
def store(hub):
    return hub.store


@pytest.fixture
def sweeper(ctx, hub):
    return Sweeper(hub, ctx.extensions["asok"].backend.worker, ["default"])


@pytest.fixture
def in_broker(ctx, hub):
    """Return how many messages the broker has."""

    def in_broker():
        with hub.publisher.connected() as connection:
            return lengths_on(connection, ctx, ["default"])["default"]

    return in_broker


@pytest.fixture
def drop(ctx, store):
    """Take the oldest messages out of the broker, as a worker does that is killed before it begins their tasks."""

    def drop(count=1):
        for _ in range(count):
            assert store.redis.rpop(f"{ctx.name}.default")

    return drop


EARLIER = """
local time = redis.call('TIME')
local now, last = time[1] + time[2] / 1e6, tonumber(redis.call('GET', KEYS[3]) or 0)
local function earlier(moment)
    return string.format('%.6f', moment + now - math.max(moment, last) - ARGV[1])
end
local sent = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for index = 1, #sent, 2 do redis.call('ZADD', KEYS[1], earlier(sent[index + 1]), sent[index]) end
local claimed = redis.call('HGET', KEYS[2], 'default')
if claimed then redis.call('HSET', KEYS[2], 'default', earlier(claimed)) end
redis.call('SET', KEYS[3], string.format('%.6f', now))
"""


@pytest.fixture
def let_pass(store):
    """Let seconds pass, and none besides, however slow this machine is: so much longer ago is what has happened."""
    keys = [store.key("sent:default"), store.key("claimed"), store.key("of the test")]
    return lambda seconds: store.redis.eval(EARLIER, 3, *keys, seconds)


def claim(store, task):
    """Begin a task as the worker does that its message is delivered to."""
    sent = store.sent_at("default", task.id)
    assert store.begin(task.id, "a worker", sent)[0] > 0


def test_dropped(sweeper, in_broker, drop, let_pass):
    """A message that the broker has lost is sent again, once, ten seconds after its last sending."""
    task = background(jobs.add, 1)

    found = []
    for _ in range(2):
        drop()
        for seconds in (0, 9, 1.1):
            let_pass(seconds)
            sweeper.look()
            found.append(in_broker())

    assert found == [0, 0, 1, 0, 0, 1]
    assert task.state == "queued"


def test_just_taken(sweeper, in_broker, drop, let_pass):
    """What a worker has taken a moment ago is not sent again with what was dropped long before."""
    background(jobs.add, 1)
    let_pass(11)
    background(jobs.add, 2)
    drop(2)

    sweeper.look()

    assert in_broker() == 1


def test_backlog(sweeper, in_broker, drop, let_pass):
    """Tasks that wait behind jobs of half a minute are no loss: each is sent once, and the broker holds no more."""
    for number in range(250):
        background(jobs.add, number)
    # The busy workers have some of them already, and begin nothing.
    drop(4)

    most = 0
    for _ in range(10):
        let_pass(3)
        sweeper.look()
        most = max(most, in_broker())

    assert most == 246


def test_dropped_from_a_backlog(store, sweeper, in_broker, drop, let_pass):
    """A message that was lost from a long queue is sent again when one is delivered that was sent ten seconds later."""
    lost = background(jobs.add, 1)
    drop()
    let_pass(9)
    early = background(jobs.add, 2)
    let_pass(1.1)
    late = background(jobs.add, 3)
    let_pass(11)
    background(jobs.add, 4)

    counts = []
    for task in (early, late):
        drop()
        claim(store, task)
        sweeper.look()
        counts.append(in_broker())

    assert counts == [2, 2]
    assert store.sent_at("default", lost.id) > store.sent_at("default", late.id)


def test_two_sweepers(ctx, hub, sweeper, in_broker, drop, let_pass):
    """Of two workers that look at the same time one sends what was dropped."""
    background(jobs.add, 1)
    other = Sweeper(hub, ctx.extensions["asok"].backend.worker, ["default"])
    drop()
    let_pass(11)

    other.look()
    sweeper.look()

    assert in_broker() == 1


def test_other_queues(ctx, sweeper, store, let_pass):
    """A worker brings back what was dropped from any queue, also one that it does not take itself."""
    task = background.using(queue="mail")(jobs.add, 1)
    mail = f"{ctx.name}.mail"
    store.redis.delete(mail)
    store.redis.zincrby(store.key("sent:mail"), -11, task.id)

    sweeper.look()

    assert store.redis.llen(mail) == 1


DYING = """
import os, signal
import jobs
from flask_asok import background

app = jobs.create_app()
app.extensions["asok"].backend.hub.publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
with app.app_context():
    background(jobs.add, 1)
"""


def test_caller_killed(ctx, config, store, sweeper, in_broker, let_pass):
    """A call whose process is killed when it is written down, and before it is sent, is sent by a worker."""
    path = os.pathsep.join(filter(None, [str(Path(jobs.__file__).parent), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": json.dumps({**config, "NAME": ctx.name})}

    done = subprocess.run([sys.executable, "-c", DYING], env=environ, capture_output=True, timeout=60)
    found = [in_broker()]
    for seconds in (0, 11):
        let_pass(seconds)
        sweeper.look()
        found.append(in_broker())

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert found == [0, 0, 1]
    assert [(record.name, record.state) for record in store.listed(10)] == [("add", "queued")]
