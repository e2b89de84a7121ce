"""The configuration of the cache that is read in `init_app`; the `CACHE_*` keys are read with the first use."""

from ...settings import Setting
from ...validate import positive_seconds

SETTINGS = (
    Setting(
        "ASOK_CACHE_LOCK_TIMEOUT", 30.0, positive_seconds,
        "Seconds that a reader waits at most for a value that another one loads.",
    ),
    Setting(
        "ASOK_CACHE_ERROR_COOLDOWN", 5.0, positive_seconds,
        "Seconds for which a cached value is not refreshed after its loader has failed, doubling up to 60; and for "
        "which a Redis that does not answer is not asked again.",
    ),
    Setting(
        "ASOK_CACHE_REDIS_TIMEOUT", 0.4, positive_seconds,
        "Seconds that the cache's Redis has to connect and to answer.",
    ),
)  # fmt: skip
