"""Carry out a checked job: open the source, make the files, publish them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import origin
from .atomic import Replaced, is_same_file, replace_file
from .destination import publish_from, publish_to
from .errors import ImageError
from .jobs import RenditionsJob, ResizeJob
from .limits import current_limits, runs_elsewhere
from .picture import Picture, Renditions

if TYPE_CHECKING:
    from .pipeline import Made, Work
    from .source import Source

_TRIES = 3
"""How often a file is processed anew because another program changed it meanwhile."""


def check_resize(job: ResizeJob) -> ResizeJob:
    """Return the job; raise what the head of the source and the place to write to tell before any pixel is decoded."""
    with _opened(job.path) as source:
        job.destination(source.format)
    return job


def check_renditions(job: RenditionsJob) -> RenditionsJob:
    """Do the same for renditions."""
    with _opened(job.path) as source:
        job.files(source.format)
    return job


def perform_resize(job: ResizeJob) -> Picture:
    """Make one file and publish it, in place or elsewhere."""
    for _ in range(_TRIES):
        with _opened(job.path) as source:
            file = job.destination(source.format)
            work, made = _made(source, job, loses_pages=file is not None)
            # Read the source again only if both are of the same length.
            changed = len(made.data) != source.stat.st_size or made.data != source.data()
        # From here on the source is closed: Windows does not replace an open file.
        if file is not None:
            return _published(job, file, made, work, changed=changed)
        with contextlib.suppress(Replaced):
            made = _replace_source(made, work, changed=changed)
            return _picture(job.path, made, work, changed=changed)
    raise ImageError(f"Other programs changed {job.path} {_TRIES} times while it was processed.", reason="changed")


def perform_renditions(job: RenditionsJob) -> Renditions:
    """Make and publish every size in every format, from one decode."""
    from .pipeline import Work

    done: dict[tuple[int, str], Picture] = {}
    with _opened(job.path) as source:
        files = job.files(source.format)
        work = Work(source, job.targets)
        for made in work.run(loses_pages=True):
            file, target = files[made.target, made.format], job.targets[made.target]
            write = functools.partial(publish_from, job.path, file=file, check=made.meant.check)
            made = _written(made, write)
            done[made.target, made.format] = _picture(file, made, work, changed=True, name=target.name)
    order = [(number, work.format(asked)) for number, target in enumerate(job.targets) for asked in target.formats]
    return Renditions(pictures=tuple(done[key] for key in dict.fromkeys(order)))


def _made(source: Source, job: ResizeJob, *, loses_pages: bool) -> tuple[Work, Made]:
    from .pipeline import Work

    work = Work(source, [job.target])
    [made] = work.run(loses_pages=loses_pages)
    # A source that is itself a rendition stays one if it is changed in place.
    mark, finer = origin.mark_of(source.file), made.finer
    data = origin.split(made.data)[0] + mark
    return work, dataclasses.replace(made, data=data, finer=finer and (lambda: finer() + mark))


def _written(made: Made, write: Callable[[bytes], bytes]) -> Made:
    """Write a file, with finer colours if what is read back has not those that are meant; return what is written."""
    try:
        data = write(made.data)
    except ImageError as error:
        if error.reason != "wrong_result" or made.finer is None:
            raise
        data = write(made.finer())
    return dataclasses.replace(made, data=data)


def _replace_source(made: Made, work: Work, *, changed: bool) -> Made:
    """Write the file in place; Replaced if another program has put a new file there. A deleted one stays deleted."""
    path, before = work.source.path, work.source.stat

    def write(data: bytes) -> bytes:
        replace_file(data, path, made.meant.check, like=before, instead_of=before)
        return data

    if changed:
        return _written(made, write)
    if not is_same_file(before, os.stat(path, follow_symlinks=False)):
        raise Replaced(path)
    return made


def _published(job: ResizeJob, file: str, made: Made, work: Work, *, changed: bool) -> Picture:
    publish = functools.partial(publish_from, job.path) if job.leaves_name else publish_to
    written = _written(made, functools.partial(publish, file=file, check=made.meant.check))
    return _picture(file, written, work, changed=changed)


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
            source: Source = stack.enter_context(Source.open(path, current_limits()))
        except FileNotFoundError as error:
            if not runs_elsewhere():
                raise
            text = f"This worker finds no file {path}. Web and workers must share the folder of the images."
            raise FileNotFoundError(error.errno, text) from error
        yield source
