"""The card of the schedule: the next tick, and which process ran the last ones."""

import os
import re
from datetime import UTC, datetime


def test_next_tick(visitor):
    """The card says when the next tick is: at a whole quarter of a minute."""
    card = visitor.read("schedule")

    assert re.search(r"Next tick at \d\d:\d\d:(00|15|30|45) UTC\. This process, \d+, will run it\.", card)


def test_ticks(visitor, tasks):
    """Each tick is shown with the process that ran it, the latest first, and only the last few."""
    for second in range(0, 120, 15):
        tasks.run_periodic("count_products", datetime(2026, 11, 26, 12, second // 60, second % 60, tzinfo=UTC))

    ticks = re.findall(r"(12:\d\d:\d\d) (\d+) 0", visitor.read("schedule"))

    assert ticks == [(f"12:01:{second:02}", str(os.getpid())) for second in (45, 30, 15)] + [
        (tick, str(os.getpid())) for tick in ("12:01:00", "12:00:45")
    ]


def test_among_recent_tasks(visitor, tasks):
    """The list of recent tasks shows what visitors have started, and not what comes by the clock."""
    tasks.run_periodic("count_products")

    assert "None yet" in visitor.read("tasks")


def test_several_processes(visitor):
    """Served by several processes, the card says which of them has answered."""
    page = visitor.client.get("/", multiprocess=True).get_data(as_text=True)

    assert f"Process {os.getpid()} has answered you; any of them may run it." in page
