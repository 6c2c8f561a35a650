"""Pre-trained classifiers: torchvision's own, or a file checked by sha256. Never pickle, never random where a file is missing.

Whatever the source, the weights are kept as `<root>/weights/<sha256>.safetensors`, so that a run needs no network later and its
lineage names bytes, not addresses.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from zsbir.base import layout
from zsbir.base.errors import DiskFull, InputError, RunError, Unreachable
from zsbir.base.fetch import fetch
from zsbir.base.files import is_full, sha256_file
from zsbir.base.filetypes import HEAD_BYTES, what_is
from zsbir.base.outages import outage_of
from zsbir.base.storage import join, open_folder
from zsbir.model.backbones import network_of
from zsbir.model.choices import TIMM, TORCHVISION_BACKBONES

TORCHVISION = {"imagenet": "IMAGENET1K_V1", "imagenet_v2": "IMAGENET1K_V2"}
"""Names for torchvision's own weights; V1 are those of the ZS-SBIR literature."""

IMAGENET_LABELS = 1000

# What torch, safetensors and the reading of metadata raise for damaged files.
_UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)


@dataclass(frozen=True)
class Weights:
    """A trained classifier's parameters (float32) under torchvision's names, and the names of its labels."""

    backbone: str
    sha256: str
    uri: str
    labels: tuple[str, ...]
    state: dict[str, Tensor]

    @property
    def classifier(self) -> tuple[Tensor, Tensor]:
        """The parameters of the last layer: weight [t f], bias [t]."""
        name = network_of(self.backbone).classifier
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]


def load_weights(source: str, *, backbone: str, root: str | Path, sha256: str = "") -> Weights:
    """Load weights of `backbone` from `source` and keep them under `root` (a path or `s3://bucket/prefix`).

    source: "imagenet" or "imagenet_v2" (torchvision downloads them), a path or `s3://` URI of a state dict (`.pth`, read with
    weights_only, or `.safetensors`; float16 is converted). `sha256`, where given, must be the file's.
    Raises InputError when there is no file, the checksum differs, the file holds another network, or numbers in it are not finite;
    Unreachable when a download fails for want of a network or an answer, DiskFull when there is no room for it.
    """
    network_of(backbone)  # what is no backbone is told before anything is downloaded for it
    if source in TORCHVISION:
        state, labels = _from_torchvision(source, backbone) if backbone in TORCHVISION_BACKBONES else _from_timm(source, backbone)
    else:
        state, labels = _from_file(source, backbone, sha256)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    _check_network(state, backbone, source)
    check_finite(state, source)
    count = len(state[f"{network_of(backbone).classifier}.weight"])
    labels = labels or _default_labels(count)
    if len(labels) != count:
        raise InputError(f"{source} names {len(labels)} labels, but its classifier has {count}")
    uri, sha256 = save_weights(state, backbone=backbone, labels=labels, root=root)
    return Weights(backbone, sha256, uri, labels, state)


def open_weights(uri: str, *, backbone: str) -> Weights:
    """Open weights that `load_weights` has kept, by their address. Raises InputError when they are gone, damaged or not finite."""
    state, labels = _from_file(uri, backbone, "")
    check_finite(state, uri)
    return Weights(backbone, uri.rpartition("/")[2].removesuffix(".safetensors"), uri, labels, state)


def _from_torchvision(name: str, backbone: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    weights = torchvision.models.get_model_weights(backbone)
    if TORCHVISION[name] not in weights.__members__:
        raise InputError(f"torchvision has no weights {name!r} for {backbone}; use 'imagenet'")
    entry = weights[TORCHVISION[name]]
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    try:
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, HTTPException) as error:
        raise _download_error(error)(
            f"cannot download torchvision's {backbone} weights ({error}); without network pass --weights FILE, "
            f"a state dict of torchvision's {backbone} (.pth or .safetensors)"
        ) from error
    except _UNREADABLE as error:
        if not file.exists():  # torch removes a download whose checksum is wrong
            raise Unreachable(
                f"torchvision's {backbone} weights did not arrive whole ({_reason(error)}): try again later"
            ) from error
        raise InputError(f"torchvision's {backbone} weights are damaged ({_reason(error)}); remove {file}") from None
    return state, tuple(entry.meta["categories"])


def _from_timm(name: str, backbone: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Load the weights that timm names for one of its models."""
    if name != "imagenet" or not backbone.startswith(TIMM):
        raise InputError(f"there are no weights {name!r} for {backbone}; pass --weights FILE")
    from zsbir.model.timm_weights import pretrained  # timm takes a second to load

    model = backbone.removeprefix(TIMM)
    try:
        return pretrained(model), ()
    except Exception as error:
        raise _download_error(error)(
            f"cannot download timm's {model} weights ({_reason(error)}){'; try again later' if outage_of(error) else ''}; without"
            " network pass --weights FILE, its state dict (.pth or .safetensors)"
        ) from error


def _download_error(error: Exception) -> type[InputError] | type[RunError]:
    """Return the class of the error for a failed download: one that passes by itself, or one that the user must correct."""
    return outage_of(error) or InputError


def _from_file(source: str, backbone: str, sha256: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    path = fetch(source)
    found = sha256_file(path)
    kept = re.search(r"/weights/([0-9a-f]{64})\.safetensors$", source)
    expected = sha256 or (kept[1] if kept else "")
    if expected and found != expected:
        raise InputError(f"{source}: sha256 is {found}, expected {expected}: a wrong or damaged weight file")
    head = _head(path)
    try:
        return _read_safetensors(path, backbone) if _is_safetensors(path, head) else (_read_torch(path), ())
    except _UNREADABLE as error:
        reason = what_is(head) or _reason(error)
        raise InputError(f"{source} is not a readable weight file (.pth state dict or .safetensors): {reason}") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Return whether a file holds safetensors: by its bytes where they tell, else by its name, which people change."""
    is_torch = head.startswith((b"PK\x03\x04", b"\x80"))
    return head[8:9] == b"{" or (path.suffix == ".safetensors" and not is_torch)


def check_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Raise InputError where a network's parameters hold NaN or infinity: whatever it computes would be meaningless."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise InputError(
                f"{source}: {bad} of {tensor.numel()} numbers in {name!r} are NaN or infinite, so the weights are of no use:"
                " fetch the file again, or train them again with a lower learning rate"
            )


def _reason(error: Exception) -> str:
    """Return the first line of an error, but never torch's advice to read the file without weights_only."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something other than tensors, which is never run"
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__


def _read_safetensors(path: Path, backbone: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get("zsbir", "{}"))
    if facts.get("backbone", backbone) != backbone:
        raise InputError(f"{path} holds a {facts['backbone']}, not a {backbone}; pass --backbone {facts['backbone']}")
    return load_file(path), tuple(facts.get("labels", ()))


def _read_torch(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings(), path.open("rb") as file:  # an open file has no name from which torch would guess what it is
        warnings.simplefilter("ignore")  # torch comments on strange files; the error below says what is wrong in one line
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("not a state dict of tensors")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _check_network(state: dict[str, Tensor], backbone: str, source: str) -> None:
    network = network_of(backbone)
    last = state.get(f"{network.classifier}.weight")
    labels = len(last) if last is not None and last.ndim else IMAGENET_LABELS
    with torch.device("meta"):
        wanted = network.build(labels).state_dict()
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    wrong = sorted((set(wanted) ^ set(state)) - optional)
    wrong += [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        owner = "torchvision " if backbone in TORCHVISION_BACKBONES else ""
        raise InputError(f"{source} does not hold a {owner}{backbone} with its classifier: {wrong[0]!r}{more} differ")


def _default_labels(count: int) -> tuple[str, ...]:
    if count == IMAGENET_LABELS:
        return tuple(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return tuple(str(number) for number in range(count))


def save_weights(state: dict[str, Tensor], *, backbone: str, labels: tuple[str, ...], root: str | Path) -> tuple[str, str]:
    """Keep a classifier's parameters under `root`, named by checksum. Returns (URI, sha256)."""
    facts = json.dumps({"backbone": backbone, "labels": labels})
    data = save({name: tensor.contiguous() for name, tensor in sorted(state.items())}, {"zsbir": facts})
    sha256 = hashlib.sha256(data).hexdigest()
    folder, name = open_folder(layout.weights_folder(root)), f"{sha256}.safetensors"
    try:
        if folder.size(name) is None:
            folder.create(name, data)
    except OSError as error:
        kind = DiskFull if is_full(error) else RunError
        raise kind(f"cannot write the weights {join(folder.uri, name)}: {error.strerror}") from error
    return join(folder.uri, name), sha256
