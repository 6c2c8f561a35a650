"""The weights that timm names for its models, from Hugging Face: downloaded, or from its cache where the network is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from logging import ERROR as QUIET
from urllib.request import Request, urlopen

import timm
from torch import Tensor

from zsbir.base.outages import outage_of

ANSWER_S = 10.0
"""Seconds that Hugging Face has to answer before its cache is all that is asked."""


def pretrained(model: str) -> dict[str, Tensor]:
    """Return the state dict of a model of timm with its trained weights.

    Raises the error of the connection where the host does not answer and the cache has no such weights. huggingface_hub would try
    again for minutes, and say so line by line.
    """
    facts = timm.get_pretrained_cfg(model)
    away = _away() if facts is not None and facts.hf_hub_id else None
    with _quiet_hub(offline=away is not None):
        try:
            return dict(timm.create_model(model, pretrained=True).state_dict())
        except Exception as error:
            raise (away or error) from error


def _away() -> Exception | None:
    """Return why Hugging Face cannot be reached; None where it answers, whatever it answers, and where nobody is to ask it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=ANSWER_S):  # noqa: S310 - what HF_ENDPOINT names
            return None
    except (OSError, HTTPException) as error:
        return error if outage_of(error) else None


@contextmanager
def _quiet_hub(*, offline: bool) -> Iterator[None]:
    """Keep huggingface_hub from printing. offline: also from asking its host, so that only what it has cached is found."""
    from huggingface_hub import constants
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before, level, silent = constants.HF_HUB_OFFLINE, logging.get_verbosity(), are_progress_bars_disabled()
    constants.HF_HUB_OFFLINE = before or offline
    logging.set_verbosity(QUIET)
    disable_progress_bars()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.set_verbosity(level)
        if not silent:
            enable_progress_bars()
