"""
Images: resize_image and make_renditions against the page's recipe and libvips.

    python benchmarks/images.py [--rounds 5] [--quick]

Needs pyvips (`pip install "pyvips[binary]"`) and NumPy. Every contender works on the same files, in turn, round by
round. Times are medians, from file to file: by the clock, and of the processor, which other work on the machine
disturbs less. Ours includes the flush to the disk, which the others do not do; libvips uses all cores, the others one.
Memory is the peak of a process of its own, with its imports. SSIM compares the pixels, written without loss, with
those of a full decode and Lanczos.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SIZES = {"full": 1600, "large": 800, "medium": 400, "small": 200}


def photo(width: int, height: int) -> object:
    """Make something with the spectrum of a photo: noise of every scale, gradients, edges."""
    import numpy
    from PIL import Image

    chance = numpy.random.default_rng(7)
    canvas = numpy.zeros((height, width, 3), numpy.float32)
    for scale in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        noise = chance.integers(0, 255, (height // scale + 2, width // scale + 2, 3), dtype=numpy.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        canvas += (numpy.asarray(layer, numpy.float32) - 128) * (scale**0.5 / 22)
    across = numpy.linspace(40, 200, width, dtype=numpy.float32)[None, :, None]
    image = Image.fromarray(numpy.clip(canvas + across, 0, 255).astype(numpy.uint8))
    for number in range(12):
        left, top = (number * 997) % width, (number * 613) % height
        image.paste((number * 20, 255 - number * 20, 90), (left, top, left + width // 20, top + height // 25))
    return image


def make_sources(folder: Path, quick: bool) -> dict[str, Path]:
    """Write the images to work on."""
    shapes = {"12 MP": (4000, 3000)} if quick else {"12 MP": (4000, 3000), "24 MP": (6000, 4000), "48 MP": (8000, 6000)}
    sources = {}
    for name, size in shapes.items():
        image = photo(*size)
        sources[f"{name} JPEG"] = folder / f"{name[:2]}.jpg"
        image.save(sources[f"{name} JPEG"], quality=90)
        if name == "12 MP":
            sources["12 MP PNG"] = folder / "12.png"
            image.save(sources["12 MP PNG"], compress_level=6)
            sources["12 MP WebP"] = folder / "12.webp"
            image.save(sources["12 MP WebP"], quality=90, method=2)
    return sources


def page(path: Path) -> None:
    """The recipe of the page."""
    from PIL import Image

    img = Image.open(path)
    img.thumbnail((800, 800))
    img.save(path)


def page_four(path: Path) -> None:
    """The recipe of the page, once for each size."""
    from PIL import Image

    for name, size in SIZES.items():
        img = Image.open(path)
        img.thumbnail((size, size))
        img.save(path.with_name(f"{path.stem}-{name}{path.suffix}"))


def vips(path: Path) -> None:
    """What libvips recommends, at our quality and, for a JPEG, progressive as ours is."""
    import pyvips

    image = pyvips.Image.thumbnail(str(path), 800, height=800, size="down")
    image.write_to_file(str(path.with_name("vips" + path.suffix)), **_vips_options(path))


def vips_four(path: Path) -> None:
    """One call of libvips for each size."""
    import pyvips

    for name, size in SIZES.items():
        image = pyvips.Image.thumbnail(str(path), size, height=size, size="down")
        image.write_to_file(str(path.with_name(f"{path.stem}-{name}{path.suffix}")), **_vips_options(path))


def _vips_options(path: Path) -> dict[str, object]:
    return {".png": {}, ".jpg": {"Q": 80, "interlace": True}, ".webp": {"Q": 80}}[path.suffix]


def ours(path: Path) -> None:
    """resize_image, in place."""
    from flask_asok.recipes.images import resize_image

    resize_image(path)


def ours_four(path: Path) -> None:
    """make_renditions, in the format of the original."""
    from flask_asok.recipes.images import make_renditions

    make_renditions(path, SIZES, ("keep",))


def ours_unread(path: Path) -> None:
    """resize_image, in place, without the look at the image and at the file that was written."""
    with _unread():
        ours(path)


def ours_four_unread(path: Path) -> None:
    """make_renditions without that look."""
    with _unread():
        ours_four(path)


@contextlib.contextmanager
def _unread() -> Iterator[None]:
    from flask_asok.recipes.images.proof import Meant, Sights

    real = Meant.check, Sights.add
    Meant.check, Sights.add = lambda *_: None, lambda *_, **__: None
    try:
        yield
    finally:
        Meant.check, Sights.add = real


READ_BACK = {"800 x 800": (ours, ours_unread), "four sizes": (ours_four, ours_four_unread)}
"""Ours, and ours without reading back what was written."""

CONTENDERS: dict[str, dict[str, Callable[[Path], None]]] = {
    "800 x 800": {"page": page, "libvips": vips, "ours": ours},
    "four sizes": {"page": page_four, "libvips": vips_four, "ours": ours_four},
}


def timed(work: Callable[[Path], None], source: Path) -> tuple[float, float]:
    """Return the milliseconds that one run on a fresh copy takes: by the clock, and of all cores together."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(source, folder))
        start, used = time.perf_counter(), time.process_time()
        work(copy)
        return (time.perf_counter() - start) * 1000, (time.process_time() - used) * 1000


def peak(task: str, name: str, source: Path) -> float:
    """Return the MiB that one run in a process of its own takes."""
    command = [sys.executable, __file__, "--one", task, name, str(source)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one(task: str, name: str, source: Path) -> None:
    """Run once and print the peak of memory."""
    timed(CONTENDERS[task][name], source)
    try:
        # What getrusage() says begins with the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
    except OSError:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def similarity(source: Path) -> dict[str, float]:
    """Return the SSIM of each contender's pixels with those of a full decode and Lanczos."""
    import pyvips
    from PIL import Image

    from flask_asok.recipes.images import make_renditions, resize_image

    def careful(size: int) -> Image.Image:
        with Image.open(source) as image:
            image.load()
            small = image.copy()
        scale = size / max(small.size)
        return small.resize((round(small.width * scale), round(small.height * scale)), Image.Resampling.LANCZOS)

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        reference = careful(800)
        resize_image(source, to=Path(folder) / "ours.png", format="png")
        results["ours 800"] = ssim(reference, Image.open(Path(folder) / "ours.png"))
        with Image.open(source) as image:
            image.thumbnail((800, 800))
            results["page 800"] = ssim(reference, image)
        pyvips.Image.thumbnail(str(source), 800, height=800).write_to_file(f"{folder}/vips.png")
        results["libvips 800"] = ssim(reference, Image.open(f"{folder}/vips.png"))
        for rendition in make_renditions(source, SIZES, ("png",), folder=folder):
            made = Image.open(rendition.path)
            results[f"ours, of four, {max(made.size)}"] = ssim(careful(max(made.size)), made)
    return results


def ssim(one: object, other: object) -> float:
    """Return the structural similarity of the brightness of two images, in windows of 8 x 8."""
    import numpy
    from numpy.lib.stride_tricks import sliding_window_view

    first, second = (numpy.asarray(image.convert("L"), numpy.float64) for image in (one, other))
    if first.shape != second.shape:
        return float("nan")
    windows = [sliding_window_view(array, (8, 8))[::2, ::2] for array in (first, second)]
    means = [window.mean((2, 3)) for window in windows]
    variances = [window.var((2, 3)) for window in windows]
    shared = (windows[0] * windows[1]).mean((2, 3)) - means[0] * means[1]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * means[0] * means[1] + c1) * (2 * shared + c2)
    bottom = (means[0] ** 2 + means[1] ** 2 + c1) * (variances[0] + variances[1] + c2)
    return float((top / bottom).mean())


def _ratios(clock: dict[str, float], cores: dict[str, float], name: str) -> str:
    text = f"{clock['ours'] / clock[name]:.2f} / {cores['ours'] / cores[name]:.2f}"
    return f"{text:>15}"


def _median(values: list[tuple[float, float]], which: int) -> float:
    return statistics.median(value[which] for value in values)


def read_back(source: Path, rounds: int) -> Iterator[str]:
    """Yield what reading back the result adds to the time, by the clock and of the processor."""
    for task, works in READ_BACK.items():
        times: list[list[tuple[float, float]]] = [[], []]
        for number in range(rounds + 1):
            # In turn, and now the one first and now the other.
            for which in (0, 1) if number % 2 else (1, 0):
                took = timed(works[which], source)
                if number:
                    times[which].append(took)
        added = (_median(times[0], part) / _median(times[1], part) - 1 for part in (0, 1))
        yield f"{task}: {' / '.join(f'{share:+.1%}' for share in added)}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="12 MP only")
    parser.add_argument("--one", nargs=3, metavar=("TASK", "NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], Path(options.one[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        sources = make_sources(Path(folder), options.quick)
        head = "".join(f"{name:>20}" for name in ("page", "libvips", "ours"))
        print(f"{'clock ms / CPU ms / MiB':24}{head}{'ours / page':>15}{'ours / libvips':>15}")
        for task, contenders in CONTENDERS.items():
            for label, source in sources.items():
                times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
                for number in range(options.rounds + 1):
                    for name, work in contenders.items():
                        took = timed(work, source)
                        if number:
                            times[name].append(took)
                clock, cores = ({name: _median(values, which) for name, values in times.items()} for which in (0, 1))
                peaks = {name: peak(task, name, source) for name in contenders}
                cells = "".join(
                    f"{f'{clock[name]:.0f} / {cores[name]:.0f} / {peaks[name]:.0f}':>20}" for name in contenders
                )
                against = "".join(_ratios(clock, cores, name) for name in ("page", "libvips"))
                print(f"{label + ', ' + task:24}{cells}{against}", flush=True)
        for label, source in sources.items():
            added = "  ".join(read_back(source, options.rounds))
            print(f"reading the result back adds, clock / CPU, {label}: {added}", flush=True)
        for label, source in sources.items():
            scores = "  ".join(f"{name}: {score:.4f}" for name, score in similarity(source).items())
            print(f"SSIM {label}: {scores}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
