"""The promises that ship with the package, on the backends that need no server, tracked, durable and neither."""

import subprocess
import sys

import pytest

from flask_asok.testing.promises import BackendPromises

READER = """
import json, sys, threading
from flask import Flask
from flask_asok import FlaskAsok

app = Flask("shop")
app.config["ASOK_STORE"] = sys.argv[1]
asok = FlaskAsok(app)
end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), end.set()), daemon=True).start()
seen = set()
with app.app_context():
    while not end.wait(0.01):
        for task in asok.tasks(limit=10):
            found = asok.get(task.id)
            if found is not None:
                seen.add((task.id, found.as_dict()["state"]))
print(json.dumps(sorted({state for _, state in seen})))
"""

KEPT = {"untracked": {}, "tracked": {"ASOK_TRACKED": True}, "durable": {"ASOK_TRACKED": True, "ASOK_DURABLE": True}}
"""What a store has to do with the tasks of an application."""

with_and_without_store = pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Where the store is: of all tests one, which another process reads all the while."""
    path = tmp_path_factory.mktemp("store") / "asok.sqlite3"
    reader = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", READER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield str(path)
    try:
        output, errors = reader.communicate("", timeout=30)
    finally:
        reader.kill()
    assert (reader.returncode, errors) == (0, "")
    assert output == "[]\n" or "succeeded" in output


@with_and_without_store
class TestThreads(BackendPromises):
    @pytest.fixture
    def make_app(self, make_app, kept, path):
        return lambda **config: make_app(**kept, ASOK_STORE=path, **config)


@with_and_without_store
class TestImmediate(BackendPromises):
    @pytest.fixture
    def make_app(self, make_app, kept, path):
        return lambda **config: make_app(ASOK_BACKEND="immediate", **kept, ASOK_STORE=path, **config)
