"""Object storage for the tests of data."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from zsbir.base.s3 import client


@dataclass
class Bucket:
    """A bucket of one test, which counts what is asked of it."""

    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    prefix: str = ""

    @property
    def uri(self) -> str:
        """Where the objects lie."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def put(self, path: str, data: bytes) -> None:
        """An object of any key, also of one that no folder would take."""
        client().put_object(Bucket=self.name, Key=f"{self.prefix}/{path}" if self.prefix else path, Body=data)

    @contextmanager
    def requests(self) -> Iterator[list[str]]:
        """The names of the requests made meanwhile, in order."""
        made: list[str] = []

        def note(model: Any, **_: object) -> None:
            made.append(model.name)

        client().meta.events.register("before-call.s3", note)
        try:
            yield made
        finally:
            client().meta.events.unregister("before-call.s3", note)


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """The address of an S3 server."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(store: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, to which the environment leads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing12345")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    made = Bucket()
    client().create_bucket(Bucket=made.name)
    return made
