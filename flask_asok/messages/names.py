"""Importable things by their names, which is how a message names its function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from .. import errors
from ..errors import MessageRefused

_RECIPES = "flask_asok.recipes"

MOVED = {
    f"{_RECIPES}.cache.warm:warm_cache": f"{_RECIPES}.cache.recipe:warm_queued_before",
    f"{_RECIPES}.mail:send_mail": f"{_RECIPES}.mail.queued_before:deliver_mail_before",
    f"{_RECIPES}.mail:send_mails": f"{_RECIPES}.mail.queued_before:deliver_mails_before",
    f"{_RECIPES}.mail.letter:Letter": f"{_RECIPES}.mail.outgoing:OutgoingMail",
    f"{_RECIPES}.webhooks.delivery:send_webhook": f"{_RECIPES}.webhooks.recipe:deliver_queued_before",
    f"{_RECIPES}.webhooks.message:Message": f"{_RECIPES}.webhooks.webhook:Webhook",
    f"{_RECIPES}.webhooks.outcome:Delivery": f"{_RECIPES}.webhooks.delivery:Delivery",
    "flask_asok.options:Retry": "flask_asok.retries:Retry",
}
"""
The names of the release before, and those of today: messages that were queued before an upgrade still run, and records
that were written before it can be read. The next release drops them.
"""


class Names:
    """Functions and classes by name, `module:qualname`, and only of modules that the application allows."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.modules: frozenset[str] = frozenset(modules)
        self._allowed: set[str] = set(self.modules)
        """Those and the ones below them that were asked for, of which there are no more than modules."""

    def of(self, thing: Any) -> str:
        """Return the name of a function or class; TypeError, which says what to do, if no worker could find it."""
        module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
        # A Mock has an attribute of every name.
        if not (isinstance(module, str) and isinstance(qualname, str) and module and qualname):
            raise TypeError(f"{thing!r} has no name to import it by. Pass a function of a module.")
        if module == "__main__":
            module = getattr(sys.modules[module].__spec__, "name", None)
            if module is None:
                raise TypeError(
                    f"{qualname} is defined in the script that was started, which a worker cannot import. "
                    "Move it to a module."
                )
        name = f"{module}:{qualname}"
        if "<" in qualname or not self._is_there(thing, module, qualname):
            raise TypeError(
                f"{name} cannot be imported by that name: a lambda, a function in a function, a bound method or a "
                "wrapper. Pass a function that stands at the top of a module."
            )
        if not self._allows(module):
            raise TypeError(
                f"{name} is of no module that ASOK_TASK_MODULES allows: {', '.join(sorted(self.modules))}. Add "
                f"{module!r} to ASOK_TASK_MODULES beside the others, for web and workers, or call it from one of "
                "your functions."
            )
        return name

    def find(self, name: object) -> Any:
        """Import what `name` stands for; MessageRefused if that is forbidden or missing."""
        if isinstance(name, str):
            name = MOVED.get(name, name)
        module, _, qualname = name.partition(":") if isinstance(name, str) else ("", "", "")
        if not qualname or not self._allows(module):
            raise MessageRefused(f"{name!r} is of no module that ASOK_TASK_MODULES allows.")
        try:
            found = self._find(module, qualname)
        except ImportError as error:
            raise MessageRefused(f"{name!r} cannot be imported: {error}") from error
        if found is None:
            raise MessageRefused(f"{name!r} is not there.")
        # An allowed module has imported others: `shop.tasks:os.system`.
        if f"{getattr(found, '__module__', None)}:{getattr(found, '__qualname__', None)}" != name:
            raise MessageRefused(f"{name!r} belongs to another module.")
        return found

    def of_error(self, kind: type[BaseException]) -> str:
        """Return the name of a class of errors, as `of` does; those of Python have one too."""
        return f"builtins:{kind.__name__}" if kind.__module__ == "builtins" else self.of(kind)

    def find_error(self, name: str) -> type[BaseException]:
        """Return the class of errors with that name; MessageRefused for anything else."""
        module, _, kind = name.partition(":")
        if module == "builtins":
            found = getattr(sys.modules["builtins"], kind, None)
        elif module == errors.__name__:
            # The errors of the recipes were defined there in the release before.
            found = getattr(errors, kind, None)
        else:
            found = self.find(name)
        if not (isinstance(found, type) and issubclass(found, BaseException)):
            raise MessageRefused(f"{name!r} is no exception.")
        return found

    def _allows(self, module: str) -> bool:
        if module in self._allowed:
            return True
        if any(module.startswith(f"{allowed}.") for allowed in self.modules):
            if module in sys.modules:
                self._allowed.add(module)
            return True
        return False

    def _is_there(self, thing: Any, module: str, qualname: str) -> bool:
        try:
            return self._find(module, qualname) is thing
        except ImportError:
            return False

    def _find(self, module: str, qualname: str) -> Any:
        # To import what is there already takes much longer. One that is half there is waited for.
        found = _attribute(sys.modules.get(module), qualname)
        return _attribute(importlib.import_module(module), qualname) if found is None else found


def _attribute(found: Any, qualname: str) -> Any:
    if "." not in qualname:
        return getattr(found, qualname, None)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
