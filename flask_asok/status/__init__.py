"""The state and progress of one task, for the visitor who waits for it: START HERE."""

from .bar import asok_progress
from .blueprint import Access, StatusBlueprint

__all__ = ["Access", "StatusBlueprint", "asok_progress"]
