"""The pages in a real browser, over a real server: no complaint of its console, no report of the policy."""

import threading

import pytest
from flask import Flask

from flask_asok import FlaskAsok, background, report_progress

PAGES = ["", "tasks", "functions", "periodic", "processes"]


def fail():
    raise ValueError("<script>window.evil = 1</script> the warehouse is closed")


@pytest.fixture
def site(make_dashboard, serve, gate):
    """An application with a task of each kind, and the address of its dashboard."""
    app = make_dashboard(ASOK_TRACKED=True)
    begun = threading.Event()

    def work():
        report_progress(1, 2, "half of it " + "w" * 180)
        begun.set()
        gate.wait(60)
        report_progress(2, 2)

    with app.app_context():
        app.failed = background.using(name="charge")(fail)
        app.running = background.using(name="import", queue="images")(work)
        app.waiting = background.using(name="remind", delay=3_600, queue="mail")(int)
        app.failed.join(10)
    assert begun.wait(10)
    app.address = serve(app) + "/tasks/"
    return app


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1600, "light")])
def test_every_page(site, browser, width, scheme):
    """Each page fits a phone and a wide screen, in the light and in the dark, and nothing of a task is run."""
    browser.show(width=width, height=900, prefers_color_scheme=scheme)

    for page in [*PAGES, *(f"tasks/{task.id}" for task in (site.failed, site.running, site.waiting))]:
        browser.go(site.address + page)
        assert browser.ask("document.documentElement.scrollWidth") <= width, page
        assert browser.ask("document.querySelectorAll('h1').length") == 1, page
    assert browser.ask("window.evil") is None
    assert browser.ask("document.querySelector('#live').hidden") is False


def test_long_names_on_a_small_phone(serve, browser):
    """A long name of a queue makes no page wider than a phone, no button has two lines, and every page is in sight."""
    own = FlaskAsok()
    app = Flask("shop")
    app.config.from_mapping(
        SECRET_KEY="a secret of the tests", ASOK_STORE="memory", ASOK_PERIODIC="command", ASOK_QUEUES={"q" * 50: 1}
    )
    own.init_app(app)
    own.periodic(every=3_600, name="a report with a long name " * 3)(int)
    app.register_blueprint(own.dashboard(access=lambda: "write"), url_prefix="/tasks")
    address = serve(app) + "/tasks/"

    for width in (360, 1_000):
        browser.show(width=width, height=800)
        for page in PAGES:
            browser.go(address + page)
            assert browser.ask("document.documentElement.scrollWidth") <= width, page
            assert (
                browser.ask("document.querySelector('nav').scrollWidth - document.querySelector('nav').clientWidth")
                <= 0
            )
            assert browser.ask("document.querySelector('nav').offsetHeight") < 60, page
            assert browser.ask("[...document.querySelectorAll('button')].every(one => one.offsetHeight < 45)"), page


def test_live(site, browser, gate):
    """A page brings itself up to date, and keeps what has the focus; with Live off it stays as it is."""
    browser.hold_clock()
    browser.go(f"{site.address}tasks/{site.running.id}")
    button = f"#cancel-{site.running.id}"
    browser.ask(f"document.querySelector('{button}').focus()")
    site.running.summary.name = "import all"

    assert browser.tick() == 2_000
    browser.wait("window.timers.size == 1")
    assert browser.ask("document.activeElement.id") == button[1:]

    gate.set()
    site.running.join(10)
    browser.tick()
    browser.wait("document.querySelector('#part').innerText.includes('Succeeded')")

    browser.ask("document.querySelector('#live').click()")
    assert browser.ask("document.querySelector('#live').ariaPressed") == "false"
    assert browser.ask("window.timers.size") == 0


def test_hidden(site, browser):
    """A page that is not seen does not ask; seen again, it asks at once."""
    browser.hold_clock()
    browser.go(site.address)
    seen = """
        Object.defineProperty(document, "hidden", {configurable: true, value: %s});
        document.dispatchEvent(new Event("visibilitychange"));
    """

    browser.ask(seen % "true")
    assert browser.ask("window.timers.size") == 0
    browser.ask(seen % "false")

    assert browser.tick() == 0


def test_lost_access(site, browser):
    """A page whose visitor is refused from now on stops, and says so."""
    browser.expected.append("status of 404 ")
    browser.hold_clock()
    browser.go(f"{site.address}tasks/{site.failed.id}")
    with site.app_context():
        FlaskAsok().discard(site.failed.id)

    browser.tick()

    browser.wait("document.querySelector('#stale').innerText.includes('gone')")
    assert browser.ask("window.timers.size") == 0


@pytest.mark.parametrize("javascript", [True, False], ids=["with", "without"])
def test_actions(site, browser, javascript):
    """The buttons work, with JavaScript and without."""
    browser.call("Emulation.setScriptExecutionDisabled", value=not javascript)
    said = "document.querySelector('.said')?.innerText"

    browser.go(f"{site.address}tasks/{site.waiting.id}")
    browser.ask("document.querySelector('.actions button').click()")
    browser.wait(f"{said} != null")
    assert site.waiting.state == "cancelled"

    browser.go(f"{site.address}tasks/{site.running.id}")
    browser.ask("document.querySelector('.actions button').click()")
    browser.wait(f"{said} != null")
    assert site.running.stopping

    browser.go(f"{site.address}tasks/{site.failed.id}")
    browser.ask("document.querySelector('.actions button').click()")
    browser.wait(f"{said} == 'The task is forgotten.'")

    browser.go(f"{site.address}tasks")
    browser.ask("document.querySelector('[name=state]').value = 'cancelled'")
    browser.ask("document.querySelector('.filters button').click()")
    browser.wait(
        "location.search.includes('state=cancelled') && document.querySelectorAll('.tasks tbody tr').length == 1"
    )


def test_accessible(site, browser, axe):
    """axe-core has nothing to object to on any page, in the light and in the dark."""
    browser.show(width=1000, height=900)
    found = {}

    for page in [*PAGES, *(f"tasks/{task.id}" for task in (site.failed, site.running, site.waiting))]:
        browser.go(site.address + page)
        for scheme in ("light", "dark"):
            browser.show(width=1000, height=900, prefers_color_scheme=scheme)
            found.update({(page, scheme, rule): nodes for rule, nodes in axe()})

    assert found == {}
