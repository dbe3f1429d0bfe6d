"""What is doubted is said before the first chip, once, and stands in the report."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import GeosegError
from geoseg.prediction.dry_run import dry_run
from geoseg.prediction.run import predict
from geoseg.zoo import find_model
from tests.helpers import make_raster, tiny_model
from tests.products import SIX, ground

SIDE = 192
GROUND = ground(SIDE)
#: Columns that are kept of a scene of which hardly anything was measured: some of each part.
KEPT = slice(60, 75)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("model") / "six", SIX, ("a", "b"), size=64, overlap=16,
        quantity="reflectance", plausible=find_model("landcover-ms").card.plausible,
    )  # fmt: skip


def hardly_measured(values: NDArray[Any]) -> NDArray[Any]:
    out = np.full_like(values, np.nan)
    out[:, :, KEPT] = values[:, :, KEPT]
    return out


SPOILED = {
    "sound": lambda v: v,
    "offset": lambda v: v + 0.1,
    "backwards": lambda v: v[::-1],
    "sorted": lambda v: v[[4, 5, 0, 1, 2, 3]],
    "dark": lambda v: v * 0.02,
    "hardly measured": hardly_measured,
}


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(sorted(SPOILED)),
    part=st.sampled_from([None, (0, 0, 64, 64), (70, 40, 150, 150)]),
    gain=st.floats(0.9, 1.1),
)
def test_doubts_come_before_the_work_and_stand_in_the_report(
    model: Path, kind: str, part: tuple[int, int, int, int] | None, gain: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = SPOILED[kind](GROUND * gain).astype(np.float32)
        scene = make_raster(folder / "scene.tif", values, descriptions=SIX)
        options: dict[str, Any] = {"model": model, "no_vector": True}
        if part is not None:
            left, top, right, bottom = part
            box = (left, SIDE - bottom, right, SIDE - top)
            west, south = 500_000, 5_000_000 - 10 * SIDE
            options["bbox"] = tuple(10 * v + (west, south)[i % 2] for i, v in enumerate(box))
        events: list[Any] = []
        planned: list[Any] = []
        try:
            result = predict(scene, folder / "map.tif", progress=events.append, **options)
        except GeosegError as error:
            assert kind != "sound" and not (folder / "map.tif").exists()
            with pytest.raises(type(error)) as again:
                dry_run(scene, folder / "map.tif", progress=planned.append, **options)
            assert str(again.value) == str(error)
            return
        dry_run(scene, folder / "other.tif", progress=planned.append, **options)
        kinds = [event["event"] for event in events]
        said = [event["message"] for event in events if event["event"] == "warning"]
        last = max((i for i, k in enumerate(kinds) if k == "warning"), default=0)
        work = next(i for i, k in enumerate(kinds) if k == "progress")
        assert last < work, "what is said late helps nobody"
        assert result.report["warnings"] == said and len(set(said)) == len(said)
        assert [event["message"] for event in planned if event["event"] == "warning"] == said
        assert bool(said) == (kind != "sound"), said
