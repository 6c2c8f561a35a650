"""The training loop. It is given its surroundings (Context) and knows nothing of Ray, MLflow or S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor, nn

from zsbir.base import events, watch
from zsbir.base.errors import Interrupted
from zsbir.data.batches import BatchPlan, plan_batches, steps_per_epoch
from zsbir.data.loader import Batch, TrainLoader
from zsbir.data.samples import Samples
from zsbir.evaluation.embed import embed, embeddings_of
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.losses.registry import packages_of
from zsbir.model.choices import backbone_offer
from zsbir.model.encoder import Encoded, Encoder
from zsbir.training.average import Average
from zsbir.training.batchnorm import set_train_mode
from zsbir.training.checkpoint import BestEncoder, Checkpoints, TrainState
from zsbir.training.config import TrainConfig
from zsbir.training.context import Context
from zsbir.training.drawing import has_dropout, seed_encoder, seed_losses
from zsbir.training.failures import diverged
from zsbir.training.forecast import announcement
from zsbir.training.gather import any_worker, gather
from zsbir.training.inputs import TrainInputs, train_positions
from zsbir.training.meters import Clock, ShownLoss
from zsbir.training.networks import build_networks
from zsbir.training.optimiser import build_optimiser, rate, set_rate
from zsbir.training.precision import autocast
from zsbir.training.requirements import check_shares

DEV_METRIC = "map_all"
DEV_SCORE = f"dev/{DEV_METRIC}"
"""Name of the score on the dev classes in histories, reports to the context, and trackers."""

Log = Callable[[int, dict[str, float]], None]
"""A function of (step, metrics), called on rank 0 alone."""


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
        self.encoder, objective = build_networks(config, inputs, context.device, threads=self.loader.threads)
        self.average = Average(self.encoder, config.average_decay) if config.average_decay else None
        self.modules: dict[str, nn.Module] = {"encoder": self.encoder, **objective.learned()}
        if self.average:
            self.modules["average"] = self.average
        self.optimiser = build_optimiser(config, self.encoder, objective.heads, objective.further)
        # What others have written may have parameters that a step does not use.
        self.network = context.wrap(self.encoder, unused=backbone_offer(config.backbone) is not None)
        self.objective = context.wrap(objective, unused=bool(packages_of(config.losses)))
        self._sends_images = objective.reads_images

    @property
    def scored(self) -> Encoder:
        """The encoder that is scored and kept: the moving average where there is one."""
        return self.average.encoder if self.average else self.encoder

    def run(self) -> TrainState:
        """Train to the end; afterwards the state holds a best encoder on the first worker.

        Raises Interrupted when asked to stop, PermanentError when loss, network or embeddings are no longer finite.
        """
        done = self.checkpoints.load(self.modules, self.optimiser)
        if done.step:
            self._repeat_history(done)
        loud = self.context.rank == 0
        if loud and done.step < self.steps:
            scored = sum(map(len, self._dev_positions() or ()))
            events.say(announcement(self.config, self.loader, self.encoder, self.context, done=done.step, scored=scored))
            self._warn_of_dropout()
        bar = events.Progress("train", total=self.steps, unit="step", start=done.step) if loud else None
        clock, shown = Clock(self.config.batch_images), ShownLoss()
        with self.checkpoints:
            for batch in clock.wait_for(self.loader.batches(done.step)):
                figures = self._step(batch, done.step)
                done.step += 1
                self._after_step(done, figures, clock)
                if bar:
                    bar.advance(1, shown.text(figures["loss"]))
            if bar:
                bar.close()
            if any_worker(loud and done.best is None, self.context.device):  # version 0.1.0 could lose it
                self._evaluate(done)
            self._save(done)
        return done

    def _warn_of_dropout(self) -> None:
        if self.context.world_size > 1 and has_dropout(self.encoder):
            events.warn(
                f"{self.config.backbone} has dropout, which each worker draws for itself: another number of workers would train"
                " otherwise, though equally well"
            )

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
        set_rate(self.optimiser, share, probe=step < config.probe_frac * self.steps)
        mine, rank = self.loader.slots(), self.context.rank
        seed_encoder(self.encoder, config.seed, step, rank, images=config.batch_images, mine=mine, device=device)
        with autocast(config.precision, device):
            images = batch.images.to(device, non_blocking=True)
            encoded = Encoded(*map(gather, self.network(images)))
        seed_losses(config.seed, step)
        figures: dict[str, Tensor]
        total, figures = self.objective(
            encoded,
            gather(batch.class_id.to(device)),
            gather(batch.domain.to(device)),
            step / self.steps,
            gather(images) if self._sends_images else None,
        )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        if config.grad_clip:
            parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
            figures["grad_norm"] = nn.utils.clip_grad_norm_(parameters, config.grad_clip)
        self.optimiser.step()
        if self.average:
            self.average.update(self.encoder, step)
        return figures

    def _after_step(self, done: TrainState, figures: dict[str, Tensor], clock: Clock) -> None:
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
        if self.context.rank:
            return
        if score is not None:
            is_best = best is None or score > best
            rest = "the best so far" if is_best or not done.best else f"best {best:.3f} at step {done.best.step}"
            events.say(f"{DEV_SCORE} {score:.3f} at step {done.step} ({rest})")
        if score is None or best is None or score > best:
            done.best = BestEncoder.of(self.scored, done.step, score)
            self._record_best(done)

    def _record_best(self, done: TrainState) -> None:
        """Tell who follows this process how good the encoder is that is kept, and at which step it was."""
        if done.best and done.best.score is not None:
            watch.record_score(done.best.score, DEV_METRIC, "dev", done.best.step)

    def _dev_positions(self) -> tuple[Int[np.ndarray, "q"], Int[np.ndarray, "g"]] | None:
        """Return the dev sketches and the dev photos, or None where there are no dev classes to score."""
        queries, gallery = (self.inputs.samples.select(split="dev", domain=domain) for domain in ("sketch", "photo"))
        return None if self.config.train_on_dev or not len(queries) or not len(gallery) else (queries, gallery)

    def dev_score(self) -> float | None:
        """Return mAP@all of dev sketches against dev photos, or None where there are no dev classes to score."""
        chosen = self._dev_positions()
        if chosen is None:
            return None
        queries, gallery = chosen
        self.scored.eval()
        embeddings = embed(
            embeddings_of(self.scored),
            self.inputs.images,
            np.concatenate([queries, gallery]),
            image_px=self.config.image_px,
            device=self.context.device,
            autocast=autocast(self.config.precision, self.context.device),
            threads=self.loader.threads,
        )
        if not np.isfinite(embeddings).all():
            raise diverged("the embeddings of dev images are not finite")
        labels = self.inputs.samples.class_id
        result = evaluate_embeddings(embeddings[: len(queries)], labels[queries], embeddings[len(queries) :], labels[gallery])
        return float(result.summary()[DEV_METRIC])

    def _save(self, done: TrainState) -> None:
        if self.context.rank == 0:
            self.checkpoints.save(self.modules, self.optimiser, done)


def tracked_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics for trackers: those without a `/` become `train/...`."""
    return {name if "/" in name else f"train/{name}": value for name, value in metrics.items()}
