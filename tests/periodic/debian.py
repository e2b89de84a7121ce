"""
The main loop of Debian's cron, as its `cron.c` has it, on a clock that needs no time to pass.

It looks once a minute by how far the wall clock has come. A line whose minute or hour begins with `*` runs by what the
clock shows; any other has a virtual clock of its own, which catches up where the clock was set forward by up to three
hours, and waits where it was set back by as much.
"""

import functools
from datetime import datetime, timedelta

MINUTE = 60
MOST_MINUTES = 3 * 60
EPOCH = datetime(1970, 1, 1)


class Line:
    """A crontab line of plain numbers, lists, ranges and steps."""

    def __init__(self, text):
        limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        names = dict(zip(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), range(7), strict=True))
        self.fields = [self.numbers(field, names, *limit) for field, limit in zip(text.split(), limits, strict=True)]
        minute, hour, day, _, weekday = text.split()
        self.is_wild = minute.startswith("*") or hour.startswith("*")
        self.needs_both = day.startswith("*") or weekday.startswith("*")

    @staticmethod
    def numbers(field, names, least, most):
        found = set()
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            first, last = (names.get(end, end) for end in (first, last))
            low = least if first == "*" else int(first)
            high = most if first == "*" else int(last or first)
            found.update(range(low, high + 1, int(step or 1)))
        return found

    def matches(self, minute):
        minutes, hours, days, months, weekdays = self.fields
        if minute % 60 not in minutes or minute // 60 % 24 not in hours:
            return False
        wall = EPOCH + timedelta(minutes=minute)
        if wall.month not in months:
            return False
        day, weekday = wall.day in days, bool({wall.isoweekday(), wall.isoweekday() % 7} & weekdays)
        return (day and weekday) if self.needs_both else (day or weekday)


@functools.cache
def clocks(zone, begin, end):
    """Return the time and what the wall clock shows, in minutes, for each minute."""
    return [
        (now, int((datetime.fromtimestamp(now, zone).replace(tzinfo=None) - EPOCH).total_seconds()) // 60)
        for now in range(begin, end, MINUTE)
    ]


def runs(text, zone, begin, end):
    """Return when a line is run, from `begin` until before `end`, in seconds since the epoch: whole minutes."""
    line = Line(text)
    found = []
    virtual = None
    for now, clock in clocks(zone, begin, end):
        difference = 1 if virtual is None else clock - virtual
        if 0 < difference <= MOST_MINUTES:
            # As usual, or set forward: what is fixed is run for every minute that was skipped.
            if line.is_wild:
                found += [now] * line.matches(clock)
            elif any(map(line.matches, range(clock - difference + 1, clock + 1))):
                found.append(now)
            virtual = clock
        elif -MOST_MINUTES < difference <= 0:
            # Set back: what is fixed waits until the clock has come to where it was.
            found += [now] * (line.is_wild and line.matches(clock))
        else:
            found += [now] * line.matches(clock)
            virtual = clock
    return found
