"""How many deliveries go to one host at once, and when the next ones look again."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flask_asok.recipes.webhooks.host_limits import LONGEST_LINE, MOST_HOSTS, HostLimits, Pool

TIMEOUT = 10


def test_slots_come_free() -> None:
    """A slot given back goes to whoever waits for it."""
    limits = HostLimits(1)
    assert limits.enter("a", 0) is None
    entered = threading.Event()

    def wait() -> None:
        if limits.enter("a", TIMEOUT) is None:
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    limits.leave("a", 0, True)

    assert entered.wait(TIMEOUT)
    thread.join(TIMEOUT)


def test_hosts_are_apart() -> None:
    """The slots of one host are no other's."""
    limits = HostLimits(1)

    assert limits.enter("a", 0) is None
    assert limits.enter("b", 0) is None
    assert limits.enter("a", 0) is not None


class Clock:
    """A time that goes on when it is told to; nobody waits for it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Impatient(threading.Condition):
    """What nobody may wait for."""

    def wait(self, timeout: float | None = None) -> bool:
        pytest.fail(f"waits {timeout} s")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the slots, in which a wait for one fails the test."""
    clock = Clock()
    monkeypatch.setattr("flask_asok.recipes.webhooks.host_limits.time", clock)
    # Of the slots alone: threads of others wait, too.
    monkeypatch.setattr("flask_asok.recipes.webhooks.host_limits.threading", SimpleNamespace(Condition=Impatient))
    return clock


def answered(limits: HostLimits, *hosts: str, seconds: float = 1.0) -> HostLimits:
    """Let each of `hosts` have answered once."""
    for host in hosts:
        assert limits.enter(host, 0) is None
        limits.leave(host, seconds, True)
    return limits


def taken(limits: HostLimits, host: str, pool: Pool | None = None, most: int = 99) -> int:
    """Take as many slots as there are for `host`, up to `most`, and return their number."""
    return next((count for count in range(most) if limits.enter(host, 0, pool) is not None), most)


def test_unknown_host(clock: Clock) -> None:
    """A host that has answered nothing yet gets one delivery at a time, one that has gets `ASOK_WEBHOOK_PER_HOST`."""
    limits = answered(HostLimits(4), "good")

    assert taken(limits, "good") == 4
    assert taken(limits, "new") == 1


@pytest.mark.parametrize("ended", [False, None], ids=["no answer", "not sent"])
def test_host_that_begins_to_hang(clock: Clock, ended: bool | None) -> None:
    """After the first delivery without an answer a host is back at one; one that was not sent changes nothing."""
    limits = answered(HostLimits(4), "a")
    assert taken(limits, "a") == 4

    for _ in range(4):
        limits.leave("a", 15, ended)

    assert taken(limits, "a") == (1 if ended is False else 4)
    limits.leave("a", 1, True)
    assert taken(limits, "a") == (4 if ended is False else 1)


@pytest.mark.parametrize(("size", "most"), [(16, 12), (8, 6), (4, 3), (3, 2), (2, 1), (1, 1)])
def test_a_quarter_stays_free(clock: Clock, size: int, most: int) -> None:
    """Further slots leave a quarter of the queue's threads to other hosts, and hosts that hang leave it as well."""
    pool = Pool("webhooks", size)
    good = answered(HostLimits(99), "good")
    bad = HostLimits(4)
    for number in range(20):
        bad.enter(str(number), 0)
        bad.leave(str(number), 15, False)

    assert taken(good, "good", pool) == most
    assert sum(taken(bad, str(number), pool) for number in range(20)) == most


def test_hosts_that_answer_come_first(clock: Clock) -> None:
    """However many new hosts hang, those that answered last find a thread; in a small queue no thread is kept."""
    limits = answered(HostLimits(4), "a", "b")
    pool, small = Pool("webhooks", 16), Pool("small", 7)

    assert sum(taken(limits, f"new {number}", pool) for number in range(99)) == 14
    assert sum(taken(limits, f"newer {number}", small) for number in range(99)) == 7
    assert [taken(limits, host, pool) for host in "ab"] == [1, 1]


def test_ten_hosts_begin_to_hang(clock: Clock) -> None:
    """Ten hosts that were answered, then hang with all the slots they get, leave a thread for any other."""
    hosts = [f"host {number}" for number in range(10)]
    limits = answered(HostLimits(4), *hosts)
    pool = Pool("webhooks", 16)

    held = sum(taken(limits, host, pool, most=1) for _ in range(40) for host in hosts)

    assert held == 12
    assert taken(limits, "another", pool) == 1


def test_queues_are_apart(clock: Clock) -> None:
    """The threads of one queue are no other's, and a direct call holds none of them."""
    limits = answered(HostLimits(9), "a", "b")

    assert taken(limits, "a", Pool("one", 4)) == 3
    assert taken(limits, "a", Pool("two", 4)) == 3
    assert taken(limits, "a") == 3
    assert taken(limits, "b", Pool("two", 4), most=1) == 1


def test_hosts_are_forgotten(clock: Clock) -> None:
    """A thousand hosts are remembered; those that something is on its way to are never forgotten."""
    limits = answered(HostLimits(2), "old", "kept", "busy")
    assert taken(limits, "busy") == 2

    answered(limits, *(str(number) for number in range(MOST_HOSTS - 2)))
    answered(limits, "kept", "one more")

    assert [taken(limits, host) for host in ("kept", "old", "busy")] == [2, 1, 0]
    assert len(limits._hosts) == MOST_HOSTS
    limits.leave("busy", 1, True)


@pytest.mark.parametrize("seconds", [0.006, 0.2, 15])
def test_no_thread_waits(clock: Clock, seconds: float) -> None:
    """However often a slow host's slots come free, no worker stays to wait for one: other hosts would lack it."""
    limits = answered(HostLimits(2), "slow", seconds=seconds)
    for _ in range(2):
        assert limits.enter("slow", None) is None

    assert limits.enter("slow", None) is not None


def test_turns(clock: Clock) -> None:
    """They come back one after the other, somewhat faster than slots come free."""
    limits = answered(HostLimits(2), "slow", seconds=0.04)
    for _ in range(2):
        assert limits.enter("slow", None) is None
    clock.now += 0.01

    waits = [limits.enter("slow", None) for _ in range(3)]

    assert waits == pytest.approx([0.01, 0.02, 0.03])


def test_line_of_a_dead_host(clock: Clock) -> None:
    """The line for a host that is dead grows slowly, then no more; once slots are free again nobody waits."""
    limits = HostLimits(2)
    assert limits.enter("dead", None) is None
    clock.now += 5

    waits = [limits.enter("dead", None) for _ in range(4000)]

    assert waits[:3] == pytest.approx([0.02, 0.04, 0.06])
    assert LONGEST_LINE < waits[-1] == pytest.approx(LONGEST_LINE, abs=0.03)
    limits.leave("dead", 5, False)
    assert limits.enter("dead", None) is None


def test_many_lines(clock: Clock) -> None:
    """With many hosts that hang, those that wait for them come back no more often in all."""
    limits = HostLimits(2)
    hosts = [str(number) for number in range(100)]
    for host in hosts:
        assert limits.enter(host, None) is None
    clock.now += 5
    for host in hosts * 10:
        assert limits.enter(host, None) is not None
    clock.now += 0.1

    waits = [limits.enter(host, None) for host in hosts]

    assert waits == pytest.approx([0.1 + 0.2] * 100)
