"""The ledger as a Markdown table: each setting with its seeds, and how far it lies from another one, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bench.experiments.ledger import Key

from zsbir.comparison.numbers import BySeed, Estimate, Gain, corrected, estimate, gain

METRICS = {"map_all": "sketch to photo", "photo_to_photo": "photo to photo", "expanded": "sketch to photo, expanded"}
WEIGHINGS = ((False, "mean over queries"), (True, "mean over classes"))
"""How classes count in a gain: by their queries, as in the literature, or all the same: then none with many decides it alone."""

LEVEL = 0.95

Done = Mapping[int, Mapping[str, Any]]
"""The rows of a setting that are done, by seed."""


def table(planned: Sequence[Key], rows: Mapping[Key, Mapping[str, Any]], against: str) -> str:
    """Return a table for each data set; settings that were not run are listed as planned, and failed ones with their reason.

    against: the setting that the others are compared with in the first metric, with p-values corrected for their number (Holm).
    """
    return "\n\n".join(
        f"**{dataset}**\n\n{_of_dataset([key for key in planned if key.dataset == dataset], rows, against)}"
        for dataset in dict.fromkeys(key.dataset for key in planned)
    )


def _of_dataset(planned: Sequence[Key], rows: Mapping[Key, Mapping[str, Any]], against: str) -> str:
    done: dict[str, Done] = {}
    for key in planned:
        if rows.get(key, {}).get("state") == "done":
            done[key.setting] = {**done.get(key.setting, {}), key.seed: rows[key]}
    other = done.get(against, {})
    gains = _gains({setting: rows for setting, rows in done.items() if setting != against}, other) if other else {}
    away = [title for _, name in WEIGHINGS for title in (f"against {against}, {name}", "p (Holm)")]
    head = ["setting", "seeds", *METRICS.values(), *away, "minutes"]
    lines = [head, ["---"] * len(head)]
    for setting in dict.fromkeys(key.setting for key in planned):
        if setting in done:
            lines.append(_cells(setting, done[setting], gains.get(setting, ())))
        else:
            failed = next((rows[key]["reason"] for key in planned if key.setting == setting and key in rows), "")
            lines.append([setting, "failed" if failed else "planned", failed, *[""] * (len(head) - 3)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(setting: str, done: Done, gained: Sequence[Gain]) -> list[str]:
    first, *others = (estimate(_by_seed(done, metric), _shares(done, metric), LEVEL) for metric in METRICS)
    away = [cell for each in gained for cell in _away(each)] or [""] * 2 * len(WEIGHINGS)
    minutes = np.mean([row["train_min"] for row in done.values()])
    return [
        setting,
        ",".join(map(str, sorted(done))),
        _text(first, interval=True),
        *(_text(found) for found in others),
        *away,
        f"{minutes:.1f}",
    ]


def _text(found: Estimate, *, interval: bool = False) -> str:
    spread = f" ± {found.sd:.3f}" if found.sd is not None else ""
    over = f" ({found.interval.low:.3f} to {found.interval.high:.3f})" if interval and found.interval else ""
    return f"{found.mean:.3f}{spread}{over}"


def _gains(settings: Mapping[str, Done], other: Done) -> dict[str, list[Gain]]:
    """Return the gains of each setting over another one in the first metric, by `WEIGHINGS`."""
    metric = next(iter(METRICS))
    found: dict[str, list[Gain]] = {setting: [] for setting in settings}
    for macro, _ in WEIGHINGS:
        shares = {setting: _shares(done, metric) for setting, done in settings.items()}
        weights = {setting: np.full(len(each), 1 / len(each)) if macro else each for setting, each in shares.items()}
        every = [gain(_by_seed(done, metric), _by_seed(other, metric), weights[name], LEVEL) for name, done in settings.items()]
        for setting, each in zip(settings, corrected(every), strict=True):
            found[setting].append(each)
    return found


def _away(gained: Gain) -> tuple[str, str]:
    found = gained.interval
    return (f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})", f"{gained.p_holm:.2g}") if found else ("", "")


def _by_seed(done: Done, metric: str) -> BySeed:
    return {seed: np.array(row["class_means"][metric], float) for seed, row in done.items()}


def _shares(done: Done, metric: str) -> np.ndarray:
    """Return the share of each class in the mean over queries."""
    row = next(iter(done.values()))
    queries = np.array(row["class_photos" if metric == "photo_to_photo" else "class_queries"], float)
    return queries / queries.sum()
