"""Stands for a library that takes long to import."""

from .errors import FaxRefused


def dial(number, text, timeout):
    """Return what was sent; FaxRefused if the machine is out of paper."""
    if number == "404":
        raise FaxRefused(f"{number} is out of paper.")
    return f"{number}: {text} ({timeout:g} s)"
