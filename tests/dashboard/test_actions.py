"""What the buttons do."""

import pytest
from flask import Flask

from flask_asok import FlaskAsok, background, report_progress, task
from flask_asok.dashboard.alone import make_viewer

asok = FlaskAsok()


@pytest.fixture
def client(shop):
    return shop.test_client()


def test_cancel(shop, client, press):
    """The button cancels a task that waits."""
    with shop.app_context():
        task = background.using(delay=3_600)(int)
    page = f"/tasks/tasks/{task.id}"

    answer = press(client, page, f"{page}/cancel")

    assert (answer.status_code, answer.location) == (303, f"{page}?said=cancelled")
    assert task.state == "cancelled"
    assert "is cancelled" in client.get(answer.location).text


def test_stop(shop, client, press, gate):
    """A task that runs is asked to stop, and does so at its next step."""

    def work():
        report_progress(1, 2)
        gate.wait(30)
        report_progress(2, 2)

    with shop.app_context():
        task = background(work)
        while task.progress is None:
            gate.wait(0.01)
    page = f"/tasks/tasks/{task.id}"

    press(client, page, f"{page}/cancel")
    gate.set()
    task.join(10)

    assert task.state == "cancelled"


def test_discard(shop, client, press):
    """A settled task is forgotten, and its page is gone."""
    with shop.app_context():
        task = background(int)
        task.join(10)
    page = f"/tasks/tasks/{task.id}"

    answer = press(client, page, f"{page}/discard")

    assert answer.location == "/tasks/tasks?said=discarded"
    assert client.get(page).status_code == 404


def test_here_only(make_dashboard, press):
    """What only this process knows has its page and its buttons, too."""
    app = make_dashboard(ASOK_TRACKED=False)
    with app.app_context():
        task = background.using(delay=3_600)(int)
    page, client = f"/tasks/tasks/{task.id}", app.test_client()

    assert "only this process knows of it" in client.get(page).text
    press(client, page, f"{page}/cancel")
    press(client, page, f"{page}/discard")

    assert task.state == "cancelled"
    assert client.get(page).status_code == 404


def test_too_late(shop, client, fields):
    """What has changed since the page was made is told, and nothing happens."""
    with shop.app_context():
        task = background.using(delay=3_600)(int)
    page = f"/tasks/tasks/{task.id}"
    sent = fields(client, page, f"{page}/cancel")
    task.cancel()

    answer = client.post(f"{page}/cancel", data=sent, headers={"Sec-Fetch-Site": "same-origin"})

    assert answer.location.endswith("said=not-cancelled")


def test_alone(shop, press):
    """On its own the dashboard is found only below its token, and its buttons work on the tasks of the application."""
    with shop.app_context():
        task = background.using(delay=3_600)(int)
    client = make_viewer(shop, "guess-me").test_client()
    page = f"/guess-me/tasks/{task.id}"

    assert client.get("/").status_code == client.get("/tasks").status_code == client.get("/guess-m/").status_code == 404
    assert client.get("/guess-me/").status_code == 200
    press(client, page, f"{page}/cancel")

    assert task.state == "cancelled"


@pytest.fixture
def make_periodic():
    """Make an application of one periodic task, whose clock stands still, and which the dashboard shows."""
    apps = []

    def make(function):
        own, app = FlaskAsok(), Flask("shop")
        app.config.from_mapping(
            SECRET_KEY="a secret of the tests", ASOK_STORE="memory", ASOK_TRACKED=True, ASOK_PERIODIC="command"
        )
        own.init_app(app)
        own.periodic(every=3_600, name="report")(function)
        app.register_blueprint(own.dashboard(access=lambda: "write"), url_prefix="/tasks")
        apps.append(app)
        return app

    yield make

    for app in apps:
        asok.close(app, timeout=5)


def test_run(make_periodic, press):
    """A periodic task is started at a press, and its page shown."""
    client = make_periodic(lambda: None).test_client()

    answer = press(client, "/tasks/periodic", "/tasks/periodic/report/run")

    assert answer.location.endswith("?said=started")
    assert "The run has begun." in client.get(answer.location).text


def test_run_that_cannot_be_started(make_periodic, press, caplog):
    """A periodic task whose `prepare=` raises is told on the page, and the log says why."""

    def refuse():
        raise ValueError("no reports today")

    client = make_periodic(task(prepare=refuse)(refuse)).test_client()

    answer = press(client, "/tasks/periodic", "/tasks/periodic/report/run")

    assert answer.location == "/tasks/periodic?said=not-started"
    assert "could not be started" in client.get(answer.location).text
    assert "no reports today" in caplog.text
