"""Find photos by a drawing: Index and image file, or strokes, in, ranked photos out.

    python -m zsbir.search artifacts/indexes/toy/0123456789abcdef sketch.png -k 10 --grid found.png
    python -m zsbir.search artifacts/indexes/toy/0123456789abcdef cat.ndjson  by the first drawing of a file of Quick, Draw!
    python -m zsbir.search models:/zsbir@champion sketch.png                  in the index of the champion
    python -m zsbir.search INDEX sketch.png --class bear --folder zoo/2026 --where "price<10"

Strokes (.json: [[[x...], [y...]], ...], or a mapping that has them as "strokes" or "drawing"; .ndjson: a line of it) are drawn like
the sketches that the index's encoder learned from. Photos are ranked with search options (docs/search.md) where the index has what
these need; they change the scores, and `--plain` leaves them out. Prints a table: rank, cosine similarity, probability where scores
are calibrated, class where known, path. `--json` prints one JSON object a line instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps
from pydantic import Field

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.base.storage import default_root, local_path
from zsbir.base.text import clean
from zsbir.data.images import BadImage, decode, is_blank, is_inverted
from zsbir.data.ink import ink_of
from zsbir.data.strokes import Strokes, draw_query, read_strokes
from zsbir.retrieval.options import SearchOptions
from zsbir.search_run.hits import AUTO_PHOTOS, Hit

if TYPE_CHECKING:
    from zsbir.data.items import Filter
    from zsbir.search_run.choice import Wanted

NAME_LETTERS = 18
"""Letters of a file name for which there is room below a photo."""


class Settings(Config):
    """Where the index of a registered model is looked for."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")


class Searcher:
    """An opened index. `search` may be called from several threads.

    wanted: search options; "default" for those that are on by default, "auto" for these where the index is fit for them. exact:
    rank all photos, also where the index has a graph. Raises InputError as `zsbir.search_run.engine.Engine` does.
    """

    def __init__(self, index_uri: str, wanted: Wanted = "plain", *, exact: bool = False):
        from zsbir.search_run.engine import Engine

        self.engine = Engine(index_uri, wanted=wanted, exact=exact)
        self.index, self.encoder, self._files = self.engine.index, self.engine.encoder, self.engine.files

    def search(self, image: Image.Image, k: int, chosen: Filter | None = None) -> list[Hit]:
        """Return the k photos nearest to a drawing, best first. chosen: which photos to search, None for all.

        Raises InputError for a blank drawing, k below 1, and a filter by a column that the index lacks.
        """
        if is_blank(image):
            raise InputError("the drawing is empty: all of it has one colour")
        return self.engine.find(self.engine.embed([image]), k, among=self.engine.among(chosen))[0]

    def thumbnail(self, item_id: int) -> bytes:
        """Return the thumbnail of a photo, a JPEG file. item_id: its row in the index. Raises InputError for anything else."""
        return self._files.thumbnail(item_id)

    def thumbnail_image(self, item_id: int) -> Image.Image:
        """Return the thumbnail of a photo, decoded. Raises InputError where that cannot be done safely."""
        return self._files.thumbnail_image(item_id)


def read_drawing(path: Path) -> Image.Image:
    """Decode an image file. Raises InputError if it is missing or not an image."""
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no drawing at {str(path)!r}") from None
    except (BadImage, OSError) as error:
        raise InputError(f"cannot read the drawing {str(path)!r}: {error}") from None


def is_strokes(path: Path) -> bool:
    """Return whether a file holds strokes, by its name."""
    return path.suffix.lower() in (".json", ".ndjson")


def drawn(strokes: Strokes, index: Artifact) -> Image.Image:
    """Draw strokes as the sketches are drawn that the encoder of an index learned from."""
    return draw_query(strokes, ink_of(index))


def _turned(drawing: Image.Image, *, invert: bool) -> Image.Image:
    """Return the drawing, inverted if asked for. Warn where it is light on dark, unlike what encoders are trained on."""
    drawing = ImageOps.invert(drawing) if invert else drawing
    if is_inverted(drawing):
        events.warn("the drawing is light strokes on a dark background, the index expects dark on light: pass --invert if need be")
    return drawing


def picture(searcher: Searcher, drawing: Image.Image, hits: list[Hit], title: str) -> Image.Image:
    """Return a picture of the drawing and the photos found for it, with rank, class where known, score and file name of each."""
    from zsbir.evaluation.grid import MOST_FOUND, Found, found_grid

    found = []
    for hit in hits[:MOST_FOUND]:
        file = _in_the_middle(PurePosixPath(hit.path).name)
        lines = [f"{hit.rank}  {hit.class_name or file}", f"{hit.score:.3f}", *([file] if hit.class_name else [])]
        found.append(Found(searcher.thumbnail_image(hit.item_id), tuple(map(clean, lines))))
    return found_grid(Found(drawing, ("the drawing",)), found, title=clean(title))


def _in_the_middle(name: str) -> str:
    """Shorten a file name to what stands below a photo: its end tells the photos of a class apart."""
    return name if len(name) <= NAME_LETTERS else f"{name[:5]}…{name[-(NAME_LETTERS - 6) :]}"


def table(hits: list[Hit]) -> str:
    """Return the hits as lines of text, with probabilities where there are any.

    Control characters in names and paths are shown as escapes.
    """
    sure = any(hit.probability is not None for hit in hits)
    lines = [f"{'rank':>4}  {'score':>6}  {'probability  ' if sure else ''}{'class':20}  path"]
    for hit in hits:
        probability = f"{hit.probability:11.2f}  " if hit.probability is not None else ""
        lines.append(f"{hit.rank:4}  {hit.score:6.3f}  {probability}{clean(hit.class_name or '-'):20}  {clean(hit.path)}")
    return "\n".join(lines)


def _left_out(hits: int) -> str:
    from zsbir.evaluation.grid import MOST_FOUND

    return f", with the first {MOST_FOUND} of {hits} photos" if hits > MOST_FOUND else ""


def _parser() -> cli.Parser:
    parser = cli.Parser("zsbir.search", __doc__ or "")
    parser.add_argument("index", help="URI of an Index artifact, as zsbir.index prints it, or models:/NAME@champion")
    parser.add_argument("drawing", help="image file, dark strokes on a light background; or strokes: .json, .ndjson")
    parser.add_argument("-k", type=int, default=10, help="number of photos to find [10]")
    parser.add_argument("--grid", metavar="FILE", help="write a picture of the drawing and the photos found for it")
    parser.add_argument("--invert", action="store_true", help="the drawing is light strokes on a dark background: turn it over")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    among = parser.add_argument_group("which photos to search")
    among.add_argument(
        "--class", dest="classes", metavar="NAME", action="append", default=[], help="of this class; may be repeated"
    )
    among.add_argument("--folder", metavar="PATH", default="", help="below this folder, as paths are printed")
    among.add_argument(
        "--where", metavar="CONDITION", action="append", default=[],
        help="metadata of this value or range: \"price<10\", colour=red,green; may be repeated",
    )  # fmt: skip
    parser.add_argument("--plain", action="store_true", help="rank by the embeddings as they are, without search options")
    parser.add_argument(
        "--exact", action="store_true", help="rank all photos, also where the index has a graph, which may miss some"
    )
    parser.add_fields(
        SearchOptions,
        title="search options; none given: these, where the index has statistics of training embeddings and at most"
        f" {AUTO_PHOTOS:,} photos, else --plain",
        skip=frozenset({"flip"}),
    )
    parser.add_fields(Settings, title="where a registered model's index is looked for")
    return parser


def _wanted(given: dict[str, Any], index: Artifact, *, plain: bool) -> Wanted:
    """Return which search options the flags ask for."""
    from zsbir.data.segments import is_flipped

    if given and plain:
        raise InputError(f"--plain leaves all search options out, --{next(iter(given))} sets one: pass either")
    if given:
        return SearchOptions.of({**given, "flip": is_flipped(index)})
    return "plain" if plain else "auto"


def _say_options(searcher: Searcher, wanted: Wanted) -> None:
    """Say how photos were ranked, unless that was asked for."""
    engine = searcher.engine
    if engine.why_plain:
        events.say(f"searched without search options: {engine.why_plain}")
    elif wanted == "auto":
        events.say(f"search options: {engine.options.text()}; --plain leaves them out")


def _parse(argv: Sequence[str]) -> str:
    parsed, values = _parser().values(argv)
    options, where = cli.split_fields(values, SearchOptions, Settings)
    if parsed.grid and Path(parsed.grid).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise InputError(f"--grid {parsed.grid}: a picture's name ends in .png, .jpg or .webp")
    path = local_path(parsed.drawing)
    if is_strokes(path) and parsed.invert:
        raise InputError("--invert is for pictures: strokes are drawn as the index expects them")
    read = read_strokes(path) if is_strokes(path) else _turned(read_drawing(path), invert=parsed.invert)
    from zsbir.data.items import Filter
    from zsbir.edge.model_address import artifact_address

    chosen = Filter.from_flags(parsed.classes, parsed.folder, parsed.where)
    uri = artifact_address(parsed.index, "index", Settings.of(where).root)
    wanted = _wanted(options, Artifact(uri, "index"), plain=parsed.plain)
    searcher = Searcher(uri, wanted, exact=parsed.exact)
    drawing = drawn(read, searcher.index) if isinstance(read, list) else read
    hits = searcher.search(drawing, parsed.k, chosen)
    among = searcher.engine.among(chosen)
    if not hits:
        events.warn("no photo of this index is left by --class, --folder and --where")
    if searcher.engine.meaning().nothing_like(hits, among):
        events.warn("nothing like that seems to be in this index; these are the nearest photos")
    if parsed.grid:
        picture(searcher, drawing, hits, f"{Path(parsed.drawing).name} in {searcher.index.manifest.name}").save(parsed.grid)
        events.say(f"picture: {parsed.grid}{_left_out(len(hits))}")
    _say_options(searcher, wanted)
    if searcher.engine.graph:
        events.say(f"ranked: {searcher.engine.ranking(parsed.k, among=among)}; --exact ranks all photos")
    return "\n".join(map(_object, hits)) if parsed.json else table(hits)


def _object(hit: Hit) -> str:
    """Return a hit as JSON, without a probability where there is none."""
    return json.dumps({name: value for name, value in vars(hit).items() if value is not None})


if __name__ == "__main__":
    cli.main(_parse)
