"""Where things lie under a storage root: the one table of its folders, and functions that build the addresses in them.

docs/architecture.md shows the same as a tree; a test compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from zsbir.base.errors import InputError
from zsbir.base.folder import NO_NAMES
from zsbir.base.storage import is_remote, join, local_path


class ArtifactFolder(NamedTuple):
    """A folder of a storage root that holds artifacts: what they are called, and how many levels below it each one lies."""

    kind: str
    depth: int


ARTIFACT_FOLDERS = {
    "datasets": ArtifactFolder("dataset", 2),
    "knowledge": ArtifactFolder("knowledge", 2),
    "runs": ArtifactFolder("run", 1),
    "reports": ArtifactFolder("report", 1),
    "indexes": ArtifactFolder("index", 2),
    "pretrained": ArtifactFolder("pretrained", 1),
    "weights": ArtifactFolder("weights", 0),
    "sweeps": ArtifactFolder("sweep", 1),
    "exports": ArtifactFolder("export", 1),
}
"""The folders of a storage root that hold artifacts, by name. Weights are single files, directly in their folder."""

MLFLOW_DATABASE = "mlflow.db"
MLFLOW_ARTIFACTS = "mlflow-artifacts"
MLFLOW_EXPERIMENT = "zsbir"
"""The experiment to which commands log that are told none."""

WEIGHT_FILE = re.compile(r"(?:^|/)weights/([0-9a-f]{64})\.safetensors\Z")
"""Weights are single files, named by their checksum."""

_CHECKPOINTS = "checkpoints"
_BELOW_ROOT = re.compile(
    "(?:"
    + "|".join(
        [
            *("/".join([name, *["[^/]+"] * folder.depth]) for name, folder in ARTIFACT_FOLDERS.items() if folder.depth),
            f"weights/[^/]+|runs/[^/]+/{_CHECKPOINTS}/[^/]+",
        ]
    )
    + ")$"
)


def datasets_folder(root: str, name: str) -> str:
    """Return the folder of all data sets of one name: each lies in it under the first 16 digits of its plan's fingerprint."""
    return join(root, "datasets", name)


def dataset_uri(root: str, name: str, fingerprint: str) -> str:
    """Return the address of the data set with this plan's fingerprint."""
    return join(datasets_folder(root, name), fingerprint[:16])


def knowledge_uri(root: str, dataset: str, digest: str) -> str:
    """Return the address of a teacher's knowledge. dataset: the digest of the data set it is about."""
    return join(root, "knowledge", dataset[:16], digest[:16])


def run_uri(root: str, recipe: str, digest: str) -> str:
    """Return the address of a training run."""
    return join(root, "runs", f"{recipe}-{digest[:12]}")


def checkpoints_uri(run: str) -> str:
    """Return the folder of a run's checkpoints. run: the run's address."""
    return join(run, _CHECKPOINTS)


def report_uri(root: str, digest: str) -> str:
    """Return the address of an evaluation report."""
    return join(root, "reports", digest[:16])


def index_uri(root: str, name: str, digest: str) -> str:
    """Return the address of a search index."""
    return join(root, "indexes", name, digest[:16])


def sweep_uri(root: str, recipe: str, digest: str) -> str:
    """Return the address of a sweep."""
    return join(root, "sweeps", f"{recipe}-{digest[:12]}")


def export_uri(root: str, digest: str) -> str:
    """Return the address of an exported encoder."""
    return join(root, "exports", digest[:16])


def weights_folder(root: str | Path) -> str:
    """Return the folder of weight files, each named by the sha256 of its bytes."""
    return join(root, "weights")


def pretrained_uri(root: str, digest: str) -> str:
    """Return the address of what `zsbir.pretrain` made."""
    return join(root, "pretrained", digest[:16])


def promotion_uri(root: str, model: str) -> str:
    """Return the folder whose lease a promotion of this registered model holds."""
    return join(root, "promotions", model)


def jobs_folder(root: str) -> str:
    """Return the folder of all attempts at queued jobs."""
    return join(root, "jobs")


def job_attempt_uri(root: str, submission_id: str) -> str:
    """Return the folder of one attempt at a queued job."""
    return join(jobs_folder(root), submission_id)


def job_steps_uri(root: str, name: str) -> str:
    """Return the folder in which the attempts at one job remember what its finished steps made."""
    return join(jobs_folder(root), "steps", name)


def local_dir(root: str) -> Path:
    """Return the directory for what object storage cannot hold: the root itself, or `artifacts` here where the root is remote."""
    return (Path("artifacts") if is_remote(root) else local_path(root)).resolve()


def service_dir(root: str) -> Path:
    """Return the job service's own directory: its job store, its logs, and what it has started."""
    return local_dir(root) / "service"


def mlflow_database(root: str) -> Path:
    """Return the SQLite file that MLflow uses where MLFLOW_TRACKING_URI is not set."""
    return local_dir(root) / MLFLOW_DATABASE


def mlflow_artifacts(database: Path) -> Path:
    """Return the directory of MLflow's own artifacts, beside its database."""
    return database.resolve().parent / MLFLOW_ARTIFACTS


def is_checkpoint(path: str) -> bool:
    """Return whether a path below a root is that of a run's checkpoint: runs/<run>/checkpoints/<name>."""
    parts = path.split("/")
    return len(parts) == 4 and parts[0] == "runs" and parts[2] == _CHECKPOINTS


def below_root(uri: str) -> str:
    """Return the part of an artifact's address that is the same in every storage root: "datasets/toy/0123".

    Raises InputError for one that would lead out of the root that it is joined to.
    """
    found = _BELOW_ROOT.search(uri.rstrip("/"))
    parts = (found.group() if found else uri.rstrip("/")).split("/")
    start = max((depth for depth, part in enumerate(parts) if part in ARTIFACT_FOLDERS), default=len(parts) - 1)
    below = parts if found else parts[start:]
    if not NO_NAMES.isdisjoint(below):
        raise InputError(f"{uri!r} is not the address of an artifact")
    return "/".join(below)


def root_of(uri: str) -> str:
    """Return the storage root that an artifact lies in."""
    return uri.rstrip("/").removesuffix(below_root(uri)).rstrip("/")


def lies_in_root(uri: str) -> bool:
    """Return whether an address is that of something in one of the artifact folders of a storage root."""
    try:
        return below_root(uri).split("/")[0] in ARTIFACT_FOLDERS
    except InputError:
        return False
