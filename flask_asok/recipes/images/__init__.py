"""Resize, convert and publish images. Pillow is imported with the first one; `recipe.py` is the place to start."""

from ..room import Recipe
from .errors import ImageError
from .picture import Picture, Renditions
from .recipe import make_renditions, resize_image
from .settings import SETTINGS
from .upload import save_upload

__all__ = [
    "ImageError",
    "Picture",
    "Renditions",
    "make_renditions",
    "resize_image",
    "save_upload",
]

RECIPE = Recipe(name="images", settings=SETTINGS, queues={"images": 2}, late_imports=("pipeline",))
