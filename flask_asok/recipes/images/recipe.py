"""START HERE: resize_image and make_renditions. `jobs.py` checks a call, `perform.py` carries it out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...dispatch import task
from .formats import Format
from .geometry import Fit
from .jobs import RenditionsJob, ResizeJob
from .perform import check_renditions, check_resize, perform_renditions, perform_resize
from .picture import Picture, Renditions

Path = str | os.PathLike[str]
Size = int | tuple[int | None, int | None]
Colour = str | tuple[int, int, int]


def _prepare_resize(*args: Any, **kwargs: Any) -> ResizeJob:
    return check_resize(ResizeJob.of(**_bound(resize_image, args, kwargs)))


def _prepare_renditions(*args: Any, **kwargs: Any) -> RenditionsJob:
    return check_renditions(RenditionsJob.of(**_bound(make_renditions, args, kwargs)))


@task(queue="images", prepare=_prepare_resize, run=perform_resize)
def resize_image(
    path: Path,
    size: Size = (800, 800),
    *,
    fit: Fit = "contain",
    focus: tuple[float, float] = (0.5, 0.5),
    format: Format = "keep",
    quality: int | None = None,
    to: Path | None = None,
    background: Colour | None = None,
    animated: bool = True,
    keep_copyright: bool = False,
) -> Picture:
    """
    Shrink the image at `path`, in place: upright, in sRGB, without GPS and other metadata, never enlarged.

    If only metadata has to go, it is removed without re-encoding; if nothing has to change, nothing is written. Readers
    see the old file or the new one. In place, the name and the format stay; the content decides the format.

    Args:
        path: a regular file with a JPEG, PNG, GIF, WebP, AVIF, TIFF or BMP in it. Symbolic links are not followed.
        size: (width, height) in pixels; a single number is both; None is no bound on that side.
        fit: "contain" fits the whole image into the size; "cover" fills the size and crops the rest; "pad" fits the
            whole image into the size and fills the rest.
        focus: the point, in fractions of width and height, that "cover" keeps nearest to the centre.
        format: "keep", or another format, which needs `to`.
        quality: 1 to 100; by default JPEG 80, WebP 80 and AVIF 60, which look alike.
        to: the file to write instead, whose extension must fit the format; an existing file is replaced. If it is a
            folder, the file keeps the name of `path`, and replaces an existing file only if that was made from `path`
            before, as a mark at its end tells.
        background: the colour under transparent parts for JPEG, by default white, and of the bars of "pad", by default
            transparent if the format allows it.
        animated: False keeps the first frame only.
        keep_copyright: keep the artist and the copyright notice, if present.

    Raises:
        ImageError: the file is not an image, is damaged, or is too large; `reason` says which. The original is
            unchanged.
        OSError: the file does not exist, or cannot be read or written.
        TypeError, ValueError: an invalid option. `background()` raises these at the call, and ImageError and OSError
            if the head of the file tells.
    """
    job = ResizeJob.of(
        path,
        size,
        fit=fit,
        focus=focus,
        format=format,
        quality=quality,
        to=to,
        background=background,
        animated=animated,
        keep_copyright=keep_copyright,
    )
    return perform_resize(job)


@task(queue="images", prepare=_prepare_renditions, run=perform_renditions)
def make_renditions(
    path: Path,
    sizes: Mapping[str, Size],
    formats: Sequence[Format] = ("keep", "webp"),
    *,
    folder: Path | None = None,
    fit: Fit = "contain",
    focus: tuple[float, float] = (0.5, 0.5),
    quality: int | None = None,
    background: Colour | None = None,
    animated: bool = True,
    keep_copyright: bool = False,
) -> Renditions:
    """
    Make several sizes of the image at `path` from one decode, and publish each as soon as it is ready.

    They go to `folder`, by default the folder of `path`, as `photo-thumb.jpg` for a size named "thumb". `path` and all
    other files are unchanged: a file is replaced only if it was made from `path` before, as a mark at its end tells;
    otherwise an ImageError with the reason "taken" names it. Options and errors are those of `resize_image`; `quality`
    applies to all formats. An animation is decoded once for each size, so that its frames need not be kept in memory.

    Args:
        sizes: names, which become part of the file names, and sizes: `{"thumb": 200, "card": (800, 800)}`.
        formats: each size is written in each of these formats.
    """
    job = RenditionsJob.of(
        path,
        sizes,
        formats,
        folder=folder,
        fit=fit,
        focus=focus,
        quality=quality,
        background=background,
        animated=animated,
        keep_copyright=keep_copyright,
    )
    return perform_renditions(job)


def _bound(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of a call by name, defaults included; TypeError as the call itself would raise it."""
    bound = inspect.signature(fn).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments
