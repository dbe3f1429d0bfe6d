"""What an archive costs beside its maps: scaling, overhead a scene, memory of the ledger.

    python benchmarks/batch.py [--scenes 40] [--side 1024] [--rounds 3] [--jobs 100000]

Three figures:

- scaling: scenes a second with two workers over those with one, each worker with one thread;
  rounds are interleaved, the figure is the median of their ratios. What counts is the time between
  the first and the last attempt in the ledger, so that starting processes does not. One worker that
  has two cores reads and writes on the second; so it is also measured with one core for all that
  the run does (Linux), which is what each of a cluster's workers has.
- overhead a scene: of one worker, the time between two attempts' ends less what ``predict`` says
  that it took; medians.
- coordinator: memory of a process with a ledger of many waiting jobs, and the time that a claim and
  its end take there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from common import make_scene  # the script beside this one

LEDGER = """
import json, sys, time
from pathlib import Path
import psutil
from geoseg.archive.entries import NewJob
from geoseg.archive.ledger import Ledger
path, jobs = Path(sys.argv[1]), int(sys.argv[2])
source = {"files": ["/archive/" + "x" * 80 + ".tif"]}
with Ledger(path) as ledger:
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    ledger.add(NewJob(f"scene-{n:010}", f"scene{n}", source) for n in range(jobs))
    added = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(200):
        (job,) = ledger.claim(1)
        ledger.done(job, {"pixels": 1, "files": {}})
    each = (time.perf_counter() - start) / 200
    after = psutil.Process().memory_info().rss
found = {"add_s": added, "claim_and_done_ms": 1000 * each, "more_mb": (after - before) / 1e6}
print(json.dumps(found))
"""


def run(scenes: Path, archive: Path, workers: int, cores: int = 0) -> tuple[float, float]:
    """Make an archive, on so many cores; 0 for all.

    Returns:
        Scenes a second, and the median seconds a scene beside those of ``predict``.
    """
    shutil.rmtree(archive, ignore_errors=True)
    command = [sys.executable, "-m", "geoseg", "batch", str(scenes), "-m", "landcover-aerial"]
    machine = ["--workers", str(workers), "--threads", "1", "--precision", "fp32", "-q"]
    whole = os.sched_getaffinity(0) if cores else set()
    if cores:  # children have what their parent has
        os.sched_setaffinity(0, sorted(whole)[:cores])
    try:
        subprocess.run([*command, "-o", str(archive), *machine], check=True)
    finally:
        if cores:
            os.sched_setaffinity(0, whole)
    with sqlite3.connect(archive / "ledger.sqlite") as base:
        rows = base.execute(
            "SELECT attempts.ended, jobs.result FROM attempts JOIN jobs ON attempts.key = jobs.key "
            "WHERE outcome = 'done' ORDER BY ended"
        ).fetchall()
    # The first ones load the model, and compile.
    rows = rows[2 * workers :]
    ended = [row[0] for row in rows]
    speed = (len(ended) - 1) / (ended[-1] - ended[0])
    between = [b - a for a, b in pairwise(ended)]
    own = [json.loads(row[1])["seconds"] for row in rows[1:]]
    overhead = statistics.median(b - o for b, o in zip(between, own, strict=True))
    return speed, overhead


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--side", type=int, default=1024, help="px of a scene")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=100_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scenes").mkdir()
        first = folder / "scenes" / "s000.tif"
        make_scene(first, asked.side, asked.side)
        for number in range(1, asked.scenes):
            shutil.copyfile(first, first.with_name(f"s{number:03}.tif"))
        ratios, of_cores, overheads = [], [], []
        for round_ in range(asked.rounds):
            one, overhead = run(folder / "scenes", folder / "archive", 1)
            alone, _ = run(folder / "scenes", folder / "archive", 1, cores=1)
            two, _ = run(folder / "scenes", folder / "archive", 2, cores=2)
            ratios.append(two / one)
            of_cores.append(two / alone)
            overheads.append(overhead)
            print(
                f"round {round_ + 1}: {one:.2f}, on one core {alone:.2f}, and by two workers on "
                f"two {two:.2f} scenes a second",
                flush=True,
            )
        print(f"two workers over one: {statistics.median(ratios):.2f}")
        print(f"two workers on two cores over one on one: {statistics.median(of_cores):.2f}")
        print(f"overhead a scene: {1000 * statistics.median(overheads):.0f} ms")
        done = subprocess.run(
            [sys.executable, "-c", LEDGER, str(folder / "ledger"), str(asked.jobs)],
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout)
        print(
            f"a ledger of {asked.jobs} jobs: {found['add_s']:.1f} s to enter them, "
            f"{found['claim_and_done_ms']:.1f} ms a claim and its end, {found['more_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
