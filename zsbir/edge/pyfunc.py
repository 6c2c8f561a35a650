"""The encoder as an MLflow model: image bytes in, unit embeddings out. Stored as code and safetensors, without pickle.

MLflow runs this file when it loads the model; the package `zsbir` is stored with the model as code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec

import zsbir
from zsbir.evaluation.embed import EMBED_BATCH
from zsbir.model.choices import TIMM, backbone_offer
from zsbir.model.encoder import saved_facts

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "pyyaml", "tqdm", "jaxtyping", "pyarrow")


class EmbeddingModel(PythonModel):  # type: ignore[misc]  # mlflow has no types
    """Takes a DataFrame with a column `image` of encoded images (bytes); gives a float32 array [n, d] of unit embeddings."""

    def load_context(self, context: Any) -> None:
        """Load the encoder from the model's artifacts."""
        from zsbir.model.encoder import Encoder

        self.encoder = Encoder.load(Path(context.artifacts["encoder"])).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:  # noqa: ARG002 - MLflow's signature
        """Return the embeddings in the order of the rows."""
        import torch

        from zsbir.data.images import eval_image

        images = [eval_image(bytes(data), self.encoder.image_px) for data in model_input["image"]]
        parts = [np.zeros((0, self.encoder.embedding_dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), EMBED_BATCH):
                parts.append(self.encoder(torch.from_numpy(np.stack(images[start : start + EMBED_BATCH])))[0].numpy())
        return np.concatenate(parts)


def _packages_of(backbone: str) -> tuple[str, ...]:
    """Return the packages that a backbone needs besides."""
    if backbone.startswith(TIMM):
        return ("timm",)
    offer = backbone_offer(backbone)
    return (offer.package,) if offer else ()


def log_model(uri: str, run_id: str, encoder: Path, example: bytes) -> str:
    """Log the encoder as model `encoder` of an MLflow run, and return the model's URI."""
    from importlib.metadata import version

    facts = saved_facts(encoder)
    dim = int(facts["embedding_dim"])
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="encoder",
            python_model=__file__,
            artifacts={"encoder": str(encoder)},
            code_paths=[str(Path(zsbir.__file__).parent)],
            # Named here, because MLflow would load the model once more to find them out, which takes half a minute.
            pip_requirements=[f"{name}=={version(name)}" for name in (*PACKAGES, *_packages_of(facts["backbone"]))],
            signature=ModelSignature(Schema([ColSpec("binary", "image")]), Schema([TensorSpec(np.dtype("float32"), (-1, dim))])),
            input_example=pd.DataFrame({"image": [example]}),
        )
    return str(info.model_uri)


set_model(EmbeddingModel())
