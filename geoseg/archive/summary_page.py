"""The page of a run over an archive, for people: what was done, what failed, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from geoseg.core.pages import page_text, share_bar, shown, table
from geoseg.core.wording import counted

__all__ = ["page"]


def page(report: Mapping[str, Any]) -> str:
    """Write the report of a run as a page.

    Args:
        report: of :func:`geoseg.archive.summary.summarize`.

    Returns:
        The text of the HTML file.
    """
    title = f"{str(report['archive']).rstrip('/').rsplit('/', 1)[-1]}: land cover of an archive"
    failed = sum(found["jobs"] for found in report["failures"])
    parts = [f"<h1>{escape(title)}</h1>", _facts(report)]
    if failed:
        parts += [f'<p class="warning">{escape(counted(failed, "job"))} failed.</p>']
        parts += _failures(report["failures"])
    if report["warnings"]["jobs"]:
        parts += _warnings(report["warnings"])
    if report["classes"]:
        parts += _classes(report)
    parts += _jobs(report)
    return page_text(title, parts)


def _facts(report: Mapping[str, Any]) -> str:
    jobs, seconds, speed = report["jobs"], report["seconds"], report["mpx_s"]
    rows = [
        ("archive", str(report["archive"])),
        ("jobs", f"{shown(jobs['done'])} of {shown(jobs['total'])} done"),
        ("pixels", shown(report["pixels"])),
        ("bytes written", shown(report["bytes"])),
        ("time", _duration(seconds["wall"])),
        ("speed of all", _speed(speed["of_all"])),
        ("speed of a worker", _speed(speed["of_a_worker"])),
        ("most memory of a job", _bytes(report["peak_memory_bytes"])),
        ("tries", shown(jobs["tries"])),
        ("lost workers", shown(jobs["losses"])),
        ("machines", ", ".join(report["hosts"]) or "–"),
        ("versions", ", ".join(f"{k} {v}" for k, v in report["versions"].items()) or "–"),
    ]
    return _rows_of_two(rows)


def _rows_of_two(rows: Iterable[tuple[str, str]]) -> str:
    cells = ((f"<th>{escape(k)}</th>", _text(v)) for k, v in rows)
    return table((), cells)


def _text(text: Any) -> str:
    return f'<td class="text">{escape(str(text))}</td>'


def _code(text: str) -> str:
    return f'<td class="text"><code>{escape(text)}</code></td>'


def _failures(failures: Sequence[Mapping[str, Any]]) -> list[str]:
    kinds = ([_text(f["kind"]), shown(f["jobs"]), _code(f["retry"])] for f in failures)
    examples = (
        [_text(f["kind"]), _text(e["name"]), _text(e["key"]), shown(e["tries"]), _text(e["reason"])]
        for f in failures
        for e in f["examples"]
    )
    return [
        "<h2>What failed</h2>",
        table(["kind", "jobs", "once the cause is gone"], kinds),
        "<h2>Some of them</h2>",
        table(["kind", "scene", "job", "tries", "reason"], examples),
    ]


def _warnings(warnings: Mapping[str, Any]) -> list[str]:
    examples = (
        [_text(found["name"]), _text(found["key"]), _text(text)]
        for found in warnings["examples"]
        for text in found["warnings"]
    )
    count = counted(warnings["jobs"], "map")
    return [
        "<h2>What to look at</h2>",
        f'<p class="warning">{count} with warnings; all are in the report of each map.</p>',
        table(["scene", "job", "warning"], examples),
    ]


def _classes(report: Mapping[str, Any]) -> list[str]:
    most = max((c["share"] or 0 for c in report["classes"]), default=0) or 1
    rows = (
        [
            _class_cell(c),
            shown(c["pixels"]),
            "–" if c["area_m2"] is None else f"{c['area_m2'] / 1e6:,.3f}".replace(",", " "),
            _share(c["share"], most),
        ]
        for c in report["classes"]
    )
    parts = [
        "<h2>What is there</h2>",
        table(["class", "pixels", "area, km²", "share"], rows),
        "<p>Ground that several scenes show is counted with each of them.</p>",
    ]
    if report["jobs_without_area"]:
        maps = counted(report["jobs_without_area"], "map")
        parts.append(f'<p class="warning">{maps} without a known area: pixels alone count.</p>')
    return parts


def _share(share: float | None, most: float) -> str:
    """Write a share with a bar that is full where there is most."""
    return share_bar(None) if share is None else share_bar(share / most, f"{share:.2%}", "14rem")


def _class_cell(entry: Mapping[str, Any]) -> str:
    color = str(entry.get("color") or "808080")
    style = f"background:#{color}" if color.isalnum() else ""
    return (
        f'<td class="text"><span class="swatch" style="{style}"></span>'
        f"{escape(str(entry['name']))}</td>"
    )


def _jobs(report: Mapping[str, Any]) -> list[str]:
    states = ([_text(state), shown(n)] for state, n in report["jobs"]["states"].items())
    parts = ["<h2>Jobs</h2>", table(["state", "jobs"], states)]
    times = report["seconds"]["of_a_job"]
    if times is not None:
        parts.append(
            f"<p>Half of the jobs took {_duration(times['median'])} at most, 95 % "
            f"{_duration(times['of_95_percent'])}, the longest {_duration(times['longest'])}.</p>"
        )
        slow = (
            [_text(s["name"]), _text(s["key"]), _duration(s["seconds"])] for s in report["slowest"]
        )
        parts += ["<h2>Those that took longest</h2>", table(["scene", "job", "time"], slow)]
    return parts


def _speed(mpx_s: float | None) -> str:
    return "–" if mpx_s is None else f"{mpx_s:.3g} Mpx/s"


def _bytes(number: int | None) -> str:
    return "–" if number is None else f"{number / 1e9:.3g} GB"


def _duration(seconds: float | None) -> str:
    """Write a time as hours, minutes and seconds.

    Examples:
        >>> _duration(3725.0), _duration(0.25), _duration(None)
        ('1:02:05 h', '0.25 s', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h"
