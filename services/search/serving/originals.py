"""Photos in full size: read only below allowed paths, decoded and encoded again, so that nothing but pixels leaves the service."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from services.common.errors import NotFound
from services.search.serving.catalogue import Served
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError
from zsbir.base.storage import is_remote, join
from zsbir.data.images import BadImage, decode

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine

SIDE_PX = 2048
"""The longer side of a photo that is shown, in pixels."""

QUALITY = 90


class Originals:
    """Reads the photos of indexes. allowed: where they may lie."""

    def __init__(self, allowed: AllowedPaths):
        self._allowed = allowed
        self._known: dict[tuple[str, str], bool] = {}

    def may_read(self, served: Served, row: int) -> bool:
        """Return whether the gallery of a photo lies where photos may be read."""
        try:
            where = served.engine.files.gallery_of(row).uri
        except InputError:
            return False
        key = (served.digest, where)
        if key not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[key] = self._is_allowed(where)
        return self._known[key]

    def read(self, served: Served, row: int) -> bytes:
        """Return a photo as a JPEG file, at most `SIDE_PX` wide and high. NotFound where it cannot be shown."""
        if not self.may_read(served, row):
            raise NotFound(f"the photos of this index lie outside of what this service shows ({self._allowed})")
        try:
            self._check_path(served.engine, row)
            image = decode(served.engine.files.original(row))
        except (BadImage, InputError) as error:
            raise NotFound(f"photo {row} cannot be shown: {error}") from None
        image.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def _check_path(self, engine: Engine, row: int) -> None:
        """Raise InputError for a photo that a link leads to from an allowed folder."""
        folder = engine.files.source_of(row)
        if folder and not is_remote(folder):
            self._allowed.check("photo", join(folder, *engine.files.paths[row].as_py().split("/")))

    def _is_allowed(self, uri: str) -> bool:
        try:
            self._allowed.check("gallery", uri)
        except InputError:
            return False
        return True
