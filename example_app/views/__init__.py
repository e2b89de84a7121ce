"""What the visitor meets: the page, its buttons, and the files that come of them."""

from . import buttons, every_request, files, page
from .blueprint import bp

__all__ = ["bp", "buttons", "every_request", "files", "page"]
