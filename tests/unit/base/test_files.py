import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from zsbir.base.files import in_folder, open_regular, sha256_file, write_atomic, write_failure


def test_a_file_is_written_though_its_empty_folder_is_removed_at_the_same_moment(tmp_path):
    folder, stop = tmp_path / "parts", threading.Event()

    def remove():
        while not stop.is_set():
            with suppress(OSError):
                folder.rmdir()
            time.sleep(2e-4)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for number in range(300):
            write_atomic(folder / "a", b"%d" % number)
            assert (folder / "a").read_bytes() == b"%d" % number
            (folder / "a").unlink()
    finally:
        stop.set()
        thread.join()


def test_a_folder_that_is_removed_at_every_try_for_a_while_is_made_again(tmp_path):
    tries = []

    def make():
        tries.append(0)
        if len(tries) < 300:
            (tmp_path / "parts").rmdir()
        (tmp_path / "parts" / "a").write_bytes(b"data")
        return len(tries)

    assert in_folder(tmp_path / "parts", make) == 300


def test_a_file_where_the_folder_should_be_is_said_at_once(tmp_path):
    (tmp_path / "parts").write_bytes(b"")
    started = time.monotonic()
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "parts" / "a", b"")
    assert time.monotonic() - started < 4


def test_only_regular_files_are_opened_for_reading_and_nothing_else_makes_the_reader_wait(tmp_path):
    (tmp_path / "plain").write_bytes(b"data")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to a pipe").symlink_to(tmp_path / "pipe")
    (tmp_path / "link to a device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    monkey = socket.socket(socket.AF_UNIX)
    monkey.bind(str(tmp_path / "socket"))
    for name in ("plain", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"data"
    for name in ("pipe", "link to a pipe", "link to a device", "folder", "socket", "nothing"):
        with pytest.raises(OSError, match=name) as error:
            open_regular(tmp_path / name)
        assert error.value.filename == str(tmp_path / name)
    with pytest.raises(OSError, match="not a regular file"):
        sha256_file(tmp_path / "pipe")
    monkey.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(28, "No space left on device", "/store/runs/x/.writing-1/a"), "No space left on device"),
        (PermissionError(13, "Permission denied", "/store/runs/x"), "Permission denied"),
        (OSError(18, "Invalid cross-device link", "/tmp/a", None, "/store/runs/x/a"), "Invalid cross-device link"),
        (OSError("200000 requested and 12375 written"), "200000 requested and 12375 written (is the disk full?)"),
        (Exception("Quota exceeded (os error 122)"), "Quota exceeded (os error 122) (is the disk full?)"),
        (OSError(28, "No space left on device", "/tmp/ray/session"), ""),
        (PermissionError(13, "Permission denied", "/store/runs/xy"), ""),
        (FileNotFoundError(2, "No such file or directory", "/photos/a.png"), ""),
        (ConnectionError("could not reach ray://127.0.0.1:10001"), ""),
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), ""),
        (OSError(24, "Too many open files"), ""),
        (BrokenPipeError(32, "Broken pipe"), ""),
        (OSError(9, "Bad file descriptor", 17), ""),
    ],
)  # fmt: skip
def test_a_store_is_blamed_only_for_errors_of_its_own(error, reason):
    assert write_failure(error, Path("/store/runs/x"), "/cache/drafts/1") == reason
