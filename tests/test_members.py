"""geoseg.runtimes.ensemble: turned chips and several models, averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import geoseg
from geoseg.cards.files import read_model
from geoseg.errors import UsageError
from geoseg.runtimes.ensemble import POSITIONS, Ensemble
from tests.helpers import linear_graph, make_raster, tiny_model
from tests.oracles import EdgeDistance, Identity, NumpyRuntime, OneHot

CLASSES = ("water", "trees", "crops")


class Slanted(NumpyRuntime):
    """An answer that depends on the place in the chip in a way that no turn leaves alone."""

    def answer(self, pixels: Any) -> Any:
        n, _, h, w = pixels.shape
        places = np.arange(h)[:, None] * 3.0 + np.arange(w) * 0.7
        scores = np.stack([np.sin(places + k) for k in range(self.classes)]) + 1.5
        return np.broadcast_to(scores / scores.sum(axis=0), (n, *scores.shape)).copy()


def chips(count: int = 3, height: int = 6, width: int = 9) -> list[tuple[int, Any]]:
    rng = np.random.default_rng(0)
    return [(i, rng.random((3, height, width), dtype=np.float32)) for i in range(count)]


@pytest.mark.parametrize("tta", POSITIONS)
def test_every_position_comes_back_to_its_place(tta: str) -> None:
    """Of a runtime that gives the pixels themselves the mean is the pixels."""
    found = list(Ensemble([Identity(3)], tta).run(chips()))
    assert [item for item, _ in found] == [0, 1, 2]
    for (_, probs), (_, pixels) in zip(found, chips(), strict=True):
        np.testing.assert_allclose(probs, pixels, atol=1e-6)


def test_positions_are_distinct_and_all_of_the_square() -> None:
    """d4 is all eight symmetries; flips are those of them that keep width and height."""
    square = np.arange(12).reshape(3, 4)

    def images(name: str) -> set[str]:
        found = set()
        for quarters, mirrored in POSITIONS[name]:
            turned = np.rot90(square, quarters)
            found.add(str((turned[:, ::-1] if mirrored else turned).tolist()))
        return found

    assert len(images("d4")) == 8
    upright = {str(square[::a, ::b].tolist()) for a in (1, -1) for b in (1, -1)}
    assert images("flips") == upright


@pytest.mark.parametrize("sides", [(1, 9), (9, 1), (1, 1), (4, 7)])
def test_turned_chips_are_arrays_that_any_library_takes(sides: tuple[int, int]) -> None:
    """numpy leaves a negative stride along an axis of one pixel, which torch refuses."""

    class Strict(Identity):
        def run(self, chips: Any, batch_size: int | None = None) -> Any:
            for item, pixels in chips:
                assert all(stride > 0 for stride in pixels.strides)
                yield item, self.probs(pixels[None])[0]

    assert len(list(Ensemble([Strict(3)], "d4").run(chips(2, *sides)))) == 2


@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_the_mean_is_even_in_all_positions(tta: str) -> None:
    """An answer to places alone becomes symmetric, and is the mean of the eight."""
    ((_, probs),) = Ensemble([Slanted(3)], tta).run(chips(1, 8, 8))
    np.testing.assert_allclose(probs, probs[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(probs, probs[:, :, ::-1], atol=1e-6)
    own = Slanted(3).answer(np.zeros((1, 3, 8, 8)))[0]
    turns = [np.rot90(own, k, axes=(1, 2)) for k in range(4)]
    every = [*turns, *(t[:, :, ::-1] for t in turns)]
    if tta == "d4":
        np.testing.assert_allclose(probs, np.mean(every, axis=0), atol=1e-6)


def test_several_models_are_averaged_and_agree_where_they_say_the_same() -> None:
    members = Ensemble([OneHot(3), EdgeDistance(3)], agreement=True)
    assert members.classes == 4
    for (_, found), (_, pixels) in zip(members.run(chips()), chips(), strict=True):
        one, two = (r(3).probs(pixels[None])[0] for r in (OneHot, EdgeDistance))
        np.testing.assert_allclose(found[:3], (one + two) / 2, atol=1e-6)
        winner = found[:3].argmax(axis=0)
        votes = (one.argmax(axis=0) == winner).astype(float) + (two.argmax(axis=0) == winner)
        np.testing.assert_allclose(found[3], votes / 2)


def scene_of(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 200, (2, 90, 110)).astype(np.uint8)
    return make_raster(
        folder / "scene.tif",
        values,
        crs="EPSG:32633",
        transform=from_origin(500000, 5000000, 10, 10),
        descriptions=("red", "nir"),
    )


def read(path: Path) -> Any:
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_predict_averages_turns_and_models_and_writes_their_agreement(tmp_path: Path) -> None:
    """A network without context says the same whatever the turn; two models have a mean."""
    scene = scene_of(tmp_path)
    models = [tiny_model(tmp_path / name, ("red", "nir"), CLASSES) for name in ("one", "two")]
    other = models[1] / "weights.safetensors"
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(1)
    noise = {k: rng.normal(0, 0.5, v.shape).astype(v.dtype) for k, v in load_file(other).items()}
    save_file({k: v + noise[k] for k, v in load_file(other).items()}, other)
    (models[1] / "model.onnx").write_bytes(linear_graph(read_model(models[1])))

    def predict(name: str, **options: Any) -> Any:
        return geoseg.predict(
            scene,
            tmp_path / f"{name}.tif",
            probs=tmp_path / f"{name}-probs.tif",
            probs_dtype="float32",
            no_vector=True,
            size=32,
            overlap=8,
            **options,
        )

    for name, model in (("one", models[0]), ("two", models[1])):
        predict(name, model=model)
    agreement = {"agreement": tmp_path / "agreement.tif"}
    result = predict("turned", model=models[0], tta="d4", **agreement)
    np.testing.assert_allclose(
        read(tmp_path / "turned-probs.tif"), read(tmp_path / "one-probs.tif"), atol=1e-5
    )
    np.testing.assert_allclose(read(tmp_path / "agreement.tif"), 1, atol=1e-5)
    assert result.report["outputs"]["agreement"] == str(tmp_path / "agreement.tif")
    both = predict("both", model=models, **{"agreement": tmp_path / "both-agreement.tif"})
    assert both.report["members"] == ["one", "two"]
    one, two, mean = (read(tmp_path / f"{n}-probs.tif") for n in ("one", "two", "both"))
    np.testing.assert_allclose(mean, (one + two) / 2, atol=1e-5)
    winner = mean.argmax(axis=0)
    votes = [np.mean([m.argmax(axis=0) == winner for m in (one, two)], axis=0)]
    clear = np.sort(mean, axis=0)[-1] - np.sort(mean, axis=0)[-2] > 1e-4
    found = read(tmp_path / "both-agreement.tif")[0]
    assert (np.abs(found - votes[0]) < 1e-5)[clear].all()
    assert set(np.unique(found.round(3))) >= {0.5, 1.0}


def test_members_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    scene = scene_of(tmp_path)
    one = tiny_model(tmp_path / "one", ("red", "nir"), CLASSES)
    other = tiny_model(tmp_path / "other", ("red", "nir"), ("a", "b"))
    with pytest.raises(UsageError, match="have other classes"):
        geoseg.predict(scene, tmp_path / "out.tif", model=[one, other])
    with pytest.raises(UsageError, match="--agreement says how far"):
        geoseg.predict(scene, tmp_path / "out.tif", model=one, agreement=tmp_path / "a.tif")
    with pytest.raises(UsageError, match="tta is 'spin'"):
        geoseg.predict(scene, tmp_path / "out.tif", model=one, tta="spin")
    assert not list(tmp_path.glob("out*"))
