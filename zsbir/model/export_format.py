"""What a configuration may choose of an export. Importing this module does not load torch."""

from typing import Literal

Format = Literal["pt2", "onnx"]
FILES: dict[Format, str] = {"pt2": "encoder.pt2", "onnx": "encoder.onnx"}
"""The file of each format in an Export artifact."""

OLDEST_OPSET, NEWEST_OPSET = 18, 23
"""Versions of ONNX's operators, from what torch writes without converting to what ONNX Runtime 1.23 reads."""
