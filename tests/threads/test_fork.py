"""A forked child, which leaves the parent's tasks to the parent."""

import os

import pytest

from flask_asok import background

WAIT = 10
ONE_THREAD = {"default": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork(make_app, gate, busy):
    """In a forked child the parent's tasks are abandoned and new ones run; the parent's go on."""
    app = make_app(ASOK_QUEUES=ONE_THREAD)

    with app.app_context(), busy(gate) as (running,):
        queued = background(int)
        delayed = background.using(delay=3600)(int)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert [each.state for each in (running, queued, delayed)] == ["abandoned"] * 3
                running.join(0)
                assert background(os.getpid).result(WAIT) == os.getpid()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        states = [each.state for each in (running, queued, delayed)]
        delayed.cancel()

    assert status == 0
    assert states == ["running", "queued", "waiting"]
    assert queued.result(WAIT) == 0
