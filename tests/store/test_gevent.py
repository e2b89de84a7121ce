"""The file under gevent, whose greenlets share one thread; in processes of their own, since gevent stays for good."""

import json
import subprocess
import sys

import pytest

from flask_asok.store.file import BUSY_SECONDS

pytest.importorskip("gevent")

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import json, sqlite3, sys, time
import gevent, greenlet

opened, connect = [], sqlite3.connect
def noting_connect(*args, **kwargs):
    opened.append(connect(*args, **kwargs))
    return opened[-1]
sqlite3.connect = noting_connect

from flask_asok.progress import Progress
from flask_asok.store.base import Record
from flask_asok.store.sqlite import SQLiteStore

path, name = sys.argv[1:]
store = SQLiteStore(path, "shop")
me = store.enter("web", ["default"])
longest, inside, switches = 0.0, 0, 0

def switched(event, args):
    global inside, switches
    switches += 1
    for connection in opened:
        try:
            inside += connection.in_transaction
        except sqlite3.ProgrammingError:
            pass  # closed

def timed(call, *args, **kwargs):
    global longest
    began = time.perf_counter()
    try:
        return call(*args, **kwargs)
    finally:
        longest = max(longest, time.perf_counter() - began)
        gevent.sleep(0)

def work(number):
    for round in range(10):
        id = f"{name}-{number}-{round}"
        key = f"key {number % 5}" if round % 2 else ""
        record = Record(id=id, name="work", queue="default", owner=me, key=key)
        if timed(store.add, record) != id:
            continue
        claim = timed(store.claim, id, me)
        timed(store.report, id, claim, Progress(1, 2, None, 1.0))
        timed(store.get, id)
        timed(store.settle, id, claim, "succeeded")
        timed(store.newest, 5)

print("ready", flush=True)
sys.stdin.readline()
greenlet.settrace(switched)
jobs = [gevent.spawn(work, number) for number in range(40)]
gevent.joinall(jobs, timeout=100, raise_error=True)
greenlet.settrace(None)
done = all(job.successful() for job in jobs)
print(json.dumps({"done": done, "inside": inside, "switches": switches, "longest": longest}), flush=True)
store.close()
"""


def test_greenlets(tmp_path):
    """Greenlets of two processes never meet a locked file, and none is left in the middle of a transaction."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path / "asok.sqlite3")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, name], **pipes) for name in ("a", "b")]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=110) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)

    for output, errors in outputs:
        assert errors == ""
        told = json.loads(output)
        assert told["done"]
        assert told["switches"] > 1_000
        assert told["inside"] == 0
        # A greenlet that waits for the transaction of another one waits for the whole of it.
        assert told["longest"] < BUSY_SECONDS
