"""Shrink, convert and publish pictures. Pillow is imported when the first one is."""

from ...errors import ImageError
from .picture import Picture, Renditions
from .recipe import make_renditions, resize_image
from .upload import save_upload

__all__ = [
    "ImageError",
    "Picture",
    "Renditions",
    "make_renditions",
    "resize_image",
    "save_upload",
]
