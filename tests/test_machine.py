"""Memory and cores, within the limits of control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from geoseg.core import machine

FREE = 50 << 20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where control groups are shown; nothing is limited yet, and 50 MiB and 8 cores are free."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    free = psutil.virtual_memory()._replace(available=FREE)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def version_2(folder: Path, most: str, used: int, files: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\nactive_file 7\n")


def version_1(folder: Path, most: int, used: int, files: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{most}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {files}\n")


def own(groups: Path, *lines: str) -> None:
    (groups.parent / "own").write_text("\n".join(lines) + "\n")


def test_without_groups_what_is_free_is_free(groups: Path) -> None:
    assert machine.available_memory() == FREE
    own(groups, "0::/")
    assert (machine.available_memory(), machine.available_cores()) == (FREE, 8)


def test_files_that_were_read_do_not_count_as_taken(groups: Path) -> None:
    """A container is full of them soon; the kernel gives their memory to whoever asks."""
    own(groups, "0::/")
    version_2(groups, str(4 << 20), (4 << 20) - 1000, 3 << 20)
    assert machine.available_memory() == (3 << 20) + 1000


def test_the_tightest_of_nested_groups_counts(groups: Path) -> None:
    own(groups, "0::/slurm/job/step")
    version_2(groups / "slurm/job/step", "max", 100)
    version_2(groups / "slurm/job", "5000", 1000, 200)
    version_2(groups / "slurm", "90000", 1000)
    assert machine.available_memory() == 4200
    version_2(groups / "slurm", "3000", 1000)
    assert machine.available_memory() == 2000
    version_2(groups / "slurm", "1000", 3000)
    assert machine.available_memory() == 0


def test_a_container_that_shows_its_own_group_as_the_outermost(groups: Path) -> None:
    """The path is the host's, and no such folder is there."""
    own(groups, "0::/docker/5f3a")
    version_2(groups, "7000", 3000)
    (groups / "cpu.max").write_text("200000 100000\n")
    assert (machine.available_memory(), machine.available_cores()) == (4000, 2)


def test_groups_of_version_1_each_have_their_own_path(groups: Path) -> None:
    own(groups, "5:cpu,cpuacct:/batch", "4:memory:/batch/job", "1:name=systemd:/x", "0::/")
    version_1(groups / "memory/batch/job", (1 << 63) - 4096, 9)
    version_1(groups / "memory/batch", 6000, 5000, 400)
    (groups / "cpu/batch").mkdir(parents=True)
    (groups / "cpu/batch/cpu.cfs_quota_us").write_text("250000\n")
    (groups / "cpu/batch/cpu.cfs_period_us").write_text("100000\n")
    assert (machine.available_memory(), machine.available_cores()) == (1400, 3)
    (groups / "cpu/batch/cpu.cfs_quota_us").write_text("-1\n")
    assert machine.available_cores() == 8


def test_paths_outside_are_not_followed(groups: Path) -> None:
    own(groups, "0::/../../other")
    version_2(groups.parent / "other", "1", 1)
    assert machine.available_memory() == FREE


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("900000 100000", 8), ("", 8)],
)
def test_a_limit_of_cpu_time(groups: Path, limit: str, cores: int) -> None:
    own(groups, "0::/")
    (groups / "cpu.max").write_text(limit)
    assert machine.available_cores() == cores


def test_of_this_process() -> None:
    held = machine.resident_memory()
    assert 10 << 20 < held <= machine.peak_memory() + (4 << 20) < psutil.virtual_memory().total
    filled = bytearray(os.urandom(1 << 20) * 64)
    assert machine.resident_memory() > held + (48 << 20)
    peak = machine.peak_memory()
    del filled
    assert machine.peak_memory() >= peak
    assert 0 < machine.available_memory() <= psutil.virtual_memory().total
