"""A task that is cancelled before a worker has it: no attempt tells of it, so the process does that cancels it."""

import jobs
import pytest
from prometheus_client import REGISTRY

from flask_asok import background, send_webhook

ON_POSTGRES = True


@pytest.fixture
def ctx(alone):
    """An application whose tasks no worker takes."""
    return alone(ASOK_METRICS="prometheus")


def counted(queue, name):
    labels = {"queue": queue, "task": name, "outcome": "cancelled"}
    return REGISTRY.get_sample_value("asok_tasks_total", labels) or 0.0


@pytest.mark.parametrize("by", ["handle", "id", "command"])
def test_cancelled(ctx, caplog, by):
    """It is logged and counted once, however often and in which way it is cancelled."""
    caplog.set_level("INFO", "asok")
    task = background(jobs.add, 1)
    cancel = {
        "handle": task.cancel,
        "id": lambda: ctx.extensions["asok_of_tests"].cancel(task.id),
        "command": lambda: ctx.test_cli_runner().invoke(args=["asok", "cancel", task.id]).exit_code == 0,
    }[by]
    before = counted("default", "jobs.add")

    cancelled = [cancel(), cancel()]

    assert cancelled[0]
    assert task.state == "cancelled"
    assert counted("default", "jobs.add") == before + 1
    line = f"Background task add ({task.id}) cancelled: cancel() was called."
    assert [(record.task_id, record.task_queue) for record in caplog.records if record.getMessage() == line] == [
        (task.id, "default")
    ]


def test_cancelled_recipe(ctx):
    """A built-in job is counted by the name that callers know, as where it runs."""
    name = "flask_asok.recipes.webhooks.recipe.send_webhook"
    before = counted("webhooks", name)

    assert background(send_webhook, "http://hooks.example/sesame", {}).cancel()

    assert counted("webhooks", name) == before + 1
