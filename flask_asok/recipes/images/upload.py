"""save_upload: the safe way from `request.files[...]` to a path."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import IO, TYPE_CHECKING, Any

from .atomic import create_temporary, flush_to_disk, rename
from .errors import ImageError
from .formats import FORMATS, UPLOADABLE
from .limits import current_limits
from .target import checked_path

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage

_PIECE = 1 << 16


def save_upload(
    file_storage: FileStorage,
    folder: str | os.PathLike[str],
    *,
    formats: tuple[str, ...] = UPLOADABLE,
    max_bytes: int | None = None,
) -> str:
    """
    Save an uploaded image in `folder` and return its absolute path.

    The client decides nothing: this function makes the name, the content decides the format and the extension, and no
    more than `max_bytes` (default `ASOK_IMAGE_MAX_BYTES`) are read. Pixels are not decoded, so this is quick.

    The file is the original, GPS included: choose a private `folder` that no web server shows, and publish with
    `background(resize_image, path, to=public_folder)`. A missing `folder` is created with mode 0700; the file has 0600.

    Raises ImageError, and leaves nothing in `folder`: `reason` is "no_file", "too_many_bytes", "unknown_format",
    "too_many_pixels" or "damaged". Raises OSError if `folder` cannot be written to.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats must be some of {', '.join(FORMATS)}, not {formats!r}.")
    stream: Any = getattr(file_storage, "stream", None)
    if stream is None:
        raise TypeError(f"save_upload() takes a file of request.files, not {type(file_storage).__name__}.")
    if not file_storage.filename:
        raise ImageError("No file was chosen.", reason="no_file")
    most = current_limits().upload_bytes if max_bytes is None else max_bytes
    where = checked_path("folder", folder)
    os.makedirs(where, mode=0o700, exist_ok=True)
    temporary, descriptor = create_temporary(where, 0o600)
    try:
        with open(descriptor, "wb") as file:
            _copy(stream, file, most)
            file.flush()
            flush_to_disk(file.fileno())
        path = os.path.join(where, uuid.uuid4().hex + _extension(temporary, formats))
        rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def _copy(stream: Any, file: IO[bytes], most: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        # The application may have read it already.
        stream.seek(0)
    total = 0
    while piece := stream.read(_PIECE):
        total += len(piece)
        if total > most:
            raise ImageError(f"The file has more than {most:,} bytes.", reason="too_many_bytes")
        file.write(piece)
    if not total:
        raise ImageError("The file is empty.", reason="no_file")


def _extension(path: str, formats: tuple[str, ...]) -> str:
    from .source import Source

    try:
        with Source.open(path, current_limits(), formats) as source:
            return FORMATS[source.format].extensions[0]
    except ImageError as error:
        # The name of the temporary file means nothing to the user.
        text = str(error).replace(os.path.basename(path), "The uploaded file")
        raise ImageError(text, reason=error.reason) from error
