"""Every bad input ends in one clear line on standard error and the right exit code; nothing is printed, nothing half-made."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torchvision
import yaml
from PIL import Image
from safetensors.torch import save_file

from zsbir import evaluate, index, ingest, search, teacher, train
from zsbir.base import cli
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import encode_photo, encode_sketch
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.model.weights import load_weights
from zsbir.toys.draw import draw
from zsbir.training.config import TrainConfig
from zsbir.training.context import LocalContext
from zsbir.training.inputs import TrainInputs
from zsbir.training.loop import Trainer

PROGRESS = re.compile(r"(ingest|teach|train|index|embed \w+)(:| \d+/\d+) .*/s.*")
BEFORE = re.compile(r"\d+ steps of \d+ images, .*|warning: '\w+' is the only unseen class, .*")
"""What a command says before it fails: how long a training will take, and what is odd about the classes."""

CLASSES = ("cup", "fish", "house", "sword", "tree")

Fails = Callable[..., str]


def files_below(*folders: Path) -> set[Path]:
    """Every file that a listing shows."""
    return {path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


def only_line(err: str) -> str:
    """The one line of standard error that is neither progress nor said before the work begins."""
    lines = [line for line in err.splitlines() if not (PROGRESS.fullmatch(line) or BEFORE.fullmatch(line))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], tmp_path: Path, pipeline_root: Path) -> Fails:
    """Runs a verb in this process as its command does, and returns the one line in which it fails."""

    def fail(verb: ModuleType, *words: object, code: int = 2, root: Path | None = None) -> str:
        folder = root or tmp_path / "root"
        argv = [str(word) for word in words]
        if verb is not search:
            argv += ["--root", str(folder)]
        if verb in (train, evaluate):
            argv += ["--no-tracking"]
        before = files_below(folder, pipeline_root)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main(verb._parse, argv)
        out, err = capsys.readouterr()
        assert (caught.value.code, out) == (code, ""), err
        # What an ingest packed before it failed has no manifest, and is used by its next run.
        used_again = ("weights", "shards", ".parts")
        kept = {path for path in files_below(folder, pipeline_root) - before if path.parent.name not in used_again}
        assert {path.name for path in kept} <= {"quarantine.tsv"}, "nothing half-made is visible"
        return only_line(err)

    return fail


def command(verb: str, *words: object, code: int) -> str:
    """The same by a real process."""
    done = subprocess.run(
        [sys.executable, "-m", f"zsbir.{verb}", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return only_line(done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good folder: five classes of three photos and three sketches."""
    folder = tmp_path / "images"
    for label, name in enumerate(CLASSES):
        for domain, encode, ending in (("photo", encode_photo, "jpg"), ("sketch", encode_sketch, "png")):
            (folder / domain / name).mkdir(parents=True)
            for number in range(3):
                image = draw(name, domain, np.random.default_rng([label, number]), 32)
                (folder / domain / name / f"{number}.{ending}").write_bytes(encode(image))
    return folder


# ingest


def test_a_missing_folder(fails: Fails, tmp_path: Path) -> None:
    line = fails(ingest, "folder", tmp_path / "nowhere", "--unseen-frac", "0.2")
    assert line == f"no folder at '{tmp_path}/nowhere': give the folder that holds the data set"


def test_a_folder_of_another_layout(fails: Fails, folder: Path) -> None:
    line = fails(ingest, "sketchy", folder, "--unseen-frac", "0.2")
    assert "layout 'sketchy' expects 256x256/photo/tx_000000000000_ready or" in line


def test_a_class_in_one_domain_only(fails: Fails, folder: Path) -> None:
    shutil.rmtree(folder / "sketch/fish")
    line = fails(ingest, "folder", folder, "--unseen-classes", "cup")
    assert line == "no sketch of class 'fish': add some, remove the class, or pass --skip-incomplete"


def test_an_empty_class(fails: Fails, folder: Path) -> None:
    for file in (folder / "photo/fish").iterdir():
        file.unlink()
    line = fails(ingest, "folder", folder, "--unseen-classes", "cup")
    assert line == "no images in 'photo/fish': fill or remove the folder, or pass --skip-incomplete"


def test_an_unseen_class_that_is_not_there(fails: Fails, folder: Path) -> None:
    assert fails(ingest, "folder", folder, "--unseen-classes", "huose") == "unknown unseen class 'huose'; did you mean 'house'?"


def test_no_unseen_class(fails: Fails, folder: Path) -> None:
    assert "name some with --unseen-classes" in fails(ingest, "folder", folder)


def bomb(side: int = 65535) -> bytes:
    """A PNG whose header promises side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def test_more_bad_images_than_allowed(fails: Fails, folder: Path, tmp_path: Path) -> None:
    good = (folder / "photo/cup/0.jpg").read_bytes()
    bad = {"bomb.png": bomb(), "cut.jpg": good[: len(good) // 2], "svg.png": b"<svg/>", "zero.jpg": b"", "text.jpg": b"words"}
    for name, data in bad.items():
        (folder / "photo/cup" / name).write_bytes(data)
    line = fails(ingest, "folder", folder, "--unseen-classes", "cup", "--max-bad-frac", "0.1")
    listing = tmp_path / "root/datasets/images/quarantine.tsv"
    assert line.startswith("5 of 35 images are bad, more than --max-bad-frac 0.1 allows: photo/cup/bomb.png: ")
    assert line.endswith(f"the whole list is in {listing}")
    assert [row.split("\t")[0] for row in listing.read_text().splitlines()] == [f"photo/cup/{name}" for name in sorted(bad)]


@pytest.mark.parametrize("content", ["dev_frac: [", "- dev_frac", "dev_frac: 3", "dev_fraq: 0.1", "\x00"])
def test_bad_yaml(fails: Fails, tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    line = fails(ingest, "toy", "--config", tmp_path / "bad.yaml")
    assert "dev_frac" in line or str(tmp_path / "bad.yaml") in line


# every verb


@pytest.mark.parametrize(
    ("verb", "words", "near"),
    [
        (ingest, ("toy", "--toy-pix", "3"), "--toy-px"),
        (teacher, ("x", "--back-bone", "resnet18"), "--backbone"),
        (train, ("toy", "--class-per-batch=3"), "--classes-per-batch"),
        (evaluate, ("x", "--protokol", "dev"), "--protocol"),
        (index, ("x", "--galery", "photos"), "--gallery"),
        (search, ("x", "y", "--gird", "found.png"), "--grid"),
    ],
)
def test_an_unknown_option(fails: Fails, verb: ModuleType, words: tuple[str, ...], near: str) -> None:
    assert fails(verb, *words).endswith(f"did you mean '{near}'?")


@pytest.mark.parametrize(("verb", "name"), [(teacher, "dataset"), (evaluate, "RUN"), (index, "run"), (search, "index, drawing")])
def test_nothing_given_at_all(fails: Fails, verb: ModuleType, name: str) -> None:
    assert fails(verb).startswith(f"the following arguments are required: {name}; see python -m zsbir.")


@pytest.mark.parametrize("verb", [teacher, evaluate, index])
def test_an_artifact_that_is_not_there(fails: Fails, verb: ModuleType, tmp_path: Path) -> None:
    assert f"at '{tmp_path}/gone': no such folder" in fails(verb, tmp_path / "gone")


def test_an_artifact_of_another_kind(fails: Fails, run: str, dataset: str, knowledge: str) -> None:
    assert fails(teacher, run) == f"{run} is a run, not a dataset"
    assert fails(train, "toy", "--dataset", run) == f"{run} is a run, not a dataset"
    assert fails(train, "toy", "--dataset", dataset, "--knowledge", dataset) == f"{dataset} is a dataset, not knowledge"
    assert fails(evaluate, dataset) == f"{dataset} is a dataset, not a run"
    assert fails(index, knowledge) == f"{knowledge} is knowledge, not a run"


def test_a_root_that_cannot_be_written(fails: Fails, dataset: str, knowledge: str, weights: str, run: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    below = tmp_path / "file" / "root"
    line = fails(ingest, "toy", "--toy-photos-per-class", "2", "--toy-sketches-per-class", "2", root=below, code=1)
    assert re.fullmatch(rf"cannot write the dataset at {below}/datasets/toy/[0-9a-f]{{16}}: Not a directory", line)
    assert "Not a directory" in fails(teacher, dataset, "--backbone", "resnet18", "--weights", weights, root=below, code=1)
    assert "Not a directory" in fails(train, "toy", "--dataset", dataset, "--knowledge", knowledge, root=below, code=1)
    assert "Not a directory" in fails(index, run, root=below, code=1)
    assert "Not a directory" in fails(evaluate, run, root=below, code=1)


# teacher


@pytest.fixture
def teaches(fails: Fails, dataset: str) -> Fails:
    def fail(file: object, *words: object) -> str:
        return fails(teacher, dataset, "--backbone", "resnet18", "--image-px", "32", "--weights", file, *words)

    return fail


def test_a_wrong_weight_file(teaches: Fails, weights: str, tmp_path: Path) -> None:
    (tmp_path / "words.pth").write_text("no weights")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(print))
    save_file(torchvision.models.resnet34(num_classes=3).state_dict(), tmp_path / "r34.safetensors")
    assert "is not a readable weight file" in teaches(tmp_path / "words.pth")
    assert teaches(tmp_path / "code.pth").endswith("something other than tensors, which is never run")
    assert "does not hold a torchvision resnet18 with its classifier: 'layer1.2" in teaches(tmp_path / "r34.safetensors")
    assert teaches(tmp_path / "gone.pth") == f"no file at '{tmp_path}/gone.pth'"
    assert f"expected {'0' * 64}: a wrong or damaged weight file" in teaches(weights, "--weights-sha256", "0" * 64)


def test_a_shard_that_was_damaged(
    fails: Fails, dataset: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    flip_a_byte(copy / "shards/part-00000.parquet")
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))
    line = fails(teacher, copy, "--backbone", "resnet18", "--weights", weights)
    assert line.endswith("differs from its manifest: the file was changed or damaged; make the artifact again")


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


# train


@pytest.fixture
def trains(fails: Fails, dataset: str, knowledge: str) -> Fails:
    def fail(*words: object, code: int = 2) -> str:
        small = ["--steps", "2", "--image-px", "32", "--classes-per-batch", "4", "--per-class", "2"]
        return fails(train, "toy", "--dataset", dataset, "--knowledge", knowledge, *small, *words, code=code)

    return fail


def test_an_unknown_recipe(fails: Fails) -> None:
    assert fails(train, "sketchy_exd") == "unknown recipe 'sketchy_exd'; did you mean 'sketchy_ext'?"


def test_a_training_without_data_or_knowledge(fails: Fails, dataset: str) -> None:
    assert fails(train, "toy").startswith("no dataset given: pass --dataset URI")
    assert fails(train, "toy", "--dataset", dataset).startswith("no knowledge given: pass --knowledge URI")


def test_knowledge_of_another_data_set(fails: Fails, folder: Path, knowledge: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    other = ingest._parse(["folder", str(folder), "--unseen-classes", "cup", "--dev-frac", "0", "--root", str(root)])
    line = fails(train, "toy", "--dataset", other, "--knowledge", knowledge, "--classes-per-batch", "4")
    assert line.startswith(f"{knowledge} is knowledge of another data set (")
    assert line.endswith(f"run python -m zsbir.teacher {other}")


def test_a_run_is_found_again_by_the_configuration_it_wrote(run: str, dataset: str, knowledge: str, pipeline_root: Path) -> None:
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(pipeline_root), "--no-tracking"]
    assert train._parse(["--config", f"{run}/config.yaml", *inputs]) == run


def test_a_configuration_without_a_recipe_is_read_again(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TrainConfig().model_dump(mode="json")))
    assert fails(train, "--config", tmp_path / "config.yaml").startswith("no dataset given"), "the configuration itself was good"


def test_all_loss_weights_zero(trains: Fails) -> None:
    zero = [word for name in ("quadruplet", "classification", "preservation") for word in (f"--weight-{name}", "0")]
    assert "configuration: all loss weights are 0; give at least one" in trains(*zero)


def test_more_classes_in_a_batch_than_there_are(trains: Fails) -> None:
    line = trains("--classes-per-batch", "50")
    assert re.fullmatch(r"classes_per_batch is 50, the training split has (\d+) classes; choose a number from 2 to \1", line)


def test_a_batch_that_cannot_be_dealt_to_the_workers(dataset: str, weights: str, tmp_path: Path) -> None:
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    inputs = TrainInputs(samples, Images(opened, samples), load_weights(weights, backbone="resnet18", root=tmp_path))
    context = LocalContext()
    context.world_size = 3
    with pytest.raises(InputError, match="a batch of 128 images cannot be dealt to 3 workers; change classes_per_batch"):
        Trainer(TrainConfig(), inputs, context, tmp_path / "run", log=lambda step, metrics: None)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--lr", "0"), "field 'lr': input should be greater than 0, got '0'"),
        (("--lr", "nan"), "finite number"),
        (
            ("--backbone", "resnet19"),
            "field 'backbone': unknown backbone 'resnet19'; did you mean 'resnet18'?; a model of timm is timm:NAME",
        ),
        (("--steps", "-1"), "field 'steps': input should be greater than or equal to 0"),
        (("--backbone", "resnet34", "--weights", "{weights}"), "does not hold a torchvision resnet34"),
    ],
)
def test_a_training_that_cannot_be(trains: Fails, weights: str, words: tuple[str, ...], line: str) -> None:
    assert line in trains(*(word.format(weights=weights) for word in words))


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "a/b", "..\\b", ""])
def test_a_recipe_name_that_leads_out_of_the_root(fails: Fails, tmp_path: Path, name: str) -> None:
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump({"recipe": name}))
    line = fails(train, "--config", tmp_path / "evil.yaml")
    assert line.startswith(f"unknown recipe {name!r}; known: ")
    with pytest.raises(InputError, match="field 'recipe'"):
        TrainConfig.of({"recipe": name})


def test_a_learning_rate_that_blows_up(trains: Fails) -> None:
    line = trains("--lr", "1e30", "--lr-backbone", "1e30", "--steps", "6", "--log-every-steps", "1", code=1)
    assert re.match(r"training has diverged: the loss is (nan|inf) at step \d+; earlier checkpoints are kept", line)
    assert "lower the learning rates" in line


# evaluate, index, search


def test_an_unknown_protocol(fails: Fails, run: str) -> None:
    assert fails(evaluate, run, "--protocol", "zeroshot").endswith("did you mean 'zero_shot'?")


def test_an_encoder_that_was_damaged_after_training(fails: Fails, run: str, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    flip_a_byte(copy / "encoder.safetensors")
    for verb in (evaluate, index):
        assert fails(verb, copy).startswith(f"{copy}/encoder.safetensors differs from its manifest")


def test_a_gallery_without_photos(fails: Fails, run: str, tmp_path: Path) -> None:
    assert "no folder at" in fails(index, run, "--gallery", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no images below" in fails(index, run, "--gallery", tmp_path / "empty")


@pytest.fixture(scope="module")
def made_index(run: str, pipeline_root: Path) -> str:
    return index._parse([run, "--split", "dev", "--root", str(pipeline_root)])


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    file = tmp_path / "drawing.png"
    image = Image.new("RGB", (40, 40), "white")
    image.paste("black", (10, 10, 30, 20))
    image.save(file)
    return file


def test_a_drawing_that_is_none(fails: Fails, made_index: str, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no drawing")
    (tmp_path / "bomb.png").write_bytes(bomb())
    Image.new("RGB", (40, 40), "white").save(tmp_path / "empty.png")
    assert fails(search, made_index, tmp_path / "empty.png") == "the drawing is empty: all of it has one colour"
    assert fails(search, made_index, tmp_path / "gone.png") == f"no drawing at '{tmp_path}/gone.png'"
    for name in ("words.png", "bomb.png", "."):
        assert fails(search, made_index, tmp_path / name).startswith("cannot read the drawing")


def test_a_search_that_cannot_be(fails: Fails, made_index: str, run: str, drawing: Path, tmp_path: Path) -> None:
    assert "no index at" in fails(search, tmp_path / "nowhere", drawing)
    assert fails(search, run, drawing) == f"{run} is a run, not an index"
    assert fails(search, made_index, drawing, "-k", "0") == "k must be at least 1, got 0"
    assert "invalid int value: 'ten'" in fails(search, made_index, drawing, "-k", "ten")
    assert fails(search, made_index, drawing, "--grid", "found.words").endswith("a picture's name ends in .png, .jpg or .webp")
    assert str(tmp_path / "none") in fails(search, made_index, drawing, "--grid", tmp_path / "none/found.png", code=1)


def test_an_index_that_was_damaged(fails: Fails, made_index: str, drawing: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made_index, tmp_path / "copy")
    flip_a_byte(copy / "encoder.safetensors")
    assert "encoder.safetensors differs from its manifest" in fails(search, copy, drawing)


# the same by real processes


def test_the_command_with_an_unknown_recipe() -> None:
    assert command("train", "toi", code=2) == "unknown recipe 'toi'; did you mean 'toy'?"


def test_the_command_with_a_file_of_words_as_the_drawing(made_index: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no drawing")
    assert command("search", made_index, tmp_path / "words.txt", code=2).startswith("cannot read the drawing")


def test_the_command_with_a_run_that_is_not_there(tmp_path: Path) -> None:
    assert command("evaluate", tmp_path / "gone", code=2) == f"no run at '{tmp_path}/gone': no such folder"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 1 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_the_commands_on_a_full_disk(small_disk: Path, dataset: str, weights: str, run: str) -> None:
    line = command("ingest", "toy", "--root", small_disk, code=1)
    assert re.match(rf"cannot write the dataset at {small_disk}/datasets/toy/[0-9a-f]{{16}}: .*No space left on device", line)
    line = command("index", run, "--root", small_disk, code=1)
    assert re.match(rf"cannot write .*{small_disk}/indexes/toy.*No space left on device", line)
    line = command("teacher", dataset, "--backbone", "resnet18", "--weights", weights, "--root", small_disk, code=1)
    assert "No space left on device" in line
    assert not files_below(small_disk)
