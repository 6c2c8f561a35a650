"""An S3 server as the tests see it: an address, keys, and the environment that leads a process there."""

from __future__ import annotations

import functools
import os
import uuid
from dataclasses import dataclass
from typing import Any

REGION = "us-east-1"


@dataclass
class S3Server:
    """Where a server listens and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def env(self) -> dict[str, str]:
        """What boto3, pyarrow and Ray read. Servers other than Amazon's need checksums only where an operation requires them."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def client(self, **config: Any) -> Any:
        """A boto3 client of its own, whatever the environment says: one attempt, 10 s, or what `config` (botocore's) says."""
        from botocore.config import Config

        once = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 10,
            "read_timeout": 10,
            "signature_version": "s3v4",
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        return _session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**{**once, **config}),
        )

    def new_bucket(self) -> str:
        """The name of an empty bucket that no other test knows."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


@functools.cache
def _session() -> Any:
    """One session for its cache of API models, without which a client costs 0.2 s; it reads no file and profile of the user."""
    import boto3
    import botocore.session

    plain = botocore.session.Session()
    store = plain.get_component("config_store")
    for name, value in {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}.items():
        store.set_config_variable(name, value)
    return boto3.Session(botocore_session=plain)
