import numpy as np
import pytest
from PIL import Image

from zsbir.base.config import digest_of
from zsbir.base.errors import InputError
from zsbir.data.gallery import Unreadable, folder_gallery, read_item
from zsbir.data.images import encode_photo
from zsbir.data.passed_over import PassedOver

PATHS = ["b.jpg", "a-b/c.jpg", "a/d.PNG", "a/e.jfif", "f/g.webp", "a.jpg"]
LITTER = ["__MACOSX/a/._d.png", "._b.jpg", ".ipynb_checkpoints/b-checkpoint.jpg", "a/@eaDir/d.PNG/SYNOFILE_THUMB_M.jpg", ".h/i.jpg"]


def photo(seed):
    return encode_photo(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)))


@pytest.fixture
def photos(tmp_path):
    """A folder of photos, with what systems put beside them, and other files."""
    for seed, path in enumerate([*PATHS, *LITTER, "notes.txt", "a/list.csv"]):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(photo(seed))
    return tmp_path


def upload(bucket, root):
    for path in root.rglob("*"):
        if path.is_file():
            bucket.put(path.relative_to(root).as_posix(), path.read_bytes())


def items(gallery):
    return [read_item(gallery.source, path, -1, 32) for path, _ in gallery.entries]


def test_every_image_below_a_folder_is_in_the_order_of_paths(photos):
    gallery = folder_gallery(photos)
    in_order = sorted(photos / path for path in PATHS)
    assert gallery.entries == [(path.relative_to(photos).as_posix(), "") for path in in_order]
    assert gallery.source.read(gallery.entries[0][0], -1) == in_order[0].read_bytes()


def test_stamps_of_a_folder_are_what_the_digest_of_an_index_was_always_made_of(photos):
    stats = [(path, (photos / path).stat()) for path, _ in folder_gallery(photos).entries]
    before = digest_of([(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats])
    assert digest_of(folder_gallery(photos).stamps) == before


def test_in_object_storage_it_is_the_same_gallery(photos, bucket):
    upload(bucket, photos)
    here = folder_gallery(photos)
    with bucket.requests() as requests:
        there = folder_gallery(bucket.uri)
    assert requests == ["HeadBucket", "ListObjectsV2"] or requests == ["ListObjectsV2"]
    assert there.entries == here.entries
    assert [(path, size) for path, size, _ in there.stamps] == [(path, size) for path, size, _ in here.stamps]
    assert there.stamps == folder_gallery(bucket.uri).stamps
    for one, other in zip(items(there), items(here), strict=True):
        assert (one.path, one.thumbnail) == (other.path, other.thumbnail)
        assert np.array_equal(one.pixels, other.pixels)


def test_a_photo_that_vanished_or_is_damaged_is_named_in_its_place(photos, bucket):
    (photos / "a.jpg").write_bytes(b"words")
    upload(bucket, photos)
    for uri in (photos, bucket.uri):
        gallery = folder_gallery(uri)
        gallery.source.folder.delete(["b.jpg"])
        bad = [item for item in items(gallery) if isinstance(item, Unreadable)]
        assert [item.path for item in bad] == ["a.jpg", "b.jpg"]
        assert bad[0].reason.startswith("no readable image header")


def test_links_out_of_the_folder_are_left_out_and_others_are_not(photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "x.jpg").write_bytes(photo(9))
    (photos / "x.jpg").symlink_to(elsewhere / "x.jpg")
    (photos / "y").symlink_to(elsewhere)
    (photos / "z.jpg").symlink_to(photos / "z.jpg")
    (photos / "inside.jpg").symlink_to(photos / "b.jpg")
    passed = PassedOver()
    assert {path for path, _ in folder_gallery(photos, passed).entries} == {*PATHS, "inside.jpg"}
    assert {row["path"]: row["reason"] for row in passed.rows() if "link" in row["reason"]} == {
        "x.jpg": "a link that leads out of the folder",
        "y/": "a link that leads out of the folder",
        "z.jpg": "a link to nothing",
    }


def test_what_systems_put_beside_photos_is_passed_over_and_named(photos, bucket):
    upload(bucket, photos)
    for uri in (photos, bucket.uri):
        passed = PassedOver()
        assert len(folder_gallery(uri, passed).entries) == len(PATHS)
        assert {row["path"]: row["reason"] for row in passed.rows()} == {
            "__MACOSX/": "made by macOS",
            "._b.jpg": "made by macOS",
            ".ipynb_checkpoints/": "made by Jupyter",
            "a/@eaDir/": "made by a network drive",
            ".h/": "hidden: the name begins with a dot",
            "notes.txt": "not an image by its name",
            "a/list.csv": "not an image by its name",
        }


def test_no_folder_and_no_images_are_input_errors(tmp_path, bucket):
    with pytest.raises(InputError, match=f"no folder at '{tmp_path}/nowhere'"):
        folder_gallery(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"no folder at '{bucket.uri}'"):
        folder_gallery(bucket.uri)
    (tmp_path / "notes.txt").write_text("words")
    upload(bucket, tmp_path)
    for uri in (tmp_path, bucket.uri):
        with pytest.raises(InputError, match=rf"no images below '{uri}' \(\.bmp, "):
            folder_gallery(uri)
