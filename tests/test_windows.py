"""Every command where nothing is that Windows has not (simulated: see tests/windows.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.test_ends import place as place
from tests.trainhelpers import tiny_recipe

ROOT = Path(__file__).parents[1]
LIBRARIES = (
    "torch, lightning_fabric, psutil, rasterio, geopandas, pyogrio, pyarrow.parquet, openvino, "
    "scipy.ndimage, numba, matplotlib.figure, tensorboardX, pandas, shapely, PIL.Image, tempfile, "
    "onnxruntime, timm, multiprocessing.popen_spawn_posix, matplotlib.backends.backend_agg, "
    "scipy.sparse.csgraph"
)


def run(body: str, cwd: Path) -> None:
    """Code in a process that knows geoseg, as on Windows."""
    code = f"import {LIBRARIES}\nfrom tests.windows import simulate\nsimulate()\nimport geoseg\n"
    done = subprocess.run(
        [sys.executable, "-c", code + textwrap.dedent(body)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_predict(place: Path, tmp_path: Path) -> None:
    run(
        f"""
        for again in (False, True):
            geoseg.predict(
                {str(place / "scene.tif")!r}, "map.tif", model={str(place / "model")!r},
                overwrite=again, probs="probs.tif",
            )
        """,
        tmp_path,
    )
    assert (tmp_path / "map.gpkg").exists()


def test_maps(place: Path, tmp_path: Path) -> None:
    """In one process, since its libraries take most of the time; each again over its own files."""
    names = {name: str(place / f"{name}.tif") for name in ("map", "labels", "scene")}
    names["model"] = str(place / "model")
    run(
        f"""
        names = {names!r}
        for over in ({{}}, {{"overwrite": True}}):
            geoseg.vectorize(names["map"], "a.gpkg", **over)
            geoseg.vectorize(names["map"], "a.parquet", **over)
            geoseg.sample(names["map"], "points.gpkg", count=20, **over)
            files = {{suffix: "a." + suffix for suffix in ("json", "html", "csv")}}
            geoseg.evaluate(names["map"], labels=names["labels"], **files, **over)
            scene = {{"scene": names["scene"], "labels": names["labels"]}}
            geoseg.evaluate(names["model"], **scene, json="b.json", **over)
        """,
        tmp_path,
    )
    made = {"a.gpkg", "a.parquet", "points.gpkg", "a.json", "a.html", "a.csv", "b.json"}
    assert made <= {path.name for path in tmp_path.iterdir()}


def test_train(tmp_path: Path) -> None:
    from geoseg.training.recipe_file import dump_config

    (tmp_path / "r.json").write_text(dump_config(tiny_recipe(tmp_path)), encoding="utf-8")
    run("geoseg.train('r.json', 'model', device='cpu')\n", tmp_path)
    assert (tmp_path / "model" / "model.json").exists()
    kept = {path.name for path in (tmp_path / "model.training").iterdir()}
    assert "scratch" not in kept and ".lock" not in kept
