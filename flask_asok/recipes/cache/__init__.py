"""Keep values that are slow to make, fresh, and never load one twice at a time."""

from .cache import Cache
from .decorator import Cached, cached
from .lru_store import LRUStore
from .warm import warm_all, warm_cache

__all__ = ["Cache", "Cached", "LRUStore", "cached", "warm_all", "warm_cache"]
