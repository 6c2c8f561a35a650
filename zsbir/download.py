"""Fetch public photos and drawings: nothing in, a folder for ingest out.

    python -m zsbir.download caltech-quickdraw --to pictures

Photos of Caltech-101 and drawings of Quick, Draw!, of the 44 classes that both have, and torchvision's ResNet18 weights: about
190 MB. Shows the terms of use and the sizes first. May be killed: the same command goes on where it stopped; once all is there it
does nothing. Prints the folder, which holds photo/, sketch/, resnet18.pth, LICENCES.md and unseen.txt, a split to start with:
`python -m zsbir.ingest folder FOLDER --unseen-classes FOLDER/unseen.txt` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

from zsbir.base import cli
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.downloads.caltech_quickdraw import download
from zsbir.downloads.config import DownloadConfig, Settings, Sources

COLLECTIONS = ("caltech-quickdraw",)
"""What can be downloaded, by name."""


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.download", __doc__ or "")
    parser.add_argument("collection", metavar="COLLECTION", help=f"what to fetch: {', '.join(COLLECTIONS)}")
    parser.add_config_file()
    parser.add_fields(DownloadConfig, title="how much")
    parser.add_fields(Sources, title="where it comes from")
    parser.add_fields(Settings, title="where it goes")
    parsed, values = parser.values(argv)
    if parsed.collection not in COLLECTIONS:
        raise InputError(unknown_name("collection", parsed.collection, COLLECTIONS))
    config, sources, settings = cli.split_fields(values, DownloadConfig, Sources, Settings)
    return str(download(DownloadConfig.of(config), Sources.of(sources), Settings.of(settings)))


if __name__ == "__main__":
    cli.main(_parse)
