"""The lock file of a process, by which others know that it lives: it stays where they look for it."""

import errno
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flask_asok import BackendUnavailable
from flask_asok.store import lifeline
from flask_asok.store.base import Record
from flask_asok.store.sqlite import SQLiteStore

LOOK = """
import sys
from flask_asok.store.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1], "shop")
print(store.is_alive(sys.argv[2]), [process.token for process in store.processes()])
"""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "instance" / "asok.sqlite3")


@pytest.fixture
def store(path):
    """A store that this process has open; closed after the test."""
    store = SQLiteStore(path, "shop")
    yield store
    store.close()


def seen_from_another_process(path, token):
    """Return what another process knows of this one: is it alive, and the tokens of all that are."""
    done = subprocess.run([sys.executable, "-c", LOOK, path, token], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lock_files(path):
    return sorted(name for name in os.listdir(os.path.dirname(path)) if name.endswith(lifeline.SUFFIX))


@pytest.mark.parametrize("what", ["lock file", "folder", "folder, and a copy of it restored"])
def test_deleted(path, store, what):
    """A process whose lock file is deleted, alone or with the whole folder, makes it anew: it goes on to live."""
    me = store.enter("web", [])
    folder = Path(path).parent
    if what == "lock file":
        os.unlink(lifeline.path_of(path, me))
    else:
        shutil.copytree(folder, f"{folder}.copy")
        shutil.rmtree(folder)
    if what.endswith("restored"):
        for suffix in ("-wal", "-shm"):
            os.unlink(f"{folder}.copy/asok.sqlite3{suffix}")
        os.rename(f"{folder}.copy", folder)

    store.newest(1)

    assert store.me == me
    assert seen_from_another_process(path, me) == f"True ['{me}']"


def test_moved(path, store):
    """Where the folder is moved away, the process owns what it has in the old store, and what it has in the new one."""
    me = store.enter("web", [])
    folder = Path(path).parent
    os.rename(folder, f"{folder}.old")

    store.newest(1)

    assert seen_from_another_process(path, me) == f"True ['{me}']"
    assert seen_from_another_process(f"{folder}.old/asok.sqlite3", me).startswith("True")


MOVED_AND_KILLED = """
import os, sys
from flask_asok.store.sqlite import SQLiteStore
path, folder = sys.argv[1], os.path.dirname(sys.argv[1])
store = SQLiteStore(path, "shop")
me = store.enter("web", [])
os.rename(folder, folder + ".old")
store.newest(1)
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print(me, flush=True)
sys.stdin.read()
"""


def test_moved_and_killed(path):
    """When it ends then, it is seen to have ended in both, whatever a forked child of it does."""
    command = [sys.executable, "-c", MOVED_AND_KILLED, path]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    token = parent.stdout.readline().strip()
    parent.kill()
    parent.wait(10)

    old = os.path.join(f"{os.path.dirname(path)}.old", os.path.basename(path))
    assert seen_from_another_process(path, token) == "False []"
    assert seen_from_another_process(old, token) == "False []"
    parent.stdin.close()
    parent.stdout.close()


def test_nothing_is_left_where_a_process_cannot_enter(path, store):
    """Each call on a full disk tries it anew: none leaves a file or a descriptor, and the first that can is there."""
    store.newest(1)
    rows = sqlite3.connect(path, timeout=30)
    rows.execute("CREATE TRIGGER full BEFORE INSERT ON process BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="disk is full"):
            store.enter("web", [])
    left = lock_files(path)
    rows.execute("DROP TRIGGER full")
    rows.close()

    me = store.enter("web", [])

    assert left == []
    assert lock_files(path) == [lifeline.path_of(path, me).name]


def test_lock_file_that_cannot_be_made(path, store, monkeypatch):
    """It is an error of the store, with its cause, as any other of it."""
    store.newest(1)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "taken")
    lifeline.path_of(path, "taken").mkdir()

    with pytest.raises(BackendUnavailable, match="can have no lock file: Is a directory"):
        store.enter("web", [])

    assert store.me == ""


def test_of_root(path, store):
    """A command of root leaves no lock file that the application cannot look at."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can become another user")
    now = time.time()
    store.add(Record(id=secrets.token_hex(16), name="work", queue="default", enqueued=now, due=now))
    os.chown(path, 65534, 65533)

    me = store.enter("command", [])

    found = lifeline.path_of(path, me).stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)


@pytest.fixture
def unlookable(path, store, monkeypatch):
    """The token of a process that owns a task, and whose lock file gives an error when it is opened."""
    token = "f" * 32
    store.enter("web", [])
    store.add(Record(id="1" * 32, name="n", queue="default", state="running", owner=token, key="k"))
    store._change("INSERT INTO process VALUES (?, 'h', 1, 'web', 1.0, '[]')", (token,))
    opened = os.open

    def refuse(name, *args, **kwargs):
        if token in str(name):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    return token


def test_cannot_be_looked_at(store, unlookable):
    """Without a file descriptor for a lock file it is unknown who lives: the store cannot be used for that."""
    for ask in (
        lambda: store.is_alive(unlookable),
        lambda: store.get("1" * 32),
        lambda: store.add(Record(id="2" * 32, name="n", queue="default", owner=store.me, key="k")),
    ):
        with pytest.raises(BackendUnavailable, match="cannot be looked at: Too many open files"):
            ask()


def test_one_that_cannot_be_looked_at(store, unlookable):
    """Its process counts as alive, and the tasks of others are found."""
    store.add(Record(id="2" * 32, name="n", queue="default", owner="e" * 32, due=1.0, message="m"))

    assert [record.id for record in store.orphans("default", 10)] == ["2" * 32]
    assert [record.state for record in store.listed(1, name="n", state="running")] == ["running"]
    assert unlookable in [process.token for process in store.processes()]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOSPC])
def test_cannot_be_made_for_now(path, store, monkeypatch, error):
    """A machine without file descriptors or room is no wrong setting: the store is away."""
    Path(path).parent.mkdir()

    def refuse(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(BackendUnavailable, match=os.strerror(error)):
        store.enter("web", [])


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the lock of a file that is copied")
def test_copied(path, store, tmp_path):
    """A process that copies its lock file, by which the system drops the lock, has that again with its next look."""
    me = store.enter("web", [])
    shutil.copy(lifeline.path_of(path, me), tmp_path / "copy")

    store.newest(1)

    assert seen_from_another_process(path, me) == f"True ['{me}']"


ENDS = """
import sys
from flask import Flask
from flask_asok import FlaskAsok, background
from flask_asok.owed import owed_by
app = Flask("shop")
app.config.from_mapping(SECRET_KEY="k", ASOK_STORE=sys.argv[1])
FlaskAsok(app)
with app.app_context():
    background.using(tracked=True)(int).join()
owed_by(app).add(lambda: print("written"))
"""


def test_orderly_exit(path):
    """A process that ends leaves neither a lock file nor its name, and writes what it still owes the store."""
    done = subprocess.run([sys.executable, "-c", ENDS, path], capture_output=True, text=True, timeout=30)
    connection = sqlite3.connect(path)
    entered = connection.execute("SELECT * FROM process").fetchall()
    states = connection.execute("SELECT state FROM task").fetchall()
    connection.close()

    assert (done.stdout, done.stderr) == ("written\n", "")
    assert (lock_files(path), entered, states) == ([], [], [("succeeded",)])
