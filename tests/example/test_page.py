"""The page as a whole, and what it does not let in."""

import inspect
import re
import socket
import tempfile
import threading
from contextlib import nullcontext

import pytest
from markupsafe import escape

import example_app
from example_app import tasks as tasks_module
from example_app import views


def test_dashboard(app):
    """The page leads to the dashboard, which is there for a visitor at this computer only."""
    client = app.test_client()

    assert 'href="/dashboard/"' in client.get("/").text
    assert client.get("/dashboard/").status_code == 200
    assert client.get("/dashboard/", environ_overrides={"REMOTE_ADDR": "10.0.0.5"}).status_code == 404


def test_cards(visitor):
    """Every card has the switch, and a large figure that nobody has asked for yet."""
    page = visitor.client.get("/").get_data(as_text=True)

    for card in ("order", "sign-up", "import", "photo", "blog", "report", "refused"):
        assert len(re.findall(rf'type="radio" name="mode" value="\w+" form="{card}-form"', page)) == 2
        assert visitor.figure(card, "blocking") is None
        assert visitor.figure(card, "background") is None


def test_works_without_javascript(visitor, tasks):
    """While something is going on, a page without JavaScript reloads itself; then it stops."""
    # With another URL each time: to its own, which has a # in it, a browser only scrolls.
    reload = '<noscript><meta http-equiv="refresh" content="1; url=/?look={}#order">'
    tasks.capture()
    visitor.press("/order", "background", product="Notebook", quantity=1)
    assert reload.format(1) in visitor.client.get("/").get_data(as_text=True)
    assert reload.format(2) in visitor.client.get("/?look=1").get_data(as_text=True)

    tasks.run()

    assert 'http-equiv="refresh"' not in visitor.client.get("/?look=2").get_data(as_text=True)


def test_two_browsers(app, visitor, tasks):
    """Two visitors see each what they did themselves, their tasks too."""
    other = type(visitor)(app)
    visitor.press("/order", "background", product="Notebook", quantity=7)
    other.press("/order", "blocking", product="Desk lamp", quantity=2)
    tasks.wait(60)

    assert visitor.figure("order", "blocking") is None
    assert other.figure("order", "background") is None
    assert 'value="7"' in visitor.client.get("/").get_data(as_text=True)
    assert "fulfil_order succeeded" in visitor.read("tasks")
    assert "None yet" in other.read("tasks")


def test_code(visitor):
    """Each card shows the code that runs, to the letter."""
    shown = visitor.client.get("/").text

    for function in (views.buttons.door, views.buttons.order, tasks_module.fulfil_order, tasks_module.count_products):
        assert str(escape(inspect.getsource(function).rstrip())) in shown


@pytest.mark.parametrize("card", ["order", "sign-up", "report", "import", "photo", "blog"])
def test_run_both(visitor, tasks, card):
    """One button does a thing in the request, then in the background, and the card has both figures."""
    form = {"product": "Notebook", "quantity": "1", "bundled": "lake.jpg", "email": "ada@example.com"}
    page = visitor.client.get("/").text
    first = re.search(rf'id="{card}-form".*? data-both formaction="([^"]+)"', page, re.DOTALL)[1]

    # A browser sends the form again to where a 307 leads.
    on = visitor.client.post(first, data=form)
    back = visitor.client.post(on.location, data=form)
    with tasks.expect_error(ZeroDivisionError) if card == "report" else nullcontext():
        tasks.wait(60)

    assert (on.status_code, back.status_code, back.location) == (307, 303, f"/#{card}")
    assert None not in (visitor.figure(card, "blocking"), visitor.figure(card, "background"))


def test_run_both_refused(visitor, tasks):
    """What is refused is not sent again."""
    refused = visitor.client.post("/sign-up?both=first", data={"name": "Ada", "email": "nobody"})

    assert (refused.status_code, refused.location) == (303, "/#sign-up")
    assert "That did not work." in visitor.read("sign-up")


@pytest.mark.parametrize("folder", ["given", "own"])
def test_several_processes(visitor, tmp_path, monkeypatch, folder):
    """Served by several processes that each have a folder of their own, the page says so, and what to do."""
    said = "Several processes serve this page, each with a folder of its own."
    if folder == "own":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        alone = example_app.create_app({"EXAMPLE_VISITS": 1})
        visitor = type(visitor)(alone)

    one = visitor.client.get("/").get_data(as_text=True)
    several = visitor.client.get("/", multiprocess=True).get_data(as_text=True)

    assert said not in one
    assert (said in several) == (folder == "own")
    if folder == "own":
        example_app.close(alone)


def test_mail_port_in_use(app, visitor, caplog):
    """A second web process, which cannot have the same mail server, serves the page all the same."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        app.config["MAIL_PORT"] = taken.getsockname()[1]

        assert visitor.client.get("/").status_code == 200

    assert "No mail server is started" in caplog.text


def test_nothing_from_elsewhere(visitor):
    """The page, its style and its script come from here, and the browser is told to load nothing else."""
    answer = visitor.client.get("/")
    page = answer.get_data(as_text=True)

    # A link is followed only by a visitor who wants to.
    urls = re.findall(r'(?:src|srcset|href|action)="([^"]+)"', re.sub(r'<a href="https:[^>]*>', "", page))
    assert all(url.startswith(("/", "#")) for url in urls)
    for url in re.findall(r'"(/static/[^"]+)"', page):
        with visitor.client.get(url) as file:
            assert file.status_code == 200
            assert b"//cdn" not in file.data
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_forms_of_other_sites(visitor, tasks, site):
    """A form on another site cannot press the buttons here."""
    answer = visitor.client.post("/report", headers={"Sec-Fetch-Site": site})

    assert answer.status_code == 403
    tasks.assert_not_called()


def test_other_host_names(visitor):
    """A page that gives its own name to this address gets nothing."""
    assert visitor.client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_two_applications(app, visitor, tmp_path):
    """The application can be made twice in a process, as the reloader does; only one that is visited runs servers."""
    visitor.client.get("/")
    threads = set(threading.enumerate())

    other = example_app.create_app({"EXAMPLE_FOLDER": str(tmp_path / "other"), "EXAMPLE_VISITS": 1})

    # Those of the visit may end meanwhile.
    assert set(threading.enumerate()) <= threads
    other.test_client().get("/")
    assert other.config["MAIL_PORT"] != app.config["MAIL_PORT"]
    example_app.close(other)
    example_app.close(other)
