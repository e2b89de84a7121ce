"""A PostgreSQL of the tests' own, on a free port, to be killed at will."""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from ports import free_port


def program(name):
    """Return where a program of the server is; Debian keeps them out of the path. Without it a test is skipped."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    found = found[-1] if found else shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is not installed")
    return found


class PostgreSQL:
    """A server with its data in a folder of its own."""

    def __init__(self):
        # Not in pytest's own folder: the server does not run as root, who alone may go in there.
        self.folder = tempfile.mkdtemp(prefix="asok-postgresql-")
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self.data = f"{self.folder}/data"
        self.process = None
        self._run(program("initdb"), "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-N", "-E", "UTF8")

    def url(self, database="postgres", driver="postgresql"):
        return f"{driver}://postgres@127.0.0.1:{self.port}/{database}"

    def start(self, *options):
        command = [program("postgres"), "-D", self.data, "-p", str(self.port), "-k", self.folder]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"]
        command += ["-c", "max_prepared_transactions=10", *options]
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self.user, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with psycopg.connect(self.url(), connect_timeout=1):
                    return self
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise AssertionError(Path(f"{self.folder}/log").read_text())

    def execute(self, statement, values=None, database="postgres"):
        """Run a statement, and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def database(self, name):
        """Make a database, empty, and return its name."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.execute(f'CREATE DATABASE "{name}"')
        return name

    def tell(self, number):
        os.killpg(self.process.pid, number)

    @contextlib.contextmanager
    def suspended(self):
        """Let it hang, each process of it: connections stay open, and no one answers."""
        stopped = [self.process.pid]
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            # From here on it makes no others.
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                        os.kill(int(stat.parent.name), signal.SIGSTOP)
                        stopped.append(int(stat.parent.name))
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self, number=signal.SIGINT):
        """Stop it at once: clients are cut off."""
        self.process.send_signal(number)
        self.process.wait(60)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command):
        done = subprocess.run(command, user=self.user, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
