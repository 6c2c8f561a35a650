"""The whole download against a server on this machine: twice, resumed, offline, with wrong checksums, with a full disk."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections import namedtuple
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path

import pytest
from filelock import FileLock
from published import ARCHIVE, DRAWINGS, flags, made_up, weights_path
from servers.file_host import Handler, file_host

from zsbir import download as verb
from zsbir.base.errors import Busy, DiskFull, InputError, RunError, Unreachable
from zsbir.data.layouts import scan
from zsbir.data.trees import open_tree
from zsbir.downloads.caltech_quickdraw import download
from zsbir.downloads.classes import CLASSES
from zsbir.downloads.config import DownloadConfig, Settings, Sources

NAMES = ("ant", "bird", "flower", "sea_turtle")
FILES = made_up(NAMES)
WEIGHTS = next(path for path in FILES if path.startswith("/models/"))
CONFIG = DownloadConfig(classes=NAMES, photos_per_class=4, drawings_per_class=5)
ANT = f"{DRAWINGS}ant.ndjson"


@pytest.fixture
def host():
    with file_host(dict(FILES)) as running:
        yield running


def fetched(host, folder, config=CONFIG, **changes):
    sources = Sources(**{**flags(host.url, FILES), **changes})
    return download(config, sources, Settings(to=str(folder), tries=2, pause_s=0, silence_s=5))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    """Return every file that was made, without what was downloaded for it."""
    made = (
        path for path in folder.rglob("*") if path.is_file() and path.parent.name != "downloads" and path.name != "download.json"
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in made}


def test_it_makes_a_folder_that_ingest_reads_and_the_same_one_again(host, tmp_path, capsys):
    folder = fetched(host, tmp_path / "a")
    told = capsys.readouterr().err
    sources = scan("folder", open_tree(str(folder)))
    assert {(one.class_name, one.domain) for one in sources} == {(name, domain) for name in NAMES for domain in ("photo", "sketch")}
    assert len(sources) == 4 * 4 + 4 * 5
    assert names(folder / "photo/flower") == [
        "lotus_0001.jpg",
        "lotus_0002.jpg",
        "sunflower_0001.jpg",
        "water_lilly_0001.jpg",
    ]
    assert (folder / "resnet18.pth").read_bytes() == FILES[WEIGHTS]
    assert (folder / "unseen.txt").read_text() == "bird\nflower\n"
    assert "CC BY 4.0" in (folder / "LICENCES.md").read_text()
    assert contents(fetched(host, tmp_path / "b")) == contents(folder)
    order = [told.index(text) for text in ("Quick, Draw! Dataset", "to download: photos of Caltech-101", "together", "unpack: ")]
    assert order == sorted(order)


def test_the_terms_are_shown_before_the_first_byte_is_asked_for(host, tmp_path, capsys):
    seen = []
    host.faults[ARCHIVE] = [lambda handler: (seen.append(capsys.readouterr().err), handler.serve())]
    fetched(host, tmp_path / "a")
    assert "CC BY 4.0" in seen[0]
    assert "together" not in seen[0]


def test_the_same_command_again_does_nothing_and_says_so(host, tmp_path, capsys):
    folder = fetched(host, tmp_path / "a")
    asked, times = len(host.asked), {path: path.stat().st_mtime_ns for path in folder.rglob("*.*g")}
    capsys.readouterr()
    fetched(host, folder)
    assert capsys.readouterr().err == f"{folder} is complete already: nothing was downloaded\n"
    assert len(host.asked) == asked
    (folder / "photo/ant/ant_0002.jpg").unlink()
    fetched(host, folder)
    assert len(host.asked) == asked, "everything that is needed lies in downloads/"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*g") if path.name != "ant_0002.jpg"}.items() <= times.items()
    assert (folder / "photo/ant/ant_0002.jpg").exists()


def test_other_numbers_change_what_is_there_and_leave_what_others_have_added(host, tmp_path):
    folder = fetched(host, tmp_path / "a")
    for own in ("photo/ant/holiday.jpg", "sketch/ant/mine.png", "photo/cat_0001.jpg"):
        (folder / own).write_bytes(b"mine")
    fetched(host, folder, CONFIG.replace(classes=("ant", "bird"), photos_per_class=2))
    assert names(folder / "photo/ant") == ["ant_0001.jpg", "ant_0002.jpg", "holiday.jpg"]
    assert names(folder / "photo") == ["ant", "bird", "cat_0001.jpg"]
    assert "mine.png" in names(folder / "sketch/ant")
    fetched(host, folder)
    assert set(contents(fetched(host, tmp_path / "b"))) < set(contents(folder))


def test_a_download_that_was_interrupted_goes_on_and_counts_what_is_here(host, tmp_path, capsys):
    cut = len(FILES[ARCHIVE]) // 2
    host.faults[ARCHIVE] = [
        Handler.serve,
        lambda handler: handler.serve(stop_after=cut),
        *repeat(lambda handler: handler.answer(503), 9),
    ]
    with pytest.raises(Unreachable, match="given up after 2 tries; give the command again later, and it goes on where it stopped"):
        fetched(host, tmp_path / "a")
    host.faults.clear()
    fetched(host, tmp_path / "a")
    assert "of which" in capsys.readouterr().err
    assert host.sent(ARCHIVE) == 2 + len(FILES[ARCHIVE]), "two first bytes for the size, and no byte twice"


def test_only_the_first_bytes_of_the_drawings_are_asked_for(host, tmp_path):
    host.files[ANT] = FILES[ANT] * 200
    fetched(host, tmp_path / "a")
    assert host.sent(ANT) == 1 + 5 * 2048
    assert len(host.files[ANT]) > 100_000


def test_more_drawings_than_before_are_fetched_and_no_file_that_is_whole(host, tmp_path):
    host.files[ANT] = FILES[ANT] * 4
    folder = fetched(host, tmp_path / "a")
    host.asked.clear()
    more = CONFIG.replace(drawings_per_class=12)
    fetched(host, folder, more)
    assert {one.path for one in host.asked} == {ANT}
    assert len(names(folder / "sketch/ant")) == 12
    assert contents(folder) == contents(fetched(host, tmp_path / "b", more))


def test_offline_one_line_says_what_to_fetch_by_hand_and_files_put_there_are_used(tmp_path, capsys):
    with file_host({}) as gone:
        url = gone.url
    sources = Sources(**flags(url, FILES))
    settings = Settings(to=str(tmp_path / "a"), tries=2, pause_s=0)
    with pytest.raises(Unreachable) as caught:
        download(CONFIG, sources, settings)
    line, into = str(caught.value), tmp_path / "a/downloads"
    assert "\n" not in line
    assert f"or fetch by hand {url}{ARCHIVE}, {url}{WEIGHTS}, 4 files of drawings (" in line
    assert line.endswith(f"({into}/fetch.sh has the commands), and put all into {into}")
    assert f"-r 0-10239 -o sea_turtle.ndjson.half {url}{DRAWINGS}sea%20turtle.ndjson && mv" in (into / "fetch.sh").read_text()
    put = {"caltech-101.zip": ARCHIVE, WEIGHTS.rpartition("/")[2]: WEIGHTS}
    put |= {f"{name}.ndjson": f"{DRAWINGS}{CLASSES[name].word}.ndjson" for name in NAMES}
    for name, path in put.items():
        (into / name).write_bytes(FILES[path])
    assert download(CONFIG, sources, settings) == tmp_path / "a"
    assert "4 classes" in capsys.readouterr().err


def test_the_commands_for_fetching_by_hand_fetch_the_same_bytes(host, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    host.faults[ARCHIVE] = list(repeat(lambda handler: handler.answer(503), 2))
    with pytest.raises(Unreachable):
        fetched(host, tmp_path / "a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["sh", str(tmp_path / "a/downloads/fetch.sh")], cwd=elsewhere, check=True, capture_output=True)
    assert (elsewhere / "caltech-101.zip").read_bytes() == FILES[ARCHIVE]
    assert (elsewhere / "ant.ndjson").read_bytes() == FILES[ANT][: 5 * 2048]


@pytest.mark.parametrize(("path", "kind"), [(ARCHIVE, "md5"), (WEIGHTS, "sha256")])
def test_a_file_with_another_checksum_is_fetched_once_more_and_then_refused(host, tmp_path, path, kind, capsys):
    wrong = FILES[path][:-1] + bytes([FILES[path][-1] ^ 1])
    host.faults[path] = [Handler.serve, lambda handler: handler.serve(data=wrong)]
    host.tags = False
    fetched(host, tmp_path / "a")
    assert f"arrived damaged (its {kind} is" in capsys.readouterr().err
    host.files[path] = wrong
    with pytest.raises(RunError, match=f"its {kind} is [0-9a-f]+, expected [0-9a-f]+, twice"):
        fetched(host, tmp_path / "b")
    assert not (tmp_path / "b/photo").exists()


def test_where_no_checksum_is_published_the_first_download_s_holds(host, tmp_path):
    folder = fetched(host, tmp_path / "a")
    (folder / "downloads/ant.ndjson").unlink()
    (folder / "download.json").unlink()
    fetched(host, folder)  # the same bytes again
    for name in ("downloads/ant.ndjson", "download.json"):
        (folder / name).unlink()
    host.files[ANT] = FILES[ANT].replace(b'"DE"', b'"FR"')
    with pytest.raises(
        RunError, match=r"ant\.ndjson: its sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}, twice: the file there is another"
    ):
        fetched(host, folder)
    (folder / "downloads/ant.ndjson").write_bytes(host.files[ANT])
    with pytest.raises(InputError, match=r"remove it to fetch it again, or remove .*checksums\.json to trust it"):
        fetched(host, folder)
    host.files[ANT] = FILES[ANT] + FILES[ANT]
    (folder / "downloads/ant.ndjson").unlink()
    fetched(host, folder, CONFIG.replace(drawings_per_class=9))  # more of a file that begins as it did


def test_no_room_is_said_before_the_first_byte_of_a_file(host, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(DiskFull, match=r"needs \d+\.?\d* MB more, and its disk has 1.0 kB free: make room, or pass --to"):
        fetched(host, tmp_path / "a")
    assert max(one.sent for one in host.asked) == 1


def test_a_file_that_is_larger_than_it_may_be_is_not_fetched(host, tmp_path, monkeypatch):
    monkeypatch.setattr("zsbir.downloads.caltech_quickdraw.MOST_WEIGHTS_BYTES", 1000)
    with pytest.raises(InputError, match=r"at most 1\.0 kB were expected: is it the right file"):
        fetched(host, tmp_path / "a")


def test_two_processes_do_not_make_one_folder(host, tmp_path):
    (tmp_path / "a/downloads").mkdir(parents=True)
    with FileLock(tmp_path / "a/downloads/.lock"), pytest.raises(Busy, match="another process downloads to"):
        fetched(host, tmp_path / "a")


def test_damaged_records_are_made_anew(host, tmp_path):
    folder = fetched(host, tmp_path / "a")
    before = contents(folder)
    for text in ("", "[1]", '{"asked": {}, "made": {"x": "y"}}'):
        (folder / "download.json").write_text(text)
        (folder / "downloads/checksums.json").write_text(text)
        assert contents(fetched(host, folder)) == before


def test_the_command_line_names_collections_classes_and_folders(host, tmp_path):
    words = [word for name, value in flags(host.url, FILES).items() for word in (f"--{name.replace('_', '-')}", value)]
    more = ["--classes", ",".join(NAMES), "--photos-per-class", "4", "--drawings-per-class", "5", "--to", str(tmp_path / "a")]
    assert verb._parse(["caltech-quickdraw", *words, *more]) == str(tmp_path / "a")
    with pytest.raises(InputError, match="did you mean 'caltech-quickdraw'"):
        verb._parse(["caltech-quikdraw"])
    with pytest.raises(InputError, match="unknown class 'antt'; did you mean 'ant'"):
        verb._parse(["caltech-quickdraw", "--classes", "antt"])


def test_every_class_has_its_own_word_and_folders():
    words = [shared.word for shared in CLASSES.values()]
    folders = [folder for shared in CLASSES.values() for folder in shared.folders]
    assert len(set(words)) == len(words) == len(CLASSES) == 44
    assert len(set(folders)) == len(folders)
    assert [name for name, shared in CLASSES.items() if name != shared.word.replace(" ", "_")] == []
    assert sum(shared.new for shared in CLASSES.values()) == 14


def test_the_published_checksums_are_those_that_torchvision_names():
    package = Path(find_spec("torchvision").origin).parent  # importing it takes seconds
    data_set, network = ((package / name).read_text() for name in ("datasets/caltech.py", "models/resnet.py"))
    assert f'"{Sources().photos_url}"' in data_set
    assert f'md5="{Sources().photos_md5}"' in data_set
    assert f'"{Sources().weights_url}"' in network


def test_the_stand_in_names_its_weights_as_torchvision_does():
    assert weights_path(FILES[WEIGHTS]) == WEIGHTS
    assert hashlib.sha256(FILES[WEIGHTS]).hexdigest()[:8] in WEIGHTS
