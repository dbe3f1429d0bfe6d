"""Faults that users of such tools have met, each as an input that gave a wrong map or none.

Of the example scene, reflectance of six bands; the right map is that of reflectance as floats.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import geoseg
from geoseg.cards.card import Normalization
from geoseg.errors import RadiometryError
from geoseg.zoo import find_model
from tests import products
from tests.helpers import make_raster, tiny_model
from tests.products import CODES, SIX, numbers

EXAMPLE = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
NAMES = ("B2", "B3", "B4", "B8", "B11", "B12")


@pytest.fixture(scope="module")
def reflectance() -> NDArray[np.float64]:
    """R: 256 x 256 px of the example scene, the same in blocks of 2 x 2."""
    with rasterio.open(EXAMPLE) as dataset:
        found = dataset.read()[:, 100:356:2, 100:356:2] * 1e-4
    return found.repeat(2, axis=1).repeat(2, axis=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plausible = find_model("landcover-ms").card.plausible
    return tiny_model(
        tmp_path_factory.mktemp("model") / "six",
        SIX,
        ("a", "b", "c", "d"),
        quantity="reflectance",
        plausible=plausible,
        normalization=Normalization("z-score", {"mean": (0.1,) * 6, "stddev": (0.05,) * 6}),
    )


Map = Callable[..., tuple[NDArray[np.uint8], list[str]]]


@pytest.fixture
def mapped(tmp_path: Path, model: Path) -> Map:
    """Labels and warnings of a run."""

    def run(source: Any, **options: Any) -> tuple[NDArray[np.uint8], list[str]]:
        out = tmp_path / "map.tif"
        done = geoseg.predict(source, out, model=model, no_vector=True, overwrite=True, **options)
        with rasterio.open(out) as dataset:
            return dataset.read(1), done.report["warnings"]

    return run


@pytest.fixture
def right(tmp_path: Path, mapped: Map, reflectance: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The float map."""
    path = make_raster(tmp_path / "floats.tif", reflectance.astype(np.float32), descriptions=SIX)
    labels, _ = mapped(path)
    assert len(np.unique(labels)) > 2
    return labels


def agree(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Share of equal labels; rounding moves a few."""
    return float((one == other).mean())


def advised(message: str) -> list[dict[str, float]]:
    """The options that a message says to give, one command after the other."""
    found = re.findall(
        r"(?:--scale (\S+?))?[ ]?--offset (-?[\d.]*\d)|--scale ([\d.e-]*\d)", message
    )
    return [
        {k: float(v) for k, v in (("scale", scale or only), ("offset", offset)) if v}
        for scale, offset, only in found
    ]


def test_s1_loose_bands_without_a_baseline_are_refused_with_both_commands(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any], right: NDArray[Any]
) -> None:
    folder = products.loose(tmp_path, reflectance, "S2B_52SFA_20220601_0_L2A", added=1000)
    with pytest.raises(RadiometryError) as error:
        mapped(folder)
    given = advised(str(error.value))
    assert given == [{"scale": 1e-4, "offset": -0.1}, {"scale": 1e-4, "offset": 0}]
    labels, warnings = mapped(folder, **given[0])
    assert agree(labels, right) > 0.99 and warnings == []


def test_s2_a_renamed_product_has_its_offset_from_its_metadata(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any], right: NDArray[Any]
) -> None:
    folder = products.safe(tmp_path, reflectance, "july.SAFE")
    labels, warnings = mapped(folder)
    assert warnings == []
    np.testing.assert_array_equal(labels, mapped(folder, scale=1e-4, offset=-0.1)[0])
    assert agree(labels, right) > 0.9 > 0.8 > agree(mapped(folder, scale=1e-4)[0], right)


def test_s3_a_zipped_product_gives_the_map_of_the_folder(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any]
) -> None:
    folder = products.safe(tmp_path, reflectance, "X.SAFE")
    labels, _ = mapped(folder)
    archive = products.zipped(folder)
    assert archive.name == "X.SAFE.zip"
    np.testing.assert_array_equal(mapped(archive)[0], labels)


def test_s4_a_product_of_tiff_files_is_read(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any], right: NDArray[Any]
) -> None:
    folder = products.safe(tmp_path, reflectance, suffix=".tif")
    labels, warnings = mapped(folder)
    assert warnings == []
    np.testing.assert_array_equal(labels, mapped(folder, scale=1e-4, offset=-0.1)[0])
    # Bands of 20 m are smoothed on the way to 10 m, which moves labels along edges.
    assert agree(labels, right) > 0.9


def test_s5_the_advice_for_floats_with_the_offset_left_in_gives_the_right_map(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any], right: NDArray[Any]
) -> None:
    path = make_raster(
        tmp_path / "added.tif", (reflectance + 0.1).astype(np.float32), descriptions=SIX
    )
    _, (warning,) = mapped(path)
    assert advised(warning) == [{"offset": -0.1}]
    labels, warnings = mapped(path, offset=-0.1)
    assert agree(labels, right) > 0.99 and warnings == []


def test_u1_floats_of_whole_numbers_are_refused_and_the_advice_gives_the_right_map(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any], right: NDArray[Any]
) -> None:
    path = make_raster(
        tmp_path / "u1.tif", (reflectance * 10000).astype(np.float64), descriptions=NAMES
    )
    with pytest.raises(RadiometryError) as error:
        mapped(path)
    assert {"scale": 1e-4, "offset": 0} in advised(str(error.value))
    assert agree(mapped(path, scale=1e-4)[0], right) > 0.99


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_u2_landsat_of_earth_engine_is_read_or_refused_with_its_own_numbers(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any], right: NDArray[Any], dtype: str
) -> None:
    path = products.earth_engine(tmp_path, reflectance, dtype)
    given: dict[str, float] = {}
    if dtype == "float64":
        with pytest.raises(RadiometryError) as error:
            mapped(path)
        (given,) = advised(str(error.value))
        assert given == {"scale": 0.0000275, "offset": -0.2}
    labels, warnings = mapped(path, **given)
    assert agree(labels, right) > 0.99 and warnings == []


def test_numbers_of_another_product_under_earth_engines_names_are_refused(
    tmp_path: Path, mapped: Map, reflectance: NDArray[Any]
) -> None:
    path = make_raster(
        tmp_path / "LC08_044034_20200318.tif",
        numbers(reflectance),
        descriptions=[f"SR_B{n}" for n in products.LANDSAT["8"]],
    )
    with pytest.raises(RadiometryError, match=r"below -0\.05.*--scale 0\.0001"):
        mapped(path)


def test_codes_and_names_of_the_six_bands_belong_together() -> None:
    assert [code.replace("B0", "B") for code, _ in CODES] == list(NAMES)
