"""Where files are published, and which files they may replace."""

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
    """Return the file that `to` means; ValueError if its name does not fit the format."""
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
    """Return True if `to` is a folder, so that the recipe chooses the name."""
    return to.endswith(os.sep) or os.path.isdir(to)


def rendition_files(path: str, found: str, targets: Sequence[Target], where: str) -> dict[tuple[int, str], str]:
    """Return the file of each target in each format; ImageError if another file is in the way."""
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
    """Return True if both paths lead to one file; one may lead through a link to its folder."""
    (folder, name), (other_folder, other_name) = os.path.split(path), os.path.split(to)
    if os.path.normcase(name) != os.path.normcase(other_name):
        return False
    return os.path.isdir(other_folder) and os.path.samefile(folder, other_folder)


def check_free(path: str, file: str) -> None:
    """Raise ImageError if there is a file that was not made from the image at `path`."""
    with contextlib.suppress(FileNotFoundError):
        if not origin.may_replace(file, origin.mark(path, file)):
            raise _taken(path, file)


def publish_from(path: str, data: bytes, file: str, check: Callable[[str], None]) -> bytes:
    """
    Write `file` with a mark that it was made from the image at `path`, and return its bytes.

    Raises ImageError if another file has taken the name.
    """
    mark = origin.mark(path, file)
    marked = origin.split(data)[0] + mark
    try:
        replace_file(marked, file, check, like=_existing(file), mark=mark)
    except Taken:
        raise _taken(path, file) from None
    return marked


def publish_to(data: bytes, file: str, check: Callable[[str], None]) -> bytes:
    """Write `file`, named by the caller, over an existing file, and return its bytes."""
    bare = origin.split(data)[0]
    replace_file(bare, file, check, like=_existing(file))
    return bare


def _existing(path: str) -> os.stat_result | None:
    """Return the owner and mode for a published file: those of the file that it replaces."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if not os.path.islink(path) else None


def _taken(path: str, file: str) -> ImageError:
    return ImageError(
        f"{file} exists and was not made from {path}, so it is not replaced. Remove it, rename one of the "
        "two, or write to another folder.",
        reason="taken",
    )
