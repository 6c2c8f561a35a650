"""The fields of an index, and of what is added to one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zsbir.base.config import Added, Config
from zsbir.base.storage import default_root
from zsbir.training.config import Precision


class IndexConfig(Config):
    """What decides the contents of the index."""

    outside_identity = frozenset({"gallery", "metadata"})  # the digests of the photos and of the file are in that of the index

    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9_.-]*)?$", description="name of the index; none: that of the run's recipe")
    gallery: str = Field("", description="folder of photos; none: the photos of the run's data set")
    split: str = Field("unseen", description="photos to take without --gallery: train, dev, unseen or all")
    max_bad_frac: float = Field(0.01, ge=0, le=1, description="share of unreadable photos above which the command fails")
    precision: Precision = Field("auto", description="autocast of the forward pass; auto: bf16 where the hardware gains by it")
    metadata: str = Field("", description="CSV or Parquet file with a column `path` and a column for each thing known of a photo")
    flip: Annotated[bool, Added(neutral=False)] = Field(
        False,
        description="embed each photo and its mirror image, and take the mean; searches do so too: better answers for twice the"
        " forward passes",
    )
    graph: Annotated[bool, Added(neutral=False)] = Field(
        False,
        description="link the photos, so that plain searches of millions take milliseconds and may miss some; the manifest says how"
        " many. Off: every search ranks all photos",
    )


class GrowthConfig(Config):
    """What decides how photos are added to an index."""

    max_bad_frac: float = Field(0.01, ge=0, le=1, description="share of unreadable new photos above which the command fails")
    metadata: str = Field("", description="CSV or Parquet file with what is known of the new photos, by `path`")


class ReembedConfig(Config):
    """What decides whether an index may be embedded again."""

    max_bad_frac: float = Field(0.01, ge=0, le=1, description="share of unreadable photos above which the command fails")


class Settings(Config):
    """Where the index is stored, and where its photos are embedded."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    num_workers: int = Field(0, ge=0, description="Ray workers that embed; 0: in this process")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs each Ray worker holds")
