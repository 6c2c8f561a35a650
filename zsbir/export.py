"""A Run in, an Export out: its encoder as files that run without this project, in PyTorch and in ONNX Runtime.

    python -m zsbir.export artifacts/runs/toy-0123456789ab
    python -m zsbir.export artifacts/runs/toy-0123456789ab --formats onnx --opset 18

Holds encoder.pt2 (torch.export) and encoder.onnx, both for any number of images a batch, preprocessing.json, which says exactly how
an image becomes their input, and a README.md with code that runs. Both files are checked against the encoder on images of the run's
data set before the export is committed. Costs ten seconds for a ResNet18. Prints its URI.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from pydantic import Field, field_validator

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact, Draft, draft, exists
from zsbir.base.config import Config, digest_of
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import export_uri
from zsbir.base.storage import default_root
from zsbir.data.images import eval_image
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.model.encoder import Encoder
from zsbir.model.export import FILES, NEWEST_OPSET, OLDEST_OPSET, Format, largest_difference, runner, write_onnx, write_pt2
from zsbir.model.usage import preprocessing_text, readme

TOLERANCE = 1e-4
"""Largest difference, in any value of a unit embedding, that is let pass."""
BATCHES = (1, 2, 5)
"""Batches that are tried."""


class ExportConfig(Config):
    """What decides the export."""

    formats: tuple[Format, ...] = Field(("pt2", "onnx"), min_length=1, description="what to write, of pt2 and onnx")
    opset: int = Field(20, ge=OLDEST_OPSET, le=NEWEST_OPSET, description="version of ONNX's operators")

    @field_validator("formats")
    @classmethod
    def _in_order(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        """Each once, in one order: the same files are the same export."""
        return tuple(form for form in FILES if form in formats)


class Settings(Config):
    """Where it runs."""

    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")


def export(run_uri: str, config: ExportConfig, settings: Settings) -> Artifact:
    """The Export artifact of a run's encoder; the one already made where there is one.

    Raises RunError when a file says anything else than the encoder.
    """
    run = Artifact(run_uri, "run")
    digest = digest_of([config.model_dump(mode="json"), run.digest])
    uri = export_uri(settings.root, digest)
    if exists(uri):
        return Artifact(uri, "export")
    encoder = Encoder.load(run.verified("encoder.safetensors")).eval()
    with draft(uri, "export", run.manifest.name) as work:
        _write(work, encoder, run.folder_name, config)
        images, source = _images(run, encoder.image_px)
        differences = {form: _checked(work, form, encoder, images) for form in config.formats}
        work.file("preprocessing.json").write_text(preprocessing_text(encoder.facts()), "utf-8")
        work.file("README.md").write_text(readme(encoder.facts(), run.folder_name, config.formats), "utf-8")
        return work.commit(
            digest=digest,
            config=config,
            inputs={"run": run.reference()},
            counts={"dimensions": encoder.embedding_dim, "image_px": encoder.image_px},
            facts={"backbone": encoder.backbone, "checked_on": source, "largest_difference": differences},
        )


def _write(work: Draft, encoder: Encoder, run: str, config: ExportConfig) -> None:
    for form in config.formats:
        events.say(f"export: {FILES[form]} of {run}, {encoder.backbone} at {encoder.image_px} px")
        if form == "pt2":
            write_pt2(encoder, work.file(FILES[form]))
        else:
            write_onnx(encoder, work.file(FILES[form]), config.opset)


def _images(run: Artifact, image_px: int) -> tuple[UInt8[np.ndarray, "n 3 s s"], str]:
    """Images for the check, spread over the run's data set, or noise where that is gone; and which of the two it was."""
    count = sum(BATCHES)
    try:
        dataset = run.input("dataset", "dataset")
        samples = load_samples(dataset)
        places, images = np.linspace(0, len(samples) - 1, count).astype(int), Images(dataset, samples)
        return np.stack([eval_image(images.read(folder), image_px) for folder in places.tolist()]), "data set"
    except InputError as gone:
        events.say(f"the export is checked on noise: {gone}")
        return np.random.default_rng(0).integers(0, 256, (count, 3, image_px, image_px), np.uint8), "noise"


def _checked(work: Draft, form: Format, encoder: Encoder, images: UInt8[np.ndarray, "n 3 s s"]) -> float | None:
    """The largest difference found, None where nothing here can run the file. RunError where it is too large."""
    run = runner(form, work.path / FILES[form])
    if run is None:
        events.warn(f"{FILES[form]} was not checked: onnxruntime is not installed here; run the code of its README.md where it is")
        return None
    difference = largest_difference(run, encoder, images, BATCHES)
    if difference > TOLERANCE:
        raise RunError(
            f"{FILES[form]} differs from the encoder by {difference:.2g} in a value of a unit embedding, more than {TOLERANCE:g}: "
            "nothing was exported; try another --opset, or leave it out of --formats"
        )
    events.say(f"{FILES[form]}: {len(images)} images in batches of {', '.join(map(str, BATCHES))}, off by {difference:.1e} at most")
    return difference


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.export", __doc__ or "")
    parser.add_argument("run", help="URI of a Run artifact, as zsbir.train prints it")
    parser.add_config_file()
    parser.add_fields(ExportConfig, title="export")
    parser.add_fields(Settings, title="where it runs")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, ExportConfig, Settings)
    return export(parsed.run, ExportConfig.of(config), Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
