"""`flask asok warm` and `flask asok cache`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click
from flask.cli import with_appcontext

from .cache import PREFIX, Cache
from .decorator import registered
from .errors import CacheUnavailable
from .recipe import warm_all
from .warmers import is_warmable, warmable

NOT_SHARED = (
    "The cache is the memory of the web process, which a command cannot reach. "
    'Set CACHE_TYPE = "RedisCache" and CACHE_REDIS_URL.'
)


@click.command("warm")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "every", is_flag=True, help="Warm every @cached function that needs no arguments, or has each=.")
@click.option("--missing", is_flag=True, help="Leave out keys that have a fresh value.")
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1), help="Load this many at a time.")
@click.option("--list", "listed", is_flag=True, help="Show the keys that can be warmed.")
@with_appcontext
def warm_command(keys: tuple[str, ...], every: bool, missing: bool, jobs: int, listed: bool) -> None:
    """Load and store the values of KEYs, in a store that processes share. Exits with 1 if a loader fails."""
    if listed:
        _list_keys()
    else:
        _warm(None if every else keys, only_missing=missing, jobs=jobs)


@click.group("cache")
def cache_cli() -> None:
    """The values that processes share."""


@cache_cli.command("clear")
@click.option("--prefix", default=PREFIX, show_default=True, help="Clear the keys that begin with this.")
@with_appcontext
def clear_cache(prefix: str) -> None:
    """Delete every cached value."""
    try:
        cache = Cache(prefix=prefix)
        if not cache.is_shared:
            raise click.UsageError(NOT_SHARED)
        cache.clear()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except CacheUnavailable as error:
        raise click.ClickException(str(error)) from None
    click.echo("Cleared.")


def _list_keys() -> None:
    functions = registered()
    if not functions:
        click.echo("There is no @cached function. Is its module imported where the app is made?", err=True)
    for function in functions:
        click.echo(function.template if is_warmable(function) else f"{function.template}  (needs each=)")


def _warm(keys: Sequence[str] | None, *, only_missing: bool, jobs: int) -> None:
    """Warm these keys, all of them for None. Exit with 1 if a loader fails, with 2 for a usage error."""
    if keys is not None and not keys:
        raise click.UsageError("Say which keys, or --all. `flask asok warm --list` shows them.")
    try:
        wanted = warmable(keys)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not all(warmer.cached.cache.is_shared for warmer in wanted):
        raise click.UsageError(NOT_SHARED)
    rows: list[tuple[str, float, Any]] = []
    with contextlib.ExitStack() as stack:
        bar = None
        # In a pipe or a log file the bar would only clutter the output.
        if _is_terminal():
            bar = stack.enter_context(click.progressbar(length=len(wanted), label="Warming", file=sys.stderr))

        def report(key: str, seconds: float, result: Any) -> None:
            rows.append((key, seconds, result))
            if bar is not None:
                bar.update(1)

        warm_all(keys, only_missing=only_missing, jobs=jobs, report=report)
    width = max((len(key) for key, *_ in rows), default=0)
    for key, seconds, result in rows:
        answer = f"failed: {result!r}" if isinstance(result, Exception) else "ok"
        click.echo(f"{key:<{width}}  {seconds * 1000:6.0f} ms  {answer}")
    if not rows:
        click.echo("Nothing to warm.")
    if any(isinstance(result, Exception) for *_, result in rows):
        sys.exit(1)


def _is_terminal() -> bool:
    return sys.stderr.isatty()
