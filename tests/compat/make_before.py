"""Makes `before.tar.xz`: a storage root, a jobs database and recorded client calls of version 0.1.0 (commit fa614a3).

Run once, by that commit's own code, from its checkout and with its environment; never again, since later code cannot make it:

    .venv/bin/python .../tests/compat/make_before.py .../tests/compat/before.tar.xz
    .venv/bin/python .../tests/compat/make_before.py .../tests/compat/more.tar.xz .../tests/compat/before.tar.xz

The second line adds a sweep and an export to the root of the first one, and packs what was added.

Manifests and MLflow's tables hold absolute addresses, so the root lies at a fixed path, and tests unpack it there again. The
network is a ResNet18 of which almost all is zero, and stays zero in training: 45 MB that compress to almost nothing.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from services.jobs.client import Client
from services.jobs.whereabouts import remembered

from zsbir.base.errors import InputError

PLACE = Path("/tmp/zsbir-before-fa614a3")
ROOT = PLACE / "root"
TINY = ["--steps", "16", "--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--embedding-dim", "16"]
OFTEN = ["--eval-every-steps", "4", "--checkpoint-every-steps", "4", "--log-every-steps", "2"]
ENV = {
    **os.environ,
    "ZSBIR_ROOT": str(ROOT),
    "ZSBIR_CACHE": str(PLACE / "cache"),
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
}


def verb(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words], env=ENV, text=True, stdout=subprocess.PIPE, check=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def sparse_weights(path: Path) -> None:
    """A ResNet18 of which a few channels live: dead ones have no gradient, so that training leaves them zero."""
    torch.manual_seed(0)
    state = torchvision.models.resnet18(num_classes=10).state_dict()
    live = {"conv1": 8, "layer2.0.downsample.0": 8, "layer3.0.downsample.0": 8, "layer4.0.downsample.0": 16}
    norms = {"bn1": 8, "layer2.0.downsample.1": 8, "layer3.0.downsample.1": 8, "layer4.0.downsample.1": 16}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        if part in ("running_mean", "running_var", "num_batches_tracked") or layer == "fc":
            continue
        kept = tensor.clone()
        tensor.zero_()
        channels = live.get(layer) or norms.get(layer) or 0
        tensor[:channels] = kept[:channels]
        if layer in live and layer != "conv1":
            tensor[:, 8:] = 0
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def interrupted_training(dataset: str, knowledge: str) -> None:
    """Killed after its checkpoint of step 8 of 16."""
    before = set(ROOT.glob("runs/*"))
    words = ["zsbir.train", "toy", "--dataset", dataset, "--knowledge", knowledge, *TINY, *OFTEN, "--seed", "7", "--no-tracking"]
    training = subprocess.Popen([sys.executable, "-m", *words], env={**ENV, "TQDM_DISABLE": "1"}, start_new_session=True)
    while not any(list(path.glob("checkpoints/step-000008/manifest.json")) for path in set(ROOT.glob("runs/*")) - before):
        assert training.poll() is None
        time.sleep(0.002)
    os.killpg(training.pid, signal.SIGKILL)
    training.wait()
    (left,) = set(ROOT.glob("runs/*")) - before
    assert not (left / "manifest.json").exists()
    (PLACE / "interrupted.json").write_text(json.dumps(words))


class Recorder:
    """What an old client asks, and what it was told."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def __call__(self, answer) -> None:
        answer.read()
        request = answer.request
        self.calls.append(
            {
                "method": request.method,
                "path": request.url.raw_path.decode(),
                "headers": {name: value for name, value in request.headers.items() if name in ("content-type", "idempotency-key")},
                "body": request.content.decode(),
                "status": answer.status_code,
                "type": answer.headers.get("content-type", ""),
                "answer": answer.text if "image" not in answer.headers.get("content-type", "") else "",
            }
        )


def finished(client: Client, job_id: int) -> dict:
    while (job := client.job(job_id))["state"] not in ("succeeded", "failed", "cancelled", "timed_out"):
        time.sleep(0.3)
    return job


def refused(ask, *words, **named) -> None:
    try:
        ask(*words, **named)
    except InputError:
        return
    raise AssertionError("not refused")


def jobs(dataset: str, knowledge: str) -> None:
    """A database with a job of every kind of end, and one that waits; then everything a client may look at."""
    verb("services.jobs", "up", "--running", "2", "--cpus", "2", "--gpus", "0", "--places", str(PLACE))
    client, changes, looks = Client(remembered(str(ROOT))["url"]), Recorder(), Recorder()
    tiny = {
        "image_px": 32,
        "classes_per_batch": 4,
        "per_class": 2,
        "embedding_dim": 16,
        "eval_every_steps": 4,
        "log_every_steps": 2,
    }
    training = {"recipe": "toy", "dataset": dataset, "knowledge": knowledge, "steps": 16, **tiny}
    client._http.event_hooks = {"response": [changes]}
    done = client.submit({"kind": "train", "config": training, "project": "vision", "priority": 3}, "key-1")[0]["id"]
    client.submit({"kind": "train", "config": training, "project": "vision", "priority": 3}, "key-1")
    wrong = client.submit({"kind": "train", "config": {**training, "classes_per_batch": 500}}, "key-2")[0]["id"]
    again = client.submit(
        {"kind": "ingest", "config": {"layout": "toy", "toy_px": 48, "toy_photos_per_class": 6, "toy_sketches_per_class": 6}},
        "key-3",
    )[0]["id"]
    long = client.submit({"kind": "train", "config": {**training, "steps": 4000, "seed": 3}}, "key-4")[0]["id"]
    client._http.event_hooks = {"response": []}
    for job_id in (done, wrong, again):
        finished(client, job_id)
    while (client.job(long)["progress"].get("done") or 0) < 3:
        time.sleep(0.3)
    client._http.event_hooks = {"response": [changes]}
    client.cancel(long)
    client._http.event_hooks = {"response": []}
    finished(client, long)
    client._http.event_hooks = {"response": [changes]}
    client.submit({"kind": "train", "config": {**training, "seed": 4}, "gpus": 4}, "key-5")
    refused(client.submit, {"kind": "train", "config": {**training, "stepz": 4}}, "key-6")
    refused(client.submit, {"kind": "cook", "config": {}}, "key-7")
    refused(client.submit, {"kind": "train", "config": {**training, "dataset": "/etc"}}, "key-8")
    refused(client.submit, {"kind": "ingest", "config": {"layout": "toy"}}, "key-1")
    retried = client.retry(wrong)["id"]
    client._http.event_hooks = {"response": []}
    assert finished(client, retried)["state"] == "failed"
    time.sleep(5)  # the dispatcher writes its last beats
    client._http.event_hooks = {"response": [looks]}
    (
        client.me(),
        client.kinds(),
        client.jobs(),
        client.jobs(states=["failed", "cancelled"], kind="train"),
        client.jobs(project="vision"),
    )
    client.jobs(limit=2), client.jobs(before=3, limit=2), client.queue(), client.audit(), client.health()
    for job_id in range(1, retried + 1):
        shown = client.job(job_id)
        client.curve(job_id), client.log(job_id), client.log(job_id, offset=-20)
        for name in shown.get("pictures", []):
            client.picture(job_id, name if isinstance(name, str) else name["name"])
    refused(client.job, 999)
    refused(client.log, done, attempt=77)
    verb("services.jobs", "down")
    (PLACE / "calls.json").write_text(json.dumps({"changes": changes.calls, "looks": looks.calls}, indent=1))


def forget_the_machine(place: Path) -> None:
    """Take away what says where this was made: addresses of the checkout, logs, the token of a Ray that is gone."""
    shutil.rmtree(place / "root" / "service" / "logs", ignore_errors=True)
    (place / "root" / "service" / "ray.token").unlink(missing_ok=True)
    here = [str(Path.cwd()), str(Path.cwd().parent), subprocess.getoutput("git config --get remote.origin.url")]
    for path in [place / "calls.json", *place.glob("root/mlflow-artifacts/models/*/artifacts/MLmodel")]:
        text = path.read_text()
        for word in filter(None, here):
            text = text.replace(word, "/srv/zsbir")
        path.write_text(text)
    with contextlib.closing(sqlite3.connect(place / "root" / "mlflow.db", isolation_level=None)) as database:
        for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            for column in [row[1] for row in database.execute(f"pragma table_info({table})")]:
                for word in filter(None, here):
                    change = f"update {table} set {column} = replace({column}, ?, '/srv/zsbir') where {column} like ?"
                    database.execute(change, (word, f"%{word}%"))
        database.execute("vacuum")


def pack(place: Path, target: str, but: frozenset[Path] = frozenset()) -> None:
    """Pack a folder, without some of its files, so that files of equal content, even far apart, are packed once."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 29}]
    with lzma.open(target, "wb", format=lzma.FORMAT_XZ, filters=filters) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(place.rglob("*"), key=lambda path: (path.suffix, path.stat().st_size, path)):
            if not path.is_dir() and not path.is_socket() and path not in but:
                tar.add(path, path.relative_to(place))


def more(target: str, packed: str) -> None:
    """Unpack what `main` made, make a sweep and an export of it, and pack these."""
    shutil.rmtree(PLACE, ignore_errors=True)
    with tarfile.open(packed) as tar:
        tar.extractall(PLACE, filter="data")
    before = frozenset(PLACE.rglob("*"))
    facts = json.loads((PLACE / "facts.json").read_text())
    inputs = ["--dataset", facts["dataset"], "--knowledge", facts["knowledge"]]
    trials = ["--space", "losses", "--trials", "2", "--grace-steps", "4", "--cpus-per-worker", "1", "--no-tracking"]
    sweep = ["tuning", "toy", *inputs, *trials, *TINY, "--steps", "8", "--eval-every-steps", "4", "--checkpoint-every-steps", "4"]
    made = {"export": verb("zsbir.export", facts["run"]), "sweep": verb(*sweep)}
    (PLACE / "more.json").write_text(json.dumps({"facts": made, "sweep": sweep}, indent=1))
    shutil.rmtree(PLACE / "cache", ignore_errors=True)
    pack(PLACE, target, before)
    print(Path(target).stat().st_size)


def main(target: str) -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    ROOT.mkdir(parents=True)
    weights = PLACE / "sparse.safetensors"
    sparse_weights(weights)
    dataset = verb("zsbir.ingest", "toy", "--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48")
    knowledge = verb("zsbir.teacher", dataset, "--backbone", "resnet18", "--weights", str(weights), "--image-px", "32")
    inputs = ["--dataset", dataset, "--knowledge", knowledge]
    run = verb("zsbir.train", "toy", *inputs, *TINY, *OFTEN)
    report, index = verb("zsbir.evaluate", run), verb("zsbir.index", run)
    model = verb("zsbir.promote", report, "--index", index, "--force", "--reason", "a champion for the tests of later versions")
    interrupted_training(dataset, knowledge)
    jobs(dataset, knowledge)
    facts = {"dataset": dataset, "knowledge": knowledge, "run": run, "report": report, "index": index, "model": model}
    (PLACE / "facts.json").write_text(json.dumps(facts, indent=1))
    shutil.rmtree(PLACE / "cache", ignore_errors=True)
    forget_the_machine(PLACE)
    pack(PLACE, target)
    print(Path(target).stat().st_size)


if __name__ == "__main__":
    (more if sys.argv[2:] else main)(*sys.argv[1:])
