"""What a pixel is called depends on the ground around it, not on what a map was asked with.

Chips lie on one grid of the world. So a map of a bbox or an AOI is the map of the scene, to the
last bit, and so is one of a file that holds a part of it, but for the pixels that are nearer to the
file's ends than the model's border. The networks here show where their chips lie, at which phase
they halve, and what fills them.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.features
from affine import Affine
from hypothesis import Phase as Stage
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.blocks import predict_block, predict_or_split
from geoseg.prediction.plan import Plan
from geoseg.prediction.run import Prediction
from geoseg.prediction.tapers import TAPERS, axis_weights
from tests.anchors import (
    CLASSES,
    GRIDS,
    Alone,
    Map,
    Near,
    Stops,
    Whole,
    assert_same,
    from_ends,
    ground,
    laid,
    mapped,
    model_of,
    options_of,
    read_map,
    write_aoi,
    write_scene,
)
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime, OneHot

#: Each try makes several maps, so one that fails is not made smaller, which takes minutes.
STAGES = (Stage.explicit, Stage.reuse, Stage.generate)
#: Gsds, m, of scenes for a model of 10 m that takes 7 to 12 m as they are.
RESAMPLED = (20.0, 30.0, 5.0, 3.3, 13.0, 6.3)


@dataclass(frozen=True)
class Case:
    """A scene and how it is mapped.

    Attributes:
        seed: of the ground.
        height: rows, px.
        width: columns, px.
        kind: of the pixel grid, see :data:`tests.anchors.GRIDS`.
        gsd: m.
        gaps: rectangles that were not measured.
        network: of the runtimes that show where chips lie.
        multiple: of the card.
        options: of the run.
    """

    seed: int
    height: int
    width: int
    kind: str = "utm"
    gsd: float = 10.0
    gaps: int = 0
    network: type[Near] = Near
    multiple: int = 2
    options: tuple[tuple[str, Any], ...] = (("size", 40), ("overlap", 12))

    def runtime(self) -> Near:
        return self.network(multiple=self.multiple)

    @property
    def values(self) -> NDArray[np.uint8]:
        return ground(self.seed, self.height, self.width, self.gaps)

    def model(self, folder: Path, **card: Any) -> Path:
        path = folder / "model"
        if path.exists():
            return path
        return model_of(path, self.runtime(), gsd_range=(7.0, 12.0), **card)

    def map(self, folder: Path, scene: Any, **options: Any) -> Map:
        given = {"model": self.model(folder), "runtime": self.runtime(), **dict(self.options)}
        return mapped(scene, folder, **{**given, **options})

    def border(self) -> float:
        """How far from the scene's ends another map may differ, px of the scene.

        What resampling reads beyond a pixel comes on top: the model's pixels on both sides of it,
        half a pixel of theirs, and of coarser scenes the pixel beside.
        """
        size = -(-dict(self.options)["size"] // self.multiple) * self.multiple
        border = size if self.network is Whole else self.runtime().reach
        if 7.0 <= self.gsd <= 12.0:
            return border
        return (border + 1.5) * 10.0 / self.gsd + 1


networks = st.sampled_from([Near, Near, Whole])


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = GRIDS, resampled: bool = False) -> Case:
    """Scenes of any shape on any grid, chips of any size."""
    network, multiple = draw(networks), draw(st.sampled_from([1, 2, 2, 4]))
    # Often several chips, at times one that is larger than the scene, as it is by default.
    size = draw(st.integers(24, 44))
    if network is Near and not resampled and draw(st.integers(0, 4)) == 0:
        size = draw(st.integers(120, 230))
    options = {
        "size": size,
        "overlap": draw(st.integers(0, size // 2)),
        "probs_dtype": draw(st.sampled_from(["uint8", "float32"])),
        "taper": draw(st.sampled_from(["cosine", "gaussian", "none"])),
    }
    if network is Near and draw(st.booleans()):
        del options["overlap"]
        options |= {"exact": True, "taper": "cosine"}
    gsd = draw(st.sampled_from(RESAMPLED)) if resampled else 10.0
    # As many chips of the model's pixels, whatever the scene's.
    side = st.integers(math.ceil(110 * min(10 / gsd, 2)), math.ceil(170 * min(10 / gsd, 2)))
    if resampled:
        kinds = tuple(k for k in kinds if k not in ("no crs", "nowhere"))
    return Case(
        seed=draw(st.integers(0, 99)),
        height=draw(side),
        width=draw(side),
        kind=draw(st.sampled_from(kinds)),
        gsd=gsd,
        gaps=draw(st.integers(0, 2)),
        network=network,
        multiple=multiple,
        options=tuple(options.items()),
    )


@contextmanager
def scene_of(case: Case) -> Iterator[tuple[Path, Path, Map]]:
    """A folder, the scene in it, and the map of the whole scene."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = write_scene(folder / "scene.tif", case.values, case.kind, case.gsd)
        yield folder, scene, case.map(folder, scene)


@st.composite
def windows(draw: st.DrawFn, height: int, width: int, least: int = 1) -> Window:
    """Parts of a scene at odd places and even ones, of odd sides and even ones."""
    rows = draw(st.integers(least, min(height, 60 + least)))
    cols = draw(st.integers(least, min(width, 60 + least)))
    row, col = draw(st.integers(0, height - rows)), draw(st.integers(0, width - cols))
    return Window(row, col, rows, cols)


def bounds(grid: PixelGrid, window: Window) -> tuple[float, float, float, float]:
    """West, south, east, north of what the window's pixels touch."""
    corners = [
        grid.transform @ (col, row)
        for col in (window.col, window.right)
        for row in (window.row, window.bottom)
    ]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


#: What has a rule of its own: a grid that is off by half a pixel, of which rounding makes a whole
#: one for a file that begins at its row 19; chips that don't overlap, and a network that looks at
#: all of them, on a grid that no float holds.
PLAIN = Case(1, 120, 133)
HALF = Case(2, 131, 118, kind="half", gaps=1)
WIDE = Case(3, 122, 129, kind="degrees", network=Whole, options=(("size", 32), ("overlap", 0)))


def check_bbox(case: Case, data: st.DataObject) -> None:
    with scene_of(case) as (folder, scene, whole):
        for _ in range(2):
            window = data.draw(windows(case.height, case.width))
            assume(whole.labelled[window.rows, window.cols].any())  # else there is no map
            part = case.map(folder, scene, bbox=bounds(whole.grid, window))
            if case.kind != "turned":
                assert part.grid.same_pixels(whole.grid.crop(window))
            assert_same(part, whole, what=f"a bbox of {window}")


@settings(max_examples=14, phases=STAGES)
@given(case=cases(), data=st.data())
def test_a_bbox_is_cut_out_of_the_scenes_map(case: Case, data: st.DataObject) -> None:
    """Not even the last bit tells that it was one."""
    check_bbox(case, data)


@settings(max_examples=12, phases=STAGES)
@given(case=cases(resampled=True), data=st.data())
def test_a_bbox_of_a_scene_that_is_resampled(case: Case, data: st.DataObject) -> None:
    check_bbox(case, data)


@pytest.mark.parametrize(("kind", "gsd"), [("utm", 6.3), ("utm", 13.0), ("half", 30.0)])
def test_what_is_resampled_has_the_same_bits_in_every_part(kind: str, gsd: float) -> None:
    """Where no whole pixels make one of the model's, a place has digits that are rounded."""
    options = (("size", 40), ("overlap", 12), ("probs_dtype", "float32"))
    side = 150 if gsd > 10 else 260
    case = Case(1, side, side - 10, kind=kind, gsd=gsd, options=options)
    with scene_of(case) as (folder, scene, whole):
        for window in (Window(47, 14, 77, 59), Window(26, 5, 28, 11), Window(66, 88, 59, 47)):
            part = case.map(folder, scene, bbox=bounds(whole.grid, window))
            assert_same(part, whole, what=f"a bbox of {window}")


@st.composite
def rings(draw: st.DrawFn, height: int, width: int) -> list[tuple[float, float]]:
    """A polygon about a place in the scene, which may reach beyond; its corners, px."""
    x, y = draw(st.floats(5, width - 5)), draw(st.floats(5, height - 5))
    radii = draw(st.lists(st.floats(3, 30), min_size=3, max_size=7))
    turns = np.linspace(0, 2 * np.pi, len(radii), endpoint=False) + draw(st.floats(0, 1))
    return [
        (x + r * np.cos(turn), y + r * np.sin(turn)) for r, turn in zip(radii, turns, strict=True)
    ]


def inside_of(polygons: list[dict[str, Any]], grid: PixelGrid) -> NDArray[np.bool_]:
    """Which pixels have their centre in one of some polygons."""
    shape = (grid.height, grid.width)
    return rasterio.features.geometry_mask(polygons, shape, grid.transform, invert=True)


def check_aoi(case: Case, data: st.DataObject) -> None:
    with scene_of(case) as (folder, scene, whole):
        drawn = data.draw(st.lists(rings(case.height, case.width), min_size=1, max_size=3))
        places = [[whole.grid.transform @ corner for corner in ring] for ring in drawn]
        polygons = [{"type": "Polygon", "coordinates": [[*ring, ring[0]]]} for ring in places]
        aoi = write_aoi(folder / "aoi.fgb", places, whole.grid.crs)
        assume((inside_of(polygons, whole.grid) & whole.labelled).any())  # else there is no map
        part = case.map(folder, scene, aoi=aoi)
        wanted = inside_of(polygons, part.grid) & whole.crop(part.grid).labelled
        np.testing.assert_array_equal(part.labelled, wanted)
        assert_same(part, whole, wanted, what="an AOI")


@settings(max_examples=10, phases=STAGES)
@given(case=cases(tuple(k for k in GRIDS if k not in ("no crs", "nowhere"))), data=st.data())
def test_an_aoi_is_cut_out_of_the_scenes_map(case: Case, data: st.DataObject) -> None:
    """And nothing is labelled beyond it."""
    check_aoi(case, data)


@settings(max_examples=8, phases=STAGES)
@given(case=cases(resampled=True), data=st.data())
def test_an_aoi_of_a_scene_that_is_resampled(case: Case, data: st.DataObject) -> None:
    check_aoi(case, data)


def check_file(case: Case, place: Window) -> None:
    with scene_of(case) as (folder, _, whole):
        values = case.values
        file = write_scene(folder / "part.tif", values, case.kind, case.gsd, place)
        part = case.map(folder, file)
        here = values[0, place.rows, place.cols] != 0
        inner = from_ends(here) >= case.border()
        assert_same(part, whole, inner, what=f"a file of {place}, {case.border():.1f} px inside")
        np.testing.assert_array_equal(part.labelled, whole.crop(part.grid).labelled)


@st.composite
def files(draw: st.DrawFn, resampled: bool) -> tuple[Case, Window]:
    """Scenes, and parts of them that have pixels far from their ends."""
    # How wide a pixel of degrees is depends on the file's latitude.
    none = ("nowhere", "degrees") if resampled else ("nowhere",)
    case = draw(cases(tuple(k for k in GRIDS if k not in none), resampled))
    least = int(2 * case.border()) + 8
    sides = (max(case.height, least + 10), max(case.width, least + 10))
    case = Case(**{**vars(case), "height": sides[0], "width": sides[1], "gaps": case.gaps // 2})
    return case, draw(windows(*sides, least=least))


@settings(max_examples=13, phases=STAGES)
@given(drawn=files(resampled=False))
@example(drawn=(PLAIN, Window(7, 12, 81, 60)))
@example(drawn=(HALF, Window(19, 31, 90, 87)))
@example(drawn=(WIDE, Window(3, 2, 101, 110)))
def test_a_file_of_a_part_has_the_scenes_map_inside(drawn: tuple[Case, Window]) -> None:
    check_file(*drawn)


@settings(max_examples=12, phases=STAGES)
@given(drawn=files(resampled=True))
def test_a_file_of_a_part_that_is_resampled(drawn: tuple[Case, Window]) -> None:
    check_file(*drawn)


@pytest.mark.parametrize("gsd", [6.3, 13.0])
def test_a_file_is_resampled_as_the_scene_where_no_whole_pixels_fit(gsd: float) -> None:
    """How many pixels make one of the model's does not depend on where in the file its middle is.

    Far from its meridian a UTM zone's metres are others from one kilometre to the next, and half a
    million pixels from the CRS's origin a millionth of a pixel counts.
    """
    case = Case(5, 150, 160, kind="far", gsd=gsd, options=(("size", 32), ("overlap", 10)))
    check_file(case, Window(31, 47, 100, 93))


@pytest.mark.parametrize("kind", GRIDS)
def test_pixels_that_are_seen_by_themselves_are_what_they_are_in_any_part(kind: str) -> None:
    """Whatever the chips are, at the ends, too; and with one network for all."""
    case = Case(4, 101, 118, kind=kind, gaps=2, network=Alone)
    with scene_of(case) as (folder, scene, whole):
        window = Window(13, 18, 51, 64)
        assert_same(case.map(folder, scene, bbox=bounds(whole.grid, window)), whole)
        if kind != "nowhere":
            part = write_scene(folder / "part.tif", case.values, kind, place=window)
            assert_same(case.map(folder, part), whole)


@settings(max_examples=6, phases=STAGES)
@given(case=cases(("utm", "shifted", "half", "turned")), data=st.data())
def test_scenes_side_by_side_agree(case: Case, data: st.DataObject) -> None:
    """Two files of one acquisition, which overlap as tiles do, have the same map in between."""
    with scene_of(case) as (folder, _, whole):
        border, values = math.ceil(case.border()), case.values
        col = data.draw(st.integers(border + 9, case.width - border - 9))
        shared = data.draw(st.integers(0, 9))
        parts = [
            Window(0, 0, case.height, min(col + border + shared, case.width)),
            Window(0, col - border, case.height, case.width - col + border),
        ]
        maps = []
        for place in parts:
            file = write_scene(folder / "part.tif", values, case.kind, place=place)
            part = case.map(folder, file)
            inner = from_ends(values[0, place.rows, place.cols] != 0) >= border
            assert_same(part, whole, inner, what=f"a file of {place}")
            maps.append(np.where(inner, part.classes, 255))
        both = np.s_[:, col - border : parts[0].right]
        left, right = maps[0][both], maps[1][:, : parts[0].right - col + border]
        known = (left != 255) & (right != 255)
        np.testing.assert_array_equal(left[known], right[known])


def test_tiles_of_a_virtual_raster_are_one_scene(tmp_path: Path) -> None:
    """Their borders are no ends."""
    case = Case(6, 120, 140, gaps=1)
    scene = write_scene(tmp_path / "scene.tif", case.values, case.kind)
    whole = case.map(tmp_path, scene)
    crs, transform = laid(case.kind)
    sources = []
    for i, (rows, cols) in enumerate((a, b) for a in (0, 61) for b in (0, 77)):
        high, wide = (61 if not rows else 59), (77 if not cols else 63)
        place = Window(rows, cols, high, wide)
        write_scene(tmp_path / f"tile{i}.tif", case.values, case.kind, place=place)
        sources.append(
            f'<SimpleSource><SourceFilename relativeToVRT="1">tile{i}.tif</SourceFilename>'
            f'<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{wide}" ySize="{high}"/>'
            f'<DstRect xOff="{cols}" yOff="{rows}" xSize="{wide}" ySize="{high}"/></SimpleSource>'
        )
    numbers = ", ".join(map(str, transform.to_gdal()))
    (tmp_path / "scene.vrt").write_text(
        f'<VRTDataset rasterXSize="140" rasterYSize="120"><SRS>{crs}</SRS>'
        f"<GeoTransform>{numbers}</GeoTransform><VRTRasterBand dataType='Byte' band='1'>"
        f"<Description>red</Description><NoDataValue>0</NoDataValue>{''.join(sources)}"
        f"</VRTRasterBand></VRTDataset>"
    )
    tiles = case.map(tmp_path, tmp_path / "scene.vrt")
    assert_same(tiles, whole)
    window = Window(41, 52, 37, 44)  # all four tiles have a part in it
    assert_same(case.map(tmp_path, tmp_path / "scene.vrt", bbox=bounds(whole.grid, window)), whole)


#: Parts that are computed in another way than at once: of the scene's own pixels, and of coarser
#: and finer ones.
HOW = [
    Case(7, 150, 141, gaps=1, options=(("size", 32), ("overlap", 12))),
    Case(8, 90, 81, gsd=20.0, kind="shifted", options=(("size", 32), ("overlap", 12))),
    Case(9, 240, 250, gsd=5.0, network=Whole, options=(("size", 32), ("overlap", 12))),
]


@pytest.fixture(params=HOW, ids=["own pixels", "20 m", "5 m"])
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[Case, Path, Path, Map, dict[str, Any]]]:
    """A case, a folder, the scene, its map, and the options of a part at an odd place."""
    case = request.param
    with scene_of(case) as (folder, scene, whole):
        window = Window(11, 5, case.height - 24, case.width - 18)
        yield case, folder, scene, whole, {"bbox": bounds(whole.grid, window)}


def test_a_part_in_lanes(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case, folder, scene, whole, part = asked
    for lanes in (2, 3):
        monkeypatch.setattr(Plan, "lanes", lambda self, limit, n=lanes: self._lanes(n))
        found = case.map(folder, scene, **part)
        assert found.report["memory"]["lanes"] == lanes
        assert_same(found, whole, what=f"{lanes} lanes")


def test_a_part_that_was_stopped_and_went_on(asked: Any) -> None:
    case, folder, scene, whole, part = asked
    chips = case.map(folder, scene, **part).report["chips"]["run"]
    runtimes = [type("Ends", (Stops, case.network), {}), type("Ends", (Stops, case.network), {})]
    for after, ends in zip((chips // 3, chips // 2), runtimes, strict=True):
        with pytest.raises(KeyboardInterrupt):
            case.map(folder, scene, **part, runtime=ends(after, multiple=case.multiple))
    last = case.runtime()
    found = case.map(folder, scene, **part, runtime=last)
    assert len(last.batches) < chips
    assert_same(found, whole, what="a run that went on")


def test_a_part_in_blocks(asked: Any) -> None:
    case, folder, scene, whole, part = asked
    given = options_of(folder, model=case.model(folder), **dict(case.options), **part)
    output = folder / "out.tif"
    blocks = predict_or_split(scene, output, split=1, runtime=case.runtime(), **given)
    assert isinstance(blocks, list) and len(blocks) > 2
    for block in reversed(blocks):
        assert predict_block(scene, output, block, runtime=case.runtime(), **given)
    done = predict_or_split(scene, output, runtime=case.runtime(), **given)
    assert isinstance(done, Prediction)
    assert_same(read_map(done), whole, what="blocks")


def test_whether_a_part_is_resampled_is_the_scenes_question() -> None:
    """Pixels of degrees are narrower in the north: of a part alone the answer may be another."""
    kind, case = "degrees", Case(10, 400, 60, kind="degrees")
    crs, transform = laid(kind)
    scene_grid = PixelGrid(case.height, case.width, transform, rasterio.crs.CRS.from_string(crs))
    across = [
        PixelGrid(80, case.width, transform @ Affine.translation(0, row), scene_grid.crs).gsd[0]
        for row in (0, 160, 320)
    ]
    assert across[0] < across[1] < across[2]
    # Finer than what the model takes, as a whole; its southern end is not.
    finest = (across[1] + across[2]) / 2 * 1.01
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_of(folder / "model", case.runtime(), gsd=9.0, gsd_range=(finest, 12.0))
        scene = write_scene(folder / "scene.tif", case.values, kind)
        whole = case.map(folder, scene, model=model)
        assert whole.report["model_grid"]["resampled"]
        part = case.map(
            folder, scene, model=model, bbox=bounds(whole.grid, Window(330, 11, 61, 40))
        )
        assert part.report["model_grid"]["resampled"]
        assert_same(part, whole)


def test_bands_with_pixels_of_their_own(tmp_path: Path) -> None:
    """A part of a scene with a band of 20 m begins in the middle of one of its pixels."""
    fine, coarse = ground(11, 120, 130), ground(12, 60, 65)
    crs, transform = laid("utm")
    place = {"crs": crs, "transform": transform, "nodata": 0}
    files = [
        make_raster(tmp_path / "B04.tif", fine, descriptions=("red",), **place),
        make_raster(
            tmp_path / "B11.tif",
            coarse,
            descriptions=("swir1",),
            **{**place, "transform": transform @ Affine.scale(2)},
        ),
    ]

    class Both(Near):
        def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
            return super().answer(pixels[:, :1] * 0.5 + pixels[:, 1:] * 0.5)

    model = tiny_model(
        tmp_path / "model", ("red", "swir1"), CLASSES, multiple=2, size=40, overlap=12, graph=False
    )
    given = {"model": model, "probs_dtype": "float32"}
    whole = mapped(files, tmp_path, runtime=Both(), **given)
    for window in (Window(7, 12, 41, 33), Window(50, 61, 60, 27)):
        box = bounds(whole.grid, window)
        assert_same(mapped(files, tmp_path, runtime=Both(), bbox=box, **given), whole)


@st.composite
def grounds(draw: st.DrawFn) -> tuple[ChipGrid, ChipGrid]:
    """The chips of a scene, and those of a file that holds a part of it, which no chip holds."""
    size, border = draw(st.integers(1, 50)), draw(st.one_of(st.none(), st.integers(0, 30)))
    multiple = draw(st.integers(1, 9))
    least = max(2 * (border if border is not None else size + multiple) + 1, size + multiple)
    height, width = (draw(st.integers(least, least + 120)) for _ in range(2))
    whole = ChipGrid(
        height,
        width,
        size,
        overlap=draw(st.integers(0, size - 1)),
        multiple=multiple,
        margin=draw(st.integers(0, 12)),
        border=border,
        row=draw(st.integers(-400, 400)),
        col=draw(st.integers(-400, 400)),
    )
    rows, cols = draw(st.integers(least, height)), draw(st.integers(least, width))
    row, col = draw(st.integers(0, height - rows)), draw(st.integers(0, width - cols))
    part = replace(whole, height=rows, width=cols, row=whole.row + row, col=whole.col + col)
    return whole, part


@settings(max_examples=300)
@given(pair=grounds(), taper=st.sampled_from(sorted(TAPERS)))
def test_farther_than_the_border_chips_and_their_weights_are_the_same(
    pair: tuple[ChipGrid, ChipGrid], taper: str
) -> None:
    """Those of each pixel, whether it is one of a scene's or of a file that holds a part of it."""
    far = pair[0].size if pair[0].border is None else pair[0].border
    for axis in ("row", "col"):
        found = []
        for grid in pair:
            place, length = getattr(grid, axis), grid.height if axis == "row" else grid.width
            chip = grid.chip_height if axis == "row" else grid.chip_width
            starts = getattr(grid, f"{axis}_starts")
            options = {"taper": taper, "inner": grid.weightless}
            weights: dict[int, dict[int, float]] = {}
            shares = axis_weights(starts, chip, length, **options)
            for start, each in zip(starts, shares, strict=True):
                for pixel in np.flatnonzero(each):
                    weights.setdefault(place + start + int(pixel), {})[place + start] = each[pixel]
            found.append(weights)
        first, last = getattr(pair[1], axis), pair[1].height if axis == "row" else pair[1].width
        for pixel in range(first + far, first + last - far):
            assert found[0][pixel] == found[1][pixel]


class Phase(NumpyRuntime):
    """The class is the pixel's place among 4 x 4, counted from the chip's corner."""

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        n, _, h, w = pixels.shape
        classes = np.arange(h)[:, None] % 4 * 4 + np.arange(w) % 4
        one_hot = classes == np.arange(16)[:, None, None]
        return np.broadcast_to(one_hot, (n, 16, h, w))


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (1, 2), (7, 4), (50, 33)])
@pytest.mark.parametrize("kind", ["utm", "south-up"])
def test_halvings_begin_at_the_crss_origin(tmp_path: Path, kind: str, rows: int, cols: int) -> None:
    """So that all scenes of a CRS have them in the same places."""
    names = [f"class{k}" for k in range(16)]
    model = tiny_model(tmp_path / "model", ("red",), names, multiple=4, size=24, overlap=7)
    values = ground(13, 70, 61)
    part = write_scene(tmp_path / "s.tif", values, kind, place=Window(rows, cols, 70 - rows, 28))
    found = mapped(part, tmp_path, model=model, runtime=Phase(16))
    x, y = ~found.grid.transform @ (0, 0)  # of the origin, px of the file
    row, col = np.indices(found.classes.shape)
    expected = (row - round(y)) % 4 * 4 + (col - round(x)) % 4
    np.testing.assert_array_equal(found.classes, expected)


@pytest.mark.parametrize("kind", GRIDS)
def test_a_scene_keeps_its_own_pixels(tmp_path: Path, kind: str) -> None:
    """Where its grid is off the CRS's by a part of a pixel, that one's is not made of it."""
    values = (ground(14, 71, 93, gaps=1) % 4).astype(np.uint8)
    crs, transform = laid(kind)
    scene = make_raster(
        tmp_path / "s.tif", values, crs=crs, transform=transform, descriptions=("red",)
    )
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, multiple=2, graph=False)
    found = mapped(scene, tmp_path, model=model, runtime=OneHot(4), size=32, overlap=9)
    with rasterio.open(scene) as dataset:
        assert found.grid.transform.almost_equals(dataset.transform, 1e-12)
    np.testing.assert_array_equal(found.classes, values[0])
