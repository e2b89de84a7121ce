"""What a look at a store in Redis costs, and what it says where there is too much to look at."""

import re

import pytest
import redis

from flask_asok import FlaskAsok, background
from flask_asok.sharing import open_store
from flask_asok.store import ranked
from flask_asok.store.pages import Wanted
from flask_asok.store.record import Record

asok = FlaskAsok()

BACKLOG = 1_100
"""More than are looked at in two steps."""


def fail():
    raise ValueError("the one failure")


@pytest.fixture
def shop(make_app, redis_port):
    """An application with the dashboard, whose store has one failure, and then very many tasks that succeeded."""
    with redis.Redis(port=redis_port) as client:
        client.flushall()
    app = make_app(ASOK_STORE=f"redis://127.0.0.1:{redis_port}", ASOK_TRACKED=True)
    app.register_blueprint(asok.dashboard(access=lambda: "read"), url_prefix="/ops")
    with app.app_context():
        background(fail).join(10)
        store = open_store(app)
        for n in range(BACKLOG):
            now = store.now()
            record = Record(id=f"f{n:031x}", name="work", queue="mail", enqueued=now, due=now - n, owner=store.me)
            store.add(record)
            if n % 2:
                store.settle(record.id, 0, "succeeded")
        yield app


def reads_of(app, look):
    """Return how many whole records were read for a look."""
    client = open_store(app).redis
    client.config_resetstat()
    look()
    return client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"]


def test_one_failure(shop):
    """One failure is counted and listed, whatever succeeded since, and whole records are read of what is shown only."""
    client = shop.test_client()
    found = []

    reads = reads_of(shop, lambda: found.append(client.get("/ops/").text))

    assert re.search(r"Failed, last hour</dt><dd>.*?>1</a>", found[0])
    assert "the one failure" in found[0] and f"at most {BACKLOG // 2 + 1:,} a minute" in found[0]
    assert "the one failure" in client.get("/ops/tasks?state=failed").text
    assert reads < 10


def test_backlog(shop):
    """The queues of a backlog are counted without a look at its messages."""
    store, found = open_store(shop), []

    reads = reads_of(shop, lambda: found.extend(store.queues()))

    (mail,) = found
    assert (mail.queued, mail.running, mail.waiting) == (BACKLOG // 2, 0, 0)
    assert mail.oldest_due_at < store.now() - BACKLOG + 10
    assert reads == 0


def test_more_than_is_counted(shop, monkeypatch):
    """Of more than is counted the page says since when it counts."""
    monkeypatch.setattr(ranked, "MOST_COUNTED", 100)

    text = shop.test_client().get("/ops/").text

    assert re.search(r"Done, since <time[^>]*>[^<]*</time></dt><dd>100</dd>", text)
    assert "counted since" in text and "last hour</dt>" not in text


def test_more_than_is_looked_at(shop, monkeypatch):
    """A list that has not looked at all tasks does not say that none matches."""
    monkeypatch.setattr(ranked, "MOST_LOOKED_AT", 300)
    client = shop.test_client()

    text = client.get("/ops/tasks?state=failed").text

    assert "None of the tasks that were looked at matches; there are older ones." in text
    for _ in range(10):
        text = client.get(re.search(r'href="([^"]+)" rel="next"', text)[1].replace("&amp;", "&")).text
        if "the one failure" in text:
            break
    assert "the one failure" in text


def test_a_page_and_its_rest(shop):
    """A page with a filter is full, and its rest begins where it ends, however many stand between."""
    store = open_store(shop)
    found, rest = [], None

    while True:
        page = store.page(200, Wanted(state="succeeded"), rest)
        found += [record.id for record in page.records]
        rest = page.rest
        if rest is None:
            break

    assert found == [f"f{n:031x}" for n in reversed(range(BACKLOG)) if n % 2]
