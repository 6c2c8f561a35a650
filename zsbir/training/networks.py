"""The networks of a training: encoder, heads, further losses, as every worker builds them alike before the first step."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from zsbir.base.errors import InputError
from zsbir.evaluation.embed import embed
from zsbir.losses.further import further_losses
from zsbir.losses.loss import Shapes
from zsbir.losses.memory import Memory
from zsbir.losses.objective import Objective
from zsbir.model.encoder import Encoder
from zsbir.model.heads import Heads
from zsbir.training.batchnorm import prepare_batch_norm
from zsbir.training.config import TrainConfig
from zsbir.training.inputs import TrainInputs, train_positions
from zsbir.training.precision import autocast
from zsbir.training.prototypes import prototypes
from zsbir.training.requirements import needs_distributions, needs_mean_features


def build_networks(
    config: TrainConfig, inputs: TrainInputs, device: torch.device, *, threads: int = 0
) -> tuple[Encoder, Objective]:
    """Build the same networks on every worker: the seed decides each new parameter, the weight file all others.

    threads: that decode images, where the classifier starts from the network's own view of the classes. Raises InputError where the
    knowledge lacks a class, or what the configuration needs of it.
    """
    torch.manual_seed(config.seed)
    encoder = Encoder(config.backbone, config.embedding_dim, config.image_px, config.pooling, drop_path=config.drop_path)
    encoder.load_trunk(inputs.weights)
    class_ids = np.unique(inputs.samples.class_id[train_positions(config, inputs.samples)])
    knowledge = _distributions(inputs, class_ids) if needs_distributions(config) else None
    heads = Heads(
        feature_dim=encoder.feature_dim,
        embedding_dim=config.embedding_dim,
        classes=len(class_ids),
        teacher_labels=knowledge.shape[1] if knowledge is not None and config.weight_preservation else 0,
        place=config.preservation_place,
        temperature=config.temperature,
        start=inputs.weights.classifier if inputs.same_labels else None,
        class_weights=_class_weights(config, inputs, encoder, class_ids, threads),
        fixed_classes=config.classifier_start in ("fixed", "fixed_prototypes"),
    )
    index = torch.full((len(inputs.samples.class_names),), -1)
    index[torch.from_numpy(class_ids.astype(np.int64))] = torch.arange(len(class_ids))
    further = further_losses(config, Shapes(config.embedding_dim, encoder.feature_dim, len(class_ids)))
    remembered = config.quadruplet_memory * config.batch_images
    memory = Memory(remembered, config.embedding_dim) if remembered else None
    objective = Objective(config, heads, index, knowledge, further=further, memory=memory)
    prepare_batch_norm(encoder, config.batch_norm, device)
    return encoder.to(device), objective.to(device)


def _distributions(inputs: TrainInputs, class_ids: Int[np.ndarray, "c"]) -> Float[Tensor, "c t"]:
    known = inputs.knowledge
    if known is None:
        raise InputError("the objective asks for a teacher's knowledge, but none was given; pass --knowledge")
    missing = [inputs.samples.class_names[class_id] for class_id in class_ids if int(class_id) not in known]
    if missing:
        raise InputError(f"the knowledge has no class {missing[0]!r} ({len(missing)} missing); run zsbir.teacher on this data set")
    return torch.from_numpy(np.stack([known[int(class_id)] for class_id in class_ids]).astype(np.float32))


def _class_weights(
    config: TrainConfig, inputs: TrainInputs, encoder: Encoder, class_ids: Int[np.ndarray, "c"], threads: int
) -> Float[Tensor, "c d"] | None:
    """Return the first weights of the classifier, None for random ones."""
    if not needs_mean_features(config):
        return None
    known = inputs.class_features
    if known is None or any(int(class_id) not in known for class_id in class_ids):
        raise InputError(
            f"classifier_start {config.classifier_start} needs knowledge with the mean features of every class: pass --knowledge of"
            " python -m zsbir.teacher ... --mean-features"
        )
    means = np.stack([known[int(class_id)] for class_id in class_ids])
    # A learned pooling makes other features of the same network than those that the teacher has means of.
    if inputs.same_network and config.pooling == "mean" and means.shape[1] == encoder.feature_dim:
        turned = prototypes(means @ encoder.embedding.weight.detach().double().numpy().T)
    else:
        turned = prototypes(means, _own_means(config, inputs, encoder, class_ids, threads))
    return torch.from_numpy(turned).float()


def _own_means(
    config: TrainConfig, inputs: TrainInputs, encoder: Encoder, class_ids: Int[np.ndarray, "c"], threads: int
) -> Float[np.ndarray, "c d"]:
    """Return the mean embedding of each class's photos, as the network sees them before it is trained. Embeds all of them."""
    samples = inputs.samples
    positions = np.intersect1d(samples.select(domain="photo"), train_positions(config, samples))
    encoder.eval()
    embeddings = embed(
        lambda images: encoder(images).unnormalised(),
        inputs.images,
        positions,
        image_px=config.image_px,
        device=torch.device("cpu"),
        autocast=autocast("fp32", torch.device("cpu")),
        threads=threads,
    )
    of_class = samples.class_id[positions]
    return np.stack([embeddings[of_class == class_id].mean(axis=0, dtype=np.float64) for class_id in class_ids])
