"""A model card in Hugging Face's form (README.md with YAML front matter), made from a Report, its Run and its data set.

Every number in it is read from their manifests and from report.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from zsbir.base.artifact import Artifact
from zsbir.evaluation.metrics import METRICS
from zsbir.evaluation.reports import TRAINED, interval_text, report_interval

PIPELINE = "image-feature-extraction"
TAGS = ("sketch-based-image-retrieval", "zero-shot", "image-retrieval", "sketch")
TASK = "Zero-shot sketch-based image retrieval"


@dataclass(frozen=True)
class Subject:
    """The model that a card describes. model: its registered name; encoder: backbone, embedding_dim and image_px.

    changed: the fields in which the training's configuration differs from its recipe.
    """

    model: str
    report: Artifact
    run: Artifact
    encoder: Mapping[str, Any]
    changed: Mapping[str, Any]


def card(subject: Subject) -> str:
    """Return README.md: front matter and text. Raises InputError when report.json is gone or damaged."""
    summary = _summary(subject)
    front = yaml.safe_dump(front_matter(subject, summary), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{card_text(subject)}"


def card_text(subject: Subject) -> str:
    """Return the card without front matter, for pages that would show it as text, as MLflow's does."""
    summary = _summary(subject)
    parts = [
        f"# {subject.model}",
        _what_it_is(subject),
        "## Results",
        _results(subject, summary),
        "## Data and protocol",
        _data(subject, summary),
        "## Training",
        _training(subject),
        "## Use",
        _use(subject),
        "## Limitations",
        _limitations(subject, summary),
        "## Where it comes from",
        _provenance(subject),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(subject: Subject) -> dict[str, Any]:
    summary: dict[str, Any] = subject.report.read_json("report.json")
    return summary


def front_matter(subject: Subject, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the YAML that Hugging Face's hub reads: the model's task, and its results with their conventions as names."""
    trained = summary["models"]["trained"]
    name = " ".join(summary["dataset"].split())  # a line of dashes in it would end the front matter
    results = {
        "task": {"type": PIPELINE, "name": TASK},
        "dataset": {"type": name, "name": name, "revision": summary["dataset_digest"]},
        "metrics": [
            {"type": metric, "name": f"{metric} ({summary['protocol']})", "value": float(trained[metric])} for metric in METRICS
        ],
    }
    return {
        "library_name": "zsbir",
        "pipeline_tag": PIPELINE,
        "tags": list(TAGS),
        "metrics": list(METRICS),
        "model-index": [{"name": subject.model, "results": [results]}],
    }


def _what_it_is(subject: Subject) -> str:
    facts = subject.encoder
    return (
        f"An encoder of sketches and photos alike: {_code(facts['backbone'])}, an image of any size squeezed to"
        f" {facts['image_px']} px square in, a unit embedding of {facts['embedding_dim']} dimensions out. A sketch finds photos by"
        " cosine similarity. The method is that of Tursun et al., Pattern Recognition 126 (2022) 108528, arXiv 2102.04016."
    )


def _results(subject: Subject, summary: Mapping[str, Any]) -> str:
    trained, frozen = summary["models"]["trained"], summary["models"]["frozen"]
    lines = ["| metric | this model | the same backbone before training |", "|---|---|---|"]
    lines += [f"| `{metric}` | {trained[metric]:.4f} | {frozen[metric]:.4f} |" for metric in METRICS]
    lines.append(f"| `map_all` of a random order | {summary['chance_map_all']:.4f} | |")
    interval = interval_text(report_interval(subject.report, TRAINED, "map_all"), summary["classes"])
    return "\n".join(lines) + f"\n\nMeans over queries; `map_all` of this model: {interval}."


def _data(subject: Subject, summary: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"- protocol {_code(summary['protocol'])}: {summary['queries']} sketches of {summary['classes']} classes against"
            f" {summary['gallery']} photos",
            f"- data set {_code(summary['dataset'])}, digest {_code(summary['dataset_digest'])}",
            f"- report {_code(subject.report.folder_name)}, digest {_code(subject.report.digest)}",
        ]
    )


def _training(subject: Subject) -> str:
    counts = subject.run.manifest.counts
    chosen = counts.get("best_step", counts["steps"])
    head = f"Recipe {_code(subject.run.manifest.config['recipe'])}, {counts['steps']} steps, checkpoint of step {chosen}"
    if not subject.changed:
        return f"{head}; every field as in the recipe."
    rows = [f"| `{name}` | {_code(value)} |" for name, value in sorted(subject.changed.items())]
    return "\n".join([f"{head}. Fields that differ from the recipe:", "", "| field | value |", "|---|---|", *rows])


def _use(subject: Subject) -> str:
    return f"""\
```python
import mlflow, pandas as pd
from pathlib import Path

model = mlflow.pyfunc.load_model("models:/{subject.model}@champion")  # or a version: models:/{subject.model}/1
embeddings = model.predict(pd.DataFrame({{"image": [Path("sketch.png").read_bytes()]}}))  # float32, one row an image
```

`models:/{subject.model}@champion` is whichever version has been promoted last. No pickle is loaded."""


def _limitations(subject: Subject, summary: Mapping[str, Any]) -> str:
    lines = [
        f"- Measured on {summary['classes']} classes of one data set. The interval is for other classes of the same kind, and for"
        " this one model: the same training with another seed gives another model.",
        "- The classes asked for were not trained on. Whether the backbone's pre-training saw them is not known here.",
        "- Metrics of one name are not one thing elsewhere: compare them only under the same convention, protocol and data.",
    ]
    if subject.run.manifest.config.get("train_on_dev"):
        lines.append("- Trained on the dev classes too (`train_on_dev`): no held-out score chose its checkpoint.")
    return "\n".join(lines)


def _provenance(subject: Subject) -> str:
    run, code = subject.run.manifest, subject.run.manifest.code
    commit = f", commit {_code(code['commit'])}" if "commit" in code else ""
    commit += " with changes that were not committed" if code.get("dirty") == "yes" else ""
    return "\n".join(
        [
            f"- run {_code(subject.run.folder_name)}, digest {_code(subject.run.digest)}, made {run.created_utc}",
            f"- code {_code('zsbir ' + code.get('zsbir', 'of unknown version'))}{commit}",
            f"- report made {subject.report.manifest.created_utc}",
        ]
    )


def _code(value: Any) -> str:
    """Format a value as code in Markdown, whatever characters it holds."""
    text = " ".join(str(value).replace("`", "'").replace("|", "/").split())
    return f"`{text}`" if text else "none"
