"""One scene in blocks, computed in any order: the same bytes as of a run that nobody disturbed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geoseg
from geoseg.errors import OutputError, RadiometryError
from geoseg.prediction import load, report
from geoseg.prediction import run as pipeline
from geoseg.prediction.blocks import Block, predict_block, predict_or_split
from geoseg.prediction.plan import Plan
from geoseg.prediction.run import Prediction
from tests.helpers import make_raster, tiny_model
from tests.oracles import EdgeDistance
from tests.stacitems import earth_search, save
from tests.test_resume import CLASSES, RASTERS, VECTOR, Smooth, Stops, contents, scene_of

#: Of the report: all but times, places, and the machine's memory.
TOLD = ("chips", "pixels", "classes", "clouds", "warnings", "grid", "options", "scene", "model")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", ("red",), CLASSES, gsd_range=(9.0, 11.0))


def asked(folder: Path, **options: Any) -> dict[str, Any]:
    """The options of a run into a folder."""
    folder.mkdir(exist_ok=True)
    return {
        "probs": folder / "probs.tif",
        "confidence": folder / "confidence.tif",
        "vector": folder / VECTOR,
        "size": 32,
        "overlap": 20,
        "overwrite": True,
        **options,
    }


def whole(scene: Any, folder: Path, **options: Any) -> Prediction:
    return geoseg.predict(scene, folder / "out.tif", **asked(folder, **options))


def split(scene: Any, folder: Path, pixels: float = 1, **options: Any) -> list[Block]:
    found = predict_or_split(scene, folder / "out.tif", split=pixels, **asked(folder, **options))
    assert isinstance(found, list)
    return found


def block(scene: Any, folder: Path, which: Block, **options: Any) -> bool:
    return predict_block(scene, folder / "out.tif", which, **asked(folder, **options))


def finish(scene: Any, folder: Path, **options: Any) -> Prediction:
    found = predict_or_split(scene, folder / "out.tif", **asked(folder, **options))
    assert isinstance(found, Prediction)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    return found


def partition(rng: np.random.Generator, strips: int) -> list[Block]:
    """Blocks of any number of strips each, in any order."""
    cuts = [0, *sorted(set(rng.integers(1, strips, rng.integers(1, 5)).tolist())), strips]
    blocks = [*pairwise(cuts)]
    return [blocks[i] for i in rng.permutation(len(blocks))]


def assert_same(
    one: Prediction, other: Prediction, names: Sequence[str] = (*RASTERS, VECTOR, "out.qml")
) -> None:
    assert contents(one.raster.parent, names) == contents(other.raster.parent, names)
    for key in TOLD:
        assert one.report[key] == other.report[key], key


@pytest.mark.parametrize("seed", range(9))
def test_any_blocks_in_any_order_make_the_undisturbed_map(
    tmp_path: Path, model: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of scenes of any shape, in lanes or not, resampled or not."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers((120, 60), (220, 150)))
    # Of the finer pixels there are more, and fewer of the coarser ones, in a chip.
    scene = scene_of(tmp_path, height, width, (10.0, 7.0, 13.0)[seed % 3])
    lanes, overlap = (1, 3, 2, 1)[seed % 4], (20, 8, 26)[seed // 4]
    monkeypatch.setattr(Plan, "lanes", lambda self, limit: self._lanes(lanes))
    given = {"model": model, "overlap": overlap}
    oracle = (Smooth, EdgeDistance)[seed % 2]
    first = oracle(4)
    expected = whole(scene, tmp_path / "whole", runtime=first, **given)
    assert expected.report["model_grid"]["resampled"] == bool(seed % 3)
    folder = tmp_path / "blocks"
    strips = split(scene, folder, runtime=oracle(4), **given)
    assert len(strips) == strips[-1][1] > 2 and all(b - a == 1 for a, b in strips)
    # With less memory than when it was split, a run would cut other lanes.
    monkeypatch.setattr(pipeline, "lanes_of", lambda plan, *_: plan._lanes(lanes + 1))
    computed = []
    for which in partition(rng, len(strips)):
        runtime = oracle(4)
        assert block(scene, folder, which, runtime=runtime, **given)
        computed.append(len(runtime.batches))
    # Nobody computes all, and what is run twice are rows of chips that reach into a block.
    assert max(computed) < len(first.batches) or len(computed) == 1
    last = oracle(4)
    assert_same(finish(scene, folder, runtime=last, **given), expected)
    assert last.batches == []


@pytest.mark.parametrize("kind", ["turned", "landcover-ms", "crf"])
def test_networks_and_clouds(tmp_path: Path, kind: str) -> None:
    """What is chosen when a scene is split, a precision say, is chosen for all blocks."""
    scene = save(tmp_path, earth_search(tmp_path))
    given: dict[str, Any] = {"model": "landcover-ms", "overlap": 8, "cloud_buffer": 0}
    if kind == "turned":
        three = ("red", "nir", "swir1")
        given["tta"] = "flips"
        given["model"] = tiny_model(tmp_path / "model", three, CLASSES, quantity="reflectance")
    elif kind == "crf":
        pytest.importorskip("torch")
        given |= {"crf": True, "crf_options": ["iterations=1"], "precision": "fp32"}
    expected = whole(scene, tmp_path / "whole", **given)
    assert expected.report["clouds"]["pixels"]
    folder = tmp_path / "blocks"
    count = len(split(scene, folder, **given))
    for which in ((2, count), (0, 2)):
        assert block(scene, folder, which, **given)
    assert_same(finish(scene, folder, **given), expected)


def strips_of(folder: Path, which: Block) -> Path:
    (found,) = folder.glob(f".geoseg-out-strips-{which[0]:06}-{which[1]:06}")
    return found / "scratch" / "strips"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def changed(path: Path) -> None:
    """A byte of its pixels, which no length shows."""
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prediction, int]:
    """A folder with all blocks of a scene; its map by a run that nobody disturbed; its chips."""
    folder, first = tmp_path_factory.mktemp("computed"), Smooth(4)
    made = tiny_model(folder / "model", ("red",), CLASSES)
    scene = scene_of(folder)
    expected = whole(scene, folder / "whole", model=made, runtime=first)
    strips = split(scene, folder / "blocks", model=made, runtime=Smooth(4))
    for which in ((0, 3), (3, 6), (6, len(strips))):
        block(scene, folder / "blocks", which, model=made, runtime=Smooth(4))
    return folder, expected, len(first.batches)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("raster-0-4.tif", Path.unlink),
        ("raster-0-4.tif", cut_short),
        ("raster-0-4.tif", changed),
        ("probs-0-3.tif", changed),
        ("strip-0-3.json", Path.unlink),
        ("strip-0-3.json", cut_short),
        ("strip-0-5.json", lambda path: path.write_text("[]")),
        ("", shutil.rmtree),
    ],
)
def test_what_is_missing_or_damaged_is_computed(
    tmp_path: Path, computed: tuple[Path, Prediction, int], name: str, damage: Any
) -> None:
    """And nothing else but the rows of chips above it."""
    place, expected, chips = computed
    folder, last = tmp_path / "blocks", Smooth(4)
    shutil.copytree(place / "blocks", folder)
    damage(strips_of(folder, (3, 6)) / name)
    given = {"model": place / "model", "runtime": last}
    assert_same(finish(place / "scene.tif", folder, **given), expected)
    assert 0 < len(last.batches) < chips / 2


def test_blocks_count_where_the_same_is_decided_again(tmp_path: Path, model: Path) -> None:
    """Without the folder of whoever split the scene."""
    scene, folder = scene_of(tmp_path), tmp_path / "blocks"
    expected = whole(scene, tmp_path / "whole", model=model, runtime=Smooth(4))
    count = len(split(scene, folder, model=model, runtime=Smooth(4)))
    block(scene, folder, (0, count), model=model, runtime=Smooth(4))
    shutil.rmtree(folder / ".geoseg-out.tif")
    last = Smooth(4)
    assert_same(finish(scene, folder, model=model, runtime=last), expected)
    assert last.batches == []


def test_a_block_that_was_stopped_goes_on(tmp_path: Path, model: Path) -> None:
    """Or is left as it is: what it has finished counts."""
    scene, folder = scene_of(tmp_path), tmp_path / "blocks"
    expected = whole(scene, tmp_path / "whole", model=model, runtime=Smooth(4))
    count = len(split(scene, folder, model=model, runtime=Smooth(4)))
    for which in ((0, 5), (5, count)):
        with pytest.raises(KeyboardInterrupt):
            block(scene, folder, which, model=model, runtime=Stops(4, 40))
    again = Smooth(4)
    block(scene, folder, (0, 5), model=model, runtime=again)
    other, undisturbed = tmp_path / "other", [Smooth(4), Smooth(4)]
    split(scene, other, model=model, runtime=Smooth(4))
    for which, runtime in zip(((0, 5), (5, count)), undisturbed, strict=True):
        block(scene, other, which, model=model, runtime=runtime)
    assert 0 < len(again.batches) < len(undisturbed[0].batches)
    last = Smooth(4)
    assert_same(finish(scene, folder, model=model, runtime=last), expected)
    assert 0 < len(last.batches) < len(undisturbed[1].batches)


def test_whoever_makes_the_map_is_stopped_and_goes_on(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "blocks"
    expected = whole(scene, tmp_path / "whole", model=model, runtime=Smooth(4))
    count = len(split(scene, folder, model=model, runtime=Smooth(4)))
    for which in ((0, 2), (4, count)):
        block(scene, folder, which, model=model, runtime=Smooth(4))
    with pytest.raises(KeyboardInterrupt):
        finish(scene, folder, model=model, runtime=Stops(4, 12))
    assert_same(finish(scene, folder, model=model, runtime=Smooth(4)), expected)


def test_what_is_there_is_in_no_block_when_a_scene_is_split_again(
    tmp_path: Path, model: Path
) -> None:
    """As after some block failed: all others' work is kept, whatever the blocks are then."""
    scene, folder = scene_of(tmp_path), tmp_path / "blocks"
    given = {"model": model}
    expected = whole(scene, tmp_path / "whole", runtime=Smooth(4), **given)
    blocks = split(scene, folder, 150 * 130 / 4, runtime=Smooth(4), **given)
    count = blocks[-1][1]
    assert len(blocks) == 4 and [a for a, _ in blocks[1:]] == [b for _, b in blocks[:-1]]
    assert max(b - a for a, b in blocks) - min(b - a for a, b in blocks) <= 1
    block(scene, folder, blocks[0], runtime=Smooth(4), **given)
    again = split(scene, folder, 150 * 130 / 8, runtime=Smooth(4), **given)
    assert again[0][0] == blocks[0][1] and again[-1][1] == count and len(again) > 3
    block(scene, folder, again[-1], runtime=Smooth(4), **given)
    block(scene, folder, blocks[1], runtime=Smooth(4), **given)
    # What is left is no more than a block: it is done at once.
    done = predict_or_split(
        scene,
        folder / "out.tif",
        split=150 * 130 / 1.5,
        runtime=Smooth(4),
        **asked(folder, **given),
    )
    assert isinstance(done, Prediction)
    assert_same(done, expected)


def test_a_scene_is_split_where_it_is_larger(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    given = {"model": model, "runtime": Smooth(4), **asked(folder)}
    done = predict_or_split(scene, folder / "out.tif", split=150 * 130, **given)
    assert isinstance(done, Prediction)
    assert len(split(scene, tmp_path / "b", 150 * 130 - 1, model=model, runtime=Smooth(4))) == 2


def test_strips_of_another_kind_of_machine_are_no_part_of_the_map(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor of another precision or version: whoever makes the map computes what is missing."""
    scene, folder = scene_of(tmp_path), tmp_path / "blocks"
    expected = whole(scene, tmp_path / "whole", model=model, runtime=Smooth(4))
    count = len(split(scene, folder, model=model, runtime=Smooth(4)))
    assert block(scene, folder, (0, 4), model=model, runtime=Smooth(4))
    other = EdgeDistance(4)
    with monkeypatch.context() as patch:
        for room in (load, report):
            patch.setattr(room, "machine_mark", lambda: "another")
        assert not block(scene, folder, (4, count), model=model, runtime=other)
    half = EdgeDistance(4)
    half.precision = "bf16"
    assert not block(scene, folder, (4, count), model=model, runtime=half)
    assert other.batches == half.batches == []
    assert len([*folder.glob(".geoseg-*")]) == 2
    # Nor are those of a scene that has changed since; nothing is mixed.
    with monkeypatch.context() as patch:
        for room in (load, report):
            patch.setattr(room, "machine_mark", lambda: "another")
        last = Smooth(4)
        assert_same(finish(scene, folder, model=model, runtime=last), expected)
    assert len(last.batches) == expected.report["chips"]["run"]


def test_a_block_without_what_was_decided_for_it_is_refused(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    with pytest.raises(OutputError, match=r"out.tif: what was decided .* retry"):
        block(scene, folder, (0, 1), model=model, runtime=Smooth(4))
    assert not [*folder.iterdir()]


def test_two_do_not_compute_one_block(tmp_path: Path, model: Path) -> None:
    scene, folder = scene_of(tmp_path), tmp_path / "out"
    split(scene, folder, model=model, runtime=Smooth(4))

    class Second(Smooth):
        def answer(self, pixels: Any) -> Any:
            with pytest.raises(OutputError, match="another run is at work"):
                block(scene, folder, (2, 4), model=model, runtime=Smooth(4))
            return super().answer(pixels)

    assert block(scene, folder, (2, 4), model=model, runtime=Second(4))


def test_a_scene_that_no_map_can_be_made_of_is_not_split(tmp_path: Path) -> None:
    values = np.full((1, 200, 64), 200, np.float32)  # no reflectance, which real numbers are
    scene = make_raster(tmp_path / "s.tif", values, descriptions=("red",))
    made = tiny_model(tmp_path / "model", ("red",), CLASSES, quantity="reflectance")
    with pytest.raises(RadiometryError, match="all pixels that were looked at are 200"):
        split(scene, tmp_path / "out", model=made, runtime=Smooth(4))
    assert not [*(tmp_path / "out").iterdir()]
