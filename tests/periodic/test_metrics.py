"""The metrics of periodic tasks: when a run has succeeded last, and the ticks for which nothing ran."""

import time

import pytest
from prometheus_client import REGISTRY


@pytest.fixture
def measured(make_process):
    return make_process(ASOK_METRICS="prometheus")


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels)


def label(fn):
    return f"{fn.__module__}.{fn.__qualname__}"


def test_last_success(measured):
    """A run that succeeds is noted with its time; one that fails leaves the time of the last success."""

    def report():
        if len(runs) == 1:
            raise ValueError
        runs.append(1)

    runs, began = [], time.time()
    measured.add(report, every=60)
    measured.at(1)
    assert value("asok_periodic_last_success_timestamp_seconds", task=label(report)) is None

    measured.at(60)
    first = value("asok_periodic_last_success_timestamp_seconds", task=label(report))
    measured.at(120)

    assert began <= first <= time.time()
    assert value("asok_periodic_last_success_timestamp_seconds", task=label(report)) == first
    assert value("asok_tasks_total", queue="default", task=label(report), outcome="failed") == 1
    # Before the first one, so that Prometheus sees that as an increase.
    assert [value("asok_periodic_skipped_total", task=label(report), why=why) for why in ("late", "overlap")] == [0, 0]


def test_skipped(measured):
    """A tick that is skipped is counted, with the reason."""

    def report():
        pass

    measured.add(report, every=3600)
    measured.at(1)
    measured.at(3600 + 601)

    assert value("asok_periodic_skipped_total", task=label(report), why="late") == 1
