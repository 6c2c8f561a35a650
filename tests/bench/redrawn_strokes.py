"""How well strokes find photos, drawn with the measured ink and others, cut short, and as several devices record them.

    python tests/bench/redrawn_strokes.py STROKES RUN [RUN ...] [--split dev] [--json FILE]

STROKES: a folder of .ndjson files whose drawings name, as `image`, the sketch that was once drawn from them. RUN: addresses of
runs that were trained on one data set with these sketches. The queries are those sketches of a split, and the gallery its photos.
Each row of the table is the mean of mAP@all over queries and runs, its difference from the original sketches with an interval over
classes (95 %), the mean cosine to the embedding of the original sketch, and the share of queries whose first photo is that of the
measured ink.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zsbir.base.artifact import Artifact
from zsbir.data.images import decode, eval_array
from zsbir.data.ink import QUICKDRAW, Ink
from zsbir.data.measured_ink import dataset_ink
from zsbir.data.samples import Samples, load_samples
from zsbir.data.shards import Images
from zsbir.data.strokes import Strokes, draw_query, parse, prefix
from zsbir.evaluation.embed import EMBED_BATCH, embed
from zsbir.evaluation.intervals import interval_over_classes
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.model.encoder import Encoder
from zsbir.training.computing import computing

Draw = Callable[[Strokes], Image.Image]

ORIGINAL = "original sketches"
MEASURED = "strokes, measured ink"


def dense(strokes: Strokes, canvas_px: float) -> Strokes:
    """The drawing as a browser records it on a canvas of this size: a point every two pixels, in whole pixels."""
    scale = canvas_px / max(float(np.ptp(np.concatenate(strokes), axis=0).max()), 1.0)
    found = []
    for stroke in strokes:
        parts = [stroke[:1] * scale]
        for a, b in zip(stroke[:-1] * scale, stroke[1:] * scale, strict=True):
            steps = max(1, int(np.ceil(np.hypot(*(b - a)) / 2)))
            parts.append(a + (b - a) * (np.arange(1, steps + 1) / steps)[:, None])
        found.append(np.round(np.concatenate(parts)))
    return found


def ways(ink: Ink) -> dict[str, Draw]:
    """Each way of drawing the same strokes, by its name."""

    def drawn(strokes: Strokes, made: Callable[[Strokes], Strokes] = lambda strokes: strokes, ink: Ink = ink) -> Image.Image:
        return draw_query(made(strokes), ink)

    def with_ink(**changes: float) -> Draw:
        return partial(drawn, ink=ink.replace(**changes))

    return {
        MEASURED: drawn,
        "strokes, ingest's default ink": partial(drawn, ink=QUICKDRAW),
        **{f"first {share:.0%} of the points": partial(drawn, made=partial(prefix, share=share)) for share in (0.25, 0.5, 0.75)},
        **{f"recorded on {px} px, a point every 2 px": partial(drawn, made=partial(dense, canvas_px=px)) for px in (320, 960)},
        **{f"lines {factor:g} times as wide": with_ink(line_width=factor * ink.line_width) for factor in (0.5, 2, 3)},
        **{f"margin {share:g} of the side": with_ink(margin=share) for share in (0.0, 0.15, 0.25)},
    }


def drawings(folder: Path, samples: Samples, split: str) -> Iterator[tuple[int, Strokes]]:
    """Yield the position of each sketch of a split that was drawn from known strokes, and those."""
    position = {str(samples.path[at]): int(at) for at in samples.select(split=split, domain="sketch")}
    for file in sorted(folder.glob("*.ndjson")):
        for line in file.read_bytes().splitlines():
            path = json.loads(line)["image"].partition("/")[2]
            if path in position:
                yield position[path], parse(line)


def embedded(encoder: Encoder, pictures: list[np.ndarray]) -> np.ndarray:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), EMBED_BATCH):
            parts.append(encoder(torch.from_numpy(np.stack(pictures[start : start + EMBED_BATCH])))[0].float().numpy())
    return np.concatenate(parts)


def measured(
    run: Artifact, samples: Samples, images: Images, pairs: list[tuple[int, Strokes]], drawn: dict[str, Draw], split: str
) -> dict:
    """Return, for each way, average precision, cosine to the original and the first photo of every query."""
    encoder = Encoder.load(run.verified("encoder.safetensors")).eval()
    photos = samples.select(split=split, domain="photo")
    forward = lambda batch: encoder(batch)[0]  # noqa: E731
    gallery = embed(forward, images, photos, image_px=encoder.image_px, device=torch.device("cpu"))
    labels, classes = samples.class_id[[at for at, _ in pairs]], samples.class_id[photos]
    found, reference = {}, np.zeros(0)
    for name, draw in {ORIGINAL: None, **drawn}.items():
        pictures = [decode(images.read(at)) if draw is None else draw(strokes) for at, strokes in pairs]
        vectors = embedded(encoder, [eval_array(picture, encoder.image_px) for picture in pictures])
        reference = vectors if draw is None else reference
        found[name] = {
            "ap": evaluate_embeddings(vectors, labels, gallery, classes).per_query["map_all"],
            "cosine": (vectors * reference).sum(1),
            "first": (vectors @ gallery.T).argmax(1),
            "labels": labels,
        }
        print(f"{run.uri}: {name}: {found[name]['ap'].mean():.4f}", file=sys.stderr, flush=True)
    return found


def rows(runs: list[dict]) -> Iterator[dict]:
    """Yield a row of the table for each way."""
    labels = runs[0][MEASURED]["labels"]
    for name in runs[0]:
        ap = np.mean([run[name]["ap"] for run in runs], axis=0)
        against = np.mean([run[ORIGINAL]["ap"] for run in runs], axis=0)
        gain = interval_over_classes(ap - against, labels)
        yield {
            "way": name,
            "map_all": float(ap.mean()),
            "difference": float((ap - against).mean()),
            "from": gain.low if gain else None,
            "to": gain.high if gain else None,
            "cosine": float(np.mean([run[name]["cosine"].mean() for run in runs])),
            "same_first": float(np.mean([(run[name]["first"] == run[MEASURED]["first"]).mean() for run in runs])),
        }


def table(found: list[dict]) -> str:
    lines = ["| drawn | mAP@all | difference, 95 % | cosine | same first photo |", "|---|---|---|---|---|"]
    for row in found:
        interval = f"{row['difference']:+.3f} ({row['from']:+.3f} to {row['to']:+.3f})"
        lines.append(f"| {row['way']} | {row['map_all']:.3f} | {interval} | {row['cosine']:.3f} | {row['same_first']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strokes", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--split", default="dev", choices=["dev", "unseen"])
    parser.add_argument("--first", type=int, default=99, help="measure only the first ways of the list, the originals not counted")
    parser.add_argument("--json", type=Path)
    parsed = parser.parse_args()
    runs = [Artifact(uri, "run") for uri in parsed.runs]
    dataset = runs[0].input("dataset", "dataset")
    samples = load_samples(dataset)
    images, ink = Images(dataset, samples), dataset_ink(dataset)
    assert ink is not None, "the data set has too few sketches to measure their ink"
    pairs = list(drawings(parsed.strokes, samples, parsed.split))
    classes = len({int(samples.class_id[at]) for at, _ in pairs})
    photos = len(samples.select(split=parsed.split, domain="photo"))
    print(f"{len(pairs)} drawings of {classes} classes, {photos} photos of split {parsed.split}, {len(runs)} runs; {ink!r}\n")
    drawn = dict(islice(ways(ink).items(), parsed.first))
    with computing():
        found = list(rows([measured(run, samples, images, pairs, drawn, parsed.split) for run in runs]))
    print(table(found))
    if parsed.json:
        parsed.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
