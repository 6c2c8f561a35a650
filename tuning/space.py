"""What a sweep may vary: ranges and choices over the fields of a training configuration, as data.

A space is a YAML mapping, or one of SPACES by name:

    margin_cross: {low: 0.05, high: 0.6}
    weight_quadruplet: {low: 0.3, high: 3, log: true}
    lr: {low: 0.3, high: 3, log: true, relative: true}     # times the base configuration's value
    batch_norm: [frozen, sync]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from zsbir.base.config import Config, read_yaml, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.seeds import stream
from zsbir.losses.registry import unknown_field
from zsbir.training.config import TrainConfig

DIGITS = 6
"""Significant digits of a sampled number, which goes into files and tables that people read."""

EDGE = 1e-5
"""How far a value may lie beyond the end of a range by rounding, as a share of the range."""

NOT_VARIED = frozenset(
    {"recipe", "losses", "steps", "epochs", "eval_every_steps", "checkpoint_every_steps", "log_every_steps", "train_on_dev"}
)
"""Fields that decide how long a trial trains and how it is scored: trials that differ in them cannot be compared."""


class Range(Config):
    """Numbers from `low` to `high`, both included. relative: bounds are factors of the base configuration's value."""

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="sample evenly in the logarithm")
    relative: bool = Field(False, description="bounds are factors of the base configuration's value")
    points: int = Field(3, ge=1, description="values in a grid search")
    whole: bool = Field(False, description="whole numbers; set automatically for fields that hold them")

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got {self.low:g}")
        return self

    def at(self, share: float) -> float:
        """Return the value at a share in [0, 1] of the way from low to high."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else rounded(value)

    def share_of(self, value: float) -> float:
        """Return the share of a value, the inverse of `at`; outside [0, 1] for a value out of range."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low)) if value > 0 else -1.0
        return (value - self.low) / (self.high - self.low)

    def grid(self) -> list[float]:
        """Return `points` values, evenly spaced from low to high."""
        values = [self.at(number / (self.points - 1) if self.points > 1 else 0.5) for number in range(self.points)]
        return list(dict.fromkeys(values))


class Choice(Config):
    """A dimension of a search space: a field that takes one of the values listed."""

    values: tuple[Any, ...] = Field(min_length=1, description="the values")

    def at(self, share: float) -> Any:
        """Return the value at a share in [0, 1) of the list."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def grid(self) -> list[Any]:
        """Return the values that a grid search tries for the field: all that are listed."""
        return list(self.values)


Dimension = Range | Choice
Space = dict[str, Dimension]
"""Dimensions by the field they vary, with absolute bounds: relative ones are resolved."""

_WEIGHT = {"low": 0.3, "high": 3.0, "log": True}
_MARGIN = {"low": 0.05, "high": 0.6}
_RATE = {"low": 0.3, "high": 3.0, "log": True, "relative": True}

SPACES: dict[str, dict[str, Any]] = {
    "losses": {
        "weight_quadruplet": _WEIGHT,
        "weight_classification": _WEIGHT,
        "weight_preservation": {"low": 0.03, "high": 3.0, "log": True},
        "margin_cross": _MARGIN,
        "margin_same": _MARGIN,
    },
}
SPACES["training"] = SPACES["losses"] | {
    "temperature": {"low": 0.02, "high": 0.2, "log": True},
    "lr": _RATE,
    "lr_backbone": _RATE,
}
SPACES["all"] = SPACES["training"] | {
    "batch_norm": ["frozen", "sync"],
    "crop_scale_min": {"low": 0.4, "high": 1.0},
    "rotation_deg": {"low": 0.0, "high": 20.0},
    "colour_jitter": {"low": 0.0, "high": 0.5},
    "stroke_width_prob": {"low": 0.0, "high": 0.6},
    "stroke_erase_prob": {"low": 0.0, "high": 0.5},
}
"""Spaces by name. losses: weights and margins; training: also temperature and learning rates; all: also augmentation."""


def open_space(name: str, base: TrainConfig) -> Space:
    """Return the space of that name or in that YAML file, for a base configuration.

    Raises InputError for an unknown name, a field that does not exist or may not vary, and bounds that the configuration rejects.
    """
    if name in SPACES:
        return read_space(SPACES[name], base, where=f"space {name!r}")
    if not name.endswith((".yaml", ".yml")):
        raise InputError(unknown_name("space", name, SPACES) + "; or pass a .yaml file")
    return read_space(read_yaml(name), base, where=f"space {Path(name).name!r}")


def read_space(values: Mapping[str, Any], base: TrainConfig, *, where: str = "space") -> Space:
    """Return a space from plain data. Raises InputError as `open_space` does."""
    if not values:
        raise InputError(f"{where}: nothing varies; name a field, {{low, high}} or a list of values")
    space = {field: _dimension(field, value, base, where) for field, value in values.items()}
    for field, dimension in space.items():
        for value in dimension.grid():
            try:
                base.replace(**{field: value})
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
    return space


def _dimension(field: str, value: Any, base: TrainConfig, where: str) -> Dimension:
    fields = TrainConfig.all_fields(base.losses)
    if field not in fields:
        raise InputError(f"{where}: {unknown_field(field, fields, base.losses)}")
    if field in NOT_VARIED:
        raise InputError(
            f"{where}: {field} cannot vary: trials of different {field} cannot be compared; set it for all with --config"
        )
    if isinstance(value, list | tuple):
        return Choice.of({"values": value}, where=f"{where}, {field}")
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {field} must be {{low: ..., high: ...}} or a list of values, got {value!r}")
    whole = fields[field].annotation is int
    found = Range.of({"whole": whole, **value}, where=f"{where}, {field}")
    if not found.relative:
        return found
    start = getattr(base, field)
    if not isinstance(start, int | float) or isinstance(start, bool) or start <= 0:
        raise InputError(f"{where}: {field} cannot be relative: the base configuration has {start!r}")
    return found.replace(low=rounded(found.low * start), high=rounded(found.high * start), relative=False)


def rounded(value: float) -> float:
    """Round to DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


def random_point(space: Space, *, seed: int, number: int) -> dict[str, Any]:
    """Return the random configuration of a number: a pure function, so that a sweep that goes on draws the same ones."""
    random = stream("random trial", seed, number)
    return {field: dimension.at(float(random.random())) for field, dimension in space.items()}


def grid_points(space: Space) -> Iterator[dict[str, Any]]:
    """Yield every combination, the last field varying fastest."""
    for values in product(*(dimension.grid() for dimension in space.values())):
        yield dict(zip(space, values, strict=True))


def contains(space: Space, point: Mapping[str, Any]) -> bool:
    """Return whether `point` has a value within the space for every field of it."""
    return all(
        field in point
        and (
            -EDGE <= dimension.share_of(point[field]) <= 1 + EDGE
            if isinstance(dimension, Range)
            else point[field] in dimension.values
        )
        for field, dimension in space.items()
    )


def as_yaml(space: Space) -> str:
    """Return the space as YAML text that `open_space` reads."""
    plain = {
        field: list(dimension.values) if isinstance(dimension, Choice) else dimension.model_dump(exclude_defaults=True)
        for field, dimension in space.items()
    }
    return str(yaml.safe_dump(plain, sort_keys=False))
