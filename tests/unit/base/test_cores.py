"""Which cores a process may use and which are free, from files as Linux writes them."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from zsbir.base import cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a machine of eight cores whose files a test writes; all of them may be used."""
    for name in ("proc/self", "cgroup/cpu", "cgroup/jobs/one"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(cores, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_allowed", lambda: set(range(8)))
    (tmp_path / "proc/self/cgroup").write_text("3:cpuset:/\n0::/jobs/one\n")
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)]
)
def test_a_containers_quota_bounds_the_cores(machine, quota, expected):
    (machine / "cgroup/jobs/one/cpu.max").write_text(f"{quota}\n")
    assert cores.usable_cores() == expected


def test_the_quota_of_a_group_above_counts_too(machine):
    (machine / "cgroup/jobs/one/cpu.max").write_text("max 100000\n")
    (machine / "cgroup/jobs/cpu.max").write_text("300000 100000\n")
    assert cores.usable_cores() == 3


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("250000", 3)])
def test_quotas_of_the_first_version_of_control_groups_are_read(machine, quota, expected):
    (machine / "cgroup/cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (machine / "cgroup/cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == expected


def write_load(machine, busy_ticks):
    lines = [f"cpu{number} {ticks} 0 0 1000 50 0 0 0 0 0" for number, ticks in enumerate(busy_ticks)]
    (machine / "proc/stat").write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *lines, "ctxt 5"]))


@pytest.mark.parametrize(("busy_cores", "expected"), [(0, 8), (3, 5), (8, 1)])
def test_cores_on_which_others_work_are_not_free(machine, monkeypatch, busy_cores, expected):
    now = [0.0]
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cores.time, "process_time", lambda: 0.0)

    def sleep(seconds):
        now[0] += seconds
        ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
        write_load(machine, [1000 + ticks * (number < busy_cores) for number in range(8)])

    monkeypatch.setattr(cores.time, "sleep", sleep)
    write_load(machine, [1000] * 8)
    assert cores.free_cores() == expected


def test_where_no_file_tells_of_load_all_usable_cores_count_as_free(machine, monkeypatch):
    monkeypatch.setattr(cores, "LOOK_S", 0.0)
    assert cores.free_cores() == 8


def test_a_real_busy_program_beside_this_one_is_seen():
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores.usable_cores())]
    try:
        deadline = time.monotonic() + 20
        while cores.free_cores() > 1:
            assert time.monotonic() < deadline
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
