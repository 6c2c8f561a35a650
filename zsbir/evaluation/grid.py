"""Pictures of rankings: a report's grid, a row a sketch with its photos framed as right or wrong; the photos found for a drawing.

Green and red are those of Okabe and Ito, which colour-blind readers can tell apart; a tick or a cross repeats it without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from zsbir.base.errors import InputError

RIGHT, WRONG = "#009E73", "#D55E00"
INK, GREY, PALE = "#222222", "#767676", "#E4E4E4"

FOUND_COLUMNS = 6
"""Pictures in a row of the picture of a search: the drawing and five photos in the first one."""

MOST_FOUND = 300
"""Photos in the picture of a search: WebP allows 16,383 pixels a side."""


@dataclass(frozen=True)
class _Layout:
    """Measures of a retrieval grid in pixels; drawn large, so that it can be shown at half the size on a sharp screen."""

    tile: int = 176
    gap: int = 12
    group_gap: int = 32
    row_gap: int = 24
    frame: int = 5
    caption: int = 260
    margin: int = 48
    header: int = 112
    footer: int = 56

    def left(self, column: int) -> int:
        """Return the left edge of a column: 0 is the query, 1 the first result."""
        behind_query = self.group_gap - self.gap if column else 0
        return self.margin + self.caption + column * (self.tile + self.gap) + behind_query

    def top(self, row: int) -> int:
        """Return the upper edge of a row of tiles."""
        return self.margin + self.header + row * (self.tile + self.row_gap)


def retrieval_grid(
    queries: Sequence[Image.Image],
    results: Sequence[Sequence[Image.Image]],
    correct: Sequence[Sequence[bool]] | None,
    captions: Sequence[str],
    *,
    title: str,
) -> Image.Image:
    """Draw a row a query: its caption (first line bold), the sketch, and the best photos framed by whether the class is right.

    `correct=None`: the classes are not known, no frames are drawn. Images of any size and mode are fitted into squares and
    never cropped. Raises InputError where the lists differ in length.
    """
    judged = correct is not None
    correct = [[False] * len(row) for row in results] if correct is None else correct
    if not len(queries) or not len(queries) == len(results) == len(correct) == len(captions):
        counts = f"{len(queries)} queries, {len(results)} results, {len(correct)} verdicts, {len(captions)} captions"
        raise InputError(f"a retrieval grid needs one of each for every query, and at least one query; got {counts}")
    if any(len(row) != len(verdicts) for row, verdicts in zip(results, correct, strict=True)):
        raise InputError("a retrieval grid needs one verdict for each result")
    layout, columns = _Layout(), max(1, *(len(row) for row in results))
    width = layout.left(columns) + layout.tile + layout.margin
    sheet = Image.new("RGB", (width, layout.top(len(queries)) - layout.row_gap + layout.footer + layout.margin), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, layout, title, columns)
    for row, (query, found, verdicts, caption) in enumerate(zip(queries, results, correct, captions, strict=True)):
        _draw_caption(draw, layout, row, caption)
        _draw_tile(sheet, query, (layout.left(0), layout.top(row)), layout, None)
        for column, (photo, verdict) in enumerate(zip(found, verdicts, strict=True), 1):
            _draw_tile(sheet, photo, (layout.left(column), layout.top(row)), layout, bool(verdict) if judged else None)
    if judged:
        _draw_legend(sheet, layout)
    return sheet


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans from matplotlib, so that pictures look the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Shorten `text` to `width` pixels, with an ellipsis at its end where something was cut."""
    text = text[:500]  # more never has room, and a name from elsewhere may be long
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


FOUND_LAYOUT = _Layout(caption=0, header=84, row_gap=92, group_gap=12)
"""Measures of the picture of a search: nothing at the left, and room for three lines below each picture."""


@dataclass(frozen=True)
class Found:
    """A picture of a search, and the lines below it, at most three: its name, its score, its file."""

    picture: Image.Image
    lines: tuple[str, ...]


def found_grid(drawing: Found, photos: Sequence[Found], *, title: str) -> Image.Image:
    """Draw a drawing and the photos found for it in rows of FOUND_COLUMNS, best first, each over its lines.

    Photos are as large, and lie where they lie, whatever their number. At most MOST_FOUND are drawn. Raises InputError for none.
    """
    if not photos:
        raise InputError("a picture of a search needs at least one photo that was found")
    layout, cells = FOUND_LAYOUT, [drawing, *photos[:MOST_FOUND]]
    rows = -(-len(cells) // FOUND_COLUMNS)
    width = layout.left(FOUND_COLUMNS) - layout.gap + layout.margin
    sheet = Image.new("RGB", (width, layout.top(rows) + layout.margin - 20), "white")
    draw = ImageDraw.Draw(sheet)
    heading = _font(30, bold=True)
    draw.text((layout.margin, layout.margin), _shortened(title, heading, width - 2 * layout.margin), INK, heading)
    for number, cell in enumerate(cells):
        left, top = layout.left(number % FOUND_COLUMNS), layout.top(number // FOUND_COLUMNS)
        _draw_tile(sheet, cell.picture, (left, top), layout, None)
        if not number:
            draw.rectangle((left, top, left + layout.tile - 1, top + layout.tile - 1), outline=GREY, width=layout.frame)
        for line, text in enumerate(cell.lines[:3]):
            font = _font(16) if line else _font(20, bold=True)
            draw.text((left, top + layout.tile + 8 + 24 * line), _shortened(text, font, layout.tile), GREY if line else INK, font)
    return sheet


def _draw_header(draw: ImageDraw.ImageDraw, layout: _Layout, title: str, columns: int) -> None:
    font = _font(36, bold=True)
    room = layout.left(columns) + layout.tile - layout.margin
    draw.text((layout.margin, layout.margin + 4), _shortened(title, font, room), INK, font)
    for column in range(columns + 1):
        middle = layout.left(column) + layout.tile // 2
        label = str(column) if column else "sketch"
        draw.text((middle, layout.top(0) - 14), label, GREY, _font(20), anchor="ms")


def _draw_caption(draw: ImageDraw.ImageDraw, layout: _Layout, row: int, caption: str) -> None:
    lines = caption.split("\n")
    room, pitch = layout.caption - layout.group_gap, 34
    middle = layout.top(row) + layout.tile / 2 - (len(lines) - 1) * pitch / 2
    for number, line in enumerate(lines):
        font = _font(22) if number else _font(26, bold=True)
        start = (layout.margin, middle + number * pitch)
        draw.text(start, _shortened(line, font, room), GREY if number else INK, font, anchor="lm")


def _draw_tile(sheet: Image.Image, image: Image.Image, corner: tuple[int, int], layout: _Layout, verdict: bool | None) -> None:
    """Draw an image in its square: framed and marked where there is a verdict, with a thin grey frame where there is none."""
    left, top = corner
    box = (left, top, left + layout.tile - 1, top + layout.tile - 1)
    draw = ImageDraw.Draw(sheet)
    inside = layout.tile - 2 * (layout.frame + 1)
    fitted = _on_white(image)
    scale = inside / max(fitted.size)
    fitted = fitted.resize((max(1, round(fitted.width * scale)), max(1, round(fitted.height * scale))), Image.Resampling.LANCZOS)
    sheet.paste(fitted, (left + (layout.tile - fitted.width) // 2, top + (layout.tile - fitted.height) // 2))
    if verdict is None:
        draw.rectangle(box, outline=PALE, width=2)
        return
    draw.rectangle(box, outline=RIGHT if verdict else WRONG, width=layout.frame)
    _draw_mark(sheet, (box[2] - 16, box[3] - 16), verdict)


def _on_white(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; transparent parts become white."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    paper = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(paper, layered).convert("RGB")


def _draw_mark(sheet: Image.Image, centre: tuple[int, int], verdict: bool) -> None:
    """Draw a disc with a tick or a cross, four times as large and scaled down, since PIL's own lines are jagged."""
    side, fine = 40, 4
    disc = Image.new("RGBA", (side * fine, side * fine))
    draw = ImageDraw.Draw(disc)
    draw.ellipse((8, 8, side * fine - 8, side * fine - 8), fill=RIGHT if verdict else WRONG, outline="white", width=10)
    strokes = [[(48, 84), (72, 108), (114, 58)]] if verdict else [[(56, 56), (104, 104)], [(104, 56), (56, 104)]]
    for stroke in strokes:
        draw.line(stroke, fill="white", width=15, joint="curve")
        for x, y in stroke:
            draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill="white")
    small = disc.resize((side, side), Image.Resampling.LANCZOS)
    sheet.paste(small, (centre[0] - side // 2, centre[1] - side // 2), small)


def _draw_legend(sheet: Image.Image, layout: _Layout) -> None:
    draw, left, middle = ImageDraw.Draw(sheet), layout.margin, sheet.height - layout.margin
    for verdict, text in ((True, "same class as the sketch"), (False, "another class")):
        _draw_mark(sheet, (left + 20, middle), verdict)
        draw.text((left + 48, middle), text, GREY, _font(20), anchor="lm")
        left += 48 + round(_font(20).getlength(text)) + 48
