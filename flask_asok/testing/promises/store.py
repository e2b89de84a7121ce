"""What every store promises of the records of tasks."""

from __future__ import annotations

import pytest

from ...progress import Progress
from ...store.base import Store
from .keys import KeyPromises
from .pages import PagePromises
from .store_fixtures import Clock, Make, at_once, claimed, kept, seen


class StorePromises(PagePromises, KeyPromises):
    """What every store promises. Override `make_app`; the store is the one that `ASOK_STORE` of the app opens."""

    def test_read(self, store: Store, make: Make) -> None:
        """A record comes back as it was added."""
        record = make(
            function="shop.tasks:work", origin="POST create", state="waiting", due=5.5, message="signed",
            progress=Progress(1, 2, "one", 3.0), error="no", traceback="line", key="a", outcome="signed, too",
        )  # fmt: skip

        assert store.read(record.id) == record

    def test_unknown(self, store: Store) -> None:
        """An unknown id is None or False, and never an error."""
        assert store.read("0" * 32) is None
        assert store.get("0" * 32) is None
        assert not store.claim("0" * 32, "me")
        assert not store.cancel("0" * 32)
        assert not store.stop("0" * 32)
        assert not store.discard("0" * 32)
        assert store.retry("0" * 32) is None
        assert not store.settle("0" * 32, 0, "succeeded")

    def test_a_record_is_a_snapshot(self, store: Store, make: Make) -> None:
        """Changing a record changes nothing in the store."""
        record = make()
        record.name = "other"
        kept(store, record.id).name = "other"

        assert kept(store, record.id).name == "work"

    def test_whole_life(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """Queued, running, waiting, running and settled: each step is seen, with its time, attempt and error."""
        record = make()
        first = claimed(store, record.id, me)
        clock.time += 1
        store.postpone(
            record.id, first.claim, clock.time + 60, attempts=1, error="ConnectionError()", traceback="Traceback ..."
        )
        waiting = kept(store, record.id)
        clock.time += 60
        second = claimed(store, record.id, me)
        clock.time += 2

        settled = store.settle(record.id, second.claim, "succeeded", outcome="signed")

        assert (first.state, first.attempts, first.started) == ("running", 1, 1_000_000.0)
        assert (waiting.state, waiting.due, waiting.error) == ("waiting", 1_000_061.0, "ConnectionError()")
        assert (second.attempts, second.started, second.claim) == (2, 1_000_061.0, first.claim + 1)
        last = kept(store, record.id)
        assert settled
        assert (last.state, last.finished, last.outcome, last.error) == ("succeeded", 1_000_063.0, "signed", "")

    def test_claimed_once(self, store: Store, make: Make, me: str) -> None:
        """Of all that claim a task at the same moment one gets it."""
        record = make()

        got = at_once(lambda number: store.claim(record.id, me))

        assert len(got) == 8
        assert sorted(got) == [0] * 7 + [1]

    def test_fence(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """What an attempt still writes after the next one has begun is refused, whatever it writes."""
        record = make()
        old = claimed(store, record.id, me).claim
        store.postpone(record.id, old, clock.time, attempts=1)
        new = claimed(store, record.id, me).claim

        written = [
            store.report(record.id, old, Progress(1, 1, None, 1.0)),
            store.postpone(record.id, old, clock.time, attempts=1),
            store.settle(record.id, old, "failed"),
        ]

        assert written == [False, False, False]
        last = kept(store, record.id)
        assert (last.state, last.claim, last.progress) == ("running", new, None)

    def test_settled_once(self, store: Store, make: Make, me: str) -> None:
        """A settled task stays as it is."""
        record = make()
        claim = claimed(store, record.id, me).claim
        store.settle(record.id, claim, "failed", error="first")

        again = store.settle(record.id, claim, "succeeded")

        assert not again
        assert (kept(store, record.id).state, kept(store, record.id).error) == ("failed", "first")
        assert not store.cancel(record.id)
        assert not store.claim(record.id, me)

    @pytest.mark.parametrize("state", ["queued", "waiting"])
    def test_cancel(self, store: Store, make: Make, me: str, state: str) -> None:
        """A cancelled task is never claimed."""
        record = make(state=state)

        assert store.cancel(record.id)
        assert not store.cancel(record.id)
        assert not store.claim(record.id, me)
        assert kept(store, record.id).state == "cancelled"

    def test_stop(self, store: Store, make: Make, me: str) -> None:
        """Only a running attempt is asked to stop; it hears of it with its next report, a later attempt does not."""
        record = make()
        early = store.stop(record.id)
        claim = claimed(store, record.id, me).claim
        before = store.report(record.id, claim, Progress(1, 3, None, 1.0))

        asked = store.stop(record.id)

        assert (early, before, asked) == (False, False, True)
        assert store.report(record.id, claim, Progress(2, 3, None, 2.0))
        assert kept(store, record.id).stopping
        store.postpone(record.id, claim, 0.0, attempts=1)
        claim = claimed(store, record.id, me).claim
        assert not store.report(record.id, claim, Progress(1, 3, None, 3.0))

    def test_progress(self, store: Store, make: Make, me: str) -> None:
        """The latest progress is kept when the task is settled, and gone when an attempt begins."""
        record = make()
        claim = claimed(store, record.id, me).claim
        store.report(record.id, claim, Progress(1, 4, "one", 1.0))
        store.postpone(record.id, claim, 0.0, attempts=1)
        claim = claimed(store, record.id, me).claim
        anew = kept(store, record.id).progress
        store.report(record.id, claim, Progress(4, 4, "four", 2.0))

        store.settle(record.id, claim, "succeeded")

        assert anew is None
        assert kept(store, record.id).progress == Progress(4, 4, "four", 2.0)

    def test_attempts_that_count(self, store: Store, make: Make, me: str) -> None:
        """An attempt that could not be made is not counted."""
        record = make()
        claim = claimed(store, record.id, me).claim

        store.postpone(record.id, claim, 0.0, attempts=0)

        assert kept(store, record.id).attempts == 0
        assert claimed(store, record.id, me).attempts == 1

    def test_history(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """Attempts that another one has followed are remembered, with times and errors; a retry forgets them."""
        record = make(message="signed")
        for attempt, error in ((1, "OSError('\\n')"), (2, 'É "' + "\N{GRINNING FACE}")):
            claim = claimed(store, record.id, me).claim
            clock.time += attempt
            store.postpone(record.id, claim, clock.time, attempts=attempt, error=error)
        claim = claimed(store, record.id, me).claim
        store.settle(record.id, claim, "failed", error="last")

        past = kept(store, record.id).past_attempts

        assert [(one.started, one.finished, one.error) for one in past] == [
            (1_000_000.0, 1_000_001.0, "OSError('\\n')"),
            (1_000_001.0, 1_000_003.0, 'É "' + "\N{GRINNING FACE}"),
        ]
        store.retry(record.id)
        assert kept(store, record.id).past_attempts == []

    def test_long_history(self, store: Store, make: Make, me: str) -> None:
        """Of many attempts the latest are remembered."""
        record = make()
        for attempt in range(1, 41):
            claim = claimed(store, record.id, me).claim
            store.postpone(record.id, claim, 0.0, attempts=attempt, error=f"É{attempt} " + "É" * 100)

        past = kept(store, record.id)

        errors = [one.error.split()[0] for one in past.past_attempts]
        assert errors == [f"É{number}" for number in range(41 - len(errors), 41)]
        assert len(errors) >= 5
        assert len(past.history) <= 4_000

    def test_abandoned_with_its_process(self, store: Store, make: Make) -> None:
        """What was lost with its process is abandoned when it is asked for; what is durable waits for another one."""
        lost = make(owner="0" * 32, state="running", claim=1)
        durable = make(owner="0" * 32, state="running", claim=1, message="signed")
        mine = make(state="running", claim=1)

        assert (seen(store, lost.id).state, kept(store, lost.id).error) == (
            "abandoned",
            "its process ended before it finished",
        )
        assert seen(store, durable.id).state == "running"
        assert seen(store, mine.id).state == "running"

    def test_message(self, store: Store, make: Make, me: str) -> None:
        """A message stays until its task has succeeded or is cancelled; a failed task can be retried with it."""
        done, cancelled, failed, plain = make(message="a"), make(message="b"), make(message="c"), make()
        store.settle(done.id, claimed(store, done.id, me).claim, "succeeded")
        store.cancel(cancelled.id)
        claim = claimed(store, failed.id, me).claim
        store.settle(failed.id, claim, "failed", error="no", traceback="line", outcome="signed")
        store.settle(plain.id, claimed(store, plain.id, me).claim, "failed")

        again = store.retry(failed.id)

        assert again is not None

        assert kept(store, done.id).message is None
        assert kept(store, cancelled.id).message is None
        assert (again.state, again.attempts, again.message, again.error, again.outcome) == ("queued", 0, "c", "", None)
        assert not store.settle(failed.id, claim, "failed")
        assert store.retry(done.id) is None
        assert store.retry(cancelled.id) is None
        assert store.retry(plain.id) is None

    def test_long_traceback(self, store: Store, make: Make, me: str) -> None:
        """Of a long traceback the end is kept."""
        record = make()

        store.settle(record.id, claimed(store, record.id, me).claim, "failed", traceback="x" * 20_000 + "the error")

        traceback = kept(store, record.id).traceback
        assert len(traceback) == 8_000
        assert traceback.endswith("the error")
