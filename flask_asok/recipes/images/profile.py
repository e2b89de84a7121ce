"""Colour profiles made of a few numbers: the code points of cICP and nclx, or a gamma and chromaticities."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence

Point = tuple[float, float]
Vector = tuple[float, float, float]
Curve = Callable[[float], float]

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_SRGB = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES: dict[int, tuple[Point, ...]] = {
    1: _SRGB,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: ((1 / 3, 1 / 3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""White, red, green and blue of the code points of ITU-T H.273."""
UNSPECIFIED = 2
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_POINTS = 4096


def _srgb_curve(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _power(gamma: float) -> Curve:
    return lambda value: float(value**gamma)


TRANSFERS: dict[int, Curve] = {
    # The curve of video (1, 6, 14, 15) counts as that of sRGB, as in Chrome and most players.
    **dict.fromkeys((1, 6, 11, 12, 13, 14, 15), _srgb_curve),
    4: _power(2.2),
    5: _power(2.8),
    7: lambda value: value / 4 if value < 0.0913 else float(((value + 0.1115) / 1.1115) ** (1 / 0.45)),
    8: lambda value: value,
    17: _power(2.6),
}


def of_code_points(primaries: int, transfer: int, *, is_grey: bool, full_range: bool = True) -> bytes | None:
    """Return the profile of two code points of H.273, of which one may be unspecified; None if both are."""
    if primaries == transfer == UNSPECIFIED:
        return None
    points = PRIMARIES.get(1 if primaries == UNSPECIFIED else primaries)
    curve = TRANSFERS.get(13 if transfer == UNSPECIFIED else transfer)
    if points is None or curve is None:
        return None
    return _profile(points, curve if full_range else _of_video(curve), is_grey)


def of_gamma(gamma: float | None, chromaticities: Sequence[float] | None, *, is_grey: bool) -> bytes | None:
    """
    Return the profile of what gAMA and cHRM say, the exponent of the file and eight numbers from the white's x on.

    What is missing is that of sRGB. The gamma of 1/2.2 is written for the curve of sRGB, and is taken for it.
    """
    if gamma is None and chromaticities is None:
        return None
    points: tuple[Point, ...] = _SRGB
    if chromaticities is not None:
        points = tuple((chromaticities[at], chromaticities[at + 1]) for at in (0, 2, 4, 6))
    if gamma is not None and not 0.1 <= gamma <= 10:
        return None
    near = gamma is None or abs(gamma * 2.2 - 1) < 0.02
    return _profile(points, _srgb_curve if near or gamma is None else _power(1 / gamma), is_grey)


def _of_video(curve: Curve) -> Curve:
    """Return the curve for values from 16 to 235, of 255."""
    return lambda value: curve(min(1.0, max(0.0, (value * 255 - 16) / 219)))


@functools.lru_cache(maxsize=16)
def _profile(points: tuple[Point, ...], curve: Curve, is_grey: bool) -> bytes | None:
    table = [min(65535, max(0, round(curve(step / (_POINTS - 1)) * 65535))) for step in range(_POINTS)]
    trc = struct.pack(f">4s4xI{_POINTS}H", b"curv", _POINTS, *table)
    if is_grey:
        return _file(b"GRAY", {b"kTRC": trc})
    try:
        columns = _adapted(points)
        red, green, blue = (_xyz(column) for column in columns)
    except (ZeroDivisionError, struct.error):
        # Chromaticities of no colours.
        return None
    curves = {b"rTRC": trc, b"gTRC": trc, b"bTRC": trc}
    return _file(b"RGB ", {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue, **curves})


_D50: Vector = (0.9642, 1.0, 0.8249)
_BRADFORD: tuple[Vector, ...] = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
"""From X, Y and Z to the responses of the three kinds of cones in the eye."""


def _adapted(points: tuple[Point, ...]) -> list[Vector]:
    """Return X, Y and Z of red, green and blue, as they are seen under the white of profiles."""
    (x, y), *primaries = points
    white = x / y, 1.0, (1 - x - y) / y
    columns = [(x, y, 1 - x - y) for x, y in primaries]
    strengths = _solve(_transposed(columns), white)
    there, here = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    adapted = []
    for column, strength in zip(columns, strengths, strict=True):
        cones = [one * strength * to / of for one, to, of in zip(_times(_BRADFORD, column), here, there, strict=True)]
        adapted.append(_solve(_BRADFORD, (cones[0], cones[1], cones[2])))
    return adapted


def _times(matrix: Sequence[Vector], vector: Vector) -> Vector:
    first, second, third = (sum(one * other for one, other in zip(row, vector, strict=True)) for row in matrix)
    return first, second, third


def _solve(matrix: Sequence[Vector], result: Vector) -> Vector:
    """Return the vector that `matrix` makes `result` of, by Cramer's rule; ZeroDivisionError if there is none."""
    whole = _determinant(matrix)
    columns = _transposed(matrix)
    first, second, third = (
        _determinant([result if number == place else column for number, column in enumerate(columns)]) / whole
        for place in range(3)
    )
    return first, second, third


def _determinant(rows: Sequence[Vector]) -> float:
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _transposed(rows: Sequence[Vector]) -> list[Vector]:
    return [(rows[0][place], rows[1][place], rows[2][place]) for place in range(3)]


def _file(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of version 2, for a display."""
    said = {b"desc": b"desc\0\0\0\0\0\0\0\1\0" + bytes(78), b"wtpt": _xyz(_D50), **tags}
    table, bodies = b"", b""
    start = 128 + 4 + 12 * len(said)
    for name, body in said.items():
        table += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", start + len(bodies), bytes(4), 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(said)) + table + bodies


def _xyz(vector: Vector) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(part * 65536) for part in vector))
