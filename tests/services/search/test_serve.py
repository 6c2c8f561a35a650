"""The search service as a Ray Serve deployment of two replicas, under a real `ray start`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from servers.processes import HOST, free_ports
from servers.ray_head import ray_head
from servers.search_service import DRAWING

from zsbir.base.artifact import Artifact

DEPLOY = """
import sys
import ray
from ray import serve
from services.search.serve import build

ray.init(address="auto", log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(build({"index": sys.argv[2], "root": sys.argv[3], "auth": "off", "replicas": 2, "cpus": 0.5}))
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
"""


@pytest.mark.slow
def test_two_replicas_give_the_same_answers(index: Artifact, index_root: Path, tmp_path: Path):
    (port,) = free_ports(1)
    with ray_head(2, {"ZSBIR_CACHE": str(tmp_path / "cache")}) as environment:
        command = [sys.executable, "-c", DEPLOY, str(port), index.uri, str(index_root)]
        deployed = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert deployed.stdin
        assert deployed.stdout
        assert deployed.stdout.readline() == "ready\n"
        answers: dict[str, list[dict]] = {}
        for _ in range(200):
            answer = httpx.post(f"http://{HOST}:{port}/api/search", json={**DRAWING, "k": 15}, timeout=30)
            assert answer.status_code == 200, answer.text
            answers.setdefault(answer.headers["x-replica"], []).append(answer.json())
            if len(answers) == 2 and len(next(iter(answers.values()))) > 5:
                break
        deployed.stdin.close()
        assert deployed.wait(60) == 0
    assert len(answers) == 2
    said = [(each["index"], [(hit["id"], hit["score"]) for hit in each["hits"]]) for found in answers.values() for each in found]
    assert said[0][0] == index.digest
    assert len(said[0][1]) == 15
    assert all(each == said[0] for each in said)
