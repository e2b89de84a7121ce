"""The pytest plugin: the `asok_tasks` fixture sees, keeps, runs and judges the tasks of a test."""

from .fixture import AsokTasks
from .plugin import asok_tasks, pytest_collection_finish, pytest_runtest_call, pytest_runtest_setup
from .recorder import RecordedCall

__all__ = [
    "AsokTasks",
    "RecordedCall",
    "asok_tasks",
    "pytest_collection_finish",
    "pytest_runtest_call",
    "pytest_runtest_setup",
]
