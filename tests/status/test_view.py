"""What the routes of the status view answer."""

import re

import pytest
from flask import Blueprint, session
from flask_wtf import CSRFProtect
from markupsafe import Markup

from flask_asok import BackendUnavailable, FlaskAsok, NotConfigured, background, report_progress
from flask_asok.progress import Progress

HTML = {"Accept": "text/html"}
HTMX = {"HX-Request": "true"}
UNKNOWN = "0" * 32


def fail():
    raise ValueError("a secret")


def done(app, fn=int, **options):
    """Return a task that is settled."""
    with app.app_context():
        task = background.using(**options)(fn)
        task.exception(10)
    return task


def later(app, **options):
    """Return a task that waits."""
    with app.app_context():
        return background.using(delay=60, **options)(int)


def token_in(page):
    return re.search(r'name="token" value="([^"]+)"', page.text)[1]


# What is seen


def test_json(status_app):
    """A script gets what `as_dict()` of the task says."""
    task = done(status_app)

    answer = status_app.test_client().get(f"/status/{task.id}")

    assert answer.status_code == 200 and answer.json == task.as_dict()


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain", "", "application/json, text/html;q=0.9"])
def test_json_for_all_others(status_app, accept):
    """Whatever does not ask for HTML gets JSON."""
    task = done(status_app)

    answer = status_app.test_client().get(f"/status/{task.id}", headers={"Accept": accept})

    assert answer.is_json


def test_fragment(status_app, start):
    """htmx gets a fragment: a bar that says its name, the state, the percentage and the text."""
    task = start(status_app, 21, 50, "Row 21", name="import")

    answer = status_app.test_client().get(f"/status/{task.id}", headers=HTMX)

    assert answer.status_code == 200 and answer.mimetype == "text/html"
    assert "<html" not in answer.text
    assert '<progress data-asok="bar" aria-label="import" max="1" value="0.42">' in answer.text
    assert ">Running<" in answer.text and ">42\N{NO-BREAK SPACE}%<" in answer.text and ">Row 21<" in answer.text


@pytest.mark.parametrize(
    ("headers", "is_page"),
    [
        (HTML, True),
        ({"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Dest": "document"}, True),
        ({**HTML, "Sec-Fetch-Dest": "empty"}, False),
        ({**HTML, **HTMX}, False),
        (HTMX, False),
        ({**HTMX, "HX-Boosted": "true"}, True),
        ({**HTMX, "HX-History-Restore-Request": "true"}, True),
    ],
    ids=["html", "browser", "fetch", "htmx", "htmx only", "boosted", "history"],
)
def test_page_or_fragment(status_app, headers, is_page):
    """A browser that goes there gets a page, a script the fragment that is in it."""
    task = later(status_app)

    answer = status_app.test_client().get(f"/status/{task.id}", headers=headers)

    assert ("<html" in answer.text) is is_page
    assert "<progress" in answer.text


def test_page_reloads(status_app):
    """The page reloads itself without JavaScript, until the task is settled."""
    client = status_app.test_client()

    waits = client.get(f"/status/{later(status_app).id}", headers=HTML).text
    is_done = client.get(f"/status/{done(status_app).id}", headers=HTML).text

    assert '<noscript><meta http-equiv="refresh" content="2"></noscript>' in waits
    assert "refresh" not in is_done


@pytest.mark.parametrize(
    ("progress", "state", "shown"),
    [
        (None, "queued", 'value="0.0"'),
        (None, "running", 'max="1">'),
        (None, "waiting", 'value="0.0"'),
        (None, "succeeded", 'value="1.0"'),
        (None, "failed", 'value="0.0"'),
        ((1, 4), "running", 'value="0.25"'),
        ((1, 4), "waiting", 'value="0.25"'),
        ((1, 4), "failed", 'value="0.25"'),
        ((1, 4), "abandoned", 'value="0.25"'),
        ((3, 4), "succeeded", 'value="1.0"'),
        ((9, 4), "running", 'value="1.0"'),
        ((9, None), "running", 'max="1">'),
        ((0, 0), "running", 'max="1">'),
    ],
)
def test_bar(status_app, progress, state, shown):
    """The bar shows how far the task has come; it moves where nobody knows, and is full when the task has succeeded."""
    task = later(status_app)
    task.summary.progress = progress and Progress.of(*progress, None, 0.0)
    task.summary.state = state

    answer = status_app.test_client().get(f"/status/{task.id}", headers=HTMX)

    assert shown in answer.text


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        ((9, 4), "225 %"),
        ((29, 100), "29 %"),
        ((999, 1_000), "99 %"),
        ((1, 1), "100 %"),
        ((1_234, None), "1,234"),
        ((0.5, None), "0.5"),
        ((1e307, 1), "1e+307"),
    ],
)
def test_number(status_app, start, progress, shown):
    """The percentage is 100 only at the end, and more past the total; without a total the number done is shown."""
    task = start(status_app, *progress)

    answer = status_app.test_client().get(f"/status/{task.id}", headers=HTMX)

    assert f'"percent">{shown}<' in answer.text.replace("\N{NO-BREAK SPACE}", " ")


def test_no_error_text(status_app):
    """What a task has failed of is nobody's business."""
    task = done(status_app, fail)

    for headers in ({}, HTML, HTMX):
        answer = status_app.test_client().get(f"/status/{task.id}", headers=headers)

        assert "secret" not in answer.text and "ailed" in answer.text


@pytest.mark.parametrize("headers", [HTML, HTMX], ids=["page", "fragment"])
@pytest.mark.parametrize("kind", [str, Markup])
def test_hostile(status_app, start, headers, kind):
    """Names and texts may come from users: they are shown as they are, whatever type of str they have."""
    evil = kind('"><script>alert(1)</script>\ud800\0')
    task = start(status_app, 1, 2, evil, name=evil)

    answer = status_app.test_client().get(f"/status/{task.id}", headers=headers)

    assert answer.status_code == 200
    assert "<script>alert" not in answer.text and "&lt;script&gt;alert(1)" in answer.text
    assert '""' not in answer.text.replace('=""', "")


def test_delimiters_of_the_app(make_status):
    """An application with template delimiters of its own, and processors that fail, has the view all the same."""
    app = make_status()
    app.jinja_options = {"variable_start_string": "[[", "variable_end_string": "]]"}
    app.context_processor(lambda: 1 / 0)

    answer = app.test_client().get(f"/status/{done(app).id}", headers=HTMX)

    assert ">Done<" in answer.text


# Who may see it


@pytest.mark.parametrize(
    "id", [UNKNOWN, "1", "x" * 5_000, "failed", "%00", "..", "0" * 31 + "\N{DEVANAGARI DIGIT ONE}"]
)
@pytest.mark.parametrize("headers", [{}, HTML, HTMX], ids=["json", "page", "fragment"])
def test_unknown(status_app, id, headers):
    """An id that nobody has is a 404 that nobody stores."""
    answer = status_app.test_client().get(f"/status/{id}", headers=headers)

    assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("refusal", [False, None, 0])
def test_refused(make_status, refusal):
    """What `access` refuses is the same 404, to see and to cancel."""
    seen = []
    app = make_status(access=lambda summary: seen.append(summary) or refusal, cancel=True)
    task = later(app)
    client = app.test_client()

    refused = client.get(f"/status/{task.id}")

    assert refused.status_code == 404 and seen == [task.summary]
    assert refused.data == client.get(f"/status/{UNKNOWN}").data
    assert client.post(f"/status/{task.id}/cancel").status_code == 404
    assert task.state == "waiting"


def test_refused_by_the_session(make_app):
    """A visitor whose session may not see a task gets the headers of an unknown one, too."""
    app = make_app(ASOK_STORE="memory", ASOK_TRACKED=True)
    view = FlaskAsok().status(access=lambda summary: summary.id in session.get("tasks", ()))
    app.register_blueprint(view, url_prefix="/status")
    with app.app_context():
        task = background(int)
        task.join(10)
    client = app.test_client()

    refused, unknown = client.get(f"/status/{task.id}"), client.get("/status/" + "0" * 32)

    assert (refused.status_code, refused.data) == (unknown.status_code, unknown.data) == (404, unknown.data)
    assert dict(refused.headers) == dict(unknown.headers)


def test_allowed(make_status):
    """What `access` allows is shown."""
    app = make_status(access=lambda summary: summary.name == "mine")

    client = app.test_client()

    assert client.get(f"/status/{later(app, name='mine').id}").status_code == 200
    assert client.get(f"/status/{later(app, name='yours').id}").status_code == 404


def test_positional_access():
    """A function without its name says how it is given."""
    with pytest.raises(TypeError, match=r"write asok\.status\(access=may_see\)"):
        FlaskAsok().status(bool)


def test_access_is_a_function():
    """An `access` that cannot be called is a TypeError at once."""
    with pytest.raises(TypeError, match="access must be a function"):
        FlaskAsok().status(access=True)


def test_other_application(status_app, make_status):
    """Two applications in one process never show each other's tasks."""
    other = make_status()

    assert other.test_client().get(f"/status/{done(status_app).id}").status_code == 404


def test_store_is_away(status_app, monkeypatch):
    """Where the states cannot be read the answer is 503, which a script tries again."""

    def away(id):
        raise BackendUnavailable("redis at 10.0.0.1")

    monkeypatch.setattr(status_app.extensions["asok"].backend, "get", away)

    answer = status_app.test_client().get(f"/status/{UNKNOWN}")

    assert answer.status_code == 503 and answer.headers["Retry-After"] and "10.0.0.1" not in answer.text


# Unchanged


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["json", "fragment"])
def test_etag(status_app, start, headers):
    """A poll that finds nothing new gets 304, and the next change in full."""
    task = start(status_app, 1, 2)
    client = status_app.test_client()

    first = client.get(f"/status/{task.id}", headers=headers)
    second = client.get(f"/status/{task.id}", headers={**headers, "If-None-Match": first.headers["ETag"]})
    task.summary.progress = Progress.of(2, 2, None, 0.0)
    third = client.get(f"/status/{task.id}", headers={**headers, "If-None-Match": first.headers["ETag"]})

    assert [first.status_code, second.status_code, third.status_code] == [200, 304, 200]
    assert second.data == b"" and second.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache" == second.headers["Cache-Control"]
    assert {"accept", "hx-request", "cookie"} <= {each.lower() for each in first.vary}


def test_etag_of_each_kind(status_app):
    """JSON and fragment of the same task do not pass for each other."""
    task = later(status_app)
    client = status_app.test_client()
    tag = client.get(f"/status/{task.id}").headers["ETag"]

    assert client.get(f"/status/{task.id}", headers={**HTMX, "If-None-Match": tag}).status_code == 200


def test_fresh_tokens(status_app, monkeypatch):
    """What does not change is sent again twice an hour, for the tokens in it."""
    task = later(status_app)
    client = status_app.test_client()
    now = [1_800_000_000.0]
    monkeypatch.setattr("flask_asok.status.blueprint.time.time", lambda: now[0])
    tag = client.get(f"/status/{task.id}", headers=HTMX).headers["ETag"]

    now[0] += 1_800

    assert client.get(f"/status/{task.id}", headers={**HTMX, "If-None-Match": tag}).status_code == 200


def test_stop_polling(status_app):
    """A fragment of a settled task tells htmx to stop polling, and is never taken for unchanged."""
    task = done(status_app)
    client = status_app.test_client()

    first = client.get(f"/status/{task.id}", headers=HTMX)
    second = client.get(f"/status/{task.id}", headers={**HTMX, "If-None-Match": first.headers["ETag"]})

    assert first.status_code == second.status_code == 286


def test_page_is_not_stored(status_app):
    """The page, with its token, is stored nowhere."""
    answer = status_app.test_client().get(f"/status/{later(status_app).id}", headers=HTML)

    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("headers", [{}, HTML, HTMX], ids=["json", "page", "fragment"])
def test_security_headers(status_app, headers):
    """No answer runs a foreign script, is framed, is taken for another type or tells its address elsewhere."""
    answer = status_app.test_client().get(f"/status/{later(status_app).id}", headers=headers)

    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize(("name", "most"), [("progress.js", 3_000), ("progress.css", 3_000)])
def test_assets(status_app, name, most):
    """The script and the styles are small files of the view."""
    with status_app.test_client().get(f"/status/assets/{name}") as answer:
        assert answer.status_code == 200 and 0 < len(answer.data) < most


# To cancel


def test_cancel(status_app):
    """The button of the page cancels a task that waits, and leads back to the page."""
    task = later(status_app)
    client = status_app.test_client()
    token = token_in(client.get(f"/status/{task.id}", headers=HTML))

    answer = client.post(f"/status/{task.id}/cancel", data={"token": token}, headers=HTML)

    assert answer.status_code == 303 and answer.location == f"/status/{task.id}"
    assert task.state == "cancelled"
    page = client.get(answer.location, headers=HTML).text
    assert ">Cancelled<" in page and "<form" not in page


def test_cancel_running(status_app, start, gate):
    """The button stops a running task at its next report; the script gets the fragment of this moment."""
    task = start(status_app, 1, 2)
    client = status_app.test_client()
    token = token_in(client.get(f"/status/{task.id}", headers=HTMX))

    answer = client.post(f"/status/{task.id}/cancel", data={"token": token}, headers=HTMX)
    gate.set()
    task.join(10)

    assert answer.status_code == 200 and ">Running<" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert task.state == "cancelled"


def test_cancel_as_json(status_app):
    """A client that asks for JSON gets what the task is by then."""
    task = later(status_app)
    client = status_app.test_client()
    token = token_in(client.get(f"/status/{task.id}", headers=HTMX))

    answer = client.post(f"/status/{task.id}/cancel", data={"token": token})

    assert answer.json["state"] == "cancelled"


def test_cancel_settled(status_app):
    """A press that comes too late changes nothing, and shows how the task ended."""
    task = later(status_app)
    client = status_app.test_client()
    token = token_in(client.get(f"/status/{task.id}", headers=HTMX))
    task.cancel()

    answer = client.post(f"/status/{task.id}/cancel", data={"token": token}, headers=HTMX)

    assert answer.status_code == 286 and ">Cancelled<" in answer.text


@pytest.mark.parametrize("data", [{}, {"token": ""}, {"token": "forged"}], ids=["missing", "empty", "forged"])
def test_cancel_without_a_token(status_app, data):
    """Without the token of its page nothing is cancelled: a foreign page could have sent the request."""
    task = later(status_app)

    answer = status_app.test_client().post(f"/status/{task.id}/cancel", data=data)

    assert answer.status_code == 400 and "Reload" in answer.text
    assert task.state == "waiting"


def test_token_of_another_task(status_app):
    """The token of one task cancels no other."""
    one, other = later(status_app), later(status_app)
    client = status_app.test_client()
    token = token_in(client.get(f"/status/{one.id}", headers=HTMX))

    answer = client.post(f"/status/{other.id}/cancel", data={"token": token})

    assert answer.status_code == 400 and other.state == "waiting"


def test_cancel_not_allowed(make_status):
    """Without `cancel=True` there is neither a button nor a route."""
    app = make_status()
    task = later(app)
    client = app.test_client()

    assert "<form" not in client.get(f"/status/{task.id}", headers=HTML).text
    assert client.post(f"/status/{task.id}/cancel").status_code == 404


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_cancel_by_a_link(status_app, method):
    """Nothing is cancelled by anything else than a POST."""
    task = later(status_app)

    answer = getattr(status_app.test_client(), method)(f"/status/{task.id}/cancel")

    assert answer.status_code == 405 and task.state == "waiting"


@pytest.mark.parametrize("key", [None, ""])
def test_cancel_needs_a_key(make_app, key):
    """A cancel button in an app without SECRET_KEY is NotConfigured when it is registered; the view alone is not."""
    app = make_app()
    app.config["SECRET_KEY"] = key

    with pytest.raises(NotConfigured, match="SECRET_KEY"):
        app.register_blueprint(FlaskAsok().status(cancel=True), url_prefix="/status")
    app.register_blueprint(FlaskAsok().status(), url_prefix="/see", name="see")


@pytest.mark.parametrize("first", ["csrf", "status"])
def test_csrf_of_flask_wtf(make_app, first):
    """Where Flask-WTF protects the app's forms, the button carries its token as well, whichever is set up first."""
    app = make_app(WTF_CSRF_FIELD_NAME="their_token")
    steps = {
        "csrf": lambda: CSRFProtect(app),
        "status": lambda: app.register_blueprint(FlaskAsok().status(cancel=True), url_prefix="/status"),
    }
    for step in (first, *(set(steps) - {first})):
        steps[step]()
    task = later(app)
    client = app.test_client()
    page = client.get(f"/status/{task.id}", headers=HTML)
    theirs = re.search(r'name="their_token" value="([^"]+)"', page.text)[1]

    without = client.post(f"/status/{task.id}/cancel", data={"token": token_in(page)})
    answer = client.post(f"/status/{task.id}/cancel", data={"token": token_in(page), "their_token": theirs})

    assert (without.status_code, answer.status_code) == (400, 200)
    assert task.state == "cancelled"


# Where it is registered


def test_nested(make_app):
    """The view may stand in another blueprint, under another name."""
    app = make_app()
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    admin.register_blueprint(FlaskAsok().status(cancel=True), url_prefix="/jobs", name="jobs")
    app.register_blueprint(admin)
    task = later(app)
    client = app.test_client()

    page = client.get(f"/admin/jobs/{task.id}", headers=HTML)
    answer = client.post(f"/admin/jobs/{task.id}/cancel", data={"token": token_in(page)}, headers=HTML)

    assert 'src="/admin/jobs/assets/progress.js"' in page.text
    assert answer.location == f"/admin/jobs/{task.id}" and task.state == "cancelled"


def test_reports_of_many(status_app):
    """A hundred polls of a task that works on show a progress that never goes back, and 1.0 at the end."""

    def work():
        for step in range(1_000):
            report_progress(step + 1, 1_000)

    client = status_app.test_client()
    with status_app.app_context():
        task = background(work)
    seen = []
    while not seen or seen[-1]["state"] != "succeeded":
        answer = client.get(f"/status/{task.id}")
        assert answer.status_code == 200
        seen.append(answer.json)
        assert len(seen) < 100_000

    fractions = [poll["progress"]["fraction"] for poll in seen if poll["progress"]]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
