"""The page in a real browser, with its script."""

import threading

import pytest

from example_app import catalogue
from flask_asok import reporting

BAR = "document.querySelector('#import-bar progress')"
STATE = "document.querySelector('#import-bar [data-asok-state]')?.dataset.asokState"
PRODUCTS = "document.querySelector('#import-products').textContent"

BOTH = ["order", "sign-up", "report", "refused", "photo", "blog", "import"]

TRIED = """
    (name) => {
        const card = document.getElementById(name);
        const times = [...card.querySelectorAll(".compare dd span")].map((time) => time.textContent);
        return card.ariaBusy === "false" && times.every((time) => time.endsWith(" ms"));
    }
"""

WATCH_POSTS = """
    const real = window.fetch;
    window.fetch = async (...sent) => {
        const answer = await real(...sent);
        if (sent[1]?.method === "POST") window.posted = answer.status;
        return answer;
    };
"""


@pytest.fixture
def rows(monkeypatch):
    """Let the supplier confirm a row when the test releases one, and the bar hear of each."""
    rows = threading.Semaphore(0)
    save = catalogue.save

    def save_when_released(visitor, row):
        assert rows.acquire(timeout=60)
        save(visitor, row)

    monkeypatch.setattr(catalogue, "save", save_when_released)
    monkeypatch.setattr(reporting, "EVERY_SECONDS", 0.0)
    yield rows
    rows.release(1_000)


def press(browser):
    """Press the import's button, for the background, and mark the page."""
    browser.ask("document.querySelector('input[form=import-form][value=background]').click()")
    browser.ask("window.marked = true; document.querySelector('#import-form button').click()")


def test_import(app, serve, browser, tasks, rows):
    """The bar appears and grows without a reload, is there after one, and its button cancels; the next one ends."""
    url = serve(app) + "/"
    browser.go(url)

    press(browser)
    browser.wait(f"{BAR} && {STATE} == 'running'")
    rows.release(60)
    browser.wait(f"{BAR}.value == 0.25")
    rows.release(60)
    browser.wait(f"{BAR}.value == 0.5")
    assert browser.ask("window.marked")

    browser.go(url + "?look=1")
    assert browser.ask("window.marked") is None
    assert browser.ask(f"[{BAR}.value, {STATE}]") == [0.5, "running"]

    browser.ask(WATCH_POSTS)
    browser.ask("window.marked = true; document.querySelector('#import-bar button').click()")
    browser.wait("window.posted")
    rows.release(1)
    browser.wait(f"{STATE} == 'cancelled'")
    browser.wait(f"{PRODUCTS}.includes('121 products in the catalogue')")
    assert browser.ask("document.querySelector('#import-bar button')") is None

    press(browser)
    browser.wait(f"{STATE} == 'running'")
    rows.release(240)
    browser.wait(f"{STATE} == 'succeeded' && {BAR}.value == 1")
    browser.wait(f"{PRODUCTS}.includes('240 products in the catalogue')")
    assert browser.ask("window.marked")


def test_run_both(app, serve, browser, tasks):
    """One button a card fills both bars, without a reload; the large figure is then that of the background."""
    browser.go(serve(app) + "/")
    browser.ask("window.marked = true")

    with tasks.expect_error(ZeroDivisionError):
        for name in BOTH:
            browser.ask(f"document.querySelector('#{name} [data-both]').click()")
        for name in BOTH:
            browser.wait(f"({TRIED})('{name}')")

    assert browser.ask("window.marked")
    assert browser.ask("[...document.querySelectorAll('.switch :checked')].every(({value}) => value == 'background')")
    browser.wait("!document.querySelector('[data-busy]')")
    assert browser.ask("document.querySelectorAll('#tasks li').length") == 3


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1600, "light")])
def test_accessible(app, serve, browser, axe, tasks, width, scheme):
    """axe-core has nothing to object to, before anything is tried and after; the page fits any screen."""
    browser.show(width=width, height=900, prefers_color_scheme=scheme)
    browser.go(url := serve(app) + "/")
    untried = axe()
    for path in ("order", "sign-up", "photo", "blog/write"):
        form = "{mode: 'background', product: 'Notebook', quantity: 1, bundled: 'lake.jpg', email: 'ada@example.com'}"
        browser.ask(f"fetch('/{path}', {{method: 'POST', body: new URLSearchParams({form})}}).then(() => 0)")
    tasks.wait(60)

    browser.go(url + "?look=1")
    browser.ask("document.querySelectorAll('details').forEach((each) => (each.open = true))")

    assert (untried, axe()) == ([], [])
    assert browser.ask("document.documentElement.scrollWidth") <= width
