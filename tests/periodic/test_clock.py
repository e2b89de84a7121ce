"""Which ticks a clock starts, by a clock that the test sets."""

import logging
import os
import shutil
import sqlite3
import subprocess
import threading

import pytest
import redis

from flask_asok import BackendUnavailable, current_task, task
from flask_asok.periodic.clock import LONGEST_PAUSE, RETRY_SECONDS
from flask_asok.state import state_of
from flask_asok.store.base import Tick
from flask_asok.store.sqlite import SQLiteStore

TIMEOUT = 10


# Ticks


def test_runs_at_each_tick(process):
    """A task runs at each tick, and once, however often the clock looks."""
    process.add(every=60)

    for seconds in (1, 59, 60, 60.5, 119, 120.1, 120.2, 180):
        process.at(seconds)

    assert process.ran == [60, 120, 180]
    assert process.skipped == []


def test_new_name_begins_with_its_next_tick(process):
    """A schedule that the store does not know yet begins with its next tick, however late ticks may come."""
    process.add(every=3600, grace=None)

    process.at(3601)
    process.at(3602)
    process.at(7200)

    assert process.ran == [7200]


def test_first_request_just_before_a_tick(process):
    """A process that begins a moment before a tick runs that tick."""
    process.add(every=60)

    process.at(59.9)
    process.at(60.01)

    assert process.ran == [60]


def test_the_first_tick_may_fall_on_a_deploy(make_process):
    """The very first tick of a schedule is made up for too, if no process ran when it came."""
    old = make_process()
    old.add(every=3600)
    old.at(10)
    old.close()
    new = make_process()
    new.add(every=3600)

    new.at(3700)

    assert new.ran == [3600]


def test_a_deploy_does_not_reset_an_interval(make_process):
    """An hourly task runs each hour, though a deploy comes each 50 minutes."""
    ran = []
    for deploy in range(24 * 60 // 50):
        process = make_process()
        process.add(every=3600)
        for minute in range(deploy * 50, deploy * 50 + 50):
            process.at(minute * 60 + 1)
        ran += process.ran
        process.close()

    assert ran == [hour * 3600 for hour in range(1, 24)]


def test_two_processes(make_process):
    """Of several processes one runs each tick, whichever looks first."""
    processes = [make_process() for _ in range(2)]
    for process in processes:
        process.add(every=60)
        process.at(1)

    for minute in range(1, 7):
        for process in processes if minute % 2 else processes[::-1]:
            process.at(minute * 60)

    assert [process.ran for process in processes] == [[60, 180, 300], [120, 240, 360]]
    assert [process.skipped for process in processes] == [[], []]


def test_loser_makes_no_task(make_process):
    """A process that finds a tick taken makes no task for it, and asks no `prepare` for its arguments."""
    asked = []

    def prepare():
        asked.append(1)
        return (), {}

    processes = [make_process() for _ in range(3)]
    for process in processes:
        process.add(task(prepare=prepare)(lambda: None), every=60)
        process.at(1)

    for process in processes:
        process.at(60)

    assert asked == [1]


def test_race(make_process):
    """Eight processes that look at the same tick at the same moment start it once."""
    processes = [make_process() for _ in range(8)]
    for process in processes:
        process.add(every=60)
        process.at(1)
    for minute in range(1, 21):
        barrier = threading.Barrier(len(processes))

        def look(process, minute=minute, barrier=barrier):
            barrier.wait(TIMEOUT)
            process.at(minute * 60)

        threads = [threading.Thread(target=look, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)

    ran = sorted(tick for process in processes for tick in process.ran)
    assert ran == [minute * 60 for minute in range(1, 21)]


def test_skewed_clocks(make_process):
    """Two machines whose clocks differ by less than the period run each tick once; the fast one decides when."""
    fast, slow = make_process(), make_process()
    for process, skew in ((fast, 40), (slow, 0)):
        process.add(every=60)
        process.at(1 + skew)

    for second in range(2, 400):
        fast.at(second + 40)
        slow.at(second)

    assert fast.ran == [60, 120, 180, 240, 300, 360, 420]
    assert slow.ran == []


def test_pause(process):
    """The clock sleeps until a moment after the next tick, and never for longer than half a minute."""
    process.add(every=60)

    pauses = [process.at(seconds) for seconds in (1, 20, 45, 60)]

    assert pauses == [LONGEST_PAUSE, LONGEST_PAUSE, pytest.approx(15.001), LONGEST_PAUSE]


# Late


@pytest.mark.parametrize(("late", "ran"), [(599, [3600]), (601, [])])
def test_grace(process, caplog, late, ran):
    """A tick that is late by less than its grace runs, any other is skipped, with a warning."""
    process.add(every=3600)
    process.at(1)

    process.at(3600 + late)
    process.at(3600 + late + 1)

    assert process.ran == ran
    assert process.skipped == ([] if ran else [(3600, "late")])
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ([] if ran else [
        "Periodic task work skips its tick of 2026-11-26 01:00:00+00:00: it is 601 s late, and its grace is 600 s."
    ])  # fmt: skip


def test_no_grace_limit(process):
    """With `grace=None` the latest tick runs, however late."""
    process.add(every=3600, grace=None)
    process.at(1)

    process.at(24 * 3600 - 1)

    assert process.ran == [23 * 3600]
    assert process.skipped == [(22 * 3600, "late")]


def test_missed_ticks_are_not_replayed(process, caplog):
    """Three ticks that were missed give one run, of the latest; the others are skipped, with one warning."""
    process.add(every=60)
    process.at(1)

    process.at(185)
    process.at(186)

    assert process.ran == [180]
    assert process.skipped == [(120, "late")]
    assert caplog.text.count("skips its tick") == 1


def test_skipped_once_for_all_processes(make_process):
    """A late tick is skipped, and told of, in one process."""
    processes = [make_process() for _ in range(3)]
    for process in processes:
        process.add(every=3600)
        process.at(1)

    for process in processes:
        process.at(5000)

    assert [process.skipped for process in processes] == [[(3600, "late")], [], []]
    assert [process.ran for process in processes] == [[], [], []]


def test_clock_is_set(process):
    """A clock that is set back an hour gives nothing twice; one that is set forward gives one late run at most."""
    process.add(every=600)
    process.at(1)
    for seconds in (600, 1200, 1800, 2400, 3000, 3600, 4200):
        process.at(seconds)
    process.ran.clear()

    for seconds in (600, 1200, 3600, 4200, 4800):
        process.at(seconds)
    assert process.ran == [4800]

    process.at(4800 + 7200 + 10)
    assert process.ran == [4800, 4800 + 7200]


def test_changed_schedule(make_process):
    """A schedule that was changed goes on from the tick that the store has."""
    old = make_process()
    old.add(every=3600)
    old.at(1)
    old.at(3600)
    old.close()
    new = make_process()
    new.add(cron="*/15 * * * *")

    for seconds in (3610, 4499, 4500, 5400):
        new.at(seconds)

    assert (old.ran, new.ran) == ([3600], [4500, 5400])


# Overlap


def held(process, gate):
    def hold():
        process.ran.append(current_task().scheduled_at.timestamp())
        gate.wait(TIMEOUT)

    return hold


def test_overlap(make_process, gate, caplog):
    """While a run goes on the next tick is skipped, in whichever process, with a warning; after its end one runs."""
    first, second = make_process(), make_process()
    for process in (first, second):
        process.add(held(process, gate), every=60)
        process.at(1)

    first.look(60)
    second.at(120)
    assert (second.skipped, first.skipped) == ([(120, "overlap")], [])
    assert caplog.text.count("still goes on") == 1
    last = second.listed()
    gate.set()
    first.wait()
    second.at(180)

    assert (len(first.ran), len(second.ran)) == (1, 1)
    assert last.last_at.timestamp() == first.ran[0]
    with second.app.app_context():
        run = second.asok.get(last.last_id)
    assert (run.state, run.scheduled_at) == ("succeeded", last.last_at)


def test_overlap_allowed(make_process, gate):
    """With `overlap=True` each tick runs, whatever goes on."""
    process = make_process()
    process.add(held(process, gate), every=60, overlap=True)
    process.at(1)

    process.look(60)
    process.look(120)
    gate.set()
    process.wait()

    assert len(process.ran) == 2
    assert process.skipped == []


def test_overlap_by_a_key_of_the_function(process, gate):
    """A function that has a unique key keeps it: a call by hand counts as a run."""
    run = task(unique="mine")(held(process, gate))
    process.add(run, every=60)
    process.at(1)
    with process.app.app_context():
        process.asok.background.using(unique="mine")(gate.wait, TIMEOUT)
        process.look(60)
        process.look(120)
    gate.set()
    process.wait()

    assert process.skipped == [(120, "overlap")]


# Jitter


def test_jitter(make_process):
    """With jitter a run begins some seconds after its tick, at the same moment in every process; not all at once."""
    processes = [make_process() for _ in range(2)]
    for process in processes:
        process.add(every=60, jitter=30)
        process.at(1)
    began = []

    for second in range(2, 60 * 20):
        for process in processes:
            before = len(process.ran)
            process.at(second)
            if len(process.ran) > before:
                began.append(second - process.ran[-1])

    ran = sorted(tick for process in processes for tick in process.ran)
    assert ran == [minute * 60 for minute in range(1, 20)]
    assert all(0 <= offset <= 31 for offset in began)
    assert len(set(began)) > 8
    assert [process.skipped for process in processes] == [[], []]


def test_jitter_of_two_ticks(process):
    """A tick that is due runs, though the next one has come by then and waits for its own moment."""
    process.add(every=60, jitter=50)
    process.at(1)
    (entry,) = process.clock.entries
    minute = next(one for one in range(1, 60) if entry.due("shop", process.now - 1 + 60 * (one + 1)) % 60 > 5)
    process.at(60 * minute - 0.1)
    process.ran.clear()

    process.at(60 * (minute + 1) + 1)

    assert process.ran == [60 * minute]


# What goes wrong


def test_failing_function(process):
    """A function that raises is a failed task; the schedule goes on."""

    def fail():
        process.ran.append(1)
        raise ValueError("no")

    process.add(fail, every=60)
    process.at(1)
    process.at(60)
    process.at(120)

    assert len(process.ran) == 2
    with process.app.app_context():
        assert [task.state for task in process.asok.tasks()] == ["failed", "failed"]


def test_start_that_fails(make_process, caplog, monkeypatch):
    """If a task cannot be started its tick is given back: any process tries it again, until its grace is over."""
    first, second = make_process(), make_process()
    for process in (first, second):
        process.add(every=3600)
        process.at(1)
    broken = state_of(first.app).backend

    def refuse(task, *, bounded=True):
        task.withdraw(None)
        raise BackendUnavailable("The broker is away.")

    monkeypatch.setattr(broken, "start", refuse)

    pauses = [first.at(3600 + second) for second in range(3)]
    second.at(3604)

    assert pauses == [RETRY_SECONDS] * 3
    assert (first.ran, second.ran) == ([], [3600])
    assert caplog.text.count("could not be started") == 1
    assert first.skipped == second.skipped == []


def test_start_that_fails_for_too_long(process, caplog, monkeypatch):
    """A tick whose task could not be started within its grace is skipped as late."""

    def refuse(*args, **options):
        raise ValueError("no")

    @task(prepare=refuse)
    def work():
        process.ran.append(1)

    process.add(work, every=3600, grace=5)
    process.at(1)

    for second in range(10):
        process.at(3600 + second)

    assert process.skipped == [(3600, "late")]
    assert caplog.text.count("could not be started") == 1


def test_store_away(process, caplog, tmp_path, monkeypatch):
    """Without its store nothing runs, with one error; when it is back, one run, of the latest tick."""
    caplog.set_level(logging.INFO)
    process.add(every=1)
    process.at(0.5)
    process.at(1)
    process.ran.clear()

    def away(self):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "_connected", away)
        pauses = [process.at(second) for second in range(2, 22)]
    process.at(22)

    assert set(pauses) == {RETRY_SECONDS}
    assert process.ran == [22]
    assert caplog.text.count("No periodic task is started: The store") == 1
    assert caplog.text.count("Periodic tasks are started again.") == 1


def test_store_away_at_the_start(make_process, monkeypatch):
    """A process that begins without its store runs what came meanwhile when that is there, and not what came before."""
    process = make_process()
    process.add(every=60)

    def away(self):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "_connected", away)
        process.at(1)
    process.at(130)

    assert process.ran == []

    process.at(180)
    assert process.ran == [180]


def test_no_store_possible(make_process, tmp_path, caplog):
    """Where no store can be made nothing runs, and the log says what to do."""
    (tmp_path / "file").touch()
    process = make_process(ASOK_STORE=str(tmp_path / "file" / "asok.sqlite3"))
    process.add(every=60)

    assert process.at(1) == process.at(60) == LONGEST_PAUSE

    assert process.ran == []
    assert caplog.text.count("Set ASOK_STORE to a path that this process can write.") == 1


def test_deleted_store(process, tmp_path):
    """A store that is deleted while the clock runs costs no tick."""
    process.add(every=60)
    process.at(1)
    process.at(60)
    os.remove(tmp_path / "asok.sqlite3")

    process.at(120)
    process.at(180)

    assert process.ran == [60, 120, 180]


def test_given_back_later(process, monkeypatch):
    """A tick that could not be given back at once, since the store went away, is given back when that is there."""
    process.add(every=3600)
    process.at(1)
    store = state_of(process.app).shared("store", None)

    def away(*args):
        raise BackendUnavailable("The store is away.")

    def refuse(task, *, bounded=True):
        task.withdraw(None)
        raise BackendUnavailable("The broker is away.")

    with monkeypatch.context() as patch:
        patch.setattr(state_of(process.app).backend, "start", refuse)
        patch.setattr(store, "replace_tick", away)
        process.at(3600)
        process.at(3601)
        assert store.tick("work").task_id
    assert process.ran == []
    process.at(3602)

    assert process.ran == [3600]


def test_note_of_the_first_look(process):
    """What a process writes down of a new name is no run."""
    process.add(every=60)
    process.at(1)

    store = state_of(process.app).shared("store", None)
    assert store.tick("work") == Tick(process.now, "")
    assert (process.listed().last_at, process.listed().last_id) == (None, None)


@pytest.fixture
def own_redis(tmp_path, free_port):
    """Start and stop a Redis of this test alone, which forgets all when it stops."""
    servers = []

    def start():
        command = [
            "redis-server",
            "--port",
            str(free_port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(tmp_path),
        ]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        with redis.Redis(port=free_port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100)) as client:
            client.ping()

    def stop():
        servers[-1].terminate()
        servers.pop().wait(TIMEOUT)

    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed.")
    start()
    yield start, stop
    while servers:
        stop()


def test_redis_away(make_process, own_redis, free_port, tmp_path, caplog):
    """Two machines share a Redis: it is stopped for 20 s, in which nothing runs; then one run, and not twenty."""
    start, stop = own_redis
    caplog.set_level(logging.INFO)
    processes = [make_process(ASOK_STORE=f"redis://127.0.0.1:{free_port}") for _ in range(2)]
    for process in processes:
        process.add(every=1)
        process.at(0.5)
    for process in processes:
        process.at(1)
    before = [list(process.ran) for process in processes]

    stop()
    for second in range(2, 22):
        for process in processes:
            process.at(second)
    start()
    for process in processes:
        process.at(22)

    assert before == [[1], []]
    assert sorted(tick for process in processes for tick in process.ran) == [1, 22]
    assert caplog.text.count("No periodic task is started: The Redis of the store cannot be used") == 2
    assert caplog.text.count("Periodic tasks are started again.") == 2
