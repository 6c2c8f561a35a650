"""The training loop. It is given its surroundings (Context) and knows nothing of Ray, MLflow or S3."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zsbir.base import events, watch
from zsbir.base.errors import InputError, Interrupted
from zsbir.data.batches import BatchPlan, plan_batches, steps_per_epoch
from zsbir.data.loader import Batch, TrainLoader
from zsbir.data.samples import Samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import embed, embeddings_of
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.losses.objective import Objective
from zsbir.model.encoder import Encoder
from zsbir.model.heads import Heads
from zsbir.model.weights import Weights
from zsbir.training.batchnorm import prepare_batch_norm, set_train_mode
from zsbir.training.checkpoint import BestEncoder, Checkpoints, TrainState
from zsbir.training.config import TrainConfig
from zsbir.training.context import Context
from zsbir.training.failures import diverged
from zsbir.training.gather import any_worker, gather
from zsbir.training.optimiser import build_optimiser, rate, set_rate
from zsbir.training.precision import autocast
from zsbir.training.requirements import check_shares

DEV_METRIC = "map_all"
DEV_SCORE = f"dev/{DEV_METRIC}"
"""Name of the score on the dev classes in histories, reports to the context, and trackers."""

Log = Callable[[int, dict[str, float]], None]
"""A function of (step, metrics), called on rank 0 alone."""


@dataclass(frozen=True)
class TrainInputs:
    """What a training reads: samples with their images, pre-trained weights, and the teacher's knowledge by class id.

    same_labels: the weights' own classifier has the teacher's labels, so the preservation head starts from it.
    """

    samples: Samples
    images: Images
    weights: Weights
    knowledge: dict[int, Float[np.ndarray, "t"]] | None = None
    same_labels: bool = False


def train_positions(config: TrainConfig, samples: Samples) -> Int[np.ndarray, "n"]:
    """Return the samples that are trained on: the train split, and with `train_on_dev` the dev split too, ascending."""
    splits = ("train", "dev") if config.train_on_dev else ("train",)
    return np.sort(np.concatenate([samples.select(split=split) for split in splits]))


def plan_training(config: TrainConfig, samples: Samples, workers: int) -> BatchPlan:
    """Plan all batches of a training. Raises InputError when there are too few classes, or the workers cannot share a batch."""
    check_shares(config, workers)
    positions = train_positions(config, samples)
    return plan_batches(
        samples,
        positions,
        classes_per_batch=config.classes_per_batch,
        per_class=config.per_class,
        steps=config.steps or round(config.epochs * steps_per_epoch(positions, config.batch_images)),
        seed=config.seed,
    )


class Trainer:
    """One training on one worker. `run` trains from the newest checkpoint, or from the start, to the end."""

    def __init__(
        self,
        config: TrainConfig,
        inputs: TrainInputs,
        context: Context,
        run: str | Path,
        *,
        log: Log,
        threads: int = 0,
        made_from: Mapping[str, Any] | None = None,
    ):
        self.config, self.inputs, self.context, self.run_uri, self.log = config, inputs, context, str(run), log
        self.checkpoints = Checkpoints(run, made_from)
        plan = plan_training(config, inputs.samples, context.world_size)
        self.steps = len(plan)
        self.loader = TrainLoader(
            inputs.samples,
            inputs.images,
            plan,
            config,
            image_px=config.image_px,
            seed=config.seed,
            rank=context.rank,
            world_size=context.world_size,
            threads=threads,
        )
        self.encoder, self.heads, self.objective = self._build_networks()
        self.modules: dict[str, nn.Module] = {"encoder": self.encoder, "heads": self.heads}
        self.optimiser = build_optimiser(config, self.encoder, self.heads)
        self.network = context.wrap(self.encoder)

    def _build_networks(self) -> tuple[Encoder, Heads, Objective]:
        """Build the same networks on every worker: the seed decides each new parameter, the weight file all others."""
        config, inputs, device = self.config, self.inputs, self.context.device
        torch.manual_seed(config.seed)
        encoder = Encoder(config.backbone, config.embedding_dim, config.image_px)
        encoder.load_trunk(inputs.weights)
        class_ids = np.unique(inputs.samples.class_id[train_positions(config, inputs.samples)])
        knowledge = self._knowledge(class_ids) if config.weight_preservation else None
        heads = Heads(
            feature_dim=encoder.feature_dim,
            embedding_dim=config.embedding_dim,
            classes=len(class_ids),
            teacher_labels=0 if knowledge is None else knowledge.shape[1],
            place=config.preservation_place,
            temperature=config.temperature,
            start=inputs.weights.classifier if inputs.same_labels else None,
        )
        prepare_batch_norm(encoder, config.batch_norm, device)
        encoder.to(device)
        heads.to(device)
        index = torch.full((len(inputs.samples.class_names),), -1)
        index[torch.from_numpy(class_ids.astype(np.int64))] = torch.arange(len(class_ids))
        return encoder, heads, Objective(config, self.context.wrap(heads), index, knowledge).to(device)

    def _knowledge(self, class_ids: Int[np.ndarray, "c"]) -> Float[Tensor, "c t"]:
        known = self.inputs.knowledge
        if known is None:
            raise InputError("weight_preservation is above 0, but no knowledge was given; pass --knowledge, or a weight of 0")
        missing = [self.inputs.samples.class_names[class_id] for class_id in class_ids if int(class_id) not in known]
        if missing:
            raise InputError(
                f"the knowledge has no class {missing[0]!r} ({len(missing)} missing); run zsbir.teacher on this data set"
            )
        return torch.from_numpy(np.stack([known[int(class_id)] for class_id in class_ids]).astype(np.float32))

    def run(self) -> TrainState:
        """Train to the end; afterwards the state holds a best encoder on the first worker.

        Raises Interrupted when asked to stop, PermanentError when loss, network or embeddings are no longer finite.
        """
        done = self.checkpoints.load(self.modules, self.optimiser)
        if done.step:
            self._repeat_history(done)
        loud = self.context.rank == 0
        bar = events.Progress("train", total=self.steps, unit="step", start=done.step) if loud else None
        clock = _Clock(self.config.batch_images)
        with self.checkpoints:
            for batch in clock.wait_for(self.loader.batches(done.step)):
                figures = self._step(batch, done.step)
                done.step += 1
                self._after_step(done, figures, clock)
                if bar:
                    bar.advance(1, f"loss {done.history[-1]['loss']:.3f}" if done.history and "loss" in done.history[-1] else "")
            if bar:
                bar.close()
            if any_worker(loud and done.best is None, self.context.device):  # version 0.1.0 could lose it
                self._evaluate(done)
            self._save(done)
        return done

    def _repeat_history(self, done: TrainState) -> None:
        """Log and report the history again: a killed process may not have sent it all. Receivers drop what they have already."""
        if self.context.rank == 0:
            events.say(f"resuming at step {done.step} of {self.steps}")
            watch.record_facts(resumed_from=f"step {done.step}")
            self._record_best(done)
        for row in done.history:
            metrics = {name: value for name, value in row.items() if name != "step"}
            if self.context.rank == 0:
                self.log(int(row["step"]), tracked_names(metrics))
            if DEV_SCORE in metrics:
                self.context.report(row)

    def _step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        config, device = self.config, self.context.device
        set_train_mode(self.encoder, config.batch_norm)
        share = rate(config, step, self.steps)
        set_rate(self.optimiser, share)
        with autocast(config.precision, device):
            embeddings, features = self.network(batch.images.to(device, non_blocking=True))
        figures: dict[str, Tensor]
        total, figures = self.objective(
            gather(embeddings),
            gather(features),
            gather(batch.class_id.to(device)),
            gather(batch.domain.to(device)),
            step / self.steps,
        )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        if config.grad_clip:
            parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
            figures["grad_norm"] = nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        self.optimiser.step()
        return figures

    def _after_step(self, done: TrainState, figures: dict[str, Tensor], clock: _Clock) -> None:
        config, last = self.config, done.step == self.steps
        if done.step % config.log_every_steps == 0 or last or done.step == 1:
            self._log(done, {name: value.item() for name, value in figures.items()} | clock.read() | self._rates(done.step - 1))
        if done.step % config.eval_every_steps == 0 or last:
            self._evaluate(done)
            clock.forget()
        stop = any_worker(self.context.stop_requested(), self.context.device)
        if done.step % config.checkpoint_every_steps == 0 or stop:
            self._save(done)
            clock.forget()
        if stop and not last:
            raise Interrupted(f"checkpoint of step {done.step} saved in {self.run_uri}; the same command goes on from there")

    def _rates(self, step: int) -> dict[str, float]:
        share = rate(self.config, step, self.steps)
        return {"lr": share * self.config.lr, "lr_backbone": share * self.config.lr_backbone}

    def _log(self, done: TrainState, metrics: dict[str, float]) -> None:
        if not np.isfinite(metrics.get("loss", 0.0)):
            raise diverged(f"the loss is {metrics['loss']} at step {done.step}")
        done.history.append({"step": done.step, **metrics})
        if self.context.rank == 0:
            self.log(done.step, tracked_names(metrics))

    def _evaluate(self, done: TrainState) -> None:
        """Score the dev classes; keep the encoder when it is the best so far. Without dev classes the last one is the best.

        Only the first worker keeps it, which saves it.
        """
        score = self.dev_score()
        if score is not None:
            self._log(done, {DEV_SCORE: score})
            self.context.report({"step": float(done.step), DEV_SCORE: score})
        best = done.best.score if done.best else None
        if self.context.rank == 0 and (score is None or best is None or score > best):
            done.best = BestEncoder.of(self.encoder, done.step, score)
            self._record_best(done)

    def _record_best(self, done: TrainState) -> None:
        """Tell who follows this process how good the encoder is that is kept, and at which step it was."""
        if done.best and done.best.score is not None:
            watch.record_score(done.best.score, DEV_METRIC, "dev", done.best.step)

    def dev_score(self) -> float | None:
        """Return mAP@all of dev sketches against dev photos, or None where there are no dev classes to score."""
        samples = self.inputs.samples
        queries, gallery = (samples.select(split="dev", domain=domain) for domain in ("sketch", "photo"))
        if self.config.train_on_dev or not len(queries) or not len(gallery):
            return None
        self.encoder.eval()
        embeddings = embed(
            embeddings_of(self.encoder),
            self.inputs.images,
            np.concatenate([queries, gallery]),
            image_px=self.config.image_px,
            device=self.context.device,
            autocast=autocast(self.config.precision, self.context.device),
            threads=self.loader.threads,
        )
        if not np.isfinite(embeddings).all():
            raise diverged("the embeddings of dev images are not finite")
        labels = samples.class_id
        result = evaluate_embeddings(embeddings[: len(queries)], labels[queries], embeddings[len(queries) :], labels[gallery])
        return float(result.summary()[DEV_METRIC])

    def _save(self, done: TrainState) -> None:
        if self.context.rank == 0:
            self.checkpoints.save(self.modules, self.optimiser, done)


def tracked_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics for trackers: those without a `/` become `train/...`."""
    return {name if "/" in name else f"train/{name}": value for name, value in metrics.items()}


class _Clock:
    """Measures images a second, and the share of the time in which steps waited for data, since it was last read."""

    def __init__(self, batch_images: int):
        self._batch_images = batch_images
        self.forget()

    def forget(self) -> None:
        """Start measuring anew, without the time since the last step."""
        self._began, self._waited_s, self._steps = time.monotonic(), 0.0, 0

    def wait_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield `batches`, counting the time until each comes as waiting."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited_s += time.monotonic() - asked
            self._steps += 1
            yield batch

    def read(self) -> dict[str, float]:
        """Return the figures and start measuring anew."""
        elapsed_s = max(time.monotonic() - self._began, 1e-9)
        figures = {"images_per_s": self._steps * self._batch_images / elapsed_s, "data_wait_frac": self._waited_s / elapsed_s}
        self.forget()
        return figures
