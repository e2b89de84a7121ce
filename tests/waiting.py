"""Wait in a test for what another process does."""

import time


def wait_until(condition, seconds=30.0, what="it"):
    """Look at another process until `condition()` is true; what it returned then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s")
