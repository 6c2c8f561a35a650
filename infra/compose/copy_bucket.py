"""Copy the bucket to a folder, or a folder into the bucket: copy_bucket.py down|up FOLDER.

`down` takes what is new or has another size, and replaces the files of MLflow and of jobs, which change; it deletes nothing. `up`
puts an object only where there is none: what is in the bucket is never replaced.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

UNCHANGING = ("datasets/", "knowledge/", "runs/", "reports/", "indexes/", "sweeps/", "exports/", "weights/", "pretrained/")
"""Folders of the storage root whose files never change once they are there."""

UNFINISHED = ".unfinished"


def main() -> None:
    """Copy, and say how much."""
    direction, folder = sys.argv[1], Path(sys.argv[2])
    bucket, _, prefix = os.environ["ZSBIR_ROOT"].removeprefix("s3://").partition("/")
    s3 = boto3.client("s3", config=BotoConfig(s3={"addressing_style": "path"}))
    copied = down(s3, bucket, prefix, folder) if direction == "down" else up(s3, bucket, folder)
    sys.stderr.write(f"{copied} files copied\n")


def down(s3: Any, bucket: str, prefix: str, folder: Path) -> int:
    """Copy objects to files; return how many were copied.

    An artifact whose manifest was there at the first listing is complete in the second. One that ends between the two, while jobs
    run, is copied without its manifest, and so is none; the next backup has it.
    """
    complete = {key for key, _ in _listed(s3, bucket)}
    copied = 0
    for key, size in _listed(s3, bucket):
        file = folder / key
        if key.endswith("/") or not file.resolve().is_relative_to(folder.resolve()):
            continue
        if file.name == "manifest.json" and key not in complete:
            continue
        unchanging = key.removeprefix(f"{prefix}/").startswith(UNCHANGING)
        if unchanging and file.is_file() and file.stat().st_size == size:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}{UNFINISHED}")
        s3.download_file(bucket, key, str(unfinished))
        unfinished.replace(file)
        copied += 1
    return copied


def up(s3: Any, bucket: str, folder: Path) -> int:
    """Copy files to objects that are not there, manifests last; return how many were copied."""
    try:
        s3.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    there = {key for key, _ in _listed(s3, bucket)}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(UNFINISHED)]
    copied = 0
    for file in sorted(files, key=lambda path: (path.name == "manifest.json", path)):
        key = file.relative_to(folder).as_posix()
        if key not in there:
            s3.upload_file(str(file), bucket, key)
            copied += 1
    return copied


def _listed(s3: Any, bucket: str) -> Iterator[tuple[str, int]]:
    """Yield the key and the size of each object."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            yield entry["Key"], entry["Size"]


if __name__ == "__main__":
    main()
