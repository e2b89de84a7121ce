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
    app.config["ASOK_WEBHOOK_PER_HOST"] = 1
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


def test_kept_is_not_joined(run):
    """A test, or its page, that joins a task which it keeps gets an error, and does not hang; after run() it may."""
    outcome = run("""
import threading

def family():
    return background(greet, "Ada").result()

def test_it(app, asok_tasks):
    asok_tasks.capture()
    with app.app_context():
        task = background(family)
    for wait in (task.join, task.result, task.exception):
        with pytest.raises(RuntimeError, match="^Task family is kept until asok_tasks.run..: joining it before"):
            wait()
    with pytest.raises(TimeoutError):
        task.result(0.001)

    asok_tasks.run()

    assert task.result() == "Ada"

def test_page(app, client, asok_tasks):
    @app.get("/wait")
    def wait():
        return background(greet, "Ada").result()

    app.testing = True
    asok_tasks.capture(greet)
    with pytest.raises(RuntimeError, match="is kept until"):
        client.get("/wait")

def test_other_thread(app, asok_tasks):
    asok_tasks.capture()
    with app.app_context():
        task = background(greet, "Ada")
    results = []
    waiter = threading.Thread(target=lambda: results.append(task.result()), daemon=True)
    waiter.start()
    asok_tasks.run()
    waiter.join(10)
    assert results == ["Ada"]
""")

    outcome.assert_outcomes(passed=2 * 3)


def test_unique(run):
    """A second call with the key of a task that lives is none that a test has to wait for, or sees in `calls`."""
    outcome = run("""
def test_it(app, asok_tasks):
    app.testing = True
    asok_tasks.capture()
    with app.app_context():
        first = background.using(unique="Ada")(greet, "Ada")
        second = background.using(unique="Ada")(greet, "Bob")

    asok_tasks.run()

    assert first.id == second.id
    assert second.state == "succeeded"
    assert asok_tasks.wait() == [first]
    assert [call.args for call in asok_tasks.calls] == [("Ada",)]
""")

    outcome.assert_outcomes(passed=2)


def test_cancel_by_id(run):
    """`asok.cancel` reaches the tasks of a test by their id: one that is kept, and one that runs."""
    outcome = run("""
import threading
from flask_asok import FlaskAsok, TaskCancelled, track

@pytest.mark.parametrize("tracked", [False, True])
def test_it(app, asok_tasks, tracked):
    app.testing = True
    asok, began, gate = FlaskAsok(), threading.Event(), threading.Event()
    def hold():
        for step in track(range(3)):
            began.set()
            gate.wait(10)
    start = background.using(tracked=tracked)
    asok_tasks.capture(greet)
    with app.app_context():
        kept = start(greet, "Ada")
        assert asok.cancel(kept.id)
        if app.config["ASOK_BACKEND"] == "threads":
            held = start(hold)
            assert began.wait(10)
            assert asok.cancel(held.id, running=True)
            gate.set()
            with pytest.raises(TaskCancelled):
                held.result(10)

    asok_tasks.run()

    assert (kept.state, sent) == ("cancelled", [])
""")

    outcome.assert_outcomes(passed=4)


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


def test_the_app_is_closed_meanwhile(run):
    """What an application asks its backend is answered as ever while the fixture watches."""
    outcome = run("""
from flask_asok import FlaskAsok

def test_it(app, client, asok_tasks):
    client.get("/greet/Ada")
    (task,) = asok_tasks.wait()
    with app.app_context():
        assert [summary.id for summary in FlaskAsok().tasks()] == [task.id]
    backend = app.extensions["asok"].backend
    assert backend.runner("mail")
    with pytest.raises(KeyError):
        backend.runner("none")
    FlaskAsok().close(app)
    client.get("/greet/Eve")
    assert sent == ["Ada!", "Eve!"]
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


def test_capture_by_name(run):
    """capture(fn) keeps the tasks of the functions that it names, and lets all others run."""
    outcome = run("""
class Shop:
    def open(self):
        sent.append("open")

def chain():
    background(greet, "Grace")
    background(break_down)

def test_it(app, asok_tasks):
    shop = Shop()
    asok_tasks.capture(greet)
    asok_tasks.capture(break_down, shop.open)
    with app.app_context():
        background(greet, "Ada")
        background(chain)
        background(shop.open)
        background(sent.append, "ran")

    asok_tasks.wait()

    assert sent == ["ran"]
    asok_tasks.assert_called(greet, "Grace")
    with asok_tasks.expect_error(LookupError):
        tasks = asok_tasks.run()
    assert sorted(task.name for task in tasks) == ["break_down", "greet", "greet", "open"]
    assert sorted(sent[1:]) == ["Ada!", "Grace!", "open"]

def test_all_stays_all(app, asok_tasks):
    asok_tasks.capture(greet)
    asok_tasks.capture()
    asok_tasks.capture(greet)
    with app.app_context():
        background(sent.append, "ran")
    assert sent == [] and len(asok_tasks.run()) == 1

@pytest.mark.parametrize("wrong", ["greet", ["greet"], None, 7])
def test_wrong(asok_tasks, wrong):
    with pytest.raises(TypeError, match="capture.. takes the functions .* not an? " + type(wrong).__name__):
        asok_tasks.capture(greet, wrong)
    asok_tasks.assert_not_called()

@pytest.mark.parametrize("wrong", ["greet", [greet]])
@pytest.mark.parametrize("method", ["assert_called", "assert_not_called"])
def test_wrong_assert(client, asok_tasks, method, wrong):
    client.get("/greet/Ada")
    with pytest.raises(TypeError, match=method + ".. takes the functions .* not an? " + type(wrong).__name__):
        getattr(asok_tasks, method)(wrong)
""")

    outcome.assert_outcomes(passed=2 * 10)


def test_capture_prepared(run):
    """A job whose `@task(run=)` names another function is captured and found by the name that callers know."""
    run("""
from flask_asok import background, task

delivered = []

def deliver(to):
    delivered.append(to)

@task(prepare=lambda to: to.upper(), run=deliver)
def send(to):
    raise AssertionError("not called")

def test_captured(app, asok_tasks):
    delivered.clear()
    asok_tasks.capture(send)

    with app.app_context():
        background(send, "ann")

    call = asok_tasks.assert_called(send, "ANN")
    assert call.fn is send
    assert not delivered
    asok_tasks.run()
    assert delivered == ["ANN"]
""").assert_outcomes(passed=2)


def test_capture_recipes(run):
    """Recipes are captured, and asserted on, by themselves and by what a view calls."""
    outcome = run("""
from flask_asok import FlaskAsok, Mail, send_mail, send_webhook, warm_cache
from flask_asok.recipes.mail import send_mails

asok = FlaskAsok()

def start():
    mail = {"to": "ada@example.com", "sender": "shop@example.com", "subject": "Hi", "body": "Hi"}
    background(send_webhook, "https://hooks.example.com/", {})
    asok.send_webhook("https://hooks.example.com/", {})
    background(send_mail, **mail)
    Mail.send(**mail)
    Mail.send_many([mail])
    asok.warm_cache("posts", list, ttl=300)

@pytest.mark.parametrize(("names", "kept"), [
    ([send_webhook], ["send_webhook"] * 2),
    ([asok.send_webhook], ["send_webhook"] * 2),
    ([Mail.send], ["send_mail"] * 2),
    ([asok.send_mail], ["send_mail"] * 2),
    ([Mail.send_message, Mail.send_many], ["send_mail"] * 2 + ["send_mails"]),
    ([warm_cache], ["warm_cache"]),
    ([asok.warm_cache, send_mails], ["send_mails", "warm_cache"]),
])
def test_it(app, asok_tasks, names, kept):
    app.testing = True
    asok_tasks.capture(*names)
    with app.app_context():
        start()
    asok_tasks.wait()
    for name in names:
        asok_tasks.assert_called(name)
    asok_tasks.assert_not_called(asok.resize_image)
    assert [task.name for task in asok_tasks.run()] == kept
""")

    outcome.assert_outcomes(passed=2 * 7)


def test_nothing_is_waited_for(run):
    """Delays, backoffs and Retry(after=) of tasks that run are not waited for; the options, and what is told, stay."""
    outcome = run("""
from datetime import timedelta
from flask_asok import Retry, current_task
from flask_asok.signals import task_retried, task_started, task_succeeded

def flaky(seen):
    seen.append(1)
    if len(seen) == 1:
        raise ConnectionError("later")
    if len(seen) == 2:
        raise Retry(after=3600)
    return len(seen)

def test_it(app, asok_tasks):
    told = []
    with (
        task_started.connected_to(lambda app, task: told.append("started"), app),
        task_retried.connected_to(lambda app, task, error, wait: told.append((task.state, wait)), app),
        task_succeeded.connected_to(lambda app, task: told.append("succeeded"), app),
        app.app_context(),
    ):
        task = background.using(retries=2, backoff=1800, delay=timedelta(hours=1))(flaky, [])
        assert asok_tasks.wait() == [task]

    assert (task.state, task.attempts, task.result()) == ("succeeded", 3, 3)
    assert told == ["started", ("waiting", 1800.0), "started", ("waiting", 3600.0), "started", "succeeded"]
    assert asok_tasks.calls[0].options.delay == 3600

def test_when_released(client, asok_tasks, app):
    with app.test_request_context():
        background.using(when="response", delay=3600)(greet, "Ada")
        asok_tasks.release()
    asok_tasks.wait()
    assert sent == ["Ada!"]

def test_out_of_retries(app, asok_tasks):
    with app.app_context(), asok_tasks.expect_error(LookupError):
        task = background.using(retries=50, backoff=3600)(break_down)
    assert task.attempts == 51

def test_a_backoff_that_is_wrong_is_still_asked(app, asok_tasks):
    with app.app_context(), asok_tasks.expect_error(LookupError):
        task = background.using(retries=1, backoff=lambda attempt: "soon")(break_down)
    assert task.attempts == 1
""")

    outcome.assert_outcomes(passed=2 * 4)


def test_a_task_that_begins_itself_again(run):
    """A task that starts itself again later has its delay, so that it does not go round and round; wait() names it."""
    outcome = run("""
def poll():
    sent.append("poll")
    background.using(delay=3600)(poll)

def test_it(app, asok_tasks):
    if app.config["ASOK_BACKEND"] == "immediate":
        pytest.skip("it waits for no delay at all")
    with app.app_context():
        background.using(delay=60)(poll)

    asok_tasks.calls[0].task.join(10)
    with pytest.raises(AssertionError) as raised:
        asok_tasks.wait(0.05)

    assert sent == ["poll"]
    assert str(raised.value).startswith("Not settled within 0.05 s: poll() is waiting; next try in 3600 s. ")
    asok_tasks.calls[1].task.cancel()

def test_for_ever(app, asok_tasks):
    if app.config["ASOK_BACKEND"] == "immediate":
        pytest.skip("it never returns")
    def spin():
        if not sent:
            background(spin)
    with app.app_context():
        background(spin)
    with pytest.raises(AssertionError, match="spin.. is (queued|running)"):
        asok_tasks.wait(0.1)
    sent.append("stop")
""")

    outcome.assert_outcomes(passed=2, skipped=2)


def test_wait_names_the_cause(run):
    """A task that waits for its next try is named with the last error, the time of that try, and a way out."""
    outcome = run("""
def refuse():
    raise ConnectionRefusedError("nobody there")

def test_it(app, asok_tasks):
    if app.config["ASOK_BACKEND"] == "immediate":
        pytest.skip("it waits for nothing")
    asok_tasks.real_delays = True
    with app.app_context():
        task = background.using(retries=1, backoff=300)(refuse)
        later = background.using(delay=200, name="later")(greet, "Ada")
    while task.state != "waiting":
        task.join(0.001)

    with pytest.raises(AssertionError) as raised:
        asok_tasks.wait(timeout=0)

    assert str(raised.value) == (
        "Not settled within 0 s: "
        "refuse() is waiting; attempt 1 failed with ConnectionRefusedError('nobody there'); next try in 300 s; "
        "later('Ada') is waiting; next try in 200 s. "
        "asok_tasks.capture(refuse, greet) keeps what a test need not run; wait(timeout=...) waits longer."
    )
    task.cancel()
    later.cancel()

def test_real_delays(app, asok_tasks):
    assert asok_tasks.real_delays is False
    asok_tasks.real_delays = True
    asok_tasks.real_delays = False
    with app.app_context():
        background.using(delay=200)(greet, "Ada")
    asok_tasks.wait()
    assert sent == ["Ada!"]
""")

    outcome.assert_outcomes(passed=3, skipped=1)


def test_expected_error_says_what_came_instead(run):
    """An expected error that does not come is reported with what became of each task, and the error that came."""
    outcome = run("""
def test_it(app, client, asok_tasks):
    client.get("/greet/Eve")
    asok_tasks.capture(break_down)
    with pytest.raises(AssertionError) as raised, asok_tasks.expect_error(ValueError, KeyError):
        client.get("/greet/Ada")
        client.get("/late")
        client.get("/break")
    said = str(raised.value)
    assert said.startswith("No task failed with ValueError or KeyError: greet('Eve') succeeded; ")
    assert "greet('Ada') succeeded" in said
    assert "greet('late') is held until asok_tasks.release()" in said
    assert "break_down() is kept until asok_tasks.run()" in said

    with asok_tasks.expect_error(LookupError), pytest.raises(AssertionError) as raised:
        with asok_tasks.expect_error(ValueError):
            asok_tasks.run()
    assert "break_down() failed with LookupError('no such thing')" in str(raised.value)
    assert isinstance(raised.value.__cause__, LookupError)

def test_none(app, asok_tasks):
    with pytest.raises(AssertionError, match="No task failed with LookupError: none was started"):
        with asok_tasks.expect_error(LookupError):
            pass

@pytest.mark.parametrize("types", [(), ("ValueError",), (ValueError("x"),), (int,), ((ValueError, KeyError),)])
def test_wrong(asok_tasks, types):
    with pytest.raises(TypeError, match="expect_error.ValueError."):
        with asok_tasks.expect_error(*types):
            raise AssertionError("not reached")
""")

    outcome.assert_outcomes(passed=2 * 7)


def test_webhooks(run):
    """The webhooks of a test are at hand once its tasks are done, with all that would have been sent."""
    outcome = run("""
from flask_asok import send_webhook, verify_webhook

URL = "https://hooks.slack.com/services/T0/B0/x"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

def sign_up():
    send_webhook(URL, {"n": 2})

def test_it(app, asok_tasks):
    app.testing = True
    with app.app_context():
        first = background(send_webhook, URL, {"n": 1}, secret=SECRET, reference="endpoint-7", id="evt_1")
        first.join(10)
        background(sign_up)

    one, two = asok_tasks.webhooks

    assert one == first.result()
    assert (one.full_url, one.json, one.id, one.reference, one.status) == (URL, {"n": 1}, "evt_1", "endpoint-7", None)
    assert verify_webhook(one.headers, one.body, SECRET) == "evt_1"
    assert two.json == {"n": 2}

def test_captured(app, asok_tasks):
    app.testing = True
    asok_tasks.capture(send_webhook)
    with app.app_context():
        background(send_webhook, URL, {"n": 1})
    assert asok_tasks.webhooks == []
    asok_tasks.run()
    assert [webhook.json for webhook in asok_tasks.webhooks] == [{"n": 1}]

def test_arguments(app, asok_tasks):
    app.testing = True
    with app.app_context():
        background(send_webhook, URL, {"n": 1})
    asok_tasks.assert_called(send_webhook)
    with pytest.raises(AssertionError, match="prepare.* assert on send_webhook alone, .*asok_tasks.webhooks"):
        asok_tasks.assert_called(send_webhook, URL, {"n": 1})

def test_anew(app, asok_tasks):
    app.testing = True
    assert asok_tasks.webhooks == []
""")

    outcome.assert_outcomes(passed=2 * 4)


def test_a_busy_receiver_is_waited_for(run):
    """A webhook that is really sent waits for a host that is busy, without trying again and again meanwhile."""
    outcome = run("""
import socket
import threading
from flask_asok import send_webhook
from flask_asok.signals import task_started

def test_it(app, asok_tasks):
    starts = []
    gate, began = threading.Event(), threading.Event()
    receiver = socket.create_server(("127.0.0.1", 0))

    def serve():
        for number in range(3):
            sock, _ = receiver.accept()
            with sock:
                sock.recv(65536)
                began.set()
                gate.wait(10)
                sock.sendall(b"HTTP/1.1 204 No\\r\\nConnection: close\\r\\n\\r\\n")

    server = threading.Thread(target=serve)
    server.start()
    url = f"http://127.0.0.1:{receiver.getsockname()[1]}/"
    with app.app_context(), task_started.connected_to(lambda app, task: starts.append(task), app):
        def deliver(number):
            with app.app_context():
                background(send_webhook, url, {"n": number}, allow_private=True)
        first = threading.Thread(target=deliver, args=[1])
        first.start()
        assert began.wait(10)
        asok_tasks.capture()
        deliver(2)
        runner = threading.Thread(target=asok_tasks.run)
        runner.start()
        runner.join(0.3)
        assert runner.is_alive()
        gate.set()
        for thread in (runner, first):
            thread.join(10)
        deliver(3)
        asok_tasks.run()
        tasks = asok_tasks.wait()
    server.join(10)
    receiver.close()

    assert [task.result().status for task in tasks] == [204] * 3
    assert len(starts) == 3
""")

    outcome.assert_outcomes(passed=2)


@pytest.fixture
def without_conftest(pytester):
    """Run a test file of a user who has no conftest.py."""
    pytester.makeini("[pytest]")

    def run(source):
        pytester.makepyfile(source)
        return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")

    return run


def test_no_app_fixture(without_conftest):
    """Without an `app` fixture the test says what to write, and not only that something is not found."""
    outcome = without_conftest("""
def test_it(asok_tasks):
    pass
""")

    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(["*asok_tasks needs a fixture `app` of yours*conftest.py*", "*def app():*"])
    outcome.stdout.no_fnmatch_line("*available fixtures*")


def test_another_fixture_is_missing(without_conftest):
    """What is missing elsewhere is reported as pytest does."""
    outcome = without_conftest("""
import pytest

@pytest.fixture
def app(database):
    pass

def test_it(asok_tasks):
    pass

def test_of_another_kind(app):
    pass
""")

    outcome.assert_outcomes(errors=2)
    outcome.stdout.fnmatch_lines(["*fixture 'database' not found*"])
    outcome.stdout.no_fnmatch_line("*asok_tasks needs*")


def test_app_fixture_of_another_kind(without_conftest):
    """An `app` fixture that returns something else is told so."""
    outcome = without_conftest("""
import pytest

@pytest.fixture
def app():
    return {"app": None}

def test_it(asok_tasks):
    pass
""")

    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines(["*The fixture `app` returns a dict; asok_tasks needs the Flask app.*"])
