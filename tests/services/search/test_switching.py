"""The champion is switched under load: no search fails, and none is answered by a mixture of two models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from servers.pages import served as serving
from servers.search_service import DRAWING, Registry, make_app

from services.search.serving.catalogue import Catalogue, Served
from services.search.serving.following import Followed, Following
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.search_run.engine import Engine

SWITCHES = 20
CLIENTS = 4
PROMOTE = """
import sys, time
from zsbir.edge.releases import Releases
releases = Releases(sys.argv[1], "", "zsbir")
print("ready", flush=True)
for version in sys.argv[2:] * 1000:
    release = next(release for release in releases.all() if release.version == version)
    releases.set_champion(release, releases.champion())
"""
"""A process that promotes one version after the other, as promote does it, until it is killed."""


def ask_until(over: threading.Event, address: str) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Search again and again; return what each answer said: model, index, the photos found, and the status."""
    said = []
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {threading.get_ident()}-searcher"}) as client:
        while not over.is_set():
            answer = client.post("/api/search", json={**DRAWING, "k": 15})
            body = answer.json()
            found = tuple(hit["id"] for hit in body.get("hits", ()))
            said.append((body.get("model", ""), body.get("index", ""), found, answer.status_code))
    return said


@pytest.mark.slow
def test_a_champion_switched_twenty_times_under_load_fails_no_search_and_mixes_none(
    index_root: Path, tmp_path: Path, mlflow_database_file: Path, index: Artifact, other_index: Artifact
):
    registry = Registry(tmp_path, mlflow_database_file)
    versions = {registry.add(made): made for made in (index, other_index)}
    first, second = versions
    registry.set("champion", first)
    catalogue = Catalogue()
    followed = Followed("zsbir", ("champion", "challenger"), str(tmp_path), AllowedPaths([str(tmp_path), str(index_root)]))
    following = Following(followed, catalogue, Engine)
    following.look()
    following.start(0.05)
    app = make_app(index_root, catalogue)
    over = threading.Event()
    with serving(app) as address, ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask_until, over, address) for _ in range(CLIENTS)]
        for number in range(SWITCHES):
            registry.set("champion", (second, first)[number % 2])
            await_model(catalogue, lambda served, wanted=(second, first)[number % 2]: served.model.endswith(f"/{wanted}"))
            time.sleep(0.05)
        kill_promoting(tmp_path, [second, first])
        time.sleep(0.5)
        over.set()
        said = [answer for each in asking for answer in each.result(60)]
    following.close()
    app.state.search.batcher.close()
    assert {status for *_, status in said} == {200}
    digests = {f"models:/zsbir/{version}": made.digest for version, made in versions.items()}
    assert {(model, digest) for model, digest, *_ in said} == set(digests.items()), "each answer names a model with its own index"
    orders = {model: {found for each, _, found, _ in said if each == model} for model in digests}
    assert all(len(found) == 1 for found in orders.values()), "each model has one answer to the drawing"
    assert orders["models:/zsbir/1"] != orders["models:/zsbir/2"]
    champion = registry.client.get_model_version_by_alias("zsbir", "champion").version
    following.look()
    assert (following.problem, catalogue.find().model) == ("", f"models:/zsbir/{champion}")


def await_model(catalogue: Catalogue, is_it: Callable[[Served], bool]) -> None:
    until = time.monotonic() + 60
    while not is_it(catalogue.find()):
        assert time.monotonic() < until
        time.sleep(0.01)


def kill_promoting(root: Path, versions: list[str]) -> None:
    """Have another process promote, and kill it in the middle."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", PROMOTE, str(root), *versions], stdout=subprocess.PIPE, env=env)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
