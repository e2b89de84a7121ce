"""What `docs/architecture.md` tells of a call on Celery, followed through caller and worker."""

import re
import sys
from pathlib import Path

import jobs
import pytest

import flask_asok
from flask_asok import background

PACKAGE = Path(flask_asok.__file__).parent
PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
TIMEOUT = 60


@pytest.fixture
def steps():
    """The files that each step of the walk names."""
    section = PAGE.partition("## One call on Celery\n")[2]
    return [re.findall(r"`([\w/]+\.py)`", step) for step in re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]]


def not_in_order(names, entered):
    """Return the names that are not found in `entered`, each after the one before."""
    rest = iter(entered)
    return [name for name in names if name not in rest]


@pytest.fixture
def entered():
    """The files of the package that this thread enters from now on."""
    files = []

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}/"):
            files.append(Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix())

    sys.setprofile(note)
    yield files
    sys.setprofile(None)


def test_call_on_celery(redis, start_worker, close, tmp_path, steps, entered):
    """A call enters the files in the order in which the page names them: in the caller, in the worker, and again."""
    config = {"NAME": "walk", "ASOK_BACKEND": "celery", "ASOK_CELERY": {"broker_url": redis.url}}
    start_worker(config, "--pool", "solo").ready()
    app = jobs.create_app(**config)
    path = tmp_path / "entered"
    with app.app_context():
        background(jobs.follow, str(path)).result(TIMEOUT)
    entered.clear()

    with app.app_context():
        task = background(jobs.echo, {"text": "Hello"})
        sent = len(entered)
        task.result(TIMEOUT)
    close(app)

    worked = path.read_text().split()
    # After the end of the task that has begun to write it.
    worked = worked[worked.index("backends/celery/intake.py") :]
    assert not_in_order([name for step in steps[:3] for name in step], entered[:sent]) == []
    assert not_in_order([name for step in steps[3:5] for name in step], worked) == []
    assert not_in_order(steps[5], entered[sent:]) == []
