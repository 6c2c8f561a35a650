"""Files as a stranger may make them: small, and asking for more than any machine has."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def repeated_text(rows: int, length: int) -> pa.Array:
    """Return a column of one long text, stored once in a dictionary."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * length]))


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd", **options)


def with_smaller_footer(path: Path) -> None:
    """Rewrite the footer so that each size in it that is large reads as another, smaller one of as many bytes.

    Sizes are stored as zigzag varints. What is left is a valid file whose footer tells a reader that little memory is needed.
    """
    data = bytearray(path.read_bytes())
    length = struct.unpack("<i", data[-8:-4])[0]
    start = len(data) - 8 - length
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            size = metadata.row_group(group).column(number).total_uncompressed_size
            if size > 2**21:
                old = _varint(size)
                at = data.index(old, start)
                data[at : at + len(old)] = _varint(2 ** (7 * (len(old) - 1) - 1))
    path.write_bytes(data)


def _varint(value: int) -> bytes:
    value = value << 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def npy(shape: str, descr: str = "'<f4'", order: str = "False", data: bytes = b"") -> bytes:
    """Return a .npy file whose header says this."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header says that it is so large."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 255).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg(width: int = 8, height: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def jpeg_of_size(width: int, height: int) -> bytes:
    """Return a JPEG whose header says that it is so large."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n(/tmp/owned) (w) file closefile\nshowpage\n"
"""A thumbnail that Pillow would hand to Ghostscript, which runs it as a program."""
