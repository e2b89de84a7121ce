"""Rows that somebody else has written, or spoilt: each is told as far as it goes, and hides no other."""

import json
import re

import pytest
import redis

from flask_asok import BackendUnavailable, FlaskAsok, background
from flask_asok.sharing import open_store
from flask_asok.store.base import Record

asok = FlaskAsok()

TIMES = ["enqueued", "due", "scheduled", "started", "finished"]
TEXTS = ["name", "queue", "function", "origin", "owner", "error", "traceback", "history", "key", "unique_key"]
OTHERS = ["attempts", "claim", "deaths", "stopping", "progress", "outcome", "message"]
VALUES = [1e300, -1.0, float("inf"), float("nan"), "soon", b"\xff\xfe", "1e400 nan 7\n", "[1, 2, 3, 1e300]"]
PAGES = ["", "tasks", "tasks?state=failed", "functions", "periodic", "processes"]


@pytest.fixture(params=["file", "redis"])
def shop(request, make_app, tmp_path):
    """An application with the dashboard, and a store that others can write to."""
    where = str(tmp_path / "asok.sqlite3")
    if request.param == "redis":
        where = f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}"
        with redis.Redis.from_url(where) as client:
            client.flushall()
    app = make_app(ASOK_STORE=where, ASOK_TRACKED=True)
    app.register_blueprint(asok.dashboard(access=lambda: "write"), url_prefix="/ops")
    app.register_blueprint(asok.status(), url_prefix="/status")
    with app.app_context():
        yield app


def forge(app, id, name, value):
    """Write into the store what no process would."""
    store = open_store(app)
    if hasattr(store, "redis"):
        store.redis.hset(store.key(f"task:{id}"), name, as_redis_has_it(value))
        return
    store._change(f"UPDATE OR IGNORE task SET {name} = ? WHERE id = ?", (value, id))
    if isinstance(value, bytes) and id.startswith("f"):
        # A text that is none, where it is a blob in the other row.
        store._change(f"UPDATE task SET {name} = CAST({name} AS TEXT) WHERE id = ?", (id,))


def lists(app):
    """Look at every list that there is."""
    client, runner = app.test_client(), app.test_cli_runner()
    for page in PAGES:
        answer = client.get(f"/ops/{page}")
        assert answer.status_code == 200, (page, answer.text)
        yield answer.text
    for command in (["tasks"], ["tasks", "--json"], ["failed"], ["status"], ["status", "--json"]):
        done = runner.invoke(args=["asok", *command])
        assert done.exit_code == 0, (command, done.output, done.exception)
    json.dumps([one.as_dict() for one in asok.tasks()], allow_nan=False)
    assert asok.queues() and asok.processes() is not None


@pytest.mark.parametrize("name", [*TIMES, *TEXTS, *OTHERS])
def test_fields(shop, name):
    """A time that is no date, or a value of another type, is a 500 of no page and an error of no command."""
    store = open_store(shop)
    for number, value in enumerate([None, *VALUES]):
        for letter, state in (("e", "queued"), ("f", "failed")):
            add(store, f"{letter}{number:031}", state)
            if value is not None:
                forge(shop, f"{letter}{number:031}", name, value)

    pages = list(lists(shop))

    assert f"e{0:031}" in pages[1] and f"f{0:031}" in pages[1] and f"f{0:031}" in pages[2]
    for number in range(len(VALUES)):
        for id in (f"e{number:031}", f"f{number:031}"):
            assert shop.test_client().get(f"/ops/tasks/{id}").status_code == 200
            assert shop.test_client().get(f"/status/{id}").status_code == 200
            # It is still there, for whoever looks for what has happened.
            assert store.read(id) is not None


def add(store, id, state):
    """Add a record that nothing is wrong with."""
    now = store.now()
    times = dict.fromkeys(("enqueued", "due", "started"), now - 2)
    if state == "failed":
        times["finished"] = now - 1
    message = "signed" if state == "queued" else None
    store.add(
        Record(id=id, name="charge", queue="mail", state=state, attempts=1, owner=store.me, message=message, **times)
    )


def test_state(shop):
    """A state that there is not keeps no other record from being listed."""
    store = open_store(shop)
    add(store, "e" * 32, "queued")
    add(store, "f" * 32, "failed")
    forge(shop, "f" * 32, "state", "lost")
    forge(shop, "f" * 32, "finished", 0.0)

    pages = list(lists(shop))

    assert "e" * 32 in pages[1]
    assert {queue.name: queue.queued for queue in asok.queues()}["mail"] == 1


def test_the_others(shop):
    """What is not forged is listed as ever, and a list goes on behind what is."""
    tasks = [background(int) for _ in range(60)]
    for task in tasks:
        task.join(10)
    forge(shop, tasks[30].id, "enqueued", float("inf"))
    forge(shop, tasks[40].id, "finished", "never")
    client, found, page = shop.test_client(), set(), "/ops/tasks"

    while page:
        text = client.get(page).text
        found |= set(re.findall(r'id="task-([0-9a-f]+)"', text))
        older = re.search(r'<a href="([^"]+)" rel="next">', text)
        page = older and older[1].replace("&amp;", "&")

    assert {task.id for task in tasks} - found <= {tasks[30].id}


@pytest.mark.parametrize("name", ["host", "pid", "kind", "since", "queues"])
def test_processes(shop, name):
    """So it is with what a store has of a process."""
    store = open_store(shop)
    store.enter("web", ["mail"])
    for value in VALUES:
        if hasattr(store, "redis"):
            store.redis.hset(store.key(f"process:{store.me}"), name, as_redis_has_it(value))
        else:
            store._change(f"UPDATE OR IGNORE process SET {name} = ?", (value,))

        assert all(lists(shop))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_ticks(shop, value):
    """And with the tick of a periodic task."""
    store = open_store(shop)
    store.take_tick("job", 60.0, "1" * 32)
    if hasattr(store, "redis"):
        found = value if isinstance(value, bytes) else json.dumps([str(value), ""])
        store.redis.hset(store.key("ticks"), "job", found)
    else:
        store._change("UPDATE OR IGNORE tick SET at = ?", (value,))

    tick = store.tick("job")

    assert tick is None or 0 <= tick.at < 1e11


def as_redis_has_it(value):
    return value if isinstance(value, bytes) else str(value)


@pytest.fixture
def file_store(make_app, tmp_path):
    """The store of an application in a file."""
    app = make_app(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    with app.app_context():
        yield open_store(app)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("claim", "many"), ("claim", -1), ("claim", b"\xff"), ("finished", 1.0), ("finished", "soon"),
        ("owner", b"\xff"), ("id", b"\xff\xfe"), ("state", b"running"), ("state", "succeeded"),
    ],
)  # fmt: skip
def test_key_of_a_row_that_cannot_be_settled(file_store, name, value):
    """A unique key that a damaged row of a lost process holds is free for the next call."""
    lost = Record(id="0" * 32, name="n", queue="default", state="running", claim=1, owner="dead", key="k")
    file_store.add(lost)
    file_store._change(f"UPDATE task SET {name} = ? WHERE key = 'k'", (value,))

    record = Record(id="1" * 32, name="n", queue="default", owner=file_store.me, key="k")

    assert file_store.add(record) == record.id
    assert file_store.add(Record(id="2" * 32, name="n", queue="default", owner=file_store.me, key="k")) == record.id


def test_rows_whose_state_is_no_text(file_store):
    """A deferred task, or one to be retried, whose row is damaged is told of, and holds up no caller."""
    for id, state in (("0" * 32, "waiting"), ("1" * 32, "failed")):
        file_store.add(Record(id=id, name="n", queue="default", state=state, owner=file_store.me, message="m"))
        file_store._change("UPDATE task SET state = ? WHERE id = ?", (state.encode(), id))

    with pytest.raises(BackendUnavailable, match="damaged"):
        file_store.release("0" * 32, 0.0)
    with pytest.raises(BackendUnavailable, match="damaged"):
        file_store.retry("1" * 32)
