"""What every store promises of lists: pages, filters, and what ended lately."""

from __future__ import annotations

import pytest

from ...store.base import Store
from ...store.pages import Ended, Mark, Wanted
from .store_fixtures import Clock, Make, WithStore, claimed


class PagePromises(WithStore):
    """A part of `StorePromises`."""

    def test_pages(self, store: Store, make: Make) -> None:
        """Page by page each record comes once, the newest first, those of one moment too."""
        made = [make(enqueued=float(n // 4)) for n in range(10)]
        expected = [record.id for record in sorted(made, key=Mark.of, reverse=True)]

        first = store.page(3)
        pages = [first]
        while pages[-1].rest is not None:
            pages.append(store.page(3, before=pages[-1].rest))

        assert [[record.id for record in page.records] for page in pages] == [
            expected[:3], expected[3:6], expected[6:9], expected[9:]
        ]  # fmt: skip

    def test_exact_page(self, store: Store, make: Make) -> None:
        """A page that holds all that is left has no rest, and a page of nothing is empty."""
        record = make()

        assert store.page(1).records == [record]
        assert store.page(1).rest is None
        assert store.page(10, before=Mark.of(record)).records == []
        assert store.page(0).records == []

    def test_a_page_stays_where_it_is(self, store: Store, make: Make) -> None:
        """What is new, and what is discarded, moves no record into another page."""
        made = [make(enqueued=float(n), state="failed", finished=1.0) for n in range(4)]
        rest = store.page(2).rest
        make(enqueued=9.0)
        store.discard(made[2].id)

        assert [record.id for record in store.page(9, before=rest).records] == [made[1].id, made[0].id]

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Wanted(state="failed"), [2, 1]),
            (Wanted(name="mail"), [3, 1]),
            (Wanted(queue="slow"), [3, 2]),
            (Wanted(error="connection refused"), [2, 1]),
            (Wanted(error="%"), [1]),
            (Wanted(name="mail", state="failed"), [1]),
            (Wanted(name="mail", error="nothing"), []),
        ],
        ids=["state", "name", "queue", "error", "sign", "two", "none"],
    )
    def test_filters(self, store: Store, make: Make, wanted: Wanted, expected: list[int]) -> None:
        """State, name and queue are compared as they are, of the text of the error a part, small letters or large."""
        made = [
            make(enqueued=0.0),
            make(enqueued=1.0, name="mail", state="failed", finished=1.0, error="Connection Refused: 5 %"),
            make(enqueued=2.0, queue="slow", state="failed", finished=1.0, error="CONNECTION REFUSED"),
            make(enqueued=3.0, name="mail", queue="slow"),
        ]

        page = store.page(10, wanted)

        assert page.records == [made[n] for n in expected]
        assert page.rest is None

    def test_ended(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """What was settled after a moment comes, the latest end first, and no more than is asked for."""
        for n in range(4):
            record = make(name=f"task {n}", queue="slow")
            clock.time += 1
            store.settle(record.id, claimed(store, record.id, me).claim, "failed" if n % 2 else "succeeded")
        make(name="queued")

        found = store.ended(1_000_001.0, 10)

        assert found == [
            Ended("task 3", "slow", "failed", 1_000_004.0, 1_000_004.0),
            Ended("task 2", "slow", "succeeded", 1_000_003.0, 1_000_003.0),
            Ended("task 1", "slow", "failed", 1_000_002.0, 1_000_002.0),
        ]
        assert store.ended(0.0, 1) == found[:1]

    def test_count_ended(self, store: Store, make: Make, me: str, clock: Clock) -> None:
        """What was settled after a moment is counted by state, and by the periods from then on."""
        for seconds, state in [
            (1.0, "failed"),
            (59.5, "failed"),
            (0.5, "succeeded"),
            (1.5, "failed"),
            (60.0, "failed"),
        ]:
            record = make()
            clock.time += seconds
            store.settle(record.id, claimed(store, record.id, me).claim, state)  # type: ignore[arg-type]
        make(name="queued")

        found = store.count_ended(1_000_001.0, 60.0)

        assert found.since == 1_000_001.0
        assert sorted((one.state, one.period, one.count) for one in found.counts) == [
            ("failed", 0, 1), ("failed", 1, 1), ("failed", 2, 1), ("succeeded", 1, 1)
        ]  # fmt: skip
