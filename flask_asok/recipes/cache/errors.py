"""The error of the cache."""

from ...errors import AsokError


class CacheUnavailable(AsokError):
    """Raised when a cached value cannot be deleted: the store cannot be reached, and would serve it again later."""
