"""Tasks with a schedule, which run once however many processes there are."""

from .by_hand import start_named
from .clock import Clock
from .entries import Entries, Entry, checked_entry
from .runs import PeriodicTask, listed
from .settings import SETTINGS

__all__ = ["SETTINGS", "Clock", "Entries", "Entry", "PeriodicTask", "checked_entry", "listed", "start_named"]
