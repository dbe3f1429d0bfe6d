"""``geoseg predict --crf``: what it mends, and what it must leave alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch

import geoseg
from geoseg.cards.card import NORMALIZATION_PARAMETERS, Normalization
from geoseg.cli import main
from geoseg.errors import DeviceError, UsageError
from geoseg.networks import crf as models_crf
from geoseg.prediction.chip_crf import (
    COLOR_UNITS,
    FILTERS,
    ChipCRF,
    CRFOptions,
    check_chip,
    color_bands,
    parse_options,
)
from geoseg.prediction.dry_run import dry_run
from geoseg.runtimes import load_runtime
from geoseg.scene.radiometry import Radiometry
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime

CLASSES = ("water", "trees", "crops")


@pytest.fixture(autouse=True)
def one_thread():
    """The arrays are small, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path / "model", ("red",), CLASSES, size=64, overlap=32)


class Speckled(NumpyRuntime):
    """Bright or dark, but wrong at each pixel whose number 7 divides: salt and pepper."""

    def answer(self, pixels):
        bright = pixels[:, :1] > 110
        bright = bright ^ (pixels[:, :1] % 7 == 0)
        second = np.where(bright, 0.7, 0.2)
        return np.concatenate([0.9 - second, second, np.full_like(second, 0.1)], axis=1)


def disc_and_bars(height=160, width=150):
    """A scene (1, H, W) of two brightnesses with a little noise, and where it is bright."""
    rows, cols = np.mgrid[:height, :width]
    bright = (rows - 60) ** 2 + (cols - 70) ** 2 < 40**2
    bright |= (rows > 120) & (cols // 12 % 2 == 0)
    noise = np.random.default_rng(0).normal(0, 5, (height, width))
    return (np.where(bright, 160, 60) + noise).round().astype(np.uint8)[None], bright


def predict(tmp_path, values, model, runtime=None, *, raster=None, **options):
    scene = make_raster(
        tmp_path / "scene.tif", values, **{"descriptions": ("red",), **(raster or {})}
    )
    common = {"no_vector": True, "overwrite": True, "probs_dtype": "float32"}
    result = geoseg.predict(
        scene,
        tmp_path / "out.tif",
        model=model,
        runtime=runtime or Speckled(3),
        probs=tmp_path / "probs.tif",
        **{**common, **options},
    )
    with rasterio.open(result.raster) as dataset, rasterio.open(tmp_path / "probs.tif") as probs:
        return dataset.read(1), probs.read(), result


def test_specks_go_and_edges_stay(tmp_path, model):
    values, bright = disc_and_bars()
    speckled = predict(tmp_path, values, model)[0]
    smooth, probs, _ = predict(tmp_path, values, model, crf=True)
    assert (speckled != bright).mean() > 0.1
    assert (smooth != bright).mean() < 0.001
    edge = np.zeros_like(bright)
    edge[:, 1:] |= bright[:, 1:] != bright[:, :-1]
    edge[1:] |= bright[1:] != bright[:-1]
    assert (smooth != bright)[edge].mean() < 0.02  # measured: 0.006
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)


def test_smoothing_without_colours_would_blur_the_edges(tmp_path, model):
    """Or else the test before would not show that colours are heeded."""
    values, bright = disc_and_bars()
    options = ("bilateral=0", "gamma=4", "spatial=8")
    blurred = predict(tmp_path, values, model, crf=True, crf_options=options)[0]
    assert (blurred != bright).mean() > 0.005


def seams(tmp_path, model, **options):
    """How often labels differ from those of one chip, near the chips' borders and elsewhere."""
    _, bright = disc_and_bars(200, 190)
    noise = np.random.default_rng(1).integers(-25, 25, bright.shape)
    # Doubtful pixels everywhere, and a corner of extremes, which few chips see.
    values = (np.where(bright, 125, 95) + noise).astype(np.uint8)[None]
    values[0, :20, :20], values[0, 20:40, :20] = 0, 255
    whole = predict(tmp_path, values, model, crf=True, size=256)[0]
    chips = predict(tmp_path, values, model, crf=True, **options)[0]
    size, stride = options["size"], options["size"] - options["overlap"]
    border = np.zeros(whole.shape, dtype=bool)
    for start in range(0, 200, stride):
        for edge in (start, start + size):
            border[max(0, edge - 2) : edge + 2] = True
            border[:, max(0, edge - 2) : edge + 2] = True
    differ = whole != chips
    inner = (slice(8, -8), slice(8, -8))
    return differ[inner][border[inner]].mean(), differ[inner][~border[inner]].mean()


@pytest.mark.parametrize(("size", "overlap"), [(64, 32), (96, 40), (128, 32)])
def test_chips_of_any_size_agree_and_leave_no_seams(tmp_path, model, size, overlap):
    near, elsewhere = seams(tmp_path, model, size=size, overlap=overlap)
    # Measured: 0.0010 and 0.0030, 0.0007 and 0.0011, 0.0003 and 0.0002 of the pixels.
    assert near <= 0.005 and elsewhere <= 0.005
    assert near <= elsewhere + 0.002


def test_colours_by_each_chips_own_extremes_would_make_chips_disagree(tmp_path, model, monkeypatch):
    """What the test before is for: it sees the fault that it is to see."""
    original = ChipCRF._colors

    def colors(self, raw):
        x = original(self, raw)
        return (x - x.amin()) / (x.amax() - x.amin()) * 255

    monkeypatch.setattr(ChipCRF, "_colors", colors)
    near, elsewhere = seams(tmp_path, model, size=64, overlap=32)
    assert near > 0.02 and elsewhere > 0.02


def test_result_does_not_depend_on_the_batch_size(tmp_path, model):
    values, _ = disc_and_bars()
    values[0, 30:70, 20:90] = 0
    options = {"crf": True, "raster": {"nodata": 0}}
    results = [
        predict(tmp_path, values, model, batch_size=size, **options)[1] for size in (1, 3, 64)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_nodata_stays_nodata_and_has_no_say(tmp_path, model):
    values, _ = disc_and_bars()
    nodata = np.zeros(values.shape[1:], dtype=bool)
    nodata[:, 45:60] = True
    nodata[100:, 90:] = True
    values[0, nodata] = 0

    class Raving(Speckled):
        """Sure of another class where nothing was measured."""

        def __init__(self, which):
            super().__init__(3)
            self.which = which

        def answer(self, pixels):
            probs = super().answer(pixels)
            where = np.broadcast_to(nodata, (len(probs), *nodata.shape))
            for k in range(3):
                probs[:, k][where] = 0.98 if k == self.which else 0.01
            return probs

    options = {"crf": True, "size": 160, "raster": {"nodata": 0}}
    results = [predict(tmp_path, values, model, Raving(k), **options) for k in (0, 2)]
    for out, _, _ in results:
        np.testing.assert_array_equal(out == 255, nodata)
    np.testing.assert_array_equal(results[0][1][:, ~nodata], results[1][1][:, ~nodata])


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (3, 2)])
def test_tiny_scenes(tmp_path, model, shape):
    values = np.full((1, *shape), 150, dtype=np.uint8)
    out, probs, _ = predict(tmp_path, values, model, crf=True)
    np.testing.assert_array_equal(out, np.ones(shape))
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["exact", "window"])
def test_other_filters(tmp_path, model, name):
    values, bright = disc_and_bars(50, 44)
    options = (f"filter={name}", "radius=7")
    out = predict(tmp_path, values, model, crf=True, crf_options=options)[0]
    assert (out != bright).mean() < 0.01


def test_a_model_of_nine_bands(tmp_path):
    bands = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "swir1", "swir2")
    assert color_bands(bands) == [0, 1, 2, 6, 7, 8]
    model = tiny_model(
        tmp_path / "nine",
        bands,
        CLASSES,
        quantity="reflectance",
        normalization=Normalization("z-score", {"mean": (0.1,) * 9, "stddev": (0.05,) * 9}),
    )
    values = np.random.default_rng(0).integers(0, 3000, (9, 70, 80)).astype(np.uint16)
    runtime = own_runtime(model, 1e-4)
    options = {"raster": {"descriptions": bands}, "crf": True, "scale": 1e-4}
    out, probs, result = predict(tmp_path, values, model, runtime, **options)
    assert out.shape == (70, 80)
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)
    assert result.report["seconds"]["crf"] > 0


def own_runtime(model, gain=1.0, runtime="auto"):
    files = geoseg.load_model(model)
    n = len(files.card.bands)
    radiometry = Radiometry((gain,) * n, (0.0,) * n, "for a test")
    return load_runtime(files, radiometry, runtime=runtime, precision="fp32", device="cpu")


def test_a_device_that_keeps_tensors_gives_the_same(tmp_path, model):
    values, _ = disc_and_bars()
    results = []
    for gives_numpy in (True, False):
        runtime = own_runtime(model, runtime="torch")
        runtime.on_device = not gives_numpy
        results.append(predict(tmp_path, values, model, runtime, crf=True)[1])
    np.testing.assert_array_equal(*results)


# --- colours ---------------------------------------------------------------------------------


def chip_crf(model, **options):
    card = geoseg.load_model(model).card
    n = len(card.bands)
    return ChipCRF(card, Radiometry((2.0,) * n, (1.0,) * n, "for a test"), CRFOptions(**options))


def test_every_normalization_has_a_unit():
    assert {*COLOR_UNITS, "none"} == set(NORMALIZATION_PARAMETERS)


def test_colours_are_the_networks_input_times_a_constant(tmp_path):
    normalization = Normalization("z-score", {"mean": (11.0,), "stddev": (4.0,)})
    folder = tiny_model(tmp_path / "z-score", ("red",), CLASSES, normalization=normalization)
    raw = torch.tensor([[[[5, 7]]]], dtype=torch.uint8)
    torch.testing.assert_close(chip_crf(folder)._colors(raw), torch.tensor([[[[0.0, 57.4]]]]))
    for quantity, unit in (("number", 1.0), ("reflectance", 255.0)):
        folder = tiny_model(tmp_path / quantity, ("red",), CLASSES, quantity=quantity)
        expected = torch.tensor([[[[11.0, 15.0]]]]) * unit
        torch.testing.assert_close(chip_crf(folder)._colors(raw), expected)


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (("red",), [0]),
        (("a", "b", "c", "d", "e", "f"), [0, 1, 2, 3, 4, 5]),
        (("a", "b", "c", "d", "e", "f", "g"), [0, 1, 2, 3, 4, 5]),
        (("a", "b", "nir", "d", "e", "red", "g"), [2, 5]),
    ],
)
def test_color_bands(bands, expected):
    assert color_bands(bands) == expected


def test_chips_say_where_they_lie(tmp_path, model, monkeypatch):
    """On one lattice for all the world; the seams are too faint to show that it isn't."""
    found = []
    original = models_crf.DenseCRF.forward

    def forward(self, logits, image, valid=None, origins=None):
        found.extend(origins)
        return original(self, logits, image, valid, origins)

    monkeypatch.setattr(models_crf.DenseCRF, "forward", forward)
    predict(tmp_path, disc_and_bars(70, 100)[0], model, crf=True, batch_size=2)
    # Of 64 px at multiples of 32; the scene's first pixel is (-500000, 50000).
    rows, cols = (-500_000, -499_968), (49_984, 50_016, 50_048)
    assert found == [(row, col) for row in rows for col in cols]


def test_out_of_memory_says_what_to_do(model, monkeypatch):
    crf = chip_crf(model)

    def full(raw):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(crf, "_colors", full)
    pixels = np.zeros((1, 1, 4, 4), dtype=np.uint8)
    probs = np.full((1, 3, 4, 4), 1 / 3, dtype=np.float32)
    with pytest.raises(DeviceError, match="smaller --batch-size"):
        crf(probs, pixels, np.ones((1, 4, 4), dtype=bool), [(0, 0)])


def test_probabilities_of_0_and_1_are_taken(model):
    pixels = np.zeros((1, 1, 4, 4), dtype=np.uint8)
    probs = np.zeros((1, 3, 4, 4), dtype=np.float32)
    probs[:, 1] = 1
    out = chip_crf(model)(probs, pixels, np.ones((1, 4, 4), dtype=bool), [(0, 0)])
    assert out.dtype == np.float32 and np.isfinite(out).all() and (out[:, 1] > 0.99).all()


# --- options, report and dry run -------------------------------------------------------------


def test_options_are_read():
    texts = ["filter=window", " beta = 7.5 ", "iterations=3", "radius=4", "iterations=2"]
    assert parse_options(texts) == CRFOptions("window", iterations=2, beta=7.5, radius=4)
    assert parse_options([]) == CRFOptions()
    assert set(FILTERS) == set(models_crf.FILTERS)


BAD = [
    "beta",
    "colour=3",
    "=3",
    "beta=",
    "beta=red",
    "beta=0",
    "beta=nan",
    "alpha=inf",
    "alpha=-80",
    "spatial=-1",
    "iterations=2.5",
    "iterations=-1",
    "iterations=1_0",
    "iterations=99999",
    "radius=x",
    "filter=bilateral",
]


@pytest.mark.parametrize("text", BAD)
def test_bad_options_are_refused(text):
    with pytest.raises(UsageError, match="--crf-option"):
        parse_options([text])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--crf", "--crf-option", "beta=red"), "beta=red"),
        (("--crf-option", "beta=13"), "give --crf too"),
        (("--crf", "--crf-option", "filter=exact", "--size", "512"), "--size 256"),
    ],
)
def test_the_command_line_refuses_in_one_line(tmp_path, model, capsys, options, said):
    values = np.zeros((1, 300, 300), dtype=np.uint8)
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=("red",))
    out = tmp_path / "new.tif"
    with pytest.raises(SystemExit) as end:
        main(["predict", str(scene), "-m", str(model), "-o", str(out), "--no-vector", *options])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not out.exists()


def test_exact_takes_small_chips():
    check_chip(CRFOptions("exact"), 256, 256)
    check_chip(CRFOptions("window"), 512, 512)
    with pytest.raises(UsageError, match="256x257"):
        check_chip(CRFOptions("exact"), 256, 257)


def test_report_and_tags_hold_what_was_done(tmp_path, model):
    values, _ = disc_and_bars(40, 40)
    done = {}
    for key, options in (
        ("without", {}),
        ("with", {"crf": True, "crf_options": ["iterations=2"]}),
    ):
        _, _, result = predict(tmp_path, values, model, **options)
        with rasterio.open(result.raster) as dataset:
            tags = json.loads(dataset.tags()["GEOSEG_OPTIONS"])
        written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert written["options"]["crf_options"] == tags["crf_options"]
        done[key] = tags["crf"], tags["crf_options"], "crf" in written["seconds"]
    assert done["without"] == (False, {}, False)
    crf, options, timed = done["with"]
    assert crf and timed and options["iterations"] == 2 and options["filter"] == "permutohedral"


def test_dry_run_counts_the_crfs_time(tmp_path, model, monkeypatch):
    values, _ = disc_and_bars()
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=("red",))
    calls = []
    original = ChipCRF.__call__

    def counted(self, probs, pixels, valid, windows):
        calls.append(windows[0])
        return original(self, probs, pixels, valid, windows)

    monkeypatch.setattr(ChipCRF, "__call__", counted)
    estimate = dry_run(scene, tmp_path / "new.tif", model=model, no_vector=True)
    assert calls == [] and estimate.seconds > 0
    report = dry_run(scene, tmp_path / "new.tif", model=model, no_vector=True, crf=True).report
    assert len(calls) >= 2 and report["options"]["crf_options"]["iterations"] == 5


def test_torch_is_not_loaded_for_the_options():
    script = (
        "import sys, geoseg.prediction.plan\n"
        "geoseg.prediction.options.PredictOptions(crf=True, crf_options=['beta=13'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
