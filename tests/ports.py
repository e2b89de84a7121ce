"""Ports for the servers of tests: a free one, and whether one answers."""

import contextlib
import random
import socket


def free_port():
    """
    Return a port that nothing listens on.

    One that the system gives to no outgoing connection, not even while the server is stopped for a test.
    """
    while True:
        # Not by the tests' own generator, which hypothesis seeds alike in all processes.
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def answers(port):
    """Return True if something listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
