"""The versions of one registered model in MLflow: one for each run, its story in tags, and an alias that says which is champion.

MLflow has no "set this alias if it still is that": who changes one holds the lease of `changing` meanwhile, and looks again before.
"""

from __future__ import annotations

import getpass
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.files import sha256_file
from zsbir.base.layout import promotion_uri
from zsbir.base.lease import alone
from zsbir.edge.pyfunc import log_model
from zsbir.edge.registry import is_there, versions
from zsbir.edge.tracking import RUN_TAG, find_run, prepare_store, tracking_uri

CHAMPION, CHALLENGER = "champion", "challenger"
PREFIX = "zsbir."
LINE_TAG = f"{PREFIX}champions"
"""Tag of the model: the versions that were champion one after the other, as a JSON list, the present one last."""

ROLLED_BACK = ("rolled_back_utc", "rolled_back_to", "rolled_back_by", "rollback_reason")
"""Tags of a version that lost the alias in a rollback."""

LONGEST_LINE = 200
LONGEST_DESCRIPTION = 5000
"""Characters that MLflow's tables hold."""


@dataclass(frozen=True)
class Release:
    """One version of a registered model. tags: those of this project, without their prefix."""

    model: str
    version: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    run_id: str

    @property
    def uri(self) -> str:
        """How MLflow addresses it."""
        return f"models:/{self.model}/{self.version}"


class Releases:
    """A registered model's versions, by the store that a root's runs are tracked in. Every call raises RunError when it is away.

    Nothing is made in the store before `registered`.
    """

    def __init__(self, root: str, experiment: str, model: str):
        self.model = model
        self._root, self._experiment, self._uri = root, experiment, tracking_uri(root)
        self._registry = os.environ.get("MLFLOW_REGISTRY_URI") or self._uri

    def all(self) -> list[Release]:
        """Every version, the oldest first."""
        if not is_there(self._registry):
            return []
        with self._answering():
            aliases = self._aliases()
            found = [self._release(version, aliases) for version in versions(self._client(), self.model)]
        return sorted(found, key=lambda release: int(release.version))

    def champion(self) -> Release | None:
        """The version with the alias champion."""
        return next((release for release in self.all() if CHAMPION in release.aliases), None)

    @contextmanager
    def changing(self, expected: Release | None) -> Iterator[None]:
        """Nobody else of this root promotes or rolls back meanwhile. RunError when one does, or the champion is another by now."""
        with alone(promotion_uri(self._root, self.model)):
            self._check(expected)
            yield

    def registered(self, run: Artifact, example: bytes) -> Release:
        """The version made of a run's encoder; a new one, with its model logged to the run's MLflow run, where there is none.

        example: an encoded image, which MLflow keeps as the model's input example.
        """
        found = self.find(run)
        if found:
            return found
        prepare_store(self._uri, self._experiment)
        with self._answering():
            mlflow.set_tracking_uri(self._uri)  # it looks up what `models:/` stands for in a store of its own choice otherwise
            client = self._client()
            run_id = self._run_id(client, run)
            model = self._logged(client, run_id, run) or log_model(self._uri, run_id, run.verified("encoder.safetensors"), example)
            try:
                client.create_registered_model(self.model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            tags = {f"{PREFIX}{name}": value for name, value in identity(run).items()}
            made = client.create_model_version(self.model, model, run_id, tags=tags, model_id=model.removeprefix("models:/"))
            return self._release(made, self._aliases())

    def find(self, run: Artifact) -> Release | None:
        """The version made of that run's encoder."""
        return next((release for release in self.all() if is_of(release, run)), None)

    def record(self, release: Release, tags: Mapping[str, str], *, files: Mapping[str, str], description: str = "") -> None:
        """Tags and description of a version, and texts as files in the folder `promotion` of its MLflow run."""
        with self._answering():
            client = self._client()
            self._tag(client, release, tags)
            if description:
                client.update_model_version(self.model, release.version, _shortened(description))
            for name, text in files.items():
                client.log_text(release.run_id, text, f"promotion/{name}")

    def challenge(self, release: Release) -> None:
        """The alias challenger: the version that was refused last."""
        with self._answering():
            self._client().set_registered_model_alias(self.model, CHALLENGER, release.version)

    def crown(self, release: Release, expected: Release | None) -> None:
        """The alias champion, in place of `expected`: RunError when another has it by now."""
        self._check(expected)
        with self._answering():
            client = self._client()
            # The line first: who is killed between the two leaves a line that ends in a version which is not champion, and
            # `_before` reads it from where the alias is.
            self._write_line(client, [*self._line_up_to(client, expected), release.version])
            client.set_registered_model_alias(self.model, CHAMPION, release.version)
            if self._aliases().get(CHALLENGER) == release.version:
                client.delete_registered_model_alias(self.model, CHALLENGER)
            self._tag(client, release, {"promoted_utc": now_utc(), "previous": expected.version if expected else ""})
            for name in ROLLED_BACK:
                if name in release.tags:  # it is champion again; that it once was rolled back stands in its run's files
                    client.delete_model_version_tag(self.model, release.version, f"{PREFIX}{name}")

    def roll_back(self, champion: Release, reason: str) -> Release:
        """Give the alias back to the champion before, and record it with the reason. RunError where there was none."""
        target = self.before(champion)
        self._check(champion)
        tags = dict(zip(ROLLED_BACK, (now_utc(), target.version, user(), reason), strict=True))
        with self._answering():
            client = self._client()
            line = self._line_up_to(client, champion)[:-1]
            self._tag(client, champion, tags)
            client.set_registered_model_alias(self.model, CHAMPION, target.version)
            self._write_line(client, line[: _last(line, target.version) + 1])
            name = f"promotion/rollback-{stamp()}.json"
            client.log_text(champion.run_id, json.dumps({"version": champion.version, **tags}, indent=1), name)
        return target

    def before(self, champion: Release) -> Release:
        """Who was champion before. Versions that were deleted since are passed over. RunError where there is none."""
        there = {release.version: release for release in self.all()}
        with self._answering():
            line = self._line_up_to(self._client(), champion)[:-1]
        for version in reversed(line):
            if version in there:
                return there[version]
            events.warn(f"version {version} of {self.model} was champion, and is deleted: going further back")
        raise RunError(f"version {champion.version} of {self.model} has no champion before it to go back to")

    def _check(self, expected: Release | None) -> None:
        present = self.champion()
        if (present and present.version) != (expected and expected.version):
            now = f"version {present.version} of {self.model} became champion" if present else "the alias champion was taken away"
            raise RunError(f"{now} meanwhile, and nothing was changed: give the same command again to compare with it")

    def _line_up_to(self, client: MlflowClient, champion: Release | None) -> list[str]:
        """The champions up to this one, the last. One that was made by hand, in no line, comes after all others."""
        tags = client.get_registered_model(self.model).tags or {}
        line = [str(version) for version in json.loads(tags.get(LINE_TAG) or "[]")]
        if champion is None:
            return line
        return line[: _last(line, champion.version) + 1] if champion.version in line else [*line, champion.version]

    def _write_line(self, client: MlflowClient, line: list[str]) -> None:
        client.set_registered_model_tag(self.model, LINE_TAG, json.dumps(line[-LONGEST_LINE:]))

    def _tag(self, client: MlflowClient, release: Release, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            client.set_model_version_tag(self.model, release.version, f"{PREFIX}{name}", value)

    def _aliases(self) -> dict[str, str]:
        """Version by alias: MLflow gives it as a number or as text, by the kind of store."""
        try:
            aliases = self._client().get_registered_model(self.model).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {name: str(version) for name, version in aliases.items()}

    def _release(self, version: Any, aliases: Mapping[str, str]) -> Release:
        number = str(version.version)
        tags = {name.removeprefix(PREFIX): str(value) for name, value in (version.tags or {}).items() if name.startswith(PREFIX)}
        names = tuple(sorted(name for name, of in aliases.items() if of == number))
        return Release(self.model, number, names, tags, str(version.run_id or ""))

    def _run_id(self, client: MlflowClient, run: Artifact) -> str:
        """The MLflow run of a training; a new one where it was not tracked."""
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            raise RunError(f"MLflow at {self._uri} has no experiment {self._experiment!r}, and made none")
        found = find_run(client, experiment.experiment_id, run.folder_name)
        if found:
            return found
        tags = {RUN_TAG: run.folder_name, "mlflow.runName": run.folder_name}
        run_id = str(client.create_run(experiment.experiment_id, tags=tags).info.run_id)
        client.set_terminated(run_id)
        return run_id

    def _logged(self, client: MlflowClient, run_id: str, run: Artifact) -> str:
        """The model that was logged of this run, if it holds this very encoder; else ""."""
        experiment_id = client.get_run(run_id).info.experiment_id
        sha256 = run.manifest.files["encoder.safetensors"].sha256
        for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
            if self._encoder_sha256(client, model) == sha256:
                return str(model.model_uri)
        return ""

    def _encoder_sha256(self, client: MlflowClient, model: Any) -> str:
        """The checksum of the weights in a logged model; "" where its files are gone, so that it is logged anew."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                files = [file.path for file in client.list_logged_model_artifacts(model.model_id, "artifacts")]
                (weights,) = [path for path in files if path.endswith(".safetensors")]
                # Not by `models:/m-.../path`: MLflow looks for a registered model of that name.
                address = f"{model.artifact_location}/{weights}"
                file = mlflow.artifacts.download_artifacts(address, dst_path=folder, tracking_uri=self._uri)
            except (MlflowException, OSError, ValueError):
                return ""
            return sha256_file(Path(file))

    def _client(self) -> MlflowClient:
        return MlflowClient(self._uri, self._registry)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (InputError, RunError):
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise RunError(f"the model registry of MLflow at {self._registry} failed ({lines[0][:200]}); try again") from error


def identity(run: Artifact) -> dict[str, str]:
    """The tags by which a version is known to be of a run: its folder's name, its digest, and the bytes of its encoder.

    The digest alone says what was asked for: the same training done twice need not end in the same numbers.
    """
    sha256 = run.manifest.files["encoder.safetensors"].sha256
    return {"run": run.folder_name, "run_digest": run.digest, "encoder_sha256": sha256}


def is_of(release: Release, run: Artifact) -> bool:
    """Whether a version was made of that run's encoder."""
    return all(release.tags.get(name) == value for name, value in identity(run).items() if name != "run")


def models(root: str) -> list[str]:
    """The names of all registered models of this project. RunError when the store does not answer."""
    uri = os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri(root)
    if not is_there(uri):
        return []
    releases = Releases(root, "", "")
    with releases._answering():
        return sorted({str(version.name) for version in versions(releases._client()) if version.name.startswith("zsbir-")})


def now_utc() -> str:
    """The time, as manifests write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stamp() -> str:
    """The time, as part of a file's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def user() -> str:
    """Who gave the command, as the operating system says."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


def _last(line: list[str], version: str) -> int:
    return len(line) - 1 - line[::-1].index(version)


def _shortened(text: str) -> str:
    more = "\n\n... (the rest: promotion/README.md of the version's MLflow run)"
    return text if len(text) <= LONGEST_DESCRIPTION else text[: LONGEST_DESCRIPTION - len(more)] + more
