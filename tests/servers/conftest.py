"""Real servers in processes of their own, and the line on which their tasks talk to the test."""

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import flask_asok

DEADLINE = 60
"""Seconds after which whatever is waited for will not come; a loaded machine is slow."""

APPS = Path(__file__).parent / "apps"
PACKAGE = Path(flask_asok.__file__).parent.parent


class Control:
    """Where tasks of another process tell what they do, and wait to be let go on."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.events = []
        self._waiting = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def told(self, event):
        """Return the events so far that begin with `event`."""
        return [told for told in self.events if told.startswith(event)]

    def wait_for(self, event):
        """Return the event that begins with `event`, as soon as it was told."""
        with self._changed:
            self._changed.wait_for(lambda: self.told(event), DEADLINE)
        assert self.told(event), f"Nobody told {event!r}, but {self.events}"
        return self.told(event)[0]

    def let_go(self, event):
        """Let the task that told `event` go on."""
        self.wait_for(event)
        with self._waiting.pop(event) as connection:
            connection.sendall(b".")

    def close(self):
        # It ends the accept() of the thread, which close() alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self._listener.close()
        for connection in self._waiting.values():
            connection.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            kind, event = self._heard(connection)
            if not kind:
                # Its process was killed before it told anything.
                connection.close()
                continue
            with self._changed:
                self.events.append(event)
                if kind == "wait":
                    self._waiting[event] = connection
                self._changed.notify_all()
            if kind == "tell":
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b".")

    def _heard(self, connection):
        try:
            with connection.makefile("r") as lines:
                kind, _, event = lines.readline().strip().partition(" ")
        except OSError:
            return "", ""
        return kind, event


class Process:
    """A program and its output, line by line as it comes."""

    def __init__(self, command, env, cwd):
        self.lines = []
        self._ended = False
        self._changed = threading.Condition()
        self._popen = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def log(self):
        """All that was written so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern, count=1):
        """
        Return the `count`-th match of `pattern` in the output, as soon as it is there.

        Not the `count`-th line: what two processes print may stand on the same one.
        """

        def matches():
            return [match for line in self.lines for match in re.finditer(pattern, line)]

        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(matches()) >= count, DEADLINE)
        assert len(matches()) >= count, f"No line like {pattern!r} in:\n{self.log}"
        return matches()[count - 1]

    def send(self, number):
        """Send a signal to the program, not to its children."""
        self._popen.send_signal(number)

    def wait(self):
        """Return the exit code; all output is there then."""
        code = self._popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def terminate(self):
        """Send SIGTERM."""
        self.send(signal.SIGTERM)

    def kill(self):
        """End the program and all of its children, whatever they do."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._popen.stdout.close()

    def _read(self):
        for line in self._popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Server(Process):
    """A web server; its port is the one that its log names."""

    @property
    def port(self):
        return int(self.wait_for_line(r"127\.0\.0\.1:([1-9]\d*)")[1])

    def get(self, path):
        """Return the JSON that `path` answers with."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            # The second where the process ends in the middle of its answer.
            raise AssertionError(f"No answer:\n{self.log}") from error
        finally:
            connection.close()
        assert answer.status == 200, f"{answer.status} {body!r}\n{self.log}"
        return json.loads(body)

    def open(self, path):
        """Ask for `path` and read no more than the first bytes of the answer."""
        client = socket.socket()
        client.settimeout(DEADLINE)
        # Small, so that the server cannot get rid of a large answer which nobody reads.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        first = client.recv(64)
        assert re.match(rb"HTTP/1\.. 20[06]", first), first
        return client

    def read_all(self, client):
        """Read the rest of an opened answer; return how much it was."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        total = 0
        while data := client.recv(1 << 20):
            total += len(data)
        return total


@pytest.fixture
def control():
    control = Control()
    yield control
    control.close()


@pytest.fixture
def run(control):
    """Start a program; whatever is left of it at the end of the test is killed."""
    started = []

    def run(command, kind=Process, cwd=APPS, **env):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ASOK", "FLASK"))}
        process = kind(
            command,
            {
                **inherited,
                "PYTHONPATH": os.pathsep.join([str(cwd), str(PACKAGE), os.environ.get("PYTHONPATH", "")]),
                "PYTHONUNBUFFERED": "1",
                "CONTROL_PORT": str(control.port),
                **{key: str(value) for key, value in env.items()},
            },
            cwd,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()


@pytest.fixture
def serve(run):
    """Start a server."""

    def serve(command, **options):
        return run(command, Server, **options)

    return serve


@pytest.fixture
def script(run, tmp_path):
    """Run the text of a Python program."""

    def script(text, **env):
        path = tmp_path / "script.py"
        path.write_text(text)
        return run([sys.executable, str(path)], cwd=tmp_path, **env)

    return script


def missing(what):
    message = f"{what} is not installed: python -m pip install {what}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def python_module():
    """Say how to run an installed module as a program."""

    def python_module(name):
        if importlib.util.find_spec(name) is None:
            missing(name)
        return [sys.executable, "-m", name]

    return python_module


@pytest.fixture(scope="session")
def uwsgi_binary():
    path = shutil.which("uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return path or missing("uwsgi")
