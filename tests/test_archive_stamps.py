"""Stamps: a scene that has changed is mapped again, and no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geoseg
from geoseg.archive import worker
from geoseg.archive.entries import Job, NewJob
from geoseg.archive.ledger import Ledger
from geoseg.archive.run import batch
from geoseg.archive.slim_items import each_once, source_of_item
from geoseg.archive.sources import SceneSource, addresses, source_of_file
from geoseg.archive.stac_items import read_items
from geoseg.archive.stamps import has_changed, stamp_of
from tests import stacitems
from tests.archives import in_this_process, ledger_says
from tests.helpers import make_raster, tiny_model

pytestmark = pytest.mark.extra("batch")

BANDS = ("red", "nir")


def scene(path: Path, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).integers(1, 250, (2, 64, 64)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    return make_raster(path, values, descriptions=BANDS)


def job(source: SceneSource) -> Job:
    """A job that has mapped a scene as it is now."""
    record = json.loads(json.dumps(source.record()))
    result = {"stamp": json.loads(json.dumps(stamp_of(addresses(record))))}
    return Job("k", "n", record, "done", "", "", 0, 0, 0.0, 1, None, 0, result)


def again(path: Path) -> None:
    """Write a file's bytes once more, at another time."""
    time = path.stat().st_mtime_ns + 10**9
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(time, time))


# What is on this machine.


def test_a_file_that_is_written_anew_is_a_change_and_one_that_is_gone_is_none(
    tmp_path: Path,
) -> None:
    path = scene(tmp_path / "a.tif")
    made = job(source_of_file(path))
    assert made.result["stamp"] and not has_changed(made)
    path.read_bytes()
    (tmp_path / "beside.tif").write_bytes(b"another scene")
    (tmp_path / "a.tif.ovr").write_bytes(b"overviews")
    assert not has_changed(made)
    again(path)
    assert has_changed(made)
    path.unlink()
    assert not has_changed(made)


def test_what_lies_beside_a_file_and_counts(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.tif")
    made = job(source_of_file(path))
    aux = tmp_path / "a.tif.aux.xml"
    aux.write_text(
        "<PAMDataset><Metadata><MDI key='STATISTICS_MEAN'>1</MDI></Metadata></PAMDataset>"
    )
    assert not has_changed(made)
    aux.write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    assert has_changed(made)
    aux.unlink()
    assert not has_changed(made)
    (tmp_path / "a.tif.msk").write_bytes(b"mask")
    assert has_changed(made)


def test_a_folder_of_bands(tmp_path: Path) -> None:
    folder = tmp_path / "x.SAFE"
    deep = folder / "GRANULE" / "L2A" / "IMG_DATA"
    deep.mkdir(parents=True)
    for name in ("B02.jp2", "B03.jp2"):
        (deep / name).write_bytes(b"1")
    (folder / "MTD_MSIL2A.xml").write_text("<a/>")
    made = job(source_of_file(folder))
    (folder / "notes.txt").write_text("seen")
    (deep / ".hidden.jp2").write_bytes(b"1")
    assert len(made.result["stamp"]) == 3 and not has_changed(made)
    for change in (deep / "B03.jp2", folder / "MTD_MSIL2A.xml"):
        made = job(source_of_file(folder))
        again(change)
        assert has_changed(made)
    made = job(source_of_file(folder))
    (deep / "B04.jp2").write_bytes(b"1")
    assert has_changed(made)


@pytest.mark.parametrize("name", ["LC08_X_MTL.txt", "LC08_X_MTL.json", "X.IMD", "MTD_MSIL2A.xml"])
def test_metadata_of_a_product_in_its_folder(tmp_path: Path, name: str) -> None:
    folder = scene(tmp_path / "in" / "red.tif").parent
    (folder / name).write_text("{}")
    made = job(source_of_file(folder))
    (folder / "notes.txt").write_text("seen")
    (folder / "other.json").write_text("{}")
    assert not has_changed(made)
    again(folder / name)
    assert has_changed(made)


def test_an_item_beside_files_and_the_header_of_a_data_folder(tmp_path: Path) -> None:
    folder = scene(tmp_path / "x.data" / "red.tif").parent
    (folder / "item.json").write_text('{"type": "Feature", "assets": {}}')
    (tmp_path / "x.dim").write_text("<Dimap_Document/>")
    for path in (folder / "item.json", tmp_path / "x.dim"):
        made = job(source_of_file(folder))
        assert not has_changed(made)
        again(path)
        assert has_changed(made)


def test_what_a_virtual_raster_or_an_archive_holds(tmp_path: Path) -> None:
    import zipfile

    path = scene(tmp_path / "a.tif")
    names = ("inner.vrt", "a.tif"), ("outer.vrt", "inner.vrt")
    for name, of in names:
        band = (
            '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename '
            f'relativeToVRT="1">{of}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
            "</VRTRasterBand>"
        )
        text = f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTDataset>'
        (tmp_path / name).write_text(text)
    made = job(source_of_file(tmp_path / "outer.vrt"))
    assert len(made.result["stamp"]) == 3 and not has_changed(made)
    again(path)
    assert has_changed(made)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(path, "a.tif")
    zipped = job(source_of_file(f"/vsizip/{tmp_path}/z.zip/a.tif"))
    assert len(zipped.result["stamp"]) == 1 and not has_changed(zipped)
    again(tmp_path / "z.zip")
    assert has_changed(zipped)


def test_the_files_of_items_that_lie_here(tmp_path: Path) -> None:
    value = stacitems.earth_search(tmp_path)
    value["properties"].pop("updated", None)
    file = stacitems.save(tmp_path, value)
    band = next(tmp_path.glob("*.tif"))
    (listed,) = read_items(str(file))
    for source in (listed, source_of_file(file)):
        made = job(source)
        assert len(made.result["stamp"]) > 1 and not has_changed(made)
        again(band)
        assert has_changed(made)


# What lies elsewhere.


def remote(updated: str | None = None, checksum: str | None = None) -> SceneSource:
    asset = {"href": "https://example.com/a.tif", "type": "image/tiff"}
    asset |= {"file:checksum": checksum} if checksum else {}
    value = stacitems.item("i", "c", {"B04": asset})
    value["properties"] |= {"updated": updated} if updated else {}
    return source_of_item(value, "https://example.com/i.json")


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ((None, None), (None, None), False),
        (("2026-01-01T00:00:00Z", None), ("2026-01-02T00:00:00Z", None), True),
        (("2026-01-01T00:00:00Z", None), ("2026-01-01T01:00:00.000+01:00", None), False),
        (("2026-01-01T00:00:00Z", "1220aa"), ("2026-01-02T00:00:00Z", "1220aa"), False),
        (("2026-01-01T00:00:00Z", "1220aa"), ("2026-01-01T00:00:00Z", "1220bb"), True),
        (("2026-01-01T00:00:00Z", None), (None, None), False),
    ],
)
def test_what_items_say(before: Any, after: Any, changed: bool) -> None:
    made = job(remote(*before))
    assert has_changed(replace(made, source=remote(*after).record())) is changed
    # It says nothing of what the pixels mean, so the job is the same one; and no list is refused.
    assert remote(*before).job({}, "m").key == remote(*after).job({}, "m").key
    assert len(list(each_once([remote(*before), remote(*after)], "here"))) == 1


def test_nobody_is_asked_for_what_an_address_holds() -> None:
    made = job(source_of_file("https://127.0.0.1:9/a.tif"))
    assert made.result["stamp"] == {} and not has_changed(made)
    older = replace(made, result={})  # of a ledger that knew no stamps
    assert not has_changed(older)


# In a run.


def test_the_ledger_learns_what_a_manifest_says_now(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        ledger.add([NewJob("a", "a", {"x": 1}), NewJob("b", "b", {"x": 1})])
        (first, _) = ledger.claim(2)
        assert ledger.add([NewJob("a", "a", {"x": 2}), NewJob("b", "b", {"x": 2})]) == (0, 2)
        assert [j.source for j in ledger.jobs()] == [{"x": 1}, {"x": 1}]  # somebody is at them
        ledger.done(first, {})
        assert ledger.add([NewJob("a", "a", {"x": 2}), NewJob("c", "c", {"x": 2})]) == (1, 1)
        assert [j.source["x"] for j in ledger.jobs()] == [2, 1, 2]
    with Ledger(tmp_path / "l") as ledger:
        ledger.add([NewJob("c", "c", {"x": 2})])
        assert [j.key for j in ledger.jobs(asked=True)] == ["c"]
        assert list(ledger.jobs("done", asked=True)) == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("geoseg.archive.run.connected", in_this_process)
    tiny_model(tmp_path / "model", BANDS, ("a", "b", "c"), seed=1)
    (tmp_path / "scenes").mkdir()
    for name in ("a", "b"):
        scene(tmp_path / "scenes" / f"{name}.tif", ord(name))
    return tmp_path


def archive(place: Path, hear: Callable[[Any], None] | None = None) -> list[str]:
    """Run it; the scenes that were tried."""
    out = place / "archive"
    before = len(ledger_says(out)["attempts"]) if out.exists() else 0
    batch(str(place / "scenes"), out, model=place / "model", workers=1, progress=hear)
    said = ledger_says(out)
    return [said["names"][key] for key in said["attempts"][before:]]


def test_what_changes_while_it_is_mapped_is_mapped_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "scenes" / "b.tif"
    whole = worker._predict

    def disturbed(task: Any, start: float) -> Any:
        result = whole(task, start)
        if "b-" in task["key"]:
            scene(path, 77)
        return result

    monkeypatch.setattr(worker, "_predict", disturbed)
    assert archive(place) == ["a", "b"]
    monkeypatch.setattr(worker, "_predict", whole)
    heard: list[Any] = []
    assert archive(place, heard.append) == ["b"]
    assert any("scenes have changed" in str(event.get("message")) for event in heard)
    assert archive(place) == []
    (folder,) = (place / "archive").glob("b-*")
    alone = geoseg.predict(path, place / "map.tif", model=place / "model")
    assert (folder / "landcover.tif").read_bytes() == alone.raster.read_bytes()


def test_a_scene_that_is_gone_leaves_its_map(place: Path) -> None:
    """Also where it comes by a list, so that it is asked for."""
    names = [str(path) for path in sorted((place / "scenes").glob("*"))]
    (place / "list.txt").write_text("\n".join(names))
    out = place / "archive"
    for _ in range(2):
        done = batch(str(place / "list.txt"), out, model=place / "model", workers=1)
        assert done.counts["done"] == 2
        (place / "scenes" / "a.tif").unlink(missing_ok=True)
    assert len(ledger_says(out)["attempts"]) == 2
