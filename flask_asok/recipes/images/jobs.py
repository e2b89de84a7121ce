"""A checked call: what to make of which file, in plain values that any backend can carry to a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .destination import check_free, destination, is_folder, is_same, rendition_files
from .formats import FORMATS
from .target import Target, checked_path, checked_sizes, make_target


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeJob:
    """One call of `resize_image`."""

    path: str
    to: str | None
    target: Target

    @classmethod
    def of(cls, path: Any, size: Any, *, format: Any, to: Any, **options: Any) -> ResizeJob:
        """Check the arguments of the call; raises TypeError or ValueError."""
        job = cls(
            path=checked_path("path", path),
            to=None if to is None else checked_path("to", to),
            target=make_target(size, formats=(format,), **options),
        )
        [asked] = job.target.formats
        if asked != "keep" and to is None:
            name = os.path.basename(job.path)
            raise ValueError(
                f"In place the name stays, and a file named {name} must not become {asked}. "
                f'Pass to="folder/" or to="folder/name{FORMATS[asked].extensions[0]}".'
            )
        return job

    def destination(self, found: str) -> str | None:
        """
        Return the file to write for a source in the format `found`, None for in place.

        Raises ValueError, FileNotFoundError or ImageError if it cannot be written there.
        """
        [asked] = self.target.formats
        written = found if asked == "keep" else asked
        if self.to is None or (is_same(self.path, self.to) and written == found):
            return None
        file = destination(self.path, self.to, written)
        _check_folder(os.path.dirname(file))
        if is_same(self.path, file):
            return None
        if self.leaves_name:
            check_free(self.path, file)
        return file

    @property
    def leaves_name(self) -> bool:
        """Return True if `to` is a folder, so that the recipe chooses the name."""
        return self.to is not None and is_folder(self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenditionsJob:
    """One call of `make_renditions`."""

    path: str
    folder: str
    targets: tuple[Target, ...]

    @classmethod
    def of(
        cls, path: Any, sizes: Mapping[str, Any], formats: Sequence[Any], *, folder: Any, **options: Any
    ) -> RenditionsJob:
        """Check the arguments of the call; raises TypeError or ValueError."""
        targets = [
            make_target(size, formats=formats, name=name, **options) for name, size in checked_sizes(sizes).items()
        ]
        source = checked_path("path", path)
        return cls(
            path=source,
            folder=os.path.dirname(source) if folder is None else checked_path("folder", folder),
            targets=tuple(targets),
        )

    def files(self, found: str) -> dict[tuple[int, str], str]:
        """
        Return the file of each target, by its index, in each format, for a source in the format `found`.

        Raises FileNotFoundError if there is no folder, ImageError if another file is in the way.
        """
        _check_folder(self.folder)
        return rendition_files(self.path, found, self.targets, self.folder)


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"There is no folder {folder} to write to.")
