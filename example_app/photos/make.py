"""
Paint the bundled photos: `python example_app/photos/make.py`, with numpy and Pillow.

They are computed, so they belong to nobody, and the same bytes come out every time. They have the size of a phone's
photos, since a small picture would say nothing about the time that a real one takes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

WIDTH, HEIGHT = 4032, 3024

Pixels = np.ndarray
"""Floats from 0 to 1: height x width, and x 3 where it has colours."""


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[float, float], octaves: int = 5) -> Pixels:
    """Return smooth noise around 0; `cells` are the features down and across of its coarsest octave."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        rows, columns = (min(max(2, round(cell * 2**octave)), size) for cell, size in zip(cells, shape, strict=True))
        grid = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.5**octave
    return total / 2


def gradient(stops: list[tuple[float, str]], at: Pixels) -> Pixels:
    """Return the colour between `stops`, (position, "#rrggbb"), for each position in `at`."""
    positions = [position for position, _ in stops]
    colours = [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for _, colour in stops]
    channels = [np.interp(at, positions, [colour[channel] for colour in colours]) for channel in range(3)]
    return np.stack(channels, -1).astype(np.float32)


def mix(below: Pixels, above: Pixels, amount: Pixels) -> Pixels:
    """Lay `above` over `below`, as opaque as `amount` says."""
    opacity = np.clip(amount, 0, 1)[..., None]
    return below * (1 - opacity) + above * opacity


def grid(width: int, height: int) -> tuple[Pixels, Pixels]:
    """Return x and y of each pixel, from 0 to 1."""
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y, (height, width))


def ridge(rng: np.random.Generator, width: int, base: float, roughness: float, cells: float) -> Pixels:
    """Return the height of a mountain ridge for each column."""
    line = noise(rng, (2, width), (1, cells), octaves=9)[0]
    return base - roughness * line


def mountains() -> Pixels:
    """Ridges behind ridges in the mist of a morning."""
    rng = np.random.default_rng(7)
    x, y = grid(WIDTH, HEIGHT)
    sky = gradient([(0, "#27406b"), (0.3, "#7d8fb5"), (0.5, "#e6b7a0"), (0.62, "#fbdcae")], y)
    clouds = noise(rng, y.shape, (9, 2.5), 7)
    sky = mix(sky, gradient([(0, "#f6d3c3"), (1, "#fff1dc")], y), (clouds - 0.15) * (0.75 - y))
    sun = np.exp(-(((x - 0.68) * 4 / 3) ** 2 + (y - 0.45) ** 2) / 0.035)
    picture = mix(sky, gradient([(0, "#fff2d0")], x * 0), sun * 0.9)
    layers = [
        (0.50, 0.085, 4, "#9c9fbd"), (0.57, 0.075, 5, "#7a84aa"), (0.65, 0.07, 6, "#556690"),
        (0.745, 0.065, 5, "#354a70"), (0.85, 0.055, 4, "#1d3050"), (0.95, 0.035, 7, "#0d1a2e"),
    ]  # fmt: skip
    for base, roughness, cells, colour in layers:
        depth = y - ridge(rng, WIDTH, base, roughness, cells)[None, :]
        relief = noise(rng, y.shape, (14, 18), 7) * 0.10
        rock = gradient([(0, colour)], x * 0) * (1 + relief[..., None])
        mist = np.clip(depth * 6, 0, 1) * np.clip(1.1 - base, 0, 1) * 1.1
        rock = mix(rock, gradient([(0, "#f1d3be")], x * 0), mist * 0.75)
        picture = mix(picture, rock, depth * HEIGHT / 2)
    return picture


def lake() -> Pixels:
    """A moon over water, upright: 3024 x 4032."""
    rng = np.random.default_rng(21)
    width, height = HEIGHT, WIDTH
    x, y = grid(width, height)
    horizon = 0.56
    sky = gradient([(0, "#0b1230"), (0.22, "#23285a"), (0.42, "#7a4a7c"), (horizon, "#f0a07a")], y)
    clouds = noise(rng, y.shape, (14, 1.8), 7)
    sky = mix(sky, gradient([(0, "#54406f"), (horizon, "#ffd0a0")], y), (clouds - 0.2) * 1.1 * np.clip(y * 2.2, 0, 1))
    stars = (rng.random(y.shape, np.float32) > 0.99985) * np.clip(0.3 - y, 0, 1) * 4
    distance = np.hypot((x - 0.6) * 0.75, y - 0.24)
    face = 0.93 + noise(rng, y.shape, (26, 20), 4) * 0.10
    moon = gradient([(0, "#fff4dc")], x * 0) * face[..., None]
    sky = mix(sky, gradient([(0, "#ffe3c0")], x * 0), np.exp(-distance / 0.07) * 0.5)
    sky = mix(np.clip(sky + stars[..., None], 0, 1), moon, (0.052 - distance) * height / 3)
    for base, roughness, colour in [(0.525, 0.022, "#6d4a72"), (0.545, 0.016, "#3d3157")]:
        depth = y - ridge(rng, width, base, roughness, 5)[None, :]
        sky = mix(sky, gradient([(0, colour)], x * 0), depth * height / 2)
    # The water is the sky upside down, each row displaced by waves that grow towards the viewer.
    nearness = np.clip((y - horizon) / (1 - horizon), 0, 1)
    waves = noise(rng, y.shape, (190, 5), 5) * (0.1 + nearness)
    mirror = np.clip(2 * horizon - y + waves * 0.09, 0, horizon - 0.002)
    rows = (mirror * (height - 1)).astype(int)
    columns = np.clip((x + waves * 0.035) * (width - 1), 0, width - 1).astype(int)
    water = sky[rows, columns] * (0.86 - 0.42 * nearness[..., None]) * (1 + waves[..., None] * 0.22)
    return np.where((y > horizon)[..., None], water, sky)


def dunes() -> Pixels:
    """Dunes in low sun, rippled by the wind."""
    rng = np.random.default_rng(3)
    x, y = grid(WIDTH, HEIGHT)
    sky = gradient([(0, "#2f6ea3"), (0.25, "#86b4cf"), (0.42, "#f0dcc0")], y)
    picture = mix(sky, gradient([(0, "#ffffff")], x * 0), (noise(rng, y.shape, (6, 2), 7) - 0.35) * (0.5 - y) * 2.2)
    for base, roughness, light, shade, size in [
        (0.40, 0.025, "#dcae84", "#b78463", 150), (0.46, 0.045, "#e0a56c", "#96603f", 110),
        (0.58, 0.075, "#e39a55", "#7d4526", 70), (0.74, 0.11, "#e58f43", "#5f2f1b", 42),
    ]:  # fmt: skip
        crest = base - roughness * noise(rng, (2, WIDTH), (1, 2), 3)[0]
        depth = y - crest[None, :]
        # One side of a dune looks to the sun, the other is in its shade: the border winds down from the crest.
        slope = np.gradient(crest)[None, :] * WIDTH * 1.3 + depth * 2.5 + noise(rng, y.shape, (3, 3), 3) * 0.20
        lit = 1 / (1 + np.exp(np.clip(slope * 9, -30, 30)))
        ripple = np.sin((depth * 4.2 + x * 0.7 + noise(rng, y.shape, (4, 4), 4) * 0.16) * size * 6.3)
        sand = mix(gradient([(0, shade)], x * 0), gradient([(0, light)], x * 0), lit)
        grain = noise(rng, y.shape, (500, 650), 2) * 0.045
        sand = sand * (1 + ripple[..., None] * 0.035 + grain[..., None])
        picture = mix(picture, sand, depth * HEIGHT / 2)
    return picture


def save(name: str, pixels: Pixels, quality: int, exif: Image.Exif | None = None) -> None:
    """Write `pixels` as a JPEG beside this script."""
    # Half a step of noise, so that the long gradients of a sky show no bands.
    dither = np.random.default_rng(1).uniform(-0.7, 0.7, pixels.shape).astype(np.float32)
    image = Image.fromarray(np.clip(pixels * 255 + dither, 0, 255).astype(np.uint8))
    if exif is not None and exif.get(ExifTags.Base.Orientation) == 6:
        # As a phone stores what it took upright: on its side, with a note to turn it.
        image = image.transpose(Image.Transpose.ROTATE_90)
    path = Path(__file__).with_name(name)
    image.save(path, quality=quality, progressive=True, exif=exif if exif is not None else b"")
    print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size:,} bytes")


def save_thumb(name: str) -> None:
    """Write the little picture that is on the button."""
    here = Path(__file__).parent
    thumbs = here.parent / "static" / "thumbs"
    thumbs.mkdir(exist_ok=True)
    with Image.open(here / name) as image:
        ImageOps.fit(ImageOps.exif_transpose(image), (240, 180)).save(thumbs / name, quality=82)


def phone_exif() -> Image.Exif:
    """Return what a phone writes: its make, the time, how it was held and where it was."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Example"
    exif[ExifTags.Base.Model] = "Phone 7"
    exif[ExifTags.Base.DateTime] = "2026:06:12 21:47:05"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {
            ExifTags.GPS.GPSLatitudeRef: "N",
            ExifTags.GPS.GPSLatitude: (46.0, 21.0, 49.0),
            ExifTags.GPS.GPSLongitudeRef: "E",
            ExifTags.GPS.GPSLongitude: (14.0, 5.0, 41.0),
        }
    )
    return exif


if __name__ == "__main__":
    save("mountains.jpg", mountains(), quality=92)
    save("lake.jpg", lake(), quality=92, exif=phone_exif())
    save("dunes.jpg", dunes(), quality=88)
    for name in ("mountains.jpg", "lake.jpg", "dunes.jpg"):
        save_thumb(name)
