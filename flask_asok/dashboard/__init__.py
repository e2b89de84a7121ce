"""The pages of the operator: what is queued, runs, failed, and what to do about it. routes.py: START HERE."""

from .alone import serve_alone
from .gate import Access
from .redaction import Arguments
from .routes import DashboardBlueprint

__all__ = ["Access", "Arguments", "DashboardBlueprint", "serve_alone"]
