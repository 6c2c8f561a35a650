"""Small real indexes, a registered model whose versions name them, and search services over them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from building import put
from fastapi import FastAPI
from fastapi.testclient import TestClient
from mlflow import MlflowClient
from pictures import encoded, picture

from services.common.auth import Role, User
from services.search.http.api import create_app
from services.search.http.state import ApiSettings
from services.search.serving.catalogue import Catalogue, Served
from zsbir.base.artifact import Artifact
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.index import IndexConfig, Settings, build_index
from zsbir.model.encoder import Encoder
from zsbir.retrieval.whitening import measure_statistics
from zsbir.search_run.engine import Engine

DRAWING = {"strokes": [[[10, 90, 50, 10], [90, 90, 10, 90]]]}
CLASSES = ("bear", "cup", "tree")


def make_run(root: Path, seed: int = 0, *, statistics: bool = False, **facts: Any) -> Artifact:
    """A run whose encoder nobody trained. statistics: whether it has some, of made-up embeddings. facts: of its manifest."""
    torch.manual_seed(seed)
    file = root / f"encoder-{seed}"
    root.mkdir(parents=True, exist_ok=True)
    Encoder("resnet18", 8, 32).save(file)
    files = {"encoder.safetensors": file.read_bytes()}
    if statistics:
        random, classes = np.random.default_rng(seed), np.arange(80) % 4
        sketches, photos = random.normal(0.3, 1, (2, 80, 8)).astype(np.float32)
        measure_statistics(sketches, classes, photos, classes).save(root / "statistics")
        files[STATISTICS_FILE] = (root / "statistics").read_bytes()
    return put(str(root), "run", f"toy-{seed}", files=files, facts=facts)


def make_gallery(root: Path, photos: int = 5) -> Path:
    """A folder of photos in three folders, no two of which are alike."""
    folder = root / "photos"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for each in range(photos):
            image = picture(60 + 7 * each, 40 + 11 * number).rotate(17 * each + 40 * number)
            (folder / name / f"{each}.png").write_bytes(encoded(image))
    return folder


def make_index(
    root: Path, seed: int = 0, gallery: Path | None = None, *, statistics: bool = False, metadata: Path | None = None
) -> Artifact:
    """An index of such a gallery, by such an encoder. metadata: a file with what is known of its photos."""
    gallery = gallery or make_gallery(root)
    run = make_run(root, seed, statistics=statistics)
    config = IndexConfig(gallery=str(gallery), precision="fp32", metadata=str(metadata or ""))
    return build_index(run.uri, config, Settings(root=str(root)))


METADATA = """path,colour,price,weight,sold,note
2025/summer/bear-0.png,red,1,0.5,true,a
2025/summer/bear-1.png,red,20,1.5,false,b
2025/winter/cup-0.png,blue,3,,true,
2026/cup-1.png,"<b>green</b>",-4,2.5,,c
lone.png,red,,,false,d
"""
"""What is known of the photos of `make_known_index`."""


def make_known_index(root: Path) -> Artifact:
    """An index of six photos in folders of folders and beside them, about five of which something is known."""
    gallery, metadata = root / "known", root / "known.csv"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(METADATA)
    for number, line in enumerate([*METADATA.splitlines()[1:], "2026/none.png,"]):
        file = gallery / line.partition(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(60 + 7 * number, 40 + 11 * number).rotate(37 * number)))
    return make_index(root, gallery=gallery, metadata=metadata)


class Registry:
    """A registered model in the MLflow store below a root. Its versions name indexes, as promote's do."""

    def __init__(self, root: Path, database: Path, model: str = "zsbir"):
        shutil.copy(database, root / "mlflow.db")
        self.model, self.root = model, root
        self.client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}", f"sqlite:///{root / 'mlflow.db'}")
        self.client.create_registered_model(model)

    def add(self, made: Artifact, **tags: str) -> str:
        """Register a version that names an index, and return its number. tags: in place of those of promote."""
        run = made.manifest.inputs["run"]
        named = {"run_uri": run["uri"], "run_digest": run["digest"], "index": made.uri, "index_digest": made.digest, **tags}
        own = {f"zsbir.{name}": value for name, value in named.items()}
        return str(self.client.create_model_version(self.model, str(self.root / "nowhere"), tags=own).version)

    def set(self, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(self.model, alias, version)

    def unset(self, alias: str) -> None:
        self.client.delete_registered_model_alias(self.model, alias)


class ByName:
    """Users whose token is the name of their role."""

    def user_of(self, token: str | None) -> User | None:
        roles: dict[str, Role] = {"searcher": "searcher", "viewer": "viewer", "submitter": "submitter", "operator": "operator"}
        name, _, role = (token or "").rpartition("-")
        return User(name or role, roles[role], by_token=True) if role in roles else None

    def user_of_session(self, secret: str) -> User | None:
        return self.user_of(secret)


def make_app(root: Path, catalogue: Catalogue, **settings: Any) -> FastAPI:
    """A service whose users are those of ByName."""
    return create_app(ApiSettings(root=str(root), hosts=("testserver",), **settings), catalogue, ByName())


def served(index: Artifact, alias: str = "champion", model: str = "models:/zsbir/1") -> Served:
    return Served(alias, model, Engine(index.uri))


@contextmanager
def asked(app: FastAPI, token: str = "searcher") -> Iterator[TestClient]:
    """A client of an application, whose thread of batches ends afterwards."""
    with client(app, token) as asking:
        yield asking
    app.state.search.batcher.close()


def client(app: FastAPI, token: str = "searcher") -> TestClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(app, headers=headers, raise_server_exceptions=False)
