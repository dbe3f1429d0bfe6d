"""The plugin in a real QGIS, by qgis_process, in a profile of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from geopandas.testing import assert_geodataframe_equal

import geoseg
from geoseg.qgis.installing import PLUGIN

ROOT = Path(__file__).parents[2]
SCENE = ROOT / "examples" / "landsat7_nc_2000.tif"
LABELS = ROOT / "examples" / "landsat7_nc_2000_labels.tif"
GEOSEG = [sys.executable, "-m", "geoseg"]
#: Debian's qgis_process is a script that adds an option which the program does not know.
PROGRAM = shutil.which("qgis_process.bin") or shutil.which("qgis_process")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="QGIS is not installed (qgis_process)"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]
Way = Callable[..., Any]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """QGIS' own Python, no window, and a profile into which the plugin was installed."""
    folder = tmp_path_factory.mktemp("qgis")
    folder.chmod(0o700)
    found = {
        **os.environ,
        # Else QGIS takes the standard library of whatever Python comes first there.
        "PATH": "/usr/bin:/bin",
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        # QGIS writes statistics beside the scene otherwise, which is the repository's.
        "GDAL_PAM_ENABLED": "NO",
    }
    done = subprocess.run(
        [*GEOSEG, "qgis", "install"], env=found, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(
        algorithm: str, *options: str, **parameters: object
    ) -> subprocess.CompletedProcess[str]:
        given = [f"--{name}={value}" for name, value in parameters.items()]
        return subprocess.run(
            [str(PROGRAM), *options, "run", f"geoseg:{algorithm}", *given],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def way(environment: dict[str, str], tmp_path: Path) -> Way:
    """What tests/qgis/ways.py does in QGIS' own Python."""

    def way(name: str, asked: object = None, **more: str) -> Any:
        given = {**environment, **more}
        done = subprocess.run(
            ["/usr/bin/python3", str(Path(__file__).with_name("ways.py")), name, str(SCENE), "."],
            env={k: v for k, v in given.items() if not k.startswith("PYTHON")},
            cwd=tmp_path,
            input=json.dumps(asked, default=str),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return way


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line makes of the example scene."""
    folder = tmp_path_factory.mktemp("maps")
    for vector in ("map.gpkg", "map.parquet"):
        subprocess.run(
            [*GEOSEG, "predict", str(SCENE), "-o", "map.tif", "--vector", vector, "--overwrite"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


def test_all_algorithms_are_there(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [str(PROGRAM), "list"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("predict", "folder", "vectorize", "evaluate", "sample", "info", "diagnostics"):
        assert f"geoseg:{name}\t" in done.stdout


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_predict_makes_what_the_command_line_makes(
    run: Run, maps: Path, tmp_path: Path, suffix: str
) -> None:
    out, vector = tmp_path / "out.tif", tmp_path / f"out{suffix}"
    done = run("predict", "--json", INPUT=SCENE, OUTPUT=out, VECTOR=vector)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"] == {"OUTPUT": str(out), "VECTOR": str(vector)}
    assert out.read_bytes() == (maps / "map.tif").read_bytes()
    expected = maps / f"map{suffix}"
    if suffix == ".parquet":
        assert vector.read_bytes() == expected.read_bytes()
    else:
        a, b = (geopandas.read_file(p, layer="landcover") for p in (vector, expected))
        assert_geodataframe_equal(a, b)


def test_clouds_are_those_of_the_command_line(run: Run, maps: Path, tmp_path: Path) -> None:
    frame = geopandas.read_file(maps / "map.gpkg", layer="landcover")
    clouds = tmp_path / "clouds.gpkg"
    frame.nlargest(1, "area_m2")[["geometry"]].to_file(clouds)
    given = {"CLOUDS": clouds, "CLOUD_BUFFER": 90, "OUTPUT": tmp_path / "out.tif"}
    assert run("predict", INPUT=SCENE, **given).returncode == 0
    expected = geoseg.predict(
        SCENE, tmp_path / "expected.tif", clouds=clouds, cloud_buffer=90.0, no_vector=True
    )
    assert (tmp_path / "out.tif").read_bytes() == expected.raster.read_bytes()


def test_extent_area_and_options_are_those_of_the_command_line(
    run: Run, maps: Path, tmp_path: Path
) -> None:
    """The area of interest is in another CRS, and one of several layers of its file."""
    frame = geopandas.read_file(maps / "map.gpkg", layer="landcover")
    some = frame[frame.class_name == "water"].nlargest(1, "area_m2")[["geometry"]].to_crs(4326)
    some.to_file(tmp_path / "areas.gpkg", layer="first")
    frame.iloc[:1][["geometry"]].to_file(tmp_path / "areas.gpkg", layer="second", mode="a")
    some.to_file(tmp_path / "aoi.gpkg", layer="aoi")
    west, south, east, north = map(float, some.to_crs(frame.crs).total_bounds)
    out = tmp_path / "out.tif"
    done = run(
        "predict",
        INPUT=SCENE,
        MODEL="landcover-ms",
        BANDS="1,2,3,4,5,6",
        EXTENT=f"{west},{east},{south},{north} [EPSG:32119]",
        AOI=f"{tmp_path / 'areas.gpkg'}|layername=first",
        MIN_AREA=3000,
        SIMPLIFY=30,
        OPTIONS="--tta flips --co 'COMPRESS=ZSTD'",
        OUTPUT=out,
        VECTOR=tmp_path / "out.parquet",
        CONFIDENCE=tmp_path / "sure.tif",
        PROBABILITIES=tmp_path / "probs.tif",
    )
    assert done.returncode == 0, done.stderr
    arguments = [
        *("predict", str(SCENE), "-m", "landcover-ms", "-b", "1,2,3,4,5,6"),
        *(f"--bbox={west!r},{south!r},{east!r},{north!r}", "--aoi", str(tmp_path / "aoi.gpkg")),
        *("--min-area", "3000", "--simplify", "30", "--tta", "flips", "--co", "COMPRESS=ZSTD"),
        *("-o", "own.tif", "--vector", "own.parquet"),
        *("--confidence", "own-sure.tif", "--probs", "own-probs.tif"),
    ]
    subprocess.run([*GEOSEG, *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "own.parquet").read_bytes()
    for a, b in (
        ("out.tif", "own.tif"),
        ("sure.tif", "own-sure.tif"),
        ("probs.tif", "own-probs.tif"),
    ):
        # Their tags name the file of areas.
        with rasterio.open(tmp_path / a) as x, rasterio.open(tmp_path / b) as y:
            assert x.profile == y.profile
            np.testing.assert_array_equal(x.read(), y.read())


#: What is wrong, and words of what is said of it.
WRONG: list[tuple[str, dict[str, object], str]] = [
    ("predict", {"INPUT": "none.tif"}, "INPUT"),
    ("predict", {"INPUT": SCENE, "MODEL": "landcover-aerial"}, "28.5 x 28.5 m"),
    ("predict", {"INPUT": SCENE, "MODEL": "no-such"}, "no-such"),
    ("predict", {"INPUT": SCENE, "BANDS": "1,2"}, "band"),
    ("predict", {"INPUT": SCENE, "OPTIONS": "--no-such"}, "--no-such"),
    ("predict", {"INPUT": SCENE, "OPTIONS": "--tta 'flips"}, "No closing quotation"),
    ("predict", {"INPUT": SCENE, "MIN_AREA": "abc"}, "'abc', and no number"),
    ("predict", {"INPUT": SCENE, "EXTENT": "0,0,0,0"}, "EXTENT holds no area"),
    ("predict", {"INPUT": SCENE, "OPTIONS": "--help"}, "made nothing"),
    ("predict", {"INPUT": SCENE, "OPTIONS": "--dry-run"}, "made nothing"),
    ("predict", {"INPUT": SCENE, "EXTENT": "0,1,0,1 [EPSG:32119]"}, "'Extent'"),
    ("vectorize", {"INPUT": SCENE}, "6 bands"),
    ("evaluate", {"INPUT": LABELS}, "give one of labelled points (POINTS)"),
    ("evaluate", {"INPUT": LABELS, "POINTS": "none.gpkg"}, "POINTS"),
    ("sample", {"INPUT": SCENE, "COUNT": 10}, "band"),
    ("sample", {"INPUT": LABELS, "COUNT": 40, "SEED": -5}, "SEED"),
    ("folder", {"INPUT": "no-such"}, "is no folder"),
    ("folder", {"INPUT": ROOT / "docs"}, "holds no file or folder"),
]


def outputs(algorithm: str, folder: Path) -> dict[str, object]:
    """What an algorithm is asked to write."""
    suffix = {"predict": ".tif", "evaluate": ".html", "folder": ""}.get(algorithm, ".gpkg")
    more = {"VECTOR": folder / "made.gpkg"} if algorithm == "predict" else {}
    return {"OUTPUT": folder / f"made{suffix}", **more}


def test_what_is_wrong_is_an_error_and_no_file(way: Way, tmp_path: Path) -> None:
    """All of it in one QGIS, which takes longer to start than geoseg to refuse."""
    asked = []
    for algorithm, parameters, _ in WRONG:
        given = {**parameters, **outputs(algorithm, tmp_path)}
        # As text, which is what they come as on a command line.
        as_text = {name: str(value) for name, value in given.items()}
        asked.append({"algorithm": algorithm, "parameters": as_text})
    for (*case, words), said in zip(WRONG, way("refused", asked), strict=True):
        assert said is not None and words in said and "Traceback" not in said, (case, said)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("algorithm", "parameters", "words"), [WRONG[i] for i in (0, 2, -1)])
def test_what_is_wrong_fails_the_program(
    run: Run, tmp_path: Path, algorithm: str, parameters: dict[str, object], words: str
) -> None:
    done = run(algorithm, **parameters, **outputs(algorithm, tmp_path))
    assert done.returncode == 1
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not [*tmp_path.iterdir()]


def children(scene: Path) -> list[str]:
    """The processes that predict a scene."""
    found = subprocess.run(
        ["pgrep", "-f", f"geoseg predict .*{scene}"], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, 4.0), (signal.SIGKILL, 5.0)], ids=["INT", "KILL"]
)
def test_a_run_that_is_cancelled_or_orphaned_ends(
    environment: dict[str, str], tmp_path: Path, number: int, seconds: float
) -> None:
    scene = tmp_path / "scene.tif"
    shutil.copyfile(SCENE, scene)
    out = tmp_path / "out"
    out.mkdir()
    options = "--size 64 --overlap 56 --tta d4 --runtime openvino --precision fp32"
    given = f"--INPUT={scene}", f"--OPTIONS={options}"
    outputs = f"--OUTPUT={out}/s.tif", f"--VECTOR={out}/s.gpkg"
    process = subprocess.Popen(
        [str(PROGRAM), "run", "geoseg:predict", *given, *outputs],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Predicting" in line:
            break
    assert children(scene)
    process.send_signal(number)
    start = time.monotonic()
    while children(scene) and time.monotonic() - start < 60:
        time.sleep(0.05)
    assert time.monotonic() - start < seconds
    left = process.communicate(timeout=60)[0]
    assert process.returncode == (1 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "cancelled" in left
    # At most finished strips, with which the same command goes on.
    assert {p.name for p in out.iterdir()} <= {".geoseg-s.tif"}


def test_the_other_algorithms(run: Run, maps: Path, tmp_path: Path) -> None:
    map_ = maps / "map.tif"
    done = run("vectorize", INPUT=map_, MIN_AREA=5000, SIMPLIFY=30, OUTPUT="v.parquet")
    assert done.returncode == 0, done.stderr
    arguments = [
        "vectorize",
        str(map_),
        "--min-area",
        "5000",
        "--simplify",
        "30",
        "-o",
        "w.parquet",
    ]
    subprocess.run([*GEOSEG, *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "v.parquet").read_bytes() == (tmp_path / "w.parquet").read_bytes()

    done = run("sample", INPUT=map_, COUNT=40, OUTPUT=tmp_path / "points.gpkg")
    assert done.returncode == 0, done.stderr
    points = geopandas.read_file(tmp_path / "points.gpkg")
    assert len(points) == 40

    done = run("evaluate", "--json", INPUT=map_, LABELS=map_, OUTPUT=tmp_path / "e.html")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert results["ACCURACY"] == 1.0
    assert "<html" in (tmp_path / "e.html").read_text(encoding="utf-8")

    done = run("info", INPUT=SCENE, OUTPUT=tmp_path / "i.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "i.html").read_text(encoding="utf-8")
    assert "landcover-aerial: does not fit" in page and "Landsat" in page

    done = run("diagnostics", OUTPUT=tmp_path / "d.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "d.html").read_text(encoding="utf-8")
    assert "geoseg, version" in page and "landcover-ms" in page and "QGIS" in page


def test_what_numbers_mean_is_a_field_and_an_option(run: Run, tmp_path: Path) -> None:
    """The check before the run knows of both."""
    with rasterio.open(SCENE) as source:
        profile = {**source.profile, "compress": "deflate"}
        pixels, names = source.read(), source.descriptions
        tags = source.scales[0], source.offsets[0]
    assert len({*source.scales}) == len({*source.offsets}) == 1
    with rasterio.open(tmp_path / "plain.tif", "w", **profile) as plain:
        plain.write(pixels)
        plain.descriptions = names
    out = tmp_path / "o.tif"
    scene = {"INPUT": tmp_path / "plain.tif", "OUTPUT": out, "VECTOR": ""}
    done = run("predict", **scene)
    assert done.returncode == 1 and "'Scale'" in done.stdout + done.stderr
    found = []
    for given in (
        {"SCALE": tags[0], "OFFSET": tags[1]},
        {"OPTIONS": f"--scale {tags[0]!r} --offset={tags[1]!r}"},
    ):
        done = run("predict", **scene, **given)
        assert done.returncode == 0, done.stdout + done.stderr
        with rasterio.open(out) as made:
            found.append(made.read())
    np.testing.assert_array_equal(*found)


def test_a_folder_of_bands_is_one_scene(run: Run, maps: Path, tmp_path: Path) -> None:
    bands = tmp_path / "bands"
    bands.mkdir()
    with rasterio.open(SCENE) as source:
        for number, name in enumerate(source.descriptions, start=1):
            profile = {**source.profile, "count": 1}
            with rasterio.open(bands / f"{name}.tif", "w", **profile) as band:
                band.write(source.read(number), 1)
                band.scales, band.offsets = [source.scales[0]], [source.offsets[0]]
    done = run("folder", INPUT=bands, OUTPUT=tmp_path / "maps")
    assert done.returncode == 0, done.stdout + done.stderr
    made = [*(tmp_path / "maps").glob("*.tif")]
    assert [path.name for path in made] == ["bands_landcover.tif"]
    with rasterio.open(made[0]) as found, rasterio.open(maps / "map.tif") as expected:
        np.testing.assert_array_equal(found.read(), expected.read())
    # Maps are no scenes, where they lie among them.
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    shutil.copyfile(SCENE, scenes / "a.tif")
    for _ in range(2):
        done = run("folder", "--json", INPUT=scenes, OUTPUT=scenes)
        assert done.returncode == 0 and json.loads(done.stdout)["results"]["DONE"] == 1


def test_a_folder_with_a_scene_that_fails(run: Run, maps: Path, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    shutil.copyfile(SCENE, scenes / "landsat7_nc_2000.tif")
    shutil.copyfile(LABELS, scenes / "a.tif")
    done = run("folder", INPUT=scenes, OUTPUT=tmp_path / "maps")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "1 of 2 scenes failed" in said and "a.tif: " in said
    made = tmp_path / "maps" / "landsat7_nc_2000_landcover.tif"
    assert made.read_bytes() == (maps / "map.tif").read_bytes()
    (scenes / "a.tif").unlink()
    done = run("folder", "--json", INPUT=scenes, OUTPUT=tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["DONE"] == 1


def without_setting(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """A profile in which no program is set."""
    profile = folder / "profile"
    shutil.copytree(environment["QGIS_CUSTOM_CONFIG_PATH"], profile)
    for ini in (profile / "profiles" / "default" / "QGIS").glob("*.ini"):
        lines = [s for s in ini.read_text().splitlines() if "GEOSEG_EXECUTABLE" not in s]
        ini.write_text("\n".join(lines))
    return {**environment, "QGIS_CUSTOM_CONFIG_PATH": str(profile)}


VERSION = '[ "$1" = --version ] && echo "geoseg, version 9.9.9" && exit; '
GARBAGE = f"{VERSION} echo 'what?'"
ODD_MODELS = VERSION + """echo '{"models": [{"name": "a"}]}'"""


#: Programs that are no geoseg (None: there is none), and words of what is said of them.
NO_GEOSEG = [
    (None, "was not found"),
    ("", "no program that can be run"),
    ("echo geoseg, version 0.0.9", "needs 0.1 or newer"),
    ("echo hello", "answers 'hello'"),
    ("echo No module named geoseg >&2; exit 1", "No module named geoseg"),
    ("kill -SEGV $$", "exit code -11"),
    (GARBAGE, "printed no JSON but 'what?'"),
    (ODD_MODELS, "prints something else than this plugin reads"),
]


def test_a_program_that_is_no_geoseg_is_said(
    way: Way, environment: dict[str, str], tmp_path: Path
) -> None:
    bare = without_setting(environment, tmp_path)
    given = {"INPUT": SCENE, "OUTPUT": "o.tif"}
    asked = []
    for number, (program, _) in enumerate(NO_GEOSEG):
        path = tmp_path / f"some program {number}"
        if program:
            path.write_text(f"#!/bin/sh\n{program}\n")
            path.chmod(0o755)
        executable = "" if program is None else str(path)
        asked.append({"algorithm": "predict", "parameters": given, "executable": executable})
    for (program, words), said in zip(NO_GEOSEG, way("refused", asked, **bare), strict=True):
        assert said is not None and "Traceback" not in said, (program, said)
        assert words in said and "geoseg qgis install" in said, (program, said)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ('{"event": "start", "protocol": 2}', "speaks protocol 2, and this plugin 1"),
        ('{"event": "start", "protocol": 1, "model": null}', "that this plugin does not know"),
        ('{"event": "progress"}', "that this plugin does not know"),
        ("", "cancelled"),
    ],
)
def test_another_geoseg_is_ended(
    environment: dict[str, str], tmp_path: Path, events: str, words: str
) -> None:
    """One that goes on for minutes, with events of tomorrow, or none at all until Ctrl-C."""
    program = tmp_path / "geoseg"
    mark = f"{secrets.randbelow(10**6) + 1000}.25"
    program.write_text(f"#!/bin/sh\n{VERSION}\necho '{events}'\nsleep {mark}\n")
    program.chmod(0o755)
    profile = without_setting(environment, tmp_path)
    process = subprocess.Popen(
        [str(PROGRAM), "run", "geoseg:vectorize", f"--INPUT={LABELS}", "--OUTPUT=o.gpkg"],
        env={**profile, "GEOSEG_EXECUTABLE": str(program)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if not events:
        until = time.monotonic() + 60
        while not sleeping(mark) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
    start = time.monotonic()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and words in said
    assert events or time.monotonic() - start < 4
    assert not sleeping(mark)


def sleeping(mark: str) -> bool:
    found = subprocess.run(["pgrep", "-f", f"^sleep {mark}"], capture_output=True, check=False)
    return found.returncode == 0


def test_a_page_replaces_no_file_but_a_page(run: Run, tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    shutil.copyfile(SCENE, scene)
    done = run("info", INPUT=scene, OUTPUT=scene)
    assert done.returncode == 1 and "was not made by geoseg" in done.stdout + done.stderr
    assert scene.read_bytes() == SCENE.read_bytes()
    for _ in range(2):
        assert run("info", INPUT=scene, OUTPUT="i.html").returncode == 0
    done = run("diagnostics", OUTPUT="none/i.html")
    assert done.returncode == 1 and "can't be written" in done.stdout + done.stderr


def test_a_virtual_raster_that_the_user_trusts(run: Run, tmp_path: Path) -> None:
    """The check before the run knows of the option, too."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shutil.copyfile(SCENE, tmp_path / "a" / "-scene.tif")
    command = ["gdalbuildvrt", "-q", str(tmp_path / "b" / "v.vrt"), str(tmp_path / "a/-scene.tif")]
    subprocess.run(command, check=True)
    given = {"INPUT": tmp_path / "b" / "v.vrt", "OUTPUT": "o.tif", "VECTOR": ""}
    assert run("predict", **given).returncode == 1
    numbers = "--scale 0.0001 --offset 0"
    done = run("predict", **given, BANDS="1,2,3,4,5,6", OPTIONS=f"--allow-vrt any {numbers}")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("info", INPUT="-scene.tif", OPTIONS="")
    assert done.returncode == 1  # it is elsewhere
    shutil.copyfile(SCENE, tmp_path / "-scene.tif")
    assert run("info", INPUT="-scene.tif").returncode == 0
    assert run("info", INPUT=f"{SCENE}|option:NUM_THREADS=2").returncode == 0


def test_one_file_is_a_script(environment: dict[str, str], maps: Path, tmp_path: Path) -> None:
    scripts = tmp_path / "qgis" / "profiles" / "default" / "processing" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(PLUGIN / "geoseg_predict.py", scripts)
    given = f"--INPUT={SCENE}", "--OUTPUT=o.tif", "--VECTOR=o.parquet"
    program = Path(sys.executable).with_name("geoseg")
    done = subprocess.run(
        [str(PROGRAM), "run", "script:geosegpredict", *given],
        env={
            **environment,
            "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path / "qgis"),
            "GEOSEG_EXECUTABLE": str(program),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.parquet").read_bytes() == (maps / "map.parquet").read_bytes()


def test_from_a_script(way: Way, maps: Path, tmp_path: Path) -> None:
    found = way("script")
    assert found["made"] == {"OUTPUT": "s.tif", "VECTOR": "s.parquet"}
    assert found["progress"][-1] == 100
    assert (tmp_path / "s.parquet").read_bytes() == (maps / "map.parquet").read_bytes()


def test_from_the_batch_dialog(way: Way, maps: Path, tmp_path: Path) -> None:
    names, loaded = way("batch")
    assert loaded == [["landsat7_nc_2000 land cover", "landsat7_nc_2000 polygons"]] * 3
    for row in range(3):
        assert f"b{row}.tif" in names
        assert (tmp_path / f"b{row}.parquet").read_bytes() == (maps / "map.parquet").read_bytes()


def test_the_dialog_lists_the_models(way: Way) -> None:
    found = way("dialog")
    assert "landcover-ms: blue, green, red, nir, swir1, swir2; 7.8 to 36 m" in found["listed"]
    assert found["values"] == ["", "landcover-ms", "/a folder", ""]


def test_points_and_polygons_are_taken_as_the_window_shows_them(way: Way) -> None:
    """With classes that were typed in and are not saved; from memory; filtered."""
    found = way("unsaved")
    assert found == {"points": 40, "polygons": 1.0}


def test_a_crs_that_only_qgis_knows_is_refused(way: Way) -> None:
    assert "QGIS was told that the layer elsewhere is in EPSG:32617" in way("other_crs")


def test_points_offer_the_classes_and_any_polygons_are_styled(
    way: Way,
) -> None:
    found = way("loaded")
    assert found["reference"] == "ValueMap" and "trees" in found["offered"]
    assert found["categories"] > 3


def test_windows_way_to_cancel(way: Way, tmp_path: Path) -> None:
    """The command ends since nobody reads its events."""
    found = way("cancel_on_windows")
    assert "cancelled" in found["error"]
    assert found["returncode"] == 130 and found["seconds"] < 4
    assert {p.name for p in tmp_path.iterdir()} <= {".geoseg-s.tif"}


def test_in_a_model_of_the_designer(
    way: Way, environment: dict[str, str], maps: Path, tmp_path: Path
) -> None:
    """Predict, then vectorize with other options, then an algorithm of QGIS."""
    output = way("model")
    given = f"--SCENE={SCENE}", f"--{output}={tmp_path / 'trees.gpkg'}"
    done = subprocess.run(
        [str(PROGRAM), "run", "land.model3", *given],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    arguments = ["vectorize", str(maps / "map.tif"), "--min-area", "5000", "--simplify", "30"]
    subprocess.run([*GEOSEG, *arguments, "-o", "v.gpkg"], cwd=tmp_path, check=True)
    expected = geopandas.read_file(tmp_path / "v.gpkg", layer="landcover")
    expected = expected[expected.class_name == "trees"].reset_index(drop=True)
    found = geopandas.read_file(tmp_path / "trees.gpkg")
    assert_geodataframe_equal(found[expected.columns], expected, check_dtype=False)


LOOK = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
raster = QgsRasterLayer(sys.argv[1])
vector = QgsVectorLayer(sys.argv[2] + "|layername=landcover", "v", "ogr")
print(json.dumps({
    "raster": [[int(c.value), c.label, c.color.name()] for c in raster.renderer().classes()],
    "vector": [[c.value(), c.label(), c.symbol().color().name()]
               for c in vector.renderer().categories()],
}), flush=True)
del raster, vector
import os
os._exit(0)
"""


def test_a_map_opens_with_names_and_colours(environment: dict[str, str], maps: Path) -> None:
    import geoseg

    done = subprocess.run(
        ["/usr/bin/python3", "-c", LOOK, str(maps / "map.tif"), str(maps / "map.gpkg")],
        env={k: v for k, v in environment.items() if not k.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    classes = [
        (c.id, c.name, c.color.lower()) for c in geoseg.load_model("landcover-ms").card.classes
    ]
    assert [tuple(c) for c in shown["raster"]] == classes
    found = {(int(value), label, colour) for value, label, colour in shown["vector"]}
    assert found == {*classes}
