"""What is really called when a task runs, what it is named, and whether arguments fit it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any

from .options import DEFAULT, PER_CALL, PER_FUNCTION, Options

Arguments = tuple[Any, ...]

_DEEPEST = 20
"""Partials, methods and objects that are looked through: one of them may lead back to itself."""

_IN_C = (BuiltinFunctionType, MethodDescriptorType)

_PLACEHOLDER = getattr(functools, "Placeholder", None)
"""Stands in a partial, from Python 3.14 on, for an argument of the call."""

_OF_OTHERS = {"countdown": "delay", "eta": "delay", "max_retries": "retries", "job_timeout": "timeout"}
"""Options of other libraries, and what they are called here."""

_MOST_SIGNATURES = 200

_signatures: dict[tuple[str, bool], inspect.Signature] = {}
"""Of functions in C, by the text of the signature, which is slow to parse. Holds no function."""


def name_of(fn: Callable[..., Any]) -> str:
    """Return the name of a function; of a partial that of its function, of an object that of its class."""
    for _ in range(_DEEPEST):
        try:
            name = getattr(fn, "__name__", None)
        except Exception:  # a proxy to nothing
            name = None
        # An object that answers to every attribute, a Mock or a stub, has anything for a name.
        if isinstance(name, str) and name:
            return name
        if not _is_partial(type(fn)):
            break
        fn = fn.func  # type: ignore[attr-defined]
    return type(fn).__name__


def options_of(fn: Any) -> Options:
    """Return what `@task()` has set on `fn`, on the function of a partial or on `__call__`; or the defaults."""
    for _ in range(_DEEPEST):
        for place in (fn, _static(type(fn), "__call__")):
            try:
                options = getattr(place, "__asok_options__", None)
            except Exception:  # a proxy to nothing
                options = None
            # A Mock or a stub has something under every name.
            if type(options) is Options:
                return options
        if not _is_partial(type(fn)):
            break
        fn = fn.func
    return DEFAULT


def unfolded(fn: Any, args: Arguments, kwargs: dict[str, Any]) -> tuple[Any, Arguments, dict[str, Any]]:
    """Return what a partial calls and with what, up to a function that has options of its own."""
    for _ in range(_DEEPEST):
        if not _is_partial(type(fn)) or type(getattr(fn, "__asok_options__", None)) is Options:
            break
        fn, args, kwargs = fn.func, _filled(fn.args, args), {**fn.keywords, **kwargs}
    return fn, args, kwargs


def path_of(fn: Callable[..., Any]) -> str:
    """Return `module:qualname` of a function; of a partial those of its function, of an object those of its class."""
    if type(fn) is FunctionType and type(fn.__module__) is str:
        return f"{fn.__module__}:{fn.__qualname__}"
    for _ in range(_DEEPEST):
        if not _is_partial(type(fn)):
            break
        fn = fn.func  # type: ignore[attr-defined]
    try:
        module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    except Exception:  # a proxy to nothing
        module = qualname = None
    if isinstance(module, str) and isinstance(qualname, str):
        return f"{module}:{qualname}"
    return f"{type(fn).__module__}:{type(fn).__qualname__}"


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that callers know where `fn` is the `run` of its `@task()`; any other one as it is."""
    found: Callable[..., Any] = vars(fn).get("__asok_decorated__", fn) if type(fn) is FunctionType else fn
    return found


def begins_itself(fn: Callable[..., Any]) -> bool:
    """Return True if `fn` has `__asok_begins__`: it may put its attempt off, and says itself when it no longer does."""
    return type(fn) is FunctionType and "__asok_begins__" in vars(fn)


def bind_run(run: Any, fn: Callable[..., Any], options: Options) -> None:
    """Let a worker in another process, which knows the task by `run`, find its options."""
    known = getattr(run, "__asok_decorated__", None)
    # Defined anew, in a function or by a reload, it is still the same one.
    if path_of(known) != path_of(fn) if known is not None else hasattr(run, "__asok_options__"):
        raise TypeError(f"run={name_of(run)} has a @task() of its own, or is the run= of another one: wrap it.")
    try:
        run.__asok_options__ = replace(options, prepare=None, run=None)
        run.__asok_decorated__ = fn
    except AttributeError:
        raise TypeError(f"run= must be a function of yours, not {run!r}: wrap it in one.") from None


def check_fits(fn: Callable[..., Any], args: Arguments, kwargs: dict[str, Any], of: Callable[..., Any]) -> None:
    """
    Raise TypeError if `fn(*args, **kwargs)` would raise one at once; `of` is what the caller has named.

    The check is on what is really called: a wrapper by its own parameters, not by those of what it wraps, since it may
    pass on others. What cannot be known is not checked.
    """
    try:
        called, given, named = (fn, args, kwargs) if type(fn) is FunctionType else really_called(fn, args, kwargs)
        if type(called) is FunctionType:
            if _fits(called, given, named):
                return
            # Without what a decorator has written on it.
            bare = FunctionType(called.__code__, {}, called.__name__, called.__defaults__, called.__closure__)
            bare.__kwdefaults__ = called.__kwdefaults__
            signature = inspect.signature(bare)
        elif type(called) in _IN_C:
            signature = _signature_in_c(called)
        else:
            return
    except Exception:  # an object that answers oddly to what it is asked
        return
    try:
        _bind(signature, given, named)
    except TypeError as error:
        raise TypeError(_does_not_fit(of, signature, str(error), named)) from None


def _bind(signature: inspect.Signature, args: Arguments, kwargs: Mapping[str, Any]) -> None:
    bound = signature.bind(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        # Python 3.13.0 takes `f(first=1)` for a call of `def f(first, /, **rest)`.
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty and name not in bound:
            raise TypeError(f"missing a required positional-only argument: {name!r}")


def really_called(fn: Any, args: Arguments, kwargs: dict[str, Any]) -> tuple[Any, Arguments, dict[str, Any]]:
    """Return the function that Python would come to, and its arguments: with `self`, and with those of a partial."""
    for _ in range(_DEEPEST):
        # By the type itself: a proxy or a Mock is of any class that it is asked for.
        kind = type(fn)
        if kind is FunctionType or kind in _IN_C:
            break
        if kind is MethodType:
            fn, args = fn.__func__, (fn.__self__, *args)
        elif kind is staticmethod:
            fn = fn.__func__
        elif _is_partial(kind):
            fn, args, kwargs = fn.func, _filled(fn.args, args), {**fn.keywords, **kwargs}
        elif issubclass(kind, type) and _static(kind, "__call__") is _static(type, "__call__"):
            fn, args = _constructor(fn, args)
        else:
            call = _static(kind, "__call__")
            bind = _static(type(call), "__get__")
            fn = call if bind is None else bind(call, fn, kind)
    return fn, args, kwargs


def _constructor(kind: Any, args: Arguments) -> tuple[Any, Arguments]:
    new, init = kind.__new__, kind.__init__
    if new is not object.__new__ and type(new) is FunctionType:
        # `__init__` may never be called: this may return something else.
        return new, (kind, *args)
    if init is not object.__init__:
        return init, (None, *args)
    return (_takes_nothing, args) if new is object.__new__ else (new, args)


def _takes_nothing() -> None:
    """Stand in for the constructor of a class without one."""


def _is_partial(kind: type) -> bool:
    return kind is functools.partial or (
        issubclass(kind, functools.partial) and _static(kind, "__call__") is _static(functools.partial, "__call__")
    )


def _filled(kept: Arguments, args: Arguments) -> Arguments:
    if _PLACEHOLDER is not None and any(arg is _PLACEHOLDER for arg in kept):
        left = iter(args)
        kept = tuple(next(left, _PLACEHOLDER) if arg is _PLACEHOLDER else arg for arg in kept)
        args = tuple(left)
    return (*kept, *args)


def _static(kind: type, name: str) -> Any:
    """Return what Python finds under a special name, without asking the object, which may answer to anything."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _fits(fn: FunctionType, args: Arguments, kwargs: Mapping[str, Any]) -> bool:
    """Compare with the counts of the code object: a tenth of what `inspect` takes."""
    code = fn.__code__
    names, count, given = code.co_varnames, code.co_argcount, len(args)
    if given > count and not code.co_flags & inspect.CO_VARARGS:
        return False
    by_name_from = code.co_posonlyargcount
    required = count - len(fn.__defaults__ or ())
    only_by_name = names[count : count + code.co_kwonlyargcount]
    for index in range(given, required):
        if index < by_name_from or names[index] not in kwargs:
            return False
    for name in only_by_name:
        if name not in kwargs and name not in (fn.__kwdefaults__ or ()):
            return False
    if kwargs:
        left = names[max(given, by_name_from) : count]
        taken = names[by_name_from : min(given, count)]
        takes_any = code.co_flags & inspect.CO_VARKEYWORDS
        for name in kwargs:
            if name in taken or not (takes_any or name in left or name in only_by_name):
                return False
    return True


def _signature_in_c(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function in C; ValueError if it has no text signature."""
    text = getattr(fn, "__text_signature__", None)
    if text is None:
        raise ValueError("no signature")
    key = (text, type(fn) is BuiltinFunctionType)
    try:
        return _signatures[key]
    except KeyError:
        if len(_signatures) >= _MOST_SIGNATURES:
            _signatures.clear()
        return _signatures.setdefault(key, inspect.signature(fn))


def option_hint(of: Callable[..., Any], kwargs: Mapping[str, Any], why: str) -> str:
    """Return where to set an option that Python, in the text `why`, does not know as an argument."""
    return _hint(of, kwargs, (key for key in kwargs if f"unexpected keyword argument {key!r}" in why))


def _does_not_fit(of: Callable[..., Any], signature: inspect.Signature, why: str, kwargs: Mapping[str, Any]) -> str:
    text = f"{name_of(of)}{_shown(signature)} cannot be called with these arguments: {why}."
    return text + _hint(of, kwargs, (key for key in kwargs if key not in signature.parameters))


def _hint(of: Callable[..., Any], kwargs: Mapping[str, Any], unknown: Iterable[str]) -> str:
    for key in unknown:
        option = _OF_OTHERS.get(key, key.lstrip("_"))
        if option in PER_FUNCTION:
            # Any other value may be long, or secret.
            value = repr(kwargs[key]) if type(kwargs[key]) in (int, float, bool) else "..."
            name, given = name_of(of), f"{option}={value}"
            place = f"background.using({given})({name}, ...)" if option in PER_CALL else f"@task({given}) on {name}"
            return f" {key} is an option: {place}."
    return ""


class _Left:
    def __repr__(self) -> str:
        return "..."


def _shown(signature: inspect.Signature) -> inspect.Signature:
    """Leave defaults and types out: they may be long, and a default may be secret."""
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else _Left(),
        )
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)
