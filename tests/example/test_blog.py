"""The card "A blog"."""

import re

import pytest

import example_app.posts


def kinds(visitor):
    return re.findall(r"\b(no cache|cold|warm|stale) [\d.,]+ ms", visitor.read("blog-outcome"))


def read(visitor, mode="background"):
    visitor.press("/blog/read", mode)


@pytest.fixture
def _out_of_date_at_once(monkeypatch):
    cache = example_app.posts.Cache(ttl=0.001, stale=3600)
    monkeypatch.setattr(example_app.posts, "cache", cache)
    monkeypatch.setattr(example_app.posts, "TTL", 0.001)


def test_blocking(visitor):
    """In the request, every reader waits for the database."""
    read(visitor, "blocking")
    read(visitor, "blocking")

    assert kinds(visitor) == ["no cache", "no cache"]
    assert visitor.figure("blog", "blocking") > 0


def test_cold_then_warm(visitor):
    """The first read is a cold one, the next comes out of the cache; the card shows the times of both."""
    read(visitor)
    read(visitor)

    assert kinds(visitor) == ["warm", "cold"]


@pytest.mark.usefixtures("_out_of_date_at_once")
def test_stale(visitor, tasks):
    """A list that is out of date is served at once, and counted anew in the background."""
    read(visitor)

    read(visitor)

    assert kinds(visitor) == ["stale", "cold"]
    assert len(tasks.wait(60)) == 1


def test_empty_the_cache(visitor):
    """With the cache emptied the next read is a cold one."""
    read(visitor)

    visitor.press("/blog/clear", "background")
    read(visitor)

    assert kinds(visitor) == ["cold", "cold"]
    assert "empty the next read is a cold one" in visitor.read("blog-outcome")


def test_emptying_is_no_read(visitor):
    """How long it took to empty the cache is not compared with how long it took to read."""
    visitor.press("/blog/clear", "blocking")

    assert visitor.figure("blog", "blocking") is None


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_publish(visitor, tasks, mode):
    """After a post the list is warm and has it, before anybody reads."""
    read(visitor)

    visitor.press("/blog/write", mode, title="Hello <world>")
    tasks.wait(60)
    assert "Hello <world> was counted in" in visitor.read("blog-outcome")
    read(visitor)

    assert kinds(visitor) == ["warm", "cold"]
    assert "Hello <world> 0 readers" in visitor.read("blog-outcome")
