"""Addresses of registered models, and the artifacts that the tags of a version name.

    models:/zsbir@champion      the version that has the alias champion at this moment
    models:/zsbir/3             version 3

Whoever may write to the registry writes the tags, both the address and the digests that the artifact there must have. So a tag is
checked like any text from elsewhere, and leads to nothing but a whole artifact of the kind that is asked for, in a storage root:
this one, or any other that the reader may open. Jobs of the queue open only what lies in their allowed paths (`permitted`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import digest_of
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import ARTIFACT_FOLDERS, below_root
from zsbir.base.storage import is_remote, join, local_path
from zsbir.base.text import clean

DEFAULT_MODEL = "zsbir"
"""The registered model that commands mean where none is named."""

MODEL_PATTERN = r"[a-z0-9][a-z0-9_.-]{0,62}"
"""What the name of a registered model may be."""

OLDER_NAMES = re.compile(r"zsbir-[a-z0-9]+-[0-9]+")
"""Names that earlier versions gave to registered models: one for each backbone and dimension."""

LONGEST_ADDRESS = 1000
"""Characters of an address in a tag that is followed."""

Named = Literal["run", "index"]
"""What a version of a registered model names."""

_SCHEME = "models:/"
_ALIAS, _VERSION = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", r"[1-9][0-9]{0,8}"
_ADDRESS = re.compile(rf"models:/(?P<model>{MODEL_PATTERN})(?:@(?P<alias>{_ALIAS})|/(?P<version>{_VERSION}))")
_TAGS: Mapping[Named, str] = {"run": "run_uri", "index": "index"}


@dataclass(frozen=True)
class ModelAddress:
    """`models:/MODEL@ALIAS` or `models:/MODEL/VERSION`; the other one of alias and version is empty."""

    model: str
    alias: str
    version: str


@dataclass(frozen=True)
class Promoted:
    """The artifact that an address of a registered model leads to, for good: an alias may move on.

    version: the version's own address. digest: of the artifact.
    """

    asked: str
    version: str
    kind: Named
    uri: str
    digest: str

    def sentence(self) -> str:
        """Return it as a line for people."""
        version = self.version if self.asked == self.version else f"{self.asked} is {self.version}"
        return clean(f"{version}: {self.kind} {self.uri} (digest {self.digest[:16]})")


def is_model_name(text: str) -> bool:
    """Return whether a text can be the name of a registered model of this project."""
    return re.fullmatch(MODEL_PATTERN, text) is not None


def is_model_address(text: object) -> bool:
    """Return whether a value is meant as the address of a registered model, well formed or not."""
    return isinstance(text, str) and text.lower().startswith(_SCHEME)


def parse_address(text: str) -> ModelAddress:
    """Return the parts of an address. Raises InputError for any other text."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise InputError(
            f"{clean(text[:100])!r} is not the address of a registered model: write models:/NAME@champion or models:/NAME/3;"
            " python -m zsbir.promote list shows the names and versions"
        )
    return ModelAddress(found["model"], found["alias"] or "", found["version"] or "")


def artifact_of(
    version: str, tags: Mapping[str, str], kind: Named, *, root: str, permitted: Callable[[str], str] | None = None
) -> Artifact:
    """Return the run or the index that the tags of a version name, in this root or where it was.

    tags: without their prefix `zsbir.`. permitted: returns the address to open in place of one from a tag, or raises InputError.
    Raises InputError where the artifact is gone, another one, or may not be read; RunError where the storage does not answer.
    """
    tagged, digest = tags.get(_TAGS[kind], ""), tags.get(f"{kind}_digest", "")
    if not tagged or not digest:
        raise InputError(
            f"{version} names no {kind}: python -m zsbir.promote did not register it; give the address of the {kind} itself"
        )
    problems, unreachable = [], False
    for place in places(tagged, kind, root):
        try:
            where = permitted(place) if permitted else place
            if not exists(where):
                problems.append(f"nothing is at {where}")
            elif wrong := _difference(found := Artifact(where, kind), kind, tags):
                problems.append(f"{where} is {wrong}")
            else:
                return found
        except (RunError, OSError) as error:
            problems.append(str(error))
            unreachable = True
        except InputError as error:
            problems.append(str(error))
    told = clean("; ".join(problems) or f"its tag {tagged[:100]!r} is not the address of {_article(kind)}")
    way_out = _way_out(version, kind)
    if unreachable:
        raise RunError(f"the {kind} of {version} cannot be read ({told}): try again when the storage answers, or {way_out}")
    raise InputError(f"the {kind} of {version} is gone ({told}): {way_out}")


def places(tagged: str, kind: str, root: str) -> Sequence[str]:
    """Return where an artifact of a tag may lie: in this root, then where it was. None for a tag that is no such address."""
    parts = tagged.removeprefix("s3://").split("/")
    if len(tagged) > LONGEST_ADDRESS or not tagged.isprintable() or ".." in parts or "\\" in tagged:
        return []
    try:
        below = below_root(tagged)
        folder = ARTIFACT_FOLDERS.get(below.partition("/")[0])
        if folder is None or folder.kind != kind:
            return []
        # A relative address was relative to the folder in which somebody promoted, which is not known here.
        was_there = [tagged] if is_remote(tagged) or local_path(tagged).is_absolute() else []
    except InputError:
        return []
    return list(dict.fromkeys([join(root, *below.split("/")), *was_there]))


def _difference(found: Artifact, kind: Named, tags: Mapping[str, str]) -> str:
    """Return in which way an artifact is not the one that was promoted; "" if it is."""
    if found.digest != tags[f"{kind}_digest"]:
        return f"another {kind} (digest {found.digest[:16]}, promoted was {tags[f'{kind}_digest'][:16]})"
    if kind == "index":
        made_by = found.manifest.reference("run")
        if made_by is None or made_by.digest != tags.get("run_digest"):
            return "an index of another run"
        same = files_digest(found) == tags.get("index_files", files_digest(found))  # earlier versions have no such tag
        return "" if same else "the same index made again with another result"
    encoder = found.manifest.files.get("encoder.safetensors")
    # The digest is of what was asked for: the same training done again need not end in the same numbers.
    return "" if encoder and encoder.sha256 == tags.get("encoder_sha256") else "the same training with another result"


def files_digest(artifact: Artifact) -> str:
    """Return a digest of what an artifact's files hold. Its own digest is of what was asked for, not of what came of it."""
    return digest_of([[name, entry.sha256] for name, entry in sorted(artifact.manifest.files.items())])


def _article(kind: Named) -> str:
    return "an index" if kind == "index" else "a run"


def _way_out(version: str, kind: Named) -> str:
    bring = "bring it back with python -m zsbir.artifacts copy"
    if kind == "index":
        return f"{bring}, or make it again with python -m zsbir.index {version} and promote the model's report with it"
    return f"{bring}, or promote another run"
