"""The ticks of a schedule: the same in every process, and those of Debian's cron where the clock is changed."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_asok import NotConfigured
from flask_asok.periodic.schedules import Cron, Every, check_line

from . import debian

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]
LINES = [
    "30 2 * * *", "0 * * * *", "*/30 1-3 * * *", "0 2,14 * * *", "0 3 * * MON-FRI", "*/5 4 * * *", "15 0 * * *",
    "59 23 * * SAT", "5,35 1-2 * * *", "0 0 1 */2 *", "*/7 * * * SUN", "30 1 * * *", "0 */2 * * *",
]  # fmt: skip

DAY = 86_400
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2025, 2028))


def changes(zone):
    """Return the hours, within three years, before which the clock of a zone is changed."""
    offsets = ((hour, datetime.fromtimestamp(hour, zone).utcoffset()) for hour in range(FIRST, LAST, 3600))
    return [later for (_, before), (later, after) in itertools.pairwise(offsets) if before != after]


CHANGES = {name: changes(ZoneInfo(name)) for name in ZONES}


def ticks(schedule, begin, end):
    """Return the ticks from `begin` until before `end`."""
    found, tick = [], begin - 1.0
    while (tick := schedule.after(tick)) < end:
        found.append(tick)
    return found


# Crontab lines


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("line", LINES)
def test_as_debian_does(line, name):
    """Around each change of the clock within three years the ticks are those of Debian's cron."""
    zone = ZoneInfo(name)
    assert len(CHANGES[name]) == 6
    for change in CHANGES[name]:
        begin, end = change - DAY, change + DAY

        found = ticks(Cron(line, zone.key), begin, end)

        assert found == debian.runs(line, zone, begin, end), datetime.fromtimestamp(change, zone)


@pytest.mark.parametrize("line", LINES)
def test_a_week_without_changes(line):
    """So they are in a week of which all days are alike."""
    zone = ZoneInfo("Europe/Berlin")
    begin = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())

    assert ticks(Cron(line, zone.key), begin, begin + 8 * DAY) == debian.runs(line, zone, begin, begin + 8 * DAY)


def test_the_change_itself():
    """What the page on periodic tasks says: a time that is skipped is made up for, one that comes twice is one tick."""
    berlin = ZoneInfo("Europe/Berlin")

    def on(line, month, day):
        begin = int(datetime(2026, month, day, tzinfo=berlin).timestamp())
        found = ticks(Cron(line, berlin.key), begin, begin + DAY - 3600)
        return [f"{datetime.fromtimestamp(tick, berlin):%H:%M %Z}" for tick in found]

    assert on("30 2 * * *", 3, 29) == ["03:00 CEST"]
    assert on("30 2 * * *", 10, 25) == ["02:30 CEST"]
    assert on("0 1-3 * * *", 3, 29) == ["01:00 CET", "03:00 CEST"]
    assert on("*/30 2 * * *", 3, 29) == []
    assert on("*/30 2 * * *", 10, 25) == ["02:00 CEST", "02:30 CEST", "02:00 CET", "02:30 CET"]


times = st.floats(FIRST, LAST - 40 * DAY)
near_changes = st.sampled_from(sorted(itertools.chain(*CHANGES.values())))


@settings(max_examples=60)
@given(
    line=st.sampled_from(LINES),
    name=st.sampled_from(ZONES),
    begin=st.one_of(times, st.tuples(near_changes, st.floats(-DAY, DAY)).map(sum)),
    cuts=st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5),
)
@example("5,35 1-2 * * *", "Australia/Lord_Howe", 1775314800.0, [0.0] * 5)
def test_the_same_from_any_start(line, name, begin, cuts):
    """Ticks rise, and between two of them every moment has the same next one."""
    schedule = Cron(line, name)
    begin = min(begin, LAST - 40 * DAY)
    found = [schedule.after(begin)]
    for _ in cuts:
        found.append(schedule.after(found[-1]))

    assert begin < found[0]
    for (tick, following), cut in zip(itertools.pairwise(found), cuts, strict=True):
        assert tick < following
        moment = min(tick + cut * (following - tick), following - 1e-3)
        assert schedule.after(moment) == following
        assert schedule.latest(begin, moment) == tick


@pytest.mark.parametrize(
    ("name", "line"), [("@hourly", "0 * * * *"), ("@Daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"),
                       ("@monthly", "0 0 1 * *"), ("@yearly", "0 0 1 1 *")]
)  # fmt: skip
def test_names(name, line):
    """The five names that a crontab has for schedules are known."""
    zone = ZoneInfo("Europe/Berlin")

    assert check_line(name) == check_line(line)
    assert Cron(name, zone.key).after(FIRST) == Cron(line, zone.key).after(FIRST)
    assert Cron(name, zone.key).text == name


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0 31 2 *", "is invalid: Bad day-of-month"),
        ("0 0 30 2 *", "is invalid: Bad day-of-month"),
        ("61 * * * *", "is invalid: Bad minute"),
        ("0 0 * * FOO", "is invalid: Bad day-of-week"),
        ("* * * *", "has 4 fields"),
        ("* * * * * *", "Seconds are for every="),
        ("@reboot", "is none of @hourly, @daily, @weekly, @monthly, @yearly"),
        ("", "has 0 fields"),
    ],
)
def test_invalid_lines(line, why):
    """A line that is invalid, or never comes, is a ValueError that says why."""
    with pytest.raises(ValueError, match=why):
        check_line(line)


def test_without_the_extra(monkeypatch):
    """Without cronsim a crontab line is NotConfigured, which names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "cronsim", None)

    with pytest.raises(NotConfigured, match=r"pip install 'flask-asok\[periodic\]'"):
        check_line("0 3 * * *")


@pytest.mark.parametrize(
    ("line", "period"), [("0 3 * * *", DAY), ("0,1 3 * * *", 60), ("* * * * *", 60), ("@yearly", 365 * DAY)]
)
def test_period(line, period):
    """The period of a line is the shortest time between two ticks."""
    assert check_line(line) == period


# Intervals


@given(
    period=st.one_of(st.integers(1, 10**6), st.floats(1, 10**6)),
    time=st.floats(FIRST, LAST),
    cut=st.floats(0, 1, exclude_max=True),
)
def test_intervals(period, time, cut):
    """An interval is counted from the epoch: its ticks rise, a period apart, the same from any start."""
    schedule = Every(period)

    first = schedule.after(time)
    second = schedule.after(first)

    assert time < first <= time + period + 2e-6
    assert second - first == pytest.approx(period, abs=2e-6)
    moment = first + cut * (second - first)
    if moment < second:
        assert schedule.after(moment) == second
        assert schedule.latest(first - 1e-3, moment) == first
        assert schedule.latest(first, moment) is None


def test_midnight_in_utc():
    """`every=86400` is midnight in UTC, and of `7 * 86400` it is a Thursday's."""
    assert Every(DAY).after(FIRST) == FIRST + DAY
    assert datetime.fromtimestamp(Every(7 * DAY).after(FIRST), UTC).strftime("%a %H:%M") == "Thu 00:00"


def test_latest_of_long_ago():
    """The latest tick is found however long it is ago, and without a walk over all of those missed."""
    until = FIRST + 700 * DAY + 30.5

    assert Cron("* * * * *", "UTC").latest(0, until) == FIRST + 700 * DAY
    assert Cron("0 0 29 2 *", "UTC").latest(0, FIRST) == datetime(2024, 2, 29, tzinfo=UTC).timestamp()
    assert Cron("0 0 29 2 *", "UTC").latest(FIRST, FIRST + 700 * DAY) is None
    assert Every(timedelta(hours=1).total_seconds()).latest(0, until) == FIRST + 700 * DAY
