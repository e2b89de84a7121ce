"""
Run resize_image over a folder of images and print a table of outcomes.

    python tests/images/corpus.py FOLDER [--lie photo.jpg] [--json FILE]

Each file is copied and worked on in a forked child, with limits on time and memory. The test images of Pillow are in
its source distribution: `pip download --no-deps --no-binary pillow pillow`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP")
SECONDS, MEBIBYTES = 40, 8192
"""What a child may take."""
MOST_MEBIBYTES = 256
"""What an image may take."""
LIES = 4
"""One file of so many is worked on under a name that lies, too."""
TURNS = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))
"""EXIF's orientations, and the transpositions of Pillow that undo them."""
BATCH = 32
"""Images to a child: to fork takes longer than most of them."""


def files(folder: Path) -> list[Path]:
    """Return the files that may be images, in a fixed order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".txt", ".icc", ".ttf", ".otf", ".md", ".rst")
    )


def judge(paths: Sequence[Path], lie: str | None = None) -> list[dict[str, Any]]:
    """Resize a copy of each path, of some under the name `lie` too, and return what became of them."""
    work = []
    for number, path in enumerate(paths):
        work.append((path, path.name))
        if lie and number % LIES == 0:
            work.append((path, lie))
    return [verdict for start in range(0, len(work), BATCH) for verdict in _in_child(work[start : start + BATCH])]


def _in_child(work: list[tuple[Path, str]]) -> list[dict[str, Any]]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEBIBYTES << 20, MEBIBYTES << 20))
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            verdicts = [_judge_here(path, name) for path, name in work]
            with open(writer, "w") as file:
                json.dump(verdicts, file)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    verdicts = json.loads(text) if text else [{"file": str(work[0][0]), "outcome": "died", "error": f"status {status}"}]
    if len(work) > 1 and (not text or verdicts[-1].get("mebibytes", 0) > MOST_MEBIBYTES):
        # One of them died, or took the memory, which is counted from the start of the child: which one?
        return [verdict for one in work for verdict in _in_child([one])]
    return verdicts


def _judge_here(original: Path, name: str) -> dict[str, Any]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            verdict = _judge_copy(original, Path(folder) / name)
    except BaseException as error:
        verdict = {"outcome": "judge failed", "error": repr(error)}
    return {"file": str(original), **verdict}


def _judge_copy(original: Path, copy: Path) -> dict[str, Any]:
    from flask_asok.recipes.images import ImageError, resize_image

    warnings.simplefilter("ignore")
    shutil.copyfile(original, copy)
    before = copy.read_bytes()
    # Of a processor: what else the machine does is no fault of the image.
    start = time.process_time()
    verdict: dict[str, Any] = {"bytes_before": len(before)}
    try:
        picture = resize_image(copy)
    except ImageError as error:
        verdict |= {"outcome": "refused", "reason": error.reason, "error": str(error)}
    except Exception as error:
        verdict |= {"outcome": "unexpected", "error": repr(error)}
    else:
        verdict |= {"outcome": "written" if picture.changed else "unchanged", "format": picture.format}
        verdict |= {"width": picture.width, "height": picture.height, "frames": picture.frames}
    verdict["seconds"] = time.process_time() - start
    verdict["mebibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    after = copy.read_bytes()
    verdict["bytes"] = len(after)
    verdict["left"] = sorted(set(os.listdir(copy.parent)) - {copy.name})
    verdict["destroyed"] = after != before and verdict["outcome"] != "written"
    reference = _look_again(original)
    verdict["decodable"] = reference is not None
    if verdict["outcome"] in ("written", "unchanged"):
        result = _look(copy)
        verdict |= _compare(reference, result, verdict["outcome"] == "written")
    return verdict


@functools.lru_cache(maxsize=1)
def _look_again(path: Path) -> dict[str, Any] | None:
    return _look(path)


def _look(path: Path) -> dict[str, Any] | None:
    """Return what Pillow, used with care, sees in a file; None where it cannot be decoded."""
    from PIL import Image

    try:
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            pages = image.format in ("TIFF", "MPO")
            width, height = image.size
            frames = 1 if pages else getattr(image, "n_frames", 1)
            durations = []
            exif = image.getexif()
            turn = Image.Exif()
            # As browsers do, which do not look into XMP.
            turn.load(image.info.get("exif") or b"")
            orientation = 1 if image.format == "TIFF" else turn.get(0x0112, 1)
            turned = orientation in (5, 6, 7, 8)
            info = dict(image.info)
            for frame in range(1, frames):
                image.seek(frame)
                image.load()
            image.seek(0)
            image.load()
            if frames > 1:
                for frame in range(frames):
                    image.seek(frame)
                    image.load()
                    durations.append(image.info.get("duration", 0))
                image.seek(0)
                image.load()
            upright = image.transpose(TURNS[orientation]) if orientation in TURNS else image
            plain = upright.convert("RGBA") if upright.mode not in ("I;16", "I;16B", "I", "F", "LAB") else None
            if plain is not None and frames > 1 and not turned:
                # A frame of a GIF that leaves the screen has made it larger.
                plain = plain.crop((0, 0, width, height))
            tiny = None
            if plain is not None:
                white = Image.new("RGBA", plain.size, "white")
                white.alpha_composite(plain)
                tiny = list(white.convert("L").resize((8, 8), Image.Resampling.BOX).tobytes())
            return {
                "size": upright.size if image.format == "TIFF" else (height, width) if turned else (width, height),
                "orientation": orientation,
                "metadata": sorted(
                    {key for key in ("exif", "xmp", "XML:com.adobe.xmp", "comment", "photoshop") if key in info}
                    | ({"gps"} if 0x8825 in exif else set())
                ),
                "icc": "icc_profile" in info,
                "duration": sum(durations),
                "frames": frames,
                "loop": info.get("loop"),
                "tiny": tiny,
                "odd": bool({"icc_profile", "gamma", "chromaticity"} & set(info)) or image.mode in ("CMYK", "LAB", "1"),
            }
    except Exception:
        return None


def _compare(before: dict[str, Any] | None, after: dict[str, Any] | None, is_written: bool) -> dict[str, Any]:
    if after is None:
        return {"broken": is_written}
    if before is None:
        return {"broken": False}
    wide, high = before["size"]
    scale = min(800 / wide, 800 / high, 1)
    expected = max(1, round(wide * scale)), max(1, round(high * scale))
    near = all(abs(one - other) <= 1 for one, other in zip(expected, after["size"], strict=True))
    difference = 0.0
    if before["tiny"] and after["tiny"]:
        pairs = zip(before["tiny"], after["tiny"], strict=True)
        difference = sum(abs(one - other) for one, other in pairs) / 64
    return {
        "broken": False,
        "sideways": not near or after["orientation"] != 1,
        "difference": difference,
        "odd": before["odd"],
        "metadata": after["metadata"],
        "icc_left": after["icc"],
        "animation": [before["frames"], after["frames"], before["duration"], after["duration"]],
        "flattened": before["frames"] > 1 and before["duration"] != after["duration"],
        "loop": [before["loop"], after["loop"]] if before["frames"] > 1 and after["frames"] > 1 else None,
    }


def table(verdicts: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Yield the lines of the table of outcomes."""
    yield "files", len(verdicts)
    yield "decodable, in an accepted format", sum(bool(one.get("decodable")) for one in verdicts)
    for outcome, count in sorted(Counter(one["outcome"] for one in verdicts).items()):
        yield outcome, count
    for reason, count in sorted(Counter(one["reason"] for one in verdicts if "reason" in one).items()):
        yield f"  refused: {reason}", count
    yield "refused though decodable", len([one for one in verdicts if is_lost(one)])
    yield "destroyed or broken", len([one for one in verdicts if one.get("destroyed") or one.get("broken")])
    yield "sideways", len([one for one in verdicts if one.get("sideways")])
    yield "with metadata left", len([one for one in verdicts if one.get("metadata")])
    yield "animation or its duration lost", len([one for one in verdicts if one.get("flattened")])
    yield "loop changed", len([one for one in verdicts if one.get("loop") and len(set(one["loop"])) > 1])
    yield "looks different (by more than 6 of 255)", len([one for one in verdicts if looks_different(one)])
    yield "larger than before", len([one for one in verdicts if one["outcome"] == "written" and _grew(one)])
    yield "temporary files left", sum(len(one.get("left", ())) for one in verdicts)
    yield "over 2 s", len([one for one in verdicts if one.get("seconds", 0) > 2])
    yield "over 256 MiB", len([one for one in verdicts if one.get("mebibytes", 0) > MOST_MEBIBYTES])


def is_lost(verdict: dict[str, Any]) -> bool:
    """Tell whether an image that can be decoded was refused."""
    return verdict["outcome"] == "refused" and bool(verdict.get("decodable"))


def looks_different(verdict: dict[str, Any]) -> bool:
    """Tell whether the result is another picture; where colours were managed that is no question."""
    return verdict.get("difference", 0) > 6 and not verdict.get("odd")


def _grew(verdict: dict[str, Any]) -> bool:
    return bool(verdict["bytes"] > verdict["bytes_before"])


def main() -> None:
    """Print the table for a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lie", help="a name under which some of the files are worked on too")
    parser.add_argument("--json", type=Path, help="write every verdict here")
    options = parser.parse_args()
    import flask_asok.recipes.images.pipeline  # noqa: F401

    verdicts = judge(files(options.folder), options.lie)
    for name, count in table(verdicts):
        print(f"{name:45} {count:6}")
    slowest = max(verdicts, key=lambda one: one.get("seconds", 0))
    largest = max(verdicts, key=lambda one: one.get("mebibytes", 0))
    print(f"slowest: {slowest.get('seconds', 0):.2f} s {slowest['file']}")
    print(f"most memory: {largest.get('mebibytes', 0):.0f} MiB {largest['file']}")
    if options.json:
        options.json.write_text(json.dumps(verdicts, indent=1))


if __name__ == "__main__":
    sys.exit(main())
