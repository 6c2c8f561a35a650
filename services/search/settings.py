"""What the command of the search service may be told. Imports nothing heavy: the command's help must appear at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zsbir.base.config import Config
from zsbir.base.storage import default_root
from zsbir.search_run.hits import AUTO_PHOTOS

PORT = 8280


class SearchSettings(Config):
    """What is served, and where and to whom."""

    model: str = Field("", description="registered model to follow: champion (of the model zsbir), or NAME@ALIAS")
    index: str = Field("", description="URI of one index, served in place of a registered model's")
    wait: bool = Field(False, description="where the model has no such version yet, wait for it, in place of ending with an error")
    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(PORT, ge=0, le=65535, description="port to listen on; 0: a free one")
    hosts: tuple[str, ...] = Field((), description="further host names under which browsers may open the page")
    auth: str = Field(
        "tokens",
        pattern="^(tokens|off)$",
        description="tokens, or off: every caller is operator, which only a loopback host allows",
    )
    store: str = Field("", description="job store whose tokens are valid here, also ZSBIR_JOBS_STORE [that of the root's `up`]")
    places: tuple[str, ...] = Field(
        (), description="further folders and s3:// prefixes whose photos may be shown, and indexes served, besides the root"
    )
    poll_s: float = Field(5.0, gt=0, le=3600, description="seconds between two questions to the registry")
    jobs_url: str = Field("", description="address of the job queue's page, to which the page links")
    options: Literal["auto", "default", "plain"] = Field(
        "auto",
        description="search options (docs/search.md): default, plain, or auto: default where the index has statistics and at most"
        f" {AUTO_PHOTOS:,} photos",
    )
    exact: bool = Field(False, description="rank all photos, also where an index has a graph, which may miss some")
    threads: int = Field(0, ge=0, description="threads that torch computes with; 0: one for each core that may be used")
