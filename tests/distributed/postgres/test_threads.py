"""The threads of a worker: as many as tasks run at once, and kept."""

import threading

from flask_asok.backends.postgres.threads import Threads

CALLS = 5


def test_kept_and_closed(wait_until):
    """Calls that come at once run at once, and later ones in the same threads, which exit in the end."""
    threads, used = Threads(), []

    def call_all():
        together = threading.Barrier(CALLS + 1)
        for _ in range(CALLS):
            threads.call(lambda: (used.append(threading.current_thread()), together.wait(10)))
        together.wait(10)
        wait_until(lambda: len(threads.idle) == CALLS, what="idle threads")

    call_all()
    call_all()
    threads.close()

    assert len(used) == 2 * CALLS
    assert len(set(used)) == CALLS
    for thread in used:
        thread.join(10)
        assert not thread.is_alive()


def test_closed_meanwhile():
    """A thread that still has something to do when the others exit does that, and exits too."""
    threads, begun, gate, used = Threads(), threading.Event(), threading.Event(), []
    threads.call(lambda: (used.append(threading.current_thread()), begun.set(), gate.wait(10)))
    assert begun.wait(10)

    threads.close()
    gate.set()

    used[0].join(10)
    assert not used[0].is_alive()
