"""`{{ asok_progress(task) }}` in a template."""

import re

import pytest
from flask import Blueprint, Flask, render_template, render_template_string
from jinja2 import DictLoader
from markupsafe import Markup

from flask_asok import BackendUnavailable, FlaskAsok, background
from flask_asok.progress import Progress


def later(app, **options):
    with app.app_context():
        return background.using(delay=60, **options)(int)


def done(app):
    with app.app_context():
        task = background(int)
        task.result(10)
    return task


def test_bar(status_app, start, bar):
    """A template shows how far a task has come, in a bar that is updated from the status view."""
    task = start(status_app, 1, 4, "Row 1")

    html = bar(status_app, task)

    assert f'<asok-progress src="/status/{task.id}">' in html
    assert 'value="0.25"' in html and ">Row 1<" in html and ">Running<" in html
    assert f'action="/status/{task.id}/cancel"' in html
    assert '<script type="module" src="/status/assets/progress.js">' in html
    assert f'<noscript><p class="asok-line"><a href="/status/{task.id}">' in html


def test_by_id(status_app, bar):
    """The id will do, or what `get()` returns, as after a reload of the page."""
    task = later(status_app)

    html = bar(status_app, task.id)

    with status_app.app_context():
        summary = FlaskAsok().get(task.id)
    assert f'src="/status/{task.id}"' in html
    assert 'src="/status/' in bar(status_app, summary)


def test_settled(status_app, bar):
    """A task that is settled is shown without polling, and without a button."""
    html = bar(status_app, done(status_app))

    assert re.search('<asok-progress src="[^"]+" over>', html)
    assert ">Done<" in html and "<form" not in html and "noscript" not in html


def test_link(status_app, bar):
    """The link is there from the beginning, and shown when the task has succeeded."""
    waits = bar(status_app, later(status_app), ", href='/report', link='Read it'")
    is_done = bar(status_app, done(status_app), ", href='/report'")
    without = bar(status_app, done(status_app))

    assert 'data-asok-link hidden><a href="/report">Read it</a>' in waits
    assert 'data-asok-link><a href="/report">Open</a>' in is_done
    assert "data-asok-link" not in without


@pytest.mark.parametrize("state", ["failed", "cancelled", "abandoned"])
def test_no_link_to_what_is_not_there(status_app, bar, state):
    """A task that has not succeeded has no result to lead to."""
    task = done(status_app)
    task.summary.state = state

    assert "data-asok-link hidden" in bar(status_app, task, ", href='/report'")


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "JavaScript:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)", "data:,x"]
)
def test_hostile_link(status_app, bar, href):
    """An address that is a script is a ValueError."""
    with pytest.raises(ValueError, match="href must be"):
        bar(status_app, done(status_app), ", href=href", href=href)


@pytest.mark.parametrize("href", ["/a?b=1&c=2#d", "report/3", "https://example.org/", "?page=2", "/a:b", "//cdn/x", ""])
def test_other_links(status_app, bar, href):
    """Paths and addresses of the web are accepted, and escaped."""
    html = bar(status_app, done(status_app), ", href=href", href=href)

    assert f'<a href="{href.replace("&", "&amp;")}">' in html


def test_hostile_texts(status_app, bar):
    """Neither name nor text nor the text of the link is taken for markup."""
    evil = Markup('"><script>alert(1)</script>')
    task = later(status_app, name=evil)
    task.summary.progress = Progress.of(1, 2, evil, 0.0)

    html = bar(status_app, task, ", href='/', link=evil", evil=str(evil))

    assert "<script>alert" not in html and html.count("&lt;script&gt;") == 3


def test_nonce(status_app, bar):
    """A page whose policy asks for a nonce passes it on."""
    html = bar(status_app, done(status_app), ", nonce='r4nd0m'")

    assert html.count('nonce="r4nd0m"') == 2
    assert "style=" not in html and "onclick" not in html and not re.search(r"<script[^>]*>[^<]", html)


@pytest.mark.parametrize("task", ["0" * 32, "nonsense", ""])
def test_unknown(status_app, bar, task):
    """A task that nobody knows is shown as unknown, and not asked for."""
    html = bar(status_app, task)

    assert ">Unknown<" in html and "<asok-progress over>" in html and "<form" not in html


def test_refused(make_status, bar):
    """A task that `access` refuses is shown as an unknown one is, whether it is named by its id or the Task."""
    app = make_status(access=lambda summary: False, cancel=True)
    task = later(app, name="secret")

    assert bar(app, task) == bar(app, task.id) == bar(app, "0" * 32)


def test_forgotten(make_status, bar):
    """A Task that its holder shows is shown, though the list of recent tasks has forgotten it."""
    app = make_status(ASOK_RECENT_TASKS=1)
    task = done(app)
    later(app)

    assert ">Done<" in bar(app, task)


def test_store_is_away(status_app, bar, monkeypatch):
    """A page does not fail because the states cannot be read at the moment; its script asks again."""

    def away(id):
        raise BackendUnavailable

    task = later(status_app)
    monkeypatch.setattr(status_app.extensions["asok"].backend, "get", away)

    html = bar(status_app, task)

    assert ">Unknown<" in html and f'<asok-progress src="/status/{task.id}">' in html


@pytest.mark.parametrize("wrong", [None, 5, ["id"], b"id"])
def test_wrong_task(status_app, bar, wrong):
    """What is neither a task nor an id is a TypeError that says so."""
    with pytest.raises(TypeError, match="takes a task or its id"):
        bar(status_app, wrong)


def test_not_registered(make_app, bar):
    """Without the view a RuntimeError says what to write."""
    app = make_app()

    with pytest.raises(RuntimeError, match=r"register_blueprint\(asok\.status\(\)"):
        bar(app, done(app))


def test_macro(status_app, make_app):
    """A macro that is imported without its context knows the bar as well."""
    status_app.jinja_loader = DictLoader(
        {
            "parts.html": "{% macro card(task) %}{{ asok_progress(task) }}{% endmacro %}",
            "page.html": "{% from 'parts.html' import card %}{{ card(task) }}",
        }
    )
    with status_app.test_request_context():
        html = render_template("page.html", task=later(status_app))

    assert "<asok-progress" in html


def test_in_a_mail(status_app):
    """Rendered outside of a request, in a task's mail, it has neither a button nor a relative address."""
    status_app.config["SERVER_NAME"] = "shop.example"
    task = later(status_app)
    with status_app.app_context():
        html = render_template_string("{{ asok_progress(task) }}", task=task)

    assert f'src="http://shop.example/status/{task.id}"' in html and "<form" not in html


def test_below_a_prefix(status_app, bar):
    """An application that is mounted below a path leads its bar there."""
    status_app.config["APPLICATION_ROOT"] = "/shop"
    task = later(status_app)
    with status_app.test_request_context(base_url="http://localhost/shop"):
        html = render_template_string("{{ asok_progress(task) }}", task=task)

    assert f'src="/shop/status/{task.id}"' in html and 'href="/shop/status/assets/progress.css"' in html


def test_beside_other_blueprints(make_app, bar):
    """The view is found among the blueprints of the application."""
    app = make_app()
    app.register_blueprint(Blueprint("shop", __name__))
    app.register_blueprint(FlaskAsok().status(), url_prefix="/status")

    assert 'src="/status/' in bar(app, later(app))


def test_two_apps(make_status, make_app, bar):
    """One extension serves two applications; each has its own view, or none."""
    one, other = make_status(url_prefix="/one"), make_status(url_prefix="/other")

    assert 'src="/one/' in bar(one, later(one)) and 'src="/other/' in bar(other, later(other))


def test_template_environment_untouched():
    """Setting an app up does not make its Jinja environment: options set afterwards still count."""
    app = Flask("shop")
    FlaskAsok(app)

    app.jinja_options = {"trim_blocks": True}

    assert app.jinja_env.trim_blocks
