"""The page in a real browser, with its script."""

import threading

import pytest

from example_app import catalogue
from flask_asok import reporting

BAR = "document.querySelector('#import-bar progress')"
STATE = "document.querySelector('#import-bar [data-asok-state]')?.dataset.asokState"
PRODUCTS = "document.querySelector('#import-products').textContent"

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
