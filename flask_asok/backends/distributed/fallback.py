"""What runs tasks on threads of their caller's process while the engine cannot be reached."""

from __future__ import annotations

from typing import Any

from ...errors import BackendUnavailable
from ...record_writer import attach
from ..threads import ThreadsBackend
from .hub import Hub
from .task import RemoteTask
from .task_record import RemoteRecord


class Fallback(ThreadsBackend):
    """Runs tasks of a distributed backend on threads of this process."""

    def take(self, task: RemoteTask[Any], hub: Hub) -> None:
        """Run a task here whose message was not sent; its record, if it has one, gives it to one process alone."""
        if task.is_written:
            try:
                attach(task, RemoteRecord(hub, hub.enter()))
            except BackendUnavailable:
                # Its record says nothing of what is done here.
                task.summary.is_stored = False
        task.run_here(self.runner(task.queue))
        self._recent.append(task.summary)
        self.start(task)
