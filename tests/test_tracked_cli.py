"""What a command, another process, does with tracked tasks; and records that go."""

import json
import os
import subprocess
import sys

import pytest

from flask_asok import FlaskAsok, background, report_progress
from flask_asok.sharing import open_store
from flask_asok.store.base import KEEP_SECONDS, TIDY_EVERY, Record

WAIT = 10

asok = FlaskAsok()

tracked = background.using(tracked=True)

COMMANDS = ["tasks", "failed", "retry 1", "cancel 1"]


def fail():
    report_progress(1, 4)
    raise ZeroDivisionError("on purpose")


@pytest.fixture
def web(make_app, tmp_path):
    """The application of the web process, in its context."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context():
        yield app


@pytest.fixture
def command(make_app, tmp_path):
    """Run a command of an application that has nothing but the store in common with the other one."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    return lambda *args: app.test_cli_runner().invoke(args=["asok", *args])


def settled(fn, **options):
    task = tracked.using(**options)(fn)
    task.join(WAIT)
    return task


def test_tasks(web, command):
    """`flask asok tasks` lists the tasks of other processes, the oldest first, with state, progress and error."""
    done, failed = settled(int), settled(fail)

    result = command("tasks")

    assert result.exit_code == 0
    first, second = (line.split() for line in result.output.splitlines())
    assert (first[0], first[3:]) == (done.id, ["succeeded", "default", "int"])
    assert (second[0], second[3:5]) == (failed.id, ["failed", "25%"])
    assert second[-2:] == ["ZeroDivisionError('on", "purpose')"]


def test_tasks_that_match(web, command):
    """The options choose, and `--json` gives them to programs."""
    settled(int, name="a")
    settled(int, name="b", queue="mail")
    last = settled(fail, name="b")

    def names(*options):
        return [task["name"] for task in json.loads(command("tasks", "--json", *options).output)]

    assert names() == ["a", "b", "b"]
    assert names("--limit", "1") == ["b"]
    assert names("--name", "a") == ["a"]
    assert names("--queue", "mail") == ["b"]
    (found,) = json.loads(command("tasks", "--json", "--state", "failed").output)
    assert (found["id"], found["error"]) == (last.id, "ZeroDivisionError('on purpose')")
    assert found["progress"]["fraction"] == 0.25


def test_failed(web, command):
    """`failed` lists failed and abandoned tasks, the latest end first; a lost process is noticed by the list."""
    settled(int)
    failed = settled(fail)
    open_store(web).add(Record(id="5" * 32, name="lost", queue="default", owner="0" * 32, state="running", claim=1))

    lines = command("failed").output.splitlines()

    assert [line.split()[0] for line in lines] == ["5" * 32, failed.id]
    assert "its process ended before it finished" in lines[0]


class Forger(Exception):
    def __repr__(self):
        return "Forger(\x1b[2J\nfaked line)"


def test_signs_that_terminals_obey(web, command):
    """A name or an error that would begin a line of its own, or tell the terminal to do something, is on one line."""

    def forge():
        raise Forger

    settled(forge, name="a\x1b]0;owned\x07\nforged\u2028line\x85")

    for args in (["tasks"], ["failed"]):
        output = command(*args).output

        assert len(output.splitlines()) == 1
        assert output.rstrip("\n").isprintable()
        assert r"a\x1b]0;owned\x07\nforged\u2028line\x85" in output and "faked line" in output


@pytest.mark.parametrize(
    ("args", "said"),
    [(["tasks"], "no tracked task"), (["tasks", "--state", "failed"], "No task matches"), (["failed"], "has failed")],
)
def test_nothing_to_list(web, command, args, said):
    """A list of nothing says so on stderr; what reads its output gets nothing."""
    open_store(web)

    result = command(*args)

    assert result.exit_code == 0
    assert result.stdout == ""
    assert said in result.stderr


def test_lists_of_lost_tasks(web):
    """A list never shows a task as running whose process has ended, whatever it is asked for."""
    for number, state in enumerate(["queued", "running", "waiting"]):
        open_store(web).add(
            Record(id=str(number) * 32, name="lost", queue="default", owner="0" * 32, state=state, enqueued=1.0)
        )

    running = asok.tasks(state="running")
    abandoned = asok.tasks(state="abandoned")

    assert running == []
    assert [task.id for task in abandoned] == ["0" * 32, "1" * 32, "2" * 32]
    assert {task.state for task in asok.tasks()} == {"abandoned"}


def test_cancel(web, command):
    """`cancel` keeps a task of another process from running."""
    waiting, done = tracked.using(delay=600)(int), settled(int)

    cancelled = command("cancel", waiting.id)
    late = command("cancel", done.id)

    assert (cancelled.exit_code, cancelled.output) == (0, f"Cancelled {waiting.id}.\n")
    assert asok.get(waiting.id).state == "cancelled"
    assert late.exit_code == 1
    assert done.id in late.stderr


def test_retry(web, command):
    """A task whose call is not written down cannot be retried; one that has it is queued again."""
    failed = settled(fail)
    open_store(web).add(Record(id="7" * 32, name="kept", queue="default", state="failed", message="signed"))

    refused = command("retry", failed.id)
    sent = command("retry", "7" * 32)

    assert refused.exit_code == 1
    assert failed.id in refused.stderr
    assert not asok.retry(failed.id)
    assert sent.exit_code == 0
    assert open_store(web).read("7" * 32).state == "queued"


def test_retry_of_a_unique_task(web, command):
    """It has its key again; while another task has that, the command says so and changes nothing."""
    store = open_store(web)
    fields = {"name": "export", "queue": "default", "message": "signed", "key": "export"}
    store.add(Record(id="7" * 32, **fields))
    store.settle("7" * 32, 0, "failed")
    store.add(Record(id="8" * 32, **fields))

    refused = command("retry", "7" * 32)
    state = store.read("7" * 32).state
    store.cancel("8" * 32)
    sent = command("retry", "7" * 32)

    assert (refused.exit_code, state) == (1, "failed")
    assert refused.stderr == f"Another task has the unique key of {'7' * 32}. Retry it when that one is settled.\n"
    assert sent.exit_code == 0
    assert store.read("7" * 32).key == "export"


def test_status(web, command):
    """`status` counts the tracked tasks, and names the processes that share the store."""
    tracked.using(delay=600)(int)

    found = json.loads(command("status", "--json").output)

    assert found["tracked"] == {"default": {"queued": 0, "running": 0, "waiting": 1}}
    assert "Tracked\n  default  " in command("status").output


SHOP = """
import sys
import threading

from flask import Flask

from flask_asok import FlaskAsok, background

app = Flask("shop")
app.config["ASOK_STORE"] = {store!r}
FlaskAsok(app)


@app.cli.command("hold")
def hold():
    entered, gate = threading.Event(), threading.Event()
    task = background.using(tracked=True)(lambda: (entered.set(), gate.wait(60)) and None)
    entered.wait(10)
    print(task.id, flush=True)
    sys.stdin.readline()
    gate.set()
    task.join(10)
"""


@pytest.fixture
def flask(tmp_path):
    """Return what to run for a command of the application, in a process of its own."""
    (tmp_path / "shop.py").write_text(SHOP.format(store=str(tmp_path / "asok.sqlite3")))
    return lambda *args: [sys.executable, "-m", "flask", "--app", "shop", *args]


def test_another_process(web, flask, tmp_path):
    """A real one sees what the web process tracks, and the processes that it lists are those that serve."""
    web.test_client().get("/")
    done = settled(int)

    def run(*args):
        return subprocess.run(flask("asok", *args), cwd=tmp_path, capture_output=True, text=True, timeout=60)

    listed = run("tasks")
    status = json.loads(run("status", "--json").stdout)

    assert done.id in listed.stdout, listed.stderr
    assert [name.split()[-1] for name in status["processes"]] == [str(os.getpid())]


def test_command_that_runs_tasks(web, flask, tmp_path):
    """A command is no process that serves, and its tracked tasks are its own all the same: others see them run."""
    web.test_client().get("/")
    settled(int)
    with subprocess.Popen(
        flask("hold"), cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        id = command.stdout.readline().strip()

        processes, running = asok.processes(), asok.get(id).state
        command.stdin.write("\n")
        command.stdin.flush()
        asok.get(id).join(WAIT)
        command.communicate(timeout=60)

    assert [process.pid for process in processes] == [os.getpid()]
    assert running == "running"
    assert (asok.get(id).state, command.returncode) == ("succeeded", 0)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_no_store(make_app, tmp_path, arguments):
    """Without a store a command exits with 2, names the settings that share the tasks, and makes no file."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))

    result = app.test_cli_runner().invoke(args=["asok", *arguments.split()])

    assert result.exit_code == 2
    for word in ("ASOK_TRACKED", "tracked=True", "ASOK_STORE", "ASOK_BACKEND"):
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", COMMANDS)
def test_foreign_store(make_app, tmp_path, arguments):
    """A store that is not ours is an error with a text, not a traceback."""
    (tmp_path / "asok.sqlite3").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))

    result = app.test_cli_runner().invoke(args=["asok", *arguments.split()])

    assert result.exit_code == 2
    assert str(tmp_path / "asok.sqlite3") in result.stderr


# Records that go


def test_discard(web):
    """A settled task is forgotten, here too; one that is not settled stays."""
    done, waiting = settled(int), tracked.using(delay=600)(int)

    early, gone, again = asok.discard(waiting.id), asok.discard(done.id), asok.discard(done.id)

    assert (early, gone, again) == (False, True, False)
    assert asok.get(done.id) is None
    assert [task.id for task in asok.tasks()] == [waiting.id]


def test_discarded_elsewhere(web, make_app, tmp_path):
    """What another process has discarded is gone in the process that ran it."""
    done = settled(int)
    with make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3")).app_context():
        assert asok.discard(done.id)

    assert asok.get(done.id) is None
    assert asok.tasks() == []


def test_discard_of_a_lost_task(web):
    """A task whose process has ended is settled, and so can be discarded."""
    open_store(web).add(Record(id="5" * 32, name="lost", queue="default", owner="0" * 32, state="running", claim=1))

    assert asok.discard("5" * 32)


def test_discard_of_an_untracked_task(web):
    """An untracked one is forgotten by its process."""
    task = background(int)
    task.join(WAIT)

    assert (asok.discard(task.id), asok.discard(task.id), asok.discard("0" * 32)) == (True, False, False)
    assert asok.tasks() == []


def test_records_go_after_a_day(web, tmp_path):
    """New tasks push out what was settled a day ago, a little at a time, and the file is used again."""
    store = open_store(web)
    times = []

    def now():
        return times[-1]

    def fill(at):
        times.append(at)
        for number in range(3 * TIDY_EVERY):
            record = Record(id=f"{at:.0f}-{number}", name="x" * 200, queue="default", owner=store.me)
            store.tidy()
            store.add(record)
            store.cancel(record.id)
        return sum(path.stat().st_size for path in tmp_path.iterdir())

    store.now = now
    first = fill(1_000_000.0)
    day_after = [fill(1_000_000.0 + day * (KEEP_SECONDS + 1)) for day in (1, 2, 3)]

    assert max(day_after) < 2.5 * first
    assert len(store.newest(10_000)) <= 5 * TIDY_EVERY


def test_first_task_of_a_process_tidies(web):
    """A process that lives for few tasks, as with gunicorn's max_requests, forgets old records too."""
    open_store(web).add(Record(id="5" * 32, name="old", queue="default", state="succeeded", finished=1.0))

    settled(int)

    assert open_store(web).read("5" * 32) is None
