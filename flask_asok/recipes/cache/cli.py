"""`flask asok warm` and `flask asok cache`."""

from __future__ import annotations

import click
from flask.cli import with_appcontext


@click.command("warm")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "every", is_flag=True, help="Warm every @cached function that needs no arguments, or has each=.")
@click.option("--missing", is_flag=True, help="Leave out keys that have a fresh value.")
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1), help="Load this many at a time.")
@click.option("--list", "listed", is_flag=True, help="Show the keys that can be warmed.")
@with_appcontext
def warm_command(keys: tuple[str, ...], every: bool, missing: bool, jobs: int, listed: bool) -> None:
    """Load and store the values of KEYs, in a store that processes share. Exits with 1 if a loader fails."""
    from .commands import list_keys, warm_keys

    if listed:
        list_keys()
    else:
        warm_keys(None if every else keys, only_missing=missing, jobs=jobs)


@click.group("cache")
def cache_cli() -> None:
    """The values that processes share."""


@cache_cli.command("clear")
@click.option("--prefix", default="asok:", show_default=True, help="Clear the keys that begin with this.")
@with_appcontext
def clear_cache(prefix: str) -> None:
    """Delete every cached value."""
    from .commands import clear

    clear(prefix)
