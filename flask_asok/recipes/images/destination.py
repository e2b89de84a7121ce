"""Where published files go, and what may be replaced there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from . import origin
from .atomic import Taken, replace_file
from .errors import ImageError
from .formats import FORMATS
from .target import Target, extension_fits


def destination(path: str, to: str, format: str) -> str:
    """Return the file that `to` means; ValueError where its name does not fit the format."""
    if is_folder(to):
        stem = os.path.splitext(os.path.basename(path))[0]
        return os.path.join(to, stem + FORMATS[format].extensions[0])
    if not extension_fits(to, format):
        raise ValueError(
            f"{to} would hold an image in {format}; its name must end in "
            f"{' or '.join(FORMATS[format].extensions)}. Pass `format` to write another one."
        )
    return to


def is_folder(to: str) -> bool:
    """Does `to` leave the name of the file to us?"""
    return to.endswith(os.sep) or os.path.isdir(to)


def rendition_files(path: str, found: str, targets: Sequence[Target], where: str) -> dict[tuple[int, str], str]:
    """Return the file of each target in each format; ImageError where another one is in the way."""
    stem = os.path.splitext(os.path.basename(path))[0]
    files = {}
    for number, wanted in enumerate(targets):
        for asked in wanted.formats:
            written = found if asked == "keep" else asked
            file = os.path.join(where, f"{stem}-{wanted.name}{FORMATS[written].extensions[0]}")
            check_free(path, file)
            files[number, written] = file
    return files


def is_same(path: str, to: str) -> bool:
    """Are these two ways to write the path of one file? One may lead through a link to its folder."""
    (folder, name), (other_folder, other_name) = os.path.split(path), os.path.split(to)
    if os.path.normcase(name) != os.path.normcase(other_name):
        return False
    return os.path.isdir(other_folder) and os.path.samefile(folder, other_folder)


def check_free(path: str, file: str) -> None:
    """Raise ImageError where something is at `file` that was not made from the image at `path`."""
    with contextlib.suppress(FileNotFoundError):
        if not origin.may_replace(file, origin.mark(path, file)):
            raise _taken(path, file)


def publish_from(path: str, data: bytes, file: str, check: Callable[[str], None]) -> bytes:
    """
    Write `file`, whose name is ours, with a mark that it was made from the image at `path`, and return all of it.

    Raises ImageError where something else is there by now.
    """
    mark = origin.mark(path, file)
    marked = origin.split(data)[0] + mark
    try:
        replace_file(marked, file, check, like=_existing(file), mark=mark)
    except Taken:
        raise _taken(path, file) from None
    return marked


def publish_to(data: bytes, file: str, check: Callable[[str], None]) -> bytes:
    """Write `file`, which the caller has named, in place of what is there, and return all of it."""
    bare = origin.split(data)[0]
    replace_file(bare, file, check, like=_existing(file))
    return bare


def _existing(path: str) -> os.stat_result | None:
    """Return what a published file is to resemble: the one that it replaces."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if not os.path.islink(path) else None


def _taken(path: str, file: str) -> ImageError:
    return ImageError(
        f"{file} is there and was not made from {path}, so it is left as it is. Remove it, give one of the two another "
        "name, or write to another folder.",
        reason="taken",
    )
