"""What is left of a page without its markup."""

from __future__ import annotations

import time

import pytest

from flask_asok.recipes.webhooks.markup import without_markup


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("plain", "plain"),
        ("<h1 class=a>Not found</h1>", "Not found"),
        ("<!DOCTYPE html><?xml version=1?>gone", "gone"),
        ("a<!-- <b>x</b> > -->b", "a b"),
        ("a<STYLE type=x>p > b { }</Style >b<script>if (1 < 2) x('</b>')</script>c", "a b c"),
        ("<styled>a</styled>", "a"),
        ("5 < 6, a<5, <<b>x</b>", "5 < 6, a<5, < x"),
        ("cut <!-- here", "cut"),
        ("cut <style>here </styl", "cut"),
        ("cut <script>here</script", "cut"),
        ("cut <a href=here", "cut"),
    ],
)
def test_text(page: str, text: str) -> None:
    """Tags, comments, scripts and styles go, what only looks like one stays; one without an end ends the text."""
    assert " ".join(without_markup(page).split()) == text


@pytest.mark.parametrize(
    "beginning", ["<!--", "<!", "<", "<a ", "<style", "<style ", "<script <!--", "<style></script>"]
)
def test_beginnings_without_an_end(beginning: str) -> None:
    """The time that a page takes grows with its length alone; an expression took minutes for this one."""
    page = beginning * (400_000 // len(beginning))
    started = time.process_time()

    without_markup(page)

    assert time.process_time() - started < 5
