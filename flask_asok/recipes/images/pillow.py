"""Errors of Pillow, turned into ImageError."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from PIL import Image

from .errors import ImageError

# Errors of the disk, while an image is read or written. Any other error that Pillow raises is about the content.
_DISK_ERRORS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS})


@contextlib.contextmanager
def pillow_errors(doing: str, reason: str = "damaged") -> Iterator[None]:
    """
    Turn any error that Pillow raises into ImageError.

    Pillow has no error type of its own: over a thousand broken files it raised OSError, SyntaxError, ValueError,
    TypeError, KeyError, IndexError, EOFError, AttributeError, NotImplementedError, OverflowError, struct.error,
    MemoryError, zlib.error, DecompressionBombError and warnings.
    """
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{doing}: it has too many pixels.", reason="too_many_pixels") from error
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        raise ImageError(f"{doing}: {error}", reason=reason) from error
    except Exception as error:
        raise ImageError(f"{doing}: {type(error).__name__}: {error}", reason=reason) from error
