"""Keep values that are slow to make, fresh, and never load one twice at a time."""

from ..room import Recipe
from .cache import Cache
from .cli import cache_cli, warm_command
from .decorator import Cached, cached
from .errors import CacheUnavailable
from .recipe import warm_all, warm_cache
from .settings import SETTINGS
from .stores.lru_store import LRUStore

__all__ = ["Cache", "CacheUnavailable", "Cached", "LRUStore", "cached", "warm_all", "warm_cache"]

RECIPE = Recipe(name="cache", settings=SETTINGS, queues={"cache": 4}, commands=(warm_command, cache_cli))
