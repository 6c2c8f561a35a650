"""What is downloaded, from where and to where: the fields of `zsbir.download`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from zsbir.base.config import Config, unknown_name
from zsbir.downloads.classes import CLASSES
from zsbir.downloads.web import checked_address, origin_of

Address = Annotated[str, AfterValidator(checked_address)]


class DownloadConfig(Config):
    """How much of the two collections is taken."""

    classes: tuple[str, ...] = Field((), description="classes to take; none: all that both collections have")
    photos_per_class: int = Field(60, ge=2, le=1000, description="photos of each class at most, the first by number")
    drawings_per_class: int = Field(
        60, ge=2, le=1000, description="drawings of each class at most, the first that the game recognised"
    )

    @field_validator("classes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in CLASSES:
                raise ValueError(unknown_name("class", name, CLASSES))
        return tuple(sorted(set(names)))

    @property
    def chosen(self) -> tuple[str, ...]:
        """The classes that are taken."""
        return self.classes or tuple(CLASSES)


class Sources(Config):
    """Where the files come from. Another address may be that of a mirror, or of a server on this machine."""

    photos_url: Address = Field(
        "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip", description="the Caltech-101 archive"
    )
    photos_md5: str = Field(
        "3138e1922a9193bfa496528edbbc45d0",
        pattern="^([0-9a-f]{32})?$",
        description="its md5, as torchvision names it; none: that of the first download is kept",
    )
    drawings_url: Address = Field(
        "https://storage.googleapis.com/quickdraw_dataset/full/simplified/",
        description="the folder of Quick, Draw!'s simplified drawings, one .ndjson file a word",
    )
    weights_url: Address = Field(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        description="ResNet18's weights; digits behind a dash, before the name's ending, are the beginning of their sha256",
    )
    redirect_hosts: tuple[str, ...] = Field(
        ("s3.us-west-2.amazonaws.com", "caltechdata.s3.us-west-2.amazonaws.com", "caltechdata.s3.amazonaws.com"),
        description="further hosts to which these addresses may redirect, by https",
    )

    @field_validator("redirect_hosts")
    @classmethod
    def _hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[a-z0-9.-]{1,253}(:\d{1,5})?", name):
                raise ValueError(f"{name!r} is not the name of a host")
        return names

    @property
    def origins(self) -> set[str]:
        """The origins that may be asked."""
        own = {origin_of(url) for url in (self.photos_url, self.drawings_url, self.weights_url)}
        return own | {origin_of(f"https://{host}") for host in self.redirect_hosts}


class Settings(Config):
    """Where the files go, and how patient the download is."""

    to: str = Field("data/caltech-quickdraw", min_length=1, description="folder to make or complete")
    tries: int = Field(6, ge=1, le=100, description="tries in a row without progress before the download gives up")
    pause_s: float = Field(1.0, ge=0, le=60, description="pause after the first failure, seconds; it doubles with each further one")
    silence_s: float = Field(30.0, gt=0, le=600, description="seconds without a byte after which a connection counts as lost")
