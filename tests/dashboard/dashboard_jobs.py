"""Functions that durable tasks of these tests run."""

from dataclasses import dataclass

calls = []
"""How often `charge` was called; it fails until the test says otherwise."""

works = []


@dataclass
class Card:
    holder: str
    token: str


def charge(order_id, password=None, data=None, url="", card=None):
    calls.append(order_id)
    if not works:
        raise ValueError("the bank is closed")
