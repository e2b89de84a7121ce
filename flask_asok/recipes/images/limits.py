"""What an image may cost, as the current app sets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import current_app, has_app_context

from ...state import state_of
from ...tasks import current_task
from .settings import SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that are checked before an image is decoded: a few kilobytes may unfold to gigabytes."""

    pixels: int
    """Width times height of an image."""
    animation_pixels: int
    """Width times height times frames of an animation."""
    memory: int
    """Bytes that a decoder and the decoded image may need; with everything else, 256 MiB by default."""
    upload_bytes: int
    """Size of an uploaded file."""


def runs_elsewhere() -> bool:
    """Return True in a task of a backend whose workers may be on other machines."""
    return current_task() is not None and state_of(current_app).backend.distributed


def current_limits() -> Limits:
    """Return the limits of the current app, or the defaults without one: recipes are plain functions too."""
    config: Mapping[str, Any] = {setting.name: setting.default for setting in SETTINGS}
    if has_app_context() and "asok" in current_app.extensions:
        config = current_app.extensions["asok"].config
    return Limits(
        pixels=config["ASOK_IMAGE_MAX_PIXELS"],
        animation_pixels=config["ASOK_IMAGE_MAX_ANIMATION_PIXELS"],
        memory=config["ASOK_IMAGE_MAX_MEMORY"],
        upload_bytes=config["ASOK_IMAGE_MAX_BYTES"],
    )
