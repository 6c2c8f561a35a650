import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest

from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder
from zsbir.data.gallery import folder_gallery
from zsbir.data.layouts import Source, scan
from zsbir.data.passed_over import PassedOver
from zsbir.data.trees import ListedTree, open_tree


def tree(root: Path, *paths: str) -> Path:
    """Files at `paths`; the scan opens none of them, so what they hold does not matter."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"image")
    return root


def listed(root):
    """The tree as it is seen in object storage: all from one listing."""
    return ListedTree(open_folder(root))


either = pytest.mark.parametrize("opened", [open_tree, listed])


def scanned(layout, root, **options):
    """The sources of a folder, which are the same however its tree is looked at."""
    sources = scan(layout, open_tree(root), **options)
    assert scan(layout, listed(root), **options) == sources
    return sources


def found(root, layout="folder", **options):
    return [(source.domain, source.class_name, source.path) for source in scanned(layout, root, **options)]


@pytest.mark.parametrize(("photo", "sketch"), [("photo", "sketch"), ("photos", "sketches"), ("images", "sketches")])
def test_a_plain_folder_is_read_in_the_same_order_whatever_order_the_disk_lists(tmp_path, photo, sketch):
    tree(tmp_path, f"{sketch}/cat/2.png", f"{photo}/dog/b.JPEG", f"{photo}/cat/z.jpg", f"{sketch}/dog/1.webp", f"{photo}/dog/a.gif")
    assert found(tmp_path) == [
        ("photo", "cat", f"{photo}/cat/z.jpg"),
        ("sketch", "cat", f"{sketch}/cat/2.png"),
        ("photo", "dog", f"{photo}/dog/a.gif"),
        ("photo", "dog", f"{photo}/dog/b.JPEG"),
        ("sketch", "dog", f"{sketch}/dog/1.webp"),
    ]


def test_hidden_files_and_files_that_are_no_images_are_ignored(tmp_path):
    tree(
        tmp_path,
        "photo/cat/a.jpg",
        "photo/cat/.a.jpg",
        "photo/cat/notes.txt",
        "photo/.trash/x.jpg",
        "photo/README.md",
        "sketch/cat/a.png",
    )
    (tmp_path / "photo/cat/folder.jpg").mkdir()
    assert [path for _, _, path in found(tmp_path)] == ["photo/cat/a.jpg", "sketch/cat/a.png"]


def test_reading_a_source_gives_the_bytes_of_its_file(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "sketch/cat/a.png")
    source = scanned("folder", tmp_path)[0]
    stat = (tmp_path / source.path).stat()
    assert source.read(open_folder(tmp_path)) == b"image"
    assert source.stamp(open_tree(tmp_path)) == (5, stat.st_mtime_ns)
    (tmp_path / source.path).unlink()
    assert source.stamp(open_tree(tmp_path)) == (0, 0)


def test_a_million_sources_fit_in_memory_and_travel():
    source = Source("photo/cat/a.jpg", "photo", "cat")
    assert not hasattr(source, "__dict__")
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.parametrize("target", ["file", "folder"])
def test_a_link_out_of_the_root_is_refused(tmp_path, target):
    root = tree(tmp_path / "data", "photo/cat/a.jpg", "sketch/cat/a.png")
    tree(tmp_path, "secret/b.jpg")
    (root / "photo/cat/b.jpg" if target == "file" else root / "photo/dog").symlink_to(
        tmp_path / ("secret/b.jpg" if target == "file" else "secret")
    )
    with pytest.raises(InputError, match="link that leads out"):
        scan("folder", open_tree(root))


def test_links_that_nothing_asks_for_may_lead_anywhere(tmp_path):
    root = tree(tmp_path / "data", "photo/cat/a.jpg", "sketch/cat/a.png")
    for link in ("elsewhere", "photo/cat/notes.txt", "zeroshot.ndjson"):
        (root / link).symlink_to(tmp_path)
    assert len(found(root)) == 2


def passed_over(root, layout="folder", **options):
    """What a scan passes over, by path, which is the same however its tree is looked at."""
    here, there = PassedOver(), PassedOver()
    scan(layout, open_tree(root), here, **options)
    scan(layout, listed(root), there, **options)
    assert list(here.rows()) == list(there.rows())
    return {row["path"]: row["reason"] for row in here.rows()}


def test_links_in_a_circle_and_to_nothing_are_passed_over_and_named(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "sketch/cat/a.png")
    (tmp_path / "photo/cat/b.jpg").symlink_to(tmp_path / "photo/cat/b.jpg")
    (tmp_path / "photo/cat/c.jpg").symlink_to(tmp_path / "gone.jpg")
    passed = PassedOver()
    assert len(scan("folder", open_tree(tmp_path), passed)) == 2
    assert [(row["path"], row["reason"]) for row in passed.rows()] == [
        ("photo/cat/b.jpg", "a link to nothing"),
        ("photo/cat/c.jpg", "a link to nothing"),
    ]


def test_a_name_with_a_backslash_is_passed_over_and_named(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "photo/cat/a\\b.jpg", "sketch/cat/a.png", "sketch/c\\at/a.png")
    passed = PassedOver()
    assert [source.path for source in scan("folder", open_tree(tmp_path), passed)] == ["photo/cat/a.jpg", "sketch/cat/a.png"]
    assert {row["path"]: row["reason"] for row in passed.rows()} == {
        "photo/cat/a\\b.jpg": "a backslash in the name: rename it",
        "sketch/c\\at/": "a backslash in the name: rename it",
    }


def test_a_link_that_stays_in_the_root_is_followed(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "sketch/cat/a.png")
    (tmp_path / "photo/cat/b.jpg").symlink_to(tmp_path / "photo/cat/a.jpg")
    assert ("photo", "cat", "photo/cat/b.jpg") in found(tmp_path)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["sketch/cat/a.png"], "no photo folder"),
        (["photo/cat/a.jpg"], "no sketch folder"),
        (["photo/cat/a.jpg", "photo/dog/a.jpg", "sketch/cat/a.png"], "no sketch of class 'dog'.*--skip-incomplete"),
        (["photo/cat/a.jpg", "sketch/cat/a.png", "sketch/dog/a.png"], "no photo of class 'dog'"),
        (["photo/cat/a.jpg", "sketch/cat/a.png", "photo/dog/a.txt"], "no images in 'photo/dog'"),
        (["photo/a.jpg", "sketch/a.png"], "no class with both"),
    ],
)
@either
def test_what_is_missing_is_said_with_the_way_out(tmp_path, opened, paths, message):
    with pytest.raises(InputError, match=message):
        scan("folder", opened(tree(tmp_path, *paths)))


@either
def test_a_missing_root_and_an_unknown_layout_are_input_errors(tmp_path, opened):
    with pytest.raises(InputError, match=f"no folder at '{tmp_path}/nowhere': give the folder that holds the data set"):
        scan("folder", opened(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="did you mean 'sketchy'"):
        scan("sketchi", opened(tmp_path))


def test_incomplete_classes_can_be_skipped(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "sketch/cat/a.png", "photo/dog/a.jpg", "sketch/owl/a.txt")
    assert {name for _, name, _ in found(tmp_path, skip_incomplete=True)} == {"cat"}


@pytest.mark.parametrize("ready", ["", "_ready"])
def test_sketchy_is_read_as_published_and_without_its_repeated_originals(tmp_path, ready):
    originals, extended = f"256x256/photo/tx_000000000000{ready}/cat", f"EXTEND_image_sketchy{ready}/cat"
    tree(
        tmp_path,
        f"256x256/sketch/tx_000000000000{ready}/cat/n01-1.png",
        f"{originals}/n01.jpg",
        f"{extended}/n01.jpg",
        f"{extended}/ext_1.jpg",
        "256x256/photo/tx_000100000000/cat/n01.jpg",
    )
    published = [path for domain, _, path in found(tmp_path, "sketchy") if domain == "photo"]
    assert published == [f"{originals}/n01.jpg", f"{extended}/ext_1.jpg", f"{extended}/n01.jpg"]
    distinct = [path for domain, _, path in found(tmp_path, "sketchy", dedup=True) if domain == "photo"]
    assert distinct == [f"{originals}/n01.jpg", f"{extended}/ext_1.jpg"]


@pytest.mark.parametrize("ready", ["", "_ready"])
def test_tu_berlin_class_names_may_hold_blanks(tmp_path, ready):
    tree(tmp_path, f"png{ready}/alarm clock/1.png", f"ImageResized{ready}/alarm clock/n_1.JPEG")
    assert found(tmp_path, "tuberlin") == [
        ("photo", "alarm clock", f"ImageResized{ready}/alarm clock/n_1.JPEG"),
        ("sketch", "alarm clock", f"png{ready}/alarm clock/1.png"),
    ]


@pytest.mark.parametrize(("photo", "sketch"), [("images", "sketches"), ("QuickDraw_images_final", "QuickDraw_sketches_final")])
def test_quickdraw_is_read_from_image_folders(tmp_path, photo, sketch):
    tree(tmp_path, f"{photo}/cat/a.jpg", f"{sketch}/cat/1.png")
    assert [path for _, _, path in found(tmp_path, "quickdraw")] == [f"{photo}/cat/a.jpg", f"{sketch}/cat/1.png"]


def test_quickdraw_strokes_join_the_photos_under_the_photos_spelling(tmp_path):
    tree(tmp_path, "images/alarm_clock/a.jpg")
    record = json.dumps({"word": "alarm clock", "recognized": True, "drawing": [[[0, 9], [0, 9]]]})
    (tmp_path / "full_simplified_alarm clock.ndjson").write_text(f"{record}\n" * 5)
    sources = scanned("quickdraw", tmp_path, drawings_per_class=3)
    assert [source.path for source in sources[1:]] == [f"full_simplified_alarm clock.ndjson#{number}" for number in range(3)]
    assert {source.class_name for source in sources} == {"alarm_clock"}
    assert sources[2].read(open_folder(tmp_path)).startswith(b"\x89PNG")
    assert sources[2].stamp(open_tree(tmp_path))[0] == 5 * (len(record) + 1)


def test_strokes_lie_in_the_root_in_a_folder_of_their_own_or_beside_the_sketches(tmp_path):
    names = ["cat.ndjson", "ndjson/dog.ndjson", "sketches/owl.ndjson"]
    tree(tmp_path, *(f"images/{name}/a.jpg" for name in ("cat", "dog", "owl")), *names, "sketches/cat/1.png", ".hidden.ndjson")
    for name in names:
        (tmp_path / name).write_text(json.dumps({"drawing": [[[0, 9], [0, 9]]]}) + "\n")
    drawn = [path for domain, _, path in found(tmp_path, "quickdraw") if domain == "sketch"]
    assert drawn == ["cat.ndjson#0", "sketches/cat/1.png", "ndjson/dog.ndjson#0", "sketches/owl.ndjson#0"]


def test_a_link_to_strokes_elsewhere_is_refused(tmp_path):
    root = tree(tmp_path / "data", "images/cat/a.jpg")
    (tmp_path / "secret.ndjson").write_text("{}")
    (root / "cat.ndjson").symlink_to(tmp_path / "secret.ndjson")
    with pytest.raises(InputError, match="link that leads out"):
        scan("quickdraw", open_tree(root))


LISTS = {
    "cname_cid.txt": "alarm clock 0\ndog 1\n",
    "cname_cid_zero.txt": "cat 0\n",
    "all_photo_filelist_train.txt": "photos/alarm clock/a 1.jpg 0\nphotos/dog/b.jpg 1\n",
    "all_photo_filelist_zero.txt": "photos/cat/c.jpg 0\n",
    "sketch_tx_000000000000_ready_filelist_train.txt": "drawn/alarm clock/1.png 0\ndrawn/dog/1.png 1\n",
    "sketch_tx_000000000000_ready_filelist_test.txt": "drawn/dog/2.png 1\n",
    "sketch_tx_000000000000_ready_filelist_zero.txt": "drawn/cat/1.png 0\n",
}


def with_lists(root, folder="zeroshot1", **changes):
    (root / folder).mkdir(parents=True)
    for name, text in {**LISTS, **changes}.items():
        (root / folder / name).write_text(text)
    return root


def test_file_lists_number_their_unseen_classes_anew_and_their_paths_hold_blanks(tmp_path):
    sources = scanned("lists", with_lists(tmp_path))
    assert [(s.domain, s.class_name, s.split_hint, s.path) for s in sources] == [
        ("photo", "alarm clock", "seen", "photos/alarm clock/a 1.jpg"),
        ("sketch", "alarm clock", "seen", "drawn/alarm clock/1.png"),
        ("photo", "cat", "unseen", "photos/cat/c.jpg"),
        ("sketch", "cat", "unseen", "drawn/cat/1.png"),
        ("photo", "dog", "seen", "photos/dog/b.jpg"),
        ("sketch", "dog", "seen", "drawn/dog/1.png"),
    ]


def test_held_out_sketches_of_seen_classes_join_only_when_asked(tmp_path):
    assert "drawn/dog/2.png" in [path for _, _, path in found(with_lists(tmp_path), "lists", held_out_seen=True)]


def test_without_class_names_the_folder_of_an_image_is_its_class(tmp_path):
    with_lists(tmp_path)
    for name in ("cname_cid.txt", "cname_cid_zero.txt"):
        (tmp_path / "zeroshot1" / name).unlink()
    assert {name for _, name, _ in found(tmp_path, "lists")} == {"alarm clock", "cat", "dog"}


def test_the_other_communities_list_names_are_understood(tmp_path):
    names = {
        "ImageResized_ready_filelist_train.txt": "ImageResized_ready/dog/a.JPEG 1\n",
        "png_ready_filelist_train.txt": "png_ready/dog/1.png 1\n",
        "all_photo_zero.txt": "images/cat/a.jpg 0\n",
        "sketch_zero.txt": "sketches/cat/1.png 0\n",
    }
    empty = {name: "" for name in LISTS if "filelist" in name}
    assert len(found(with_lists(tmp_path, **empty, **names), "lists")) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"all_photo_filelist_zero.txt": "../../etc/passwd.jpg 0\n"}, "not a path below"),
        ({"all_photo_filelist_zero.txt": "/etc/passwd.jpg 0\n"}, "not a path below"),
        ({"all_photo_filelist_zero.txt": "..\\\\cat.jpg 0\n"}, "not a path below"),
        ({"all_photo_filelist_zero.txt": "C:\\\\photos\\\\cat.jpg 0\n"}, "not a path below"),
        ({"cname_cid.txt": "dog 0\ncat 0\n"}, "label 0 is both 'dog' and 'cat'"),
        ({"all_photo_filelist_zero.txt": "photos/cat/c.jpg\n"}, "line 1.*not '<path> <label>'"),
        ({"all_photo_filelist_zero.txt": "photos/cat/c.jpg 7\n"}, "label 7"),
        ({"mystery_zero.txt": "a/b.jpg 0\n"}, "photos or sketches"),
    ],
)
@either
def test_a_list_that_cannot_be_used_is_named_with_the_line(tmp_path, opened, changes, message):
    with pytest.raises(InputError, match=message):
        scan("lists", opened(with_lists(tmp_path, **changes)))


@either
def test_a_list_of_other_bytes_than_text_is_refused(tmp_path, opened):
    (with_lists(tmp_path) / "zeroshot1/all_photo_filelist_zero.txt").write_bytes(b"photos/caf\xe9.jpg 0")
    with pytest.raises(InputError, match=r"all_photo_filelist_zero\.txt is not a text file"):
        scan("lists", opened(tmp_path))


def test_a_listed_path_may_have_needless_dots_and_slashes(tmp_path):
    with_lists(tmp_path, **{"all_photo_filelist_zero.txt": "./photos//cat/c.jpg 0\n"})
    assert ("photo", "cat", "photos/cat/c.jpg") in found(tmp_path, "lists")


@either
def test_two_folders_of_lists_must_be_told_apart(tmp_path, opened):
    with_lists(tmp_path)
    with_lists(tmp_path, "zeroshot0")
    with pytest.raises(InputError, match=r"'zeroshot0', 'zeroshot1'.*--lists-dir"):
        scan("lists", opened(tmp_path))
    assert len(scan("lists", opened(tmp_path), lists_dir="./zeroshot0/")) == 6
    with pytest.raises(InputError, match=r"--lists-dir: '\.\./zeroshot0' is not a path below"):
        scan("lists", opened(tmp_path), lists_dir="../zeroshot0")
    with pytest.raises(InputError, match=f"no list ending in _train.txt or _zero.txt in '{tmp_path}/nowhere'"):
        scan("lists", opened(tmp_path), lists_dir="nowhere")


@either
def test_lists_without_a_folder_are_asked_for(tmp_path, opened):
    with pytest.raises(InputError, match=r"which lists in .*there is no zeroshot"):
        scan("lists", opened(tree(tmp_path, "photos/cat/c.jpg")))


def test_lists_may_lie_in_the_root_itself(tmp_path):
    for file in (with_lists(tmp_path) / "zeroshot1").iterdir():
        file.rename(tmp_path / file.name)
    assert len(scanned("lists", tmp_path, lists_dir=".")) == 6


def test_a_listed_path_through_a_link_out_of_the_root_is_refused(tmp_path):
    root = with_lists(tmp_path / "data")
    tree(tmp_path, "elsewhere/cat/c.jpg")
    (root / "photos").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="link that leads out"):
        scan("lists", open_tree(root))


def test_images_that_are_lost_by_their_place_or_name_are_named(tmp_path):
    tree(
        tmp_path,
        *("photo/cat/a.jpg", "photo/cat/b.jfif", "photo/cat/c.jpg.", "sketch/cat/a.png"),
        *("photo/cat/d.heic", "photo/cat/e", "photo/cat/notes.txt", "photo/cat/._a.jpg", "photo/cat/.f.jpg"),
        *("photo/cat/summer/g.jpg", "photo/cat/summer/2020/h.jpg", "photo/cat/empty/readme.txt", "photo/cat/@eaDir/a.jpg/i.jpg"),
        *("photo/j.jpg", "photo/README.md", "photo/__MACOSX/cat/k.jpg", "photos/dog/l.jpg"),
    )
    assert [path for _, _, path in found(tmp_path)] == [
        "photo/cat/a.jpg",
        "photo/cat/b.jfif",
        "photo/cat/c.jpg.",
        "sketch/cat/a.png",
    ]
    assert passed_over(tmp_path) == {
        "photo/cat/d.heic": ".heic is not read: convert it to JPEG or PNG",
        "photo/cat/e": "no ending such as .jpg in the name: rename it",
        "photo/cat/notes.txt": "not an image by its name",
        "photo/cat/._a.jpg": "made by macOS",
        "photo/cat/.f.jpg": "hidden: the name begins with a dot",
        "photo/cat/summer/g.jpg": "in a folder within that of its class: move it up",
        "photo/cat/summer/2020/h.jpg": "in a folder within that of its class: move it up",
        "photo/cat/empty/": "a folder without images",
        "photo/cat/@eaDir/": "made by a network drive",
        "photo/j.jpg": "not in the folder of a class",
        "photo/README.md": "not an image by its name",
        "photo/__MACOSX/": "made by macOS",
        "photos/": "not read, since 'photo' is there too",
    }


def test_names_that_are_not_utf_8_and_special_files_are_passed_over_and_named(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "photo/cat/new\nline.jpg", "sketch/cat/a.png")
    odd, odder = os.fsencode(tmp_path) + b"/photo/cat/caf\xe9.png", os.fsencode(tmp_path) + b"/sketch/gn\xfc"
    Path(os.fsdecode(odd)).write_bytes(b"image")
    Path(os.fsdecode(odder)).mkdir()
    os.mkfifo(tmp_path / "photo/cat/pipe.jpg")
    passed = PassedOver()
    assert len(scan("folder", open_tree(tmp_path), passed)) == 3
    assert {row["path"]: row["reason"] for row in passed.rows()} == {
        r"photo/cat/caf\xe9.png": "a name that is not UTF-8: rename it (such as with convmv)",
        r"sketch/gn\xfc/": "a name that is not UTF-8: rename it (such as with convmv)",
        "photo/cat/pipe.jpg": "neither a file nor a folder",
    }


@either
def test_a_class_without_images_says_what_was_passed_over_there(tmp_path, opened):
    root = tree(tmp_path, "photo/cat/a.jpg", "sketch/cat/a.png", "photo/dog/a.heic", "photo/dog/b.heic", "sketch/dog/a.png")
    with pytest.raises(InputError, match=r"no images in 'photo/dog' \(2 passed over: \.heic is not read: convert"):
        scan("folder", opened(root))


@either
@pytest.mark.parametrize("other", ["Cat", "cat ", "cat_"])
def test_a_class_whose_two_folders_are_spelled_differently_is_pointed_out(tmp_path, opened, other):
    root = tree(tmp_path, "photo/cat/a.jpg", f"sketch/{other}/a.png", "photo/dog/a.jpg", "sketch/dog/a.png")
    with pytest.raises(InputError, match=rf"is it '(cat|{other})' there\? give both the same name"):
        scan("folder", opened(root))


def test_a_class_whose_two_folders_differ_in_the_form_of_unicode_alone_is_one(tmp_path):
    tree(tmp_path, "photo/caf\u00e9/a.jpg", "sketch/cafe\u0301/a.png")
    assert {name for _, name, _ in found(tmp_path)} == {"caf\u00e9"}


@either
def test_a_domain_folder_in_another_spelling_is_pointed_out(tmp_path, opened):
    with pytest.raises(InputError, match=r"expects photo or photos or images; rename 'Photo'"):
        scan("folder", opened(tree(tmp_path, "Photo/cat/a.jpg", "sketch/cat/a.png")))


def test_classes_and_photos_left_out_on_request_are_named(tmp_path):
    tree(tmp_path, "photo/cat/a.jpg", "sketch/cat/a.png", "photo/dog/a.jpg", "sketch/owl/a.txt")
    assert passed_over(tmp_path, skip_incomplete=True) == {
        "photo/dog/a.jpg": "a photo of a class without the other domain (--skip-incomplete)",
        "sketch/owl/": "the folder of a class, without images (--skip-incomplete)",
        "sketch/owl/a.txt": "not an image by its name",
    }
    other = tree(
        tmp_path / "sketchy",
        "256x256/sketch/tx_000000000000/cat/n01-1.png",
        "256x256/photo/tx_000000000000/cat/n01.jpg",
        "EXTEND_image_sketchy/cat/n01.jpg",
    )
    assert passed_over(other, "sketchy", dedup=True) == {
        "EXTEND_image_sketchy/cat/n01.jpg": "a photo whose file name came before in its class (--dedup)"
    }


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_lists_with_byte_order_marks_and_backslashes_are_those_without(tmp_path, mark):
    plain = scanned("lists", with_lists(tmp_path / "plain"))
    windows = with_lists(tmp_path / "windows")
    for file in (windows / "zeroshot1").iterdir():
        text = file.read_text().replace("\n", "\r\n")
        file.write_bytes((text if file.name.startswith("cname") else text.replace("/", "\\").replace(" 0", "\t0")).encode(mark))
    assert scanned("lists", windows) == plain


def test_a_class_that_a_list_names_and_no_image_has_is_named(tmp_path):
    with_lists(tmp_path, **{"cname_cid_zero.txt": "cat 0\nowl 1\n"})
    assert passed_over(tmp_path, "lists") == {"owl": "a class of cname_cid_zero.txt that no list has an image of"}


@pytest.fixture
def closed():
    """A data set with a folder that cannot be read by this process, which gives up the rights of root if it has them."""
    root, user = Path(tempfile.mkdtemp()), os.geteuid()  # pytest's own folders are closed to other users
    tree(root, "photo/cat/a.jpg", "sketch/cat/a.png", "photo/dog/a.jpg", "sketch/dog/a.png", "lost+found/b.jpg")
    root.chmod(0o755)
    (root / "photo/dog").chmod(0)
    if user == 0:
        os.seteuid(65534)
    yield root
    os.seteuid(user)
    (root / "photo/dog").chmod(0o755)
    shutil.rmtree(root)


def test_a_folder_that_cannot_be_read_is_no_empty_one(closed):
    with pytest.raises(InputError, match=r"cannot list the folder '.*/photo/dog': Permission denied; make it readable"):
        scan("folder", open_tree(closed), skip_incomplete=True)
    passed = PassedOver()
    assert len(folder_gallery(closed, passed).entries) == 3
    assert {row["path"]: row["reason"] for row in passed.rows()} == {
        "photo/dog/": "a folder that cannot be read: Permission denied",
        "lost+found/": "made by a network drive",
    }
