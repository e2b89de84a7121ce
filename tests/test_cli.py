"""The commands of the core: `flask asok status` and `flask asok ping`."""

import importlib.metadata
import json
import platform

import pytest

from flask_asok import background


def invoke(app, *args):
    return app.test_cli_runner().invoke(args=["asok", *args])


def test_status(app):
    """`flask asok status` shows the backend, the queues, the configuration and the versions."""
    result = invoke(app, "status")

    assert result.exit_code == 0
    assert result.output.startswith(f"Backend: {app.config['ASOK_BACKEND']}\n")
    lines = [line.split() for line in result.output.splitlines()]
    assert ["default", "8"] in lines
    assert ["ASOK_MAX_QUEUED", "10000"] in lines
    assert ["flask", importlib.metadata.version("flask")] in lines


def test_status_as_json(make_app, backend):
    """`--json` gives the same for programs."""
    app = make_app(ASOK_QUEUES={"reports": 3}, **backend)

    found = json.loads(invoke(app, "status", "--json").output)

    assert found["backend"] == app.config["ASOK_BACKEND"]
    assert found["queues"] == {"default": 8, "webhooks": 16, "images": 2, "mail": 2, "cache": 4, "reports": 3}
    assert found["config"]["ASOK_QUEUE_FULL"] == "run"
    assert found["config"]["ASOK_SHUTDOWN_TIMEOUT"] == 8.0
    assert found["versions"]["python"] == platform.python_version()
    assert set(found["versions"]) >= {"flask-asok", "flask", "werkzeug", "flask-mail", "pillow", "cachelib", "urllib3"}


def test_status_hides_secrets(make_app):
    """A value that may be secret is not shown."""
    app = make_app(ASOK_WEBHOOK_SECRETS={"shop": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})

    for arguments in (["status"], ["status", "--json"]):
        output = invoke(app, *arguments).output

        assert "whsec_" not in output
        assert "(hidden)" in output


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
@pytest.mark.parametrize(
    ("url", "is_hidden"),
    [
        ("redis://:open-sesame@127.0.0.1:1/0", True),
        ("redis://127.0.0.1:1/0?password=open-sesame", True),
        ("redis://127.0.0.1:1/0", False),
    ],
)
def test_status_hides_the_password_of_a_url(make_app, monkeypatch, url, is_hidden, arguments):
    """Of a key whose name tells of no secret, a URL with a password is not shown; one without is."""
    app = make_app(ASOK_STORE=url, ASOK_BACKEND="immediate")
    # No Redis is there.
    monkeypatch.setattr("flask_asok.cli.existing_store", lambda app: None)

    output = invoke(app, *arguments).output

    assert "open-sesame" not in output
    assert (url in output) is not is_hidden


def test_status_without_metadata(make_app, monkeypatch):
    """A package that is there without metadata, as in a source tree, has an unknown version."""

    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr("flask_asok.cli.version", version)

    found = json.loads(invoke(make_app(), "status", "--json").output)

    assert found["versions"]["flask-asok"] == "unknown"


def test_ping(app):
    """`flask asok ping` runs a task end to end and says how long it took."""
    result = invoke(app, "ping")

    assert result.exit_code == 0
    assert result.output.startswith(f"pong from {app.config['ASOK_BACKEND']} in ")
    assert result.output.endswith(" ms\n")


def test_ping_in_vain(make_app, occupy):
    """Where no answer comes in time, `ping` says so on stderr and exits with 1."""
    app = make_app(ASOK_QUEUES={"default": 1})
    with app.app_context():
        occupy()
    result = invoke(app, "ping", "--timeout", "0.01")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "No answer: TimeoutError('Task ping is queued after 0.01 s.')" in result.stderr


@pytest.mark.parametrize("timeout", ["-1", "0", "nan", "inf"])
def test_ping_without_time(make_app, timeout):
    """A time in which nothing could answer, or that never ends, is refused."""
    result = invoke(make_app(), "ping", "--timeout", timeout)

    assert result.exit_code == 2
    assert "--timeout must be seconds, more than 0" in result.stderr


@pytest.mark.parametrize("concurrency", ["0", "-2"])
def test_worker_without_threads(app, concurrency):
    """A worker that could run nothing is refused."""
    result = invoke(app, "worker", "--concurrency", concurrency)

    assert result.exit_code == 2
    assert "--concurrency" in result.stderr and "x>=1" in result.stderr


def test_ping_that_is_refused(make_app, occupy):
    """So it does where the task is not even accepted."""
    app = make_app(ASOK_QUEUES={"default": 1}, ASOK_MAX_QUEUED=1, ASOK_QUEUE_FULL="raise")
    with app.app_context():
        occupy()
        background(int)
    result = invoke(app, "ping")

    assert result.exit_code == 1
    assert result.stderr.startswith("No answer: QueueFull(")


@pytest.mark.parametrize("command", ["failed", "retry 1", "cancel 1"])
def test_commands_of_distributed_backends(app, command):
    """A command about tasks of other processes exits with 2 where the backend has none, and says which setting does."""
    result = invoke(app, *command.split())

    assert result.exit_code == 2
    assert "ASOK_BACKEND" in result.stderr


@pytest.mark.parametrize("debug", ["0", "1"])
def test_worker_in_debug_mode(app, monkeypatch, caplog, debug):
    """A worker that was left in debug mode says so at its start, and how to end it."""
    monkeypatch.setenv("FLASK_DEBUG", debug)

    assert invoke(app, "worker", "--queues", "nonsense").exit_code == 2

    assert ("Set FLASK_DEBUG=0" in caplog.text) == (debug == "1")


@pytest.mark.parametrize("port", [None, 9_100])
def test_metrics_port_of_a_worker_on_threads(make_app, caplog, port):
    """A worker on threads serves no metrics, and warns where a port is set for them."""
    # The worker ends at once, for its queue is unknown.
    invoke(make_app(ASOK_METRICS_PORT=port), "worker", "--queues", "unknown")

    assert ("ASOK_METRICS_PORT is not used" in caplog.text) is (port is not None)
