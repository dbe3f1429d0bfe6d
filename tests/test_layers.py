"""A GeoPackage that holds layers of others keeps them, whatever geoseg writes into it."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geopandas
import geopandas.testing
import numpy as np
import pyogrio
import pytest
import shapely

import geoseg
from geoseg.errors import OutputError
from tests import forked
from tests.helpers import make_raster, tiny_model


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    ids = np.kron(np.arange(16).reshape(4, 4) % 3, np.ones((5, 5))).astype(np.uint8)
    return make_raster(tmp_path / "map.tif", ids[None], nodata=255)


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    """A user's GeoPackage: a layer in another CRS, a table, a view, a project of QGIS."""
    path = tmp_path / "work.gpkg"
    frame = geopandas.GeoDataFrame(
        {"species": ["oak", "ash"], "n": [3, 4]},
        geometry=[shapely.Point(1, 2), shapely.Point(3, 4)],
        crs=3857,
    )
    frame.to_file(path, layer="field_survey")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE qgis_projects (name TEXT, metadata BLOB, content BLOB)")
        database.execute("INSERT INTO qgis_projects VALUES ('mine', x'00', x'0102')")
        database.execute("CREATE VIEW many AS SELECT * FROM field_survey WHERE n > 3")
    return path


def others(path: Path) -> list[Any]:
    """All that the user has in the file, byte by byte as far as it is no index."""
    with closing(sqlite3.connect(path)) as database:
        return [
            database.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("field_survey", "qgis_projects", "many", "rtree_field_survey_geom")
        ]


def layers(path: Path) -> dict[str, str | None]:
    return dict(pyogrio.list_layers(path).tolist())


def command(cwd: Path, *args: str) -> Any:
    return forked.run([sys.executable, "-m", "geoseg", "vectorize", *args], cwd=cwd)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_layer_is_added_and_the_others_stay(
    raster: Path, survey: Path, overwrite: list[str]
) -> None:
    before = others(survey)
    done = command(raster.parent, "map.tif", "-o", "work.gpkg", "--layer", "landcover", *overwrite)
    assert done.returncode == 0, done.stderr
    assert others(survey) == before
    assert layers(survey) == {
        "field_survey": "Point",
        "landcover": "Polygon",
        "layer_styles": None,
    }
    geoseg.vectorize(raster, raster.parent / "alone.gpkg")
    mine, alone = (
        geopandas.read_file(path, layer="landcover")
        for path in (survey, survey.with_name("alone.gpkg"))
    )
    geopandas.testing.assert_geodataframe_equal(mine, alone)
    assert sorted(p.name for p in survey.parent.iterdir()) == ["alone.gpkg", "map.tif", "work.gpkg"]


def test_only_our_layer_is_replaced_and_only_when_asked(raster: Path, survey: Path) -> None:
    before = others(survey)
    geoseg.vectorize(raster, survey, layer="a")
    geoseg.vectorize(raster, survey, layer="b", only=[1])
    with closing(sqlite3.connect(survey)) as database, database:
        database.execute("UPDATE layer_styles SET styleName = 'my own' WHERE f_table_name = 'b'")
    with pytest.raises(OutputError, match="has a layer 'a' already; give --overwrite"):
        geoseg.vectorize(raster, survey, layer="A")
    for _ in range(2):
        geoseg.vectorize(raster, survey, layer="a", only=[2], overwrite=True)
    assert others(survey) == before
    assert set(geopandas.read_file(survey, layer="a").class_id) == {2}
    assert set(geopandas.read_file(survey, layer="b").class_id) == {1}
    with closing(sqlite3.connect(survey)) as database:
        styles = database.execute("SELECT f_table_name, styleName FROM layer_styles ORDER BY 1")
        assert styles.fetchall() == [("a", "land cover"), ("b", "my own")]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("layer", ["field_survey", "Field_Survey", "qgis_projects", "many"])
def test_a_layer_of_others_is_never_replaced(raster: Path, survey: Path, layer: str) -> None:
    before = survey.read_bytes()
    with pytest.raises(OutputError, match="was not made by geoseg as it is now, and is not"):
        geoseg.vectorize(raster, survey, layer=layer, overwrite=True)
    assert survey.read_bytes() == before


def test_a_layer_of_ours_with_a_column_of_others_is_not_replaced(
    raster: Path, survey: Path
) -> None:
    geoseg.vectorize(raster, survey)
    with closing(sqlite3.connect(survey)) as database, database:
        database.execute("ALTER TABLE landcover ADD COLUMN checked TEXT")
    with pytest.raises(OutputError, match="was not made by geoseg as it is now, and is not"):
        geoseg.vectorize(raster, survey, overwrite=True)


def _edit(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO qgis_projects VALUES ('late', x'00', x'03')")


def _open(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"changes")


@pytest.mark.parametrize("change", [_edit, _open])
def test_what_changes_during_the_run_is_not_lost(
    raster: Path, survey: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(done: int, total: int) -> None:
        if done == total:
            change(survey)
            changed.append(survey.read_bytes())

    changed: list[bytes] = []
    with pytest.raises(OutputError, match=r"work\.gpkg was changed by another program"):
        geoseg.vectorize(raster, survey, progress=late)
    assert survey.read_bytes() == changed[0]


def test_a_file_of_ours_alone_is_replaced_as_before(raster: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.gpkg"
    geoseg.vectorize(raster, path)
    with pytest.raises(OutputError, match="exists already; give --overwrite"):
        geoseg.vectorize(raster, path)
    geoseg.vectorize(raster, path, overwrite=True, only=[1])
    assert set(geopandas.read_file(path, layer="landcover").class_id) == {1}
    geoseg.vectorize(raster, path, layer="more")
    assert set(layers(path)) == {"landcover", "more", "layer_styles"}


def test_damaged_geopackages_are_refused(raster: Path, survey: Path) -> None:
    with open(survey, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_000)
    before = survey.read_bytes()
    with pytest.raises(OutputError, match=r"work\.gpkg is damaged"):
        geoseg.vectorize(raster, survey, layer="new", overwrite=True)
    assert survey.read_bytes() == before


def test_predict_adds_its_polygons_and_replaces_its_own_layer_alone(
    survey: Path, tmp_path: Path
) -> None:
    """As vectorize does; the user's other layers are never lost."""
    scene = make_raster(tmp_path / "scene.tif", np.eye(32, dtype=np.uint8)[None] * 200)
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"), size=32, overlap=8)

    def predict(**options: Any) -> Any:
        return geoseg.predict(
            scene, tmp_path / "out.tif", model=model, bands="1", vector=survey, **options
        )

    before = others(survey)
    predict()
    assert others(survey) == before and layers(survey).keys() > {"landcover", "field_survey"}
    geoseg.predict(scene, tmp_path / "b.tif", model=model, bands="1", vector=tmp_path / "b.gpkg")
    mine, alone = (
        geopandas.read_file(path, layer="landcover") for path in (survey, tmp_path / "b.gpkg")
    )
    geopandas.testing.assert_geodataframe_equal(mine, alone)
    for name in ("out.tif", "out.qml", "out.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(OutputError, match=r"--overwrite to replace it.*another name with --vector"):
        predict()
    predict(overwrite=True)
    assert others(survey) == before
    with closing(sqlite3.connect(survey)) as database, database:
        database.execute("ALTER TABLE landcover ADD COLUMN mine TEXT")
    with pytest.raises(OutputError, match="was not made by geoseg as it is now"):
        predict(overwrite=True)
    assert others(survey) == before
