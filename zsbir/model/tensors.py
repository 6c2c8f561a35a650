"""Tensors to disk as safetensors, a full disk being the user's news rather than a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zsbir.base.errors import RunError


def save_tensors(tensors: Mapping[str, Tensor], path: Path, facts: Mapping[str, str] | None = None) -> None:
    """Write `tensors`, with `facts` as the file's metadata. RunError where they cannot be written."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, dict(facts or {}))
    except (SafetensorError, OSError) as error:
        raise RunError(f"cannot write {path}: {' '.join(str(error).split())}") from None
