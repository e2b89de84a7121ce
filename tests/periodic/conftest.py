"""Applications with periodic tasks, and a clock whose hands a test sets."""

from datetime import UTC, datetime

import pytest
from flask import Flask

from flask_asok import FlaskAsok, current_task
from flask_asok.periodic import Clock
from flask_asok.signals import periodic_skipped, task_queued
from flask_asok.state import state_of

TIMEOUT = 10

MIDNIGHT = datetime(2026, 11, 26, tzinfo=UTC).timestamp()


class Process:
    """One of the processes of an application: an app of its own, whose clock shows what the test says."""

    def __init__(self, path, **config):
        self.asok = FlaskAsok()
        self.app = Flask("shop")
        self.app.config.from_mapping(
            {"SECRET_KEY": "a secret of the tests", "ASOK_STORE": str(path / "asok.sqlite3"), **config}
        )
        self.asok.init_app(self.app)
        self.clock = state_of(self.app).kept(Clock)
        self.now = MIDNIGHT
        self.clock.now = lambda: self.now
        self.ran = []
        """The ticks that it ran, in seconds after midnight."""
        self.skipped = []
        self.tasks = []
        periodic_skipped.connect(self._note_skipped, self.app)
        task_queued.connect(self._note_task, self.app)

    def work(self):
        """Note the tick that it runs for."""
        self.ran.append(current_task().scheduled_at.timestamp() - MIDNIGHT)

    def add(self, function=None, *, name="work", **options):
        """Make a periodic task."""
        self.asok.periodic(name=name, **options)(function or self.work)

    def at(self, seconds):
        """Set the clock to so many seconds after midnight, look once, and wait for what that starts."""
        pause = self.look(seconds)
        self.wait()
        return pause

    def look(self, seconds):
        self.now = MIDNIGHT + seconds
        return self.clock.look(self.app)

    def wait(self):
        for task in self.tasks:
            task.join(TIMEOUT)

    def listed(self):
        """Return the first periodic task, as a list shows it."""
        with self.app.app_context():
            return self.asok.periodic_tasks()[0]

    def _note_skipped(self, app, name, at, why):
        self.skipped.append((at.timestamp() - MIDNIGHT, why))

    def _note_task(self, app, task):
        self.tasks.append(task)

    def close(self):
        self.asok.close(self.app, TIMEOUT)


@pytest.fixture
def make_process(tmp_path):
    """Make processes of one application, which share a store."""
    made = []

    def make(path=tmp_path, **config):
        made.append(Process(path, **config))
        return made[-1]

    yield make
    for process in made:
        process.close()


@pytest.fixture
def process(make_process):
    return make_process()
