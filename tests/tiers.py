"""A pytest plugin: the tiers of the test suite, its time limit for quick tests, and a Ctrl-C that loses nothing (docs/testing.md).

A test without a mark belongs to `make test`. `slow` ones run in `make test-all` only, except the few that are `everyday` too.
`long` ones run in `make test-long` only.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator
from typing import Any, NoReturn

import pytest

LIMIT_CPU_S = 15.0 if "coverage" in sys.modules else 5.0
"""CPU seconds that a quick test may take in this process: enough for a slow machine, too few for a training. Measuring coverage
costs as much again and more."""

EXCEPTIONS = {
    "tests/docs/test_docs.py": "imports every command once, in this process",
    "tests/unit/test_error_lines.py": "imports every command once, in this process",
}
"""Files whose quick tests may take longer, each with the reason."""

SERVERS = ("rgw", "postgres")
"""Real servers that take seconds to start: a test on one of them is `slow`."""

COSTS = pytest.StashKey[float]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Answer SIGINT by stopping, also where a verb that a test calls turns the KeyboardInterrupt into its own exit.

    A suite that a script started in the background, or under nohup, ignores SIGINT and SIGHUP, and so would every process that its
    tests start; what has a handler is not ignored there.
    """

    def stop(_number: int, _frame: object) -> NoReturn:
        session.shouldstop = "interrupted"
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a real server as slow: the same test on disk, in moto or in SQLite stays quick."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        values = [value for value in (callspec.params.values() if callspec else ()) if isinstance(value, str)]
        used = {*values, *getattr(item, "fixturenames", ())}
        if used.intersection(SERVERS):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Prepare an item for a Ctrl-C: `tmp_path` looks up a report that an interrupted test does not have, and dies of it."""
    try:
        from _pytest.tmpdir import tmppath_result_key
    except ImportError:  # a pytest that has mended it
        pass
    else:
        item.stash.setdefault(tmppath_result_key, {})
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a quick test that takes more than its share of CPU time. Time spent waiting for a busy machine does not count."""
    began_s = time.process_time()
    try:
        return (yield)
    finally:
        item.stash[COSTS] = time.process_time() - began_s


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Turn a pass that was too dear into a failure that says what to do."""
    report = yield
    cost_s = item.stash.get(COSTS, 0.0)
    if call.when == "call" and report.passed and cost_s > LIMIT_CPU_S and _is_quick(item):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} took {cost_s:.1f} CPU seconds; a test without a mark has {LIMIT_CPU_S:g}. Make it cheaper, mark it "
            "`slow`, or add its file to EXCEPTIONS in tests/tiers.py with the reason."
        )
    return report


def _is_quick(item: pytest.Item) -> bool:
    marked = any(item.get_closest_marker(name) for name in ("slow", "long", "everyday", "realdata"))
    return not marked and item.nodeid.partition("::")[0] not in EXCEPTIONS
