"""The signal of periodic tasks."""

from __future__ import annotations

from blinker import NamedSignal

from ..signals import namespace

periodic_skipped: NamedSignal = namespace.signal("periodic-skipped")
"""
A tick was taken and nothing runs for it: `name` of the periodic task, `at` (the tick, in UTC) and `why`: "late" or
"overlap". Sent in one process. Of several ticks that were missed together it tells the latest.
"""
