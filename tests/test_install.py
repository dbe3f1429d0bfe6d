"""What a plain ``pip install geoseg`` does, and how what it does not do is reported."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio

import geoseg
from geoseg.cards.card import GRAPH_NAME
from geoseg.core.importing import EXTRAS, package_version, reported
from geoseg.errors import MissingExtraError
from tests.helpers import make_raster, tiny_model
from tests.hidden import run_hidden

ROOT = Path(__file__).parents[1]
SCENE = ROOT / "examples" / "landsat7_nc_2000.tif"
LABELS = ROOT / "examples" / "landsat7_nc_2000_labels.tif"

#: All that no plain install has, and what came with it before.
HIDDEN = {*(p for names in EXTRAS.values() for p in names), "lightning", "torchmetrics", "kornia"}

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def assert_done(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["code"] == 0, result
        assert "Traceback" not in result["errors"]


# What a plain install does


def test_a_plain_install_maps_samples_and_judges(tmp_path: Path) -> None:
    # A corner of the scene and its labels, with some of every label.
    with rasterio.open(SCENE) as dataset:
        left, top = dataset.bounds.left, dataset.bounds.top
    box = f"{left},{top - 5700},{left + 5700},{top}"
    first = [
        ["predict", SCENE, "-o", "map.tif", "--bbox", box, "--preview", "map.png"],
        ["vectorize", "map.tif", "-o", "map.parquet", "--simplify", "30", "--min-area", "5000"],
        ["sample", "map.tif", "-o", "points.gpkg", "-n", "60"],
        ["info", SCENE, "--json"],
        ["models", "list"],
        ["models", "list", "--networks"],
        ["models", "show", "landcover-ms"],
        ["check-seams", "map.tif"],
        ["predict", SCENE, "-o", "other.tif", "--dry-run"],
    ]
    done = run_hidden(first, HIDDEN, tmp_path)
    assert_done(done)
    assert len(geopandas.read_file(tmp_path / "map.gpkg")) > 10
    assert len(geopandas.read_parquet(tmp_path / "map.parquet")) > 10
    assert (tmp_path / "map.png").stat().st_size > 10_000
    report = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))
    assert report["runtime"]["name"] == "openvino"
    assert {m["name"]: m["fits"] for m in json.loads(done[3]["output"])["models"]}["landcover-ms"]
    assert "unet" in done[5]["output"]

    points = geopandas.read_file(tmp_path / "points.gpkg")
    points["reference"] = points["class_id"]
    points.to_file(tmp_path / "points.gpkg")
    second = [
        ["evaluate", "map.tif", "--points", "points.gpkg", "--html", "points.html"],
        ["evaluate", "map.tif", "--labels", "map.tif", "--html", "labels.html"],
        ["evaluate", "landcover-ms", "--scene", "map_scene.tif", "--labels", "map.tif"],
    ]
    with rasterio.open(SCENE) as dataset:
        make_raster(
            tmp_path / "map_scene.tif",
            dataset.read(window=((0, 200), (0, 200))),
            crs=dataset.crs,
            transform=dataset.transform,
            descriptions=dataset.descriptions,
            nodata=dataset.nodata,
            scales=dataset.scales,
            offsets=dataset.offsets,
        )
    done = run_hidden(second, HIDDEN, tmp_path)
    assert_done(done)
    assert (tmp_path / "labels.html").stat().st_size > 10_000
    assert "1.000" in done[1]["output"] or "100.0" in done[1]["output"]


#: Modules that stand on an extra, and may therefore import it where they are imported.
ON_EXTRAS = re.compile(
    r"geoseg\.(training\.(?!pairing$|split$)\w+"
    r"|evaluation\.metrics"
    r"|prediction\.on_device"
    r"|runtimes\.(on_(torch|onnxruntime)|transfers)"
    r"|networks\.(?!table$|folder$|export$|bench$)\w+(\.\w+)?)$"
)


def test_only_what_stands_on_an_extra_imports_it(tmp_path: Path) -> None:
    import pkgutil

    names = [m.name for m in pkgutil.walk_packages(geoseg.__path__, "geoseg.")]
    light = [n for n in names if not ON_EXTRAS.match(n) and not n.endswith("__main__")]
    assert len(light) > 60
    code = (
        "import sys, importlib\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.hidden import hide\n"
        f"hide({sorted(HIDDEN)!r})\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        "from geoseg import *\n"
        "import pydoc, geoseg\n"
        "assert 'train' in pydoc.render_doc(geoseg)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# What it reports


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, a model with model.onnx, one without, and a recipe."""
    folder = tmp_path_factory.mktemp("place")
    values = np.random.default_rng(0).integers(0, 3000, (2, 100, 90)).astype(np.uint16)
    make_raster(folder / "scene.tif", values, descriptions=("red", "nir"))
    make_raster(folder / "labels.tif", (values[:1] > 1500).astype(np.uint8))
    tiny_model(folder / "whole", ("red", "nir"), ("a", "b"))
    tiny_model(folder / "bare", ("red", "nir"), ("a", "b"), graph=False)
    shutil.copy(ROOT / "configs" / "landsat-nc.toml", folder / "recipe.toml")
    return folder


#: Command -> the extra that it asks for.
COMMANDS = {
    "train --images scene.tif --labels labels.tif -o out": "train",
    "train recipe.toml -o out": "train",
    "models export whole -o out.onnx": "torch",
    "models graph whole": "torch",
    "models import whole -o out": "torch",
    "models bench unet": "torch",
    "models bench whole": "torch",
    "models probe whole": "torch",
    "models probe whole scene.tif": "torch",
    "models quantize whole scene.tif -o out": "onnxruntime",
    "predict scene.tif -m whole -o out.tif --runtime torch": "torch",
    "predict scene.tif -m whole -o out.tif --runtime onnxruntime": "onnxruntime",
    "predict scene.tif -m whole -o out.tif --device cuda": "torch",
    "predict scene.tif -m whole -o out.tif --precision int8": "onnxruntime",
    "predict scene.tif -m whole -o out.tif --precision int8 --runtime openvino": "onnxruntime",
    "predict scene.tif -m whole -o out.tif --crf": "torch",
    "predict scene.tif -m whole -o out.tif --crf --dry-run": "torch",
    "predict scene.tif -m bare -o out.tif": "torch",
    "predict scene.tif -m bare -o out.tif --runtime openvino": "torch",
    "predict scene.tif -m bare -o out.tif --size 8 --overlap 0": "torch",
    "predict scene.tif -m bare -o out.tif --dry-run": "torch",
    "evaluate bare --scene scene.tif --labels labels.tif": "torch",
}


def test_what_needs_an_extra_says_so_in_one_line_and_does_nothing(place: Path) -> None:
    before = sorted(place.rglob("*"))
    results = run_hidden([command.split() for command in COMMANDS], HIDDEN, place)
    for (command, extra), result in zip(COMMANDS.items(), results, strict=True):
        lines = result["errors"].splitlines()
        assert len(lines) == 1, (command, result)
        assert result["code"] == 1 and result["output"] == "", (command, result)
        assert lines[0].startswith("geoseg: error: "), (command, result)
        assert "not installed" in lines[0] and "unexpected" not in lines[0], (command, result)
        assert lines[0].endswith(f"pip install 'geoseg[{extra}]'"), (command, result)
    assert sorted(place.rglob("*")) == before


def test_public_functions_say_which_extra_they_need(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.core.importing._installed", lambda package: False)
    calls: dict[str, Any] = {
        "create_model": lambda: geoseg.create_model("unet"),
        "model_info": lambda: geoseg.model_info("unet"),
        "import_model": lambda: geoseg.import_model(place / "whole", tmp_path / "out"),
        "probe_border": lambda: geoseg.probe_border(place / "whole"),
        "train": lambda: geoseg.train(None, tmp_path / "out"),
    }
    for name, call in calls.items():
        extra = "train" if name == "train" else "torch"
        with pytest.raises(MissingExtraError, match=rf"pip install 'geoseg\[{extra}\]'$"):
            call()


@pytest.mark.extra("torch")
def test_torchgeo_weights_ask_for_torchgeo(monkeypatch: pytest.MonkeyPatch) -> None:
    from geoseg.networks.weights import encoder_state

    monkeypatch.setattr(
        "geoseg.core.importing._installed", lambda p: p not in ("torchgeo", "requests")
    )
    expected = r"torchgeo:SENTINEL2_ALL_MOCO' needs torchgeo and requests, which are not installed"
    with pytest.raises(MissingExtraError, match=expected + r".*'geoseg\[torchgeo\]'$"):
        encoder_state("resnet18", "torchgeo:SENTINEL2_ALL_MOCO")


def test_an_unforeseen_import_is_reported_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package that is there and can't be loaded, or one that nobody required beforehand."""
    from geoseg.cli import main

    def fail(*arguments: Any, **options: Any) -> None:
        raise ImportError("libcudart.so.13: cannot open shared object file", name="torch._C")

    monkeypatch.setattr("geoseg.zoo.list_embedded", fail)
    with pytest.raises(SystemExit) as end:
        main(["models", "list"])
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        "geoseg: error: torch can't be imported (libcudart.so.13: cannot open shared object file); "
        "install it: pip install 'geoseg[torch]'\n"
    )
    assert reported(ImportError("no such thing", name="nobody")) is None


def test_a_folder_of_that_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, "torch", ("geoseg_test_package",))
    (tmp_path / "geoseg_test_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="needs geoseg_test_package, which is not"):
        geoseg.create_model("unet")


def test_a_model_that_openvino_refuses_says_why_where_torch_is_missing(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "whole", tmp_path / "model")
    (tmp_path / "model" / GRAPH_NAME).write_bytes(b"no graph")
    command = ["predict", place / "scene.tif", "-m", "model", "-o", "out.tif"]
    (result,) = run_hidden([command], HIDDEN, tmp_path)
    assert result["code"] == 1
    assert "is not ONNX" in result["errors"]


def test_a_gpu_without_torch_is_left_alone_with_a_note(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.runtimes.choose._nvidia", lambda: True)
    monkeypatch.setattr("geoseg.core.importing._installed", lambda package: False)
    events: list[dict[str, Any]] = []
    made = geoseg.predict(
        place / "scene.tif", tmp_path / "out.tif", model=place / "whole", progress=events.append
    )
    assert made.report["runtime"]["name"] == "openvino"
    (note,) = [e["message"] for e in events if e["event"] == "note"]
    assert "GPU" in note and note.endswith("pip install 'geoseg[torch]'")


# By whatever distribution


def test_a_package_counts_by_whatever_distribution_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime does, which onnxruntime-gpu brings, too."""
    (tmp_path / "geoseg_test_package.py").write_text("__version__ = '1.2.3'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        package_version("geoseg_test_package")  # nobody's runtime is imported by its name
    monkeypatch.setitem(EXTRAS, "torch", ("geoseg_test_package",))
    assert package_version("geoseg_test_package") == "1.2.3"


@pytest.mark.extra("onnxruntime")
@pytest.mark.parametrize(
    "options", [["--precision", "int8"], ["--runtime", "onnxruntime"], ["--size", "16"]]
)
def test_onnxruntime_of_another_distribution_computes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    there = importlib.metadata.version

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    from geoseg.cli import main

    command = ["predict", str(place / "scene.tif"), "-m", str(place / "whole"), "-q"]
    with pytest.raises(SystemExit) as end:
        main([*command, "-o", str(tmp_path / "out.tif"), "--overlap", "0", *options])
    assert end.value.code == 0
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    if "onnxruntime" in options:
        assert (
            report["versions"]["onnxruntime"] == importlib.import_module("onnxruntime").__version__
        )


# pyproject.toml


def packages(requirements: list[str]) -> set[str]:
    """What requirements bring, as it is imported; extras of geoseg's own are looked up."""
    found: set[str] = set()
    for requirement in requirements:
        match = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement)
        assert match is not None
        if match[1] != "geoseg":
            found.add(match[1].replace("-", "_"))
            continue
        for extra in match[2].split(","):
            found |= packages(PYPROJECT["optional-dependencies"][extra])
    return found


def test_the_table_of_extras_is_that_of_pyproject() -> None:
    extras = PYPROJECT["optional-dependencies"]
    assert {extra: packages(extras[extra]) for extra in EXTRAS} == {
        extra: set(names) for extra, names in EXTRAS.items()
    }
    # What is installed of clouds decides what --clouds auto does, so it is asked for by itself.
    rest = {p for extra, names in EXTRAS.items() if extra != "clouds" for p in names}
    assert packages(extras["all"]) == rest
    assert packages(extras["all"]) <= packages(extras["test"])
    assert not packages(PYPROJECT["dependencies"]) & packages(extras["all"])


def test_only_lower_bounds_are_asked_for() -> None:
    every = [
        *PYPROJECT["dependencies"],
        *(r for extra in PYPROJECT["optional-dependencies"].values() for r in extra),
    ]
    for requirement in every:
        assert re.fullmatch(r"[\w-]+(\[[\w,]+\])?>=[\d.]+|geoseg\[[\w,-]+\]", requirement), (
            requirement
        )
