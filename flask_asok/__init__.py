"""Background work for Flask: run any function after the page has answered."""

from .dispatch import background, task
from .errors import AsokError, NotConfigured, QueueFull, TaskAbandoned, TaskCancelled
from .extension import FlaskAsok
from .options import Retry
from .tasks import Task, TaskSummary, current_task

__all__ = [
    "AsokError",
    "FlaskAsok",
    "NotConfigured",
    "QueueFull",
    "Retry",
    "Task",
    "TaskAbandoned",
    "TaskCancelled",
    "TaskSummary",
    "background",
    "current_task",
    "task",
]
