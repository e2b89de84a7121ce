"""What keeps the threads of a queue busy."""

import contextlib
import logging
import threading

import pytest

from flask_asok import background

WAIT = 10


@pytest.fixture
def quiet(monkeypatch):
    """Log nothing: pytest keeps every record, and with it the error."""
    monkeypatch.setattr(logging.getLogger("asok.background"), "disabled", True)


@pytest.fixture
def no_threads(monkeypatch):
    """Give no thread to the library for a block, as a system may that has none left; those of others start."""

    @contextlib.contextmanager
    def no_threads():
        start = threading.Thread.start

        def refuse(thread):
            if thread.name.startswith("asok"):
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            yield

    return no_threads


@pytest.fixture
def busy():
    """Keep `count` threads of the default queue busy until the end of the block, so that what follows stays queued."""

    @contextlib.contextmanager
    def busy(gate, count=1):
        started = threading.Barrier(count + 1)

        def hold():
            started.wait(WAIT)
            gate.wait(WAIT)

        tasks = [background(hold) for _ in range(count)]
        started.wait(WAIT)
        yield tasks
        gate.set()
        for each in tasks:
            each.join(WAIT)

    return busy
