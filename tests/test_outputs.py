"""Outputs: no file is followed, emptied, replaced or lost, and all get their names together."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from shapely.geometry import Point

import geoseg
from geoseg.cli.app import _cli
from geoseg.core.ownership import is_ours
from geoseg.core.staging import Staging
from geoseg.core.workfolder import MARK, WorkFolder, work_folder_of
from geoseg.errors import OutputError, UsageError
from geoseg.zoo import ZOO
from tests.helpers import make_raster, tiny_model
from tests.oracles import OneHot

CLASSES = ("water", "trees", "crops", "built")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red",), CLASSES)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 4, (1, 90, 70)).astype(np.uint8)
    return make_raster(tmp_path / "scene.tif", values, descriptions=("red",))


def predict(scene: Path, model: Path, output: Path, **options: Any) -> Any:
    return geoseg.predict(scene, output, model=model, runtime=OneHot(4), **options)


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


# The work folder


@pytest.mark.parametrize("name", ["out.tif", "out.gpkg"])
@pytest.mark.parametrize("kind", ["link", "folder", "file"])
def test_what_has_the_work_folders_name_is_neither_followed_nor_emptied(
    tmp_path: Path, scene: Path, model: Path, name: str, kind: str
) -> None:
    """An archive may bring such a link beside its scene."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    work = tmp_path / f".geoseg-{name}"
    if kind == "link":
        work.symlink_to(precious)
    elif kind == "folder":
        work.mkdir()
        (work / "thesis.txt").write_text("years")
    else:
        work.write_text("years")
    for restart in (False, True):
        with pytest.raises(OutputError, match=r"\.geoseg-out.* (is a link|was not made by geoseg)"):
            predict(scene, model, tmp_path / "out.tif", restart=restart)
    assert (precious / "thesis.txt").read_text() == "years"
    kept = {"link": precious / "thesis.txt", "folder": work / "thesis.txt", "file": work}[kind]
    assert kept.read_text() == "years"
    assert hidden(tmp_path) == [work.name] and not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("inner", ["scratch", "lock", "run.json", "before"])
def test_a_link_in_a_marked_folder_is_not_followed(
    tmp_path: Path, scene: Path, model: Path, inner: str
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    work = tmp_path / ".geoseg-out.tif"
    work.mkdir()
    (work / MARK).touch()
    target = precious if inner in ("scratch", "before") else precious / "thesis.txt"
    (work / inner).symlink_to(target)
    with pytest.raises(OutputError, match=rf"{inner} is a link, which geoseg never makes"):
        predict(scene, model, tmp_path / "out.tif")
    assert [p.name for p in precious.iterdir()] == ["thesis.txt"]
    assert (precious / "thesis.txt").read_text() == "years"


def test_the_work_folder_is_the_users_alone_and_marked(tmp_path: Path) -> None:
    with Staging([tmp_path / "out.tif", tmp_path / "out.gpkg"]):
        assert hidden(tmp_path) == [".geoseg-out.gpkg", ".geoseg-out.tif"]
        for name in hidden(tmp_path):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
            assert (tmp_path / name / MARK).exists()
    assert hidden(tmp_path) == []
    # Killed between making and marking it.
    (tmp_path / ".geoseg-out.tif").mkdir()
    with Staging([tmp_path / "out.tif"]):
        pass
    assert hidden(tmp_path) == []


def test_a_folder_that_ends_is_taken_by_the_next_run_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    first = WorkFolder.take(output)
    with pytest.raises(OutputError, match="another run is at work"):
        WorkFolder.take(output)
    (first.path / "file").touch()
    first.release()
    second = WorkFolder.take(output)
    assert second.found and (second.path / "file").exists()
    second.clear(but=["file"])
    assert (second.path / "file").exists()
    second.clear()
    assert sorted(p.name for p in second.path.iterdir()) == ["lock", MARK]
    second.remove()
    assert not work_folder_of(output).exists()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_failing_start_leaves_no_lock(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.tif"

    def fails(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("geoseg.core.staging.write_whole", fails)
        with pytest.raises(type(error)), Staging([output]).resumable({"a": 1}):
            pass
    assert hidden(tmp_path) == []
    with Staging([output]).resumable({"a": 1}):
        pass


def test_numbers_of_numpy_are_options(tmp_path: Path, scene: Path, model: Path) -> None:
    options = {
        "size": np.int64(32),
        "overlap": np.int32(8),
        "threads": np.int16(1),
        "min_area": np.float32(0),
        "scale": np.float64(1),
        "bbox": np.array([500000.0, 4999500.0, 500500.0, 5000000.0]),
        "exact": np.bool_(False),
    }
    report = predict(scene, model, tmp_path / "out.tif", **options).report
    assert report["options"]["size"] == 32 and report["grid"]["width"] == 50
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert json.loads(dataset.tags()["GEOSEG_OPTIONS"])["overlap"] == 8


# What is there already


def users_file(path: Path) -> bytes:
    if path.suffix in (".tif", ".tiff"):
        make_raster(path, np.ones((1, 5, 5), np.uint8))
    elif path.suffix in (".gpkg", ".parquet", ".geojson"):
        frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[Point(0, 0)], crs=4326)
        frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    elif path.suffix == ".json":
        path.write_text('{"settings": [1, 2]}')
    elif path.suffix == ".qml":
        path.write_text("<!DOCTYPE qgis>\n<qgis version='3.40.0'><pipe/></qgis>\n")
    else:
        path.write_bytes(b"mine")
    return path.read_bytes()


@pytest.mark.parametrize(
    "name", ["k2.tif", "k2.json", "k2.qml", "p.tif", "k2.png", "v.parquet", "v.geojson"]
)
def test_overwrite_replaces_what_geoseg_made_alone(
    tmp_path: Path, scene: Path, model: Path, name: str
) -> None:
    options: dict[str, Any] = {"probs": tmp_path / "p.tif", "preview": tmp_path / "k2.png"}
    if name.startswith("v"):
        options["vector"] = tmp_path / name
    mine = users_file(tmp_path / name)
    with pytest.raises(OutputError, match=rf"{name} was not made by geoseg"):
        predict(scene, model, tmp_path / "k2.tif", overwrite=True, **options)
    assert (tmp_path / name).read_bytes() == mine and hidden(tmp_path) == []
    (tmp_path / name).unlink()
    # What geoseg made is replaced, and an empty file (of mktemp, say) is nobody's.
    (tmp_path / name).touch()
    for _ in range(2):
        predict(scene, model, tmp_path / "k2.tif", overwrite=True, **options)
    assert all(map(is_ours, [tmp_path / name, tmp_path / "k2.json", tmp_path / "k2.qml"]))


@pytest.mark.parametrize("made", [False, True])
def test_a_sidecar_that_geoseg_did_not_make_is_refused(
    tmp_path: Path, scene: Path, model: Path, made: bool
) -> None:
    """It would be read as a part of the new map, and is not geoseg's to delete."""
    output = tmp_path / "out.tif"
    if made:
        predict(scene, model, output)
    for suffix in (".ovr", ".msk", ".aux.xml"):
        sidecar = Path(f"{output}{suffix}")
        sidecar.write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
        with pytest.raises(OutputError, match=rf"out.tif{suffix} would be read as a part of"):
            predict(scene, model, output, overwrite=True)
        assert sidecar.exists()
        sidecar.unlink()
    # What QGIS writes when a map is looked at goes with that map.
    statistics = '<MDI key="STATISTICS_MAXIMUM">3</MDI>'
    Path(f"{output}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><Histograms><HistItem/></Histograms>'
        f"<Metadata>{statistics}</Metadata></PAMRasterBand></PAMDataset>"
    )
    predict(scene, model, output, overwrite=True)
    assert not Path(f"{output}.aux.xml").exists()


def test_points_that_somebody_labelled_are_not_replaced(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    predict(scene, model, tmp_path / "out.tif")
    points = tmp_path / "points.gpkg"
    for _ in range(2):
        geoseg.sample(tmp_path / "out.tif", points, count=20, overwrite=True)
    frame = geopandas.read_file(points)
    frame.loc[3, "reference"] = "water"
    frame.to_file(points)
    with pytest.raises(OutputError, match=r"points\.gpkg was not made by geoseg as it is now"):
        geoseg.sample(tmp_path / "out.tif", points, count=20, overwrite=True)
    assert geopandas.read_file(points)["reference"].notna().sum() == 1


def test_files_of_an_evaluation_are_replaced_and_others_are_not(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    predict(scene, model, tmp_path / "out.tif")
    reports = {kind: tmp_path / f"found.{kind}" for kind in ("json", "csv", "html")}
    for _ in range(2):
        geoseg.evaluate(tmp_path / "out.tif", labels=scene, overwrite=True, **reports)
    for path in reports.values():
        mine = path.read_bytes()
        path.write_text("mine")
        with pytest.raises(OutputError, match=rf"{path.name} was not made by geoseg"):
            geoseg.evaluate(tmp_path / "out.tif", labels=scene, overwrite=True, **reports)
        assert path.read_text() == "mine"
        path.write_bytes(mine)


def test_a_longer_name_than_the_hidden_folder_takes_is_refused(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    with pytest.raises(OutputError, match=r"the name has 244 bytes and may have 240"):
        predict(scene, model, tmp_path / f"{'x' * 240}.tif", no_vector=True)
    predict(scene, model, tmp_path / f"{'x' * 235}.tif", no_vector=True)


# Two runs


@pytest.mark.parametrize("shared", ["vector", "probs", "preview"])
def test_every_output_is_one_runs_alone(
    tmp_path: Path, scene: Path, model: Path, shared: str
) -> None:
    """Both ended well, and one file was lost."""
    suffix = {"vector": "gpkg", "probs": "tif", "preview": "png"}[shared]
    common = {shared: tmp_path / f"common.{suffix}"}
    refused: list[str] = []

    class Second(OneHot):
        def answer(self, pixels: Any) -> Any:
            if not refused:
                with pytest.raises(OutputError, match=r"another run is at work on .*common") as e:
                    predict(scene, model, tmp_path / "b.tif", overwrite=True, **common)
                refused.append(str(e.value))
            return super().answer(pixels)

    geoseg.predict(scene, tmp_path / "a.tif", model=model, runtime=Second(4), **common)
    assert refused and (tmp_path / f"common.{suffix}").exists()
    assert hidden(tmp_path) == [] and not (tmp_path / "b.tif").exists()


# Names


def failing(number: int) -> Callable[[Any, Any], None]:
    """os.replace, whose call of a number among those of final names fails."""
    rename, count = os.replace, [0]

    def replaces(source: Any, target: Any, **options: Any) -> None:
        if ".geoseg" not in str(target) and "before" not in str(source):
            count[0] += 1
            if count[0] == number:
                raise PermissionError(13, "denied")
        rename(source, target, **options)

    return replaces


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("links", [True, False])
def test_a_rename_that_fails_gives_the_old_files_back(
    tmp_path: Path,
    scene: Path,
    model: Path,
    number: int,
    links: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new map beside old polygons would be believed."""
    folder = tmp_path / "maps"
    folder.mkdir()
    predict(scene, model, folder / "out.tif")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = make_raster(
        tmp_path / "other.tif", np.zeros((1, 90, 70), np.uint8), descriptions=("red",)
    )
    options: dict[str, Any] = {"overwrite": True, "probs": folder / "probs.tif"}

    def no_link(*_: Any, **__: Any) -> None:
        raise OSError(95, "not supported")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(number))
        if not links:
            patch.setattr(os, "link", no_link)
        with pytest.raises(OutputError, match="can't be written"):
            predict(other, model, folder / "out.tif", **options)
    assert hidden(folder) == [".geoseg-out.tif"]
    after = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    assert after == before
    # The strips are kept, and the same command ends well.
    predict(other, model, folder / "out.tif", **options)
    assert hidden(folder) == []
    with rasterio.open(folder / "out.tif") as dataset:
        assert (dataset.read(1) == 0).all()


def test_a_link_that_leads_nowhere_is_not_replaced(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    (tmp_path / "map.tif").symlink_to("gone.tif")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"is a link to gone\.tif, which is not there"):
            predict(scene, model, tmp_path / "map.tif", overwrite=overwrite)
    assert os.readlink(tmp_path / "map.tif") == "gone.tif"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path, scene: Path, model: Path) -> None:
    for name in (b"\xff.tif", b"d\xff/map.tif"):
        output = tmp_path / os.fsdecode(name)
        output.parent.mkdir(exist_ok=True)
        with pytest.raises(OutputError, match=r"\\udcff.*: the name is not UTF-8") as error:
            predict(scene, model, output)
        str(error.value).encode()


@pytest.mark.extra("torch")
def test_a_graph_of_the_users_own_stays(tmp_path: Path, model: Path) -> None:
    from geoseg.networks.export import write_graph

    path = model / "model.onnx"
    assert write_graph(model)[0] == path  # in place of another that geoseg wrote
    again = path.read_bytes()
    for theirs in (b"mine", b""):
        path.write_bytes(theirs)
        with pytest.raises(OutputError, match="was not written by geoseg"):
            write_graph(model)
        assert path.read_bytes() == theirs
    path.unlink()
    write_graph(model)
    assert path.read_bytes() == again


@pytest.mark.extra("torch")
@pytest.mark.parametrize(
    "line", ["models graph landcover-ms", "models probe landcover-aerial --write"]
)
def test_an_embedded_model_stays_as_it_is(line: str) -> None:
    before = {path: path.read_bytes() for path in ZOO.rglob("*.*") if path.is_file()}
    done = CliRunner().invoke(_cli, line.split())
    assert isinstance(done.exception, UsageError), done.output
    assert "is an embedded model, which stays as it is" in str(done.exception)
    assert {path: path.read_bytes() for path in ZOO.rglob("*.*") if path.is_file()} == before


def test_a_layer_of_the_users_own_is_found_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    points = geopandas.GeoDataFrame({"id": [1]}, geometry=[Point(0, 0)], crs="EPSG:32633")
    for layer in ("one", "two"):
        points.to_file(tmp_path / "map.gpkg", layer=layer)
    assert not is_ours(tmp_path / "map.gpkg")
    assert not [w for w in recwarn if "layer" in str(w.message)]
