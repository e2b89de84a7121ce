"""The pytest plugin, tried as its users have it: in test files of their own, run by pytest."""

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from flask import Flask
from flask_asok import FlaskAsok, background

sent = []

def greet(name, punctuation="!"):
    sent.append(name + punctuation)
    return name

def break_down():
    raise LookupError("no such thing")

@pytest.fixture(params=["threads", "immediate"])
def app(request):
    sent.clear()
    app = Flask("users_app")
    app.config["ASOK_BACKEND"] = request.param
    asok = FlaskAsok(app)

    @app.get("/greet/<name>")
    def view(name):
        background(greet, name)
        return "hello"

    @app.get("/late")
    def late():
        background.using(when="response")(greet, "late")
        return "hello"

    @app.get("/break")
    def break_view():
        background(break_down)
        return "fine"

    yield app
    asok.close(app)

@pytest.fixture
def client(app):
    return app.test_client()
"""


@pytest.fixture
def run(pytester):
    """Run a test file of a user, with an app of theirs, and return pytest's outcome."""
    pytester.makeconftest(CONFTEST)
    # Their own configuration, even where the temporary folder is below this project's.
    pytester.makeini("[pytest]")

    def run(source):
        pytester.makepyfile(
            "from conftest import background, break_down, greet, sent\nimport pytest\n" + source,
        )
        return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")

    return run


def test_tasks_run_and_are_seen(run):
    """Without capture() tasks run as ever; wait() waits for them and assert_called finds them."""
    outcome = run("""
def test_it(client, asok_tasks):
    client.get("/greet/Ada")
    tasks = asok_tasks.wait()
    assert sent == ["Ada!"] and [task.result() for task in tasks] == ["Ada"]
    call = asok_tasks.assert_called(greet, "Ada")
    assert call.args == ("Ada",) and repr(call) == "greet('Ada')"
    asok_tasks.assert_called(greet)
    asok_tasks.assert_not_called(break_down)
    with pytest.raises(AssertionError, match="No such call.*greet.*Calls were: .greet.'Ada'.."):
        asok_tasks.assert_called(greet, "Grace")
    with pytest.raises(AssertionError, match="was called"):
        asok_tasks.assert_not_called()
""")

    outcome.assert_outcomes(passed=2)


def test_captured_tasks_run_on_demand(run):
    """After capture() nothing runs before run(), which also runs what those tasks start, and waits for no delay."""
    outcome = run("""
def chain():
    background.using(delay=3600)(greet, "Grace")

def test_it(app, client, asok_tasks):
    asok_tasks.capture()
    client.get("/greet/Ada")
    with app.app_context():
        background(chain)
    assert sent == []

    tasks = asok_tasks.run()

    assert sent == ["Ada!", "Grace!"]
    assert [task.name for task in tasks] == ["greet", "chain", "greet"]
    assert {task.state for task in tasks} == {"succeeded"}
""")

    outcome.assert_outcomes(passed=2)


def test_retries_do_not_wait(run):
    """run() makes the attempts of a captured task one after the other, whatever the backoff."""
    outcome = run("""
def flaky(seen=[]):
    seen.append(1)
    if len(seen) % 3:
        raise ConnectionError("later")
    return "done"

def test_it(app, asok_tasks):
    asok_tasks.capture()
    with app.app_context():
        background.using(retries=2, backoff=3600)(flaky)

    (task,) = asok_tasks.run()

    assert (task.attempts, task.result()) == (3, "done")
""")

    outcome.assert_outcomes(passed=2)


def test_unexpected_error_fails_the_test(run):
    """A task that fails, and that nobody expected to, fails the test: failed, not an error in its teardown."""
    outcome = run("""
def test_it(client, asok_tasks):
    assert client.get("/break").status_code == 200
""")

    outcome.assert_outcomes(failed=2)
    outcome.stdout.fnmatch_lines(["*Background tasks failed: break_down(): LookupError('no such thing')*"])


def test_expected_error(run):
    """An announced error is fine, and at hand; an announced one that does not come fails the test."""
    outcome = run("""
def test_it(client, asok_tasks):
    with asok_tasks.expect_error(LookupError) as errors:
        client.get("/break")
    assert [str(error) for error in errors] == ["no such thing"]

def test_captured(client, asok_tasks):
    asok_tasks.capture()
    client.get("/break")
    with asok_tasks.expect_error(LookupError):
        asok_tasks.run()

def test_it_does_not_come(client, asok_tasks):
    with asok_tasks.expect_error(LookupError):
        client.get("/greet/Ada")
""")

    outcome.assert_outcomes(passed=4, failed=2)
    outcome.stdout.fnmatch_lines(["*No task failed with LookupError*"])


def test_release(run):
    """Tasks for after the response start at release(), once, whether the test closes its response or not."""
    outcome = run("""
def test_it(client, asok_tasks):
    response = client.get("/late")
    assert sent == []

    asok_tasks.release()
    response.close()
    asok_tasks.wait()

    assert sent == ["late!"]
    assert asok_tasks.release() == []

def test_captured(client, asok_tasks):
    asok_tasks.capture()
    client.get("/late")
    assert asok_tasks.run() == []
    asok_tasks.release()
    assert [task.name for task in asok_tasks.run()] == ["greet"]
""")

    outcome.assert_outcomes(passed=4)


def test_wait_names_what_is_late(run):
    """A task that does not end in time is named."""
    outcome = run("""
import threading

def test_it(app, asok_tasks):
    if app.config["ASOK_BACKEND"] == "immediate":
        pytest.skip("the call itself waits")
    gate = threading.Event()
    with app.app_context():
        background.using(name="slow")(gate.wait, 30)

    with pytest.raises(AssertionError, match="Not settled within 0.05 s: slow.* is (queued|running)"):
        asok_tasks.wait(timeout=0.05)

    gate.set()
""")

    outcome.assert_outcomes(passed=1, skipped=1)


def test_the_backend_comes_back(run):
    """After the test the app has its own backend again, and what was kept never runs."""
    outcome = run("""
from flask_asok.testing import AsokTasks

def test_it(app, client):
    backend = app.extensions["asok"].backend
    tasks = AsokTasks(app)
    tasks.capture()
    client.get("/greet/Ada")
    client.get("/late")

    tasks.close()

    assert app.extensions["asok"].backend is backend
    assert {call.task.state for call in tasks.calls} == {"cancelled"}
    assert sent == []
""")

    outcome.assert_outcomes(passed=2)


def test_outbox(run):
    """The mails that tasks have sent are at hand, in the order they went out, once the tasks are done."""
    outcome = run("""
from flask_asok import Mail

def test_it(app, asok_tasks):
    app.config.update(MAIL_SUPPRESS_SEND=True, MAIL_DEFAULT_SENDER="shop@example.com")
    with app.app_context():
        Mail.send(to="ada@example.com", subject="Hello", body="World")

    (mail,) = asok_tasks.outbox

    assert (mail.subject, mail.recipients) == ("Hello", ["ada@example.com"])
""")

    outcome.assert_outcomes(passed=2)
