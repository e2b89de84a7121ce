"""How the pages say times."""

from types import SimpleNamespace

import pytest

from flask_asok.dashboard import html

NOW = 1_900_000_000.0


def plain(text):
    """Without the spaces that keep a number and its unit on one line."""
    return str(text).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""),
        (-1, "0 ms"),
        (0.0123, "12 ms"),
        (0.994, "994 ms"),
        (0.996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
        (172_860, "2 d"),
    ],
)
def test_span(seconds, said):
    """A duration has two figures or so, and no unit that is full."""
    assert plain(html.span(seconds)) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (5, "5 s"), (59, "59 s"), (61, "1 min"), (7_300, "2 h"), (3 * 86_400 + 5, "3 d")],
)
def test_age(monkeypatch, seconds, said):
    """How long ago something was is told the less exactly the longer; what is to come is now."""
    monkeypatch.setattr(html, "time", SimpleNamespace(time=lambda: NOW))

    assert plain(html.age(NOW - seconds)) == said
    assert html.age(None) == ""


def test_moment(monkeypatch):
    """A time of today goes without its day, one of another day has it, and what is no time is nothing."""
    monkeypatch.setattr(html, "time", SimpleNamespace(time=lambda: NOW))

    assert "17:46:40 UTC" in html.moment(NOW)
    assert "2030-03-16 17:46 UTC" in html.moment(NOW - 86_400)
    assert html.moment(None) == html.moment(1e20) == html.moment(float("nan")) == ""
