"""ImageError: why an image was refused."""

from __future__ import annotations

from ...errors import AsokError


class ImageError(AsokError):
    """
    Raised when an image cannot be processed; the file at its path is unchanged.

    `reason` is one of "no_file" (the upload field was left empty), "not_a_file" (a link, a folder, a device),
    "unknown_format" (the content is not an image in an accepted format), "too_many_bytes", "too_many_pixels",
    "damaged" (the content is cut off or broken), "several_pages" (pages would be lost), "unsupported" (high dynamic
    range, for instance; the text says what to do), "cannot_write" (the requested format cannot hold the image),
    "wrong_result" (the written file differs from the intended one: a fault of this extension or of Pillow), "taken"
    (the result would replace a file that was not made from the same image) and "changed" (other programs kept writing
    to the file).
    """

    def __init__(self, text: str, *, reason: str = "damaged") -> None:
        super().__init__(text)
        self.reason = reason
