"""A team's folder in the champion's index, and a promotion of another model: by the real verbs and a real MLflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from promotable import SPREAD, Made

from zsbir import index, promote, search
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.data.index_files import IndexFiles
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.promotion_run import promoting

pytestmark = pytest.mark.slow

MODEL, CHAMPION = "zsbir", "models:/zsbir@champion"
SKETCH = str(Path(__file__).parents[2] / "docs/pictures/sketch.png")
DELETED, KNOWN = "team/2.jpg", "team/5.jpg"


@dataclass(frozen=True)
class Team:
    """A registry whose champion shows the unseen photos of its data set and a folder, and what is in the folder."""

    root: Path
    folder: Path
    index: str


@pytest.fixture(scope="module")
def prepared(module_path: Path, fair: Made, dataset: str, mlflow_database_file: Path) -> Team:
    """The champion `fair`, whose index has grown by twelve photos of a folder with a price each, and lost one of them."""
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    images, folder = Images(opened, samples), module_path / "photos"
    (folder / "team").mkdir(parents=True)
    for number, position in enumerate(samples.select(split="train", domain="photo")[:12]):
        (folder / "team" / f"{number}.jpg").write_bytes(images.read(int(position)))
    (module_path / "prices.csv").write_text("path,price\n" + "".join(f"team/{number}.jpg,{number}\n" for number in range(12)))
    root = module_path / "root"
    root.mkdir()
    shutil.copy(mlflow_database_file, root / "mlflow.db")
    words = ["--metadata", str(module_path / "prices.csv"), "--root", str(root)]
    grown = index._parse(["add", fair.index, str(folder), *words])
    grown = index._parse(["delete", grown, "--path", DELETED])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert promote._parse([fair.report, "--index", grown, *SPREAD, "--root", str(root)]) == f"models:/{MODEL}/1"
    return Team(root, folder, grown)


@pytest.fixture
def team(prepared: Team, tmp_path: Path) -> Team:
    """A registry and a root of its own; the files that they name are shared."""
    shutil.copy(prepared.root / "mlflow.db", tmp_path / "mlflow.db")
    return Team(tmp_path, prepared.folder, prepared.index)


def words(made: Made, team: Team, *more: str) -> list[str]:
    return [made.report, "--index", made.index, *SPREAD, "--root", str(team.root), *more]


def client(team: Team) -> MlflowClient:
    return MlflowClient(f"sqlite:///{team.root / 'mlflow.db'}", f"sqlite:///{team.root / 'mlflow.db'}")


def champion(team: Team) -> tuple[str, dict[str, str]]:
    version = client(team).get_model_version_by_alias(MODEL, "champion")
    return str(version.version), {name.removeprefix("zsbir."): value for name, value in version.tags.items()}


def photos(uri: str) -> dict[str, tuple[bytes, dict[str, object]]]:
    """Vector and metadata of each photo that is not deleted, by path."""
    opened = Artifact(uri, "index")
    files = IndexFiles(opened, opened.manifest.counts["dimensions"])
    vectors, rows = files.living()
    return {
        files.paths[row].as_py(): (vector.tobytes(), {name: column[row].as_py() for name, column in files.columns.items()})
        for vector, row in zip(vectors, rows.tolist(), strict=True)
    }


def indexes(team: Team) -> list[Path]:
    return [file.parent for file in team.root.glob("indexes/*/*/manifest.json")]


def test_all_photos_that_the_champion_shows_are_searched_with_the_new_model_too(team, good, capsys):
    assert promote._parse(words(good, team)) == f"models:/{MODEL}/2"
    told = capsys.readouterr().err
    assert f"models:/{MODEL}/1 shows 11 photos of {team.folder}, which {good.index} lacks" in told
    version, tags = champion(team)
    assert version == "2"
    served, before, given = photos(tags["index"]), photos(team.index), photos(good.index)
    assert set(served) == set(before)
    assert DELETED not in served
    assert served[KNOWN][1] == before[KNOWN][1] == {"price": 5}
    assert all(served[path][0] == vector for path, (vector, _) in given.items()), "what was embedded already is copied"
    fresh = photos(index._parse([good.run, "--gallery", str(team.folder), "--precision", "fp32", "--root", str(team.root)]))
    assert all(served[path][0] == fresh[path][0] for path in served.keys() - given.keys())
    assert tags["given_index_digest"] == Artifact(good.index).digest
    assert json.loads(tags["recall"])["photos"] == len(served), "it is the served index that was checked"
    found = search._parse([CHAMPION, SKETCH, "-k", "5", "--where", "price>3", "--root", str(team.root)])
    assert found.count("team/") == 5

    assert promote._parse(words(good, team)) == f"models:/{MODEL}/2"
    assert "is champion already, with this index: nothing was changed" in capsys.readouterr().err
    assert champion(team)[1]["index"] == tags["index"], "the same command again takes nothing away"
    assert promote._parse(["rollback", "--reason", "x", "--root", str(team.root)]) == f"models:/{MODEL}/1"
    assert champion(team)[1]["index"] == team.index


def test_nothing_is_embedded_for_a_model_that_is_not_promoted_nor_in_a_dry_run(team, good, bad, capsys):
    assert promote._parse(words(good, team, "--dry-run")).startswith("would be promoted (passed): ")
    assert f"shows 11 photos of {team.folder}" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"^refused: "):
        promote._parse(words(bad, team))
    with pytest.raises(RunError, match=r"^undecided: "):
        promote._parse([good.report, "--index", good.index, "--root", str(team.root)])
    assert f"shows 11 photos of {team.folder}" not in capsys.readouterr().err
    assert not indexes(team)
    assert champion(team)[0] == "1"


def test_only_the_photos_of_the_index_are_searched_if_that_is_asked_for(team, good):
    assert promote._parse(words(good, team, "--gallery", "index")) == f"models:/{MODEL}/2"
    assert champion(team)[1]["index"] == good.index
    assert not indexes(team)


def test_a_folder_that_is_not_there_stops_the_promotion_and_the_way_out_works(team, good, tmp_path):
    away = team.folder.rename(tmp_path / "away")
    try:
        with pytest.raises(InputError, match=r"^no folder at .*11 photos of .*\. The champion stays as it is.*--gallery index"):
            promote._parse(words(good, team))
        assert champion(team)[0] == "1"
        assert len(client(team).search_model_versions(f"name = '{MODEL}'")) == 1, "nothing is recorded"
        assert promote._parse(words(good, team, "--gallery", "index")) == f"models:/{MODEL}/2"
    finally:
        away.rename(team.folder)


KILLED = """
import os, signal, sys
from zsbir import promote
from zsbir.index_run import embedding
real = embedding.Embedder.embed
def dying(self, chunks):
    for part in real(self, chunks):
        yield part
        os.kill(os.getpid(), signal.SIGKILL)
embedding.Embedder.embed = dying
promote._parse(sys.argv[1:])
"""


def test_a_promotion_killed_while_it_embeds_leaves_the_champion_and_can_be_given_again(team, good):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, *words(good, team)], env=environment, check=False, timeout=180)
    assert done.returncode == -signal.SIGKILL
    version, tags = champion(team)
    assert (version, tags["index"]) == ("1", team.index)
    assert not indexes(team)
    assert search._parse([CHAMPION, SKETCH, "-k", "3", "--root", str(team.root)])
    assert promote._parse(words(good, team)) == f"models:/{MODEL}/2"
    assert set(photos(champion(team)[1]["index"])) == set(photos(team.index))


def test_photos_that_the_champion_was_given_meanwhile_are_not_lost(team, good, fair, monkeypatch, tmp_path):
    more = shutil.copytree(team.folder, tmp_path / "more")
    tried = promoting.check_index

    def meanwhile(*asked):
        monkeypatch.setattr(promoting, "check_index", tried)
        newer = index._parse(["add", team.index, str(more), "--root", str(team.root)])
        promote._parse([fair.report, "--index", newer, "--root", str(team.root)])
        return tried(*asked)

    monkeypatch.setattr(promoting, "check_index", meanwhile)
    with pytest.raises(RunError, match=r"models:/zsbir/1 was given another index meanwhile, and nothing was changed"):
        promote._parse(words(good, team))
    assert champion(team)[0] == "1"
    promote._parse(words(good, team))
    assert Artifact(champion(team)[1]["index"]).manifest.counts["photos"] == len(photos(team.index)) + 12
