"""Photos out of archives: which ones are taken, and what becomes of archives that lie, lead elsewhere or never end."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest
from pictures import encoded, picture
from published import caltech, made_up_photos, tar_of, zip_of

from zsbir.base.errors import InputError
from zsbir.downloads import archive
from zsbir.downloads.archive import INNER, Photo, photos

WANTED = {"ant": ("ant",), "flower": ("lotus", "sunflower", "water_lilly")}
JPEG = encoded(picture(), "JPEG")
FIRST = "101_ObjectCategories/ant/image_0001.jpg"


def written(folder, data):
    file = folder / "caltech-101.zip"
    file.write_bytes(data)
    return file


def hostile(folder, *entries):
    """Return an archive of a good photo, and then these members."""
    good = (tarfile.TarInfo(FIRST), JPEG)
    return written(folder, zip_of([(f"caltech-101/{INNER}", tar_of([good, *entries]))]))


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, JPEG if kind == tarfile.REGTYPE else b""


def test_the_first_photos_of_a_class_come_by_number_and_of_several_folders_in_turn(tmp_path):
    found = made_up_photos(WANTED, 3)
    file = written(tmp_path, caltech(reversed(found)))
    taken = {(name, photo): data for name, photo, data in photos(file, WANTED, 4)}
    assert {photo for name, photo in taken if name == "ant"} == {Photo("ant", number) for number in (1, 2, 3)}
    assert {photo for name, photo in taken if name == "flower"} == {
        *(Photo(folder, 1) for folder in WANTED["flower"]),
        Photo("lotus", 2),
    }
    by_name = dict(found)
    assert all(data == by_name[f"101_ObjectCategories/{p.folder}/image_{p.number:04d}.jpg"] for (_, p), data in taken.items())


def test_a_class_that_is_not_there_is_named(tmp_path):
    file = written(tmp_path, caltech(made_up_photos(["ant"], 2)))
    with pytest.raises(InputError, match="holds no photos in lotus or sunflower or water_lilly: is it the Caltech-101 archive"):
        list(photos(file, WANTED, 2))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (member("../../evil.jpg"), "leads out of its folder, '../../evil.jpg'"),
        (member("101_ObjectCategories/ant/../../../evil.jpg"), "leads out of its folder"),
        (member("/etc/cron.d/evil"), "leads out of its folder"),
        (member("101_ObjectCategories/ant/image_0002.jpg", tarfile.SYMTYPE, "/etc/passwd"), "is a link or a device"),
        (member("101_ObjectCategories/ant/image_0002.jpg", tarfile.LNKTYPE, FIRST), "is a link or a device"),
        (member("101_ObjectCategories/ant/image_0002.jpg", tarfile.CHRTYPE), "is a link or a device"),
        (member("101_ObjectCategories/ant/image_0002.jpg", tarfile.FIFOTYPE), "is a link or a device"),
        (member(FIRST), "twice"),
        (member(f"./{FIRST}"), "twice"),
    ],
)
def test_members_that_lead_elsewhere_or_stand_there_twice_end_the_reading_before_a_photo_comes(tmp_path, entry, says):
    file = hostile(tmp_path, entry)
    with pytest.raises(InputError, match=says):
        next(photos(file, {"ant": ("ant",)}, 5))


def test_other_files_beside_the_photos_are_passed_over(tmp_path):
    others = [member("101_ObjectCategories/ant/._image_0001.jpg"), member("notes.txt"), member("a", tarfile.SYMTYPE, "/etc/passwd")]
    file = hostile(tmp_path, *others)
    assert [photo for _, photo, _ in photos(file, {"ant": ("ant",)}, 5)] == [Photo("ant", 1)]


def test_what_becomes_larger_than_it_may_is_not_read_on(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_TAR_BYTES", 2**20)
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE):
        data = gzip.compress(tar_with_a_large_member(kind))
        file = written(tmp_path, zip_of([(INNER, data)]))
        with pytest.raises(InputError, match="becomes larger than 1 MiB"):
            list(photos(file, {"ant": ("ant",)}, 5))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr(INNER, gzip.compress(b"", 0) + bytes(2**24))  # padding, which gzip passes over
    with pytest.raises(InputError, match="becomes larger than 1 MiB"):
        list(photos(written(tmp_path, packed.getvalue()), {"ant": ("ant",)}, 5))


def tar_with_a_large_member(kind):
    """Return a tar file with a member of 64 MB that is no photo: a file, or a header of the next one."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 2**24
    return info.tobuf(tarfile.USTAR_FORMAT) + bytes(2**24)


def test_too_many_members_and_too_large_photos_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_MEMBERS", 3)
    with pytest.raises(InputError, match="more than 3 files"):
        list(photos(written(tmp_path, caltech(made_up_photos(WANTED, 3))), WANTED, 2))
    monkeypatch.setattr(archive, "MOST_PHOTO_BYTES", 10)
    with pytest.raises(InputError, match="too many for a photo"):
        list(photos(hostile(tmp_path), {"ant": ("ant",)}, 2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a zip",
        zip_of([]),
        zip_of([(INNER, b"x"), (f"b/{INNER}", b"y")]),
        zip_of([(INNER, b"not gzip")]),
        zip_of([(INNER, gzip.compress(b"not tar" * 200))]),
        zip_of([(INNER, tar_of([member(FIRST)])[:-30])]),
        caltech(made_up_photos(["ant"], 3))[:-200],
    ],
    ids=["empty", "other", "no inner", "two inner", "not gzip", "not tar", "cut tar", "cut zip"],
)
def test_damaged_archives_are_one_line(tmp_path, data):
    with pytest.raises(InputError, match=r"caltech-101.zip (holds|cannot be read)") as caught:
        list(photos(written(tmp_path, data), {"ant": ("ant",)}, 2))
    assert "\n" not in str(caught.value)
