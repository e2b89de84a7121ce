"""What a whole process sees of Flask-Asok: its start, its forks, its end, and its memory."""

import re
import sys

import pytest

HEAD = """
import gc, os, sys, threading, warnings, weakref
from flask import Flask
from flask_asok import FlaskAsok, Task, TaskAbandoned, background

def make_app(**config):
    app = Flask("shop")
    app.config.update(config)
    FlaskAsok(app)
    return app

began, gate = threading.Event(), threading.Event()

def held():
    began.set()
    assert gate.wait(30)
"""

STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "


def test_no_thread_before_the_first_task(script):
    """Neither the import nor `init_app` starts a thread; the first task does."""
    process = script(
        HEAD
        + """
def threads():
    return threading.active_count(), len(os.listdir("/proc/self/task"))

app = make_app()
print(threads())
with app.app_context():
    background(held)
assert began.wait(30)
print(threads())
gate.set()
"""
    )

    assert process.wait() == 0
    assert process.lines == ["(1, 1)", "(2, 2)"]


# Fork


def test_fork(script):
    """In a forked child the parent's unfinished tasks are abandoned, and its own ones run; the parent goes on."""
    process = script(
        HEAD
        + """
make_app(ASOK_QUEUES={"default": 1}).app_context().push()
unfinished = [background(held), background(int), background.using(delay=1000)(int)]
assert began.wait(30)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 dislikes a fork beside threads
    child = os.fork()
if not child:
    for task in unfinished:
        try:
            task.result(30)
        except TaskAbandoned:
            print(task.is_alive(), task.state)
    print(background(os.getpid).result(30) == os.getpid())
    print(background.using(delay=0.01)(os.getpid).result(30) == os.getpid())
    sys.exit(7)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
gate.set()
print(unfinished[0].result(30), unfinished[1].result(30), unfinished[2].state, unfinished[2].cancel())
"""
    )

    assert process.wait() == 0
    assert process.lines == [
        "False abandoned",
        "False abandoned",
        "False abandoned",
        "True",
        "True",
        "child: 7",
        "None 0 waiting True",
    ]


def test_fork_while_a_response_is_waited_for(script):
    """What waits for the parent's response is the parent's: in the child it is abandoned, and never runs there."""
    process = script(
        HEAD
        + """
app = make_app()
with app.test_request_context():
    task = background.using(when="response")(os.getpid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        print(task.state, task.is_alive(), flush=True)
if not child:
    print(task.state)
    sys.exit(7)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(task.result(30) == os.getpid())
"""
    )

    assert process.wait() == 0
    assert process.lines == ["abandoned False", "abandoned", "child: 7", "True"]


def test_fork_in_a_task(script):
    """A task may fork; the tasks of its child run."""
    process = script(
        HEAD
        + """
def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(7 if background.using(delay=0.01)(os.getpid).result(30) == os.getpid() else 1)

make_app(ASOK_SHUTDOWN_TIMEOUT=0).app_context().push()
background.using(delay=1000)(int)
print(background(fork).result(30))
"""
    )

    assert process.wait() == 0
    assert process.lines[0] == "7"


# Exit


def test_exit_finishes_tasks(script):
    """A program that ends finishes what it started, and what that starts, also when nobody holds the app any more."""
    process = script(
        HEAD
        + """
def last():
    held()
    # In one piece, unlike print(): the main thread may log a line meanwhile.
    background(sys.stdout.write, "started at exit\\n")

def main():
    with make_app(ASOK_QUEUES={"default": 1}).app_context():
        background(last)
        background(sys.stdout.write, "queued\\n")

main()
assert began.wait(30)
threading._register_atexit(gate.set)  # runs before the end of the tasks
"""
    )

    assert process.wait() == 0
    # On a slow machine with a line that says what is waited for.
    assert sorted(line for line in process.lines if "Waiting up to" not in line) == ["queued", "started at exit"]


def test_exit_names_the_unfinished(script):
    """Past the limit a program leaves with its own exit code; each task that was not finished is named."""
    process = script(
        HEAD
        + """
make_app(ASOK_QUEUES={"default": 1}, ASOK_SHUTDOWN_TIMEOUT=0.2).app_context().push()
tasks = [background(held), background(int), background.using(delay=1000, name="later")(int)]
assert began.wait(30)
print(*(task.id for task in tasks), flush=True)
sys.exit(3)
"""
    )

    assert process.wait() == 3
    running, queued, waiting = process.lines[0].split()
    late = "not finished 0.2 s after the shutdown began (ASOK_SHUTDOWN_TIMEOUT)."
    assert re.fullmatch(STAMP + r"WARNING asok\.background: (.*)", process.lines[1])[1] == (
        "Waiting up to 0.2 s for 2 tasks (held, int); Ctrl-C again to quit."
    )
    assert [re.fullmatch(STAMP + r"ERROR asok\.background: (.*)", line)[1] for line in process.lines[2:]] == [
        f"Background task later ({waiting}) abandoned while waiting: the application shuts down.",
        f"Background task int ({queued}) abandoned while queued: {late}",
        f"Background task held ({running}) abandoned while running: {late}",
    ]


def test_exit_says_what_it_waits_for(script):
    """A program that waits for its tasks says so, before it is over; of many tasks it names the first five."""
    process = script(
        HEAD
        + """
make_app(ASOK_QUEUES={"default": 1}, ASOK_SHUTDOWN_TIMEOUT=20).app_context().push()
background(held)
assert began.wait(30)
for number in range(6):
    background.using(name=f"number {number}")(int)

class Watch:
    def write(self, text):
        sys.__stdout__.write(text)
        gate.set()

    def flush(self):
        sys.__stdout__.flush()

sys.stderr = Watch()
"""
    )

    assert process.wait() == 0
    assert [re.fullmatch(STAMP + r"WARNING asok\.background: (.*)", line)[1] for line in process.lines] == [
        "Waiting up to 20 s for 7 tasks (held, number 0, number 1, number 2, number 3 and 2 more); "
        "Ctrl-C again to quit."
    ]


def test_each_app_is_told_what_is_waited_for(script):
    """The handlers of an app's logger hear what the end waits for as well: of its own tasks, and once."""
    process = script(
        """
import logging, sys, threading
from flask import Flask
from flask_asok import FlaskAsok, background

logging.getLogger("asok.background").propagate = False
gates = {"shop": threading.Event(), "desk": threading.Event()}

class Told(logging.Handler):
    def __init__(self, name):
        super().__init__()
        self.app = name

    def emit(self, record):
        print(self.app, record.getMessage(), flush=True)
        gates[self.app].set()

apps = []
for name, limit in (("shop", 20), ("desk", 30)):
    app = Flask(name)
    app.config.update(ASOK_SHUTDOWN_TIMEOUT=limit)
    app.logger.addHandler(Told(name))
    FlaskAsok(app)
    apps.append(app)
    with app.app_context():
        background.using(name=f"of {name}")(gates[name].wait, 25)
"""
    )

    assert process.wait() == 0
    assert sorted(line for line in process.lines if not line.startswith("[")) == [
        "desk Waiting up to 30 s for 1 task (of desk); Ctrl-C again to quit.",
        "shop Waiting up to 20 s for 1 task (of shop); Ctrl-C again to quit.",
    ]


def test_ctrl_c_while_it_is_said(script):
    """Ctrl-C at the very beginning of the end: nothing is waited for, and every task is named all the same."""
    process = script(
        HEAD
        + """
class Watch:
    def write(self, text):
        sys.__stdout__.write(text)
        if "Waiting up to" in text:
            raise KeyboardInterrupt

    def flush(self):
        sys.__stdout__.flush()

make_app(ASOK_SHUTDOWN_TIMEOUT=1000).app_context().push()
background(held)
background.using(delay=1000)(int)
assert began.wait(30)
sys.stderr = Watch()
"""
    )

    assert process.wait() == 0
    assert re.findall(r"task (\w+) \(.*\) (.*)", process.log) == [
        ("int", "abandoned while waiting: the application shuts down."),
        ("held", "abandoned while running: the shutdown was interrupted."),
    ]


def test_ctrl_c_before_the_end_has_begun(script):
    """Ctrl-C just before that, when the end has not yet made its first step: every task is named all the same."""
    process = script(
        HEAD
        + """
from flask_asok.backends import shutdown

close = shutdown.close

def interrupted(*args, **kwargs):
    shutdown.close = close
    raise KeyboardInterrupt

shutdown.close = interrupted
make_app(ASOK_SHUTDOWN_TIMEOUT=0.01).app_context().push()
background(held)
background.using(delay=1000)(int)
assert began.wait(30)
"""
    )

    assert process.wait() == 0
    assert re.findall(r"task (\w+) \(.*\) abandoned (while \w+)", process.log) == [
        ("int", "while waiting"),
        ("held", "while running"),
    ]


def test_exit_without_time_to_wait(script):
    """With ASOK_SHUTDOWN_TIMEOUT = 0 there is nothing to announce: what is not finished is named at once."""
    process = script(
        HEAD
        + """
make_app(ASOK_SHUTDOWN_TIMEOUT=0).app_context().push()
background(held)
assert began.wait(30)
"""
    )

    assert process.wait() == 0
    assert [re.sub(r"\([0-9a-f]{32}\)", "(id)", line.partition(": ")[2]) for line in process.lines] == [
        "Background task held (id) abandoned while running: "
        "not finished 0 s after the shutdown began (ASOK_SHUTDOWN_TIMEOUT)."
    ]


@pytest.mark.parametrize(
    "work",
    [
        "async def work():\n    held()\n    await asyncio.to_thread(print, 'done')",
        "def work():\n    held()\n    print(*ThreadPoolExecutor().map(str, ['done']))",
    ],
    ids=["async", "pool"],
)
def test_thread_pools_at_exit(script, python_module, work):
    """A task that needs a thread pool, as each async function does, is finished at the end as any other."""
    python_module("asgiref")
    process = script(
        HEAD
        + f"""
import asyncio
from concurrent.futures import ThreadPoolExecutor

{work}

make_app(ASOK_QUEUES={{"default": 1}}).app_context().push()
tasks = [background(work), background(work)]
assert began.wait(30)
threading._register_atexit(gate.set)  # runs before the end of the tasks
"""
    )

    assert process.wait() == 0
    if sys.version_info[:3] in [(3, 12, 0), (3, 12, 1)]:
        # They start no thread any more once the program has ended.
        assert "can't create new thread" in process.log
    else:
        assert [line for line in process.lines if "Waiting up to" not in line] == ["done", "done"]


def test_a_durable_task_without_a_thread_pool_goes_on(script, tmp_path):
    """Where Python has closed the thread pools, a durable task that needs one is left to the next process."""
    (tmp_path / "jobs.py").write_text(
        """
import threading
from concurrent.futures import ThreadPoolExecutor

began, gate = threading.Event(), threading.Event()

def work():
    began.set()
    assert gate.wait(30)
    print(*ThreadPoolExecutor().map(str, ["done"]))
"""
    )
    process = script(
        HEAD
        + """
import atexit, jobs

make_app(SECRET_KEY="key", ASOK_TASK_MODULES=["jobs"]).app_context().push()
background.using(durable=True)(jobs.work)
assert jobs.began.wait(30)
# Python waits for this thread, and the tasks end in `atexit`.
threading.Thread(target=threading.main_thread().join).start()
atexit.register(jobs.gate.set)
"""
    )
    assert process.wait() == 0, process.log
    first = process.log

    process = script(
        HEAD
        + """
import jobs
from flask_asok.durable.sweeper import sweeper_of

jobs.gate.set()
app = make_app(SECRET_KEY="key", ASOK_TASK_MODULES=["jobs"])
app.app_context().push()
while not jobs.began.wait(0.01):
    sweeper_of(app).look()
"""
    )

    assert process.wait() == 0
    assert "failed" not in first
    assert "done" in process.lines


def test_a_thread_of_the_program_at_exit(script):
    """Where Python waits for a thread of the program, tasks are accepted as long as that runs, delays included."""
    process = script(
        HEAD
        + """
def last():
    threading.main_thread().join(30)
    with app.app_context():
        background.using(delay=0.01)(print, "delayed").join(30)
        background(print, "done")

app = make_app()
with app.app_context():
    background(int).join(30)
threading.Thread(target=last).start()
"""
    )

    assert process.wait() == 0
    assert [line for line in process.lines if "Waiting up to" not in line] == ["delayed", "done"]


def test_an_error_in_the_early_end(script):
    """What a hook of the end raises while thread pools still work is shown, and keeps none of the others from it."""
    process = script(
        HEAD
        + """
from flask_asok import process

def fail():
    raise ValueError("broken")

process.at_exit(lambda: print("first"))
process.at_exit(fail)
process.at_exit(lambda: print("last"), last=True)
make_app().app_context().push()
background(int).join(30)
"""
    )

    assert process.wait() == 0
    assert [line for line in process.lines if line in ("first", "last")] == ["first", "last"]
    assert "ValueError: broken" in process.log


def test_error_at_exit(script):
    """A task that fails while the program ends is logged, traceback and all, and changes no exit code."""
    process = script(
        HEAD
        + """
def send_webhook():
    held()
    raise ConnectionError("no route")

make_app().app_context().push()
background(send_webhook)
assert began.wait(30)
threading._register_atexit(gate.set)  # runs before the end of the tasks
"""
    )

    assert process.wait() == 0
    first, traceback, *_, last = (line for line in process.lines if "Waiting up to" not in line)
    assert re.fullmatch(
        STAMP + r"ERROR asok\.background: Background task send_webhook failed: ConnectionError\('no route'\)", first
    )
    assert traceback == "Traceback (most recent call last):"
    assert last == "ConnectionError: no route"


# Memory


def test_dropped_apps_leave_nothing(script):
    """A thousand apps, each with a task, made and dropped as a test suite does: no app and no thread is left."""
    process = script(
        HEAD
        + """
apps = weakref.WeakSet()

def use_one():
    app = make_app()
    apps.add(app)
    with app.test_request_context():
        assert background(int).result(30) == 0

for _ in range(1000):
    use_one()
gc.collect()
print(len(apps))
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30)
print(threading.active_count())
"""
    )

    assert process.wait() == 0
    assert process.lines == ["0", "1"]


def test_memory_stays_flat(script):
    """Thousands of tasks too many, offered to threads that are busy: all run, and none of them is kept."""
    process = script(
        HEAD
        + """
done = 0

def count():
    global done
    done += 1

app = make_app(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1_000, ASOK_RECENT_TASKS=10)
app.app_context().push()
background(held)
assert began.wait(30)
for _ in range(5_000):
    background(count)
# Not their memory: what measures the coverage keeps something of each thread.
kept = sum(issubclass(type(one), Task) for one in gc.get_objects())
gate.set()
FlaskAsok().close(app, 30)
print(kept, done)
"""
    )

    assert process.wait() == 0
    *warnings, (kept, done) = *process.lines[:-1], map(int, process.lines[-1].split())
    # Those that are queued, and the one that runs.
    assert 1_000 < kept < 1_010
    assert done == 5_000
    assert warnings
    full = r"WARNING asok\.background: Queue 'default' holds 1000 tasks \(ASOK_MAX_QUEUED\): background task \w+ runs"
    assert all(re.match(STAMP + full, warning) for warning in warnings)
