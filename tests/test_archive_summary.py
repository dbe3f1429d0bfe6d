"""The report of a run over an archive: right sums, nothing that runs, little memory."""

from __future__ import annotations

import json
import shlex
import tracemalloc
from fractions import Fraction
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.archive.summary import summarize, write_summary
from geoseg.archive.summary_page import page
from geoseg.core.ownership import is_ours
from geoseg.errors import OutputError


def done(i: int, **result):
    classes = [
        {"id": 0, "name": "water", "color": "419BDF", "pixels": 10 * i, "area_m2": 1000.0 * i},
        {"id": 1, "name": "trees", "pixels": 90 * i, "area_m2": 9000.0 * i},
    ]
    whole = {
        "pixels": 100 * i,
        "seconds": float(i),
        "bytes": 7 * i,
        "classes": classes,
        "peak_bytes": 1000 + i,
        "mpx_s": 1.0,
    }
    return {
        "key": f"scene-{i}",
        "name": f"scene {i}",
        "state": "done",
        "kind": None,
        "reason": None,
        "tries": 1,
        "losses": 0,
        "host": f"host-{i % 2}",
        "result": {**whole, **result},
    }


def failed(i: int, kind: str = "corrupt", reason: str = "it is cut short", **about):
    job = {"key": f"bad-{i}", "name": f"bad {i}", "state": "failed", "kind": kind}
    return {**job, "reason": reason, "tries": 3, "losses": 1, "result": None, **about}


class Page(HTMLParser):
    """The texts of a page, its tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, "tags are left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "code"):
            self.cells[-1] += data


def test_sums_are_right():
    jobs = [*(done(i) for i in range(1, 5)), failed(1), failed(2, "missing", "gone")]
    jobs.append({**failed(3), "state": "waiting"})
    found = summarize(
        jobs, out="/data/my maps", wall_seconds=0.002, hosts=["host-9"], versions={"openvino": "1"}
    )
    assert found["jobs"] == {
        "total": 7,
        "done": 4,
        "states": {"done": 4, "failed": 2, "waiting": 1},
        "tries": 13,
        "losses": 3,
    }
    assert (found["pixels"], found["bytes"], found["peak_memory_bytes"]) == (1000, 70, 1004)
    assert found["mpx_s"] == {"of_all": pytest.approx(0.5), "of_a_worker": pytest.approx(1e-4)}
    assert found["seconds"]["of_a_job"] == {"median": 2.0, "of_95_percent": 4.0, "longest": 4.0}
    assert found["classes"] == [
        {"id": 0, "name": "water", "color": "419BDF"}
        | {"pixels": 100, "area_m2": 10_000.0, "share": 0.1},
        {"id": 1, "name": "trees", "color": None}
        | {"pixels": 900, "area_m2": 90_000.0, "share": 0.9},
    ]
    assert found["warnings"] == {"jobs": 0, "examples": []}
    assert found["hosts"] == ["host-0", "host-1", "host-9"]
    assert found["versions"] == {"openvino": "1"}
    assert [(f["kind"], f["jobs"]) for f in found["failures"]] == [("corrupt", 1), ("missing", 1)]
    (example,) = found["failures"][1]["examples"]
    assert (example["name"], example["reason"], example["tries"]) == ("bad 2", "gone", 3)
    assert [s["key"] for s in found["slowest"]] == ["scene-4", "scene-3", "scene-2", "scene-1"]
    assert json.loads(json.dumps(found)) == found


def test_maps_with_warnings_are_counted_and_named():
    jobs = [done(1), *(done(i, warnings=["it looks scaled twice", "b"]) for i in range(2, 12))]
    found = summarize(jobs, out="o")["warnings"]
    assert found["jobs"] == 10 and len(found["examples"]) == 5
    assert found["examples"][0]["name"] == "scene 2"
    text = page(summarize(jobs, out="o"))
    assert "10 maps with warnings" in text and "it looks scaled twice" in text
    assert "with warnings" not in page(summarize([done(1)], out="o"))


def test_failures_say_how_to_try_again():
    jobs = [failed(i, "odd kind; rm -rf", f"reason {i}") for i in range(9)]
    jobs += [failed(i, "missing") for i in range(20)]
    found = summarize(jobs, out="/data/my maps")
    assert [(f["kind"], f["jobs"]) for f in found["failures"]] == [
        ("missing", 20),
        ("odd kind; rm -rf", 9),
    ]
    assert len(found["failures"][0]["examples"]) == 5
    command = shlex.split(found["failures"][1]["retry"])
    assert command == ["geoseg", "batch", "retry", "/data/my maps", "--kind", "odd kind; rm -rf"]


def test_maps_without_area_are_counted_by_pixels():
    nowhere = done(1)
    for c in nowhere["result"]["classes"]:
        c["area_m2"] = None
    found = summarize([nowhere], out="o")
    assert [c["share"] for c in found["classes"]] == [0.1, 0.9]
    assert found["jobs_without_area"] == 1
    both = summarize([nowhere, done(2)], out="o")
    assert [c["area_m2"] for c in both["classes"]] == [2000.0, 18000.0]
    assert [c["pixels"] for c in both["classes"]] == [30, 270]
    assert "1 map without a known area" in page(both)


def test_nothing_done_and_nothing_known_is_a_report_too():
    for jobs in ([], [{"key": "a", "state": "waiting"}], [{"key": "a", "state": "done"}]):
        found = summarize(jobs, out="o")
        assert found["classes"] == []
        assert found["mpx_s"] == {"of_all": None, "of_a_worker": None}
        Page(page(found))
    found = summarize([{"key": "a", "state": "quarantined"}], out="o")
    assert found["failures"][0]["kind"] == "unknown"
    Page(page(found))


numbers = st.floats(0, 1e18)


@given(areas=st.lists(numbers, min_size=1, max_size=30), data=st.data())
def test_the_order_of_jobs_changes_no_sum(areas, data):
    """And sums are the nearest number to the true ones."""
    jobs = [done(i, classes=[{"id": 0, "name": "a", "area_m2": a}]) for i, a in enumerate(areas)]
    found = summarize(jobs, out="o")
    assert found["classes"][0]["area_m2"] == float(sum(map(Fraction, areas)))
    assert summarize(data.draw(st.permutations(jobs)), out="o") == found


def test_the_page_shows_what_the_report_has():
    found = summarize([done(1), done(3), failed(1)], out="/data/maps", wall_seconds=3725)
    read = Page(page(found))
    for text in (
        "/data/maps",
        "2 of 3 done",
        "1:02:05 h",
        "water",
        "trees",
        "10.00%",
        "90.00%",
        "corrupt",
        "it is cut short",
        "geoseg batch retry /data/maps --kind corrupt",
        "scene 3",
        "host-1",
    ):
        assert text in read.cells, text
    styles = [value for name, value in read.attributes if name == "style"]
    assert "background:#419BDF" in styles
    # The largest class has the longest bar.
    assert "background-size:100.00% 100%;min-width:14rem" in styles
    assert "background-size:11.11% 100%;min-width:14rem" in styles


EVIL = "<td><script>alert(1)</script>\" onload='x' &amp;"


def test_nothing_on_the_page_runs_or_is_fetched():
    evil = {"id": 0, "name": EVIL, "color": '"><script>', "pixels": 1, "area_m2": 1.0}
    job = done(1, classes=[evil], warnings=[EVIL])
    bad = failed(1, EVIL, EVIL, name=EVIL, key=EVIL)
    found = summarize(
        [{**job, "name": EVIL, "key": EVIL, "host": EVIL, "state": "done"}, bad],
        out=EVIL,
        versions={EVIL: EVIL},
    )
    read = Page(page(found))
    assert "script" not in read.tags
    assert not {name for name, _ in read.attributes} & {"onload", "src", "href"}
    assert sum(EVIL in cell for cell in read.cells) >= 10
    assert not {"link", "img", "iframe", "a"} & set(read.tags)


def test_a_report_and_its_page_are_written(tmp_path):
    found = write_summary([done(1)], tmp_path, shown_as="maps", wall_seconds=1.0)
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert found["archive"] == "maps"
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert is_ours(tmp_path / "report.json")
    assert is_ours(tmp_path / "report.html")
    again = write_summary([done(1), done(2)], tmp_path)
    assert again["jobs"]["total"] == 2
    assert again["archive"] == str(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_foreign_files_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(OutputError, match=f"{name} was not made by geoseg"):
        write_summary([done(1)], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_memory_does_not_grow_with_the_jobs():
    def jobs(count):
        for i in range(count):
            yield done(i) if i % 2 else failed(i, f"kind {i % 7}", "x" * 10_000)

    peaks = []
    for count in (2000, 20_000):
        tracemalloc.start()
        page(summarize(jobs(count), out="o"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The times of jobs are kept: eight bytes each, and as much again while they are sorted.
    assert peaks[1] < peaks[0] + 18_000 * 60
