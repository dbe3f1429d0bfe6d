"""``--border``: where it is 0, what lies beyond the measured ground makes no difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform_bounds
from rio_cogeo import cog_validate
from scipy.ndimage import binary_dilation, correlate1d

import geoseg
from geoseg.cards.card import ChipBorder
from geoseg.cards.files import read_model, write_card
from geoseg.cli import main
from geoseg.errors import OutputError, SceneError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction import border_raster, later_raster
from geoseg.prediction.border_raster import border_px
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.seen_ground import SeenGround
from geoseg.prediction.strip_files import raster_path
from geoseg.scene.resampling import taken, warp
from tests.events import check_event
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime
from tests.stacitems import earth_search, save

CLASSES = ("water", "trees", "crops")
NONE = 60000  # nodata
UTM = "EPSG:32633"


class Sees(NumpyRuntime):
    """The answer is a function of all pixels in a square around each, and of no other."""

    def __init__(self, reach: int, after: int | None = None) -> None:
        super().__init__(len(CLASSES))
        self.reach, self.after = reach, after

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        if self.after is not None and len(self.batches) > self.after:
            raise KeyboardInterrupt
        seen = np.sin(pixels.astype(np.float64)).sum(axis=1)
        for axis in (1, 2):
            weights = 1 + 0.5 * np.cos(np.arange(2 * self.reach + 1))
            seen = correlate1d(seen, weights, axis, mode="constant")
        scores = np.exp(np.cos(seen[:, None] + np.arange(self.classes)[None, :, None, None]))
        return scores / scores.sum(axis=1, keepdims=True)


class SeesTheChip(Sees):
    """Every pixel of a chip counts at each."""

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        far = np.cos(pixels.astype(np.float64).sum(axis=(1, 2, 3), keepdims=True))
        return super().answer(pixels + far)


def a_model(folder: Path, exact: int | None, **card: Any) -> Path:
    """A model whose card says how far it sees; None: that it sees the whole chip."""
    bands = card.pop("bands", ("red",))
    model = tiny_model(folder, bands, CLASSES, **{"size": 48, "overlap": 16, **card})
    curves = ((0.0,) * (24 if exact is None else exact),) * 3
    border = ChipBorder(48, "x", exact, exact, *curves)
    write_card(replace(read_model(model).card, border=border), model)
    return model


def numbers(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 5000, (1, height, width)).astype(np.uint16)


def holes(shape: tuple[int, int], seed: int = 0) -> NDArray[np.bool_]:
    """Some single pixels and some larger ones, (H, W)."""
    random = np.random.default_rng(seed)
    found = random.random(shape) < 2e-4
    top, left = (int(random.integers(n // 4, n // 2)) for n in shape)
    found[top : top + 9, left : left + 13] = True
    return found


def a_scene(path: Path, values: NDArray[Any], row: int = 0, col: int = 0, gsd: float = 10) -> Path:
    """A scene whose first pixel is that of some row and column of a grid."""
    place = Affine(gsd, 0, 500000 + col * gsd, 0, -gsd, 5000000 - row * gsd)
    return make_raster(path, values, crs=UTM, transform=place, descriptions=("red",), nodata=NONE)


def read(path: str | Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        found: NDArray[Any] = dataset.read()
        return found


def predict(scene: Any, folder: Path, model: Any, runtime: Any, **options: Any) -> dict[str, Any]:
    """Classes, probabilities and border, and the report."""
    folder.mkdir(exist_ok=True)
    done = geoseg.predict(
        scene,
        folder / "map.tif",
        model=model,
        runtime=runtime,
        border=folder / "border.tif",
        probs=folder / "probs.tif",
        **{"probs_dtype": "float32", "no_vector": True, "overwrite": True, **options},
    )
    return {
        "ids": read(done.raster)[0],
        "border": read(folder / "border.tif")[0],
        "probs": read(folder / "probs.tif"),
        "report": done.report,
    }


def changed(
    whole: dict[str, Any], part: dict[str, Any], row: int, col: int, tolerance: float = 0
) -> NDArray[np.bool_]:
    """Where a part of a scene has another class or probability than the whole, (H, W)."""
    height, width = part["ids"].shape
    here = np.s_[..., row : row + height, col : col + width]
    both = (part["ids"] != 255) & (whole["ids"][here] != 255)
    found: NDArray[np.bool_] = np.abs(part["probs"] - whole["probs"][here]).max(0) > tolerance
    assert (both & (part["ids"] != whole["ids"][here]) <= found).all() or tolerance
    return both & found


def near(unsure: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels with an unsure one in a square around them; beyond the array all are unsure."""
    if reach == 0:
        return unsure
    side = 2 * reach + 1
    around = np.pad(unsure, reach, constant_values=True)
    found: NDArray[np.bool_] = binary_dilation(around, np.ones((side, side)))
    return found[reach:-reach, reach:-reach]


def expected(ids: NDArray[Any], marked: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(ids == 255, 255, marked).astype(np.uint8)


@pytest.mark.parametrize(
    ("reach", "options"),
    [(0, {}), (1, {"overlap": "auto"}), (7, {}), (7, {"exact": True}), (7, {"taper": "none"})],
    ids=str,
)
def test_what_is_not_marked_does_not_depend_on_what_lies_beyond(
    tmp_path: Path, reach: int, options: dict[str, Any]
) -> None:
    """A part of a scene, with holes of its own, as a scene of its own."""
    model = a_model(tmp_path / "model", reach)
    values = numbers(190, 203)
    whole = predict(
        a_scene(tmp_path / "whole.tif", values), tmp_path / "a", model, Sees(reach), **options
    )
    assert not (whole["border"] == 255).any()
    row, col = 31, 17
    part = values[:, row : row + 121, col : col + 133].copy()
    gaps = holes(part.shape[1:])
    part[0, gaps] = NONE
    scene = a_scene(tmp_path / "part.tif", part, row, col)
    found = predict(scene, tmp_path / "b", model, Sees(reach), **options)
    other = changed(whole, found, row, col)
    assert (found["border"][other] == 1).all()
    assert reach == 0 or other.sum() > 0.9 * (found["border"] == 1).sum()
    # Not one pixel more or less than those with such a pixel within the border.
    np.testing.assert_array_equal(found["border"], expected(found["ids"], near(gaps, reach)))
    np.testing.assert_array_equal(found["border"] == 255, gaps)


def test_a_chip_that_sees_itself_whole(tmp_path: Path) -> None:
    """Of a network that looks at the whole chip, or whose border nobody knows, a side counts."""
    model = a_model(tmp_path / "model", None)
    values = numbers(290, 303)
    runtime = SeesTheChip(2)
    whole = predict(a_scene(tmp_path / "whole.tif", values), tmp_path / "a", model, runtime)
    part = values[:, 21:281, 33:292].copy()
    part[0, 130:133, 140:145] = NONE
    scene = a_scene(tmp_path / "part.tif", part, 21, 33)
    found = predict(scene, tmp_path / "b", model, SeesTheChip(2))
    assert (found["border"][changed(whole, found, 21, 33)] == 1).all()
    assert 0.05 < (found["border"] == 0).mean() < 0.5
    marked = near(part[0] == NONE, 48)
    np.testing.assert_array_equal(found["border"], expected(found["ids"], marked))


def plan_of(scene: Path, model: Any, **options: Any) -> Any:
    return make_plan(scene, PredictOptions(model=model, border=scene.with_name("b.tif"), **options))


def test_the_widest_border_counts_and_an_unknown_one_is_said(tmp_path: Path) -> None:
    near_one, far_one = a_model(tmp_path / "near", 3), a_model(tmp_path / "far", 6)
    whole_one = a_model(tmp_path / "whole", None)
    bare = tiny_model(tmp_path / "bare", ("red",), CLASSES, size=40)
    scene = a_scene(tmp_path / "scene.tif", numbers(60, 70))
    assert border_px(plan_of(scene, [near_one, far_one])) == 6
    assert border_raster.border_note(plan_of(scene, [near_one, far_one])) is None
    for models, side, words in (
        ([near_one, whole_one], 48, "looks at the whole chip"),
        ([near_one, bare], 48, f"geoseg models probe {bare} --write"),
        (bare, 40, f"geoseg models probe {bare} --write"),
    ):
        plan = plan_of(scene, models)
        assert border_px(plan) == side
        note = border_raster.border_note(plan)
        assert note is not None and words in note and f"{side} px" in note
    found = predict(scene, tmp_path / "two", [near_one, far_one], Sees(6))
    np.testing.assert_array_equal(found["border"], near(np.zeros((60, 70), bool), 6))
    heard: list[Any] = []
    predict(scene, tmp_path / "one", bare, Sees(6), progress=heard.append)
    assert any("models probe" in e["message"] for e in heard if e["event"] == "note")


def test_a_crf_sees_the_whole_chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.prediction.plan.require", lambda *extra: None)
    scene = a_scene(tmp_path / "scene.tif", numbers(60, 70))
    plan = plan_of(scene, a_model(tmp_path / "model", 3), crf=True)
    assert border_px(plan) == 48
    assert "--crf" in str(border_raster.border_note(plan))


@pytest.mark.parametrize("shape", [(13, 90), (90, 14), (12, 12), (1, 1)])
def test_of_a_scene_that_one_chip_covers_all_is_border(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    model = a_model(tmp_path / "model", 7)
    scene = a_scene(tmp_path / "scene.tif", numbers(*shape))
    assert (predict(scene, tmp_path / "a", model, Sees(7))["border"] == 1).all()


def test_ends_of_a_bbox_or_an_aoi_are_no_ends_of_the_ground(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    from shapely.geometry import Polygon

    model = a_model(tmp_path / "model", 7)
    values = numbers(190, 203)
    values[0, 60:64, 90:99] = NONE
    scene = a_scene(tmp_path / "scene.tif", values)
    whole = predict(scene, tmp_path / "whole", model, Sees(7))

    def part(top: int, left: int, bottom: int, right: int) -> NDArray[np.uint8]:
        edges = left, -bottom, right, -top
        bbox = tuple(10.0 * n + o for n, o in zip(edges, (500000, 5000000) * 2, strict=True))
        found = predict(scene, tmp_path / "part", model, Sees(7), bbox=bbox)["border"]
        np.testing.assert_array_equal(found, whole["border"][top:bottom, left:right])
        return np.asarray(found, np.uint8)

    # In the middle, beside the hole, at an end, in a corner; the ground around counts.
    assert (part(101, 41, 160, 120) == 0).all()
    assert 0 < (part(50, 101, 80, 140) == 1).sum() < 100
    assert (part(0, 101, 9, 140)[7:] == 0).all()
    assert (part(150, 160, 190, 203) == 1).any()
    corners = [(500400, 4999900), (501300, 4999100), (500400, 4998500), (500000, 5000000)]
    frame = geopandas.GeoDataFrame(geometry=[Polygon(corners)], crs=UTM)
    frame.to_file(tmp_path / "aoi.geojson", driver="GeoJSON", engine="pyogrio", RFC7946="NO")
    frame.to_file(tmp_path / "aoi.gpkg")
    found = predict(scene, tmp_path / "part", model, Sees(7), aoi=tmp_path / "aoi.gpkg")
    height, width = found["ids"].shape
    inside = found["ids"] != 255
    assert 0.2 < inside.mean() < 0.8
    wanted = np.where(inside, whole["border"][:height, :width], 255)
    np.testing.assert_array_equal(found["border"], wanted)
    assert 0 < (found["border"] == 1).sum() < 0.3 * inside.sum()


def test_clouds_are_not_measured_and_bands_of_other_grids_reach_farther(tmp_path: Path) -> None:
    """Bands of 10 and 20 m: the outermost pixel of 10 m is made of one that repeats the last."""
    model = a_model(tmp_path / "model", 2, bands=("red", "swir1"))
    source = save(tmp_path, earth_search(tmp_path))
    found = predict(source, tmp_path / "out", model, Sees(2), cloud_buffer=0)
    mapped = predict(source, tmp_path / "all", model, Sees(2), clouds="none")
    clouds = found["ids"] == 255
    assert 0.2 < clouds.mean() < 0.8 and (mapped["ids"] != 255).all()
    ends = near(np.zeros(clouds.shape, bool), 1)
    np.testing.assert_array_equal(mapped["border"], near(ends, 2))
    np.testing.assert_array_equal(found["border"], expected(found["ids"], near(clouds | ends, 2)))
    other = changed(mapped, found, 0, 0)
    assert other.any() and (found["border"][other] == 1).all()
    for clouded in (found["report"], mapped["report"]):
        assert clouded["outputs"]["border"].endswith("border.tif")


@pytest.mark.parametrize("more", [0, 2])
def test_bands_of_several_grids_in_a_part_of_a_scene(tmp_path: Path, more: int) -> None:
    """The part begins at a pixel of 20 m, and is nodata where a band is.

    Its band of 10 m has some rows and columns more, in which that of 20 m goes on by repetition.
    """
    model = a_model(tmp_path / "model", 3, bands=("red", "swir1"))
    fine, coarse = numbers(160, 180, 1), numbers(80, 90, 2)

    def scene(name: str, top: int, left: int, height: int, width: int, gap: bool) -> list[Path]:
        folder = tmp_path / name
        folder.mkdir()
        files = []
        for band, values, step in (("red", fine, 1), ("swir1", coarse, 2)):
            here = np.s_[:, top // step :, left // step :]
            beyond = more if gap and step == 1 else 0
            part = values[here][:, : height // step + beyond, : width // step + beyond].copy()
            if gap:
                part[0, 40 // step : 44 // step, 50 // step : 58 // step] = NONE
            place = Affine(10 * step, 0, 500000 + 10 * left, 0, -10 * step, 5000000 - 10 * top)
            files.append(
                make_raster(
                    folder / f"{band}.tif", part, transform=place, descriptions=(band,), nodata=NONE
                )
            )
        return files

    whole = predict(scene("whole", 0, 0, 160, 180, False), tmp_path / "a", model, Sees(3))
    files = scene("part", 22, 34, 116, 130, True)
    found = predict(files, tmp_path / "b", model, Sees(3))
    other = changed(whole, found, 22, 34)
    assert other.any() and (found["border"][other] == 1).all()
    gaps = found["ids"] == 255
    # One more than the border where pixels of 20 m end half a pixel on.
    assert (found["border"][near(near(gaps, 1), 3) & ~gaps] == 1).all()
    assert not (found["border"][~near(near(gaps, 3), 3)] == 1).any()


def test_a_band_in_another_crs(tmp_path: Path) -> None:
    """It is turned by some degrees, and covers a part of the scene alone in the second run."""
    model = a_model(tmp_path / "model", 3, bands=("red", "swir1"))
    edges = transform_bounds(UTM, "EPSG:32632", 500000, 4998400, 501800, 5000000)
    place = Affine(20, 0, edges[0] - 60, 0, -20, edges[3] + 60)
    side = int((max(edges[2] - edges[0], edges[3] - edges[1]) + 120) / 20) + 1
    fine, coarse = numbers(160, 180, 1), numbers(side, side, 2)

    def scene(name: str, other: NDArray[np.uint16]) -> list[Path]:
        folder = tmp_path / name
        folder.mkdir()
        like: dict[str, Any] = {"crs": "EPSG:32632", "transform": place, "nodata": NONE}
        return [
            a_scene(folder / "red.tif", fine),
            make_raster(folder / "swir1.tif", other, descriptions=("swir1",), **like),
        ]

    whole = predict(scene("whole", coarse), tmp_path / "a", model, Sees(3))
    less = coarse[:, :, : side // 2].copy()
    less[0, side // 2, side // 3] = NONE
    found = predict(scene("part", less), tmp_path / "b", model, Sees(3))
    other = changed(whole, found, 0, 0, tolerance=1e-3)
    assert other.any() and (found["border"][other] == 1).all()
    assert (found["border"] == 255).mean() > 0.1 and (found["border"] == 0).mean() > 0.1


@pytest.mark.parametrize(
    ("gsd", "row", "col", "reach"),
    [
        *((20, 11, 7, 0), (20, 11, 7, 5), (10 / 3, 31, 17, 0), (10 / 3, 31, 17, 5)),
        *((10 / 3, 30, 18, 5), (4.7, 31, 17, 3)),
    ],
)
def test_resampled_too(tmp_path: Path, gsd: float, row: int, col: int, reach: int) -> None:
    """Single pixels that were not measured, too, which no pixel of the model's grid has lost."""
    model = a_model(tmp_path / "model", reach, gsd_range=(9.0, 11.0), size=32, overlap=12)
    values = numbers(221, 214)
    scene = a_scene(tmp_path / "whole.tif", values, gsd=gsd)
    whole = predict(scene, tmp_path / "a", model, Sees(reach))
    assert whole["report"]["model_grid"]["resampled"]
    part = values[:, row : row + 163, col : col + 171].copy()
    gaps = holes(part.shape[1:])
    gaps[100, 60] = True
    part[0, gaps] = NONE
    scene = a_scene(tmp_path / "part.tif", part, row, col, gsd)
    found = predict(scene, tmp_path / "b", model, Sees(reach))
    # Of a factor that is no whole number GDAL's averages differ in the last bit.
    other = changed(whole, found, row, col, tolerance=0)
    assert other.any() and (found["border"][other] == 1).all()
    np.testing.assert_array_equal(found["border"] == 255, found["ids"] == 255)
    assert (found["border"][gaps] == 255).all()
    # At most the border; one pixel of the model's grid for interpolation; and as far as a pixel
    # of either grid reaches that is made of both.
    most = (reach + 1) * 10 / gsd + max(10 / gsd, 1) / 2 + 1
    assert not (found["border"][~near(gaps, int(most))] == 1).any()
    least = int(reach * 10 / gsd)
    assert (found["border"][near(gaps, least) & ~gaps] == 1).all()


def test_clouds_of_a_resampled_scene(tmp_path: Path) -> None:
    model = a_model(
        tmp_path / "model", 2, bands=("red", "swir1"), gsd=30.0, gsd_range=(29.0, 31.0), size=16,
        overlap=8,
    )  # fmt: skip
    source = save(tmp_path, earth_search(tmp_path))
    found = predict(source, tmp_path / "out", model, Sees(2), cloud_buffer=0)
    mapped = predict(source, tmp_path / "all", model, Sees(2), clouds="none")
    clouds = found["ids"] == 255
    assert 0.2 < clouds.mean() < 0.8
    other = changed(mapped, found, 0, 0)
    assert other.any() and (found["border"][other] == 1).all()
    assert (mapped["border"][12:-12, 12:-12] == 0).all() and (mapped["border"][:6] == 1).all()


GRIDS = {
    "20 m to 10 m": (20, 20, 0, 0),
    "20 m to 10 m, half a pixel off": (20, 20, 10, -5),
    "40 m to 10 m": (40, 40, 0, 0),
    "10 m, a quarter of a pixel off": (10, 10, 2.5, 0),
    "3.3 m to 10 m": (10 / 3, 10 / 3, 0, 0),
    "4.7 m to 10 m": (4.7, 4.7, 1, 1),
    "9.9 m to 10 m": (9.9, 9.9, 0, 3),
    "5 x 20 m to 10 m": (5, 20, 0, 0),
    "upside down": (20, -20, 0, 0),
}


@pytest.mark.parametrize("name", GRIDS)
def test_what_a_pixel_is_made_from_is_what_changes_it(name: str) -> None:
    across, down, shift_x, shift_y = GRIDS[name]
    north = 1000 if down > 0 else 0
    of = PixelGrid(
        40, 40, Affine(across, 0, shift_x, 0, -down, north + shift_y), rasterio.CRS.from_epsg(32633)
    )
    to = PixelGrid(24, 23, Affine(10, 0, 100, 0, -10, 900 if down > 0 else 700), of.crs)
    if abs(across) < 10:  # the file is smaller
        to = replace(to, height=9, width=9, transform=Affine(10, 0, 20, 0, -10, north - 20))
    found = taken(of, to)
    assert found is not None
    (rows, rows_end), (cols, cols_end) = found
    values = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    before, seen = warp(values, of, to)[0], 0
    for row, col in np.random.default_rng(1).integers(0, 40, (60, 2)):
        other = values.copy()
        other[0, row, col] += 1000
        differs = warp(other, of, to)[0] != before
        says = np.outer((rows <= row) & (row < rows_end), (cols <= col) & (col < cols_end))
        assert not (differs & ~says).any(), (row, col)
        seen += int(says.sum()) - int(differs.sum())
    assert seen <= 0.1 * 60  # hardly one that makes no difference
    turned = replace(of, transform=of.transform @ Affine.rotation(30))
    assert taken(turned, to) is None and taken(replace(of, crs=None), to) is None


@pytest.mark.parametrize("gsd", [10 / 3, 20])
def test_strips_lanes_and_windows_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gsd: float
) -> None:
    model = a_model(tmp_path / "model", 5, gsd_range=(9.0, 11.0))
    values = numbers(120, 110)
    values[0, holes((120, 110))] = NONE
    scene = a_scene(tmp_path / "scene.tif", values, 3, 5, gsd)
    predict(scene, tmp_path / "a", model, Sees(5))
    for strip, lane, at_once in ((32, 64, 1 << 10), (50, 1000, 1)):
        monkeypatch.setattr(later_raster, "STRIP", strip)
        monkeypatch.setattr(later_raster, "LANE", lane)
        monkeypatch.setattr(border_raster, "AT_ONCE", at_once)
        predict(scene, tmp_path / "b", model, Sees(5))
        a, b = (tmp_path / name / "border.tif" for name in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_a_stopped_run_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before, or within: what is finished of it is not looked at again."""
    monkeypatch.setattr(later_raster, "STRIP", 32)
    monkeypatch.setattr(border_raster, "AT_ONCE", 16 * 98)
    model = a_model(tmp_path / "model", 4)
    scene = a_scene(tmp_path / "scene.tif", numbers(200, 90))
    predict(scene, tmp_path / "whole", model, Sees(4))
    with pytest.raises(KeyboardInterrupt):
        predict(scene, tmp_path / "before", model, Sees(4, after=5))
    heard: list[Any] = []
    predict(scene, tmp_path / "before", model, Sees(4), progress=heard.append)
    told = [e for e in heard if check_event(e) == "BorderProgress"]
    assert [e["done"] for e in told] == [*range(32 * 90, 200 * 90, 32 * 90), 200 * 90]
    unsure, rows = SeenGround.unsure, list[int]()

    def fails(ground: SeenGround, window: Window) -> NDArray[np.bool_]:
        if window.row > 120:
            raise SceneError("the server failed")
        return unsure(ground, window)

    def noted(ground: SeenGround, window: Window) -> NDArray[np.bool_]:
        rows.append(window.row)
        return unsure(ground, window)

    for folder, first in (("within", 3), ("damaged", 1)):
        monkeypatch.setattr(SeenGround, "unsure", fails)
        with pytest.raises(SceneError, match="the server failed"):
            predict(scene, tmp_path / folder, model, Sees(4))
        assert not (tmp_path / folder / "map.tif").exists()
        if folder == "damaged":
            strips = tmp_path / folder / ".geoseg-map.tif" / "scratch" / "border"
            strip = Path(raster_path(strips, "border", 0, 1))
            strip.write_bytes(strip.read_bytes()[:-50] + bytes([1] * 50))
        monkeypatch.setattr(SeenGround, "unsure", noted)
        last = Sees(4)
        rows.clear()
        predict(scene, tmp_path / folder, model, last)
        assert not last.batches and min(rows) == first * 32 - 4
    for folder in ("before", "within", "damaged"):
        for name in ("border.tif", "map.tif"):
            made, wanted = (tmp_path / f / name for f in (folder, "whole"))
            assert made.read_bytes() == wanted.read_bytes()
        assert not [p for p in (tmp_path / folder).iterdir() if p.name.startswith(".")]


def test_it_is_a_raster_like_the_others(tmp_path: Path) -> None:
    model = a_model(tmp_path / "model", 6)
    values = numbers(300, 700)
    values[0, 100:200, 300:500] = NONE
    scene = a_scene(tmp_path / "scene.tif", values)
    predict(scene, tmp_path / "a", model, Sees(6), creation_options=["COMPRESS=ZSTD"])
    path = tmp_path / "a" / "border.tif"
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as dataset, rasterio.open(tmp_path / "a" / "map.tif") as raster:
        assert (dataset.crs, dataset.transform, dataset.shape) == (
            raster.crs, raster.transform, raster.shape,
        )  # fmt: skip
        assert dataset.profile["compress"] == "zstd" and dataset.nodata == 255
        assert dataset.descriptions == ("border",) and dataset.dtypes == ("uint8",)
        tags, others = dataset.tags(), raster.tags()
        assert tags.pop("GEOSEG_BORDER") == "6"
        assert tags.pop("GEOSEG_CLASSES") == '{"0": "inside", "1": "border"}'
        assert tags.items() <= others.items()
        assert dataset.tags(1)["class_1"] == "border" and dataset.colormap(1)[1][3] == 255
        assert dataset.overviews(1) == raster.overviews(1) == [2]


def test_what_may_not_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = a_model(tmp_path / "model", 6)
    scene = a_scene(tmp_path / "scene.tif", numbers(50, 60))
    common = {"model": model, "runtime": Sees(6), "no_vector": True}
    with pytest.raises(UsageError, match=r"--border b.png: .* ends in .tif"):
        geoseg.predict(scene, tmp_path / "o.tif", border="b.png", **common)
    with pytest.raises(UsageError, match="is an input of this run"):
        geoseg.predict(scene, tmp_path / "o.tif", border=scene, overwrite=True, **common)
    own = a_scene(tmp_path / "own.tif", numbers(5, 6))
    with pytest.raises(OutputError, match="was not made by geoseg"):
        geoseg.predict(scene, tmp_path / "o.tif", border=own, overwrite=True, **common)
    assert not (tmp_path / "o.tif").exists()
    out = tmp_path / "border.tif"
    arguments = ["predict", scene, "-m", model, "-o", tmp_path / "o.tif", "--border", out]
    for code in (0, 1):
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in (*arguments, "--no-vector")])
        assert (end.value.code or 0) == code
    said = capsys.readouterr()
    assert str(out) in said.out and "exists already" in said.err
