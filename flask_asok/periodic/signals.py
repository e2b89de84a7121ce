"""The signal of periodic tasks; its sender is the application."""

from __future__ import annotations

from blinker import NamedSignal

from ..signals import namespace

periodic_skipped: NamedSignal = namespace.signal(
    "periodic-skipped",
    doc="""
    A tick was taken, and nothing runs for it: `name`, `at` (the tick, in UTC), `why` ("late" or "overlap").

    Sent in one process, in the thread of the clock. Of several ticks that were missed together it tells the latest.
    """,
)
