"""The settings of periodic tasks."""

from __future__ import annotations

from ..settings import Setting
from ..validate import one_of
from .entries import checked_zone

SETTINGS = (
    Setting(
        "ASOK_PERIODIC", "web", one_of("web", "command", "off"),
        'Which processes start periodic tasks: "web", each that answers requests, from its first one on; "command", '
        'only `flask asok periodic`; "off", none.',
    ),
    Setting("ASOK_TIMEZONE", "UTC", checked_zone, "The time zone of a `cron=` without `tz=`."),
)  # fmt: skip
