"""Mutation run: change a module in one small way, run its unit tests, and see whether one of them fails.

    python tests/mutation/run.py [--sample N] [--seed S] [--only WORD]

Each mutant is judged in a process of its own, forked from one that has loaded the heavy libraries, so that they are loaded once.
No file is changed: the process reads the changed source in place of the module's. It takes minutes and belongs to no tier of
tests; docs/benchmarks holds the last result, with the survivors explained.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import os
import random
import signal
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from mutation.changes import Mutant, mutants_of  # noqa: E402

TESTS = {
    "zsbir/losses/quadruplet.py": ["tests/unit/losses"],
    "zsbir/losses/classification.py": ["tests/unit/losses"],
    "zsbir/losses/preservation.py": ["tests/unit/losses"],
    "zsbir/losses/objective.py": ["tests/unit/losses/test_objective.py"],
    "zsbir/data/batches.py": ["tests/unit/data/test_batches.py"],
    "zsbir/evaluation/metrics.py": ["tests/unit/evaluation/test_metrics.py"],
    "zsbir/promotion/gate.py": ["tests/unit/promotion/test_gate.py"],
    "services/jobs/queue/limits.py": ["tests/services/jobs/queue/test_limits.py"],
    "services/jobs/queue/store.py": ["tests/services/jobs/queue/test_store.py", "-k", "not postgres"],
    "services/jobs/queue/dispatching.py": ["tests/services/jobs/queue/test_store.py", "-k", "not postgres"],
}
"""The unit tests that judge each module; a module comes after those that it imports."""

LIBRARIES = ("torch", "torchvision", "pandas", "pyarrow.parquet", "sklearn.metrics", "hypothesis", "PIL.Image", "pytest")
LIBRARIES += ("playwright.sync_api", "safetensors.torch", "pydantic", "fastapi", "starlette.testclient", "sqlalchemy", "alembic")
SURVIVED, KILLED, TIMED_OUT = "survived", "killed", "timed out"
SLOWEST_TIMES = 4
"""A mutant that takes this many times as long as the module unchanged is in an endless loop."""


def main() -> None:
    """Judge a seeded sample of all mutants and print a table, and the survivors."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sample", type=int, default=300, help="mutants judged at most [300]")
    options.add_argument("--seed", type=int, default=0, help="seed of the sample [0]")
    options.add_argument("--only", default="", help="only modules whose path contains this")
    given = options.parse_args()
    os.chdir(REPOSITORY)
    os.environ["OMP_NUM_THREADS"] = "1"
    for library in LIBRARIES:
        importlib.import_module(library)
    importlib.import_module("conftest")  # its import hook checks shapes: what is loaded from here on is loaded as the tests see it
    every = [(file, mutant) for file in TESTS if given.only in file for mutant in mutants_of(Path(file).read_text("utf-8"))]
    chosen = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    print(f"{len(chosen)} of {len(every)} mutants, seed {given.seed}", flush=True)
    results = []
    for file in TESTS:
        results += _judge_file(file, sorted(mutant for other, mutant in chosen if other == file))
    _print_table(results)


def _judge_file(file: str, mutants: list[Mutant]) -> list[tuple[str, Mutant, str]]:
    if not mutants:
        return []
    for name in _imported_by(file):
        importlib.import_module(name)
    began = time.monotonic()
    verdict = _judge(file, None, timeout_s=600)
    if verdict != SURVIVED:
        sys.exit(f"the tests of {file} fail without any change: pytest {' '.join(TESTS[file])}")
    timeout_s = 20 + SLOWEST_TIMES * (time.monotonic() - began)
    results = []
    for mutant in mutants:
        results.append((file, mutant, _judge(file, mutant.source, timeout_s=timeout_s)))
        print(f"{file}:{mutant.line}: {results[-1][2]}: {mutant.before}  ->  {mutant.after}", flush=True)
    return results


def _imported_by(file: str) -> list[str]:
    """Return the project's modules that a module imports; each mutant finds them loaded."""
    nodes = ast.parse(Path(file).read_text("utf-8")).body
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return [name for name in names if name.startswith(("zsbir.", "services."))]


def _judge(file: str, source: str | None, *, timeout_s: float) -> str:
    child = os.fork()
    if not child:
        os._exit(_run_tests(file, source))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return SURVIVED if status == 0 else KILLED
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def _run_tests(file: str, source: str | None) -> int:
    """Run a module's tests in this process with `source` in place of what its file holds (None: as it is)."""
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    if source is not None:
        _read_instead(REPOSITORY / file, source.encode())

    import hypothesis
    import pytest

    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    hypothesis.settings.load_profile("mutants")
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *TESTS[file]]))


def _read_instead(path: Path, source: bytes) -> None:
    """Let imports find `source` at `path`, and never its compiled form."""
    sys.dont_write_bytecode = True
    original = importlib.machinery.SourceFileLoader.get_data

    def get_data(loader: importlib.machinery.SourceFileLoader, name: str) -> bytes:
        if Path(name) == path:
            return source
        if name.endswith(".pyc") and Path(name).name.startswith(f"{path.stem}."):
            raise OSError(f"{name} is the compiled form of another source")
        return original(loader, name)

    importlib.machinery.SourceFileLoader.get_data = get_data


def _print_table(results: list[tuple[str, Mutant, str]]) -> None:
    print("\n| module | mutants | killed | timed out | survived |\n|---|---|---|---|---|")
    for file in [*dict.fromkeys(file for file, _, _ in results), "all"]:
        verdicts = [verdict for other, _, verdict in results if file in (other, "all")]
        print(f"| `{file}` | {len(verdicts)} | " + " | ".join(str(verdicts.count(x)) for x in (KILLED, TIMED_OUT, SURVIVED)) + " |")
    print("\n| survivor | was | became |\n|---|---|---|")
    for file, mutant, verdict in results:
        if verdict == SURVIVED:
            print(f"| `{file}:{mutant.line}` | `{mutant.before}` | `{mutant.after}` |")


if __name__ == "__main__":
    main()
