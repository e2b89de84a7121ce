"""An application that uWSGI's master imports; it is in the middle of several things when the workers are forked."""

import os
import threading
from pathlib import Path

from flask import Flask

from flask_asok import Cache, FlaskAsok, background, process
from flask_asok.recipes.cache.stores.lru_store import LRUStore
from flask_asok.recipes.images import atomic
from flask_asok.store.base import Record
from flask_asok.store.sqlite import SQLiteStore
from flask_asok.waiting import waits

FOLDER = Path(os.environ["FOLDER"])
WAIT = 20

app = Flask(__name__)
FlaskAsok(app)
cache = Cache()
own_cache = Cache(LRUStore())
store = SQLiteStore(str(FOLDER / "asok.sqlite3"), "forked")
never = threading.Event()
deferred = []
renewing, may_end = threading.Event(), threading.Event()
renewed, renewals = [], []


def rename(old, new, replace=os.replace):
    if Path(new).name == "first":
        began.release()
        never.wait()
    replace(old, new)


def wait_for_response():
    with app.test_request_context():
        deferred.append(background.using(when="response")(int))
        began.release()
        never.wait()


def join():
    began.release()
    deferred[0].join()


def replace_file():
    (FOLDER / "temporary").touch()
    atomic.rename(str(FOLDER / "temporary"), str(FOLDER / "first"))


def load():
    began.release()
    never.wait()


def fill_cache():
    with app.app_context():
        cache.remember("key", load)


def fill_own_cache():
    own_cache.remember("key", load)


def add(id):
    store.add(Record(id=id, name="work", queue="default", enqueued=store.now(), due=store.now()))
    return store.read(id).state


def open_files():
    """Return how many descriptors of the store's file this process has."""
    return sum("asok.sqlite3" in os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())


def in_time(do):
    """Return what `do` returns, or "too late"."""
    results = ["too late"]
    thread = threading.Thread(target=lambda: results.append(do()), daemon=True)
    thread.start()
    thread.join(WAIT)
    return results[-1]


def replace_another():
    (FOLDER / "other").touch()
    atomic.rename(str(FOLDER / "other"), str(FOLDER / "second"))
    return (FOLDER / "second").exists()


def fill_cache_here():
    with app.app_context():
        return cache.remember("key", lambda: "loaded")


def hook():
    """What a child renews: it takes its time, and another thread of the child must wait for it."""
    renewing.set()
    renewed.append(may_end.wait(WAIT))


def come_second():
    process.renew()
    return len(renewed)


def renew_in_two_threads():
    """Return how often the hook had run when the first thread, and when the second one, was through."""
    found = []
    first, second = (threading.Thread(target=lambda: found.append(come_second())) for _ in range(2))
    first.start()
    renewing.wait(WAIT)
    second.start()
    second.join(0.1)
    may_end.set()
    first.join(WAIT)
    second.join(WAIT)
    return found


def early(environ, start_response):
    """Serve `app`, and renew what a child must before anything else of it does."""
    if not renewals:
        renewals.extend(renew_in_two_threads())
    return app(environ, start_response)


@app.get("/")
def index():
    inherited = open_files()
    background(int).join(WAIT)
    return {
        "renewals": renewals,
        "deferred": deferred[0].state,
        "joined": len(waits),
        "renamed": in_time(replace_another),
        "loaded": in_time(fill_cache_here),
        "loaded into its own": in_time(lambda: own_cache.remember("key", lambda: "loaded")),
        "inherited": inherited,
        "stored": in_time(lambda: add("of the worker")),
        "of_master": in_time(lambda: store.read("of the master").state),
    }


process.after_fork(hook)
began = threading.Semaphore(0)
os.replace = rename
for target in (wait_for_response, join, replace_file, fill_cache, fill_own_cache):
    threading.Thread(target=target, daemon=True).start()
    assert began.acquire(timeout=WAIT)
add("of the master")
