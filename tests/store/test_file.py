"""The file of a store: where it may lie, whose it is, what damages it, and which processes live."""

import json
import os
import secrets
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flask_asok import BackendUnavailable, NotConfigured
from flask_asok.store import file, lifeline, open_file, statements
from flask_asok.store.base import Record
from flask_asok.store.sqlite import SQLiteStore

HELPER = """
import json, os, secrets, sys, time
from flask_asok.store.base import Record
from flask_asok.store.sqlite import SQLiteStore

path, command = sys.argv[1], sys.argv[2]
store = SQLiteStore(path, "shop")
me = store.enter("web", ["default"])

def add(**fields):
    now = time.time()
    fields = {"name": "work", "queue": "default", "enqueued": now, "due": now, "owner": me, **fields}
    id = secrets.token_hex(16)
    return store.add(Record(id=id, **fields)), id

if command == "live":
    print(me, *add(key="export"), flush=True)
    sys.stdin.read()
elif command == "write":
    for _ in range(int(sys.argv[3])):
        id, _ = add()
        assert store.settle(id, store.claim(id, me), "succeeded")
    print("done", flush=True)
    store.close()
elif command == "unique":
    sys.stdin.readline()
    print(*add(key="export"), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "instance" / "asok.sqlite3")


@pytest.fixture
def open_store(path):
    """Open the store in this process; closed after the test."""
    opened = []

    def open_store(app="shop", at=path):
        opened.append(SQLiteStore(at, app))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def start(path):
    """Start a process that uses the store."""
    started = []

    def start(command, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", HELPER, path, command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


def record(owner="", **fields):
    now = time.time()
    return Record(id=secrets.token_hex(16), name="work", queue="default", enqueued=now, due=now, owner=owner, **fields)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_modes(path, open_store):
    """The file and what SQLite puts beside it can be read by nobody else; the folder is made."""
    open_store().add(record())

    assert mode(os.path.dirname(path)) == 0o700
    assert [mode(path + suffix) for suffix in ("", "-wal", "-shm")] == [0o600] * 3


def test_made_with_the_first_call(path, open_store):
    """Nothing is made before the store is used."""
    store = open_store()

    assert not os.path.exists(os.path.dirname(path))
    assert store.newest(1) == []
    assert os.path.exists(path)


def test_only_the_file_is_left(path, open_store):
    """The last process that closes the store leaves the file, and nothing beside it."""
    store = open_store()
    store.enter("web", [])
    store.close()

    assert os.listdir(os.path.dirname(path)) == ["asok.sqlite3"]


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_noticed(path, open_store, how):
    """A file that was deleted or replaced is noticed at the next call."""
    store = open_store()
    store.add(record())
    for suffix in ("", "-wal", "-shm"):
        os.unlink(path + suffix)
    if how == "replaced":
        other = SQLiteStore(path, "shop")
        other.add(record())
        other.add(record())
        other.close()

    assert len(store.newest(10)) == (2 if how == "replaced" else 0)
    assert store.read(store.add(record())) is not None


def test_noticed_by_a_change(path, open_store, monkeypatch):
    """A change that is not made right after another call looks at the file first: nothing goes into a deleted one."""
    monkeypatch.setattr(open_file, "LOOK_SECONDS", -1.0)
    store = open_store()
    store.add(record())
    for suffix in ("", "-wal", "-shm"):
        os.unlink(path + suffix)

    id = store.add(record())

    assert open_store().read(id) is not None


@pytest.mark.parametrize("step", ["claim", "postpone", "settle"])
def test_gives_way(open_store, monkeypatch, step):
    """What is written of an attempt gives way to what other threads of the process write, but not for ever."""
    store = open_store()
    id = store.add(record(store.enter("web", [])))
    steps = {
        "claim": lambda: store.claim(id, store.me, 0),
        "postpone": lambda: store.postpone(id, 1, time.time() + 60, attempts=1),
        "settle": lambda: store.settle(id, 1, "succeeded"),
    }
    if step != "claim":
        assert store.claim(id, store.me, 0) == 1
    pauses, gave_way, answers = [], threading.Event(), []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == open_file.MOST_PAUSES:
            gave_way.set()

    monkeypatch.setattr(open_file, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    thread = threading.Thread(target=lambda: answers.append(steps[step]()), daemon=True)
    with store.transaction():
        thread.start()
        assert gave_way.wait(10)
        store.add(record(store.me))
        assert answers == []
    thread.join(10)

    assert answers == [1]
    assert pauses == [open_file.PAUSE_SECONDS] * open_file.MOST_PAUSES


def test_file_of_another_application(path, open_store):
    """The error names both applications, and the file is as it was."""
    open_store().add(record())
    before = Path(path).stat().st_ino

    with pytest.raises(NotConfigured, match="is the store of the application 'shop', not of 'blog'"):
        open_store("blog").newest(1)
    assert Path(path).stat().st_ino == before


def test_database_of_something_else(tmp_path, open_store):
    """The application's own database is no store, and is not changed."""
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE user (id INTEGER)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(NotConfigured, match="is a database of something else"):
        open_store(at=str(path)).newest(1)
    assert path.read_bytes() == before


def test_later_release(path, open_store):
    """A file that says that it needs a later release is refused; one that has only more in it is used."""
    store = open_store()
    store.add(record())
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE task ADD COLUMN priority INTEGER NOT NULL DEFAULT 0")
    connection.execute("UPDATE about SET value = '99' WHERE name = 'schema'")
    connection.commit()
    store.add(record())
    more = len(store.newest(10))
    store.close()
    connection.execute("UPDATE about SET value = '99' WHERE name = 'readable'")
    connection.commit()
    connection.close()

    assert more == 2
    with pytest.raises(NotConfigured, match="was written by a later release of Flask-Asok"):
        store.newest(1)


@pytest.mark.parametrize("table", ["about", "task", "process", "tick"])
def test_later_release_that_only_adds(path, open_store, table):
    """A file to which a later release has added a column serves this one as well."""
    open_store().enter("web", [])
    written = sqlite3.connect(path)
    written.execute(f"ALTER TABLE {table} ADD COLUMN region TEXT NOT NULL DEFAULT 'eu'")
    written.execute("UPDATE about SET value = '2' WHERE name = 'schema'")
    written.commit()
    written.close()
    store = open_store()

    me = store.enter("web", ["default"])
    id = store.add(record(me))
    store.take_tick("work", 1.0, id)

    assert (store.read(id).id, store.tick("work").task_id, store.probe("p")) == (id, id, "p")
    assert me in [process.token for process in store.processes()]


@pytest.mark.parametrize("name", ["readable", "schema"])
@pytest.mark.parametrize("how", ["DELETE FROM about", "UPDATE about SET value = 'new'"])
def test_release_is_not_told(path, open_store, name, how):
    """A file that does not say which release has written it is NotConfigured, which says what to do."""
    open_store().enter("web", [])
    written = sqlite3.connect(path)
    written.execute(f"{how} WHERE name = '{name}'")
    written.commit()
    written.close()

    with pytest.raises(NotConfigured, match="does not say which release"):
        open_store().newest(1)


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_not_a_plain_file(path, open_store, tmp_path, kind):
    """A link, a folder or a pipe in its place is refused, and nothing is written through it."""
    os.mkdir(os.path.dirname(path))
    if kind == "link":
        os.symlink(tmp_path / "elsewhere", path)
    elif kind == "folder":
        os.mkdir(path)
    else:
        os.mkfifo(path)

    with pytest.raises(NotConfigured, match="is not a plain file"):
        open_store().newest(1)
    assert not (tmp_path / "elsewhere").exists()


def test_folder_that_cannot_be_made(open_store):
    """The error names the setting."""
    with pytest.raises(NotConfigured, match="Set ASOK_STORE to a path that this process can write"):
        open_store(at="/proc/shop/asok.sqlite3").newest(1)


def test_read_only(path, open_store):
    """A process that may not write the file hears so at the call, with the name of the setting."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    open_store().add(record())
    for at in (os.path.dirname(path), *Path(path).parents):
        os.chmod(at, os.stat(at).st_mode | 0o055)
        if Path(at) == Path("/tmp"):
            break
    os.chmod(path, 0o644)
    code = f"""
import os
from flask_asok.store.sqlite import SQLiteStore
from flask_asok import NotConfigured
os.setuid(65534)
try:
    SQLiteStore({path!r}, "shop").cancel("0")
except NotConfigured as error:
    print(error)
else:
    print("opened")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)

    assert "Set ASOK_STORE to a path that this process can write" in done.stdout, done


def test_full_disk(tmp_path):
    """On a full disk a call raises, what was kept stays, and calls work again when there is room."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    store = SQLiteStore(str(disk / "asok.sqlite3"), "shop")
    try:
        kept = [store.add(record())]

        def fill():
            while True:
                kept.append(store.add(record(message="x" * 20_000)))

        with pytest.raises(BackendUnavailable, match="cannot be used"):
            fill()
        there = [each.id for each in store.newest(1_000)]
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        again = store.add(record())

        assert sorted(there) == sorted(kept)
        assert store.read(again) is not None
    finally:
        store.close()
        subprocess.run(["umount", disk], check=True)


def damage(path):
    with open(path, "r+b") as written:
        written.write(b"no database at all" * 200)


def test_unknown_to_sqlite(path, open_store):
    """What SQLite refuses is BackendUnavailable, whatever it says."""
    store = open_store()
    store.add(record())
    store._change("ALTER TABLE task RENAME TO moved", ())

    with pytest.raises(BackendUnavailable, match="no such table"):
        store.newest(10)


def test_damaged(path, open_store, caplog):
    """A damaged file that nobody has open is set aside with an ERROR, and a new one takes its place."""
    store = open_store()
    store.add(record())
    store.close()
    damage(path)

    assert store.newest(10) == []
    (kept,) = [name for name in os.listdir(os.path.dirname(path)) if ".damaged-" in name]
    assert kept in caplog.text
    assert Path(os.path.dirname(path), kept).read_bytes().startswith(b"no database at all")


@pytest.mark.parametrize("when", ["at the next start", "at the next call"])
def test_damaged_page(path, open_store, caplog, when):
    """A file of which a page is damaged is set aside too, once a call has met that."""
    store = open_store()
    me = store.enter("web", [])
    for _ in range(100):
        store.add(record(me, error="x" * 500))
    (root,) = store._rows("SELECT rootpage FROM sqlite_master WHERE name = 'task'", ())[0]
    store.close()
    with open(path, "r+b") as written:
        written.seek((root - 1) * 4096)
        written.write(b"\xff" * 4096)
    store = open_store()
    store.enter("web", [])

    with pytest.raises(BackendUnavailable, match="malformed"):
        store.newest(10)
    if when == "at the next start":
        store.close()
        store = open_store()

    assert store.newest(10) == []
    id = store.add(record(store.enter("web", [])))
    assert store.read(id).id == id
    assert "was damaged" in caplog.text
    assert not any(name.endswith(file.SUSPECT) for name in os.listdir(os.path.dirname(path)))


def test_damaged_while_others_live(path, open_store, start):
    """A damaged file that another process has open stays where it is, and the call raises."""
    other = start("live")
    other.stdout.readline()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    damage(path)

    with pytest.raises(BackendUnavailable, match="1 other processes have it open"):
        open_store().newest(1)
    assert Path(path).read_bytes().startswith(b"no database at all")


# Life


def test_kill(path, open_store, start):
    """A process that was killed with -9 does not live any more; its task is abandoned and its key is free."""
    other = start("live")
    token, id, _ = other.stdout.readline().split()
    store = open_store()
    me = store.enter("web", [])
    alive = store.is_alive(token), len(store.processes()), store.get(id).state
    os.kill(other.pid, signal.SIGKILL)
    other.wait(10)

    mine = record(me, key="export")

    assert alive == (True, 2, "queued")
    assert not store.is_alive(token)
    assert store.add(mine) == mine.id
    assert store.get(id).state == "abandoned"
    assert [process.token for process in store.processes()] == [me]
    assert not lifeline.path_of(path, token).exists()


def test_lost_by_the_thousand(path, open_store, start):
    """A list settles all that a killed process has left, and finds it by its index: it does not read the table."""
    other = start("live")
    token, *_ = other.stdout.readline().split()
    store = open_store()
    mine = store.add(record(store.enter("web", []), state="running"))
    for _ in range(1_200):
        store.add(record(token, state="running"))
    os.kill(other.pid, signal.SIGKILL)
    other.wait(10)

    assert [each.id for each in store.listed(10, state="running")] == [mine]
    assert len(store.listed(10_000, state="abandoned")) == 1_201
    for statement, values in ((statements.OWNERS, ()), (statements.LOSE, (1.0, "", token, 10))):
        plan = [row[3] for row in store._connected().execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert not [step for step in plan if step.startswith("SCAN task") and "INDEX" not in step], plan
        assert [step for step in plan if "INDEX task_open" in step], plan


def test_stopped_process_lives(open_store, start):
    """A process that is stopped is not taken for a dead one."""
    other = start("live")
    token, id, _ = other.stdout.readline().split()
    store = open_store()

    os.kill(other.pid, signal.SIGSTOP)
    try:
        assert store.is_alive(token)
        assert store.get(id).state == "queued"
    finally:
        os.kill(other.pid, signal.SIGCONT)


def test_killed_with_a_child_that_lives(open_store, path, tmp_path):
    """A forked child that goes on does not keep its killed parent alive."""
    code = f"""
import os, sys, time
from flask_asok.store.sqlite import SQLiteStore
store = SQLiteStore({path!r}, "shop")
me = store.enter("web", [])
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print(me, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    token = parent.stdout.readline().strip()
    store = open_store()
    before = store.is_alive(token)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)

    assert before
    assert not store.is_alive(token)
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.parametrize("count", [2, 8])
def test_many_processes(open_store, start, count):
    """Many processes write at once, and none of them ever hears that the file is locked."""
    processes = [start("write", 100) for _ in range(count)]

    assert [process.communicate(timeout=110)[0] for process in processes] == ["done\n"] * count
    store = open_store()
    assert [each.state for each in store.newest(10_000)] == ["succeeded"] * 100 * count


def test_unique_in_many_processes(start):
    """Of eight processes that take a key at once one gets it, and the others learn whose it is."""
    processes = [start("unique") for _ in range(8)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()

    got = [process.stdout.readline().split() for process in processes]

    assert len({id for id, _ in got}) == 1
    assert sum(id == own for id, own in got) == 1


EXEC = """
import os, sys
from flask_asok.store.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1], "shop")
print(store.enter("web", []), flush=True)
sys.stdin.readline()
program = "import sys; print('another program', flush=True); sys.stdin.readline()"
os.execv(sys.executable, [sys.executable, "-c", program])
"""


def test_exec(path, open_store):
    """A process that becomes another program has ended, for those that share the store."""
    command = [sys.executable, "-c", EXEC, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        token = process.stdout.readline().strip()
        store = open_store()
        before = store.is_alive(token)
        process.stdin.write("\n")
        process.stdin.flush()

        assert process.stdout.readline() == "another program\n"
        assert (before, store.is_alive(token)) == (True, False)
        process.communicate("\n", timeout=30)


FORKS = """
import json, multiprocessing, os, secrets, subprocess, sys, threading, time
from flask_asok.store.base import Record
from flask_asok.store.sqlite import SQLiteStore

store = SQLiteStore(sys.argv[1], "shop")
me = store.enter("web", [])

def add(owner):
    now = time.time()
    return store.add(Record(id=secrets.token_hex(16), name="work", queue="default", enqueued=now, due=now, owner=owner))

def child(parent):
    assert store.is_alive(parent)
    mine = store.enter("web", [])
    assert mine != parent
    for _ in range(20):
        add(mine)
    store.close()
    os._exit(0)

closing = threading.Event()
counts = []

def churn():
    count = 0
    while not closing.is_set():
        add(me)
        count += 1
    counts.append(count)

if __name__ == "__main__":
    add(me)
    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            child(me)
        children.append(pid)
        subprocess.run([sys.executable, "-c", ""], check=True)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    for method in ("fork", "forkserver", "spawn"):
        process = multiprocessing.get_context(method).Process(target=int)
        process.start()
        process.join(90)
        codes.append(process.exitcode)
    closing.set()
    for thread in threads:
        thread.join(30)
    problems = store._connected().execute("PRAGMA integrity_check").fetchall()
    rows = len(store.newest(1_000_000))
    print(json.dumps([codes, len(store.processes()), rows - sum(counts), problems]))
"""


def test_forks(path, tmp_path):
    """Forks in the middle of the writes of other threads lose nothing, and each child is a process of its own."""
    program = tmp_path / "forks.py"
    program.write_text(FORKS)

    done = subprocess.run([sys.executable, program, path], capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[0] * 13, 1, 1 + 10 * 20, [["ok"]]]


def test_no_other_descriptor(path, open_store, tmp_path):
    """
    The process opens the file, its -wal and its -shm in no other way than by SQLite.

    A descriptor of them that is closed would drop every lock that SQLite holds, and with them committed rows.
    """
    opened = []

    def listen(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            opened.append(os.fsdecode(arguments[0]))

    sys.addaudithook(listen)
    store = open_store()
    me = store.enter("web", [])
    store.settle(store.add(record(me)), 0, "cancelled")
    store.processes()
    store.close()
    open_store().newest(1)

    assert not {path, f"{path}-wal", f"{path}-shm"}.intersection(opened)
    assert str(lifeline.path_of(path, me)) in opened


def test_own_lock_file_is_opened_once(path, open_store):
    """A process opens its own lock file once, however many stores it has: closing it again would free the lock."""
    opened = []

    def listen(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            opened.append(os.fsdecode(arguments[0]))

    sys.addaudithook(listen)
    store = open_store()
    me = store.enter("web", [])
    store.get(store.add(record(me, state="running")))
    store.processes()
    open_store().processes()

    assert opened.count(str(lifeline.path_of(path, me))) == 1


def test_remote_mount(tmp_path, monkeypatch):
    """A file on NFS and the like is refused, with the mount and its type."""
    table = tmp_path / "mountinfo"
    table.write_text(
        f"22 1 0:20 / / rw - overlay overlay rw\n40 22 0:41 / {tmp_path}/with\\040space rw - nfs4 server:/shop rw\n"
    )
    monkeypatch.setattr(file, "MOUNTS", table)

    assert file.mount_of(str(tmp_path / "a")) == ("/", "overlay")
    with pytest.raises(NotConfigured, match="a mount of type nfs4"):
        file.make(str(tmp_path / "with space" / "asok.sqlite3"))
