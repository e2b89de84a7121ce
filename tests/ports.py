"""Ports for the servers of tests: a free one, and whether one answers."""

import contextlib
import os
import random
import re
import socket
from collections import deque

SHARE = 1_500
"""How many ports each process of pytest-xdist has for itself, so that no two take the same one at the same time."""

_number = re.search(r"\d+", os.environ.get("PYTEST_XDIST_WORKER", "7"))
FIRST = 20_000 + SHARE * (int(_number[0]) % 8)

_given = deque(maxlen=SHARE // 3)


def free_port():
    """
    Return a port that nothing listens on, and that was not given to another server a while ago.

    One that the system gives to no outgoing connection, not even while the server is stopped for a test.
    """
    while True:
        # Not by the tests' own generator, which hypothesis seeds alike in all processes.
        port = FIRST + random.SystemRandom().randrange(SHARE)
        if port in _given:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given.append(port)
            return port


def answers(port):
    """Return True if something listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
