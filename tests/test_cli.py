import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio

from geoseg.cards.card import Normalization
from tests import forked
from tests.helpers import make_raster, tiny_model

CLASSES = ("water", "trees", "crops")


def geoseg(*args, **options):
    return forked.run([sys.executable, "-m", "geoseg", *args], **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene and a model that fits it."""
    folder = tmp_path_factory.mktemp("cli")
    values = np.random.default_rng(0).integers(0, 3000, (2, 200, 180)).astype(np.uint16)
    make_raster(folder / "scene.tif", values, descriptions=("red", "nir"))
    scale = {"mean": (1500.0, 1500.0), "stddev": (300.0, 300.0)}
    normalization = Normalization("z-score", scale)
    tiny_model(folder / "model", ("red", "nir"), CLASSES, normalization=normalization)
    return folder


def one_line(result):
    lines = [line for line in result.stderr.splitlines() if line.startswith("geoseg: error:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def test_predict_writes_its_outputs_beside_nothing_else(place, tmp_path):
    result = geoseg("predict", place / "scene.tif", "-m", place / "model", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    written = sorted(p.name for p in tmp_path.iterdir())
    assert written == [f"scene_landcover.{e}" for e in ("gpkg", "json", "qml", "tif")]
    assert "scene_landcover.tif" in result.stdout


def test_every_vector_format(place, tmp_path):
    import geopandas

    for suffix in ("fgb", "parquet", "geojson"):
        path = tmp_path / f"x.{suffix}"
        result = geoseg(
            *("predict", place / "scene.tif", "-m", place / "model", "--vector", path),
            *("--overwrite", "--bbox", "500000,4999500,500500,5000000"),
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        read = geopandas.read_parquet if suffix == "parquet" else geopandas.read_file
        assert len(read(path)) > 10


def test_json_progress_is_one_object_a_line(place, tmp_path):
    result = geoseg(
        *("predict", place / "scene.tif", "-m", place / "model", "--progress", "json"),
        cwd=tmp_path,
    )
    events = [json.loads(line) for line in result.stdout.splitlines()]
    events = [event for event in events if event["event"] != "alive"]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "result"]
    assert events[0]["protocol"] == 1
    assert (tmp_path / events[-1]["raster"]).exists()


def test_json_progress_tells_errors_too(place, tmp_path):
    result = geoseg("predict", "none.tif", "--progress", "json", cwd=tmp_path)
    event = json.loads(result.stdout.splitlines()[-1])
    assert event["event"] == "error" and "no such file" in event["message"]
    assert result.returncode == event["code"] == 1


def test_dry_run_writes_nothing(place, tmp_path):
    result = geoseg(
        "predict", place / "scene.tif", "-m", place / "model", "--dry-run", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "nothing was written" in result.stdout and "to run" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_quiet_is_quiet(place, tmp_path):
    result = geoseg("predict", place / "scene.tif", "-m", place / "model", "-q", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_info_says_why_a_model_does_not_fit(place, tmp_path):
    result = geoseg("info", place / "scene.tif", "--json", cwd=tmp_path)
    report = json.loads(result.stdout)
    assert [b["name"] for b in report["bands"]] == ["red", "nir"]
    (default,) = (m for m in report["models"] if m["name"] == "landcover-ms")
    assert not default["fits"] and "blue, green, swir1, swir2" in default["why"]
    result = geoseg("info", place / "scene.tif", "-m", place / "model", cwd=tmp_path)
    assert result.returncode == 0 and "model model: fits" in result.stdout


def test_models_list_and_show(place, tmp_path):
    listed = json.loads(geoseg("models", "list", "--json", cwd=tmp_path).stdout)
    assert "landcover-ms" in [m["name"] for m in listed]
    shown = geoseg("models", "show", place / "model", cwd=tmp_path)
    assert "trees" in shown.stdout and "red, nir" in shown.stdout
    card = json.loads(geoseg("models", "show", "landcover-ms", "--json", cwd=tmp_path).stdout)
    assert card["properties"]["mlm:name"] == "landcover-ms"


@pytest.mark.extra("torch")
def test_models_import_takes_a_model_and_refuses_the_rest(place, tmp_path):
    result = geoseg("models", "import", place / "model", "-o", "copy", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert geoseg("models", "show", "copy", cwd=tmp_path).returncode == 0
    again = geoseg("models", "import", place / "model", "-o", "copy", cwd=tmp_path)
    assert again.returncode == 1 and "exists already" in one_line(again)
    (tmp_path / "empty").mkdir()
    wrong = geoseg("models", "import", "empty", "-o", "other", cwd=tmp_path)
    assert wrong.returncode == 1 and "Dynamic World" in one_line(wrong)


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (["none.tif"], 1, "no such file"),
        (["text.tif"], 1, "not a raster"),
        (["scene.tif", "-m", "nothing"], 1, "no model 'nothing'"),
        (["scene.tif", "-m", "."], 1, "has no model.json"),
        (["scene.tif"], 1, "blue, green, swir1, swir2"),
        (["scene.tif", "-m", "model", "--bands", "1,2,3"], 1, "gives 3 bands"),
        (["scene.tif", "-m", "model", "--bands", "1,9"], 1, "has bands 1 to 2"),
        (["scene.tif", "-m", "model", "--bands", "red,mauve"], 1, "mauve"),
        (["dark.tif", "-m", "model"], 1, "no pixel was measured"),
        (["scene.tif", "-m", "model", "-o", "no/such/folder/x.tif"], 1, "no folder"),
        (["scene.tif", "-m", "model", "-o", "dark.tif"], 1, "exists already"),
        (["scene.tif", "-m", "model", "-o", "scene.tif", "--overwrite"], 2, "is an input"),
        (["scene.tif", "-m", "model", "--bbox-crs", "EPSG:4326"], 2, "give --bbox too"),
        (
            ["scene.tif", "-m", "model", "--bbox", "1,2,3,4", "--bbox-crs", "EPSG:foo"],
            2,
            "EPSG:foo",
        ),
        (["scene.tif", "-m", "model", "--bbox=-inf,-inf,inf,inf"], 2, "finite"),
        (["scene.tif", "-m", "model", "--aoi", "table.csv"], 2, "without geometry"),
        (["plain.tif", "-m", "model", "--vector", "x.geojson"], 2, "choose .gpkg"),
        (["plain.tif", "-m", "model", "--min-area", "500"], 2, "in metres"),
        (["scene.tif", "-m", "model", "--co", "COMPRES=ZSTD"], 2, "COMPRES is none"),
        (
            ["scene.tif", "-m", "model", "--co", "OVERVIEW_RESAMPLING=AVERAGE"],
            2,
            "none of the options",
        ),
        (["scene.tif", "-m", "model", "--co", "COMPRESS=LERC"], 2, "NONE, LZW"),
        pytest.param(
            *(["scene.tif", "-m", "model", "--device", "cuda:7"], 1, "CUDA devices"),
            marks=pytest.mark.extra("torch"),
        ),
        (["scene.tif", "-m", "model", "--device", "tpu"], 1, "is unknown"),
        (["scene.tif", "-m", "model", "--size", "0"], 2, "at least 1"),
        (["scene.tif", "-m", "model", "--bbox", "1,2,3"], 2, "west,south,east,north"),
        (["scene.tif", "-m", "model", "--bbox", "1,2,3,4"], 2, "outside the scene"),
        (["scene.tif", "-m", "model", "--vector", "x.gpkg", "--no-vector"], 2, "contradict"),
        (["torn.tif", "-m", "model"], 1, "damaged or cut short"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_errors_are_one_line_and_a_code(place, args, code, word):
    if not (place / "text.tif").exists():
        (place / "text.tif").write_text("no raster")
        black = np.full((2, 40, 40), 7, dtype=np.uint16)
        make_raster(place / "dark.tif", black, descriptions=("red", "nir"), nodata=7)
        make_raster(place / "plain.tif", black, descriptions=("red", "nir"), crs=None)
        (place / "table.csv").write_text("a,b\n1,2\n")
        values = np.random.default_rng(1).integers(0, 3000, (2, 600, 500)).astype(np.uint16)
        make_raster(
            place / "torn.tif",
            values,
            descriptions=("red", "nir"),
            compress="deflate",
            tiled=True,
            blockxsize=128,
            blockysize=128,
        )
        os.truncate(place / "torn.tif", (place / "torn.tif").stat().st_size * 2 // 3)
    before = sorted(p.name for p in place.iterdir())
    result = geoseg("predict", *args, cwd=place)
    assert result.returncode == code, result.stderr
    assert word in one_line(result)
    assert sorted(p.name for p in place.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(place, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    result = geoseg(
        "predict", place / "scene.tif", "-m", place / "model", "-o", "shut/x.tif", cwd=tmp_path
    )
    assert result.returncode == 1 and "can't be written" in one_line(result)


def test_output_where_no_folder_can_be_made(place, tmp_path):
    # /proc takes no files, not even root's.
    result = geoseg(
        "predict", place / "scene.tif", "-m", place / "model", "-o", "/proc/x.tif", cwd=tmp_path
    )
    assert result.returncode == 1 and "/proc" in one_line(result)


@pytest.mark.parametrize("limit", [2_000, 40_000, 120_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(place, tmp_path, limit):
    """A limit on file sizes fails writes in the same places as a full disk."""
    result = geoseg(
        *("predict", place / "scene.tif", "-m", place / "model", "--probs", "p.tif"),
        *("--probs-dtype", "float32"),
        cwd=tmp_path,
        largest_file=limit,
    )
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert "p.tif" in one_line(result) or "disk" in one_line(result) or "written" in result.stderr
    # Finished strips at most.
    assert {p.name for p in tmp_path.iterdir()} <= {".geoseg-scene_landcover.tif"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_runs_exit_with_130_and_leave_nothing(place, tmp_path, number):
    values = np.random.default_rng(2).integers(0, 3000, (2, 3000, 3000)).astype(np.uint16)
    scene = make_raster(tmp_path / "large.tif", values, descriptions=("red", "nir"))
    work = tmp_path / "work"
    work.mkdir()
    process = forked.Forked(
        [
            *(sys.executable, "-m", "geoseg", "predict", scene, "-m", place / "model"),
            *("--progress", "json", "--size", "16", "--overlap", "8"),
        ],
        cwd=work,
    )
    for line in process.stdout:
        if json.loads(line)["event"] == "progress":
            break
    assert any(work.iterdir())  # it is at work
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert re.search("interrupted; (nothing was written|.* finished strips? (is|are) kept)", stderr)
    assert "Traceback" not in stderr
    # Nothing but finished strips, with which the same command goes on.
    assert {p.name for p in work.iterdir()} <= {".geoseg-large_landcover.tif"}


def test_traceback_only_with_vv(place, tmp_path):
    result = geoseg("predict", "none.tif", "-vv", cwd=tmp_path)
    assert "Traceback" in result.stderr and result.returncode == 1


@pytest.mark.parametrize(
    ("module", "args", "hint"),
    [
        ("evaluation.run", ["evaluate", "map.tif"], "use a smaller --boundary-tolerance"),
        (
            "evaluation.sample_design",
            ["sample", "map.tif", "-o", "p.gpkg"],
            "take a machine that has more",
        ),
    ],
)
def test_out_of_memory_names_what_the_command_has(tmp_path, module, args, hint):
    code = (
        f"import sys, geoseg.{module} as module\n"
        "from geoseg.cli import main\n"
        "def full(*args, **options): raise MemoryError\n"
        f"module.{args[0]} = full\n"
        "main(sys.argv[1:])"
    )
    result = forked.run([sys.executable, "-c", code, *args], cwd=tmp_path)
    assert result.returncode == 1
    assert "out of memory" in one_line(result) and hint in one_line(result)
    assert "--mem-limit" not in one_line(result)


def test_usage_errors_of_click_exit_with_2(tmp_path):
    assert geoseg("predict", cwd=tmp_path).returncode == 2
    assert geoseg("no-such-command", cwd=tmp_path).returncode == 2
    assert geoseg("predict", "x", "--taper", "hann", cwd=tmp_path).returncode == 2


def test_help_is_quick():
    # CPU time, since the machine is shared: nothing heavy is imported (0.4 s is the promise).
    code = "import resource,subprocess,sys;subprocess.run([sys.executable,'-m','geoseg','--help'],"
    code += "stdout=subprocess.DEVNULL);r=resource.getrusage(resource.RUSAGE_CHILDREN);"
    code += "print(r.ru_utime+r.ru_stime)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(times) < 0.4


def test_a_scene_without_crs_is_a_warning(place, tmp_path):
    values = np.random.default_rng(0).integers(0, 3000, (2, 50, 60)).astype(np.uint16)
    scene = make_raster(tmp_path / "plain.tif", values, descriptions=("red", "nir"), crs=None)
    result = geoseg("predict", scene, "-m", place / "model", cwd=tmp_path)
    assert result.returncode == 0 and "warning: the scene has no CRS" in result.stderr


def test_reads_over_http(place, tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-m", "RangeHTTPServer", "0", "--bind", "127.0.0.1"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        port = server.stdout.readline().split(" port ")[1].split()[0]
        base = f"http://127.0.0.1:{port}"
        args = ("-m", place / "model", "--no-vector")
        remote = geoseg("predict", f"{base}/scene.tif", *args, cwd=tmp_path)
        assert remote.returncode == 0, remote.stderr
        with rasterio.open(tmp_path / "scene_landcover.tif") as dataset:
            over_http = dataset.read(1)
        geoseg("predict", place / "scene.tif", *args, "-o", "local.tif", cwd=tmp_path)
        with rasterio.open(tmp_path / "local.tif") as dataset:
            np.testing.assert_array_equal(over_http, dataset.read(1))
        start = time.monotonic()
        missing = geoseg("predict", f"{base}/none.tif", *args, cwd=tmp_path)
        assert missing.returncode == 1 and "check the address" in one_line(missing)
        assert time.monotonic() - start < 60
    finally:
        server.kill()
        server.wait()
