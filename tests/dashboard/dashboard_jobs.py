"""Functions that durable tasks of these tests run."""

import enum
import functools
from dataclasses import dataclass

calls = []
"""How often `charge` was called; it fails until the test says otherwise."""

works = []


@dataclass
class Card:
    holder: str
    token: str


class Field(enum.Enum):
    PASSWORD = 1


def with_database(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn("database", *args, **kwargs)

    return wrapper


@with_database
def log_in(database, password=""):
    raise ValueError("the bank is closed")


def charge(order_id, password=None, data=None, url="", card=None):
    calls.append(order_id)
    if not works:
        raise ValueError("the bank is closed")
