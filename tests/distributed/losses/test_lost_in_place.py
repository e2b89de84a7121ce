"""Nothing is lost with a worker that ran a task in the place of one that waited for it."""

import jobs
from jobs import lines

from flask_asok import background


def lose_child_run_in_place(parent, ctx, start, lose, tmp_path, wait_until):
    """Kill the worker of `parent`, which runs a child in place, start another one, and return the child's id."""
    first = start().ready()
    background(parent, tmp_path / "ids", tmp_path / "runs", tmp_path / "gate")
    wait_until(lambda: lines(tmp_path / "runs"), what="the child")
    lose(first, ctx)
    (tmp_path / "gate").touch()
    start("--concurrency", "2")
    return lines(tmp_path / "ids")[0]


def test_worker_killed_that_ran_a_task_in_place(ctx, start, lose, tmp_path, wait_until):
    """A task that another one was running while it waited for it is not lost with them."""
    child = lose_child_run_in_place(jobs.wait_for_child, ctx, start, lose, tmp_path, wait_until)

    backend = ctx.extensions["asok"].backend
    wait_until(lambda: backend.get(child).state == "succeeded", 40, "the end of the child")


def test_at_most_once_in_place(ctx, start, lose, tmp_path, wait_until):
    """A task that is to run at most once is not run again either where it ran in a task that waited for it."""
    child = lose_child_run_in_place(jobs.wait_once_in_place, ctx, start, lose, tmp_path, wait_until)

    backend = ctx.extensions["asok"].backend
    wait_until(lambda: backend.get(child).state == "abandoned", 40, "the end of the child")
    assert "is to run at most once" in backend.get(child).error
    # The parent, which is to run at least once, has made another child.
    assert lines(tmp_path / "runs").count("1") <= len(lines(tmp_path / "ids"))
