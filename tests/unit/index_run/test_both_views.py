"""Indexes of both views: each photo embedded with its mirror image, in all that grows out of such an index, and so its queries."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from index_photos import Photos, Small
from PIL import Image, ImageOps

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import eval_array
from zsbir.data.index_files import IndexFiles
from zsbir.data.segments import is_flipped
from zsbir.index import GrowthConfig, IndexConfig, _parse, add_photos, compact_index, delete_photos, update_index
from zsbir.retrieval.options import SearchOptions
from zsbir.search_run.engine import Engine


@pytest.fixture
def flipped(run, photos, root) -> Artifact:
    """An index of the six photos by both views, in fp32."""
    return photos.index(run, root, flip=True, precision="fp32")


def test_a_photos_vector_is_the_mean_of_its_embedding_and_its_mirror_images(flipped, photos):
    files, network = IndexFiles(flipped, 8), Small()
    for path, vector in zip(files.paths.to_pylist(), files.parts[0], strict=True):
        pixels = eval_array(Image.open(photos.path / path).convert("RGB"), 8)
        views = network(torch.from_numpy(np.stack([pixels, pixels[..., ::-1]])))[0].numpy()
        np.testing.assert_allclose(vector, views.sum(0) / np.linalg.norm(views.sum(0)), atol=1e-6)
        assert np.abs(vector - views[0]).max() > 1e-3


def test_a_drawing_and_its_mirror_image_find_the_same_with_the_same_score(flipped, photos, run, root):
    image = Image.open(photos.path / "b" / "3.png").convert("RGB")
    engine = Engine(flipped.uri)
    views = engine.embed([image, ImageOps.mirror(image)])
    found = [[(hit.path, round(hit.score, 5)) for hit in hits] for hits in engine.find(views, 6)]
    assert found[0] == found[1]
    assert dict(found[0])["b/3.png"] == 1.0
    one_way = Engine(photos.index(run, root, precision="fp32").uri)
    views = one_way.embed([image, ImageOps.mirror(image)])
    assert one_way.find(views[:1], 6) != one_way.find(views[1:], 6)


def test_what_grows_out_of_an_index_has_both_views_and_equals_a_fresh_one(flipped, photos, run, root, contents, tmp_path):
    photos.write("new.png", 6)
    updated = update_index(flipped.uri, "", GrowthConfig(), root)
    assert contents(updated) == contents(photos.index(run, root, flip=True, precision="fp32"))
    Photos(tmp_path / "more").write("c/7.png", 7)
    grown = add_photos(updated.uri, str(tmp_path / "more"), GrowthConfig(), root)
    grown = compact_index(delete_photos(grown.uri, ["a/0.png"], root).uri, root)
    for made in (updated, grown):
        assert is_flipped(made)
    lone = Photos(tmp_path / "more").index(run, root, flip=True, precision="fp32")
    assert contents(grown)["c/7.png"][0] == contents(lone)["c/7.png"][0]


def test_an_index_of_one_view_keeps_its_name_and_one_of_both_has_another(flipped, run, photos, root):
    assert "flip" not in IndexConfig().identity()
    plain = photos.index(run, root, precision="fp32")
    assert plain.digest != flipped.digest
    assert not is_flipped(plain)
    asked = [run.uri, "--gallery", str(photos.path), "--flip", "--precision", "fp32", "--max-bad-frac", "0.5", "--root", root.root]
    assert _parse(asked) == flipped.uri


def test_an_index_that_was_made_before_there_was_a_choice_has_one_view(run, photos, root):
    made = photos.index(run, root, precision="fp32")
    rewritten(made, lambda config: config.pop("flip"))
    assert not is_flipped(Artifact(made.uri, "index"))
    photos.write("new.png", 6)
    assert not is_flipped(update_index(made.uri, "", GrowthConfig(), root))


def test_an_index_that_says_neither_is_refused(flipped):
    rewritten(flipped, lambda config: config.update(flip="perhaps"))
    with pytest.raises(InputError, match="flip is 'perhaps'"):
        Engine(flipped.uri)


def test_options_for_other_views_than_the_indexs_are_refused(flipped, run, photos, root):
    with pytest.raises(InputError, match="pass --flip"):
        Engine(flipped.uri, wanted=SearchOptions(flip=False))
    with pytest.raises(InputError, match="pass --no-flip"):
        Engine(photos.index(run, root).uri, wanted=SearchOptions(flip=True))


def rewritten(index: Artifact, change) -> None:
    """Change the configuration that an index's manifest states."""
    file = index.path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest["config"])
    file.write_text(json.dumps(manifest))
