"""What every store promises of its keys, lists, processes and ticks."""

from __future__ import annotations

import dataclasses
import os

import pytest

from ...store.base import COMMAND, KEEP_SECONDS, Store, Tick
from .store_fixtures import Clock, Make, WithStore, at_once, claimed, kept


class KeyPromises(WithStore):
    """A part of StorePromises."""

    def test_unique(self, store: Store, make: Make, me: str) -> None:
        """While a task with a key lives another one with it is not kept, and its id is told."""
        first = make(key="export")
        second = dataclasses.replace(first, id="2" * 32)

        assert store.add(second) == first.id
        assert store.read(second.id) is None
        claim = claimed(store, first.id, me).claim
        assert store.add(second) == first.id
        store.settle(first.id, claim, "failed")
        assert store.add(second) == second.id

    @pytest.mark.parametrize("end", ["cancel", "free"])
    def test_key_is_free(self, store: Store, make: Make, end: str) -> None:
        """A key is free once its task is cancelled, or gives it back."""
        first = make(key="export")

        getattr(store, end)(first.id)

        assert make(key="export").id != first.id

    def test_release(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """A deferred record takes its key when it is released, if it is free, and waits for its delay then."""
        first, second, third = (make(state="waiting", due=0.0) for _ in range(3))

        released = store.release(first.id, clock.time, "export")
        refused = store.release(second.id, clock.time, "export")
        delayed = store.release(third.id, clock.time + 60)

        assert (released, refused, delayed) == (first.id, first.id, third.id)
        assert [kept(store, one.id).state for one in (first, second, third)] == ["queued", "waiting", "waiting"]
        assert kept(store, third.id).due == clock.time + 60
        store.cancel(second.id)
        assert store.release(second.id, clock.time) == ""
        assert store.release("0" * 32, clock.time) == ""

    def test_key_of_a_dead_process(self, store: Store, make: Make) -> None:
        """A key whose owner has ended is free, unless its task is durable; the lost task is told as abandoned."""
        lost = make(key="export", owner="0" * 32)
        durable = make(key="import", owner="0" * 32, message="signed")

        other = make(key="export")

        assert kept(store, lost.id).state == "abandoned"
        assert store.add(dataclasses.replace(other, id="3" * 32, key="import")) == durable.id

    def test_retry_takes_the_key_again(self, store: Store, make: Make, me: str) -> None:
        """A failed task that is retried has its key again; it is not retried while another task has it."""
        failed = make(key="export", message="signed")
        store.settle(failed.id, claimed(store, failed.id, me).claim, "failed")
        other = make(key="export")

        refused = store.retry(failed.id)
        after_refusal = kept(store, failed.id)
        store.cancel(other.id)
        again = store.retry(failed.id)

        assert refused is None
        assert (after_refusal.state, after_refusal.key) == ("failed", "")
        assert again is not None
        assert (again.state, again.key) == ("queued", "export")
        assert store.add(dataclasses.replace(other, id="4" * 32)) == failed.id

    def test_retry_beside_a_dead_process(self, store: Store, make: Make, me: str) -> None:
        """A key that only a task of a process that has ended holds is free for the retry, which was deferred."""
        failed = make(state="waiting", due=0.0)
        store.release(failed.id, 1.0, "export", "signed")
        store.settle(failed.id, claimed(store, failed.id, me).claim, "failed")
        lost = make(key="export", owner="0" * 32)

        again = store.retry(failed.id)

        assert again is not None
        assert again.key == "export"
        assert kept(store, lost.id).state == "abandoned"

    def test_key_taken_once(self, store: Store, make: Make) -> None:
        """Of many that take a key at the same moment one gets it, and all the others learn whose it is."""
        record = make()

        got = at_once(lambda number: store.add(dataclasses.replace(record, id=str(number) * 32, key="export")))

        assert len(got) == 8
        assert len(set(got)) == 1

    def test_newest(self, store: Store, make: Make) -> None:
        """The newest records that match come, the oldest of them first."""
        pairs = [(name, queue) for name in ("a", "b") for queue in ("mail", "default")]
        ids = [make(name=name, queue=queue, enqueued=float(n)).id for n, (name, queue) in enumerate(pairs)]
        store.cancel(ids[0])

        assert [record.id for record in store.newest(10)] == ids
        assert [record.id for record in store.newest(2)] == ids[2:]
        assert [record.id for record in store.newest(10, name="a")] == ids[:2]
        assert [record.id for record in store.newest(10, queue="mail", state="cancelled")] == ids[:1]
        assert store.newest(0) == []

    def test_expire(self, store: Store, make: Make, me: str, clock: Clock) -> None:
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

    def test_discard(self, store: Store, make: Make) -> None:
        """A settled record can be forgotten, another one cannot."""
        record = make()
        early = store.discard(record.id)
        store.cancel(record.id)

        assert (early, store.discard(record.id)) == (False, True)
        assert store.read(record.id) is None

    def test_queues(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """The queues tell how much waits in them, how much runs, and since when the oldest one is due."""
        make(due=clock.time - 5)
        make(due=clock.time - 9)
        make(state="waiting", due=clock.time + 60, queue="mail")
        store.claim(make(queue="mail").id, me)
        store.cancel(make(queue="cache").id)

        default, mail = store.queues()

        assert (default.name, default.queued, default.running, default.oldest_due_at) == (
            "default",
            2,
            0,
            clock.time - 9,
        )
        assert (mail.name, mail.queued, mail.running, mail.waiting, mail.oldest_due_at) == ("mail", 0, 1, 1, None)

    def test_processes(self, store: Store, me: str) -> None:
        """A process that serves or works is seen, with its queues, until it closes the store; a command never is."""
        before = store.processes()

        store.enter("web", ["default", "mail"])
        (web,) = store.processes()
        store.enter("worker", ["mail"])
        (worker,) = store.processes()
        store.enter(COMMAND, [])

        assert (before, store.processes()) == ([], [])
        assert (web.token, web.pid, web.kind, web.queues) == (me, os.getpid(), "web", ("default", "mail"))
        assert (worker.token, worker.kind, worker.queues) == (me, "worker", ("mail",))
        assert store.is_alive(me)
        assert not store.is_alive("0" * 32)
        assert not store.is_alive("")
        store.close()
        assert not store.is_alive(me)

    def test_ticks(self, store: Store) -> None:
        """Each tick is given once, and none that is older than the latest."""
        taken = [store.take_tick("nightly", at, f"task {at:g}") for at in (10.0, 10.0, 5.0, 20.0)]

        assert taken == [True, False, False, True]
        assert store.tick("nightly") == Tick(20.0, "task 20")
        assert store.tick("other") is None
        assert store.take_tick("other", 1.0, "")

    def test_replaced_ticks(self, store: Store) -> None:
        """A tick is replaced by one that knows it, the first one by one that knows of none."""
        first, second, third = Tick(10.5, ""), Tick(20.0, "a"), Tick(10.0, "b")

        replaced = [
            store.replace_tick("nightly", old, new)
            for old, new in (
                (first, second),
                (None, first),
                (None, second),
                (Tick(10.5, "a"), second),
                (first, second),
                (first, third),
                (second, third),
            )
        ]

        assert replaced == [False, True, False, False, True, False, True]
        assert store.tick("nightly") == third
        assert not store.take_tick("nightly", 10.0, "c")
        assert store.take_tick("nightly", 20.0, "d")

    def test_listed(self, store: Store, make: Make) -> None:
        """However much was lost with its process, it is abandoned in a list, whatever state the list is of."""
        ended = store.me
        store.close()
        me = store.enter("web", [])
        mine = make(owner=me, state="running", enqueued=1.0)
        durable = make(owner=ended, state="running", message="signed", enqueued=2.0)
        for state in ("queued", "running", "waiting") * 4:
            make(owner=ended, state=state)

        running, abandoned = store.listed(3, state="running"), store.listed(100, state="abandoned")

        assert [record.id for record in running] == [mine.id, durable.id]
        assert [record.error for record in abandoned] == ["its process ended before it finished"] * 12
        assert {record.state for record in store.listed(10)} == {"abandoned"}

    def test_lost_tasks_are_in_no_queue(self, store: Store, make: Make) -> None:
        """What was lost with its process is not counted."""
        ended = store.me
        make(state="running")
        store.close()
        make(owner=store.enter("web", []))
        make(owner=ended)

        (queue,) = store.queues()

        assert (queue.queued, queue.running) == (1, 0)

    def test_tidy(self, store: Store, make: Make, clock: Clock) -> None:
        """Old records go at the first call of a process, and at every hundredth after it."""
        for _ in range(2):
            store.cancel(make().id)
            clock.time += 2 * KEEP_SECONDS
            before = len(store.newest(10))
            for _ in range(100):
                store.tidy()
            assert (before, len(store.newest(10))) == (1, 0)
