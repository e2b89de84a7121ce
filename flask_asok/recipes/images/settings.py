"""How large an image may be: the `ASOK_IMAGE_*` keys."""

from ...settings import Setting
from ...validate import whole

SETTINGS = (
    Setting(
        "ASOK_IMAGE_MAX_PIXELS", 64_000_000, whole(1),
        "Width times height of an image; a larger one is refused before it is decoded.",
    ),
    Setting(
        "ASOK_IMAGE_MAX_ANIMATION_PIXELS", 100_000_000, whole(1),
        "Width times height times frames of an animation.",
    ),
    Setting(
        "ASOK_IMAGE_MAX_MEMORY", 208 * 1024 * 1024, whole(1),
        "Bytes that it takes to decode an image, as its head tells, with the copies of its file.",
    ),
    Setting("ASOK_IMAGE_MAX_BYTES", 32 * 1024 * 1024, whole(1), "Size of a file that `save_upload()` accepts."),
)  # fmt: skip
