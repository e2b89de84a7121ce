"""What `flask asok warm` and `flask asok cache clear` do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from ...errors import CacheUnavailable
from .cache import Cache
from .decorator import registered
from .warm import is_warmable, warm_all, warmable

NOT_SHARED = (
    "The cache is the memory of the web process, which a command cannot reach. "
    'Set CACHE_TYPE = "RedisCache" and CACHE_REDIS_URL.'
)


def list_keys() -> None:
    """Print the keys of the cached functions."""
    for function in registered():
        click.echo(function.template if is_warmable(function) else f"{function.template}  (needs each=)")


def warm_keys(keys: Sequence[str] | None, *, only_missing: bool, jobs: int) -> None:
    """Warm these keys, or all of them for None; exit with 1 if one fails, with 2 for what cannot be done."""
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
        # Where nobody looks on, a bar would only be in the way of what the command prints.
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


def clear(prefix: str) -> None:
    """Delete the values whose keys begin with `prefix`; exit with 1 if the store cannot be reached."""
    cache = Cache(prefix=prefix)
    if not cache.is_shared:
        raise click.UsageError(NOT_SHARED)
    try:
        cache.clear()
    except CacheUnavailable as error:
        raise click.ClickException(str(error)) from None
    click.echo("Cleared.")


def _is_terminal() -> bool:
    return sys.stderr.isatty()
