import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.transform import from_origin
from rio_cogeo import cog_validate

import geoseg
from geoseg.errors import (
    GeosegError,
    ModelError,
    OutputError,
    ProbabilitiesError,
    RadiometryError,
    SceneError,
    UsageError,
)
from geoseg.prediction import chips as chips_module
from geoseg.prediction import engine as engine_module
from geoseg.prediction import stitch as stitch_module
from geoseg.prediction import tapers as tapers_module
from geoseg.prediction.scene_info import scene_info
from tests import forked
from tests.helpers import make_raster, tiny_model
from tests.oracles import EdgeDistance, Identity, NumpyRuntime, OneHot, Poisoned

UTM = "EPSG:32633"
TRANSFORM = from_origin(500000, 5000000, 10, 10)
CLASSES = ("water", "trees", "crops", "built")


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path / "model", ("red",), CLASSES)


def blocks(height, width, classes=4, seed=0, cell=7):
    """A class map of patches, uint8 (1, H, W), which no constant answer can match."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (height // cell + 1, width // cell + 1))
    return np.kron(coarse, np.ones((cell, cell)))[None, :height, :width].astype(np.uint8)


def run(tmp_path, values, model, runtime=None, *, raster=None, **options):
    options.setdefault("no_vector", True)
    options.setdefault("overwrite", True)
    scene = make_raster(
        tmp_path / "scene.tif",
        values,
        **{"crs": UTM, "transform": TRANSFORM, "descriptions": ("red",), **(raster or {})},
    )
    result = geoseg.predict(
        scene,
        tmp_path / "out.tif",
        model=model,
        runtime=runtime or OneHot(len(CLASSES)),
        **options,
    )
    with rasterio.open(result.raster) as dataset:
        return dataset.read(1), result


SHAPES = [(1, 1), (1, 300), (300, 1), (63, 64), (64, 64), (65, 64), (97, 101), (200, 150)]


@pytest.mark.parametrize("shape", SHAPES)
def test_one_hot_gives_the_scene_back(tmp_path, model, shape):
    values = blocks(*shape)
    out, result = run(tmp_path, values, model)
    np.testing.assert_array_equal(out, values[0])
    assert result.report["pixels"] == {
        "total": values.size,
        "valid": values.size,
        "nodata": 0,
    }


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 5}, {"batch_size": 64}])
@pytest.mark.parametrize("taper", ["cosine", "linear", "gaussian", "none"])
def test_result_does_not_depend_on_the_batch_size(tmp_path, model, options, taper):
    values = blocks(150, 130)
    common = {"size": 32, "overlap": 9, "taper": taper, "probs_dtype": "float32"}
    probs = []
    for size in ({"batch_size": 3}, options):
        run(tmp_path, values, model, EdgeDistance(4), probs=tmp_path / "p.tif", **common, **size)
        with rasterio.open(tmp_path / "p.tif") as dataset:
            probs.append(dataset.read())
    np.testing.assert_array_equal(*probs)


class _Faults:
    """What peers get wrong, put into geoseg on purpose."""

    @staticmethod
    def last_batch_is_dropped(patch):
        original = engine_module._Lane._answers

        def forward(*args):
            items = list(original(*args))
            return (item for item in items[: len(items) // 5 * 5])

        patch.setattr(engine_module._Lane, "_answers", forward)

    @staticmethod
    def taper_is_all_ones(patch):
        ones = tapers_module.TAPERS["none"]
        for name in ("cosine", "linear", "gaussian"):
            patch.setitem(tapers_module.TAPERS, name, ones)
        original = stitch_module.axis_weights
        patch.setattr(
            stitch_module,
            "axis_weights",
            lambda *a, taper, inner: original(*a, taper="none", inner=0),
        )

    @staticmethod
    def valid_is_all_true(patch):
        from geoseg.scene.reader import SceneReader

        original = SceneReader.read

        def read(self, window, out=None):
            pixels, valid = original(self, window, out)
            return pixels, np.ones_like(valid)

        patch.setattr(SceneReader, "read", read)

    @staticmethod
    def nothing_is_filled(patch):
        patch.setattr(
            chips_module, "fill_nearest", lambda pixels, valid: np.where(valid, pixels, 0)
        )

    @staticmethod
    def rows_are_read_from_the_wrong_place(patch):
        from geoseg.geo.window import Window
        from geoseg.scene.reader import SceneReader

        original = SceneReader.read

        def read(self, window, out=None):
            row = max(0, window.row - 1)
            return original(self, Window(row, window.col, window.height, window.width), out)

        patch.setattr(SceneReader, "read", read)


def check_one_hot(tmp_path, model):
    values = blocks(150, 130)
    out, _ = run(tmp_path, values, model, size=32, overlap=8, batch_size=5)
    np.testing.assert_array_equal(out, values[0])


def check_seams(tmp_path, model):
    values = blocks(150, 130)
    card = {"margin": 6, "size": 32, "overlap": 16}
    folder = tiny_model(tmp_path / "margin-model", ("red",), CLASSES, **card)
    out, _ = run(tmp_path, values, folder, Poisoned(4, 6))
    inside = (slice(6, -6), slice(6, -6))
    np.testing.assert_array_equal(out[inside], values[0][inside])


def check_nodata(tmp_path, model):
    values = blocks(150, 130)
    values[0, 40:90, :70] = 200
    out, result = run(tmp_path, values, model, size=32, overlap=8, raster={"nodata": 200})
    np.testing.assert_array_equal(out == 255, values[0] == 200)
    assert result.report["pixels"]["nodata"] == 50 * 70
    assert result.report["chips"]["skipped"] > 0


def check_fill(tmp_path, model):
    """A network that looks at its neighbours sees the nearest pixels, not zeros, at the border."""

    class Darkest(NumpyRuntime):
        def answer(self, pixels):
            darkest = pixels.min(axis=(2, 3), keepdims=True) < 2
            one = np.broadcast_to(darkest, (len(pixels), 1, *pixels.shape[2:]))
            return np.concatenate([one, ~one, 0 * one, 0 * one], axis=1)

    values = np.full((1, 60, 60), 3, dtype=np.uint8)
    values[0, :25] = 200
    out, _ = run(tmp_path, values, model, Darkest(4), raster={"nodata": 200})
    assert (out[25:] == 1).all()


CHECKS = [check_one_hot, check_seams, check_nodata, check_fill]
FAULTS = [
    (check_one_hot, "last_batch_is_dropped"),
    (check_one_hot, "rows_are_read_from_the_wrong_place"),
    (check_seams, "taper_is_all_ones"),
    (check_nodata, "valid_is_all_true"),
    (check_fill, "nothing_is_filled"),
]


@pytest.mark.parametrize("check", CHECKS)
def test_oracle(tmp_path, model, check):
    check(tmp_path, model)


@pytest.mark.parametrize(("check", "fault"), FAULTS)
def test_oracle_fails_when_the_fault_is_put_in(tmp_path, model, monkeypatch, check, fault):
    getattr(_Faults, fault)(monkeypatch)
    with pytest.raises(AssertionError):
        check(tmp_path, model)


def test_identity_keeps_probabilities(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.random((4, 90, 75), dtype=np.float32)
    bands = ("red", "green", "blue", "nir")
    model = tiny_model(tmp_path / "model", bands, CLASSES)
    run(
        tmp_path,
        values,
        model,
        Identity(4),
        raster={"descriptions": bands},
        probs=tmp_path / "p.tif",
        confidence=tmp_path / "c.tif",
        probs_dtype="float32",
        size=32,
        overlap=15,
    )
    with rasterio.open(tmp_path / "p.tif") as p, rasterio.open(tmp_path / "c.tif") as c:
        np.testing.assert_allclose(p.read(), values, atol=1e-6)
        np.testing.assert_allclose(c.read(1), values.max(axis=0), atol=1e-6)
        assert p.descriptions == CLASSES and np.isnan(p.nodata)


def test_quantized_probabilities_come_back_by_their_scale_tag(tmp_path):
    values = np.random.default_rng(4).random((4, 40, 40), dtype=np.float32)
    values[0, 0, 0], values[1, 0, 0] = 0, 1
    bands = ("red", "green", "blue", "nir")
    model = tiny_model(tmp_path / "model", bands, CLASSES)
    raster = {"descriptions": bands}
    run(tmp_path, values, model, Identity(4), raster=raster, probs=tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as p:
        assert p.dtypes == ("uint8",) * 4 and p.nodata == 255
        back = p.read() * p.scales[0]
    np.testing.assert_allclose(back, values, atol=0.5 / 254 + 1e-6)
    assert back[0, 0, 0] == 0 and back[1, 0, 0] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "raster",
    [
        {"transform": Affine(7.07, 7.07, 500000, 7.07, -7.07, 5000000)},  # rotated by 45 degrees
        {"transform": Affine(10, 0, 500000, 0, 10, 5000000)},  # south-up
        {"transform": from_origin(14, 46, 1e-4, 1e-4), "crs": "EPSG:4326"},
        {"crs": None, "transform": from_origin(100, 200, 2, 2)},
        {"crs": None, "transform": Affine.identity()},
    ],
    ids=["rotated", "south-up", "geographic", "no-crs", "pixels"],
)
def test_crs_and_transform_are_kept_exactly(tmp_path, model, raster):
    values = blocks(70, 90)
    out, result = run(tmp_path, values, model, raster=raster, no_vector=False)
    np.testing.assert_array_equal(out, values[0])
    with rasterio.open(tmp_path / "scene.tif") as a, rasterio.open(result.raster) as b:
        assert (a.transform, a.crs) == (b.transform, b.crs)
    unknown = "no CRS" in " ".join(result.report["warnings"])
    assert unknown == (raster.get("crs", UTM) is None)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_every_dtype(tmp_path, model, dtype):
    values = blocks(70, 66).astype(dtype)
    out, _ = run(tmp_path, values, model)
    np.testing.assert_array_equal(out, values[0])


def test_class_raster_is_a_cog_with_names_colours_and_tags(tmp_path, model):
    values = blocks(1100, 700, cell=60)
    _, result = run(tmp_path, values, model, size=256, overlap=32)
    valid, errors, warnings = cog_validate(result.raster, strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(result.raster) as dataset:
        assert dataset.nodata == 255 and dataset.dtypes == ("uint8",)
        card = geoseg.load_model(model).card
        colours = dataset.colormap(1)
        assert [colours[c.id][:3] for c in card.classes] == [c.rgb for c in card.classes]
        assert [dataset.tags(1)[f"class_{c.id}"] for c in card.classes] == list(CLASSES)
        assert dataset.tags()["GEOSEG_MODEL_SHA256"] == geoseg.load_model(model).sha256
        assert json.loads(dataset.tags()["GEOSEG_OPTIONS"])["size"] == 256
        overview = dataset.read(1, out_shape=(550, 350))
    assert set(np.unique(overview)) <= {0, 1, 2, 3}  # mode: no class that is in between
    qml = result.raster.with_suffix(".qml").read_text()
    assert all(name in qml for name in CLASSES)


def test_same_input_same_bytes(tmp_path, model):
    values = blocks(150, 130)
    _, first = run(tmp_path, values, model, confidence=tmp_path / "c.tif")
    before = [p.read_bytes() for p in (first.raster, tmp_path / "c.tif")]
    run(tmp_path, values, model, confidence=tmp_path / "c.tif", batch_size=3, no_vector=False)
    assert before == [p.read_bytes() for p in (first.raster, tmp_path / "c.tif")]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("metres", [2, 10])
def test_probabilities_that_are_no_numbers_end_the_run_on_any_grid(tmp_path, wrong, metres):
    """NaN of a resampled scene became nodata without a word."""
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))

    class Wrong(OneHot):
        def answer(self, pixels):
            found = super().answer(np.rint(pixels)).astype(np.float32)
            found[..., 3:6, 3:6] = wrong
            return found

    raster = {"transform": from_origin(500000, 5000000, metres, metres), "nodata": 255}
    with pytest.raises(ProbabilitiesError, match="NaN or infinite"):
        run(tmp_path, blocks(120, 150, cell=30), model, Wrong(4), raster=raster)


def test_scene_finer_than_the_model_is_resampled_and_comes_back_on_its_own_grid(tmp_path):
    values = blocks(240, 300, cell=60)
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))
    seen = []

    class Rounded(OneHot):
        def answer(self, pixels):
            seen.append(pixels.shape)
            return super().answer(np.rint(pixels))

    out, result = run(
        tmp_path,
        values,
        model,
        Rounded(4),
        raster={"transform": from_origin(500000, 5000000, 2, 2), "nodata": 255},
    )
    assert out.shape == (240, 300)
    assert result.report["model_grid"] == {"height": 48, "width": 60, "resampled": True}
    assert "resampled" in " ".join(result.report["warnings"])
    wrong = out != values[0]
    # Only along the patches' borders, where a coarse pixel is a mixture.
    near_border = np.zeros_like(wrong)
    for axis in (0, 1):
        edge = np.diff(values[0].astype(int), axis=axis) != 0
        for shift in range(-6, 7):
            index = np.argwhere(edge)
            index[:, axis] = np.clip(index[:, axis] + shift, 0, values.shape[axis + 1] - 1)
            near_border[tuple(index.T)] = True
    assert not (wrong & ~near_border).any()
    assert (~wrong).mean() > 0.85


def test_scene_coarser_than_the_model_is_resampled_too(tmp_path):
    values = blocks(30, 40, cell=10)
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))

    class Rounded(OneHot):
        def answer(self, pixels):
            return super().answer(np.rint(pixels))

    raster = {"transform": from_origin(500000, 5000000, 30, 30)}
    out, result = run(tmp_path, values, model, Rounded(4), raster=raster)
    assert result.report["model_grid"]["resampled"]
    assert (out == values[0]).mean() > 0.9


def test_scene_much_coarser_than_the_model_is_refused(tmp_path):
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))
    raster = {"transform": from_origin(500000, 5000000, 250, 250)}
    with pytest.raises(SceneError, match="hold too little"):
        run(tmp_path, blocks(30, 40), model, raster=raster)


def test_resampled_scene_keeps_its_own_validity(tmp_path):
    values = blocks(240, 300, cell=60)
    values[0, 101:140, 33:77] = 200
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))
    raster = {"transform": from_origin(500000, 5000000, 2, 2), "nodata": 200}
    out, _ = run(tmp_path, values, model, raster=raster)
    np.testing.assert_array_equal(out == 255, values[0] == 200)


def test_beside_chips_that_are_left_out_nothing_comes_from_elsewhere(tmp_path):
    """Chips of 8 px of the model's grid, 40 of the scene's: what lies below the first two rows of
    chips and right of the first two columns was not measured."""
    values = np.full((1, 240, 240), 1, np.uint8)
    values[0, 80:] = 2
    values[0, 80:, 80:] = 200
    model = tiny_model(tmp_path / "model", ("red",), CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))
    raster = {"transform": from_origin(500000, 5000000, 2, 2), "nodata": 200}

    class Rounded(OneHot):
        def answer(self, pixels):
            return super().answer(np.rint(pixels))

    options = {"size": 8, "overlap": 0, "probs": tmp_path / "p.tif", "probs_dtype": "float32"}
    out, result = run(tmp_path, values, model, Rounded(4), raster=raster, **options)
    assert result.report["chips"]["skipped"] == 16
    np.testing.assert_array_equal(out[:75], values[0, :75])
    np.testing.assert_array_equal(out[85:], np.where(values[0] == 200, 255, values[0])[85:])
    with rasterio.open(tmp_path / "p.tif") as dataset:
        probs = dataset.read()
    assert (probs[1, 85:, :80] == 0).all()


def test_polygons_come_with_the_raster(tmp_path, model):
    import geopandas

    values = blocks(90, 80)
    values[0, :20, :20] = 200
    _, result = run(tmp_path, values, model, raster={"nodata": 200}, no_vector=False)
    frame = geopandas.read_file(result.vector, layer="landcover")
    assert list(frame.columns) == [
        *("class_id", "class_name", "area_m2", "perimeter_m", "pixels", "confidence"),
        *("confidence_min", "runner_up", "runner_up_probability", "geometry"),
    ]
    assert frame.geometry.area.sum() == pytest.approx((90 * 80 - 400) * 100)
    assert frame.area_m2.sum() == pytest.approx(
        sum(c["area_m2"] for c in result.report["classes"]), rel=2e-3
    )
    assert (frame.confidence > 0.99).all()
    assert 255 not in set(frame.class_id)


def test_bbox_and_aoi_crop_and_mask(tmp_path, model):
    import geopandas
    from shapely.geometry import Polygon, box

    values = blocks(100, 120)
    whole, _ = run(tmp_path, values, model)
    bbox = (500100.0, 4999500.0, 500400.0, 4999800.0)
    out, result = run(tmp_path, values, model, bbox=bbox)
    np.testing.assert_array_equal(out, whole[20:50, 10:40])
    with rasterio.open(result.raster) as dataset:
        assert tuple(dataset.bounds) == bbox
    triangle = Polygon([(500100, 4999800), (500400, 4999800), (500100, 4999500)])
    geopandas.GeoDataFrame(geometry=[triangle], crs=UTM).to_crs(4326).to_file(
        tmp_path / "aoi.geojson"
    )
    out, _ = run(tmp_path, values, model, aoi=tmp_path / "aoi.geojson")
    rows, cols = np.mgrid[: out.shape[0], : out.shape[1]]
    inside = rows + cols < 29
    np.testing.assert_array_equal(
        out[:30, :30][inside[:30, :30]], whole[20:50, 10:40][inside[:30, :30]]
    )
    assert (out[:30, :30][(rows + cols)[:30, :30] > 31] == 255).all()
    far = geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=UTM)
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(UsageError, match="outside the scene"):
        run(tmp_path, values, model, aoi=tmp_path / "far.gpkg")
    # Metres under a CRS of degrees.
    metres = geopandas.GeoDataFrame(geometry=[box(5e5, 4.5e6, 6e5, 4.6e6)], crs=4326)
    metres.to_file(tmp_path / "metres.gpkg")
    with pytest.raises(UsageError, match="correct the CRS of the file"):
        run(tmp_path, values, model, aoi=tmp_path / "metres.gpkg")
    with pytest.raises(UsageError, match="is no place of EPSG:4326"):
        run(tmp_path, values, model, bbox=(5e5, 4.5e6, 6e5, 4.6e6), bbox_crs="EPSG:4326")
    with pytest.raises(UsageError, match="outside the scene"):
        run(tmp_path, values, model, bbox=(0.0, 0.0, 1.0, 1.0))


def test_bbox_in_another_crs(tmp_path, model):
    values = blocks(100, 120)
    whole, _ = run(tmp_path, values, model)
    from rasterio.warp import transform_bounds

    bounds = transform_bounds(UTM, "EPSG:4326", 500105, 4999505, 500395, 4999795)
    out, _ = run(tmp_path, values, model, bbox=bounds, bbox_crs="EPSG:4326")
    assert out.shape[0] in (30, 31, 32)
    assert any(
        (out[:28, :28] == whole[r : r + 28, 9 + c : 37 + c]).all() for r in (19, 20) for c in (0, 1)
    )


def left_overs(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(".geoseg"))


class _Breaks(NumpyRuntime):
    """Fails after some chips."""

    def __init__(self, classes, error, after=3):
        super().__init__(classes)
        self.error, self.after = error, after

    def answer(self, pixels):
        if len(self.batches) > self.after:
            raise self.error
        return np.zeros((len(pixels), self.classes, *pixels.shape[2:]))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (ModelError("OpenVINO failed while it computed a chip"), True),
        (KeyboardInterrupt(), True),
        (ProbabilitiesError("NaN"), False),
        (RadiometryError("no reflectance"), False),
    ],
)
@pytest.mark.parametrize("after", [3, 20])
def test_a_failing_chip_ends_the_run(tmp_path, model, error, again, after):
    """Nothing is left of a run that can never succeed, or has not finished a strip."""
    with pytest.raises(type(error)):
        run(tmp_path, blocks(150, 130), model, _Breaks(4, error, after), size=32, overlap=8)
    assert not (tmp_path / "out.tif").exists()
    assert left_overs(tmp_path) == ([".geoseg-out.tif"] if again and after == 20 else [])


def test_an_interrupted_overwrite_keeps_the_old_output(tmp_path, model):
    values = blocks(150, 130)
    run(tmp_path, values, model)
    before = (tmp_path / "out.tif").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 3 - values, model, _Breaks(4, KeyboardInterrupt()), size=32, overlap=8)
    assert (tmp_path / "out.tif").read_bytes() == before and left_overs(tmp_path) == []


def test_a_model_that_gives_nan_is_an_error(tmp_path, model):
    class Nan(NumpyRuntime):
        def answer(self, pixels):
            return np.full((len(pixels), 4, *pixels.shape[2:]), np.nan)

    with pytest.raises(ModelError, match="NaN or infinite"):
        run(tmp_path, blocks(40, 40), model, Nan(4))
    assert not (tmp_path / "out.tif").exists()


def test_all_nodata_is_an_error_and_writes_nothing(tmp_path, model):
    values = np.full((1, 80, 80), 200, dtype=np.uint8)
    with pytest.raises(SceneError, match="no pixel was measured"):
        run(tmp_path, values, model, raster={"nodata": 200})
    assert not (tmp_path / "out.tif").exists() and left_overs(tmp_path) == []


def test_existing_output_is_refused_before_any_work(tmp_path, model):
    class Never(NumpyRuntime):
        def answer(self, pixels):
            raise AssertionError("the network must not run")

    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        run(tmp_path, blocks(40, 40), model, Never(4), overwrite=False)
    assert (tmp_path / "out.json").read_text() == "mine"
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"taper": "hann"}, "taper"),
        ({"size": 0}, "size is 0"),
        ({"size": 16, "overlap": 16}, "overlap is 16"),
        ({"batch_size": 0}, "batch_size"),
        ({"min_area": -1.0}, "min_area"),
        ({"simplify": float("nan")}, "simplify"),
        ({"probs_dtype": "int8"}, "probs dtype"),
        ({"no_vector": True, "vector": "x.gpkg"}, "contradict"),
        ({"no_vector": False, "vector": "x.kml"}, "kml"),
        ({"probs": "p.png"}, "ends in .tif"),
        ({"preview": "p.jpg"}, "ends in .png"),
        ({"creation_options": ["COMPRESS"]}, "NAME=VALUE"),
        ({"creation_options": ["COMPRESS=JPEG"]}, "COMPRESS is NONE"),
        ({"creation_options": ["TILING_SCHEME=GoogleMapsCompatible"]}, "leave pixels and grid"),
        ({"bbox": (3.0, 1.0, 2.0, 4.0)}, "west,south,east,north"),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"aoi": "nowhere.gpkg"}, "no such file"),
        ({"scale": 0.0}, "scale"),
        ({"output": "out.png"}, "ends in .tif"),
    ],
)
def test_wrong_options_are_refused_in_words(tmp_path, model, options, word):
    scene = make_raster(
        tmp_path / "scene.tif", blocks(40, 40), crs=UTM, transform=TRANSFORM, descriptions=("red",)
    )
    kept = {"model": model, "output": tmp_path / "out.tif", "no_vector": True, **options}
    with pytest.raises(GeosegError, match=word):
        geoseg.predict(scene, **kept)
    assert not (tmp_path / "out.tif").exists() and left_overs(tmp_path) == []


def test_creation_options_reach_the_driver(tmp_path, model):
    _, result = run(tmp_path, blocks(90, 80), model, creation_options=["COMPRESS=ZSTD"])
    with rasterio.open(result.raster) as dataset:
        assert dataset.profile["compress"] == "zstd"


def lost_chips(model):
    """Of a scene of 150 x 130 px in chips of 32 px, those within the first 64 rows and columns."""
    row, col = (round(v / 10) for v in (-TRANSFORM.f, TRANSFORM.c))
    rows, cols = (
        [s for s in range(-(place % 24), length, 24) if s + 32 <= 64]
        for place, length in ((row, 150), (col, 130))
    )
    return [(r, c) for r in rows for c in cols]


def test_the_report_says_what_was_done(tmp_path, model):
    values = blocks(150, 130)
    values[0, :64, :64] = 200
    _, result = run(tmp_path, values, model, size=32, overlap=8, raster={"nodata": 200})
    report = json.loads(result.raster.with_suffix(".json").read_text())
    assert report == result.report
    chips = report["chips"]
    assert chips["total"] == chips["run"] + chips["skipped"]
    assert chips["skipped"] == len(lost_chips(model))
    pixels = {c["name"]: c["pixels"] for c in report["classes"]}
    expected = np.bincount(values[values != 200], minlength=4)
    assert list(pixels.values()) == expected.tolist()
    assert report["model"]["sha256"] == geoseg.load_model(model).sha256
    assert {"plan", "load", "read", "forward", "write", "cog", "total"} <= set(report["seconds"])
    area = sum(c["area_m2"] for c in report["classes"])
    assert area == pytest.approx(expected.sum() * 100, rel=2e-3)


def test_events_tell_the_story(tmp_path, model):
    events = []
    run(tmp_path, blocks(150, 130), model, size=32, overlap=8, progress=events.append)
    kinds = [e["event"] for e in events]
    assert kinds[0] == "start" and kinds[-1] == "result"
    done = [e["done"] for e in events if e["event"] == "progress" and e["stage"] == "predict"]
    assert done == sorted(done) and done[-1] == 150 * 130
    json.dumps(events)


def test_dry_run_counts_and_writes_nothing(tmp_path, model):
    values = blocks(150, 130)
    values[0, :64, :64] = 200
    scene = make_raster(
        tmp_path / "scene.tif",
        values,
        crs=UTM,
        transform=TRANSFORM,
        descriptions=("red",),
        nodata=200,
    )
    before = sorted(p.name for p in tmp_path.iterdir())
    estimate = geoseg.dry_run(scene, tmp_path / "out.tif", model=model, size=32, overlap=8)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    # One row of chips more than fit into 150 px, since none begins at the scene's corner.
    assert (estimate.chips, estimate.skipped) == (42, len(lost_chips(model)))
    assert estimate.output_bytes == {str(tmp_path / "out.tif"): 150 * 130}
    assert estimate.memory_bytes > 0 and estimate.seconds > 0
    result = geoseg.predict(scene, tmp_path / "out.tif", model=model, size=32, overlap=8)
    assert result.report["chips"]["total"] == estimate.chips
    assert result.report["chips"]["skipped"] == estimate.skipped


def test_preview_is_a_picture(tmp_path, model):
    run(tmp_path, blocks(150, 130), model, preview=tmp_path / "p.png")
    with rasterio.open(tmp_path / "p.png") as dataset:
        assert dataset.driver == "PNG" and dataset.width > 400


def test_two_names_of_one_file_are_refused(tmp_path, model):
    (tmp_path / "sub").mkdir()
    with pytest.raises(OutputError, match="two outputs"):
        run(tmp_path, blocks(40, 40), model, confidence=tmp_path / "sub" / ".." / "out.tif")


@pytest.mark.parametrize("name", ["scratch-raster.tif", "raster.tif", "confidence.tif"])
def test_no_output_name_is_special(tmp_path, model, name):
    scene = make_raster(tmp_path / "scene.tif", blocks(40, 40), descriptions=("red",))
    assert geoseg.predict(scene, tmp_path / name, model=model).raster.exists()


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path, model):
    class Rival(OneHot):
        def answer(self, pixels):
            (tmp_path / "out.tif").write_text("theirs")
            return super().answer(pixels)

    with pytest.raises(OutputError, match="appeared while"):
        run(tmp_path, blocks(40, 40), model, Rival(4), overwrite=False)
    assert (tmp_path / "out.tif").read_text() == "theirs"
    assert not (tmp_path / "out.json").exists() and left_overs(tmp_path) == [".geoseg-out.tif"]


def test_a_failed_rename_takes_the_others_back(tmp_path, model, monkeypatch):
    import os

    from geoseg.core import staging as outputs

    original = os.replace

    def replace(source, target):
        if str(target).endswith(".qml"):
            raise OSError(5, "Input/output error")
        original(source, target)

    monkeypatch.setattr(outputs.os, "replace", replace)
    with pytest.raises(OutputError, match=r"out\.qml"):
        run(tmp_path, blocks(40, 40), model, overwrite=False)
    assert not (tmp_path / "out.tif").exists() and left_overs(tmp_path) == [".geoseg-out.tif"]


def test_preview_of_a_large_scene_without_a_crs(tmp_path, model):
    """It is shown smaller than it is, so its pixels are resampled."""
    raster = {"crs": None, "transform": Affine.identity()}
    _, result = run(tmp_path, blocks(30, 1000), model, raster=raster, preview=tmp_path / "p.png")
    with rasterio.open(tmp_path / "p.png") as picture:
        assert picture.read().std() > 5
    assert result.report["grid"]["crs"] is None


def test_a_geopackage_that_is_open_elsewhere_is_not_overwritten(tmp_path, model):
    import sqlite3

    run(tmp_path, blocks(40, 40), model, no_vector=False)
    with sqlite3.connect(tmp_path / "out.gpkg") as open_elsewhere:
        open_elsewhere.execute("pragma journal_mode=wal")
        open_elsewhere.execute("create table note (text)")
        open_elsewhere.commit()
        with pytest.raises(OutputError, match="open in another program"):
            run(tmp_path, blocks(40, 40), model, no_vector=False)
    open_elsewhere.close()


def test_polygons_of_an_earlier_run_are_named(tmp_path, model):
    run(tmp_path, blocks(40, 40), model, no_vector=False)
    _, result = run(tmp_path, blocks(40, 40), model, vector=tmp_path / "out.fgb", no_vector=False)
    assert "out.gpkg is of an earlier run" in " ".join(result.report["warnings"])
    # A run that does not write there, and somebody's own polygons, are told nothing of the kind.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        run(tmp_path, blocks(40, 40), model, no_vector=False)
        (tmp_path / "out.tif").rename("scene_landcover.tif")
        (tmp_path / "out.gpkg").rename("scene_landcover.gpkg")
        found = scene_info(tmp_path / "scene.tif", models=[model])
    assert found["models"][0]["fits"] and found["models"][0]["notes"] == []
    (tmp_path / "out.gpkg").write_text("mine")
    _, result = run(tmp_path, blocks(40, 40), model, vector=tmp_path / "out.fgb", no_vector=False)
    assert result.report["warnings"] == []


def test_areas_of_a_sheared_grid(tmp_path, model):
    import geopandas

    raster = {"transform": Affine(10, 8, 500000, 0, -10, 2000000)}
    _, result = run(tmp_path, blocks(40, 50), model, raster=raster, no_vector=False)
    expected = 40 * 50 * 100 * 1.0008  # at the central meridian UTM is 0.9996 of the ground
    assert sum(c["area_m2"] for c in result.report["classes"]) == pytest.approx(expected, rel=1e-3)
    areas = geopandas.read_file(result.vector, layer="landcover").area_m2
    assert areas.sum() == pytest.approx(expected, rel=1e-3)


def test_an_embedded_model_needs_no_torch_and_threads_change_no_bit(tmp_path):
    """In fp32 and, where the CPU has it, in bf16."""
    import openvino

    scene = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
    code = (
        "import sys, geoseg\n"
        "geoseg.predict(sys.argv[1], sys.argv[2], threads=int(sys.argv[3]), precision=sys.argv[4],"
        " size=96, probs=sys.argv[2] + '-probs.tif', overwrite=True)\n"
        "assert 'torch' not in sys.modules\n"
    )
    has = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision in ["fp32", *(["bf16"] if "BF16" in has else [])]:
        found = set()
        for threads in ("1", "3"):
            out = tmp_path / f"{precision}.tif"
            done = forked.run([sys.executable, "-c", code, scene, out, threads, precision])
            assert done.returncode == 0, done.stderr
            found.add((out.read_bytes(), Path(f"{out}-probs.tif").read_bytes()))
        assert len(found) == 1
