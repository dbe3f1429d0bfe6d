"""The same ground, written in any way that products have, gives one reflectance or is refused."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import BandError, RadiometryError
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.preflight import preflight
from geoseg.zoo import find_model
from tests import products
from tests.helpers import make_raster, tiny_model
from tests.products import CODES, SIX, ground, numbers

GROUND = ground(64)
BASELINES = {"N0209": 0, "N0301": 0, "N0400": 1000, "N0510": 1000}
#: Writes the ground into a folder and gives what is opened; None for what can't be written so.
Writer = Callable[[Path], Path | list[Path]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(
        tmp_path_factory.mktemp("model") / "six", SIX, ("a", "b"),
        quantity="reflectance", plausible=find_model("landcover-ms").card.plausible,
    )  # fmt: skip


def name_of(date: str, baseline: str | None, level: str = "2A") -> str:
    middle = f"{baseline}_" if baseline else ""
    return f"S2A_MSIL{level}_{date}T101559_{middle}R065_T33UUP_{date}T162012"


dates = st.sampled_from(["20160601", "20211231", "20220601", "20250601"])


@st.composite
def safes(draw: st.DrawFn) -> Writer:
    """A .SAFE whose name or metadata are true, or are not there."""
    added = draw(st.sampled_from([0, 1000]))
    level = draw(st.sampled_from(["1C", "2A"]))
    true = [b for b, offset in BASELINES.items() if offset == added]
    baseline = draw(st.sampled_from([*true, "N9999", None]))
    stem = draw(st.sampled_from([name_of(draw(dates), baseline, level), "july", "S2_july"]))
    suffix = draw(st.sampled_from([".jp2", ".tif"]))
    metadata = draw(st.sampled_from(["", "", None, "<broken"]))
    packed = draw(st.booleans())

    def write(folder: Path) -> Path:
        made = products.safe(
            folder, GROUND, f"{stem}.SAFE", level=level, added=added, suffix=suffix,
            metadata=metadata,
        )  # fmt: skip
        return products.zipped(made) if packed else made

    return write


@st.composite
def loose_bands(draw: st.DrawFn) -> Writer:
    """One-band files of Sentinel-2 without evidence, or in a folder whose name is true."""
    added = draw(st.sampled_from([0, 1000]))
    true = [b for b, offset in BASELINES.items() if offset == added]
    date = draw(dates)
    name = draw(
        st.sampled_from(
            [
                f"S2B_33UUP_{date}_0_L2A",
                f"{date}T101559_{date}T101559_T33UUP",
                "july",
                *(f"{name_of(date, b)}_cut" for b in [*true, "N9999", None]),
            ]
        )
    )
    return lambda folder: products.loose(folder, GROUND, name, added=added)


@st.composite
def stacks(draw: st.DrawFn) -> Writer:
    """One file of six bands, in any type and scale, with tags that are true or without."""
    scale, offset = draw(
        st.sampled_from(
            [(1.0, 0.0), (1.0, -0.1), (1e-4, 0.0), (1e-4, -0.1), (2.75e-5, -0.2), (1e-2, 0.0)]
        )
    )
    # In whole numbers only what they can hold.
    whole = ["uint16", "int16", "int32"] if scale <= 1e-4 else []
    dtype = draw(st.sampled_from([*whole, "float32", "float64"]))
    tagged = draw(st.booleans()) and not dtype.startswith("float")
    names = draw(
        st.sampled_from([SIX, [c for c, _ in CODES], [f"SR_B{n}" for n in products.LANDSAT["8"]]])
    )
    stem = draw(
        st.sampled_from(["july", "S2_july", f"{draw(dates)}T101559_T33UUP", "LC08_044034_20200318"])
    )

    def write(folder: Path) -> Path:
        values = (GROUND - offset) / scale
        if not dtype.startswith("float"):
            values = np.clip(np.round(values), 0, np.iinfo(dtype).max)
        options: dict[str, Any] = {}
        if tagged:
            options = {"scales": [scale] * 6, "offsets": [offset] * 6}
        return make_raster(
            folder / f"{stem}.tif", values.astype(dtype), descriptions=list(names), **options
        )

    return write


@st.composite
def others(draw: st.DrawFn) -> Writer:
    """Products of other makers, with their metadata or without."""
    there = draw(st.booleans())
    packed = draw(st.booleans())
    kind = draw(st.sampled_from(["landsat", "earth engine", "hls", "maja", "dimap"]))
    level = draw(st.sampled_from(["L2SP", "L1TP"]))
    form = draw(st.sampled_from(["txt", "xml", "json"]))
    which = draw(st.sampled_from(["8", "7"]))
    dtype = draw(st.sampled_from(["uint16", "int32", "float64"]))

    def write(folder: Path) -> Path | list[Path]:
        if kind == "earth engine":
            return products.earth_engine(folder, GROUND, dtype)
        if kind == "dimap":
            real = "float32" if dtype == "float64" else dtype
            return products.dimap(folder, GROUND, dtype=real)
        if kind == "landsat":
            made = products.landsat(
                folder, GROUND, level=level, satellite=which, form=form if there else None
            )
            return products.tarred(made) if packed else made
        made = (
            products.hls(folder, GROUND, "L30") if kind == "hls" else products.maja(folder, GROUND)
        )
        return products.zipped(made) if packed else made

    return write


def found(
    source: Any, model: Path, **options: float
) -> tuple[list[NDArray[np.float64]], list[str]] | None:
    """The reflectance that a run would take, band by band as the files have it, and the warnings.

    None if it is refused.
    """
    try:
        plan = make_plan(source, PredictOptions(model=model, no_vector=True, **options))  # type: ignore[arg-type]
        warnings = preflight(plan)
    except (RadiometryError, BandError):
        return None
    read = []
    gains = zip(plan.bands, plan.radiometry.gain, plan.radiometry.bias, strict=True)
    for band, gain, bias in gains:
        with rasterio.open(band.path) as dataset:
            values = dataset.read(band.index).astype(float)
        read.append(np.where(values == band.nodata, np.nan, values * gain + bias))
    return read, warnings


def is_the_ground(read: list[NDArray[np.float64]]) -> bool:
    """Whether a reflectance is the ground's, up to the rounding of whole numbers."""
    for values, truth in zip(read, GROUND, strict=True):
        step = truth.shape[0] // values.shape[0]
        if np.nanmax(np.abs(values - truth[::step, ::step])) > 1e-4:
            return False
    return True


@settings(max_examples=60)
@given(st.one_of(safes(), loose_bands(), stacks(), others()))
def test_the_grounds_reflectance_a_refusal_or_advice_that_is_right(
    model: Path, write: Writer
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder))
        taken = found(source, model)
        if taken is None or is_the_ground(taken[0]):
            return
        (warning,) = taken[1]
        options = re.findall(r"--(scale|offset) (-?[\d.e-]*\d)", warning)
        followed = found(source, model, **{name: float(value) for name, value in options})
        assert options and followed is not None and is_the_ground(followed[0])


@settings(max_examples=15)
@given(loose_bands())
def test_loose_bands_are_read_only_where_the_name_tells_the_baseline(
    model: Path, write: Writer
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder))
        assert isinstance(source, Path)
        told = any(f"_{baseline}_" in source.name for baseline in BASELINES)
        assert (found(source, model) is not None) == told


def test_the_law_holds_for_what_a_wrong_unit_looks_like() -> None:
    """What the laws compare with is not so loose that a wrong unit would pass."""
    for scale, offset in ((1e-4, 0.0), (2.75e-5, -0.2)):
        read = [numbers(band, 1e-4, -0.1) * scale + offset for band in GROUND]
        assert not is_the_ground(read)
