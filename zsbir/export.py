"""Export an encoder: Run in, files out that PyTorch and ONNX Runtime run without this project.

    python -m zsbir.export artifacts/runs/toy-0123456789ab
    python -m zsbir.export artifacts/runs/toy-0123456789ab --formats onnx --opset 18

Writes encoder.pt2 (torch.export) and encoder.onnx, both for batches of any size, preprocessing.json, which says exactly how an
image becomes their input, and a README.md with code that runs. Both files are compared with the encoder on images of the run's
data set before the export is committed. Costs ten seconds for a ResNet18. Prints the URI of the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from pydantic import Field, field_validator

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import Config, digest_of
from zsbir.base.draft import Draft, draft
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import export_uri
from zsbir.base.storage import default_root
from zsbir.model.export_format import FILES, NEWEST_OPSET, OLDEST_OPSET, Format

if TYPE_CHECKING:
    from zsbir.model.encoder import Encoder

TOLERANCE = 1e-4
"""Largest difference from the encoder that is accepted, in any value of a unit embedding."""
BATCHES = (1, 2, 5)
"""Sizes of the batches on which the files are compared with the encoder."""


class ExportConfig(Config):
    """The fields that decide which files an export holds; they are a part of its digest."""

    formats: tuple[Format, ...] = Field(("pt2", "onnx"), min_length=1, description="formats to write: pt2, onnx or both")
    opset: int = Field(20, ge=OLDEST_OPSET, le=NEWEST_OPSET, description="version of the ONNX operator set")

    @field_validator("formats")
    @classmethod
    def _in_order(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        """Put each format once, in one order, so that the same files are the same export."""
        return tuple(form for form in FILES if form in formats)


class Settings(Config):
    """Where the export is stored."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")


def export(run_uri: str, config: ExportConfig, settings: Settings) -> Artifact:
    """Return the Export artifact of a run's encoder; an existing one is found, not made again.

    Raises RunError when a file's embeddings differ from the encoder's by more than TOLERANCE.
    """
    from zsbir.model.encoder import Encoder
    from zsbir.model.usage import preprocessing_text, readme

    run = Artifact(run_uri, "run")
    digest = digest_of([config.identity(), run.digest])
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
    from zsbir.model.export import write_onnx, write_pt2

    for form in config.formats:
        events.say(f"export: {FILES[form]} of {run}, {encoder.backbone} at {encoder.image_px} px")
        if form == "pt2":
            write_pt2(encoder, work.file(FILES[form]))
        else:
            write_onnx(encoder, work.file(FILES[form]), config.opset)


def _images(run: Artifact, image_px: int) -> tuple[UInt8[np.ndarray, "n 3 s s"], str]:
    """Return images for the comparison and their source: spread over the run's data set, or noise if that is no longer there."""
    from zsbir.data.images import eval_image
    from zsbir.data.samples import load_samples
    from zsbir.data.shards import Images

    count = sum(BATCHES)
    try:
        dataset = run.input("dataset", "dataset")
        samples = load_samples(dataset)
        positions, images = np.linspace(0, len(samples) - 1, count).astype(int), Images(dataset, samples)
        return np.stack([eval_image(images.read(position), image_px) for position in positions.tolist()]), "data set"
    except InputError as gone:
        events.say(f"the export is checked on noise: {gone}")
        return np.random.default_rng(0).integers(0, 256, (count, 3, image_px, image_px), np.uint8), "noise"


def _checked(work: Draft, form: Format, encoder: Encoder, images: UInt8[np.ndarray, "n 3 s s"]) -> float | None:
    """Return the largest difference from the encoder, None if nothing here can run the file. RunError if it is too large."""
    from zsbir.model.export import largest_difference, runner

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
    parser.add_argument("run", help="URI of a Run artifact, as zsbir.train prints it, or models:/NAME@champion")
    parser.add_config_file()
    parser.add_fields(ExportConfig, title="export")
    parser.add_fields(Settings, title="where it is stored")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, ExportConfig, Settings)
    from zsbir.edge.model_address import artifact_address

    where = Settings.of(settings)
    return export(artifact_address(parsed.run, "run", where.root), ExportConfig.of(config), where).uri


if __name__ == "__main__":
    cli.main(_parse)
