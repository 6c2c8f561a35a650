"""A canary is found wherever a secret could hide: in files, archives, databases, and written in other ways."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import sqlite3
import tarfile
import zipfile
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canaries import Canaries

VALUE = "canary/7f3a+9b21=c04d"
CANARIES = Canaries({"password": VALUE, "token": "another-canary-5511"})


def tar_of(name, content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def zip_of(name, content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def parquet_of(value):
    packed = io.BytesIO()
    pq.write_table(pa.table({"line": [value] * 100, "row": list(range(100))}), packed, compression="zstd")
    return packed.getvalue()


HIDDEN = {
    "as it is": f"PASSWORD={VALUE}".encode(),
    "in an address": f"http://zsbir:{quote(VALUE, safe='')}@host".encode(),
    "in a header": b"Authorization: Basic " + base64.b64encode(f"zsbir:{VALUE}".encode()),
    "in base64, at another offset": base64.b64encode(f"xzsbir:{VALUE}".encode()),
    "in base64, at the third": base64.b64encode(f"xyzsbir:{VALUE}\n".encode()),
    "in gzip": gzip.compress(VALUE.encode()),
    "in a layer of an image": tar_of("layer.tar", gzip.compress(tar_of("root/.netrc", VALUE.encode()))),
    "in a wheel": zip_of("zsbir/config.py", VALUE),
    "in parquet": parquet_of(VALUE),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_it_is_found_in_a_file(where, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(HIDDEN[where])
    (tmp_path / "clean").write_text("nothing")
    assert CANARIES.in_folder(tmp_path) == {"deep/file": {"password"}}


def test_it_is_found_in_a_database_of_which_it_is_no_whole_piece(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        database.execute("create table t (a text)")
        database.execute("insert into t values (?)", ("x" * 4080 + VALUE + "y" * 9000,))
    database.close()
    assert CANARIES.in_folder(tmp_path) == {"jobs.db": {"password"}}


def test_it_is_found_in_a_name(tmp_path):
    (tmp_path / "another-canary-5511.log").touch()
    assert CANARIES.in_folder(tmp_path) == {"another-canary-5511.log": {"token"}}


def test_hashes_links_and_files_that_only_look_packed_are_nothing(tmp_path):
    (tmp_path / "hash").write_text(hashlib.sha256(VALUE.encode()).hexdigest())
    (tmp_path / "link").symlink_to("/proc/self/environ")
    for start in (b"\x1f\x8b", b"PK\x03\x04", b"PAR1"):
        (tmp_path / f"looks {start[1]}").write_bytes(start + b"nothing")
    assert CANARIES.in_folder(tmp_path) == {}


def test_a_value_that_would_turn_up_by_chance_is_refused():
    with pytest.raises(AssertionError, match="too short"):
        Canaries({"pin": "1234"})
