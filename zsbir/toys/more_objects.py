"""More classes of the toy data set, which are drawn only where a list names them: an interval over classes needs many of them.

`make demo` names all of them as unseen, so that what is trained on stays the same. Parts are as in `zsbir.toys.objects`.
"""

from __future__ import annotations

from collections.abc import Callable

from zsbir.toys.shapes import Part, Vary, arc, box, line, round_shape, shape, wheel


def _anchor(v: Vary) -> list[Part]:
    beam, reach = v(0.26, 0.32), v(0.28, 0.34)
    flukes = [
        shape("metal", (0.5 + s * (reach - 0.06), 0.72), (0.5 + s * (reach + 0.05), 0.56), (0.5 + s * (reach + 0.08), 0.76))
        for s in (-1, 1)
    ]
    return [
        line("metal", (0.5, 0.2), (0.5, 0.9), width=0.06),
        line("metal", (0.5 - v(0.16, 0.2), beam), (0.5 + v(0.16, 0.2), beam), width=0.05),
        arc("metal", 0.5, 0.64, reach, 0.27, span=(5, 175), width=0.06),
        *flukes,
        arc("metal", 0.5, 0.13, 0.06, 0.06, span=(0, 360), width=0.035),
    ]


def _balloon(v: Vary) -> list[Part]:
    radius, bottom = v(0.25, 0.3), v(0.76, 0.8)
    ropes = [line("dark", (0.5 + s * radius * 0.7, 0.52), (0.5 + s * 0.09, bottom), width=0.015) for s in (-1, 1)]
    stripes = [arc("light", 0.5, 0.36, radius * x, radius, span=(0, 360), width=0.02) for x in (0.35, 0.7)]
    return [
        *ropes,
        round_shape("cloth", 0.5, 0.36, radius, radius * v(1.0, 1.1)),
        *stripes,
        box("wood", 0.4, bottom, 0.6, 0.93),
    ]


def _bell(v: Vary) -> list[Part]:
    rim, low, top = v(0.28, 0.34), v(0.72, 0.78), v(0.2, 0.26)
    body = shape(
        "metal", (0.42, top), (0.58, top), (0.66, 0.46), (0.68, 0.6), (0.5 + rim, low), (0.5 - rim, low), (0.32, 0.6), (0.34, 0.46)
    )
    return [
        arc("metal", 0.5, top - 0.05, 0.07, 0.07, span=(0, 360), width=0.03),
        round_shape("dark", 0.5, low + 0.05, v(0.06, 0.08), 0.07),
        body,
        line("dark", (0.5 - rim * 0.9, low - 0.06), (0.5 + rim * 0.9, low - 0.06), width=0.02),
    ]


def _bottle(v: Vary) -> list[Part]:
    half, neck, shoulder = v(0.14, 0.18), v(0.05, 0.07), v(0.38, 0.46)
    body = shape(
        "glass",
        (0.5 - neck, 0.12),
        (0.5 + neck, 0.12),
        (0.5 + neck, shoulder - 0.12),
        (0.5 + half, shoulder),
        (0.5 + half, 0.94),
        (0.5 - half, 0.94),
        (0.5 - half, shoulder),
        (0.5 - neck, shoulder - 0.12),
    )
    return [box("wood", 0.5 - neck * 0.8, 0.04, 0.5 + neck * 0.8, 0.13), body, box("light", 0.5 - half, 0.56, 0.5 + half, 0.78)]


def _candle(v: Vary) -> list[Part]:
    half, top = v(0.08, 0.11), v(0.36, 0.44)
    flame = shape("cloth", (0.5, top - v(0.26, 0.3)), (0.56, top - 0.13), (0.5, top - 0.06), (0.44, top - 0.13))
    return [
        line("dark", (0.5, top - 0.08), (0.5, top), width=0.02),
        flame,
        box("light", 0.5 - half, top, 0.5 + half, 0.84),
        round_shape("metal", 0.5, 0.86, v(0.22, 0.28), 0.07),
        arc("metal", 0.76, 0.82, 0.07, 0.07, span=(-120, 120), width=0.03),
    ]


def _crown(v: Vary) -> list[Part]:
    low, dip, tip = v(0.76, 0.82), v(0.48, 0.54), v(0.22, 0.28)
    points = [(0.14, tip + 0.06), (0.32, dip), (0.5, tip - 0.04), (0.68, dip), (0.86, tip + 0.06), (0.8, low), (0.2, low)]
    beads = [round_shape("clay", x, y - 0.03, 0.04, 0.04) for x, y in (points[0], points[2], points[4])]
    gems = [round_shape("glass", x, low - 0.08, 0.035, 0.045) for x in (0.34, 0.5, 0.66)]
    return [shape("metal", *points), *beads, box("metal", 0.19, low - 0.16, 0.81, low), *gems]


def _flag(v: Vary) -> list[Part]:
    pole, low, end = v(0.2, 0.26), v(0.46, 0.54), v(0.82, 0.9)
    cloth = shape("cloth", (pole, 0.12), (end, 0.16), (end - v(0.08, 0.14), (0.14 + low) / 2), (end, low), (pole, low - 0.02))
    band = line("light", (pole, (0.12 + low) / 2), (end - 0.12, (0.16 + low) / 2), width=0.07)
    return [
        line("wood", (pole, 0.06), (pole, 0.95), width=0.04),
        round_shape("metal", pole, 0.06, 0.035, 0.035),
        cloth,
        band,
    ]


def _guitar(v: Vary) -> list[Part]:
    low, waist = v(0.2, 0.24), v(0.14, 0.17)
    frets = [line("metal", (0.47, y), (0.53, y), width=0.012) for y in (0.2, 0.28, 0.36)]
    strings = [line("light", (0.5 + dx, 0.12), (0.5 + dx, 0.82), width=0.01) for dx in (-0.012, 0.012)]
    return [
        box("wood", 0.465, 0.1, 0.535, 0.6),
        box("dark", 0.44, 0.03, 0.56, 0.12),
        round_shape("wood", 0.5, 0.76, low, v(0.17, 0.2)),
        round_shape("wood", 0.5, 0.54, waist, 0.13),
        round_shape("dark", 0.5, 0.63, 0.065, 0.065),
        line("dark", (0.42, 0.82), (0.58, 0.82), width=0.03),
        *frets,
        *strings,
    ]


def _kite(v: Vary) -> list[Part]:
    middle, half = v(0.3, 0.36), v(0.24, 0.3)
    tail = line("dark", (0.5, 0.68), (v(0.56, 0.62), 0.76), (v(0.42, 0.48), 0.84), (v(0.56, 0.62), 0.94), width=0.02)
    bows = [
        shape("clay", (0.5, y), (0.42, y - 0.03), (0.42, y + 0.03), (0.5, y), (0.6, y + 0.03), (0.6, y - 0.03)) for y in (0.8, 0.9)
    ]
    return [
        tail,
        shape("cloth", (0.5, 0.06), (0.5 + half, middle), (0.5, 0.68), (0.5 - half, middle)),
        line("wood", (0.5, 0.06), (0.5, 0.68), width=0.02),
        line("wood", (0.5 - half, middle), (0.5 + half, middle), width=0.02),
        *bows,
    ]


def _padlock(v: Vary) -> list[Part]:
    half, top = v(0.24, 0.3), v(0.46, 0.52)
    return [
        arc("metal", 0.5, top - 0.08, half * 0.66, v(0.22, 0.28), span=(180, 360), width=0.07),
        line("metal", (0.5 - half * 0.66, top - 0.08), (0.5 - half * 0.66, top), width=0.07),
        line("metal", (0.5 + half * 0.66, top - 0.08), (0.5 + half * 0.66, top), width=0.07),
        box("clay", 0.5 - half, top, 0.5 + half, 0.9),
        round_shape("dark", 0.5, 0.66, 0.055, 0.055),
        shape("dark", (0.5, 0.66), (0.545, 0.8), (0.455, 0.8)),
    ]


def _pencil(v: Vary) -> list[Part]:
    half, tip = v(0.07, 0.1), v(0.68, 0.74)
    return [
        box("clay", 0.5 - half, 0.05, 0.5 + half, 0.13),
        box("metal", 0.5 - half, 0.13, 0.5 + half, 0.19),
        box("cloth", 0.5 - half, 0.19, 0.5 + half, tip),
        shape("light", (0.5 - half, tip), (0.5 + half, tip), (0.5, 0.95)),
        shape("dark", (0.5 - half * 0.35, 0.86), (0.5 + half * 0.35, 0.86), (0.5, 0.95)),
        *(line("dark", (0.5 + s * half * 0.35, 0.19), (0.5 + s * half * 0.35, tip), width=0.01) for s in (-1, 1)),
    ]


def _teapot(v: Vary) -> list[Part]:
    rx, ry = v(0.24, 0.28), v(0.2, 0.24)
    spout = shape("clay", (0.5 + rx * 0.8, 0.64), (0.9, v(0.36, 0.42)), (0.94, 0.42), (0.5 + rx * 0.9, 0.76))
    return [
        arc("clay", 0.5 - rx, 0.58, v(0.13, 0.17), 0.16, span=(90, 270), width=0.05),
        spout,
        round_shape("clay", 0.5, 0.6, rx, ry),
        round_shape("clay", 0.5, 0.61 - ry, rx * 0.55, 0.06, span=(180, 360)),
        round_shape("dark", 0.5, 0.53 - ry, 0.035, 0.035),
        line("dark", (0.5 - rx * 0.6, 0.6 + ry), (0.5 + rx * 0.6, 0.6 + ry), width=0.03),
    ]


def _tent(v: Vary) -> list[Part]:
    top, half = v(0.16, 0.24), v(0.36, 0.42)
    ropes = [line("dark", (0.5 + s * half * 0.6, 0.55), (0.5 + s * 0.47, 0.92), width=0.012) for s in (-1, 1)]
    return [
        *ropes,
        shape("cloth", (0.5, top), (0.5 + half, 0.88), (0.5 - half, 0.88)),
        shape("dark", (0.5, v(0.4, 0.48)), (0.5 + half * 0.3, 0.88), (0.5 - half * 0.3, 0.88)),
        line("wood", (0.5, top - 0.06), (0.5, top + 0.1), width=0.025),
    ]


def _truck(v: Vary) -> list[Part]:
    bed, cab = v(0.26, 0.34), v(0.4, 0.46)
    front = shape("metal", (0.64, cab), (0.82, cab), (0.94, 0.58), (0.94, 0.74), (0.64, 0.74))
    pane = shape("glass", (0.69, cab + 0.04), (0.8, cab + 0.04), (0.88, 0.58), (0.69, 0.58))
    wheels = [part for x in (0.2, v(0.4, 0.44), 0.8) for part in wheel(x, 0.76, v(0.08, 0.1))]
    return [box("cloth", 0.05, bed, 0.62, 0.72), line("dark", (0.05, 0.74), (0.94, 0.74), width=0.04), front, pane, *wheels]


MORE_OBJECTS: dict[str, Callable[[Vary], list[Part]]] = {
    maker.__name__.lstrip("_"): maker
    for maker in (
        _anchor, _balloon, _bell, _bottle, _candle, _crown, _flag, _guitar, _kite, _padlock, _pencil, _teapot, _tent, _truck,
    )
}  # fmt: skip
"""How each of these classes is drawn, by name."""
