"""The versions of one registered model in MLflow: one for each run, with tags that record its decision, and one is the champion.

MLflow cannot set an alias on the condition that it has not changed. A process that changes one therefore holds the lease of
`changing`, and reads the alias again first.
"""

from __future__ import annotations

import getpass
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from zsbir.base import events
from zsbir.base.artifact import Artifact
from zsbir.base.errors import RunError
from zsbir.base.files import sha256_file
from zsbir.base.layout import promotion_uri
from zsbir.base.lease import alone
from zsbir.base.urls import redacted
from zsbir.edge.mlflow_pages import model_page, pages_of
from zsbir.edge.mlflow_store import answering, is_there, open_client, registry_uri, tracking_uri
from zsbir.edge.registry import versions
from zsbir.edge.tracking import RUN_TAG, find_run, prepare_store

CHAMPION, CHALLENGER = "champion", "challenger"
PREFIX = "zsbir."
CHAMPIONS_TAG = f"{PREFIX}champions"
"""Tag of the model: the versions that were champion one after another, as a JSON list, the present one last."""

ROLLED_BACK = ("rolled_back_utc", "rolled_back_to", "rolled_back_by", "rollback_reason")
"""Tags of a version that lost the alias in a rollback."""

MOST_CHAMPIONS = 200
"""Champions that the tag remembers."""

LONGEST_DESCRIPTION = 5000
"""Largest number of characters of a description in MLflow's tables."""


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
        """The address of this version in MLflow, `models:/NAME/VERSION`."""
        return f"models:/{self.model}/{self.version}"


class Releases:
    """A registered model's versions, in the store that tracks a root's runs. Every call raises RunError when it does not answer.

    Nothing is created in the store before `registered` is called.
    """

    def __init__(self, root: str, experiment: str, model: str):
        self.model = model
        self._root, self._experiment = root, experiment
        self._uri, self._registry = tracking_uri(root), registry_uri(root)

    def all(self) -> list[Release]:
        """Return every version, the oldest first."""
        if not is_there(self._registry):
            return []
        with self._answering():
            aliases = self._aliases()
            found = [self._release(version, aliases) for version in versions(self._client(), self.model)]
        return sorted(found, key=lambda release: int(release.version))

    def champion(self) -> Release | None:
        """Return the version with the alias champion, None if there is none."""
        return next((release for release in self.all() if CHAMPION in release.aliases), None)

    @contextmanager
    def changing(self, expected: Release | None) -> Iterator[None]:
        """Hold the lease of this model, so that no other process changes its champion meanwhile.

        Raises RunError if another process holds it, or the champion is no longer `expected`.
        """
        with alone(promotion_uri(self._root, self.model)):
            self._check(expected)
            yield

    def registered(self, run: Artifact, example: bytes) -> Release:
        """Return the version made of a run's encoder; register a new one, logged to the run's MLflow run, if there is none.

        example: an encoded image, which MLflow stores as the model's input example.
        """
        found = self.find(run)
        if found:
            return found
        from zsbir.edge.pyfunc import log_model  # it loads torch, which nobody needs who only looks

        prepare_store(self._uri, self._experiment)
        with self._answering():
            mlflow.set_tracking_uri(self._uri)  # otherwise MLflow resolves `models:/` in another store
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
        """Return the version made of this run's encoder, None if there is none."""
        return next((release for release in self.all() if is_of(release, run)), None)

    def record(self, release: Release, tags: Mapping[str, str], *, files: Mapping[str, str], description: str = "") -> None:
        """Record tags and a description of a version, and texts as files in the folder `promotion` of its MLflow run."""
        with self._answering():
            client = self._client()
            self._tag(client, release, tags)
            if description:
                client.update_model_version(self.model, release.version, _shortened(description))
            for name, text in files.items():
                client.log_text(release.run_id, text, f"promotion/{name}")
        if pages := pages_of(self._registry):
            events.say(f"in MLflow: {model_page(pages, self.model)}")

    def set_challenger(self, release: Release) -> None:
        """Set the alias challenger, which marks the version that was refused last."""
        with self._answering():
            self._client().set_registered_model_alias(self.model, CHALLENGER, release.version)

    def set_champion(self, release: Release, expected: Release | None) -> None:
        """Set the alias champion, in place of `expected`. Raises RunError if another version has it by now."""
        self._check(expected)
        with self._answering():
            client = self._client()
            # The list of champions first: a process that is killed between the two leaves a list that ends in a version which is
            # not champion, and `before` reads the list only up to the one that is.
            self._write_champions(client, [*self._champions_up_to(client, expected), release.version])
            client.set_registered_model_alias(self.model, CHAMPION, release.version)
            if self._aliases().get(CHALLENGER) == release.version:
                client.delete_registered_model_alias(self.model, CHALLENGER)
            self._tag(client, release, {"promoted_utc": now_utc(), "previous": expected.version if expected else ""})
            for name in ROLLED_BACK:
                if name in release.tags:  # it is champion again; the rollback stays recorded in its run's files
                    client.delete_model_version_tag(self.model, release.version, f"{PREFIX}{name}")

    def roll_back(self, champion: Release, reason: str) -> Release:
        """Give the alias back to the champion before and record why. Raises RunError if there was none."""
        target = self.before(champion)
        self._check(champion)
        tags = dict(zip(ROLLED_BACK, (now_utc(), target.version, user(), reason), strict=True))
        with self._answering():
            client = self._client()
            champions = self._champions_up_to(client, champion)[:-1]
            self._tag(client, champion, tags)
            client.set_registered_model_alias(self.model, CHAMPION, target.version)
            self._write_champions(client, champions[: _last(champions, target.version) + 1])
            name = f"promotion/rollback-{stamp()}.json"
            client.log_text(champion.run_id, json.dumps({"version": champion.version, **tags}, indent=1), name)
        return target

    def before(self, champion: Release) -> Release:
        """Return the champion before this one, skipping deleted versions. Raises RunError if there is none."""
        there = {release.version: release for release in self.all()}
        with self._answering():
            champions = self._champions_up_to(self._client(), champion)[:-1]
        for version in reversed(champions):
            if version in there:
                return there[version]
            events.warn(f"version {version} of {self.model} was champion before, but was deleted: going further back")
        raise RunError(f"version {champion.version} of {self.model} has no champion before it to go back to")

    def _check(self, expected: Release | None) -> None:
        present = self.champion()
        if (present and present.version) != (expected and expected.version):
            now = f"version {present.version} of {self.model} became champion" if present else "the alias champion was taken away"
            raise RunError(f"{now} meanwhile, and nothing was changed: give the same command again to compare with it")

    def _champions_up_to(self, client: MlflowClient, champion: Release | None) -> list[str]:
        """Return the champions up to this one. A champion set by hand, which is not in the list, comes after all others."""
        tags = client.get_registered_model(self.model).tags or {}
        champions = [str(version) for version in json.loads(tags.get(CHAMPIONS_TAG) or "[]")]
        if champion is None:
            return champions
        if champion.version not in champions:
            return [*champions, champion.version]
        return champions[: _last(champions, champion.version) + 1]

    def _write_champions(self, client: MlflowClient, champions: list[str]) -> None:
        client.set_registered_model_tag(self.model, CHAMPIONS_TAG, json.dumps(champions[-MOST_CHAMPIONS:]))

    def _tag(self, client: MlflowClient, release: Release, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            client.set_model_version_tag(self.model, release.version, f"{PREFIX}{name}", value)

    def _aliases(self) -> dict[str, str]:
        """Return the version of each alias, as text; some of MLflow's stores give numbers."""
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
        """Return the MLflow run of a training; create one if the training was not tracked."""
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            raise RunError(f"MLflow at {redacted(self._uri)} has no experiment {self._experiment!r}, and did not create it")
        found = find_run(client, experiment.experiment_id, run.folder_name)
        if found:
            return found
        tags = {RUN_TAG: run.folder_name, "mlflow.runName": run.folder_name}
        run_id = str(client.create_run(experiment.experiment_id, tags=tags).info.run_id)
        client.set_terminated(run_id)
        return run_id

    def _logged(self, client: MlflowClient, run_id: str, run: Artifact) -> str:
        """Return the URI of a model logged of this run that holds the same encoder; "" if there is none."""
        experiment_id = client.get_run(run_id).info.experiment_id
        sha256 = run.manifest.files["encoder.safetensors"].sha256
        for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
            if self._encoder_sha256(client, model) == sha256:
                return str(model.model_uri)
        return ""

    def _encoder_sha256(self, client: MlflowClient, model: Any) -> str:
        """Return the checksum of the weights in a logged model; "" if its files are gone, so that it is logged again."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                files = [file.path for file in client.list_logged_model_artifacts(model.model_id, "artifacts")]
                (weights,) = [path for path in files if path.endswith(".safetensors")]
                # Not by `models:/m-.../path`, which MLflow takes for the name of a registered model.
                address = f"{model.artifact_location}/{weights}"
                file = mlflow.artifacts.download_artifacts(address, dst_path=folder, tracking_uri=self._uri)
            except (MlflowException, OSError, ValueError):
                return ""
            return sha256_file(Path(file))

    def _client(self) -> MlflowClient:
        return open_client(self._uri, self._registry)

    def _answering(self) -> AbstractContextManager[None]:
        return answering(self._registry, "the model registry of MLflow")


def identity(run: Artifact) -> dict[str, str]:
    """Return the tags that identify the run of a version: its folder's name, its digest, and the checksum of its encoder.

    The digest is not enough: it is of what was asked for, and the same training run twice need not end in the same numbers.
    """
    sha256 = run.manifest.files["encoder.safetensors"].sha256
    return {"run": run.folder_name, "run_digest": run.digest, "encoder_sha256": sha256}


def is_of(release: Release, run: Artifact) -> bool:
    """Return whether a version was made of this run's encoder."""
    return all(release.tags.get(name) == value for name, value in identity(run).items() if name != "run")


def now_utc() -> str:
    """Return the time in the form of manifests."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stamp() -> str:
    """Return the time in a form for file names."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def user() -> str:
    """Return the user who gave the command, by the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


def _last(champions: list[str], version: str) -> int:
    """Return the position at which a version was champion last."""
    return len(champions) - 1 - champions[::-1].index(version)


def _shortened(text: str) -> str:
    more = "\n\n... (the rest: promotion/README.md of the version's MLflow run)"
    return text if len(text) <= LONGEST_DESCRIPTION else text[: LONGEST_DESCRIPTION - len(more)] + more
