"""Copy the bucket to a backup, or a backup into the bucket: copy_bucket.py down BACKUP [LAST], copy_bucket.py up BACKUP.

BACKUP and LAST are folders; objects are files in their `bucket`. `down` links what has not changed since the backup LAST, downloads
everything else, and as the last thing writes BACKUP/complete. Run again, it goes on where it was interrupted. `up` refuses a backup
that is not complete, and puts an object only where there is none: what is in the bucket is never replaced.
"""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

UNCHANGING = ("datasets/", "knowledge/", "runs/", "reports/", "indexes/", "sweeps/", "exports/", "weights/", "pretrained/")
"""Folders of the storage root whose files never change once they are there."""

COPY = "bucket"
COMPLETE = "complete"
DOWNLOAD = "download"
"""Where an object is written until it has all its bytes: beside the copy, so that nobody takes what a kill leaves for an object."""


def main() -> None:
    """Copy, and say how much."""
    direction, backup, *last = sys.argv[1], *map(Path, sys.argv[2:])
    bucket, _, prefix = os.environ["ZSBIR_ROOT"].removeprefix("s3://").partition("/")
    s3 = boto3.client("s3", config=BotoConfig(s3={"addressing_style": "path"}))
    if direction == "down":
        copied = down(s3, bucket, prefix, backup, last[0] if last else None)
        seal(backup)
    else:
        check(backup)
        copied = up(s3, bucket, backup / COPY)
    sys.stderr.write(f"{copied} files copied\n")


def down(s3: Any, bucket: str, prefix: str, backup: Path, last: Path | None) -> int:
    """Copy objects to files; return how many were downloaded. last: the backup before this one.

    An artifact whose manifest was there at the first listing is complete in the second. One that ends between the two, while jobs
    run, is copied without its manifest, and so is none; the next backup has it.
    """
    folder = backup / COPY
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in backup.glob(f"{DOWNLOAD}*"):
        leftover.unlink()
    complete = {key for key, _ in _listed(s3, bucket)}
    copied = 0
    for key, size in _listed(s3, bucket):
        file = folder / key
        if key.endswith("/") or not file.resolve().is_relative_to(folder.resolve()):
            continue
        if file.name == "manifest.json" and key not in complete:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if key.removeprefix(f"{prefix}/").startswith(UNCHANGING) and _is_there(file, last and last / COPY / key, size):
            continue
        try:
            s3.download_file(bucket, key, str(backup / DOWNLOAD))
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                raise
            continue  # deleted since the listing, as leases of running jobs are
        (backup / DOWNLOAD).replace(file)
        copied += 1
    return copied


def _is_there(file: Path, earlier: Path | None, size: int) -> bool:
    """Whether a file of this size is there, or can be linked from the earlier backup."""
    if file.is_file() and file.stat().st_size == size:
        return True
    if earlier is None or not earlier.is_file() or earlier.stat().st_size != size:
        return False
    file.unlink(missing_ok=True)
    try:
        os.link(earlier, file)
    except OSError:  # a file system without hard links
        return False
    return True


def seal(backup: Path) -> None:
    """Write that a backup is complete: its date, the version of the software, the number of files. They are on the disk by then."""
    os.sync()
    unfinished = backup / f"{COMPLETE}.new"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    unfinished.write_text(f"date {date}\nversion {version('zsbir')}\nfiles {len(_files(backup / COPY))}\n", "utf-8")
    unfinished.replace(backup / COMPLETE)


def check(backup: Path) -> None:
    """End the program, with 2, where a backup is not complete or has lost files since."""
    try:
        said = dict(line.split(" ", 1) for line in (backup / COMPLETE).read_text("utf-8").splitlines())
        files = int(said["files"])
    except (OSError, ValueError, KeyError) as error:
        _fail(f"{backup} is no complete backup: {error}")
    found = len(_files(backup / COPY))
    if found != files:
        _fail(f"{backup} had {files} files of the bucket when it was made, and has {found}")


def _fail(reason: str) -> NoReturn:
    sys.stderr.write(f"error: {reason}\n")
    sys.exit(2)


def up(s3: Any, bucket: str, folder: Path) -> int:
    """Copy files to objects that are not there, manifests last; return how many were copied."""
    try:
        s3.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    there = {key for key, _ in _listed(s3, bucket)}
    copied = 0
    for file in sorted(_files(folder), key=lambda path: (path.name == "manifest.json", path)):
        key = file.relative_to(folder).as_posix()
        if key not in there:
            s3.upload_file(str(file), bucket, key)
            copied += 1
    return copied


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _listed(s3: Any, bucket: str) -> Iterator[tuple[str, int]]:
    """Yield the key and the size of each object."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            yield entry["Key"], entry["Size"]


if __name__ == "__main__":
    main()
