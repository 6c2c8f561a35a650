"""When two galleries are the same, and what follows for the photos that a promotion keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_photos import DIMENSIONS, Photos, small_of, small_run

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.data.index_files import IndexFiles
from zsbir.data.originals import DATASET, FOLDER, Source
from zsbir.edge.releases import Release
from zsbir.index import GrowthConfig, IndexConfig, Settings, add_photos, build_index, delete_photos
from zsbir.index_run import embedding
from zsbir.index_run.growing import open_base
from zsbir.promotion.address import files_digest
from zsbir.promotion_run.config import PromotionRequest
from zsbir.promotion_run.galleries import GalleryOf, champion_stays, check_places, galleries_to_keep, no_longer_shown

GROWTH = GrowthConfig()


def folder(uri: str) -> GalleryOf:
    return GalleryOf(Source(FOLDER, uri, "d"), "unseen")


def dataset_of(uri: str, split: str = "unseen") -> GalleryOf:
    return GalleryOf(Source(DATASET, uri, "d"), split)


@pytest.mark.parametrize(
    ("new", "old", "covers"),
    [
        (folder("/photos"), folder("/photos/"), True),
        (folder("s3://b/photos"), folder("s3://b/photos"), True),
        (folder("/photos/more"), folder("/photos"), False),
        (folder("/photos"), folder("/photos/more"), False),
        (folder("/r/datasets/birds/01"), dataset_of("/r/datasets/birds/01"), False),
        (dataset_of("/r/datasets/birds/01"), folder("/r/datasets/birds/01"), False),
        (dataset_of("s3://other/datasets/birds/02"), dataset_of("/r/datasets/birds/01"), True),
        (dataset_of("/r/datasets/birds/01"), dataset_of("/r/datasets/bees/01"), False),
        (dataset_of("/r/datasets/birds/01", "all"), dataset_of("/r/datasets/birds/01", "dev"), True),
        (dataset_of("/r/datasets/birds/01", "unseen"), dataset_of("/r/datasets/birds/01", "all"), False),
    ],
)
def test_a_folder_is_the_same_by_address_and_a_data_set_by_name_if_its_split_holds_as_much(new, old, covers):
    assert new.covers(old) is covers


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch):
    monkeypatch.setattr(embedding.Encoder, "load", small_of)


@pytest.fixture
def root(tmp_path):
    return Settings(root=str(tmp_path / "root"))


@pytest.fixture
def runs(tmp_path, dataset, root):
    """The champion's run and the candidate's, both of the drawn data set."""
    return [small_run(tmp_path, root.root, seed, dataset=Artifact(dataset, "dataset")) for seed in (0, 1)]


@pytest.fixture
def team(tmp_path):
    """A team's own photos."""
    photos = Photos(tmp_path / "team")
    for number in range(3):
        photos.write(f"t/{number}.png", number)
    return photos


def champion_of(index: Artifact) -> Release:
    run = index.manifest.inputs["run"]
    tags = {
        "index": index.uri, "index_digest": index.digest, "index_files": files_digest(index), "run_digest": run["digest"],
    }  # fmt: skip
    return Release("zsbir", "1", ("champion",), tags, "")


def kept(index, candidate, root, **more):
    return galleries_to_keep(champion_of(index), candidate, root.root, **more)


def living(index: Artifact) -> dict[str, bytes]:
    files = IndexFiles(index, DIMENSIONS)
    vectors, rows = files.living()
    return {files.paths[row].as_py(): vector.tobytes() for vector, row in zip(vectors, rows.tolist(), strict=True)}


def test_where_the_new_index_has_all_galleries_nothing_is_kept(runs, team, root, dataset):
    (old, new) = (build_index(run.uri, IndexConfig(), root) for run in runs)
    assert kept(old, new, root) is None
    grown = add_photos(new.uri, str(team.path), GROWTH, root)
    assert kept(old, grown, root) is None
    assert kept(team.index(runs[0], root), grown, root) is None
    hand = Release("zsbir", "2", (), {}, "")
    assert galleries_to_keep(hand, new, root.root) is None, "a champion set by hand shows nothing that is known"


def test_a_team_s_folder_is_kept_beside_the_data_set_in_the_new_index(runs, team, root):
    (old, new) = (build_index(run.uri, IndexConfig(), root) for run in runs)
    old = delete_photos(add_photos(old.uri, str(team.path), GROWTH, root).uri, ["t/0.png"], root)
    plan = kept(old, new, root)
    assert f"models:/zsbir/1 shows 2 photos of {team.path}, which {new.uri} lacks" in plan.sentence()
    made = plan.embedded(runs[1], root)
    expected = {path: vector for path, vector in living(team.index(runs[1], root)).items() if path != "t/0.png"}
    assert living(made) == {**living(new), **expected}
    assert kept(made, new, root).photos == 2, "and at the next promotion as well"
    assert kept(old, made, root) is None


def test_photos_of_a_data_set_appear_only_where_the_champion_shows_some_of_it(runs, team, root):
    old, new = team.index(runs[0], root), build_index(runs[1].uri, IndexConfig(), root)
    assert living(kept(old, new, root).embedded(runs[1], root)) == living(team.index(runs[1], root))


def test_folders_of_the_new_index_are_searched_too(runs, team, root, tmp_path):
    more = Photos(tmp_path / "more")
    more.write("m/0.png", 4)
    old, new = team.index(runs[0], root), more.index(runs[1], root)
    made = kept(old, new, root).embedded(runs[1], root)
    assert living(made) == {**living(new), **living(team.index(runs[1], root))}


def test_all_photos_of_a_data_set_stay_where_the_new_index_has_the_unseen_ones_alone(runs, root):
    everything = build_index(runs[0].uri, IndexConfig(split="all"), root)
    new = build_index(runs[1].uri, IndexConfig(), root)
    plan = kept(everything, new, root)
    assert "photos of data set toy, which" in plan.sentence()
    made = plan.embedded(runs[1], root)
    assert living(made) == living(build_index(runs[1].uri, IndexConfig(split="all"), root))
    assert kept(made, new, root), "it says itself that it has all"


def test_views_and_precision_are_those_of_the_new_index(runs, team, root):
    old, new = team.index(runs[0], root), build_index(runs[1].uri, IndexConfig(flip=True), root)
    made = kept(old, new, root).embedded(runs[1], root)
    assert made.manifest.config["flip"] is True
    assert living(made) == living(team.index(runs[1], root, flip=True))


def test_where_the_champion_s_index_has_a_graph_the_new_one_gets_one(runs, team, root):
    old, new = team.index(runs[0], root, graph=True), build_index(runs[1].uri, IndexConfig(), root)
    assert "graph.safetensors" in kept(old, new, root).embedded(runs[1], root).manifest.files


def test_an_index_or_a_gallery_that_is_gone_is_an_error_with_the_way_out(runs, team, root, tmp_path):
    old, new = team.index(runs[0], root), build_index(runs[1].uri, IndexConfig(), root)
    champion = champion_of(old)
    team.path.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"^no folder at .*: 3 photos of .* come from there; .*\. The champion stays .*--gallery"):
        kept(old, new, root).embedded(runs[1], root)
    old.path.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"^the index of models:/zsbir/1 is gone .*\. The champion stays .*--gallery index"):
        galleries_to_keep(champion, new, root.root)


def test_for_somebody_else_only_galleries_in_the_allowed_places_are_read(runs, team, root, tmp_path, dataset):
    """As in a job: what the champion's index names is a stranger's text."""
    (old, new) = (build_index(run.uri, IndexConfig(), root) for run in runs)
    old = add_photos(old.uri, str(team.path), GROWTH, root)
    data = str(Path(dataset).parents[2])
    for places, outside in (
        ((root.root,), rf"a gallery of .*'{team.path}' is outside of what this service reads"),
        ((str(team.path),), r"the index of models:/zsbir/1: .* is outside of what this service reads"),
        ((root.root, data, str(team.path)), ""),
    ):
        permitted = PromotionRequest("r", "i", places=places).permitted(root.root)
        if outside:
            with pytest.raises(InputError, match=rf"{outside}.*\. The champion stays as it is"):
                kept(old, new, root, permitted=permitted)
        else:
            assert kept(old, new, root, permitted=permitted).photos == 3
    inside = PromotionRequest("r", "i", places=(root.root, str(team.path))).permitted(root.root)
    assert kept(old, new, root, permitted=inside).photos == 3, "the data set is taken from the new index"
    with pytest.raises(InputError, match=r"a gallery of .*/toy/.* is outside of what this service reads"):
        check_places(open_base(new), inside)
    assert PromotionRequest("r", "i").permitted(root.root) is None


def test_an_error_keeps_its_kind_so_that_a_job_knows_whether_to_try_again():
    class Silent(RunError):
        pass

    with pytest.raises(Silent, match=r"^no answer\. The champion stays as it is"), champion_stays():
        raise Silent("no answer")


def test_what_an_index_lacks_is_named_where_the_champion_is_given_another_one(runs, team, root):
    old, new = team.index(runs[0], root), build_index(runs[0].uri, IndexConfig(), root)
    assert no_longer_shown(champion_of(old), new, root.root) == str(team.path)
    assert no_longer_shown(champion_of(old), delete_photos(old.uri, ["t/0.png"], root), root.root) == ""
    assert no_longer_shown(Release("zsbir", "2", (), {}, ""), new, root.root) == ""
