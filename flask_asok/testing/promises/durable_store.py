"""What a store promises of durable tasks, which outlive the process that accepted them."""

from __future__ import annotations

import pytest

from ...store.base import Store
from ...store.durable import DurableStore
from .store_fixtures import Clock, Make, WithStore, at_once, claimed, kept

GONE = "0" * 32
"""The token of a process that does not live."""


class DurableStorePromises(WithStore):
    """What a store promises whose processes go on with each other's tasks. Override `make_app`."""

    @pytest.fixture
    def durable(self, store: Store) -> DurableStore:
        """The store, as the processes see it that take over."""
        assert isinstance(store, DurableStore)
        return store

    def test_orphans(self, durable: DurableStore, make: Make, clock: Clock) -> None:
        """Found is what is due, has a message, is not settled, and is owned by no process that lives."""
        due, running = make(owner=GONE, message="a", due=5.0), make(owner=GONE, message="b", state="running", due=6.0)
        make(message="mine")
        make(owner=GONE)
        make(owner=GONE, message="other queue", queue="mail")
        make(owner=GONE, message="settled", state="failed", finished=1.0)
        later = make(owner=GONE, message="later", state="waiting", due=clock.time + 1)
        freed = make(owner="", message="c", due=7.0)

        found = durable.orphans("default", 10)

        assert {record.id for record in found} == {due.id, running.id, freed.id}
        assert {record.message for record in found} == {"a", "b", "c"}
        assert len(durable.orphans("default", 2)) == 2
        assert durable.orphans("cache", 2) == []
        clock.time += 1
        assert later.id in {record.id for record in durable.orphans("default", 10)}

    def test_the_first_due_comes_first(self, durable: DurableStore, make: Make) -> None:
        """Of the tasks of one process those come first that were due first."""
        for due in (3.0, 1.0, 2.0):
            make(owner=GONE, message="a", due=due)

        assert [record.due for record in durable.orphans("default", 2)] == [1.0, 2.0]

    def test_taken_over(self, durable: DurableStore, make: Make, me: str) -> None:
        """Who takes a task over owns it; it is queued, and no orphan any more."""
        make(owner=GONE, message="a", state="waiting", attempts=2, claim=2)
        (record,) = durable.orphans("default", 10)

        claim = durable.take_over(record, me)

        assert claim == 3
        found = kept(durable, record.id)
        assert (found.state, found.owner, found.claim, found.attempts, found.deaths) == ("queued", me, 3, 2, 0)
        assert durable.orphans("default", 10) == []
        assert durable.claim(record.id, me, claim) == 4

    def test_taken_over_once(self, durable: DurableStore, make: Make, me: str) -> None:
        """Of all that take a task over at the same moment one gets it."""
        make(owner=GONE, message="a")
        (record,) = durable.orphans("default", 10)

        got = at_once(lambda number: durable.take_over(record, me))

        assert sorted(got) == [0] * 7 + [1]

    def test_taken_over_while_running(self, durable: DurableStore, make: Make, me: str) -> None:
        """A death is counted, the attempt that was lost is not; what it would still write is refused."""
        record = make(message="a")
        lost = claimed(durable, record.id, GONE)

        claim = durable.take_over(lost, me)

        found = kept(durable, record.id)
        assert (found.state, found.attempts, found.deaths) == ("queued", 0, 1)
        assert not durable.settle(record.id, lost.claim, "succeeded")
        assert durable.claim(record.id, me, claim)
        assert kept(durable, record.id).attempts == 1

    @pytest.mark.parametrize("end", ["cancel", "settle"])
    def test_settled_meanwhile(self, durable: DurableStore, make: Make, me: str, end: str) -> None:
        """What was settled since it was looked at is not taken over."""
        make(owner=GONE, message="a")
        (record,) = durable.orphans("default", 10)
        assert durable.cancel(record.id) if end == "cancel" else durable.settle(record.id, 0, "failed")

        assert durable.take_over(record, me) == 0

    def test_handed_over(self, durable: DurableStore, make: Make, me: str) -> None:
        """What a process hands over is queued, without a death or an attempt, and refuses what is still written."""
        record = make(message="a")
        running = claimed(durable, record.id, me)

        handed = durable.hand_over(record.id, running.claim)

        found = kept(durable, record.id)
        assert handed
        assert (found.state, found.owner, found.attempts, found.deaths) == ("queued", me, 0, 0)
        assert not durable.hand_over(record.id, running.claim)
        assert not durable.settle(record.id, running.claim, "succeeded")
        assert durable.orphans("default", 10) == []

    def test_handed_over_and_asked_to_stop(self, durable: DurableStore, make: Make, me: str) -> None:
        """What was asked to stop still is when its process hands it over, and no more when it is retried by hand."""
        record = make(message="a")
        running = claimed(durable, record.id, me)
        durable.stop(record.id)

        durable.hand_over(record.id, running.claim)

        handed = kept(durable, record.id)
        durable.settle(record.id, handed.claim, "failed")
        again = durable.retry(record.id)
        assert handed.stopping
        assert again is not None
        assert not again.stopping

    def test_claim_after(self, durable: DurableStore, make: Make, me: str) -> None:
        """A process that was taken for dead begins nothing that another one has taken over."""
        record = make(owner=GONE, message="a")
        durable.take_over(record, me)

        assert durable.claim(record.id, GONE, record.claim) == 0

    def test_message_comes_with_the_release(self, durable: DurableStore, make: Make, clock: Clock) -> None:
        """A deferred task is durable from the moment at which it is released."""
        record = make(owner=GONE, state="waiting", due=0.0)
        before = durable.orphans("default", 10)

        durable.release(record.id, clock.time, "", "signed")

        assert before == []
        assert [found.message for found in durable.orphans("default", 10)] == ["signed"]

    def test_probe(self, durable: DurableStore) -> None:
        """The first probe is kept, and replaced only by a process that knows it."""
        assert durable.probe("first") == "first"
        assert durable.probe("second") == "first"
        assert durable.probe("third", replaces="second") == "first"
        assert durable.probe("fourth", replaces="first") == "fourth"
