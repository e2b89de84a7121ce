"""What the pages show, and how they answer."""

import html
import itertools
import re

import pytest
from flask import Blueprint, g, request

from flask_asok import FlaskAsok, background, report_progress
from flask_asok.sharing import open_store
from flask_asok.store.record import Record

asok = FlaskAsok()

EVIL = "<img src=x onerror=alert(1)>\"'</script>"
PAGES = ["", "tasks", "functions", "periodic", "processes"]


def fail(text="no"):
    raise ValueError(text)


@pytest.fixture
def client(shop):
    return shop.test_client()


@pytest.mark.parametrize("page", PAGES)
def test_empty(client, page):
    """Before the first task each page is there and says so."""
    answer = client.get(f"/tasks/{page}")

    assert answer.status_code == 200
    assert "<h1>" in answer.text


@pytest.mark.parametrize("page", [*PAGES, "assets/dashboard.js"])
def test_headers(client, page):
    """No page runs a line of others, is framed, or kept; nothing of scripts or styles is within it."""
    answer = client.get(f"/tasks/{page}")

    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if page.startswith("assets"):
        assert "private" in answer.headers["Cache-Control"]
        return
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son\w+=", answer.text)


def test_own_policy(shop):
    """An application that sets its own policy on every response, as Flask-Talisman does, does not spoil the pages."""

    @shop.after_request
    def add_policy(response):
        response.headers["Content-Security-Policy"] = "script-src 'nonce-x'"
        response.headers["Cache-Control"] = "public"
        return response

    headers = shop.test_client().get("/tasks/").headers

    assert headers.get_all("Content-Security-Policy")[0].startswith("default-src 'none'")
    assert headers.get_all("Cache-Control") == ["no-store"]
    assert shop.test_client().get("/nothing").headers["Cache-Control"] == "public"


def test_hostile_texts(shop, client):
    """Names, errors and progress texts of visitors are text, on every page."""

    def work():
        report_progress(1, 2, EVIL)
        fail(EVIL)

    with shop.app_context():
        task = background.using(name=EVIL)(work)
        task.join(10)

    queries = ["tasks?state=failed", "tasks?name=%3Cimg%3E", "tasks?error=%22%3E%3Cimg%3E"]
    for page in [*PAGES, *queries, f"tasks/{task.id}"]:
        assert "<img" not in client.get(f"/tasks/{page}").text
    assert "&lt;img src=x" in client.get(f"/tasks/tasks/{task.id}").text


def test_one_task(shop, client):
    """A page of one task tells when it was called and by which request, its attempts, and its error with traceback."""

    @shop.post("/orders/<secret>")
    def create_order(secret):
        return background(fail, "the warehouse is closed").id

    id = client.post("/orders/47~11?token=a~bc").text
    with shop.app_context():
        asok.get(id).join(10)

    text = client.get(f"/tasks/tasks/{id}").text

    assert "POST create_order" in text
    # With a sign that no id and no token of a form has, in which chance may write any digits.
    assert "47~11" not in text and "a~bc" not in text
    assert "the warehouse is closed" in text and "Traceback (most recent call last)" in text
    assert "Attempt 1" in text
    assert "Discard" in text and "Retry" not in text


def test_attempts(shop, client, gate):
    """A page of one task tells when each attempt began and what it failed with, also while it waits for the next."""
    numbers = itertools.count(1)

    def work():
        raise ValueError(f"<b>no {next(numbers)}")

    with shop.app_context():
        failed = background.using(retries=2, backoff=0)(work)
        failed.join(10)
        waiting = background.using(retries=1, backoff=3_600)(work)
        # The record, which the page is made of, says so a moment after the handle.
        while "Next attempt" not in client.get(f"/tasks/tasks/{waiting.id}").text:
            gate.wait(0.01)
    over, open_ = (timeline(client.get(f"/tasks/tasks/{task.id}").text) for task in (failed, waiting))

    assert re.fullmatch(
        r"Called .* Attempt 1 began .* and failed after [\d.]+ m?s ValueError\('<b>no 1'\) "
        r"Attempt 2 began .* and failed after [\d.]+ m?s ValueError\('<b>no 2'\) Attempt 3 began .* Failed .*",
        over,
    )
    assert re.fullmatch(r"Called .* Attempt 1 began .* ValueError\('<b>no 4'\) Next attempt .*", open_)


def timeline(page):
    """Return the text of the timeline on the page of a task."""
    text = re.sub(r"<[^>]*>", " ", re.search(r'<ol class="timeline">(.*?)</ol>', page, re.DOTALL)[1])
    return html.unescape(" ".join(text.replace("\N{NO-BREAK SPACE}", " ").split()))


def test_running(shop, client, gate):
    """A task that runs shows its progress, and a button that asks it to stop."""

    def work():
        report_progress(3, 4, "nearly")
        gate.wait(30)

    with shop.app_context():
        task = background(work)
        while task.progress is None:
            gate.wait(0.01)

    text = client.get(f"/tasks/tasks/{task.id}").text
    gate.set()

    assert 'value="0.75"' in text and "nearly" in text and "Ask it to stop" in text
    task.join(10)


def test_list_and_filters(shop, client):
    """The list has the newest first, and is filtered by state, name, queue, and text of the error."""
    with shop.app_context():
        for n, name in enumerate(["one", "two", "three"]):
            background.using(name=name, queue="mail" if n else "default")(fail if n == 1 else int).join(10)

    def names(query=""):
        return re.findall(r'id="task-[0-9a-f]+" dir="auto">(\w+)', client.get(f"/tasks/tasks?{query}").text)

    assert names() == ["three", "two", "one"]
    assert names("state=failed") == ["two"]
    assert names("name=one") == ["one"]
    assert names("queue=mail") == ["three", "two"]
    assert names("error=VALUEERROR") == ["two"]
    assert names("error=nothing") == []
    assert names("state=other") == ["three", "two", "one"]


@pytest.mark.parametrize(
    "name", ["x" * 300, " spaces ", "tab\t", "a\nb", "a&b=c#d?e/../..", "a+b %20", "\N{SNOWMAN}"], ids=repr
)
def test_links_of_functions(shop, client, name):
    """Whatever name a task has, the page of functions links to the list of its tasks."""
    with shop.app_context():
        task = background.using(name=name)(fail)
        task.join(10)

    links = re.findall(r'href="([^"]*[?]name=[^"]*)"', client.get("/tasks/functions").text)

    assert len(links) == 2
    assert all(f"task-{task.id}" in client.get(html.unescape(link)).text for link in links)


@pytest.mark.parametrize("store", ["memory", "file", "none"])
def test_page_by_page(make_dashboard, tmp_path, store):
    """Page by page each task comes once: tracked ones, and between them those that only this process knows."""
    app = make_dashboard(ASOK_STORE=str(tmp_path / "asok.sqlite3") if store == "file" else "memory", ASOK_TRACKED=False)
    with app.app_context():
        tasks = [background.using(tracked=store != "none" and n % 3 == 0)(int) for n in range(130)]
        for task in tasks:
            task.join(10)
    client, found, page = app.test_client(), [], "/tasks/tasks"

    while page:
        text = client.get(page).text
        ids = re.findall(r'id="task-([0-9a-f]+)"', text)
        assert 0 < len(ids) <= 50
        found += ids
        older = re.search(r'<a href="([^"]+)" rel="next">', text)
        page = older and older[1].replace("&amp;", "&")

    assert sorted(found) == sorted(task.id for task in tasks)
    assert text.count(">here</span>") == len(ids) - (0 if store == "none" else sum(t.id in ids for t in tasks[::3]))


def test_numbers(shop, client, gate):
    """The overview counts what runs, is queued and waits, and what ended within the hour; functions tell their p50."""
    with shop.app_context():
        for _ in range(3):
            background.using(name="quick")(int).join(10)
        background.using(name="broken")(fail).join(10)
        background.using(delay=600, queue="mail")(int)
        background.using(delay=600, queue="mail")(int).cancel()
        running = [background.using(queue="images")(gate.wait, 30) for _ in range(5)]

    text = client.get("/tasks/").text
    functions = client.get("/tasks/functions").text

    figures = re.findall(r"<dd>(?:<a[^>]*>)?(\d+)", text)
    assert sum(map(int, figures[:2])) == 5 and figures[2:] == ["1", "3", "1"]
    assert "3 succeeded, 1 failed, 0 abandoned" in text
    assert re.search(r'name=quick"[^>]*>quick</a></th>\s*<td class="n" data-label="Ended">3</td>', functions)
    gate.set()
    for task in running:
        task.join(10)


@pytest.mark.parametrize(("page", "name"), [("", ""), ("functions", "charge")])
def test_failed_and_abandoned(shop, client, page, name):
    """Failed and abandoned tasks are counted apart, and each number leads to as many tasks."""
    store = open_store(shop)
    now = store.now()
    for n, state in enumerate(["failed", "failed", "abandoned", "abandoned", "abandoned", "succeeded"]):
        times = dict.fromkeys(("enqueued", "due", "started", "finished"), now - 1)
        store.add(Record(id=f"{n:032x}", name="charge", queue="mail", state=state, owner=store.me, attempts=1, **times))

    text = client.get(f"/tasks/{page}").text
    links = {state: html.unescape(url) for url, state in re.findall(r'href="([^"]*state=(\w+)[^"]*)"', text)}
    counts = {state: client.get(url).text.count('id="task-') for state, url in links.items()}

    assert [int(number) for number in re.findall(r'state=\w+"[^>]*>(\d+)', text)] == [2, 3]
    assert counts == {"failed": 2, "abandoned": 3}
    assert all((f"name={name}" in url) == bool(name) for url in links.values())


def test_polls(shop, client):
    """A script asks for the part that changes, and gets nothing while that is as it was: tokens alone are no change."""
    with shop.app_context():
        task = background.using(delay=3_600)(int)
    path, headers = f"/tasks/tasks/{task.id}", {"Asok-Fragment": "1"}

    first = client.get(path, headers=headers)
    again = client.get(path, headers={**headers, "If-None-Match": first.headers["ETag"]})
    task.cancel()
    third = client.get(path, headers={**headers, "If-None-Match": first.headers["ETag"]})

    assert "<html" not in first.text and 'name="token"' in first.text
    assert (first.status_code, again.status_code, third.status_code) == (200, 304, 200)
    assert first.headers["Cache-Control"] == "no-store"


def test_store_away(make_dashboard, tmp_path):
    """Where the store cannot be had, each page says so with a 503, and the application goes on."""
    app = make_dashboard(ASOK_STORE=str(tmp_path / "asok.sqlite3"))
    (tmp_path / "asok.sqlite3").write_text("this is not a database, and it is long enough to be looked at" * 100)
    (tmp_path / "asok.sqlite3").rename(tmp_path / "x")
    (tmp_path / "asok.sqlite3").mkdir()

    answer = app.test_client().get("/tasks/")

    assert answer.status_code == 503
    assert "Not available" in answer.text


# In other applications


def test_prefix_with_a_variable(make_app):
    """A prefix with a variable, which the application takes out or not, is in every link."""
    app = make_app(ASOK_STORE="memory", ASOK_TRACKED=True)
    app.register_blueprint(asok.dashboard(access=lambda: True), url_prefix="/<lang>/ops")

    text = app.test_client().get("/de/ops/").text

    assert 'href="/de/ops/tasks"' in text and "/de/ops/assets/dashboard.css" in text


def test_url_defaults_and_catch_all(make_app):
    """An application with `url_for` defaults, a catch-all route and a nested blueprint has the pages all the same."""
    app = make_app(ASOK_STORE="memory", ASOK_TRACKED=True)
    outer = Blueprint("ops", __name__, url_prefix="/ops")
    outer.register_blueprint(asok.dashboard(access=lambda: True), url_prefix="/jobs")
    app.register_blueprint(outer)

    @app.url_defaults
    def add_language(endpoint, values):
        values.setdefault("lang", g.get("lang", "en"))

    @app.route("/<path:rest>")
    def catch_all(rest):
        return f"all of {request.path}"

    with app.app_context():
        task = background(int)
        task.join(10)
    client = app.test_client()
    page = client.get("/ops/jobs/tasks").text
    link = re.search(rf'href="([^"]*{task.id}[^"]*)"', page)[1]

    assert client.get(link.replace("&amp;", "&")).status_code == 200
    assert client.get("/ops/jobs/assets/dashboard.css?lang=en").status_code == 200
    assert client.get("/ops").text == "all of /ops"


def test_script_name(shop):
    """Behind a proxy that mounts the application below a path, links lead below that."""
    text = shop.test_client().get("/tasks/", environ_overrides={"SCRIPT_NAME": "/shop"}).text

    assert 'href="/shop/tasks/tasks"' in text


def test_subdomain(make_app):
    """On a subdomain of its own."""
    app = make_app(ASOK_STORE="memory", SERVER_NAME="shop.localhost")
    app.subdomain_matching = True
    app.url_map.host_matching = False
    app.register_blueprint(asok.dashboard(access=lambda: True), subdomain="ops")

    assert app.test_client().get("/functions", base_url="http://ops.shop.localhost").status_code == 200


def test_own_delimiters_and_response_class(make_dashboard):
    """What an application has made of Jinja and of its responses does not matter."""
    from flask import Response

    app = make_dashboard()
    app.jinja_env.variable_start_string = "[["

    class Own(Response):
        default_mimetype = "text/html"

    app.response_class = Own

    answer = app.test_client().get("/tasks/")

    assert "Overview</h1>" in answer.text
    assert "frame-ancestors" in answer.headers["Content-Security-Policy"]
