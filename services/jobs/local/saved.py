"""What `down` says of the jobs that were running: what each of them has saved, from which the next `up` goes on."""

from __future__ import annotations

from collections.abc import Sequence

from services.jobs.runs.attempt_dir import AttemptDir
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import below_root, checkpoints_uri
from zsbir.base.storage import join, open_folder
from zsbir.base.text import clean
from zsbir.training.checkpoint_names import newest_checkpoint

GOES_ON = "goes on with the next `up`"


def saved_line(attempt_dir: AttemptDir, root: str) -> str:
    """Return one line on a job whose attempt was running when the service ended: its checkpoint, or how else it goes on.

    Storage that refuses is part of the line. root: the storage root, in which addresses are looked for.
    """
    try:
        spec, end = attempt_dir.spec(), attempt_dir.read_end()
        name = clean(str(spec.get("name") or ""))  # attempts of earlier versions have none
        job = f"job {spec['job']} ({name or ', '.join(attempt_dir.step_names())})"
        if end and end.cause == "succeeded":
            return f"{job} finished meanwhile: {end.result}"
        if end and end.cause != "preempted":
            return f"{job} ended meanwhile ({end.cause}): {end.message}"
        return f"{job} {_state(attempt_dir, root)}; it {GOES_ON}"
    except (InputError, RunError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{attempt_dir.uri}: cannot tell what it has saved ({error}); its job {GOES_ON}"


def _state(attempt_dir: AttemptDir, root: str) -> str:
    """Return what an attempt has saved: of a training its newest checkpoint, else the steps that are done."""
    steps: Sequence[str] = attempt_dir.step_names()
    made = attempt_dir.results()
    run = next((uri for name in reversed(steps) if (uri := _run(attempt_dir, name, root)) and name not in made), "")
    newest = newest_checkpoint(open_folder(checkpoints_uri(run))) if run else None
    if newest:
        return f"has saved step {newest.manifest.counts['step']}: {newest.uri}"
    if run:
        return f"had no checkpoint yet of {run}"
    done = [name for name in steps if name in made]
    return f"had no training under way; done: {', '.join(done) or 'nothing yet'}"


def _run(attempt_dir: AttemptDir, step: str, root: str) -> str:
    """Return the run that a step trains, at its place in this root, whatever address its status file holds; "" for none."""
    uri = str(attempt_dir.status(step)["facts"].get("run", ""))
    found = below_root(uri) if uri else ""
    return join(root, found) if found.startswith("runs/") else ""
