"""What the dashboard shows and does of a task whose call is written down: its arguments, and one more try."""

import importlib.util
import sys
from pathlib import Path

import pytest

from flask_asok import FlaskAsok, background, send_webhook
from flask_asok.durable.sweeper import sweeper_of

spec = importlib.util.spec_from_file_location("dashboard_jobs", Path(__file__).parent / "dashboard_jobs.py")
jobs = sys.modules["dashboard_jobs"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(jobs)

asok = FlaskAsok()


@pytest.fixture
def failed(make_dashboard):
    """Call `charge` in an application whose dashboard shows arguments as told, and return client and page."""

    def failed(arguments, *args, fn=jobs.charge, **kwargs):
        jobs.calls.clear()
        jobs.works.clear()
        app = make_dashboard(arguments=arguments, ASOK_TASK_MODULES=["dashboard_jobs"])
        with app.app_context():
            task = background.using(durable=True)(fn, *args, **kwargs)
            task.join(10)
        return app, app.test_client(), f"/tasks/tasks/{task.id}"

    return failed


def test_retry(failed, press):
    """A failed task whose call is written down runs once more at a press."""
    app, client, page = failed(False, 4711)
    jobs.works.append(True)

    answer = press(client, page, f"{page}/retry")
    sweeper_of(app).look()

    assert answer.location == f"{page}?said=retried"
    with app.app_context():
        task = asok.get(page.rpartition("/")[2])
        task.join(10)
        assert task.state == "succeeded"
    assert jobs.calls == [4711, 4711]
    assert press


def test_not_shown(failed):
    """Without `arguments=True` no argument is on the page."""
    # Long, for four digits may stand in an id on the page.
    _, client, page = failed(False, 47114711471, url="visible")

    text = client.get(page).text

    assert "47114711471" not in text and "visible" not in text and "Arguments" not in text


def test_redacted(failed):
    """What has the name of a secret is hidden, at any depth and in every kind of value; so is what an address hides."""
    data = {
        "name": "Ann", "API-Key": "hush1", "deep": [{"Authorization": "hush2"}], "pairs": (("session_id", "hush3"),),
        7: "seven",
    }  # fmt: skip
    _, client, page = failed(
        True, 4711, "hush4", data, url="https://user:hush5@hooks.example/hush6?hush7", card=jobs.Card("Ann", "hush8")
    )

    text = client.get(page).text

    assert "4711" in text and "Ann" in text and "seven" in text and "hooks.example" in text
    assert "hush" not in text
    assert "(hidden)" in text


@pytest.mark.parametrize(
    "value",
    [
        "https://user:pass/hush@hooks.example/x",
        "redis://:pass?hush@hooks.example",
        "Go on at https://hooks.example/hush, please",
        "<https://user:hush@hooks.example>",
        ["https://hooks.example/hush"],
        {"https://user:hush@hooks.example/": 1},
    ],
    ids=repr,
)
def test_addresses(failed, value):
    """Of an address, wherever it stands, the path, the query and the user are hidden."""
    _, client, page = failed(True, value)

    text = client.get(page).text

    assert "hush" not in text
    assert "://" in text


@pytest.mark.parametrize(
    "value",
    [
        {"accessKey": "hush"},
        {"privateKey": "hush"},
        {"API key": "hush"},
        {"signing_key": "hush"},
        {"encryptionKey": "hush"},
        [(b"Authorization", b"hush")],
        {b"password": "hush"},
        {("ann", "password"): "hush"},
        {jobs.Field.PASSWORD: "hush"},
    ],
    ids=repr,
)
def test_names_of_secrets(failed, value):
    """A name of a secret is one in every spelling, and in every kind of key."""
    _, client, page = failed(True, value)

    text = client.get(page).text

    assert "(hidden)" in text and "hush" not in text


@pytest.mark.parametrize(
    "value",
    [
        b'{"user": "Ann", "deep": [{"password": "hush"}]}',
        bytearray(b'{"user": "Ann", "password": "hush"}'),
        '{"user": "Ann", "password": "hush"}',
        {'{"user": "Ann", "password": "hush"}': 1},
        ['{"user": "Ann", "inner": "{\\"password\\": \\"hush\\"}"}'],
    ],
    ids=repr,
)
def test_json(failed, value):
    """Bytes or a text of JSON are shown without their secrets."""
    _, client, page = failed(True, value)

    text = client.get(page).text

    assert "Ann" in text and "(hidden)" in text and "hush" not in text


@pytest.mark.parametrize(
    "value",
    [
        b"https://hooks.example/hush", b"password=hush", b'"hush"', b"hush\xff", b'{"password": "hush"',
        b'{"__asok__": "bytes", "": 5, "hush": ""}', b'[{"__asok__": "bytes"}, "hush"]', b"[" * 90_000 + b"hush",
    ],
    ids=lambda value: repr(value[:40]),
)  # fmt: skip
def test_bytes(failed, value):
    """Of bytes that are not JSON the page shows how many there are: nobody knows what is in them."""
    _, client, page = failed(True, value)

    text = client.get(page).text

    assert f"({len(value):,} bytes)" in text and "hush" not in text


def test_webhook(make_dashboard):
    """The payload of a webhook, which is written down as it will be sent, is shown without its secrets."""
    app = make_dashboard(arguments=True)
    with app.app_context():
        task = background.using(durable=True, delay=3_600)(
            send_webhook, "https://hooks.example/", {"user": "Ann", "password": "hush"}
        )

    text = app.test_client().get(f"/tasks/tasks/{task.id}").text

    assert "Ann" in text and "hush" not in text


def test_wrapper(failed):
    """Behind a decorator, which may add an argument, nobody knows the name of one: it is not shown."""
    _, client, page = failed(True, "hush", fn=jobs.log_in)

    text = client.get(page).text

    assert "(hidden)" in text and "hush" not in text


class Odd:
    def __str__(self):
        raise RuntimeError("no text")


def loop():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize("shown", [Odd(), loop(), 10**5_000, {"__asok__": []}], ids=["odd", "loop", "long", "tag"])
def test_function_that_returns_something_odd(failed, shown):
    """What a function returns that cannot be shown is hidden, and the page is there."""
    _, client, page = failed(lambda name, value: shown, "hush")

    answer = client.get(page)

    assert answer.status_code == 200
    assert "(hidden)" in answer.text and "hush" not in answer.text


def test_function_of_ones_own(failed):
    """A function of a name and a value says what is shown; what is a secret by its name it is not asked for."""
    asked = []

    def shown(name, value):
        asked.append(name)
        if name == "url":
            raise RuntimeError("no")
        return f"<{name}>" if name == "order_id" else value

    _, client, page = failed(shown, 47114711471, "hush", url="only-mine")

    text = client.get(page).text

    assert "&lt;order_id&gt;" in text and "47114711471" not in text and "hush" not in text and "only-mine" not in text
    assert "password" not in asked


def test_cut(failed):
    """A long value is cut."""
    _, client, page = failed(True, "x" * 5_000)

    text = client.get(page).text

    assert "x" * 150 in text and "x" * 250 not in text and "5,0" in text


def test_unnamed(failed, monkeypatch):
    """Of a function that is gone by now no argument without a name is shown: it may be a secret."""
    _, client, page = failed(True, "hush", url="seen")
    monkeypatch.delattr(jobs, "charge")

    text = client.get(page).text

    assert "hush" not in text and "seen" in text


def test_foreign_message(failed):
    """A message that this application has not signed is not read."""
    app, client, page = failed(True, "hush")
    app.secret_key = "another"

    text = client.get(page).text

    assert "hush" not in text and "cannot be read" in text


def test_arguments_is_checked():
    """What is neither True, False nor a function is a TypeError at the call."""
    with pytest.raises(TypeError, match="arguments must be"):
        asok.dashboard(arguments="yes")
