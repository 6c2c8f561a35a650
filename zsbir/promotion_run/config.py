"""The fields of a promotion, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.config import Config
from zsbir.base.layout import MLFLOW_EXPERIMENT, service_dir
from zsbir.base.storage import default_root
from zsbir.promotion.address import DEFAULT_MODEL, MODEL_PATTERN
from zsbir.promotion.gate import GateConfig

Permitted = Callable[[str, str], str]
"""A function that returns an address, in full, or raises InputError, which begins with what it is the address of."""


class PromoteConfig(GateConfig):
    """What decides whether the model is promoted."""

    min_recall: float = Field(
        0.99, ge=0, le=1, description="lowest recall@10 of sketches in the index, compared with a slow exact ranking, that passes"
    )
    gallery: Literal["champion", "index"] = Field(
        "champion",
        description="whose photos are searched afterwards. champion: galleries that --index lacks are embedded with the new model"
        " first; index: those of --index alone",
    )


class Settings(Config):
    """Where the models are registered, and where photos of the champion are embedded."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    experiment: str = Field(MLFLOW_EXPERIMENT, description="MLflow experiment of the runs")
    model: str = Field(DEFAULT_MODEL, pattern=f"^{MODEL_PATTERN}$", description="registered model, one for each application")
    num_workers: int = Field(0, ge=0, description="Ray workers that embed the champion's photos; 0: in this process")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs each Ray worker holds")


@dataclass(frozen=True)
class PromotionRequest:
    """What the user asks for. force_reason: why the model becomes champion whatever the comparison says; "": not forced.

    report: of the model; other_reports: of the same training with other seeds; champion_reports: none: those it was promoted by;
    places: where galleries have to lie whose photos are read for somebody else, as a service does for its users; none: anywhere.
    """

    report: str
    index: str
    other_reports: tuple[str, ...] = ()
    champion_reports: tuple[str, ...] = ()
    force_reason: str = ""
    dry_run: bool = False
    places: tuple[str, ...] = ()

    def permitted(self, root: str) -> Permitted | None:
        """Return what checks an address for whoever the promotion is made for; None where everything may be read."""
        if not self.places:
            return None
        return AllowedPaths(self.places, private=[str(service_dir(root))]).check
