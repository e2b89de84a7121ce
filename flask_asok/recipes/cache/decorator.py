"""`@cached`: a function whose result is kept under a key of its own."""

from __future__ import annotations

import functools
import inspect
import re
import string
import threading
from collections.abc import Callable, Iterable
from datetime import date
from enum import Enum
from typing import Any, Generic, Never, ParamSpec, TypeVar
from urllib.parse import quote
from uuid import UUID

from ...dispatch import task
from .cache import Cache
from .lifetime import UNSET, Stale, Ttl, fresh_seconds, stale_seconds
from .warm_run import WarmRun

P = ParamSpec("P")
R = TypeVar("R")

Each = Callable[[], Iterable[Any]]


class Cached(Generic[P, R]):
    """
    A function that reads through a cache: a call returns the value, and loads it only if there is none.

    `load` is the function itself, which neither reads nor stores.
    """

    def __init__(
        self, load: Callable[P, R], template: str, *, ttl: Ttl, stale: Stale, cache: Cache | None, each: Each | None
    ) -> None:
        functools.update_wrapper(self, load)
        self.load = load
        self.template = template
        self.each = each
        self.cache: Cache = cache or Cache()
        self._ttl = ttl
        self._stale = stale
        self._signature = inspect.signature(load)
        self._check(template)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value for these arguments, as `Cache.remember` does."""
        return self.cache.remember(
            self.key(*args, **kwargs), functools.partial(self.load, *args, **kwargs), self._ttl, stale=self._stale
        )

    @task(durable=False)
    def warm(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load the value for these arguments now, in this thread, store and return it, as `Cache.warm` does."""
        value: R
        value, _ = self.warm_run(*args, **kwargs).result()
        return value

    def warm_run(self, *args: P.args, **kwargs: P.kwargs) -> WarmRun:
        """Return the run that a `warm` at this moment takes part in; its `result()` may be asked for later."""
        return self.cache.warm_run(
            self.key(*args, **kwargs), functools.partial(self.load, *args, **kwargs), self._ttl, stale=self._stale
        )

    def delete(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value for these arguments, as `Cache.delete` does; return True if there was one."""
        return self.cache.delete(self.key(*args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """
        Return the key for these arguments.

        Texts are percent-encoded, so that their content never makes two calls share a key; 1 and "1" do share one.
        Raises TypeError for an argument without a lasting text of its own, such as an object, whose id is another one
        tomorrow; and for a method that a subclass has inherited, if the key does not name the class.
        """
        if not self._fields:
            return self.template
        call = self._signature.bind(*args, **kwargs)
        call.apply_defaults()
        if self._owner is not None:
            self._check_class(next(iter(call.arguments.values())))
        return _KeyFormatter().vformat(self.template, (), call.arguments)

    @property
    def has_arguments(self) -> bool:
        """Return True if the key is made from the arguments."""
        return bool(self._fields)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind a method to its object; the key may name its attributes: `@cached("user:{self.id}")`."""
        return self if instance is None else _Bound(self, instance)

    def __repr__(self) -> str:
        return f"<cached {self.template!r}>"

    def _check_class(self, first: object) -> None:
        """Refuse an inherited method with one key for every class: Team 1 would get the value of User 1."""
        kind = first if isinstance(first, type) else type(first)
        # By name: in its class a property or a classmethod stands in the place of the function.
        names = [_class_name(base) for base in kind.__mro__]
        if names[0] == self._owner or self._owner not in names:
            return
        name = next(iter(self._signature.parameters))
        named = f"{{{name}.__name__}}" if isinstance(first, type) else f"{{{name}.__class__.__name__}}"
        raise TypeError(
            f"@cached({self.template!r}) is inherited by {kind.__name__}, which would share its values with other "
            f'classes. Name the class in the key: @cached("{named}:{self.template}").'
        )

    def _check(self, template: str) -> None:
        if inspect.iscoroutinefunction(self.load):
            raise TypeError(f"@cached({template!r}): an async function gives a coroutine, which cannot be cached.")
        self._fields = {name.partition(".")[0].partition("[")[0] for _, name, *_ in _parse(template)}
        missing = [name for name in self._signature.parameters if name not in self._fields]
        unknown = [name for name in self._fields if name not in self._signature.parameters]
        if missing:
            raise TypeError(
                f"@cached({template!r}): calls with another {missing[0]!r} would share a value. Name each argument in "
                f'the key: @cached("{template}:{{{missing[0]}}}").'
            )
        if unknown:
            raise TypeError(f"@cached({template!r}): the function has no argument {unknown[0]!r}.")
        separated = _separated(template)
        if separated != template:
            raise TypeError(
                f"@cached({template!r}): the text of an argument may pass for a part of the key, and two calls would "
                f"share a value. Put a character beside each argument that is encoded in texts, such as a colon: "
                f"@cached({separated!r})."
            )
        self._owner = None if _names_class(template, self._signature) else _owner(self.load)


def _owner(load: Callable[..., Any]) -> str | None:
    """Return the name of the class that defines `load`, None for a function outside of classes."""
    qualname = getattr(load, "__qualname__", "").rpartition(".")[0]
    return None if not qualname or qualname.endswith("<locals>") else f"{load.__module__}:{qualname}"


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _names_class(template: str, signature: inspect.Signature) -> bool:
    """Return True if the key names the class of the first argument, or the first argument if that is a class."""
    first = next(iter(signature.parameters), "")
    return any(
        re.fullmatch(rf"{first}(\.__class__)?\.__(qual)?name__|{first}\.__class__", name)
        for _, name, *_ in _parse(template)
    )


class _Bound:
    """A cached method of one object."""

    def __init__(self, cached: Cached[..., Any], instance: object) -> None:
        self._cached = cached
        self._instance = instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._cached(self._instance, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cached, name)
        if name in ("delete", "key", "load", "warm", "warm_run"):
            return functools.partial(found, self._instance)
        return found


class _KeyFormatter(string.Formatter):
    """Formats arguments so that the text of one cannot pass for two."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None or isinstance(value, bool):
            return f"%{value}"
        if isinstance(value, Enum):
            value = value.name
        if isinstance(value, (str, int, float, UUID, date)):
            return quote(format(value, format_spec), safe="")
        raise TypeError(
            f"A {type(value).__name__} cannot be part of a cache key. Pass a str, int, float, bool, None, UUID, "
            "date or Enum."
        )


def _parse(template: str) -> list[tuple[str, str, str | None, str | None]]:
    fields = []
    for text, name, spec, conversion in string.Formatter().parse(template):
        if name is not None:
            if not name or name[0].isdigit():
                raise TypeError(f"@cached({template!r}): name the arguments in the key.")
            fields.append((text, name, spec, conversion))
    return fields


def _separated(template: str) -> str:
    """Return the key with a colon wherever the text of an argument would not end: beside a letter, or one of -_.~"""
    written, is_after_field = "", False
    for text, name, spec, conversion in string.Formatter().parse(template):
        if is_after_field and text and not _separates(text[0]):
            text = ":" + text.lstrip("-_.~")
        before = text or ("" if is_after_field else written)
        if name is not None and (before or is_after_field) and not _separates(before[-1:]):
            text = text.rstrip("-_.~") + ":"
        written += text.replace("{", "{{").replace("}", "}}")
        if name is not None:
            written += f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
        is_after_field = name is not None
    return written


def _separates(letter: str) -> bool:
    """Return True if no text of an argument has this letter: there it is percent-encoded."""
    return letter != "%" and quote(letter, safe="") != letter


_registered: dict[tuple[tuple[int, int, str], str], Cached[..., Any]] = {}
_registry_lock = threading.Lock()


def cached(
    key: str,
    *misplaced: Never,
    ttl: Ttl = UNSET,
    stale: Stale = UNSET,
    cache: Cache | None = None,
    each: Each | None = None,
) -> Callable[[Callable[P, R]], Cached[P, R]]:
    """
    Keep what the decorated function returns under `key`: `@cached("recent_posts", ttl=300, stale=3600)`.

    The function then reads through the cache, and has `warm()` and `delete()`. The key of a call is made from its
    arguments, and must name each of them: `@cached("user:{user_id}")`, `@cached("feed:{self.id}:{page}")`. Beside each
    stands a character that texts have only percent-encoded, such as a colon; a letter or one of `-_.~` is a TypeError,
    since "pt-br" and "x" would be "pt" and "br-x". The key of a method that subclasses inherit must name the class as
    well, or their call is a TypeError: `@cached("{self.__class__.__name__}:feed:{self.id}")`.

    Args:
        key: Where the value is kept. ValueError if another function has the same.
        ttl: Seconds or timedelta for which it is fresh, None for ever; by default the cache's.
        stale: Seconds or timedelta for which it may be served past that, while it is loaded anew in the background.
        cache: The Cache that keeps it; by default the store that the current application's caches share.
        each: What `warm_all` warms if the key has arguments: a function that returns them, a tuple for each call, or
            the argument itself if there is only one.
    """
    if misplaced or not isinstance(key, str):
        raise TypeError('@cached takes the key of the value, the rest by name: @cached("recent_posts", ttl=300).')
    if ttl is not UNSET:
        fresh_seconds(ttl)
    if stale is not UNSET:
        stale_seconds(stale)

    def decorate(fn: Callable[P, R]) -> Cached[P, R]:
        if isinstance(fn, (classmethod, staticmethod, property)):
            raise TypeError(f"@cached({key!r}) goes next to the function: below @{type(fn).__name__}, not above it.")
        function = Cached(fn, key, ttl=ttl, stale=stale, cache=cache, each=each)
        _register(function)
        return function

    return decorate


def registered() -> list[Cached[..., Any]]:
    """Return the cached functions of this process, in the order of their definition."""
    with _registry_lock:
        return list(_registered.values())


def _register(function: Cached[..., Any]) -> None:
    at = (function.cache.identity, function.template)
    with _registry_lock:
        other = _registered.get(at)
        # The same name again: the module was reloaded, or a factory was called twice.
        if other is not None and _name(other) != _name(function):
            raise ValueError(f"@cached({function.template!r}) is the key of {_name(other)} already.")
        _registered[at] = function


def _name(function: Cached[..., Any]) -> str:
    return f"{function.load.__module__}.{function.load.__qualname__}"
