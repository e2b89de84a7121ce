"""Requests of an attacker, none of which does anything: from outside, from another site, with forged fields."""

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_asok import FlaskAsok, NotConfigured, background
from flask_asok.tokens import make_token

ADDRESS = "http://localhost"

ACTIONS = ("retry", "cancel", "discard")


def fail():
    raise ValueError("no")


@pytest.fixture
def make_target(make_dashboard):
    """Make an application with a task that waits, one that has failed, and a periodic one that must not run."""

    def make(**options):
        app = make_dashboard(**options)
        with app.app_context():
            app.waiting = background.using(delay=3_600)(int)
            app.failed = background(fail)
            app.failed.join(10)
        return app

    return make


@pytest.fixture
def is_untouched():
    """Tell whether the tasks of an application are as they were."""

    def ask(app):
        with app.app_context():
            states = {task.id: task.state for task in FlaskAsok().tasks()}
        return states == {app.waiting.id: "waiting", app.failed.id: "failed"}

    return ask


def actions_of(app):
    return [
        f"/tasks/tasks/{app.failed.id}/retry",
        f"/tasks/tasks/{app.waiting.id}/cancel",
        f"/tasks/tasks/{app.failed.id}/discard",
    ]


def token_of(app, path):
    return make_token(app, f"dashboard.{path.rpartition('/')[2]}", path.split("/")[3])


# Not let in

PATHS = [
    "", "/", "/tasks", "/tasks/" + "0" * 32, "/functions", "/periodic", "/processes", "/assets/dashboard.css",
    "//functions", "/tasks//" + "0" * 32, "/functions/",
]  # fmt: skip
METHODS = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "QUERY", "ANY",
]  # fmt: skip


@pytest.mark.parametrize("said", [False, None, "admin", "Write", "", 0, 2, ["write"]], ids=repr)
def test_refused(make_target, is_untouched, said):
    """Whom `access` does not let in sees on every address what an unknown page looks like, whatever they send."""
    app = make_target(access=lambda: said)
    client = app.test_client()
    unknown = client.get("/nothing")

    for path in PATHS:
        for method in METHODS:
            answer = client.open(f"/tasks{path}", method=method)
            assert answer.status_code == 404
            assert dict(answer.headers) == dict(unknown.headers) or method == "HEAD"
    for path in actions_of(app):
        answer = client.post(path, data={"token": token_of(app, path)}, headers={"Origin": ADDRESS})
        assert (answer.status_code, answer.data) == (404, unknown.data)
    assert is_untouched(app)


def test_access_that_aborts(make_target):
    """An `access` that calls `abort(403)` refuses as well, and tells nobody that there is something."""
    from flask import abort

    app = make_target(access=lambda: abort(403))

    assert app.test_client().get("/tasks/").status_code == 404


def test_access_that_raises(make_target):
    """An `access` that raises lets nobody in."""

    def access():
        raise RuntimeError("database is away")

    assert make_target(access=access).test_client().get("/tasks/").status_code == 500


def test_async_access(make_target):
    """An `async def` is awaited, not taken for true."""

    async def refuses():
        return False

    async def allows():
        return "read"

    assert make_target(access=refuses).test_client().get("/tasks/").status_code == 404
    assert make_target(access=allows).test_client().get("/tasks/").status_code == 200


def test_access_is_asked_each_time(make_target):
    """Who is refused from now on is refused by the next request."""
    said = ["write"]
    client = make_target(access=lambda: said[0]).test_client()
    assert client.get("/tasks/").status_code == 200

    said[0] = False

    assert client.get("/tasks/").status_code == 404


def test_read(make_target, is_untouched):
    """With "read" all is seen, no button is there, and every action is refused, with a right token too."""
    app = make_target(access=lambda: "read")
    client = app.test_client()

    for path in ("/tasks/", "/tasks/tasks", f"/tasks/tasks/{app.failed.id}", "/tasks/periodic"):
        page = client.get(path)
        assert page.status_code == 200
        assert 'method="post"' not in page.text
    for path in actions_of(app):
        sent = client.post(path, data={"token": token_of(app, path)}, headers={"Origin": ADDRESS})
        assert sent.status_code == 404
    assert is_untouched(app)


# Debug mode, without access


@pytest.fixture
def debug_app(make_app):
    """An application in debug mode, whose dashboard has no `access`."""
    app = make_app(ASOK_STORE="memory", ASOK_TRACKED=True, DEBUG=True)
    app.register_blueprint(FlaskAsok().dashboard(), url_prefix="/tasks")
    return app


def test_no_access_outside_of_debug(make_app):
    """Without `access` the blueprint cannot be registered outside of debug mode, and the error says what to do."""
    with pytest.raises(ValueError, match=r"flask run --debug.*FLASK_DEBUG=1"):
        make_app().register_blueprint(FlaskAsok().dashboard())


def test_debug_ends(debug_app):
    """Debug mode is looked at in each request."""
    assert debug_app.test_client().get("/tasks/").status_code == 200

    debug_app.debug = False

    assert debug_app.test_client().get("/tasks/").status_code == 404


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "shop.localhost"])
def test_this_machine(debug_app, address, host):
    """In debug mode this machine gets in, under its own names."""
    answer = debug_app.test_client().get("/tasks/", headers={"Host": host}, environ_overrides={"REMOTE_ADDR": address})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("10.0.0.5", {}),
        ("192.168.1.7", {"Host": "localhost"}),
        ("::ffff:10.0.0.5", {}),
        ("", {}),
        ("localhost", {}),
        ("127.0.0.1", {"Host": "evil.example"}),
        ("127.0.0.1", {"Host": "localhost.evil.example"}),
        ("127.0.0.1", {"Host": "127.0.0.1.nip.io"}),
        ("127.0.0.1", {"Host": "evil.example@localhost.evil.example"}),
        ("127.0.0.1", {"Host": "[::1"}),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", {"X-Forwarded-Host": "localhost"}),
        ("127.0.0.1", {"X-Forwarded-Proto": "https"}),
        ("127.0.0.1", {"X-Forwarded-Prefix": "/"}),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}),
        ("127.0.0.1", {"Via": "1.1 tunnel"}),
        ("127.0.0.1", {"Referer": "https://shop.example/tasks/"}),
        ("127.0.0.1", {"Origin": "https://shop.example"}),
        ("127.0.0.1", {"Origin": "null"}),
        ("127.0.0.1", {"Referer": "http://[::1"}),
        ("10.0.0.5", {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("proxied", [False, True], ids=["plain", "proxied"])
def test_not_of_this_machine(debug_app, address, headers, proxied):
    """Another machine, another name, and whatever was forwarded, is refused, also behind ProxyFix."""
    if proxied:
        debug_app.wsgi_app = ProxyFix(debug_app.wsgi_app, x_for=1, x_host=1, x_proto=1, x_prefix=1)

    answer = debug_app.test_client().get("/tasks/", headers=headers, environ_overrides={"REMOTE_ADDR": address})

    assert answer.status_code in (400, 404)


def test_proxy_that_adds_nothing(debug_app):
    """A request of HTTP/1.0, as a proxy makes it that adds no header, is refused; no browser makes one."""
    answer = debug_app.test_client().get("/tasks/", environ_overrides={"SERVER_PROTOCOL": "HTTP/1.0"})

    assert answer.status_code == 404


@pytest.mark.parametrize("name", ["Origin", "Referer"])
def test_link_of_this_machine(debug_app, name):
    """A page of this machine may lead to the dashboard: its own, and one of another server."""
    for address in ("http://localhost", "http://localhost:8000", "http://127.0.0.1:5000"):
        assert debug_app.test_client().get("/tasks/", headers={name: address}).status_code == 200


def test_proxy_fix_makes_a_peer_loopback(debug_app):
    """Where ProxyFix trusts more hops than there are, a forged address is not taken for the peer's."""
    debug_app.wsgi_app = ProxyFix(debug_app.wsgi_app, x_for=1)

    def without_traces(environ, start):
        # As a middleware leaves it that takes the headers away.
        environ.pop("HTTP_X_FORWARDED_FOR", None)
        return inner(environ, start)

    inner, debug_app.wsgi_app.app = debug_app.wsgi_app.app, without_traces

    answer = debug_app.test_client().get(
        "/tasks/", headers={"X-Forwarded-For": "127.0.0.1"}, environ_overrides={"REMOTE_ADDR": "10.0.0.5"}
    )

    assert answer.status_code == 404


# From another site, and with forged fields


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "ftp://localhost"},
        {"Origin": "http://evil@localhost"},
        {"Referer": "http://localhost/tasks/"},
        {"Origin": ADDRESS, "Sec-Fetch-Site": "cross-site"},
        {"Origin": ADDRESS, "Sec-Fetch-Site": "same-site"},
        {"Origin": ADDRESS, "Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_from_another_site(make_target, is_untouched, action, headers):
    """A request that no page of this site has sent is refused, though its token is right."""
    app = make_target()
    path = next(path for path in actions_of(app) if path.endswith(action))

    answer = app.test_client().post(path, data={"token": token_of(app, path)}, headers=headers)

    assert answer.status_code == 400
    assert is_untouched(app)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "token", ["none", "empty", "other task", "other action", "other app", "status", "binary", "long"]
)
def test_forged_token(make_target, make_app, is_untouched, action, token):
    """A token that is not of this button is refused."""
    app = make_target()
    path = next(path for path in actions_of(app) if path.endswith(action))
    id, other = path.split("/")[3], make_app(name="other")
    forged = {
        "none": {},
        "empty": {"token": ""},
        "other task": {"token": make_token(app, f"dashboard.{action}", "f" * 32)},
        "other action": {"token": make_token(app, "dashboard.run", id)},
        "other app": {"token": make_token(other, f"dashboard.{action}", id)},
        "status": {"token": make_token(app, "status.cancel", id)},
        "binary": {"token": "\ud800\0\N{SNOWMAN}".encode("utf-8", "surrogatepass")},
        "long": {"token": "a" * 100_000},
    }

    answer = app.test_client().post(path, data=forged[token], headers={"Origin": ADDRESS})

    assert answer.status_code == 400
    assert is_untouched(app)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods(make_target, is_untouched, action, method):
    """A link or an image does nothing: only a form does."""
    app = make_target()
    path = next(path for path in actions_of(app) if path.endswith(action))

    answer = app.test_client().open(
        f"{path}?token={token_of(app, path)}",
        method=method,
        headers={"Origin": ADDRESS, "X-HTTP-Method-Override": "POST"},
    )

    assert answer.status_code == 404
    assert is_untouched(app)


def test_token_in_the_address(make_target, is_untouched):
    """A token in the query counts for nothing: addresses are in logs."""
    app = make_target()
    path = actions_of(app)[0]

    answer = app.test_client().post(f"{path}?token={token_of(app, path)}", headers={"Origin": ADDRESS})

    assert answer.status_code == 400
    assert is_untouched(app)


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/assets/../routes.py", "/tasks/assets/..%2froutes.py", "/tasks/assets/%2e%2e/routes.py",
        "/tasks/assets//etc/passwd", "/tasks/assets/dashboard.js%00", "/tasks/tasks/%3Cscript%3E",
        "/tasks/tasks/" + "0" * 31, "/tasks/tasks/../../etc",
    ],
)  # fmt: skip
def test_odd_paths(make_target, path):
    """An address that is not one of ours shows nothing."""
    assert make_target().test_client().get(path).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "before=nan-x", "before=inf-x", "before=1e999-x", "before=-", "before=" + "9" * 400 + "-a", "before=1-%00",
        "state=%27%20OR%201%3D1--", "name=%25", "queue=" + "x" * 5_000, "error=%00", "error=%F0%9F%92%A5", "said=<b>",
        "state=failed&state=queued", "error=%ED%A0%80",
    ],
)  # fmt: skip
@pytest.mark.parametrize("store", ["memory", "file"])
def test_odd_queries(make_target, tmp_path, query, store):
    """A query of any kind shows a list, and never a fault."""
    app = make_target(ASOK_STORE="memory" if store == "memory" else str(tmp_path / "asok.sqlite3"))

    answer = app.test_client().get(f"/tasks/tasks?{query}")

    assert answer.status_code == 200
    assert "<b>" not in answer.text


def test_no_secret_key(make_dashboard):
    """Buttons without a SECRET_KEY are NotConfigured; looking needs none."""
    app = make_dashboard(SECRET_KEY_FALLBACKS=None)
    app.secret_key = None
    reader = make_dashboard(access=lambda: "read")
    reader.secret_key = None
    app.testing = True

    with pytest.raises(NotConfigured, match="SECRET_KEY"):
        app.test_client().get("/tasks/")
    assert reader.test_client().get("/tasks/").status_code == 200


def test_debug_without_secret_key(make_app):
    """In debug mode that is told when the blueprint is registered."""
    app = make_app(DEBUG=True)
    app.secret_key = None

    with pytest.raises(NotConfigured, match="SECRET_KEY"):
        app.register_blueprint(FlaskAsok().dashboard())


def test_positional_access():
    """A function without its name says how it is given."""
    with pytest.raises(TypeError, match=r"write asok\.dashboard\(access=is_admin\)"):
        FlaskAsok().dashboard(bool)


@pytest.mark.parametrize("access", ["write", True, 1])
def test_access_is_a_function(access):
    """What is no function is a TypeError at the call."""
    with pytest.raises(TypeError, match="access must be a function"):
        FlaskAsok().dashboard(access=access)
