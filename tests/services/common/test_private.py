"""Files that only their owner can read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from services.common.private import close_files, open_log, private_folder, write_private
from zsbir.base.errors import InputError


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_folder_and_files_are_their_owners_alone_whatever_the_mask(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = private_folder(tmp_path / "a" / "service")
        write_private(folder / "token", "hush")
        with open_log(folder / "logs" / "it.log") as log:
            log.write(b"line")
    finally:
        os.umask(before)
    assert [mode(folder), mode(folder / "token"), mode(folder / "logs" / "it.log")] == [0o700, 0o600, 0o600]
    assert (folder / "token").read_text() == "hush"
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["token"]


def test_what_an_earlier_version_left_open_is_closed(tmp_path):
    folder = tmp_path / "service"
    folder.mkdir(mode=0o755)
    (folder / "logs").mkdir()
    for name in ("jobs.db", "logs/api.log"):
        (folder / name).touch(0o644)
    outside = tmp_path / "outside"
    outside.touch(0o644)
    (folder / "link").symlink_to(outside)
    close_files(private_folder(folder))
    assert [mode(folder), mode(folder / "jobs.db"), mode(folder / "logs" / "api.log"), mode(outside)] == [
        0o700,
        0o600,
        0o600,
        0o644,
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_is_refused(tmp_path):
    folder = tmp_path / "service"
    folder.mkdir(mode=0o777)
    os.chown(folder, 65534, 65534)
    with pytest.raises(InputError, match="belongs to another user"):
        private_folder(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_can_read_neither_name_nor_content(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != folder.parent and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    folder = private_folder(tmp_path / "service")
    write_private(folder / "token", "hush")
    code = f"import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); open({str(folder / 'token')!r}).read()"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in tried.stderr
