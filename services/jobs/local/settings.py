"""The settings of `up`, in a module that imports nothing heavy: the command's help must appear at once."""

from __future__ import annotations

from pydantic import Field

from services.jobs.local.paths import PORT
from zsbir.base.config import Config
from zsbir.base.storage import default_root

GRACE_S = 120.0


class UpSettings(Config):
    """The settings of one machine's service."""

    root: str = Field(default_factory=default_root, description="storage root of all jobs, also ZSBIR_ROOT")
    store: str = Field(
        "",
        description="job store, sqlite:///file or postgresql://user@host/name, also ZSBIR_JOBS_STORE; "
        "none: a SQLite file below the root",
    )
    host: str = Field(
        "127.0.0.1", description="address that API and page listen on; any other than this machine's own demands tokens"
    )
    hosts: tuple[str, ...] = Field((), description="further host names under which browsers may open the page")
    port: int = Field(PORT, ge=0, le=65535, description="port of API and page; 0, or where it is taken: a free one")
    auth: str = Field(
        "tokens",
        pattern="^(tokens|off|)$",
        description="tokens, or off: every user of this machine is operator, which only a loopback host allows",
    )
    allow_commands: bool = Field(True, description="operators with a token may submit any program as a job")
    promotion: str = Field(
        "operators",
        pattern="^(operators|submitters)$",
        description="who may submit jobs that promote a model: operators, submitters",
    )
    search: bool = Field(True, description="also start the search service, which serves the champion as soon as there is one")
    running: int = Field(0, ge=0, description="jobs that may run at once, unless limits were set before; 0: one for each CPU")
    cpus: int = Field(0, ge=0, description="CPUs that Ray may use; 0: all")
    gpus: int = Field(-1, ge=-1, description="GPUs that Ray may use; -1: all")
    places: tuple[str, ...] = Field(
        (), description="further folders and s3:// prefixes that jobs may read, besides the root and the current folder"
    )
    patience_s: float = Field(20.0, gt=0, description="seconds without a heartbeat after which an attempt may be declared lost")
    grace_s: float = Field(GRACE_S, gt=0, description="seconds that a stopped job has to save a final checkpoint")
