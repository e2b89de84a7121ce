"""When a periodic task is due: its ticks, which are the same in every process."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import NotConfigured

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
"""The names that a crontab has for schedules."""

MICROSECONDS = 1_000_000

SPANS = (3_600.0, 86_400.0, 32 * 86_400.0)
"""How far back the latest tick is looked for at first: most are found without a walk over all that were missed."""

COMPARED = 50
"""The ticks of a crontab whose distances tell its shortest period."""


class Schedule(ABC):
    """The ticks of a periodic task: seconds since the epoch that depend on no process and on no start."""

    text: str
    """As a reader of a list knows it."""
    zone: str
    """The name of its time zone."""
    period: float
    """The shortest time between two ticks, in seconds."""

    @abstractmethod
    def after(self, time: float) -> float:
        """Return the first tick later than `time`."""

    def latest(self, after: float, until: float) -> float | None:
        """Return the latest tick that is later than `after` and not later than `until`, or None."""
        for span in (*SPANS, until - after):
            begin, found = max(after, until - span), None
            while (tick := self.after(begin if found is None else found)) <= until:
                found = tick
            if found is not None or begin == after:
                return found
        return None


class Every(Schedule):
    """Ticks at each multiple of `period` seconds since the epoch."""

    zone: str = "UTC"

    def __init__(self, period: float) -> None:
        self.period = period
        self.text: str = f"every {period:g} s"
        # Whole numbers: the ticks of the year to come are still exact.
        self._period = round(period * MICROSECONDS)

    def after(self, time: float) -> float:
        number = int(time * MICROSECONDS) // self._period
        while (tick := number * self._period / MICROSECONDS) <= time:
            number += 1
        return tick

    def latest(self, after: float, until: float) -> float | None:
        tick = self.after(until - 2 * self.period)
        while (following := self.after(tick)) <= until:
            tick = following
        return tick if after < tick <= until else None


class Cron(Schedule):
    """
    Ticks of a crontab line, by the wall clock of a time zone, as Debian's cron has them.

    Where the clock is set forward, a fixed time that it skips is made up for at once; where it is set back, a fixed
    time that comes twice is one tick. A line whose minute or hour begins with `*` goes by what the clock shows.
    """

    def __init__(self, text: str, zone: str) -> None:
        self.text: str = text
        self.zone: str = zone
        self._zone: tzinfo = zone_named(zone)
        self._line = NAMES.get(text.strip().lower(), text)
        minute, hour = self._line.split()[:2]
        self._is_fixed = not minute.startswith("*") and not hour.startswith("*")

    def after(self, time: float) -> float:
        begin = datetime.fromtimestamp(time, self._zone)
        repeated = _seconds_set_back(begin)
        repeats: float | None = None
        for wall in _walls(self._line, begin.replace(tzinfo=None) - timedelta(seconds=repeated)):
            first = self._instant(wall)
            if first is None:
                continue
            if not self._is_fixed and repeats is None:
                second = first + _seconds_set_back(wall.replace(tzinfo=self._zone))
                if first < second > time:
                    repeats = second
            if first > time:
                return first if repeats is None else min(first, repeats)
        raise ValueError(f"{self.text!r} has no tick after {begin}.")

    def _instant(self, wall: datetime) -> float | None:
        """Return when the wall clock shows this for the first time; None for a time that is skipped."""
        instant = wall.replace(tzinfo=self._zone).timestamp()
        while datetime.fromtimestamp(instant, self._zone).replace(tzinfo=None) != wall:
            if not self._is_fixed:
                return None
            # It is made up for in the first minute there is.
            wall += timedelta(minutes=1)
            instant = wall.replace(tzinfo=self._zone).timestamp()
        return instant


def zone_named(name: str) -> tzinfo:
    """Return a time zone; KeyError, ValueError or OSError if the system does not know it. UTC is always known."""
    return UTC if name == "UTC" else ZoneInfo(name)


def check_line(text: str) -> float:
    """Return the shortest period of a crontab line; ValueError says what is wrong with it."""
    line = NAMES.get(text.strip().lower(), text)
    fields = line.split()
    if line.startswith("@"):
        raise ValueError(f"cron={text!r} is none of {', '.join(NAMES)}.")
    if len(fields) != 5:
        raise ValueError(
            f"cron={text!r} has {len(fields)} fields: give minute, hour, day, month and day of the week. "
            "Seconds are for every=."
        )
    walls = _walls(line, datetime(2024, 12, 31, 23, 59))
    found = list(itertools.islice(walls, COMPARED))
    if len(found) < 2:
        raise ValueError(f"cron={text!r} has no tick within 50 years.")
    return min((later - earlier).total_seconds() for earlier, later in itertools.pairwise(found))


def _walls(line: str, begin: datetime) -> Iterator[datetime]:
    """Yield each time after `begin` that a wall clock shows and the line names, whatever time zone it is in."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise NotConfigured("cron= needs the extra: pip install 'flask-asok[periodic]'.") from None
    try:
        # Without a time zone: for changes of the clock cronsim takes steps that depend on where it begins.
        found: Any = CronSim(line, begin)
    except CronSimError as error:
        raise ValueError(f"cron={line!r} is invalid: {error}.") from None
    return found  # type: ignore[no-any-return]


def _seconds_set_back(wall: datetime) -> float:
    """Return by how much the clock is set back while it shows `wall` twice; 0 for any other time."""
    offsets = (wall.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    first, second = offsets
    return max(0.0, (first - second).total_seconds())
