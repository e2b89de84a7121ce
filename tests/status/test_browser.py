"""The bar and the page in a real browser, over a real server."""

import threading

import pytest
from flask import render_template_string

from flask_asok import background, report_progress, track

STATE = "document.querySelector('[data-asok-state]').dataset.asokState"
BAR = "document.querySelector('progress')"
PAGE = """<!doctype html><title>Import</title><meta name="viewport" content="width=device-width">
<style nonce="n">body { margin: 1rem }</style><h1>Your import</h1>{{ asok_progress(task, href="/rows", nonce="n") }}"""

WATCH_FETCH = """
    window.answers = [];
    window.real = window.fetch;
    window.fetch = async (...sent) => {
        const answer = await real(...sent);
        window.answers.push(answer.status);
        return answer;
    };
"""


class Steps:
    """A task that makes its next step when the test says so."""

    def __init__(self, total):
        self.total = total
        self.go = threading.Semaphore(0)
        self.done = threading.Semaphore(0)

    def __call__(self):
        for step in range(self.total):
            report_progress(step, self.total, f"Step {step}")
            self.done.release()
            assert self.go.acquire(timeout=60)
        report_progress(self.total, self.total, "All done")

    def next(self):
        """Let it make a step, and return when it has reported that."""
        self.go.release()
        assert self.done.acquire(timeout=30)


@pytest.fixture
def started(status_app):
    """A task that has reported its first step, and a page with its bar at "/", under a strict policy."""
    steps = Steps(4)
    with status_app.app_context():
        task = background.using(name="import")(steps)
    assert steps.done.acquire(timeout=30)

    @status_app.get("/")
    def index():
        policy = "default-src 'none'; script-src 'nonce-n'; style-src 'nonce-n'; connect-src 'self'; form-action 'self'"
        return render_template_string(PAGE, task=task), {"Content-Security-Policy": policy}

    yield task, steps

    for _ in range(5):
        steps.go.release()
    task.join(30)


@pytest.fixture
def page(status_app, started, serve, browser):
    """The browser at that page, whose time stands still."""
    browser.hold_clock()
    browser.go(serve(status_app) + "/")
    browser.ask(WATCH_FETCH)
    return browser


def text_of(part):
    return f"document.querySelector('[data-asok={part}]').textContent"


def test_bar_moves(started, page):
    """The bar follows the task each second, under a strict policy, shows the link at the end, and asks no more."""
    task, steps = started
    assert page.ask(f"{BAR}.value") == 0

    steps.next()
    assert page.tick() == 1_000
    page.wait(f"{BAR}.value == 0.25")
    assert page.ask(text_of("text")) == "Step 1" and page.ask(text_of("percent")) == "25\N{NO-BREAK SPACE}%"
    assert page.ask("document.querySelector('[data-asok-link]').hidden")
    for _ in range(3):
        steps.go.release()
    task.join(30)
    assert page.tick() == 1_000
    page.wait(f"{STATE} == 'succeeded'")

    assert page.ask(f"{BAR}.value") == 1
    assert not page.ask("document.querySelector('[data-asok-link]').hidden")
    assert page.ask("document.querySelector('form')") is None
    assert page.ask("[window.timers.size, window.answers]") == [0, [200, 286]]


def test_cancel_button(started, page):
    """The button cancels the task without leaving the page, and keeps the focus while the bar is updated."""
    task, steps = started
    page.ask("document.querySelector('button').focus()")
    steps.next()
    page.tick()
    page.wait(f"{BAR}.value == 0.25")
    assert page.ask("document.activeElement.tagName") == "BUTTON"

    page.ask("document.querySelector('button').click()")
    page.wait("window.answers.length == 2")
    assert page.ask("document.querySelector('button').disabled")
    steps.go.release()
    task.join(30)
    page.tick()
    page.wait(f"{STATE} == 'cancelled'")

    assert page.ask("location.pathname") == "/"
    assert task.state == "cancelled"
    assert page.ask("document.querySelector('[data-asok-link]').hidden")


def test_cancel_refused(started, page):
    """Where the script cannot cancel, the form is sent as it would be without a script, and the page says why."""
    task, _ = started
    page.expected.append("status of 400 ")
    page.ask("document.querySelector('[name=token]').value = 'old'")

    page.ask("document.querySelector('button').click()")

    page.wait("document.body.innerText.includes('Reload it')")
    assert task.state == "running" and not task.stopping


def test_unchanged_polls(page):
    """A poll that finds nothing new is a 304 and leaves the page alone."""
    page.tick()
    # The next poll is set once the page shows what the first one has brought.
    page.wait("window.answers.length == 1 && window.timers.size == 1")
    page.ask("""
        window.changes = 0;
        new MutationObserver(() => { window.changes += 1 }).observe(
            document.querySelector("asok-progress"),
            {subtree: true, childList: true, characterData: true, attributes: true});
    """)

    for _ in range(3):
        page.tick()
    page.wait("window.answers.length == 4 && window.timers.size == 1")

    assert page.ask("window.answers") == [200, 304, 304, 304]
    assert page.ask("window.changes") == 0


def test_hidden(started, page):
    """A page that is not seen does not ask; once it is seen again it asks at once."""
    _, steps = started
    seen = """
        Object.defineProperty(document, "hidden", {configurable: true, value: %s});
        document.dispatchEvent(new Event("visibilitychange"));
    """
    page.ask(seen % "true")
    steps.next()
    assert page.ask("window.timers.size") == 0

    page.ask(seen % "false")

    assert page.tick() == 0
    page.wait(f"{BAR}.value == 0.25")


LOGIN = "new Response('<h1>Log in</h1>', {status: 200})"


@pytest.mark.parametrize(
    "answer",
    [
        "Promise.reject(new TypeError('down'))",
        "Promise.resolve(new Response('', {status: 503}))",
        "Promise.resolve(new Response('', {status: 403}))",
        f"Promise.resolve({LOGIN})",
    ],
    ids=["down", "503", "403", "a login"],
)
def test_errors(started, page, answer):
    """While the server does not answer as it should, the bar stays, and the page asks less often; then it goes on."""
    _, steps = started
    page.ask(f"window.fetch = () => {answer}")

    waits = [page.tick() for _ in range(9)]
    steps.next()
    page.ask("window.fetch = window.real")
    page.tick()

    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    page.wait(f"{BAR}.value == 0.25")
    assert page.tick() == 1_000


def test_gone(page):
    """A task that is not known any more is asked for a few times, in case another process knows it, and then left."""
    page.ask("window.fetch = () => Promise.resolve(new Response('', {status: 404}))")

    waits = [page.tick() for _ in range(5)]

    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000]
    page.wait("window.timers.size == 0")


def test_inserted_later(started, page):
    """A bar that is taken out of the page asks no more; one that a script puts in is kept up to date."""
    _, steps = started
    page.ask("window.one = document.querySelector('asok-progress'); window.one.remove()")
    assert page.ask("window.timers.size") == 0

    page.ask("document.body.append(window.one)")
    steps.next()
    page.tick()

    page.wait(f"{BAR}.value == 0.25")


def test_two_bars(status_app, started, serve, browser):
    """Two bars on a page follow two tasks, each its own."""
    task, steps = started
    with status_app.app_context():
        other = background.using(delay=60)(int)

    @status_app.get("/both")
    def both():
        return render_template_string("<!doctype html>{{ asok_progress(a) }}{{ asok_progress(b) }}", a=task, b=other)

    browser.go(serve(status_app) + "/both")
    steps.next()
    other.cancel()

    browser.wait("[...document.querySelectorAll('progress')].map(each => each.value).join() == '0.25,0'")
    browser.wait(
        "[...document.querySelectorAll('[data-asok-state]')].map(each => each.dataset.asokState).join()"
        " == 'running,cancelled'"
    )


def test_without_javascript(status_app, started, serve, browser):
    """Without JavaScript the bar has a link to a page that reloads itself, whose button cancels the task."""
    task, steps = started
    address = serve(status_app)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.go(address + "/")
    assert browser.ask("document.querySelector('noscript a').getAttribute('href')") == f"/status/{task.id}"

    browser.go(f"{address}/status/{task.id}")
    steps.next()
    browser.wait(f"{BAR}?.value == 0.25")
    # One that has just come reloads itself in two seconds, and not in the middle of the press.
    browser.go(f"{address}/status/{task.id}")
    browser.ask("document.querySelector('form button').click()")
    browser.wait("performance.getEntriesByType('navigation')[0]?.redirectCount == 1")
    assert task.stopping
    steps.go.release()

    browser.wait("document.querySelector('[data-asok-state=cancelled]') != null")
    assert task.state == "cancelled"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow(status_app, serve, browser, start, scheme, tmp_path):
    """On a screen of 320 pixels nothing is cut off, however long the texts, and the button can be hit."""
    task = start(status_app, 1, 3, "x" * 200, name="import_all_the_rows_of_a_file_whose_name_is_long")
    browser.show(width=320, height=600, prefers_color_scheme=scheme)

    browser.go(f"{serve(status_app)}/status/{task.id}")

    assert browser.ask("document.documentElement.scrollWidth") == 320
    assert browser.ask("document.querySelector('button').offsetHeight") >= 40
    assert browser.ask(f"{BAR}.offsetWidth") == 288


def test_reduced_motion(status_app, serve, browser, start):
    """A visitor who asked for less motion sees a bar without a total standing still."""
    task = start(status_app)
    browser.show(prefers_reduced_motion="reduce")
    browser.go(f"{serve(status_app)}/status/{task.id}")

    animation = "getComputedStyle(document.querySelector('progress')).animationName"

    assert browser.ask(animation) == "none"
    browser.show(prefers_reduced_motion="no-preference")
    assert browser.ask(animation) == "asok-busy"


def test_hostile_text_in_the_browser(status_app, started, serve, browser):
    """A text of a user that looks like a script is text, also where the script has brought it."""
    task, _ = started
    browser.go(serve(status_app) + "/")
    evil = "<img src=x onerror='window.evil = 1'><script>window.evil = 1</script>"
    task.summary.progress = type(task.progress).of(1, 2, evil, 1.0)

    browser.wait(f"{BAR}.value == 0.5")

    assert browser.ask("document.querySelector('[data-asok=text]').textContent") == evil
    assert browser.ask("window.evil") is None


def test_track_in_the_browser(status_app, serve, browser):
    """A loop of `track` is seen to its end."""

    @status_app.get("/")
    def index():
        return render_template_string("<!doctype html>{{ asok_progress(task) }}", task=background(list, track("abc")))

    browser.go(serve(status_app) + "/")

    browser.wait(f"{STATE} == 'succeeded'")
