"""netCDF-4 and Zarr: a raster a variable, and files of HDF5 that lead elsewhere."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import scipy.io
from numpy.typing import NDArray

from geoseg.errors import SceneError
from geoseg.geo.window import Window
from geoseg.scene import zarr
from geoseg.scene.hdf5 import leads_out
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene import Scene
from geoseg.scene.sources import Rules
from tests.hdf5s import LEADING, write
from tests.helpers import make_raster
from tests.products import SIX, ground, numbers

GROUND = ground()
#: In the order in which the values are given.
CODES = ("B02", "B03", "B04", "B08", "B11", "B12")


def netcdf4(path: Path, *, ascending: bool = False, side: int = 32) -> Path:
    """Write a cube of whole numbers, as netCDF libraries do: compressed, with scale_factor."""
    values = stored(GROUND[:, :side, :side])
    plain = make_raster(
        path.with_name("plain.tif"), values, nodata=-9999, scales=[1e-4] * 6, offsets=[-0.1] * 6
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.shutil.copy(
            *(plain, path.with_suffix(".nc")),
            **{"driver": "netCDF", "FORMAT": "NC4", "COMPRESS": "DEFLATE"},
            **{"BAND_NAMES": ",".join(CODES), "WRITE_BOTTOMUP": "YES" if ascending else "NO"},
        )
    plain.unlink()
    return path.with_suffix(".nc").rename(path)


def stored(reflectance: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers, of which one pixel was not measured."""
    values = numbers(reflectance, 1e-4, -0.1, "int16")
    values[:, 0, 0] = -9999
    return values


def dated(path: Path, dates: int) -> Path:
    """Write a cube with a time axis, as xarray does in the classic format, y ascending."""
    values, side = stored(GROUND), GROUND.shape[1]
    with scipy.io.netcdf_file(path, "w") as file:
        axes = {
            "time": 5.0 * np.arange(dates),
            "y": 4999995.0 - 10 * np.arange(side)[::-1],
            "x": 500005.0 + 10 * np.arange(side),
        }
        for name, at in axes.items():
            file.createDimension(name, len(at))
            axis = file.createVariable(name, "d", (name,))
            axis[:] = at
            axis.units = "days since 2022-06-01" if name == "time" else "m"
            axis.standard_name = name if name == "time" else f"projection_{name}_coordinate"
        crs = file.createVariable("crs", "i", ())
        crs.spatial_ref = rasterio.crs.CRS.from_epsg(32633).to_wkt()
        crs.grid_mapping_name = "transverse_mercator"
        for name, band in zip(CODES, values, strict=True):
            variable = file.createVariable(name, "h", ("time", "y", "x"))
            variable[:] = np.stack([band[::-1] // (i + 1) for i in range(dates)])
            variable.grid_mapping, variable._FillValue = "crs", np.int16(-9999)
            variable.scale_factor, variable.add_offset = 1e-4, -0.1
    return path


def zarr2(
    folder: Path, reflectance: NDArray[Any] = GROUND, *, offset: float = -0.1, side: int = 16
) -> Path:
    """Write a cube as xarray does in version 2 of Zarr: a text and raw pieces an array."""
    wkt = rasterio.crs.CRS.from_epsg(32633).to_wkt()
    count = reflectance.shape[1]
    arrays: dict[str, tuple[NDArray[Any], list[str], dict[str, Any]]] = {
        "x": (500005.0 + 10 * np.arange(count), ["x"], {}),
        "y": (4999995.0 - 10 * np.arange(count), ["y"], {}),
        "spatial_ref": (np.array(0), [], {"crs_wkt": wkt, "spatial_ref": wkt}),
    }
    about = {"grid_mapping": "spatial_ref", "scale_factor": 1e-4, "add_offset": offset}
    for code, band in zip(CODES, numbers(reflectance, 1e-4, offset), strict=True):
        arrays[code] = (band, ["y", "x"], about)
    folder.mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    for name, (values, axes, attributes) in arrays.items():
        (folder / name).mkdir()
        chunks = [min(side, n) for n in values.shape]
        text = {
            **{"zarr_format": 2, "shape": values.shape, "chunks": chunks, "order": "C"},
            **{"dtype": values.dtype.str, "fill_value": 0, "compressor": None, "filters": None},
        }
        (folder / name / ".zarray").write_text(json.dumps(text))
        attributes = {"_ARRAY_DIMENSIONS": axes, **attributes}
        (folder / name / ".zattrs").write_text(json.dumps(attributes))
        for place in np.ndindex(*(n // c for n, c in zip(values.shape, chunks, strict=True))):
            at = tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunks, strict=True))
            (folder / name / (".".join(map(str, place)) or "0")).write_bytes(values[at].tobytes())
    return folder


def check(source: Any, missing: int = 0) -> Scene:
    """A scene's reflectance, read as a run reads it, is the ground's."""
    scene = open_scene(source)
    bands = scene.choose(SIX)
    found = find_radiometry(scene, bands, "reflectance")
    with SceneReader(bands, scene.grid) as reader:
        values, valid = reader.read(Window(0, 0, scene.grid.height, scene.grid.width))
    assert (~valid).sum() == missing
    real = values * np.array(found.gain)[:, None, None] + np.array(found.bias)[:, None, None]
    assert np.abs(real - GROUND)[:, valid].max() < 1e-4
    assert scene.grid.crs is not None and scene.grid.crs.to_epsg() == 32633
    assert tuple(scene.grid.transform)[:6] == (10, 0, 500000, 0, -10, 5000000)
    return scene


# netCDF-4


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("name", ["cube.nc", "cube.data"])
def test_variables_of_netcdf_4_are_bands(tmp_path: Path, ascending: bool, name: str) -> None:
    path = netcdf4(tmp_path / name, ascending=ascending)
    scene = check(path, missing=1)
    assert scene.name == "cube" and [band.label for band in scene.bands] == list(CODES)
    assert {band.nodata for band in scene.bands} == {-9999}
    assert scene.files == (str(path),)


def test_one_date_of_many_is_asked_for_and_the_advice_works(tmp_path: Path) -> None:
    check(dated(tmp_path / "one.nc", 1), missing=1)
    path = dated(tmp_path / "cube.nc", 3)
    with pytest.raises(SceneError) as caught:
        open_scene(path)
    said = str(caught.value)
    assert "(time: 1 2022-06-01, 2 2022-06-06, 3 2022-06-11)" in said
    # GDAL's versions quote the name or do not.
    assert re.search(
        rf'gdal_translate -b 1 NETCDF:"?{re.escape(str(path))}"?:B02 B02.tif', said, re.I
    )
    taken = []
    for code in CODES:  # as gdal_translate does it
        with rasterio.open(f'NETCDF:"{path}":{code}') as dataset:
            about = {"nodata": dataset.nodata, "transform": dataset.transform}
            about |= {"scales": dataset.scales[:1], "offsets": dataset.offsets[:1]}
            taken.append(make_raster(tmp_path / f"{code}.tif", dataset.read([1]), **about))
    check(taken, missing=1)


@pytest.mark.parametrize("kind", LEADING)
def test_hdf5_that_leads_to_another_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "scene.nc", kind)
    for name in (path, f'NETCDF:"{path}":leak'):
        with pytest.raises(SceneError, match="--allow-vrt any") as caught:
            open_scene(name)
        assert "another file" in str(caught.value) or "other files" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["a link", "plain"])
def test_netcdf_in_archives_and_on_servers_is_not_read(tmp_path: Path, kind: str) -> None:
    """What it leads to can't be looked at there."""
    inner = tmp_path / "scene.nc"
    inner = netcdf4(inner) if kind == "plain" else write(inner, kind)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(inner, "scene.nc")
    for name in (
        *(f"/vsizip/{tmp_path}/a.zip/scene.nc", "https://127.0.0.1:9/scene.nc"),
        f'NETCDF:"/vsizip/{tmp_path}/a.zip/scene.nc":leak',
    ):
        with pytest.raises(SceneError, match=r"download or unpack it.*--allow-vrt any"):
            open_scene(name)


def test_damaged_hdf5_is_refused_or_read_and_never_more(tmp_path: Path) -> None:
    """Whatever byte is another one."""
    sound = netcdf4(tmp_path / "s.nc", side=4).read_bytes()
    rng = random.Random(0)
    path = tmp_path / "d.nc"
    found = set()
    for data in (sound, *(write(path, kind).read_bytes() for kind in LEADING)):
        for _ in range(150):
            damaged = bytearray(data)
            damaged[rng.randrange(min(len(data), 4000))] = rng.choice([0, 1, 8, 64, 255])
            path.write_bytes(damaged[: rng.choice([len(data), rng.randrange(len(data))])])
            found.add(leads_out(str(path)))
    assert None in found and len(found) > 5
    assert all(said is None or "\n" not in said for said in found)


def test_an_hdf5_header_that_is_a_circle_ends(tmp_path: Path) -> None:
    """A header that goes on with itself, by an address."""
    data = bytearray(write(tmp_path / "c.h5", "numbers elsewhere").read_bytes())
    (root,) = struct.unpack_from("<Q", data, 64)
    struct.pack_into("<HHB3xQQ", data, root + 16, 0x10, 16, 0, root + 16, 24)
    (tmp_path / "c.h5").write_bytes(data)
    assert "in a circle" in str(leads_out(str(tmp_path / "c.h5")))


# Zarr


@pytest.mark.parametrize("kind", ["folder", "in a folder", "zip", "zip with the folder"])
def test_a_zarr_folder_and_archive_are_scenes(tmp_path: Path, kind: str) -> None:
    folder = zarr2(tmp_path / "order" / "cube.zarr")
    source = folder.parent if kind == "in a folder" else folder
    if kind.startswith("zip"):
        base = folder.parent if "with" in kind else folder
        source = Path(shutil.make_archive(str(tmp_path / "cube.zarr"), "zip", base))
    scene = check(source)
    assert scene.name == "cube"
    assert [band.label for band in scene.bands] == list(CODES)
    assert scene.sensor is None or scene.sensor.name == "Sentinel-2"


def test_what_lies_on_a_server_is_not_looked_for_on_this_machine() -> None:
    for name in ("/vsizip/vsicurl/https://x.org/a.zip/b", "/vsizip/none.zip/b", "s3://a/b"):
        assert not zarr.is_zarr(name)


def test_pieces_of_a_zarr_folder_that_are_replaced_are_noticed(tmp_path: Path) -> None:
    from geoseg.archive.stamps import stamp_of
    from geoseg.prediction.report import file_state

    folder = zarr2(tmp_path / "cube.zarr")
    record = {"files": [str(folder)]}
    before, stamp = {f: file_state(Path(f)) for f in open_scene(folder).all_files}, stamp_of(record)
    piece = folder / "B04" / "1.1"
    piece.with_name("new").write_bytes(piece.read_bytes()[::-1])
    piece.with_name("new").replace(piece)
    assert {f: file_state(Path(f)) for f in open_scene(folder).all_files} != before
    assert stamp_of(record) != stamp


def test_a_zarr_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    secret = tmp_path / "private" / "secret"
    secret.write_bytes(bytes([77, 0]) * 256)
    folder = zarr2(tmp_path / "in" / "cube.zarr")
    piece = folder / "B02" / "0.0"
    piece.unlink()
    piece.symlink_to(secret)
    with pytest.raises(SceneError, match=r"is a link to .*secret.*--input-root"):
        open_scene(folder)
    scene = open_scene(folder, Rules.of(input_root=secret.parent))
    with SceneReader(scene.bands[:1], scene.grid) as reader:
        assert reader.read(Window(0, 0, 16, 16))[0].max() == 77
    piece.unlink()
    (folder / ".zmetadata").write_text('{"metadata": {}, "record_size": 1000}')
    with pytest.raises(SceneError, match=r"references \(kerchunk\).*--allow-vrt any"):
        open_scene(folder)


def test_a_zarr_folder_that_gdal_cannot_unpack_is_told_what_to_do(tmp_path: Path) -> None:
    """As zarr-python writes version 3, for a GDAL that reads version 2 alone."""
    folder = tmp_path / "cube.zarr"
    (folder / "B02").mkdir(parents=True)
    (folder / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    text = {
        **{"zarr_format": 3, "node_type": "array", "shape": [8, 8], "data_type": "uint16"},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        **{"fill_value": 0, "attributes": {}, "dimension_names": ["y", "x"]},
        "codecs": [{"name": "unheard-of", "configuration": {}}],
    }
    (folder / "B02" / "zarr.json").write_text(json.dumps(text))
    assert zarr.is_zarr(str(folder))
    with pytest.raises(SceneError, match=r"GDAL 3.*write it as version 2.*or as GeoTIFF"):
        open_scene(folder)
