"""Ports for the servers of tests: a free one, and whether one answers."""

import atexit
import contextlib
import random
import socket
from collections import deque

MOST = 200
"""How many ports a process of tests keeps for itself: more than its servers have at any time."""

_taken = deque()
"""UDP sockets at the latest ports that this process has given out: no other process of tests gives out one of them."""
atexit.register(lambda: [mark.close() for mark in _taken])


def free_port():
    """
    Return a port that nothing listens on, and that is given to no other test, whichever process that runs in.

    One that the system gives to no outgoing connection, not even while the server is stopped for a test.
    """
    while True:
        # Not by the tests' own generator, which hypothesis seeds alike in all processes.
        port = random.SystemRandom().randrange(20_000, 32_000)
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port))
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            mark.close()
        else:
            _taken.append(mark)
            if len(_taken) > MOST:
                _taken.popleft().close()
            return port


def answers(port):
    """Return True if something listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
