"""Which sketches are queries and which photos are searched: an evaluation protocol is a named, versioned value.

    name                  queries                     gallery
    zero_shot             unseen sketches             unseen photos
    zero_shot_dedup       unseen sketches             unseen photos, each once a class, judged by its bytes
    dev                   held-out seen sketches      photos of the same classes
    generalised_all       unseen sketches             all photos, seen and unseen
    generalised_sem_pcyc  unseen sketches, and a      unseen photos, and a fifth as many seen ones
                          fifth as many seen ones     (both drawn at random, as in SEM-PCYC's `src/test.py`)
    expanded              as zero_shot                as zero_shot; ranked with the search options of the protocol
    dev_expanded          as dev                      as dev; ranked likewise

An expanded protocol uses the gallery as a whole: what is ranked for a query depends on the other photos, though not on other
queries or on anyone's labels. So its numbers stand under a name of their own, and none of another protocol compares with them.

Training, sweeps and the choice of a checkpoint see `dev` alone.

The public Sketchy lists put 100 photos a class into the gallery twice, hence the dedup variant beside the published one.
"""

from __future__ import annotations

from typing import Annotated, Literal, runtime_checkable
from typing import Protocol as Interface

import numpy as np
from jaxtyping import Bool, Int8, Int32, Int64
from pydantic import Field

from zsbir.base.config import Added, Config, unknown_name
from zsbir.base.errors import InputError
from zsbir.data.domains import DOMAINS, SPLITS
from zsbir.data.requirements import missing_side
from zsbir.retrieval.options import PLAIN, SearchOptions

SEM_PCYC_SHARE = 0.2
"""Seen samples added for each unseen one, rounded down (SEM-PCYC's code)."""


@runtime_checkable
class SampleTable(Interface):
    """The columns of a data set that a protocol reads, all of one length, one entry an image."""

    @property
    def domain(self) -> Int8[np.ndarray, "n"]:
        """The image's domain as an index into DOMAINS."""

    @property
    def class_id(self) -> Int32[np.ndarray, "n"]:
        """The class of each image, as an index into the data set's list of classes."""

    @property
    def split(self) -> Int8[np.ndarray, "n"]:
        """The split of the image's class as an index into SPLITS."""

    @property
    def sha256(self) -> np.ndarray:
        """Digest of the image's bytes, as text."""


class Protocol(Config):
    """One way to evaluate. A change of what it selects or computes raises `version`: equal labels are comparable."""

    name: str = Field(description="under which results are filed")
    version: int = Field(1, ge=1, description="raised when the same name comes to mean something else")
    setting: Literal["zero_shot", "generalised_all", "generalised_sem_pcyc"] = Field(
        "zero_shot", description="whether seen classes join the gallery, or both sides"
    )
    split: Literal["dev", "unseen"] = Field("unseen", description="whose sketches are the queries")
    primary: str = Field("map_all", description="the metric that decides")
    dedup: bool = Field(False, description="drop gallery photos whose class and bytes another one has")
    seed: int = Field(0, ge=0, description="of the draw of seen samples, where the setting has one")
    options: Annotated[SearchOptions, Added(neutral=PLAIN)] = Field(
        PLAIN, description="what is done to embeddings before they are ranked, as a search service does it"
    )

    def label(self) -> str:
        """Name and version, as results are labelled: `zero_shot v1`."""
        return f"{self.name} v{self.version}"


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="zero_shot"),
        Protocol(name="zero_shot_dedup", dedup=True),
        Protocol(name="dev", split="dev"),
        Protocol(name="generalised_all", setting="generalised_all"),
        Protocol(name="generalised_sem_pcyc", setting="generalised_sem_pcyc"),
        Protocol(name="expanded", options=SearchOptions()),
        Protocol(name="dev_expanded", split="dev", options=SearchOptions()),
    )
}
"""The protocols results are published under."""


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name. Raises InputError with a suggestion where there is none."""
    if name not in PROTOCOLS:
        raise InputError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def select(samples: SampleTable, protocol: Protocol) -> tuple[Int64[np.ndarray, "q"], Int64[np.ndarray, "g"]]:
    """Return positions of query sketches and of gallery photos, each ascending: ties in a ranking fall to the earlier sample.

    Raises InputError where the split has no sketch or no photo. A query class without photos is found by the metrics.
    """
    own = samples.split == SPLITS.index(protocol.split)
    sketch, photo = samples.domain == DOMAINS.index("sketch"), samples.domain == DOMAINS.index("photo")
    queries, gallery = np.flatnonzero(own & sketch), np.flatnonzero(own & photo)
    for side, found in (("sketch", queries), ("photo", gallery)):
        if not len(found):
            raise InputError(missing_side(f"protocol {protocol.label()}", protocol.split, side))
    # `unseen` never counts as seen, and neither does the split asked about: a dev protocol does not open the unseen classes.
    seen = samples.split < SPLITS.index(protocol.split)
    if protocol.setting == "generalised_all":
        gallery = np.flatnonzero((own | seen) & photo)
    if protocol.setting == "generalised_sem_pcyc":
        sketches, photos = _seen_samples(samples, seen, (len(queries), len(gallery)), protocol)
        queries, gallery = np.union1d(queries, sketches), np.union1d(gallery, photos)
    return queries, _distinct(samples, gallery) if protocol.dedup else gallery


def check_contest(samples: SampleTable, gallery: Int64[np.ndarray, "g"], protocol: Protocol) -> None:
    """Raise InputError for a gallery of a single class, in which every photo is right."""
    if len(np.unique(samples.class_id[gallery])) == 1:
        flags = "--unseen-classes, --unseen-frac" if protocol.split == "unseen" else "--dev-classes, --dev-frac"
        raise InputError(
            f"there is a single {protocol.split} class to search, and every score of a search among one class is 1: ingest again,"
            f" with two classes or more ({flags})"
        )


def _seen_samples(
    samples: SampleTable, seen: Bool[np.ndarray, "n"], unseen: tuple[int, int], protocol: Protocol
) -> tuple[Int64[np.ndarray, "s"], Int64[np.ndarray, "p"]]:
    """Draw seen sketches and photos to add, given how many unseen ones there are of either.

    Sketches come from classes of the drawn photos alone, so that each query has a relevant photo. That restriction is this
    project's choice; on the public data sets every seen class is among the drawn photos anyway.
    """
    random = np.random.default_rng(protocol.seed)
    photos = _draw(np.flatnonzero(seen & (samples.domain == DOMAINS.index("photo"))), unseen[1], random)
    answerable = seen & np.isin(samples.class_id, samples.class_id[photos])
    sketches = _draw(np.flatnonzero(answerable & (samples.domain == DOMAINS.index("sketch"))), unseen[0], random)
    return sketches, photos


def _draw(positions: Int64[np.ndarray, "n"], unseen: int, random: np.random.Generator) -> Int64[np.ndarray, "m"]:
    return random.choice(positions, min(int(SEM_PCYC_SHARE * unseen), len(positions)), replace=False)


def _distinct(samples: SampleTable, gallery: Int64[np.ndarray, "g"]) -> Int64[np.ndarray, "m"]:
    """Keep the first of the photos that share class and bytes."""
    pairs = zip(samples.class_id[gallery].tolist(), samples.sha256[gallery].tolist(), strict=True)
    first = {pair: position for position, pair in reversed(list(enumerate(pairs)))}
    return gallery[np.sort(np.fromiter(first.values(), np.int64, len(first)))]
