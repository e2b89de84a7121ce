"""What every store promises: in memory, in a file."""

import dataclasses
import os
import secrets
import threading

import pytest
import redis

from flask_asok.progress import Progress
from flask_asok.store.base import KEEP_SECONDS, Record
from flask_asok.store.memory import MemoryStore
from flask_asok.store.redis import RedisStore
from flask_asok.store.sqlite import SQLiteStore


class Clock:
    def __init__(self):
        self.time = 1_000_000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path, clock):
    """A store of each kind in turn, whose clock the test moves."""
    if request.param == "memory":
        store = MemoryStore(now=clock)
    elif request.param == "redis":
        client = redis.Redis(port=request.getfixturevalue("redis_port"), decode_responses=True)
        client.flushall()
        store = RedisStore(client, "shop", now=clock)
    else:
        store = SQLiteStore(str(tmp_path / "asok.sqlite3"), "shop", now=clock)
    yield store
    store.close()


@pytest.fixture
def me(store):
    """The token of this process."""
    return store.enter("web", ["default", "mail"])


@pytest.fixture
def make(store, me, clock):
    """Add a record, which this process owns, and return it."""

    def make(**fields):
        values = {"id": secrets.token_hex(16), "name": "work", "queue": "default", "owner": me}
        record = Record(**{**values, "enqueued": clock.time, "due": clock.time, **fields})
        assert store.add(record) == record.id
        return record

    return make


def test_read(store, make):
    """A record comes back as it was added."""
    record = make(
        function="shop.tasks:work", origin="POST create", state="waiting", due=5.5, message="signed",
        progress=Progress(1, 2, "one", 3.0), error="no", traceback="line", key="a", outcome="signed, too",
    )  # fmt: skip

    assert store.read(record.id) == record


def test_unknown(store):
    """An unknown id is None or False, and never an error."""
    assert store.read("0" * 32) is None
    assert store.get("0" * 32) is None
    assert store.claim("0" * 32, "me") is None
    assert not store.cancel("0" * 32)
    assert not store.stop("0" * 32)
    assert not store.discard("0" * 32)
    assert store.retry("0" * 32) is None
    assert not store.settle("0" * 32, 0, "succeeded")


def test_a_record_is_a_snapshot(store, make):
    """Changing a record changes nothing in the store."""
    record = make()
    record.name = "other"
    store.read(record.id).name = "other"

    assert store.read(record.id).name == "work"


def test_whole_life(store, make, me, clock):
    """Queued, running, waiting, running and settled: each step is seen, with its time, attempt and error."""
    record = make()
    first = store.claim(record.id, me)
    clock.time += 1
    store.postpone(
        record.id, first.claim, clock.time + 60, attempts=1, error="ConnectionError()", traceback="Traceback ..."
    )
    waiting = store.read(record.id)
    clock.time += 60
    second = store.claim(record.id, me)
    clock.time += 2

    settled = store.settle(record.id, second.claim, "succeeded", outcome="signed")

    assert (first.state, first.attempts, first.started) == ("running", 1, 1_000_000.0)
    assert (waiting.state, waiting.due, waiting.error) == ("waiting", 1_000_061.0, "ConnectionError()")
    assert (second.attempts, second.started, second.claim) == (2, 1_000_061.0, first.claim + 1)
    last = store.read(record.id)
    assert settled
    assert (last.state, last.finished, last.outcome, last.error) == ("succeeded", 1_000_063.0, "signed", "")


def test_claimed_once(store, make, me):
    """Of all that claim a task at the same moment one gets it."""
    record = make()
    barrier = threading.Barrier(8)
    got = []

    def claim():
        barrier.wait(10)
        got.append(store.claim(record.id, me))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(got) == 8
    assert [found.claim for found in got if found] == [1]


def test_fence(store, make, me, clock):
    """What an attempt still writes after the next one has begun is refused, whatever it writes."""
    record = make()
    old = store.claim(record.id, me).claim
    store.postpone(record.id, old, clock.time, attempts=1)
    new = store.claim(record.id, me).claim

    written = [
        store.report(record.id, old, Progress(1, 1, None, 1.0)),
        store.postpone(record.id, old, clock.time, attempts=1),
        store.settle(record.id, old, "failed"),
    ]

    assert written == [False, False, False]
    last = store.read(record.id)
    assert (last.state, last.claim, last.progress) == ("running", new, None)


def test_settled_once(store, make, me):
    """A settled task stays as it is."""
    record = make()
    claim = store.claim(record.id, me).claim
    store.settle(record.id, claim, "failed", error="first")

    again = store.settle(record.id, claim, "succeeded")

    assert not again
    assert (store.read(record.id).state, store.read(record.id).error) == ("failed", "first")
    assert not store.cancel(record.id)
    assert store.claim(record.id, me) is None


@pytest.mark.parametrize("state", ["queued", "waiting"])
def test_cancel(store, make, me, state):
    """A cancelled task is never claimed."""
    record = make(state=state)

    assert store.cancel(record.id)
    assert not store.cancel(record.id)
    assert store.claim(record.id, me) is None
    assert store.read(record.id).state == "cancelled"


def test_stop(store, make, me):
    """Only a running attempt is asked to stop; it hears of it with its next report, and a later attempt does not."""
    record = make()
    early = store.stop(record.id)
    claim = store.claim(record.id, me).claim
    before = store.report(record.id, claim, Progress(1, 3, None, 1.0))

    asked = store.stop(record.id)

    assert (early, before, asked) == (False, False, True)
    assert store.report(record.id, claim, Progress(2, 3, None, 2.0))
    assert store.read(record.id).stopping
    store.postpone(record.id, claim, 0.0, attempts=1)
    claim = store.claim(record.id, me).claim
    assert not store.report(record.id, claim, Progress(1, 3, None, 3.0))


def test_progress(store, make, me):
    """The latest progress is kept when the task is settled, and gone when an attempt begins."""
    record = make()
    claim = store.claim(record.id, me).claim
    store.report(record.id, claim, Progress(1, 4, "one", 1.0))
    store.postpone(record.id, claim, 0.0, attempts=1)
    claim = store.claim(record.id, me).claim
    anew = store.read(record.id).progress
    store.report(record.id, claim, Progress(4, 4, "four", 2.0))

    store.settle(record.id, claim, "succeeded")

    assert anew is None
    assert store.read(record.id).progress == Progress(4, 4, "four", 2.0)


def test_unique(store, make, me):
    """While a task with a key lives another one with it is not kept, and its id is told."""
    first = make(key="export")
    second = dataclasses.replace(first, id="2" * 32)

    assert store.add(second) == first.id
    assert store.read(second.id) is None
    claim = store.claim(first.id, me).claim
    assert store.add(second) == first.id
    store.settle(first.id, claim, "failed")
    assert store.add(second) == second.id


@pytest.mark.parametrize("end", ["cancel", "free"])
def test_key_is_free(store, make, end):
    """A key is free once its task is cancelled, or gives it back."""
    first = make(key="export")

    getattr(store, end)(first.id)

    assert make(key="export").id != first.id


def test_release(store, make, me, clock):
    """A deferred record takes its key when it is released, if it is free, and waits for its delay then."""
    first, second, third = (make(state="waiting", due=0.0) for _ in range(3))

    released = store.release(first.id, clock.time, "export")
    refused = store.release(second.id, clock.time, "export")
    delayed = store.release(third.id, clock.time + 60)

    assert (released, refused, delayed) == (first.id, first.id, third.id)
    assert [store.read(one.id).state for one in (first, second, third)] == ["queued", "waiting", "waiting"]
    assert store.read(third.id).due == clock.time + 60
    store.cancel(second.id)
    assert store.release(second.id, clock.time) == ""
    assert store.release("0" * 32, clock.time) == ""


def test_attempts_that_count(store, make, me):
    """An attempt that could not be made is not counted."""
    record = make()
    claim = store.claim(record.id, me).claim

    store.postpone(record.id, claim, 0.0, attempts=0)

    assert store.read(record.id).attempts == 0
    assert store.claim(record.id, me).attempts == 1


def test_key_of_a_dead_process(store, make):
    """A key whose owner has ended is free, unless its task is durable; the lost task is told as abandoned."""
    lost = make(key="export", owner="0" * 32)
    durable = make(key="import", owner="0" * 32, message="signed")

    other = make(key="export")

    assert store.read(lost.id).state == "abandoned"
    assert store.add(dataclasses.replace(other, id="3" * 32, key="import")) == durable.id


def test_key_taken_once(store, make):
    """Of many that take a key at the same moment one gets it, and all the others learn whose it is."""
    record = make()
    barrier = threading.Barrier(8)
    got = []

    def add(number):
        barrier.wait(10)
        got.append(store.add(dataclasses.replace(record, id=str(number) * 32, key="export")))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(got) == 8
    assert len(set(got)) == 1


def test_abandoned_with_its_process(store, make):
    """What was lost with its process is abandoned when it is asked for; what is durable waits for another process."""
    lost = make(owner="0" * 32, state="running", claim=1)
    durable = make(owner="0" * 32, state="running", claim=1, message="signed")
    mine = make(state="running", claim=1)

    assert (store.get(lost.id).state, store.read(lost.id).error) == (
        "abandoned",
        "its process ended before it finished",
    )
    assert store.get(durable.id).state == "running"
    assert store.get(mine.id).state == "running"


def test_message(store, make, me):
    """A message stays until its task has succeeded or is cancelled; a failed task can be retried with it."""
    done, cancelled, failed, plain = make(message="a"), make(message="b"), make(message="c"), make()
    store.settle(done.id, store.claim(done.id, me).claim, "succeeded")
    store.cancel(cancelled.id)
    claim = store.claim(failed.id, me).claim
    store.settle(failed.id, claim, "failed", error="no", traceback="line", outcome="signed")
    store.settle(plain.id, store.claim(plain.id, me).claim, "failed")

    again = store.retry(failed.id)

    assert store.read(done.id).message is None
    assert store.read(cancelled.id).message is None
    assert (again.state, again.attempts, again.message, again.error, again.outcome) == ("queued", 0, "c", "", None)
    assert not store.settle(failed.id, claim, "failed")
    assert store.retry(done.id) is None
    assert store.retry(cancelled.id) is None
    assert store.retry(plain.id) is None


def test_newest(store, make):
    """The newest records that match come, the oldest of them first."""
    ids = [make(name=name, queue=queue).id for name in ("a", "b") for queue in ("mail", "default")]
    store.cancel(ids[0])

    assert [record.id for record in store.newest(10)] == ids
    assert [record.id for record in store.newest(2)] == ids[2:]
    assert [record.id for record in store.newest(10, name="a")] == ids[:2]
    assert [record.id for record in store.newest(10, queue="mail", state="cancelled")] == ids[:1]
    assert store.newest(0) == []


def test_expire(store, make, me, clock):
    """Settled records go after a day, a few at a time; what is not settled stays for ever."""
    settled = [make() for _ in range(3)]
    for record in settled:
        store.cancel(record.id)
    open_ = make()
    clock.time += KEEP_SECONDS
    early = store.expire()
    clock.time += KEEP_SECONDS

    assert early == 0
    assert store.expire(2) == 2
    assert store.expire() == 1
    assert [record.id for record in store.newest(10)] == [open_.id]


def test_discard(store, make):
    """A settled record can be forgotten, another one cannot."""
    record = make()
    early = store.discard(record.id)
    store.cancel(record.id)

    assert (early, store.discard(record.id)) == (False, True)
    assert store.read(record.id) is None


def test_queues(store, make, me, clock):
    """The queues tell how much waits in them, how much runs, and since when the oldest one is due."""
    make(due=clock.time - 5)
    make(due=clock.time - 9)
    make(state="waiting", due=clock.time + 60, queue="mail")
    store.claim(make(queue="mail").id, me)
    store.cancel(make(queue="cache").id)

    default, mail = store.queues()

    assert (default.name, default.queued, default.running, default.oldest_due_at) == ("default", 2, 0, clock.time - 9)
    assert (mail.name, mail.queued, mail.running, mail.waiting, mail.oldest_due_at) == ("mail", 0, 1, 1, None)


def test_processes(store, me):
    """A process that shares the store is seen, with its queues, until it closes it."""
    (process,) = store.processes()

    assert (process.token, process.pid, process.kind, process.queues) == (me, os.getpid(), "web", ("default", "mail"))
    assert store.is_alive(me)
    assert not store.is_alive("0" * 32)
    assert not store.is_alive("")
    store.close()
    assert not store.is_alive(me)


def test_ticks(store):
    """Each tick is given once, and none that is older than the latest."""
    taken = [store.take_tick("nightly", at, f"task {at:g}") for at in (10.0, 10.0, 5.0, 20.0)]

    assert taken == [True, False, False, True]
    assert (store.tick("nightly").at, store.tick("nightly").task_id) == (20.0, "task 20")
    assert store.tick("other") is None
    assert store.take_tick("other", 1.0, "")


def test_long_traceback(store, make, me):
    """Of a long traceback the end is kept."""
    record = make()

    store.settle(record.id, store.claim(record.id, me).claim, "failed", traceback="x" * 20_000 + "the error")

    kept = store.read(record.id).traceback
    assert len(kept) == 8_000
    assert kept.endswith("the error")
