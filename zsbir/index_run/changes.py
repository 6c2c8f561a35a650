"""What is to change in an index: the photos of a folder compared with it by path, size and time, and paths that are named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.data.gallery import Gallery
from zsbir.data.index_files import IndexFiles
from zsbir.data.originals import Source
from zsbir.data.passed_over import PassedOver
from zsbir.index_run.building import folder_with_source, warn_of_unknown
from zsbir.index_run.growing import Change
from zsbir.index_run.metadata import PATH, Metadata, read_metadata


def folder_change(base: IndexFiles, folder: str, metadata_uri: str, *, delete_gone: bool) -> Change:
    """Return what makes an index agree with a folder: new photos are added, changed ones replaced.

    delete_gone: photos of that folder that are no longer in it go; photos of other galleries never do. A replaced photo keeps its
    metadata unless the file has others. Raises InputError where there is no folder, or no image in it.
    """
    passed = PassedOver()
    gallery, source = folder_with_source(folder, passed)
    passed.show(f"passed over in {source.uri}")
    given = read_metadata(metadata_uri)
    warn_of_unknown(given, gallery)
    rows = rows_from(base, source)
    # Photos that are there already are in the folder as they were if its digest is what it was, also where no times are known.
    unchanged = _digest_before(base) == source.digest
    found, same = compared(base, rows, gallery, unchanged=unchanged)
    hit = np.zeros(len(base), bool)
    hit[found[found >= 0]] = True
    gone = rows[~hit[rows]] if delete_gone else rows[:0]
    replaced = found[(found >= 0) & ~same]
    renewed, renewed_by = _renewed(base, rows, given, np.concatenate([gone, replaced]))
    return Change(
        deleted=np.sort(np.concatenate([gone, replaced])),
        renewed=renewed,
        renewed_by=renewed_by,
        added=gallery.chosen(np.flatnonzero(~same).tolist()),
        source=source,
        metadata=_with_kept(given, base, rows, replaced),
        passed=passed,
    )


def deletion(base: IndexFiles, paths: Sequence[str]) -> Change:
    """Return the deletion of photos by path; a path that ends in "/" stands for all below it.

    Raises InputError where one of them is not in the index.
    """
    wanted = list(dict.fromkeys(paths))
    if not wanted:
        raise InputError("no path to delete: pass --path PATH, or --paths-file FILE with a path on each line")
    alive = np.ones(len(base), bool) if base.alive is None else base.alive
    exact = pa.array([path for path in wanted if not path.endswith("/")], pa.string())
    places = pc.fill_null(pc.index_in(base.paths, exact), -1).to_numpy()
    marked = (places >= 0) & alive
    lost = set(range(len(exact))) - set(places[marked].tolist())
    if lost:
        raise InputError(f"{base.index.uri} has no photo {clean(exact[min(lost)].as_py()[:300])!r}: nothing was deleted")
    for path in wanted:
        if path.endswith("/"):
            below: np.ndarray = pc.starts_with(base.paths, path).to_numpy() & alive
            if not below.any():
                raise InputError(f"{base.index.uri} has no photo below {clean(path[:300])!r}: nothing was deleted")
            marked |= below
    return Change(deleted=np.flatnonzero(marked))


def only_folder(base: IndexFiles) -> str:
    """Return the folder that an index's photos come from. Raises InputError where that is not one folder alone."""
    found = {source.folder for segment in base.segments for source in segment.sources}
    if len(found) != 1 or not (folder := found.pop()):
        raise InputError(
            f"{base.index.uri} has photos of {'several galleries' if found else 'a data set'}: say which folder it is to agree with"
        )
    return folder


def rows_from(base: IndexFiles, source: Source) -> Int64[np.ndarray, "m"]:
    """Return the rows of photos from a folder that are not deleted."""
    alive = np.ones(len(base), bool) if base.alive is None else base.alive.copy()
    for number, segment in enumerate(base.segments):
        ours = np.array([(each.kind, each.uri) == (source.kind, source.uri) for each in segment.sources])
        alive[base.starts[number] : base.starts[number + 1]] &= ours[segment.source_numbers()]
    return np.flatnonzero(alive)


def _digest_before(base: IndexFiles) -> str:
    """Return the digest of the folder that an index is of, where all of its photos were read from it at once; else ""."""
    whole = len(base.segments) == 1 and base.alive is None and len(base.segments[0].sources) == 1
    return base.segments[0].sources[0].digest if whole else ""


def compared(
    base: IndexFiles, rows: Int64[np.ndarray, "m"], gallery: Gallery, *, unchanged: bool = False
) -> tuple[Int64[np.ndarray, "g"], Bool[np.ndarray, "g"]]:
    """Return the row of each of a gallery's photos, -1 for new ones, and whether it is as it was by size and time.

    rows: of the photos that come from that gallery. unchanged: all of them are known to be as they were.
    """
    paths = pa.array([path for path, _ in gallery.entries], pa.string())
    places = pc.fill_null(pc.index_in(paths, base.paths.take(pa.array(rows))), -1).to_numpy(zero_copy_only=False)
    found = np.where(places >= 0, rows[places] if len(rows) else -1, -1).astype(np.int64)
    sizes, times = base.stamps()
    now = np.array([stamp[1:] for stamp in gallery.stamps] or np.zeros((len(gallery), 2)), np.int64).reshape(-1, 2)
    same = (found >= 0) & ((sizes[found] == now[:, 0]) & (times[found] == now[:, 1]) | unchanged)
    return found, same


def _renewed(
    base: IndexFiles, rows: Int64[np.ndarray, "m"], given: Metadata, going: Int64[np.ndarray, "g"]
) -> tuple[Int64[np.ndarray, "r"], Int64[np.ndarray, "r"]]:
    """Return the rows that stay and get other metadata, and the rows of the metadata that they get."""
    if not given.kinds or not len(rows):
        return rows[:0], rows[:0]
    stay = rows[~np.isin(rows, going)]
    known = given.rows_of(base.paths.take(pa.array(stay)).to_pylist())
    stay, known = stay[known >= 0], known[known >= 0]
    other = np.zeros(len(stay), bool)
    for name, values in given.columns(known).items():
        if name not in base.columns:
            other |= pc.is_valid(values).to_numpy(zero_copy_only=False)
            continue
        old = base.columns[name].take(pa.array(stay)).combine_chunks()
        if old.type != values.type:
            raise InputError(
                f"{base.index.uri}: column {clean(name)!r} is {old.type} there and {values.type} in the file of metadata"
            )
        differs = pc.or_(pc.xor(pc.is_null(old), pc.is_null(values)), pc.fill_null(pc.not_equal(old, values), False))
        other |= differs.to_numpy(zero_copy_only=False)
    return stay[other], known[other]


def _with_kept(given: Metadata, base: IndexFiles, rows: Int64[np.ndarray, "m"], replaced: Int64[np.ndarray, "r"]) -> Metadata:
    """Return metadata with what was known of replaced photos, except for what the file says of paths that it names itself.

    rows: of the gallery's photos. Columns that the file lacks hold what is known of the paths that it names.
    """
    if not base.columns or not len(replaced):
        return given
    places = pc.index_in(given.table[PATH], base.paths.take(pa.array(rows)))
    lacking = {name: column for name, column in base.columns.items() if name not in given.kinds}
    known = {name: column.take(pa.array(rows)).take(places) for name, column in lacking.items()}
    named = pa.table({**dict(zip(given.table.column_names, given.table.columns, strict=True)), **known})
    wanted = pa.array(replaced)
    kept = pa.table({PATH: base.paths.take(wanted), **{name: column.take(wanted) for name, column in base.columns.items()}})
    kept = kept.filter(pc.invert(pc.is_in(kept[PATH], given.table[PATH])))
    try:
        return Metadata(pa.concat_tables([named, kept], promote_options="default"), given.sha256)
    except pa.ArrowException as error:
        line = " ".join(str(error).split())[:300]
        raise InputError(f"{base.index.uri}: the file of metadata does not fit what is known already: {line}") from None
