"""Periodic tasks on real servers: once, however many processes there are, and in none that does not serve."""

import collections
import contextlib
import os
import re
import secrets
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

DEADLINE = 60
APPLICATION = Path(__file__).parent / "apps" / "periodic.py"

TICKS = int(os.environ.get("ASOK_PERIODIC_TICKS", "5"))
"""How many ticks, a second apart, each server is watched for."""

GUNICORN = {
    "sync": ["--worker-class=sync", "--workers=4"],
    "gthread": ["--worker-class=gthread", "--threads=2", "--workers=2"],
    "gevent": ["--worker-class=gevent", "--workers=2"],
    "preload": ["--worker-class=sync", "--workers=2", "--preload"],
    "max-requests": ["--worker-class=sync", "--workers=2", "--max-requests=5"],
}


class Site:
    """A server under traffic, and the ticks that its processes have run."""

    def __init__(self, name, server, ticks):
        self.name = name
        self.server = server
        self._ticks = ticks
        self.kill = Path(f"{ticks}.kill")
        """As long as it is there, the next run that is in time ends its process as kill -9 does, and takes it away."""

    def runs(self):
        """Return the tick, the process and the time of each run so far."""
        if not self._ticks.exists():
            return []
        lines = self._ticks.read_text().splitlines()
        return [(int(tick), int(pid), float(at)) for tick, pid, at in map(str.split, lines)]

    def check(self):
        """Assert that each tick has run once, but for those that the log says were late: the machine may be slow."""
        counts = collections.Counter(tick for tick, _, _ in self.runs())
        assert set(counts.values()) == {1}, f"{self.name}: {counts}"
        missing = set(range(min(counts), max(counts) + 1)) - set(counts)
        told = re.findall(r"skips its tick of ([-\d]+ [\d:]+)", self.server.log)
        assert not missing or told, f"{self.name}: {missing} of {sorted(counts)}\n{self.server.log}"
        assert all(at >= tick for tick, _, at in self.runs())


@pytest.fixture
def start(serve, python_module, uwsgi_binary, tmp_path):
    """Start a server of the application, by its name, with a store of its own."""

    def start(name, *options, **env):
        folder = tmp_path / secrets.token_hex(4)
        folder.mkdir()
        if name in GUNICORN:
            if name == "gevent":
                python_module("gevent")
            command = [*python_module("gunicorn"), *GUNICORN[name], "--bind=127.0.0.1:0", "periodic:app"]
        else:
            command = [
                uwsgi_binary, "--master", "--processes=2", "--http-socket=127.0.0.1:0", "--module=periodic:app",
                "--need-app", "--enable-threads", f"--home={sys.prefix}", *options,
            ]  # fmt: skip
        env = {"INSTANCE": folder, "TICKS": folder / "ticks", "GUNICORN_CMD_ARGS": "--no-control-socket", **env}
        return Site(name, serve(command, **env), Path(env["TICKS"]))

    return start


@pytest.fixture
def traffic():
    """Keep asking servers, so that each of their processes gets requests, until the end of the test."""
    ended = threading.Event()
    threads = []

    def ask(server):
        while not ended.wait(0.05):
            # Its worker may be killed in the middle of the answer.
            with contextlib.suppress(AssertionError):
                server.get("/")

    def traffic(site):
        thread = threading.Thread(target=ask, args=(site.server,))
        threads.append(thread)
        thread.start()

    yield traffic
    ended.set()
    for thread in threads:
        thread.join(DEADLINE)


def wait_for_runs(sites, count):
    deadline = time.monotonic() + DEADLINE + 2 * count
    while any(len(site.runs()) < count for site in sites):
        assert time.monotonic() < deadline, {site.name: (site.runs(), site.server.log) for site in sites}
        threading.Event().wait(0.05)


def kill_runners(sites):
    """Kill the process of each site's next run in the middle of it."""
    for site in sites:
        site.kill.touch()
    deadline = time.monotonic() + DEADLINE
    while any(site.kill.exists() for site in sites):
        assert time.monotonic() < deadline, {site.name: site.server.log for site in sites}
        threading.Event().wait(0.05)


@pytest.mark.parametrize("where", ["file", "redis"])
def test_servers(request, start, traffic, tmp_path, where):
    """On every server each tick runs once, in one of its processes; a killed worker costs none."""
    env, names = {}, [*GUNICORN, "uwsgi"]
    if where == "redis":
        # Two servers of one application, as on two machines.
        port = request.getfixturevalue("redis_port")
        env, names = (
            {"FLASK_ASOK_STORE": f"redis://127.0.0.1:{port}/3", "TICKS": tmp_path / "ticks"},
            ["sync", "preload"],
        )
    sites = [start(name, **env) for name in names]
    for site in sites:
        traffic(site)

    wait_for_runs(sites, TICKS // 2)
    kill_runners([site for site in sites if site.name != "max-requests"])
    wait_for_runs(sites, TICKS)

    for site in sites:
        site.check()
        assert "ERROR asok" not in site.server.log
    if where == "file":
        # As two machines would do: each has a file of its own, and runs each tick.
        first, second, *_ = ({tick for tick, _, _ in site.runs()} for site in sites)
        assert first & second


@pytest.mark.parametrize("kind", ["mule", "spooler"])
def test_beside_the_workers(start, tmp_path, kind):
    """A mule or a spooler of uWSGI, which is no worker and forks none, runs each tick."""
    options = {
        "mule": [f"--mule={APPLICATION.with_name('beside.py')}"],
        "spooler": [f"--spooler={tmp_path}", "--spooler-python-import=beside"],
    }
    site = start("uwsgi", *options[kind])

    wait_for_runs([site], 2)

    site.check()
    assert "ERROR asok" not in site.server.log


def test_reloader(serve, python_module, tmp_path):
    """With `flask run --debug` the process that answers runs the ticks, before an edit and after it, each once."""
    shutil.copy(APPLICATION, tmp_path)
    ticks = tmp_path / "ticks"
    server = serve(
        [*python_module("flask"), "--app=periodic:app", "run", "--port=0", "--debug"],
        cwd=tmp_path, INSTANCE=tmp_path, TICKS=ticks,
    )  # fmt: skip
    site = Site("flask run", server, ticks)
    first = server.get("/")["pid"]
    wait_for_runs([site], 2)

    with (tmp_path / "periodic.py").open("a") as file:
        file.write("\n# edited\n")
    server.wait_for_line("Restarting with", count=2)
    second = server.get("/")["pid"]
    before = len(site.runs())
    wait_for_runs([site], before + 2)

    assert {pid for _, pid, _ in site.runs()} == {first, second}
    assert first != second
    site.check()


def test_without_requests(start, run, python_module, tmp_path):
    """
    Without a request nothing runs but where it is asked for: in `flask asok periodic`, which ends with SIGTERM, and in
    gunicorn's workers by `start_periodic`.
    """
    folder = tmp_path / "command"
    folder.mkdir()
    command = run(
        [*python_module("flask"), "--app=periodic:app", "asok", "periodic"],
        INSTANCE=folder, TICKS=folder / "ticks", FLASK_ASOK_PERIODIC="command",
    )  # fmt: skip
    quiet = start("sync")
    hooked = start("sync", GUNICORN_CMD_ARGS="--no-control-socket --config=python:periodic")

    wait_for_runs([hooked, Site("command", command, folder / "ticks")], 2)
    command.terminate()
    code = command.wait()

    assert code == 0
    assert "abandoned" not in command.log
    assert quiet.runs() == []
    hooked.check()


@pytest.mark.parametrize("command", [["ask"], ["asok", "periodic", "list"]], ids=str)
def test_commands(run, python_module, tmp_path, command):
    """No command starts the clock, not even one that asks the application itself."""
    process = run(
        [*python_module("flask"), "--app=periodic:app", *command], INSTANCE=tmp_path, TICKS=tmp_path / "ticks"
    )

    assert process.wait() == 0, process.log

    assert "True" not in process.log
    assert list(tmp_path.iterdir()) == []
