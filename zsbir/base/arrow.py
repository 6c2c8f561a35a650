"""The same folders as pyarrow file systems, for readers of Parquet that want one: Ray, and users of DuckDB and pandas."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs

from zsbir.base.storage import S3_SCHEME, is_remote, open_folder


def arrow_filesystem(uri: str) -> tuple[str, pyarrow.fs.FileSystem | None]:
    """Return (path, file system) of a folder for pyarrow; (path, None) on disk.

    The file system holds no keys: the process that unpickles it uses those of its own environment.
    """
    folder = open_folder(uri)
    if not is_remote(uri):
        return folder.uri, None
    from zsbir.base.s3 import client

    meta = client().meta
    endpoint = urlsplit(meta.endpoint_url)
    own: dict[str, Any] = (
        {} if "amazonaws.com" in meta.endpoint_url else {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
    )
    authority = os.environ.get("AWS_CA_BUNDLE")
    if authority:
        own["tls_ca_file_path"] = authority
    own["force_virtual_addressing"] = meta.config.s3.get("addressing_style") == "virtual"
    return folder.uri.removeprefix(S3_SCHEME), pyarrow.fs.S3FileSystem(region=meta.region_name, **own)
