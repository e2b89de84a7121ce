"""Ports for the servers of tests: a free one, and whether one answers."""

import contextlib
import random
import socket

_taken = []
"""UDP sockets at the ports that this process has given out: as long as it lives, no other process of tests does."""


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
            return port


def answers(port):
    """Return True if something listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
