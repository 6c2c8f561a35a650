"""The classes of the toy dataset, each a list of parts in the unit square: x to the right, y down, (0, 0) the upper left corner.

Parts are shared: a wheel is the same wheel under a car and a bicycle, a roof the same on a house and a castle's tower. That
is what makes an unseen class guessable from seen ones, as in the real task.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from zsbir.toys.shapes import Part, Vary, arc, box, line, roof, round_shape, shape, wheel


def _chair(v: Vary) -> list[Part]:
    seat, back, left, right = v(0.52, 0.6), v(0.08, 0.18), v(0.24, 0.3), v(0.66, 0.74)
    legs = [line("wood", (x, seat), (x + v(-0.02, 0.02), 0.95), width=0.05) for x in (left + 0.03, right - 0.03)]
    slats = [line("wood", (left + 0.02, y), (left + 0.02 + v(0.28, 0.34), y)) for y in (back + 0.12, back + 0.24)]
    posts = [line("wood", (left + dx, back), (left + dx, seat), width=0.05) for dx in (0.02, 0.34)]
    return [
        *posts,
        *slats,
        *legs,
        shape("cloth", (left - 0.02, seat), (right - 0.06, seat), (right, seat + 0.1), (left, seat + 0.1)),
    ]


def _table(v: Vary) -> list[Part]:
    top, left, right = v(0.32, 0.42), v(0.06, 0.12), v(0.88, 0.94)
    legs = [line("wood", (x, top), (x + v(-0.03, 0.03), v(0.82, 0.9)), width=0.06) for x in (left + 0.1, right - 0.1)]
    back = [line("wood", (x, top), (x, v(0.72, 0.78)), width=0.04) for x in (left + 0.24, right - 0.24)]
    return [
        *back,
        *legs,
        shape("wood", (left, top), (left + 0.14, top - 0.12), (right - 0.14, top - 0.12), (right, top)),
        box("wood", left, top, right, top + 0.06),
    ]


def _house(v: Vary) -> list[Part]:
    left, right, eaves = v(0.16, 0.22), v(0.78, 0.84), v(0.42, 0.5)
    door = v(0.42, 0.5)
    windows = [box("glass", x, eaves + 0.1, x + 0.13, eaves + 0.23) for x in (left + 0.06, right - 0.19)]
    chimney = box("clay", 0.64, v(0.14, 0.2), 0.73, eaves - 0.05)
    return [
        chimney,
        box("light", left, eaves, right, 0.92),
        roof("clay", left - 0.08, right + 0.08, v(0.1, 0.18), eaves),
        box("wood", door, 0.66, door + 0.14, 0.92),
        *windows,
    ]


def _tree(v: Vary) -> list[Part]:
    trunk, crown = v(0.05, 0.08), v(0.2, 0.26)
    blobs = [
        round_shape("leaf", 0.5 + dx, y, crown, crown * v(0.8, 1)) for dx, y in ((-0.17, 0.42), (0.17, 0.4), (0, v(0.24, 0.3)))
    ]
    return [shape("wood", (0.5 - trunk, 0.95), (0.5 - trunk * 0.6, 0.5), (0.5 + trunk * 0.6, 0.5), (0.5 + trunk, 0.95)), *blobs]


def _car(v: Vary) -> list[Part]:
    hood, cabin, sill = v(0.5, 0.55), v(0.28, 0.36), v(0.7, 0.75)
    body = shape("metal", (0.05, sill), (0.06, hood + 0.04), (0.25, hood), (0.92, hood), (0.95, sill))
    top = shape("metal", (0.24, hood), (0.36, cabin), (0.68, cabin), (0.82, hood))
    panes = [
        shape("glass", (0.31, hood), (0.39, cabin + 0.05), (0.5, cabin + 0.05), (0.5, hood)),
        shape("glass", (0.54, hood), (0.54, cabin + 0.05), (0.66, cabin + 0.05), (0.75, hood)),
    ]
    return [top, *panes, body, *wheel(v(0.22, 0.28), sill, v(0.09, 0.12)), *wheel(v(0.72, 0.78), sill, v(0.09, 0.12))]


def _sailboat(v: Vary) -> list[Part]:
    mast, deck = v(0.46, 0.54), v(0.7, 0.75)
    hull = shape("wood", (0.12, deck), (0.9, deck), (v(0.72, 0.78), 0.9), (v(0.24, 0.3), 0.9))
    sails = [
        shape("cloth", (mast + 0.03, v(0.12, 0.18)), (mast + 0.03, deck - 0.06), (v(0.8, 0.86), deck - 0.06)),
        shape("light", (mast - 0.03, 0.2), (mast - 0.03, deck - 0.06), (v(0.18, 0.24), deck - 0.06)),
    ]
    return [line("wood", (mast, 0.06), (mast, deck), width=0.04), *sails, hull]


def _fish(v: Vary) -> list[Part]:
    belly = v(0.18, 0.24)
    tail = shape("cloth", (0.7, 0.5), (0.94, v(0.26, 0.32)), (v(0.84, 0.88), 0.5), (0.94, v(0.68, 0.74)))
    fins = [
        shape("cloth", (0.36, 0.5 - belly * 0.9), (v(0.5, 0.56), v(0.16, 0.22)), (0.6, 0.5 - belly * 0.7)),
        shape("cloth", (0.42, 0.55), (0.58, v(0.56, 0.6)), (0.54, 0.68)),
    ]
    body = round_shape("metal", 0.42, 0.5, 0.34, belly)
    return [
        tail,
        fins[0],
        body,
        fins[1],
        arc("dark", 0.2, 0.5, 0.1, belly * 0.8, span=(-55, 55), width=0.02),
        round_shape("light", 0.2, 0.45, 0.04, 0.04),
        round_shape("dark", 0.2, 0.45, 0.018, 0.018),
    ]


def _cup(v: Vary) -> list[Part]:
    rim, base, depth = v(0.24, 0.3), v(0.18, 0.24), v(0.78, 0.86)
    handle = arc("clay", 0.44 + rim, 0.48, v(0.15, 0.2), v(0.15, 0.19), span=(-85, 85), width=0.06)
    body = shape("clay", (0.44 - rim, 0.26), (0.44 + rim, 0.26), (0.44 + base, depth), (0.44 - base, depth))
    return [handle, body, round_shape("dark", 0.44, 0.26, rim, v(0.06, 0.09))]


def _umbrella(v: Vary) -> list[Part]:
    rim, top, width = v(0.44, 0.52), v(0.08, 0.14), v(0.38, 0.44)
    stick = line("wood", (0.5, top - 0.04), (0.5, 0.84), width=0.035)
    ribs = [line("dark", (0.5, top), (0.5 + width * x, rim), width=0.015) for x in (-0.4, 0.4)]
    return [
        stick,
        arc("wood", 0.57, 0.84, 0.07, 0.09, span=(0, 180), width=0.035),
        round_shape("cloth", 0.5, rim, width, rim - top, span=(180, 360)),
        *ribs,
    ]


def _ladder(v: Vary) -> list[Part]:
    foot, head = v(0.2, 0.26), v(0.12, 0.2)
    rungs = v.count(5, 7)
    steps = [
        line(
            "wood", (0.5 - head - (foot - head) * t, 0.06 + 0.88 * t), (0.5 + head + (foot - head) * t, 0.06 + 0.88 * t), width=0.04
        )
        for t in np.linspace(0.1, 0.9, rungs)
    ]
    return [*steps, *(line("wood", (0.5 + s * head, 0.05), (0.5 + s * foot, 0.95), width=0.05) for s in (-1, 1))]


def _rocket(v: Vary) -> list[Part]:
    half, base = v(0.12, 0.16), v(0.72, 0.78)
    fins = [
        shape("clay", (0.5 + s * half, base - 0.2), (0.5 + s * v(0.3, 0.36), base + 0.08), (0.5 + s * half, base)) for s in (-1, 1)
    ]
    flame = shape("cloth", (0.5 - half * 0.7, base), (0.5, v(0.9, 0.98)), (0.5 + half * 0.7, base))
    nose = shape(
        "clay", (0.5 - half, 0.32), (0.5 - half * 0.6, 0.16), (0.5, v(0.03, 0.07)), (0.5 + half * 0.6, 0.16), (0.5 + half, 0.32)
    )
    return [
        flame,
        *fins,
        box("light", 0.5 - half, 0.32, 0.5 + half, base),
        nose,
        round_shape("glass", 0.5, 0.44, half * 0.5, half * 0.5),
    ]


def _snowman(v: Vary) -> list[Part]:
    low, mid, head = v(0.22, 0.26), v(0.16, 0.19), v(0.11, 0.13)
    arms = [line("wood", (0.5 + s * mid, 0.5), (0.5 + s * v(0.34, 0.42), v(0.36, 0.46)), width=0.025) for s in (-1, 1)]
    hat = [box("dark", 0.4, v(0.02, 0.05), 0.6, 0.14), line("dark", (0.34, 0.15), (0.66, 0.15), width=0.035)]
    balls = [round_shape("light", 0.5, y, r, r) for y, r in ((0.94 - low, low), (0.5, mid), (0.26, head))]
    face = [round_shape("dark", 0.5 + dx, 0.24, 0.015, 0.015) for dx in (-0.045, 0.045)]
    return [*arms, *balls, *hat, *face, shape("clay", (0.5, 0.27), (0.62, 0.29), (0.5, 0.31))]


def _key(v: Vary) -> list[Part]:
    bow, shaft = v(0.14, 0.18), v(0.04, 0.06)
    teeth = [box("metal", x, 0.5, x + 0.05, 0.5 + v(0.1, 0.18)) for x in (v(0.7, 0.74), v(0.82, 0.86))]
    return [
        *teeth,
        box("metal", 0.3, 0.5 - shaft, 0.93, 0.5 + shaft),
        round_shape("metal", 0.22, 0.5, bow, bow),
        round_shape("dark", 0.2, 0.5, bow * 0.5, bow * 0.5),
    ]


def _scissors(v: Vary) -> list[Part]:
    spread, ring = v(0.12, 0.2), v(0.09, 0.12)
    blades = [
        shape("metal", (0.5, 0.56), (0.5 + s * spread, 0.05), (0.5 + s * (spread + 0.02), 0.1), (0.5 + s * 0.06, 0.6))
        for s in (-1, 1)
    ]
    arms = [line("metal", (0.5, 0.56), (0.5 + s * v(0.14, 0.18), 0.76), width=0.05) for s in (-1, 1)]
    rings = [arc("clay", 0.5 + s * 0.2, 0.84, ring, ring, span=(0, 360), width=0.05) for s in (-1, 1)]
    return [*arms, *blades, *rings, round_shape("dark", 0.5, 0.56, 0.02, 0.02)]


def _sword(v: Vary) -> list[Part]:
    half, guard, hilt = v(0.04, 0.06), v(0.16, 0.22), v(0.68, 0.72)
    blade = shape("metal", (0.5 - half, hilt), (0.5 - half, 0.16), (0.5, v(0.03, 0.06)), (0.5 + half, 0.16), (0.5 + half, hilt))
    return [
        blade,
        line("dark", (0.5, 0.14), (0.5, hilt), width=0.012),
        box("wood", 0.5 - 0.03, hilt, 0.53, 0.9),
        box("clay", 0.5 - guard, hilt - 0.02, 0.5 + guard, hilt + 0.05),
        round_shape("clay", 0.5, 0.92, 0.05, 0.05),
    ]


def _mushroom(v: Vary) -> list[Part]:
    rim, top, width = v(0.48, 0.55), v(0.12, 0.18), v(0.32, 0.42)
    stem = shape("light", (0.42, rim), (0.58, rim), (v(0.6, 0.65), 0.92), (v(0.35, 0.4), 0.92))
    dots = [
        round_shape("light", 0.5 + dx, rim - dy, r, r)
        for dx, dy, r in ((-0.17, 0.1, v(0.03, 0.05)), (0.02, 0.22, v(0.04, 0.06)), (0.19, 0.09, v(0.03, 0.05)))
    ]
    return [stem, round_shape("clay", 0.5, rim, width, rim - top, span=(180, 360)), *dots]


def _cactus(v: Vary) -> list[Part]:
    half = v(0.07, 0.1)
    arms = [
        line("leaf", (0.5, y), (0.5 + s * 0.24, y), (0.5 + s * 0.24, y - v(0.14, 0.22)), width=0.1)
        for s, y in ((-1, v(0.52, 0.58)), (1, v(0.42, 0.48)))
    ]
    trunk = shape("leaf", (0.5 - half, 0.8), (0.5 - half, 0.16), (0.5, v(0.06, 0.1)), (0.5 + half, 0.16), (0.5 + half, 0.8))
    return [
        *arms,
        trunk,
        line("dark", (0.5, 0.2), (0.5, 0.74), width=0.012),
        shape("clay", (0.32, 0.76), (0.68, 0.76), (0.63, 0.94), (0.37, 0.94)),
    ]


def _butterfly(v: Vary) -> list[Part]:
    upper, lower = v(0.18, 0.22), v(0.13, 0.17)
    wings = [
        part
        for s in (-1, 1)
        for part in (
            round_shape("cloth", 0.5 + s * 0.24, 0.36, upper, upper * v(0.8, 1)),
            round_shape("cloth", 0.5 + s * 0.19, 0.66, lower, lower),
            round_shape("light", 0.5 + s * 0.26, 0.36, 0.06, 0.06),
        )
    ]
    feelers = [arc("dark", 0.5 + s * 0.1, 0.22, 0.1, 0.14, span=(180, 270) if s > 0 else (270, 360), width=0.015) for s in (-1, 1)]
    return [*wings, round_shape("dark", 0.5, 0.5, v(0.03, 0.045), v(0.26, 0.3)), *feelers]


def _clock(v: Vary) -> list[Part]:
    radius, hour, minute = v(0.34, 0.38), v(0, 360), v(0, 360)
    hands = [
        line("dark", (0.5, 0.52), (0.5 + r * math.cos(math.radians(a)), 0.52 + r * math.sin(math.radians(a))), width=0.025)
        for r, a in ((0.16, hour), (0.26, minute))
    ]
    bells = [round_shape("metal", 0.5 + s * 0.24, 0.18, 0.1, 0.08) for s in (-1, 1)]
    feet = [line("metal", (0.5 + s * 0.2, 0.8), (0.5 + s * 0.28, 0.95), width=0.04) for s in (-1, 1)]
    marks = [
        line("dark", (0.5 + 0.27 * x, 0.52 + 0.27 * y), (0.5 + 0.31 * x, 0.52 + 0.31 * y), width=0.015)
        for x, y in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    return [
        *bells,
        *feet,
        round_shape("metal", 0.5, 0.52, radius, radius),
        round_shape("light", 0.5, 0.52, radius - 0.05, radius - 0.05),
        *marks,
        *hands,
    ]


def _glasses(v: Vary) -> list[Part]:
    rx, ry, y = v(0.16, 0.2), v(0.13, 0.18), v(0.48, 0.54)
    lenses = [round_shape("glass", x, y, rx, ry) for x in (0.27, 0.73)]
    rims = [arc("dark", x, y, rx, ry, span=(0, 360), width=0.035) for x in (0.27, 0.73)]
    temples = [line("dark", (0.5 + s * (0.23 + rx), y - 0.04), (0.5 + s * 0.47, y - v(0.2, 0.26)), width=0.03) for s in (-1, 1)]
    return [*lenses, *rims, arc("dark", 0.5, y, 0.08, 0.06, span=(180, 360), width=0.03), *temples]


def _envelope(v: Vary) -> list[Part]:
    left, right, top, bottom = v(0.06, 0.12), v(0.88, 0.94), v(0.24, 0.3), v(0.7, 0.78)
    flap = shape("light", (left, top), (right, top), (0.5, v(0.48, 0.56)))
    folds = [line("dark", (x, bottom), (0.5 + s * 0.1, v(0.5, 0.53)), width=0.012) for x, s in ((left, -1), (right, 1))]
    return [box("light", left, top, right, bottom), *folds, flap, round_shape("clay", 0.5, 0.5, v(0.04, 0.06), 0.05)]


def _castle(v: Vary) -> list[Part]:
    wall, tower = v(0.5, 0.56), v(0.3, 0.36)
    towers = [
        part
        for x in (0.1, 0.7)
        for part in (
            box("stone", x, tower, x + 0.2, 0.92),
            roof("clay", x - 0.03, x + 0.23, v(0.06, 0.12), tower),
            box("dark", x + 0.07, tower + 0.12, x + 0.13, tower + 0.24),
        )
    ]
    teeth = [box("stone", x, wall - 0.07, x + 0.08, wall) for x in (0.32, 0.46, 0.6)]
    return [
        box("stone", 0.26, wall, 0.74, 0.92),
        *teeth,
        *towers,
        round_shape("wood", 0.5, 0.78, v(0.07, 0.1), 0.12, span=(180, 360)),
        box("wood", 0.42, 0.78, 0.58, 0.92),
    ]


def _bridge(v: Vary) -> list[Part]:
    deck = v(0.56, 0.64)
    posts = [box("stone", x, v(0.18, 0.24), x + 0.07, 0.88) for x in (0.2, 0.73)]
    cable = arc("metal", 0.5, 0.24, 0.26, deck - 0.32, span=(0, 180), width=0.025)
    hangers = [
        line("metal", (x, 0.24 + (deck - 0.32) * math.sqrt(1 - ((x - 0.5) / 0.26) ** 2)), (x, deck), width=0.012)
        for x in (0.34, 0.42, 0.5, 0.58, 0.66)
    ]
    sides = [line("metal", (0.5 + s * 0.26, 0.24), (0.5 + s * 0.47, deck), width=0.025) for s in (-1, 1)]
    return [*hangers, cable, *sides, *posts, box("stone", 0.02, deck, 0.98, deck + 0.07)]


def _robot(v: Vary) -> list[Part]:
    head, body = v(0.13, 0.17), v(0.19, 0.24)
    limbs = [line("metal", (0.5 + s * body, 0.46), (0.5 + s * v(0.32, 0.38), v(0.58, 0.7)), width=0.06) for s in (-1, 1)]
    legs = [box("metal", 0.5 + s * 0.1 - 0.05, 0.72, 0.5 + s * 0.1 + 0.05, 0.94) for s in (-1, 1)]
    eyes = [round_shape("glass", 0.5 + s * head * 0.5, 0.25, 0.03, 0.03) for s in (-1, 1)]
    face = [*eyes, line("dark", (0.5 - head * 0.5, 0.32), (0.5 + head * 0.5, 0.32), width=0.02)]
    return [
        line("metal", (0.5, 0.16), (0.5, 0.06), width=0.02),
        round_shape("clay", 0.5, 0.06, 0.025, 0.025),
        *limbs,
        *legs,
        box("metal", 0.5 - head, 0.16, 0.5 + head, 0.37),
        *face,
        box("stone", 0.5 - body, 0.4, 0.5 + body, 0.73),
        box("glass", 0.42, 0.48, 0.58, 0.6),
    ]


def _lamp(v: Vary) -> list[Part]:
    top, rim, low = v(0.1, 0.15), v(0.24, 0.32), v(0.42, 0.48)
    shade = shape("cloth", (0.5 - top, 0.1), (0.5 + top, 0.1), (0.5 + rim, low), (0.5 - rim, low))
    return [
        line("metal", (0.5, low), (0.5, 0.88), width=0.04),
        shade,
        round_shape("clay", 0.5, 0.74, v(0.07, 0.12), v(0.1, 0.14)),
        round_shape("wood", 0.5, 0.92, v(0.16, 0.22), 0.06, span=(180, 360)),
    ]


def _hammer(v: Vary) -> list[Part]:
    half, neck = v(0.03, 0.045), v(0.2, 0.26)
    head = shape("metal", (0.26, 0.1), (0.62, 0.1), (v(0.78, 0.84), neck + 0.02), (0.6, neck), (0.26, neck))
    return [
        shape("wood", (0.5 - half, neck), (0.5 + half, neck), (0.5 + half * 1.4, 0.94), (0.5 - half * 1.4, 0.94)),
        head,
        box("metal", 0.2, 0.08, 0.27, neck + 0.03),
    ]


def _bicycle(v: Vary) -> list[Part]:
    radius, y = v(0.18, 0.21), 0.68
    rims = [
        part
        for x in (0.24, 0.76)
        for part in (arc("dark", x, y, radius, radius, span=(0, 360), width=0.035), round_shape("metal", x, y, 0.025, 0.025))
    ]
    seat, bar, crank = (v(0.36, 0.4), 0.38), (v(0.64, 0.68), v(0.3, 0.34)), (0.48, y)
    frame = [
        line("metal", a, b, width=0.03)
        for a, b in (
            ((0.24, y), seat),
            (seat, crank),
            (crank, (0.24, y)),
            (seat, (bar[0], bar[1] + 0.1)),
            (crank, (bar[0], bar[1] + 0.1)),
            ((0.76, y), bar),
        )
    ]
    return [
        *rims,
        *frame,
        line("dark", (seat[0] - 0.07, 0.36), (seat[0] + 0.06, 0.36), width=0.045),
        line("dark", (bar[0] - 0.02, bar[1]), (bar[0] + 0.1, bar[1] - 0.03), width=0.03),
    ]


def _flower(v: Vary) -> list[Part]:
    petals, ring, size = v.count(5, 7), v(0.14, 0.17), v(0.09, 0.11)
    turns = [2 * math.pi * i / petals + 0.3 for i in range(petals)]
    crown = [round_shape("cloth", 0.5 + ring * math.cos(a), 0.3 + ring * math.sin(a), size, size) for a in turns]
    leaves = [
        shape("leaf", (0.5, y), (0.5 + s * 0.12, y - 0.1), (0.5 + s * v(0.22, 0.28), y - 0.08), (0.5 + s * 0.12, y))
        for s, y in ((-1, v(0.74, 0.8)), (1, v(0.66, 0.72)))
    ]
    return [
        line("leaf", (0.5, 0.34), (v(0.47, 0.53), 0.95), width=0.035),
        *leaves,
        *crown,
        round_shape("clay", 0.5, 0.3, 0.08, 0.08),
    ]


def _windmill(v: Vary) -> list[Part]:
    turn, reach = v(0, 90), v(0.28, 0.34)
    tower = shape("light", (0.42, 0.34), (0.58, 0.34), (v(0.66, 0.7), 0.94), (v(0.3, 0.34), 0.94))
    sails = []
    for i in range(4):
        angle = math.radians(turn + 90 * i)
        ux, uy = math.cos(angle), math.sin(angle)
        tip = (0.5 + reach * ux, 0.34 + reach * uy)
        sails.append(
            shape(
                "cloth",
                (0.5 + 0.06 * ux, 0.34 + 0.06 * uy),
                tip,
                (tip[0] - 0.1 * uy, tip[1] + 0.1 * ux),
                (0.5 + 0.06 * ux - 0.08 * uy, 0.34 + 0.06 * uy + 0.08 * ux),
            )
        )
    return [
        tower,
        roof("clay", 0.4, 0.6, v(0.18, 0.22), 0.34),
        box("wood", 0.45, 0.78, 0.55, 0.94),
        *sails,
        round_shape("dark", 0.5, 0.34, 0.03, 0.03),
    ]


OBJECTS: dict[str, Callable[[Vary], list[Part]]] = {
    maker.__name__.lstrip("_"): maker
    for maker in (
        _bicycle, _bridge, _butterfly, _cactus, _car, _castle, _chair, _clock, _cup, _envelope, _fish, _flower,
        _glasses, _hammer, _house, _key, _ladder, _lamp, _mushroom, _robot, _rocket, _sailboat, _scissors, _snowman,
        _sword, _table, _tree, _umbrella, _windmill,
    )
}  # fmt: skip
"""How each class is drawn, by name."""
