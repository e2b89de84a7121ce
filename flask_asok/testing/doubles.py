"""Small backends for tests: one whose tasks go through a message, as if another process ran them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask
from flask.ctx import AppContext

from ..attempt import RunnableTask
from ..backends.immediate import ImmediateBackend
from ..options import Options
from ..packing import Packer
from ..state import state_of


class DistributedDouble(ImmediateBackend):
    """
    A distributed backend in memory: each call is written as a message and read again, then run at once.

    So an argument or a function that could not be sent to a worker is a TypeError at the call, and what arrives is what
    would arrive there. Nothing is sent, and no server is needed.
    """

    name = "distributed-double"
    distributed = True

    def __init__(self, app: Flask, config: Mapping[str, Any]) -> None:
        super().__init__(app, config)
        self._packer = Packer(app, config)

    def create(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        context: AppContext,
    ) -> RunnableTask[Any]:
        """Make the Task of what is left of the call after it was written and read."""
        fn = self._packer.names.find(self._packer.names.of(fn))
        args = tuple(self._sent(arg, f"Argument {number}") for number, arg in enumerate(args, 1))
        kwargs = {name: self._sent(arg, f"Argument {name!r}") for name, arg in kwargs.items()}
        return super().create(fn, args, kwargs, options, context)

    def _sent(self, value: Any, where: str) -> Any:
        return self._packer.serializer.decode(self._packer.serializer.encode(value, where))


def distribute(app: Flask) -> DistributedDouble:
    """Let `app` run its tasks on a DistributedDouble from now on, and return that."""
    state = state_of(app)
    state.backend = double = DistributedDouble(app, state.config)
    return double
