"""The report of a run over an archive: what was done, how fast, and what failed and why.

Jobs come one by one and leave little behind, so that a hundred thousand of them take no more memory
than a hundred.
"""

from __future__ import annotations

import heapq
import math
import shlex
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geoseg.archive.summary_page import page
from geoseg.archive.writing import check_replaceable, write_text
from geoseg.core.jsontext import json_text

__all__ = ["DONE", "WITHOUT_VERDICT", "summarize", "write_summary"]

#: The state of a job whose map is there; and of those of which nothing is to be said yet, even if
#: a try has failed.
DONE = "done"
WITHOUT_VERDICT = ("waiting", "running")
#: Examples of a kind of failure, and jobs that took longest, that are listed.
_EXAMPLES, _SLOWEST = 5, 10
#: Letters of a reason that are kept.
_MOST_LETTERS = 500


def summarize(
    jobs: Iterable[Mapping[str, Any]],
    *,
    out: str | Path,
    wall_seconds: float | None = None,
    hosts: Iterable[str] = (),
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Sum up the jobs of an archive.

    Args:
        jobs: each with ``key``, ``name`` and ``state``; ``kind`` and ``reason`` of what it failed
            by; ``tries`` and ``losses``, the times that it was begun and that its worker was lost;
            and, where it is done, ``result``: ``pixels``, ``seconds``, ``bytes``, ``peak_bytes``
            ``warnings``, and ``classes``, each with ``id``, ``name``, ``color`` (``RRGGBB``),
            ``pixels`` and ``area_m2``. What else is there is not looked at, but for ``host``. None
            stands for what is unknown.
        out: the archive's folder, as commands are to name it.
        wall_seconds: from the first job's begin to the last one's end.
        hosts: machines that worked.
        versions: of programs.

    Returns:
        What JSON has, and nothing else.
    """
    about = _Sums(str(out))
    about.hosts.update(hosts)
    for job in jobs:
        about.add(job)
    return about.report(wall_seconds, versions or {})


def write_summary(
    jobs: Iterable[Mapping[str, Any]],
    out: Path,
    *,
    shown_as: str | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` into an archive.

    Args:
        jobs: see :func:`summarize`.
        out: the archive's folder.
        shown_as: how commands are to name it; the folder by default.
        **about: what :func:`summarize` takes besides.

    Returns:
        The report.

    Raises:
        OutputError: the files can't be written, or geoseg did not make those that are there.
    """
    paths = out / "report.json", out / "report.html"
    for path in paths:
        check_replaceable(path)
    report = summarize(jobs, out=shown_as or out, **about)
    write_text(paths[0], json_text(report, indent=2) + "\n")
    write_text(paths[1], page(report))
    return report


class _Sums:
    """What is kept of jobs that went by."""

    def __init__(self, out: str) -> None:
        self.out = out
        self.states: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.peak: int | None = None
        self.seconds = array("d")
        self.slowest: list[tuple[float, str, str]] = []
        self.classes: dict[tuple[int, str], dict[str, Any]] = {}
        self.without_area = 0
        self.warned = 0
        self.warnings: list[dict[str, Any]] = []
        self.failures: dict[str, dict[str, Any]] = {}
        self.hosts: set[str] = set()

    def add(self, job: Mapping[str, Any]) -> None:
        """Count a job."""
        state = str(job["state"])
        self.states[state] += 1
        for name in ("tries", "losses"):
            self.totals[name] += job.get(name) or 0
        if job.get("host"):
            self.hosts.add(str(job["host"]))
        if state == DONE:
            self._add_result(job, job.get("result") or {})
        elif state not in WITHOUT_VERDICT:
            self._add_failure(job)

    def _add_result(self, job: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        for name in ("pixels", "bytes"):
            self.totals[name] += result.get(name) or 0
        if result.get("peak_bytes") is not None:
            self.peak = max(self.peak or 0, result["peak_bytes"])
        seconds = result.get("seconds")
        if seconds is not None and math.isfinite(seconds):
            self.seconds.append(seconds)
            entry = (float(seconds), str(job["key"]), str(job.get("name", "")))
            heapq.heappush(self.slowest, entry)
            if len(self.slowest) > _SLOWEST:
                heapq.heappop(self.slowest)
        areas = []
        for found in result.get("classes") or ():
            key = int(found["id"]), str(found["name"])
            total = self.classes.setdefault(key, {"pixels": 0, "area_m2": [], "color": None})
            total["color"] = total["color"] or found.get("color")
            total["pixels"] += found.get("pixels") or 0
            areas.append(found.get("area_m2"))
            if areas[-1] is not None and math.isfinite(areas[-1]):
                _add_exactly(total["area_m2"], float(areas[-1]))
        self.without_area += None in areas
        if result.get("warnings"):
            self.warned += 1
            if len(self.warnings) < _EXAMPLES:
                about = {name: str(job.get(name, "")) for name in ("key", "name")}
                self.warnings.append({**about, "warnings": list(result["warnings"])})

    def _add_failure(self, job: Mapping[str, Any]) -> None:
        kind = str(job.get("kind") or "unknown")
        found = self.failures.setdefault(kind, {"jobs": 0, "examples": []})
        found["jobs"] += 1
        if len(found["examples"]) < _EXAMPLES:
            reason = str(job.get("reason") or "")
            found["examples"].append(
                {
                    "key": str(job["key"]),
                    "name": str(job.get("name", "")),
                    "state": str(job["state"]),
                    "reason": reason[:_MOST_LETTERS],
                    "tries": job.get("tries"),
                }
            )

    def report(self, wall_seconds: float | None, versions: Mapping[str, str]) -> dict[str, Any]:
        """Give all of it as JSON has it."""
        pixels, busy = self.totals["pixels"], math.fsum(self.seconds)
        return {
            "geoseg": version("geoseg"),
            "archive": self.out,
            "jobs": {
                "total": self.states.total(),
                "done": self.states[DONE],
                "states": dict(sorted(self.states.items())),
                "tries": self.totals["tries"],
                "losses": self.totals["losses"],
            },
            "pixels": pixels,
            "bytes": self.totals["bytes"],
            "peak_memory_bytes": self.peak,
            "seconds": {
                "wall": wall_seconds,
                "of_all_jobs": round(busy, 3),
                "of_a_job": self._quantiles(),
            },
            "mpx_s": {"of_all": _rate(pixels, wall_seconds), "of_a_worker": _rate(pixels, busy)},
            "classes": self._classes(),
            "jobs_without_area": self.without_area,
            "warnings": {"jobs": self.warned, "examples": self.warnings},
            "failures": [
                {"kind": kind, **found, "retry": self._retry(kind)}
                for kind, found in sorted(
                    self.failures.items(), key=lambda entry: (-entry[1]["jobs"], entry[0])
                )
            ],
            "slowest": [
                {"key": key, "name": name, "seconds": seconds}
                for seconds, key, name in sorted(self.slowest, key=lambda s: (-s[0], s[1]))
            ],
            "hosts": sorted(self.hosts),
            "versions": dict(sorted(versions.items())),
        }

    def _quantiles(self) -> dict[str, float] | None:
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        places = {"median": 0.5, "of_95_percent": 0.95, "longest": 1.0}
        return {
            name: ordered[math.ceil(place * len(ordered)) - 1] for name, place in places.items()
        }

    def _classes(self) -> list[dict[str, Any]]:
        """Give the classes with their shares: of the area, or of the pixels if none is known."""
        found = []
        for (value, name), total in sorted(self.classes.items()):
            area = math.fsum(total["area_m2"]) if total["area_m2"] else None
            about = {"id": value, "name": name, "color": total["color"]}
            found.append({**about, "pixels": total["pixels"], "area_m2": area})
        by = "pixels" if all(c["area_m2"] is None for c in found) else "area_m2"
        whole = math.fsum(c[by] or 0 for c in found)
        return [{**c, "share": (c[by] or 0) / whole if whole else None} for c in found]

    def _retry(self, kind: str) -> str:
        return shlex.join(["geoseg", "batch", "retry", self.out, "--kind", kind])


def _rate(pixels: int, seconds: float | None) -> float | None:
    return pixels / 1e6 / seconds if seconds else None


def _add_exactly(parts: list[float], value: float) -> None:
    """Add to a sum that is kept as a few numbers without error, as math.fsum does.

    So the sum is the same in whatever order jobs come.
    """
    kept = 0
    for part in parts:
        large, small = (value, part) if abs(value) > abs(part) else (part, value)
        value = large + small
        if error := small - (value - large):
            parts[kept] = error
            kept += 1
    parts[kept:] = [value]
