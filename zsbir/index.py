"""Embed photos for search: Run and photos in, Index out; and indexes that grow.

    python -m zsbir.index artifacts/runs/toy-0123456789ab                     the unseen photos of the run's data set
    python -m zsbir.index artifacts/runs/toy-0123456789ab --gallery photos/   every image below a folder
    python -m zsbir.index update artifacts/indexes/toy/0123456789abcdef       agree with the folder again
    python -m zsbir.index add artifacts/indexes/toy/0123456789abcdef more/    the photos of one more folder
    python -m zsbir.index delete artifacts/indexes/toy/0123456789abcdef --path cat/1.jpg
    python -m zsbir.index compact artifacts/indexes/toy/0123456789abcdef      one segment, without what was deleted
    python -m zsbir.index reembed artifacts/indexes/toy/0123456789abcdef --run artifacts/runs/toy-ba9876543210
                                                                              the same photos, by another run's encoder

Costs one forward pass a photo that is new. The index holds its encoder and a thumbnail of each photo, so that searching needs
nothing else. An index never changes: update, add, delete, compact and reembed make a new one; each has its own --help. Prints the
URI of the index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from zsbir.base import cli, layout
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.index_run.config import GrowthConfig, IndexConfig, ReembedConfig, Settings

__all__ = [
    "GrowthConfig", "IndexConfig", "ReembedConfig", "Settings", "add_photos", "build_index", "compact_index", "delete_photos",
    "reembed_index", "update_index",
]  # fmt: skip


def build_index(run_uri: str, config: IndexConfig, settings: Settings) -> Artifact:
    """Return the Index artifact of a gallery and a run's encoder; an existing one is found if no photo has changed.

    Raises InputError for an empty gallery, too many unreadable photos, or metadata that cannot be used.
    """
    from zsbir.index_run import building  # torch takes long to load

    return building.build_index(run_uri, config, settings)


def update_index(index_uri: str, folder: str, config: GrowthConfig, settings: Settings) -> Artifact:
    """Return an index that agrees with a folder: new photos added, changed ones replaced, those that are gone deleted.

    folder: "" for the one that all of the index's photos come from. Photos of other galleries stay. Files are compared by path,
    size and time. Raises InputError where there is no such folder, or no image in it.
    """
    from zsbir.index_run.changes import folder_change, only_folder
    from zsbir.index_run.growing import grow, open_base

    base = open_base(Artifact(index_uri, "index"))
    folder = folder or only_folder(base)
    return grow(base, folder_change(base, folder, config.metadata, delete_gone=True), config, settings)


def add_photos(index_uri: str, folder: str, config: GrowthConfig, settings: Settings) -> Artifact:
    """Return an index with the photos of a folder too; what it has of that folder is replaced where it changed, and never deleted.

    Raises InputError where there is no such folder, or no image in it.
    """
    from zsbir.index_run.changes import folder_change
    from zsbir.index_run.growing import grow, open_base

    base = open_base(Artifact(index_uri, "index"))
    return grow(base, folder_change(base, folder, config.metadata, delete_gone=False), config, settings)


def delete_photos(index_uri: str, paths: Sequence[str], settings: Settings) -> Artifact:
    """Return an index without these photos; a path that ends in "/" stands for all below it. Raises InputError for others."""
    from zsbir.index_run.changes import deletion
    from zsbir.index_run.growing import grow, open_base

    base = open_base(Artifact(index_uri, "index"))
    return grow(base, deletion(base, paths), GrowthConfig(), settings)


def compact_index(index_uri: str, settings: Settings, *, graph: bool = False) -> Artifact:
    """Return an index of the same photos that is one segment, needs no other index, and holds nothing that was deleted.

    graph: whether its photos are to be linked, for approximate searches.
    """
    from zsbir.index_run.growing import compact, open_base

    return compact(open_base(Artifact(index_uri, "index")), settings, graph=graph)


def reembed_index(index_uri: str, run_uri: str, config: ReembedConfig, settings: Settings) -> Artifact:
    """Return an index of the same photos that is embedded with another run's encoder, in one segment; an existing one is found.

    Photos that are gone from their galleries are left out, those that have changed are taken as they are now. Precision, views
    and whether there is a graph are as in the index. Raises InputError where a whole gallery is gone, or too many photos cannot be
    read.
    """
    from zsbir.index_run.growing import config_of, open_base
    from zsbir.index_run.reembedding import reembed

    base = open_base(Artifact(index_uri, "index"))
    run = Artifact(run_uri, "run")
    return reembed(base, run, config_of(base.index), settings, max_bad_frac=config.max_bad_frac)


def perform(make: Callable[..., Artifact], *inputs: object) -> str:
    """Carry out a parsed command line. Return the address of the index made."""
    return make(*inputs).uri


def _parse(argv: Sequence[str]) -> str:
    command = GROWTH.get(argv[0] if argv else "")
    return command(argv[1:]) if command else _parse_build(argv)


def _parse_build(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.index", __doc__ or "")
    parser.add_argument("run", help="URI of a Run artifact, as zsbir.train prints it, or models:/NAME@champion")
    parser.add_config_file()
    parser.add_fields(IndexConfig, title="index")
    parser.add_fields(Settings, title="where it is stored")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, IndexConfig, Settings)
    from zsbir.edge.model_address import artifact_address

    where = Settings.of(settings)
    return perform(build_index, artifact_address(parsed.run, "run", where.root), IndexConfig.of(config), where)


def _growth_parser(command: str, card: str) -> cli.Parser:
    parser = cli.Parser(f"zsbir.index {command}", card)
    parser.add_argument("index", help="URI of an Index artifact, as zsbir.index prints it, or models:/NAME@champion")
    return parser


def _located(index: str, values: Mapping[str, object]) -> tuple[str, Settings]:
    """Return the address of the index that grows, and the settings: it stays in its own storage root unless another is given."""
    from zsbir.edge.model_address import artifact_address

    uri = Artifact(artifact_address(index, "index", Settings.of(values).root), "index").uri
    return uri, Settings.of({"root": layout.root_of(uri), **values})


def _parse_update(argv: Sequence[str]) -> str:
    parser = _growth_parser(
        "update", "Make an index agree with its folder again: add what is new, replace what changed, delete what is gone."
    )
    parser.add_argument("folder", nargs="?", default="", help="folder of photos; none: the one that the index is of")
    return _grown(update_index, parser, argv)


def _parse_add(argv: Sequence[str]) -> str:
    parser = _growth_parser(
        "add", "Add the photos of a folder to an index. Those that it has already are replaced where they changed."
    )
    parser.add_argument("folder", help="folder of photos")
    return _grown(add_photos, parser, argv)


def _grown(make: Callable[[str, str, GrowthConfig, Settings], Artifact], parser: cli.Parser, argv: Sequence[str]) -> str:
    parser.add_fields(GrowthConfig, title="photos")
    parser.add_fields(Settings, title="where it is stored, by default beside the index")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, GrowthConfig, Settings)
    uri, where = _located(parsed.index, settings)
    return perform(make, uri, parsed.folder, GrowthConfig.of(config), where)


def _parse_delete(argv: Sequence[str]) -> str:
    parser = _growth_parser("delete", "Delete photos from an index by path, as a search shows it.")
    parser.add_argument(
        "--path", action="append", default=[], help="path of a photo; with / at its end, of a folder; may be repeated"
    )
    parser.add_argument("--paths-file", default="", metavar="FILE", help="text file with such a path on each line")
    parser.add_fields(
        Settings, title="where it is stored, by default beside the index", skip=frozenset({"num_workers", "gpus_per_worker"})
    )
    parsed, values = parser.values(argv)
    uri, where = _located(parsed.index, values)
    return perform(delete_photos, uri, [*parsed.path, *_lines_of(parsed.paths_file)], where)


def _lines_of(file: str) -> list[str]:
    from zsbir.base.storage import local_path
    from zsbir.base.textfile import decode_text, text_lines

    if not file:
        return []
    try:
        data = local_path(file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the paths in {file!r}: {error.strerror}") from None
    return [line for line in text_lines(decode_text(data, file)) if line]


def _parse_compact(argv: Sequence[str]) -> str:
    parser = _growth_parser(
        "compact", "Copy the photos of an index into one segment, without those that were deleted. Nothing is embedded."
    )
    parser.add_argument(
        "--graph", action="store_true", help="link the photos, so that plain searches of millions take milliseconds"
    )
    parser.add_fields(
        Settings, title="where it is stored, by default beside the index", skip=frozenset({"num_workers", "gpus_per_worker"})
    )
    parsed, values = parser.values(argv)
    uri, where = _located(parsed.index, values)
    return perform(partial(compact_index, graph=parsed.graph), uri, where)


def _parse_reembed(argv: Sequence[str]) -> str:
    parser = _growth_parser(
        "reembed",
        "Embed the photos of an index again, with another run's encoder: those of all its galleries that are not deleted, with what"
        " is known of them. Photos that are gone are left out, and those that have changed are taken as they are now.",
    )
    parser.add_argument(
        "--run", required=True, metavar="URI", help="Run artifact, or models:/NAME@challenger, whose encoder embeds"
    )
    parser.add_fields(ReembedConfig, title="photos")
    parser.add_fields(Settings, title="where it is stored, by default beside the index")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, ReembedConfig, Settings)
    from zsbir.edge.model_address import artifact_address

    run = artifact_address(parsed.run, "run", Settings.of(settings).root)
    uri, where = _located(parsed.index, settings)
    return perform(reembed_index, uri, run, ReembedConfig.of(config), where)


GROWTH: Mapping[str, Callable[[Sequence[str]], str]] = {
    "update": _parse_update, "add": _parse_add, "delete": _parse_delete, "compact": _parse_compact, "reembed": _parse_reembed,
}  # fmt: skip
"""Commands that make a new index of one that is there."""


if __name__ == "__main__":
    cli.main(_parse)
