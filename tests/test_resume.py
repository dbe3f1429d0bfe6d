"""A run that was stopped goes on; the result does not depend on where, nor on lanes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import geoseg
from geoseg.errors import OutputError, UsageError
from geoseg.prediction import load
from geoseg.prediction import run as pipeline
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan, make_plan
from tests import forked
from tests.helpers import make_raster, tiny_model
from tests.oracles import EdgeDistance, NumpyRuntime, OneHot

CLASSES = ("water", "trees", "crops", "built")
RASTERS = ("out.tif", "probs.tif", "confidence.tif")
#: A format without times in it.
VECTOR = "out.parquet"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red",), CLASSES, gsd_range=(9.0, 11.0))


def scene_of(
    folder: Path, height: int = 150, width: int = 130, gsd: float = 10.0, name: str = "scene.tif"
) -> Path:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (height // 7 + 1, width // 7 + 1))
    values = np.kron(coarse, np.ones((7, 7)))[None, :height, :width].astype(np.uint8)
    values[0, 40:90, 20:60] = 9  # nodata: whole chips of it, too
    return make_raster(
        folder / name,
        values,
        crs="EPSG:32633",
        transform=from_origin(500000, 5000000, gsd, gsd),
        descriptions=("red",),
        nodata=9,
    )


class Smooth(NumpyRuntime):
    """Probabilities of many different bits, from the pixels and their places in the chip."""

    def answer(self, pixels: Any) -> Any:
        h, w = pixels.shape[2:]
        places = np.arange(h)[:, None] * 0.37 + np.arange(w) * 0.11
        base = pixels[:, :1].astype(np.float32) + np.sin(places)[None, None]
        scores = np.exp(np.cos(base + np.arange(self.classes)[None, :, None, None]))
        return scores / scores.sum(axis=1, keepdims=True)


class Stops(Smooth):
    """Is interrupted after some chips."""

    def __init__(self, classes: int, after: int) -> None:
        super().__init__(classes)
        self.after = after

    def answer(self, pixels: Any) -> Any:
        if len(self.batches) > self.after:
            raise KeyboardInterrupt
        return super().answer(pixels)


def predict(scene: Path, folder: Path, model: Path, runtime: Any, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return geoseg.predict(
        scene,
        folder / "out.tif",
        model=model,
        runtime=runtime,
        **{
            "probs": folder / "probs.tif",
            "confidence": folder / "confidence.tif",
            "vector": folder / VECTOR,
            "size": 32,
            "overlap": 20,
            "overwrite": True,
            **options,
        },
    )


def contents(folder: Path, names: Sequence[str] = (*RASTERS, VECTOR)) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def pixels(folder: Path) -> dict[str, Any]:
    found = {}
    for name in RASTERS:
        with rasterio.open(folder / name) as dataset:
            found[name] = dataset.read()
    return found


@pytest.mark.parametrize("gsd", [10.0, 7.0, 13.0])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, model: Path, gsd: float
) -> None:
    """Stopped twice, at places that cut the scene differently; the last two gsds are resampled."""
    scene = scene_of(tmp_path, gsd=gsd)
    whole = predict(scene, tmp_path / "whole", model, Smooth(4))
    assert whole.report["model_grid"]["resampled"] == (gsd != 10.0)
    chips = whole.report["chips"]["run"]
    stops = range(2, chips - 1, max(1, chips // 6))
    seen = set()
    for after in stops:
        folder = tmp_path / f"stopped{after}"
        first = Stops(4, after)
        with pytest.raises(KeyboardInterrupt):
            predict(scene, folder, model, first)
        assert not (folder / "out.tif").exists()
        with suppress(KeyboardInterrupt):  # little may be left
            predict(scene, folder, model, Stops(4, chips // 3))
        last = Smooth(4)
        again = predict(scene, folder, model, last)
        assert contents(folder) == contents(tmp_path / "whole")
        for key in ("classes", "chips", "pixels"):
            assert again.report[key] == whole.report[key]
        assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
        seen.add(len(last.batches))
    # What was finished was not done again, but for the rows of chips that reach into the rest.
    assert min(seen) < 0.65 * chips


@pytest.mark.parametrize("gsd", [10.0, 7.0, 13.0])
def test_lanes_change_nothing(tmp_path: Path, model: Path, gsd: float) -> None:
    scene = scene_of(tmp_path, width=260, gsd=gsd)
    whole = predict(scene, tmp_path / "whole", model, Smooth(4))
    plan = make_plan(scene, PredictOptions(model=model, size=32, overlap=20))
    one, several = plan.lanes(1 << 40), plan._lanes(5)
    assert len(one) == 1 and len(several) == 5
    assert [lane.left for lane in several[1:]] == [lane.right for lane in several[:-1]]
    narrow = max(plan.lane_bytes(lane) for lane in several)
    assert narrow < 0.5 * plan.lane_bytes(one[0])
    # Just enough memory for them.
    lanes = plan.lanes(narrow)
    assert 1 < len(lanes) <= 5
    for count in (2, 5, 100):
        folder = tmp_path / f"lanes{count}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Plan, "lanes", lambda self, limit, n=count: self._lanes(n))
            result = predict(scene, folder, model, Smooth(4))
        assert result.report["memory"]["lanes"] > 1
        for name, values in pixels(folder).items():
            np.testing.assert_array_equal(values, pixels(tmp_path / "whole")[name])
        for mine, theirs in zip(result.report["classes"], whole.report["classes"], strict=True):
            assert mine["pixels"] == theirs["pixels"]
    assert contents(tmp_path / "lanes2") == contents(tmp_path / "whole")


def test_a_stopped_run_of_lanes_goes_on(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "lanes", lambda self, limit: self._lanes(3))
    scene = scene_of(tmp_path, width=260)
    chips = predict(scene, tmp_path / "whole", model, Smooth(4)).report["chips"]["run"]
    for after in (chips // 5, chips // 2, chips - 3):
        folder = tmp_path / f"stopped{after}"
        with pytest.raises(KeyboardInterrupt):
            predict(scene, folder, model, Stops(4, after))
        predict(scene, folder, model, Smooth(4))
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_memory_limit_is_kept_to_in_lanes_or_refused(tmp_path: Path, model: Path) -> None:
    scene = scene_of(tmp_path)
    plan = make_plan(scene, PredictOptions(model=model, size=32, overlap=8))
    with pytest.raises(UsageError, match=r"the narrowest lanes take .* raise --mem-limit"):
        plan.lanes(1000)
    with pytest.raises(UsageError, match="needed before the first pixel; raise --mem-limit"):
        predict(scene, tmp_path / "out", model, OneHot(4), mem_limit=1 << 20)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 40},
        {"overlap": 8},
        {"taper": "linear"},
        {"probs": None},
        {"probs_dtype": "float32"},
    ],
)
def test_a_changed_option_is_noticed_and_refused(
    tmp_path: Path, model: Path, change: dict[str, Any]
) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 30))
    (name,) = change
    with pytest.raises(OutputError, match=f"{name[:4]}.* was .*--restart"):
        predict(scene, folder, model, Smooth(4), **change)
    # What has no effect on the strips may change.
    predict(scene, folder, model, Smooth(4), batch_size=3, threads=1, min_area=500.0)


def test_a_changed_scene_model_or_runtime_is_noticed(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 30))
    other = Smooth(4)
    other.precision = "bf16"
    with pytest.raises(OutputError, match=r"runtime was .*'fp32'.* and is .*'bf16'"):
        predict(scene, folder, model, other)
    os.utime(scene, ns=(1, 1))
    with pytest.raises(OutputError, match=r"scene was .* and is .*begin anew"):
        predict(scene, folder, model, Smooth(4))
    result = predict(scene, folder, model, Smooth(4), restart=True)
    whole = predict(scene, tmp_path / "whole", model, Smooth(4))
    assert contents(folder) == contents(tmp_path / "whole")
    assert result.report["chips"] == whole.report["chips"]


def test_two_runs_of_the_same_outputs_do_not_mix(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"

    class Second(OneHot):
        def answer(self, pixels: Any) -> Any:
            with pytest.raises(OutputError, match="another run is at work"):
                predict(scene, folder, model, OneHot(4))
            return super().answer(pixels)

    predict(scene, folder, model, Second(4))


def test_a_damaged_journal_or_strip_is_told(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 60))
    strips = folder / ".geoseg-out.tif" / "scratch" / "strips"
    entry = strips / "strip-0-0.json"
    text = entry.read_text()
    entry.write_text(text[:-5])
    with pytest.raises(OutputError, match=r"can't be read .*--restart"):
        predict(scene, folder, model, Smooth(4))
    entry.write_text(text)
    # One strip's pixels in place of the other's, in a file of the same length.
    one, other = sorted(
        (strips / f"raster-0-{n}.tif" for n in (0, 1)), key=lambda p: p.stat().st_size
    )
    one_s, other_s = one.read_bytes(), other.read_bytes()
    other.write_bytes(one_s + bytes(len(other_s) - len(one_s)))
    with pytest.raises(OutputError, match="differs from what was written"):
        predict(scene, folder, model, Smooth(4))
    predict(scene, folder, model, Smooth(4), restart=True)
    predict(scene, tmp_path / "whole", model, Smooth(4))
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("cut", [False, True])
def test_strips_that_are_gone_are_made_anew(tmp_path: Path, model: Path, cut: bool) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    predict(scene, tmp_path / "whole", model, Smooth(4))
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 60))
    strips = folder / ".geoseg-out.tif" / "scratch" / "strips"
    if cut:
        whole = (strips / "probs-0-1.tif").read_bytes()
        (strips / "probs-0-1.tif").write_bytes(whole[:-20])
    else:
        (strips / "probs-0-1.tif").unlink()
    predict(scene, folder, model, Smooth(4))
    assert contents(folder) == contents(tmp_path / "whole")


def test_what_lies_behind_a_scene_is_watched(tmp_path: Path, model: Path) -> None:
    """A virtual raster of a virtual raster, and the file beside it that says what numbers mean."""
    source = scene_of(tmp_path, name="source.tif")
    with rasterio.open(source) as dataset:
        profile = dataset.profile
    inner, scene = tmp_path / "inner.vrt", tmp_path / "scene.vrt"
    for path, behind in ((inner, source), (scene, inner)):
        size = f'xSize="{profile["width"]}" ySize="{profile["height"]}"'
        rect = f'xOff="0" yOff="0" {size}'
        path.write_text(
            f'<VRTDataset rasterXSize="{profile["width"]}" rasterYSize="{profile["height"]}">'
            f"<SRS>EPSG:32633</SRS><GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
            f'<VRTRasterBand dataType="Byte" band="1"><Description>red</Description>'
            f"<NoDataValue>9</NoDataValue><SimpleSource>"
            f'<SourceFilename relativeToVRT="1">{behind.name}</SourceFilename>'
            f"<SourceBand>1</SourceBand><SrcRect {rect}/><DstRect {rect}/>"
            f"</SimpleSource></VRTRasterBand></VRTDataset>"
        )
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match="is an input of this run"):
        geoseg.predict(scene, source, model=model, runtime=Smooth(4), overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 30))
    os.utime(source, ns=(1, 1))
    with pytest.raises(OutputError, match=r"scene was .*source.tif.* and is"):
        predict(scene, folder, model, Smooth(4))
    predict(scene, folder, model, Smooth(4), restart=True)
    # With other outputs, so that nothing has to be begun anew first.
    with pytest.raises(KeyboardInterrupt):
        predict(source, folder, model, Stops(4, 30))
    with rasterio.open(source) as dataset:
        about = source.stat()
    Path(f"{source}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Scale>0.5</Scale></PAMRasterBand></PAMDataset>'
    )
    assert source.stat().st_mtime_ns == about.st_mtime_ns
    with pytest.raises(OutputError, match=r"scene was .* and is .*aux.xml"):
        predict(source, folder, model, Smooth(4))


PUBLISHES = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import geoseg, geoseg.core.staging
from tests.test_resume import Smooth
folder, finals, replace = Path(sys.argv[4]), [], os.replace
def dies(source, target):
    if Path(target).parent.name in ("killed", "polygons"):
        if len(finals) == int(sys.argv[5]):
            os._exit(9)
        finals.append(target)
    replace(source, target)
geoseg.core.staging.os.replace = dies
geoseg.predict(sys.argv[2], folder / "out.tif", model=sys.argv[3], runtime=Smooth(4),
    probs=folder / "probs.tif", confidence=folder / "confidence.tif",
    vector=folder.parent / "polygons" / "out.parquet", size=32, overlap=20)
"""


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_run_that_is_killed_while_it_names_its_outputs_goes_on(
    tmp_path: Path, model: Path, after: int
) -> None:
    """The same command, without --overwrite; and of its hidden folders none is left anywhere."""
    scene, folder, other = scene_of(tmp_path), tmp_path / "killed", tmp_path / "polygons"
    folder.mkdir()
    other.mkdir()
    command = [sys.executable, "-c", PUBLISHES, Path(__file__).parents[1], scene, model, folder]
    assert forked.run([*command, after]).returncode == 9
    named = [p for f in (folder, other) for p in f.iterdir() if not p.name.startswith(".")]
    assert len(named) == after
    assert forked.run([*command, -1]).returncode == 0
    predict(scene, tmp_path / "whole", model, Smooth(4))
    assert contents(folder, RASTERS) == contents(tmp_path / "whole", RASTERS)
    assert (other / VECTOR).read_bytes() == (tmp_path / "whole" / VECTOR).read_bytes()
    assert [p for f in (folder, other) for p in f.iterdir() if p.name.startswith(".")] == []
    # Whose outputs are whole, and not of a killed run, is asked.
    assert forked.run([*command, -1]).returncode == 1


#: Gets Ctrl-C when one of its outputs has its name. Of its threads any may take the signal.
INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import geoseg.core.staging
from tests.test_resume import Smooth, predict
signal.signal(signal.SIGINT, signal.default_int_handler)
replace, ready = os.replace, threading.Event()
def interrupted(source, target):
    replace(source, target)
    if Path(target).name == "out.tif":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
geoseg.core.staging.os.replace = interrupted
threading.Thread(target=ready.wait).start()
try:
    predict(Path(sys.argv[2]), Path(sys.argv[4]), Path(sys.argv[3]), Smooth(4))
except KeyboardInterrupt:
    print("interrupted")
finally:
    ready.set()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_waits_until_all_outputs_have_their_names(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    done = forked.run(
        [sys.executable, "-c", INTERRUPTED, Path(__file__).parents[1], scene, model, folder]
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    predict(scene, tmp_path / "whole", model, Smooth(4))
    assert contents(folder) == contents(tmp_path / "whole")
    assert (folder / "out.json").exists()


def test_a_run_goes_on_in_the_lanes_and_with_the_runtime_that_it_was_begun_with(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free, and which precision is fastest, may be another the next time."""
    scene, folder = scene_of(tmp_path, width=260), tmp_path / "out"
    asked = []

    def loaded(plan: Any, log: Any, earlier: Any) -> Any:
        asked.append(load._chosen_before(plan, earlier))
        return runtimes.pop(0)

    first, second = Stops(4, 30), Smooth(4)
    first.name = second.name = "openvino"
    first.precision = second.precision = "bf16"
    runtimes: list[Any] = [first, second]
    monkeypatch.setattr(pipeline, "load_members", loaded)
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "lanes", lambda self, limit: self._lanes(3))
        with pytest.raises(KeyboardInterrupt):
            predict(scene, folder, model, "auto")
    report = predict(scene, folder, model, "auto").report
    assert asked == [None, ("openvino", "bf16")]
    assert report["memory"]["lanes"] == 3


def test_a_run_without_room_is_refused_and_one_that_goes_on_needs_less(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class raster and confidence a byte a pixel each until the end, and the outputs at least."""
    scene, folder, pixels = scene_of(tmp_path), tmp_path / "out", 150 * 130
    outputs = pixels * (1 + 1 + 4) // 8
    free = [2 * pixels + pixels // 3 + outputs - 1]
    monkeypatch.setattr("geoseg.core.staging.Staging.free_bytes", lambda self: free[0])
    with pytest.raises(OutputError, match=r"needs about .* MB and .* MB are free"):
        predict(scene, folder, model, Smooth(4))
    free[0] += 1
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 60))
    free[0] -= 1
    predict(scene, folder, model, Smooth(4))


def test_a_full_disk_at_the_very_end_keeps_the_strips(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_qml", full)
        with pytest.raises(OutputError, match=r"out.qml: the disk is full"):
            predict(scene, folder, model, Smooth(4))
    last = Smooth(4)
    predict(scene, folder, model, last)
    assert last.batches == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_strip_that_was_not_written_is_missed_by_none_after_it(
    tmp_path: Path, model: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one, begun already, took its place, and the rows were nodata in the end."""
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    rename, count = os.replace, [0]

    def fails_once(source: Any, target: Any) -> None:
        if Path(target).name.startswith("strip-"):
            count[0] += 1
            if count[0] == failing + 1:
                time.sleep(0.2)
                raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails_once)
        with pytest.raises(OutputError, match="Input/output error"):
            predict(scene, folder, model, Smooth(4))
    predict(scene, folder, model, Smooth(4))
    predict(scene, tmp_path / "whole", model, Smooth(4))
    assert contents(folder) == contents(tmp_path / "whole")


def test_strips_are_kept_when_the_callers_own_function_fails(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    seen = []

    def broken(event: dict[str, Any]) -> None:
        seen.append(event)
        if event.get("done", 0) > 60 * 130:
            raise ValueError("a bug in somebody's progress bar")

    with pytest.raises(ValueError, match="somebody's progress bar"):
        predict(scene, folder, model, Smooth(4), progress=broken)
    notes: list[dict[str, Any]] = []
    last = Smooth(4)
    predict(scene, folder, model, last, progress=notes.append)
    assert any("finished strip" in n.get("message", "") for n in notes)
    whole = Smooth(4)
    predict(scene, tmp_path / "whole", model, whole)
    assert contents(folder) == contents(tmp_path / "whole")
    assert len(last.batches) < len(whole.batches)


def test_events_come_in_the_thread_that_called(tmp_path: Path, model: Path) -> None:
    """Polygons, overviews and what is odd about the scene are worked on by others."""
    threads, events = set(), []

    def hears(event: dict[str, Any]) -> None:
        threads.add(threading.get_ident())
        events.append((event["event"], event.get("stage")))

    predict(scene_of(tmp_path), tmp_path / "out", model, Smooth(4), progress=hears)
    assert threads == {threading.get_ident()}
    assert ("progress", "predict") in events and ("progress", "polygons") in events
    assert events[-1][0] == "result"


def test_nan_is_nan(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    for runtime in (Stops(4, 40), Smooth(4)):
        with suppress(KeyboardInterrupt):
            predict(scene, folder, model, runtime, src_nodata=float("nan"))
    assert (folder / "out.tif").exists()


def test_creation_options_may_be_others_than_those_of_the_run_that_was_stopped(
    tmp_path: Path, model: Path
) -> None:
    """They are of the files that are made of the strips at the end."""
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 40), creation_options=["COMPRESS=LZW"])
    predict(scene, folder, model, Smooth(4), creation_options=["COMPRESS=ZSTD"])
    with rasterio.open(folder / "out.tif") as dataset:
        assert dataset.profile["compress"] == "zstd"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("BLOCKSIZE=100", "a multiple of 16 px"),
        ("BLOCKSIZE=0", "BLOCKSIZE is a number"),
        ("BLOCKSIZE=1000000000", "BLOCKSIZE is a number"),
        ("PREDICTOR=FLOATING_POINT", "PREDICTOR=3 is only supported with"),
    ],
)
def test_creation_options_that_gdal_refuses_are_refused_before_the_work(
    tmp_path: Path, model: Path, option: str, message: str
) -> None:
    runtime = Smooth(4)
    with pytest.raises(UsageError, match=message):
        predict(scene_of(tmp_path), tmp_path / "out", model, runtime, creation_options=[option])
    assert runtime.batches == []


def test_what_qgis_writes_beside_a_scene_that_is_looked_at_is_no_change(
    tmp_path: Path, model: Path
) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    beside = Path(f"{scene}.aux.xml")
    statistics = (
        '<PAMRasterBand band="1"><Histograms><HistItem><HistMin>0</HistMin></HistItem></Histograms>'
        '<Metadata><MDI key="STATISTICS_MAXIMUM">{}</MDI><MDI key="STATISTICS_MEAN">1</MDI>'
        "</Metadata></PAMRasterBand>"
    )
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 30))
    beside.write_text(f"<PAMDataset>{statistics.format(3)}</PAMDataset>")
    with rasterio.open(scene) as dataset, rasterio.Env(TIFF_USE_OVR=True):
        profile = dataset.profile
    with rasterio.open(f"{scene}.ovr", "w", **{**profile, "width": 65, "height": 75}):
        pass
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 30))
    # What it says beside statistics counts; what it says of these does not.
    tagged = '<Metadata><MDI key="AREA_OR_POINT">Area</MDI></Metadata>'
    beside.write_text(f"<PAMDataset>{tagged}{statistics.format(3)}</PAMDataset>")
    with pytest.raises(OutputError, match=r"scene was .* and is .*aux.xml"):
        predict(scene, folder, model, Smooth(4))
    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Stops(4, 30), restart=True)
    beside.write_text(f"<PAMDataset>{tagged}{statistics.format(4)}</PAMDataset>")
    predict(scene, folder, model, Smooth(4))


def test_edges_of_chips_do_not_show_where_a_run_went_on(tmp_path: Path, model: Path) -> None:
    """The oracle whose answer depends on the place in the chip alone."""
    scene = scene_of(tmp_path)
    predict(scene, tmp_path / "whole", model, EdgeDistance(4))
    folder = tmp_path / "out"

    class Ends(EdgeDistance):
        def answer(self, pixels: Any) -> Any:
            if len(self.batches) > 50:
                raise KeyboardInterrupt
            return super().answer(pixels)

    with pytest.raises(KeyboardInterrupt):
        predict(scene, folder, model, Ends(4))
    predict(scene, folder, model, EdgeDistance(4))
    assert contents(folder) == contents(tmp_path / "whole")


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[5])
import geoseg
from tests.test_resume import Smooth
class Slow(Smooth):
    def answer(self, pixels):
        time.sleep(0.003)
        return super().answer(pixels)
geoseg.predict(
    sys.argv[1], sys.argv[2], model=sys.argv[3], runtime=Slow(4), probs=sys.argv[4],
    confidence=sys.argv[4].replace("probs", "confidence"), vector=sys.argv[6],
    size=32, overlap=20,
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_kill_9_at_any_moment(tmp_path: Path, model: Path, seed: int) -> None:
    """Ten moments a seed, from before the first strip to the writing of the outputs."""
    scene = scene_of(tmp_path)
    predict(scene, tmp_path / "whole", model, Smooth(4))
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", KILLED, scene, folder / "out.tif", model]
    command += [folder / "probs.tif", Path(__file__).parents[1], folder / VECTOR]
    rng = np.random.default_rng(seed)
    kills = 0
    for _ in range(10):
        process = forked.Forked(command)
        strips = folder / ".geoseg-out.tif" / "scratch" / "strips"
        # The moment counts from a strip on, wherever a machine is so far: -1 is before the first.
        due = len([*strips.glob("strip-*.json")]) + rng.integers(-1, 6)
        while process.poll() is None and (
            not strips.exists() or len([*strips.glob("strip-*.json")]) < due
        ):
            time.sleep(0.001)
        try:
            process.wait(rng.uniform(0.0, 0.05))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        error = process.communicate(60)[1]
        assert process.returncode in (0, -signal.SIGKILL), error
        if process.returncode == 0:
            assert contents(folder) == contents(tmp_path / "whole")
            for path in folder.iterdir():
                path.unlink()
        else:
            assert not (folder / "out.json").exists() or (folder / "out.tif").exists()
    assert kills > 2
    predict(scene, folder, model, Smooth(4), overwrite=False)
    assert contents(folder) == contents(tmp_path / "whole")
