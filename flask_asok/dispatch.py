"""`background()`: check a call, make its Task, and hand it to the application's backend."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Never, NoReturn, ParamSpec, TypeVar, Unpack

from flask import Flask
from flask.globals import app_ctx

from .arguments import PLAIN, check_function, checked
from .attempt import RunnableTask
from .callables import bind_run, check_fits, name_of, option_hint, options_of, unfolded
from .errors import NotConfigured
from .handles import get_task
from .journal import journaled
from .options import (
    DEFAULT,
    PER_CALL,
    PER_FUNCTION,
    Options,
    OptionValues,
    TaskOptionValues,
    checked_options,
)
from .recording import Admit, record
from .signals import emit, task_queued
from .state import KEY, AppState, state_of
from .tasks import Task
from .triggers import defer
from .validate import check_by_name

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_current_context = app_ctx._get_current_object  # type: ignore[attr-defined]

_NO_CONTEXT = (
    "background() was called outside of an application context. Use `with app.app_context():` around the call."
)

_HABITS = ("delay", "apply_async", "enqueue", "submit")
"""What other libraries put on a task. Here calling it says what to write."""

_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def task(*misplaced: Never, **options: Unpack[TaskOptionValues]) -> Callable[[F], F]:
    """
    Set the options with which `background()` runs the decorated function, and return that same plain function.

    Takes the options of `background.using()` and four more. `prepare`: called with the arguments in the caller's
    thread, it checks them and returns the `(args, kwargs)` to queue; what it raises, `background()` raises. `run`, with
    `prepare` only: the function that the task calls instead of the decorated one, with the one value that `prepare`
    returns. `at_most_once`: the task is not run again when its process, or its worker, is lost while it runs.
    `if_durable`: `retries`, `retry_on`, `backoff` of a task that survives its process. Raises as `using` does.
    """
    if misplaced:
        raise TypeError("@task takes options: write @task(retries=3). A function without any needs no decorator.")
    checked = DEFAULT.replace(**options)
    if inspect.iscoroutinefunction(checked.prepare):
        raise TypeError("prepare must be a plain function, not an async one: it is called where the task is started.")
    if checked.run is not None and checked.prepare is None:
        raise TypeError("run= needs prepare=, whose result it is called with.")

    def decorate(fn: F) -> F:
        if not callable(fn):
            raise TypeError(f"@task() decorates a function, not {type(fn).__name__}.")
        try:
            # A staticmethod hands out its function, and nothing that is set on itself.
            (fn.__func__ if isinstance(fn, staticmethod) else fn).__asok_options__ = checked  # type: ignore[attr-defined]
        except AttributeError:
            raise TypeError(
                f"Options cannot be set on {fn!r}: wrap it in a function of yours, or use background.using()."
            ) from None
        if checked.run is not None:
            bind_run(checked.run, fn, checked)
        if type(fn) is FunctionType:
            for habit in _HABITS:
                if not hasattr(fn, habit):
                    setattr(fn, habit, functools.partial(_refuse_habit, fn.__name__, habit))
        return fn

    return decorate


def _refuse_habit(name: str, habit: str, /, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError(f"{name} is a plain function, without .{habit}(): write background({name}, ...).")


class Background:
    """
    Run a function in the background: `background(send, user_id)`.

    With options: `background.using(retries=3, delay=60)(send, user_id)`.
    """

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self._options = options or {}
        """Checked."""
        self._alone = dataclasses.replace(DEFAULT, **self._options)
        """The options of a call whose function has none of its own."""

    def __call__(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]:
        """
        Run `fn(*args, **kwargs)` on the application's backend and return its Task at once.

        Works wherever an app context is: in a request, a CLI command, a shell, inside another task. All keywords are
        the function's own; `using` takes options. An error in `fn` is logged and kept by the Task, never raised here.

        Raises NotConfigured without an app context or without `FlaskAsok` on its app; TypeError or ValueError for what
        cannot be run: not callable, an argument that ends with the request, an unknown queue; QueueFull at a bound.
        """
        if self._options:
            own = options_of(fn)
            options = self._alone if own is DEFAULT else own.of_call(self._options)
            return _enqueue(fn, args, kwargs, options)
        # The short way for most calls: nothing on a plain function answers oddly.
        plain = type(fn) is FunctionType
        return _enqueue(fn, args, kwargs, getattr(fn, "__asok_options__", DEFAULT) if plain else options_of(fn))

    def using(self, *misplaced: Never, **options: Unpack[OptionValues]) -> Background:
        """
        Return a `background` with options: `background.using(retries=3, delay=60)(fn, ...)`.

        - `retries` (int, 0): further attempts after one that raised; `retry_on` (exception types, Exception): which
          errors are worth one; `backoff`: seconds before attempt n, as a number, a sequence or a callable, 2, 4, 8 ...
          600 by default.
        - `delay` (seconds or timedelta): wait before the first attempt.
        - `queue` (str): one of `ASOK_QUEUES`. `name` (str): for logs.
        - `timeout` (seconds or timedelta): a thread past it is logged with its stack; a worker process is stopped.
        - `when`: "now"; "response", after the last byte was sent; "commit", after the outermost database commit. None
          is now, and on PostgreSQL "commit" where the session of the caller has written something.
        - `tracked` (bool): any process finds the task by its id, for a day after its end. `durable` (bool): the call is
          written down before this returns, and another process goes on with it where this one ends. `unique` (str):
          while a task of the same function with that key lives, the call returns a handle on that one;
          `unique_until`: "end" of the task, or the "start" of its first attempt.

        They beat the ones of `@task()`; a further `.using()` adds to them, and beats them. Raises TypeError or
        ValueError for an invalid option.
        """
        check_by_name(misplaced, "background.using()", "background.using(retries=3)(send, user)")
        for name in PER_FUNCTION - PER_CALL:
            if name in options:
                raise TypeError(f"{name!r} belongs to the function: set it with @task({name}=...).")
        return Background({**self._options, **checked_options(options)})

    if not TYPE_CHECKING:  # type checkers know what there is

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"`background` has no .{name}(): write background(send, ...) or .using(...)(send, ...)."
            )

    def __repr__(self) -> str:
        # A key may hold what is of one user, an address for instance.
        shown = (f"{name}={'...' if name == 'unique' else repr(value)}" for name, value in self._options.items())
        return f"<flask_asok.background.using({', '.join(shown)})>" if self._options else "<flask_asok.background>"


background: Background = Background()


def in_background(recipe: Callable[P, R]) -> Callable[P, Task[R]]:
    """Return a function that starts `recipe` in the background; it takes the arguments that `recipe` takes."""

    @functools.wraps(recipe)
    def run(*args: P.args, **kwargs: P.kwargs) -> Task[R]:
        return background(recipe, *args, **kwargs)

    run.__doc__ = f"Run `background({recipe.__name__}, ...)` and return its Task; takes what `{recipe.__name__}` takes."
    return run


def start_if(
    admit: Admit, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> Task[Any]:
    """
    Do what `background()` does with options that record the task, if `admit` returns True of the Task that was made.

    Returns what `background()` returns, or the Task that was not admitted, of which nothing is left.
    """
    return _enqueue(fn, args, kwargs, options, admit)


def _enqueue(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options, admit: Admit | None = None
) -> Task[Any]:
    try:
        context = _current_context()
    except RuntimeError:
        raise NotConfigured(_NO_CONTEXT) from None
    app: Flask = context.app
    state = app.extensions.get(KEY) or state_of(app)
    if options.prepare is not None:
        fn, args, kwargs, options = _prepared(fn, args, kwargs, options)
    if type(fn) is FunctionType:
        code = fn.__code__
        if code.co_flags & _GENERATOR:
            raise _generator(fn)
        # Most calls are by position: then these counts say all.
        if kwargs or len(args) != code.co_argcount or code.co_kwonlyargcount:
            check_fits(fn, args, kwargs, of=fn)
    else:
        if not callable(fn):
            raise TypeError(
                f"background() takes a function and its arguments, not {type(fn).__name__}. "
                "Write background(send, user), without calling send() yourself."
            )
        check_function(fn, app)
        if type(fn) is MethodType and type(fn.__func__) is FunctionType and fn.__func__.__code__.co_flags & _GENERATOR:
            raise _generator(fn)
        check_fits(fn, args, kwargs, of=fn)
    if args:
        for position, arg in enumerate(args):
            if type(arg) not in PLAIN:
                args = (*args[:position], checked(arg, app, fn), *args[position + 1 :])
    if kwargs:
        for name, arg in kwargs.items():
            if type(arg) not in PLAIN:
                kwargs[name] = checked(arg, app, fn)
    backend = state.backend
    if options.if_durable and state.survives(options):
        options = options.of_durable()
    task = backend.create(fn, args, kwargs, options, context)
    if options.is_recorded or (state.records_all and state.is_recorded(options)):
        return _enqueue_recorded(task, app, fn, state, admit)
    if task_queued.receivers:
        emit(task_queued, app, task=task)
    if not options.is_deferred or (options.when == "commit" and backend.transactional):
        backend.start(task)
    else:
        defer(task, app, backend.start)
    return task


def _enqueue_recorded(
    task: RunnableTask[Any], app: Flask, fn: Callable[..., Any], state: AppState, admit: Admit | None
) -> Task[Any]:
    """Go on with a task that other processes know of; return a handle on another one if that has its unique key."""
    backend, is_ours, holder = state.backend, False, ""
    try:
        holder = record(task, app, fn, admit)
        is_ours = holder == task.id
    finally:
        if not is_ours:
            backend.forget_summary(task)
    if not is_ours:
        return (get_task(app, holder) if holder else None) or task
    if task_queued.receivers:
        emit(task_queued, app, task=task)
    if not task.options.is_deferred or (task.options.when == "commit" and backend.transactional):
        # A run of a periodic task passes the bounds, as a due retry does: its clock must not run it itself.
        backend.start(task, bounded=not task.options.scheduled)
    else:
        defer(task, app, journaled(backend.start))
    return task


def _generator(fn: Callable[..., Any]) -> TypeError:
    return TypeError(f"{name_of(fn)} is a generator function: called, it would do nothing. Loop over it in a task.")


def _prepared(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Options]:
    """Return the function that the task will call, and its arguments."""
    prepare = options.prepare
    assert prepare is not None
    fn, args, kwargs = unfolded(fn, args, kwargs)
    # With `run` the caller's arguments are those of the decorated function, whatever `prepare` passes on.
    check_fits(prepare if options.run is None else fn, args, kwargs, of=fn)
    try:
        made = prepare(*args, **kwargs)
    except TypeError as error:
        # A `prepare` that takes any argument, and passes it on to a function that does not.
        hint = option_hint(fn, kwargs, str(error))
        if hint:
            raise TypeError(f"{error}.{hint}") from error
        raise
    if (run := options.run) is not None:
        durable = False if options.durable is None and getattr(made, "__asok_stays__", False) else options.durable
        options = dataclasses.replace(options, name=options.name or name_of(fn), durable=durable)
        return run, (made,), {}, options
    match made:
        case (tuple(), dict()):
            # Copied: the caller of `prepare` may keep the dict that it returned.
            return fn, made[0], dict(made[1]), options
    raise TypeError(f"prepare must return (args, kwargs), a tuple and a dict, not {made!r}.")
