"""The configuration of the cache that is read in `init_app`; the `CACHE_*` keys are read with the first use."""

DEFAULTS = {
    "ASOK_CACHE_ERROR_COOLDOWN": 5.0,
    "ASOK_CACHE_LOCK_TIMEOUT": 30.0,
    "ASOK_CACHE_REDIS_TIMEOUT": 0.4,
}
"""Seconds, all of them."""
