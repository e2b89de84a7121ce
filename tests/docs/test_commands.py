"""The page of the commands lists those that there are, with the options that they have."""

import re
from pathlib import Path

import click
import pytest

from flask_asok.cli import asok_cli

PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")

SECTIONS = dict(re.findall(r"^## `flask asok (.+?)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

ROW = re.compile(r"^\| (`.+?) \| (.*?) ?\| .* \|$", re.MULTILINE)


def commands_of(group, path=""):
    """Yield each command that does something, with the words that lead to it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path}{name} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{path}{name}", command


COMMANDS = dict(commands_of(asok_cli))


def test_commands():
    """Every command has its section, and no section is of a command that is gone."""
    assert SECTIONS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_options(path):
    """A section lists each option, argument and default of its command, and no other."""
    told = {tuple(re.findall(r"`(.+?)`", names)): default.strip("`") for names, default in ROW.findall(SECTIONS[path])}

    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Argument):
            names = (parameter.name.upper(),)
        else:
            names = tuple(sorted(parameter.opts, key=len, reverse=True))
        assert names in told, f"docs/commands.md does not tell of {names} of `flask asok {path}`"
        default = told.pop(names)
        if getattr(parameter, "show_default", None):
            assert default == str(parameter.default)
    assert told == {}
