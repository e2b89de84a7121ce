"""resize_image and make_renditions: the recipes, from a path to published files."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...dispatch import task
from ...errors import ImageError
from . import origin
from .destination import (
    check_free,
    destination,
    folder_for,
    is_folder,
    is_same,
    publish_from,
    publish_to,
    rendition_files,
)
from .formats import FORMATS, Format
from .geometry import Fit
from .limits import current_limits, runs_elsewhere
from .picture import Picture, Renditions
from .publish import Replaced, is_same_file, publish
from .target import OPTIONS, Target, named_sizes, path_of, target

if TYPE_CHECKING:
    from .pipeline import Made, Work
    from .source import Source

Path = str | os.PathLike[str]
Size = int | tuple[int | None, int | None]
Colour = str | tuple[int, int, int]

_TRIES = 3
"""How often a file that others change meanwhile is begun anew."""


def _prepare_resize(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    options = _bound(resize_image, args, kwargs)
    options["path"] = path_of("path", options["path"])
    if options["to"] is not None:
        options["to"] = path_of("to", options["to"])
    [wanted] = _targets({"": options["size"]}, (options["format"],), options)
    _check(options["path"], wanted, options["to"])
    return (options.pop("path"),), options


def _prepare_renditions(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    options = _bound(make_renditions, args, kwargs)
    options["path"] = path_of("path", options["path"])
    options["sizes"] = named_sizes(options["sizes"])
    if options["folder"] is not None:
        options["folder"] = path_of("folder", options["folder"])
    targets = _targets(options["sizes"], options["formats"], options)
    where = folder_for(options["path"], options["folder"])
    rendition_files(options["path"], _identify(options["path"]), targets, where)
    return (options.pop("path"),), options


@task(queue="images", prepare=_prepare_resize)
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
    Shrink the picture at `path`, in place: upright, in sRGB, without GPS and other metadata, never enlarged.

    Only metadata is removed, without loss, where the pixels are fine; nothing is written where that is so too. Readers
    see the old file or the new one. In place the name stays, and so does the format, which the content decides.

    Args:
        path: a regular file with a JPEG, PNG, GIF, WebP, AVIF, TIFF or BMP in it. Links are not followed.
        size: (width, height) in pixels; a number is both; None is no bound on that side.
        fit: "contain", all of it within the size; "cover", the size filled and the rest cut off; "pad", within the
            size and the rest filled up.
        focus: the point, in parts of width and height, that "cover" keeps nearest to the middle.
        format: "keep", or another one, which needs `to`.
        quality: 1 to 100; by default JPEG 80, WebP 80 and AVIF 60, which look alike.
        to: where to write it instead. A path whose extension fits the format: a file that is there is replaced. A
            folder: the name is the one of `path`, and a file that is there is replaced only if it was made from `path`
            before, which a mark at its end tells.
        background: colour under transparent parts for JPEG, by default white, and of the bars of "pad", by default
            transparent where the format can.
        animated: False keeps the first frame only.
        keep_copyright: keep the artist and the copyright notice, if there are any.

    Raises:
        ImageError: it is no picture, damaged, or too large; `reason` says which. The original is as it was.
        OSError: the file is not there, or cannot be read or written.
        TypeError, ValueError: an option is no good; `background()` raises these at the call, like the two above
            where the head of the file tells.
    """
    [wanted] = _targets({"": size}, (format,), locals())
    source = path_of("path", path)
    where = _check(source, wanted, None if to is None else path_of("to", to))
    if where is None:
        return _resize_in_place(source, wanted)
    return _resize_to(source, where, wanted)


@task(queue="images", prepare=_prepare_renditions)
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
    Make several sizes of the picture at `path` from one decode, and publish each as soon as it is done.

    They go to `folder`, by default the one of `path`, as `photo-thumb.jpg` for a size named "thumb". `path` stays as it
    is, and so does every other file: only what was made from `path` before is replaced, which a mark at its end tells,
    and an ImageError with the reason "taken" says what is in the way. Options and errors are those of `resize_image`; a
    `quality` holds for all formats. An animation is decoded anew for each size, so that its frames need not be held in
    memory.

    Args:
        sizes: names, which become part of file names, and sizes: `{"thumb": 200, "card": (800, 800)}`.
        formats: each size is written in each of them.
    """
    targets = _targets(named_sizes(sizes), formats, locals())
    source_path = path_of("path", path)
    where = folder_for(source_path, None if folder is None else path_of("folder", folder))
    from .pipeline import Work

    done: dict[tuple[int, str], Picture] = {}
    with _opened(source_path) as source:
        work = Work(source, targets)
        files = rendition_files(source_path, source.format, targets, where)
        for made in work.run(loses_pages=True):
            file = files[made.target, made.format]
            made = dataclasses.replace(made, data=publish_from(source_path, made.data, file, made.meant.check))
            done[made.target, made.format] = _picture(file, made, work, changed=True, name=targets[made.target].name)
    order = [(number, work.format(asked)) for number, wanted in enumerate(targets) for asked in wanted.formats]
    return Renditions(pictures=tuple(done[key] for key in dict.fromkeys(order)))


def _resize_in_place(path: str, wanted: Target) -> Picture:
    for _ in range(_TRIES):
        work, made, changed = _made(path, wanted, loses_pages=False)
        source = work.source.stat
        # Somebody may have put another picture there, which must not be undone, or removed it.
        if changed:
            try:
                publish(made.data, path, made.meant.check, like=source, instead_of=source)
            except Replaced:
                continue
        elif not is_same_file(source, os.stat(path, follow_symlinks=False)):
            continue
        return _picture(path, made, work, changed=changed)
    raise ImageError(f"{path} was changed by others while it was worked on, {_TRIES} times.", reason="changed")


def _resize_to(path: str, to: str, wanted: Target) -> Picture:
    work, made, changed = _made(path, wanted, loses_pages=True)
    file = destination(path, to, made.format)
    check = made.meant.check
    data = publish_from(path, made.data, file, check) if is_folder(to) else publish_to(made.data, file, check)
    made = dataclasses.replace(made, data=data)
    return _picture(file, made, work, changed=changed)


def _made(path: str, wanted: Target, *, loses_pages: bool) -> tuple[Work, Made, bool]:
    """Return the one file that is wanted, not written yet, and whether it differs from the original, by now closed."""
    from .pipeline import Work

    with _opened(path) as source:
        work = Work(source, [wanted])
        [made] = work.run(loses_pages=loses_pages)
        # In place it stays what it is: a rendition of another picture, for instance.
        data = origin.split(made.data)[0] + origin.mark_of(source.file)
        # Read again only where that can be in vain.
        changed = len(data) != source.stat.st_size or data != source.data()
        return work, dataclasses.replace(made, data=data), changed


def _picture(path: str, made: Made, work: Work, *, changed: bool, name: str = "") -> Picture:
    return Picture(
        path=path,
        format=made.format,
        width=made.size[0],
        height=made.size[1],
        bytes=len(made.data),
        changed=changed,
        frames=made.frames,
        removed=work.found if changed else (),
        original_width=work.size[0],
        original_height=work.size[1],
        original_bytes=work.source.stat.st_size,
        name=name,
    )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Source]:
    from .source import Source

    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(Source.open(path, current_limits()))
        except FileNotFoundError as error:
            if not runs_elsewhere():
                raise
            said = f"{path} is not there in this worker. Web and workers must share the folder of the pictures."
            raise FileNotFoundError(error.errno, said) from error
        yield source


def _identify(path: str) -> str:
    """Return the format of the file at `path`, having read its head; ImageError where it will not be worked on."""
    with _opened(path) as source:
        found: Source = source
        return found.format


def _check(path: str, wanted: Target, to: str | None) -> str | None:
    """Return where it is to be written, None for in place; raise what can be known before the pixels are."""
    [asked] = wanted.formats
    if asked != "keep" and to is None:
        raise ValueError(
            f"In place the name stays, and a file named {os.path.basename(path)} must not become {asked}. "
            f'Pass to="folder/" or to="folder/name{FORMATS[asked].extensions[0]}".'
        )
    found = _identify(path)
    written = found if asked == "keep" else asked
    if to is None or (is_same(path, to) and written == found):
        return None
    file = destination(path, to, written)
    if not os.path.isdir(os.path.dirname(file)):
        raise FileNotFoundError(f"There is no folder {os.path.dirname(file)} to write to.")
    if is_same(path, file):
        return None
    if is_folder(to):
        check_free(path, file)
    return to


def _bound(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of a call by name; TypeError as the call itself would raise it."""
    bound = inspect.signature(fn).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _targets(named: Mapping[str, Size], formats: Sequence[Format], options: Mapping[str, Any]) -> list[Target]:
    chosen = {name: options[name] for name in OPTIONS}
    return [target(size, formats=formats, name=name, **chosen) for name, size in named.items()]
