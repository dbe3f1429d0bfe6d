"""STAC items as archives have them, with tiny files; see each function for whose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from tests.helpers import make_raster

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
SIDE = 96  # px of 10 m
SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
#: Bands of geoseg's -> key in Earth Search, code, metres per pixel.
SENTINEL2 = {
    "blue": ("blue", "B02", 10),
    "green": ("green", "B03", 10),
    "red": ("red", "B04", 10),
    "rededge1": ("rededge1", "B05", 20),
    "nir": ("nir", "B08", 10),
    "nir08": ("nir08", "B8A", 20),
    "swir1": ("swir16", "B11", 20),
    "swir2": ("swir22", "B12", 20),
}


def grid(metres: float) -> Affine:
    return Affine(metres, 0, 500000, 0, -metres, 5000000)


def numbers(seed: int, side: int = SIDE, low: int = 200, high: int = 4000) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(low, high, (1, side, side)).astype(np.uint16)


def band_file(path: Path, metres: int = 10, seed: int | None = None, **options: Any) -> Path:
    """A band of a scene of SIDE x SIDE px of 10 m, from 20 m on with larger pixels."""
    side = SIDE * 10 // metres
    values = numbers(len(path.name) if seed is None else seed, side)
    return make_raster(path, values, transform=grid(metres), **{"nodata": 0, **options})


def scl_file(path: Path, metres: int = 20) -> NDArray[np.uint8]:
    """A scene classification with every class in it; gives its numbers (H, W)."""
    side = SIDE * 10 // metres
    values = np.random.default_rng(7).integers(0, 12, (side // 4, side // 4)).astype(np.uint8)
    values = np.kron(values, np.ones((4, 4), np.uint8))
    values[5, 5:20] = np.arange(15) % 12  # single pixels, too
    make_raster(path, values[None], transform=grid(metres), nodata=0)
    return values


def item(
    identifier: str, collection: str, assets: dict[str, Any], **properties: Any
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": identifier,
        "collection": collection,
        "geometry": None,
        "properties": {"datetime": "2023-06-28T07:24:41.632000Z", **properties},
        "links": [],
        "assets": assets,
    }


def save(folder: Path, value: dict[str, Any], name: str = "item.json") -> Path:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder / name


def earth_search(
    folder: Path, *, applied: bool | None = True, baseline: str = "05.09", offset: float = -0.1
) -> dict[str, Any]:
    """Element 84's Earth Search v1, sentinel-2-l2a; without ``applied`` sentinel-2-c1-l2a."""
    assets: dict[str, Any] = {}
    for name, (key, code, metres) in SENTINEL2.items():
        band_file(folder / f"{code}.tif", metres)
        common = "rededge" if name.startswith("rededge") else key
        told = {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15, "scale": 0.0001}
        assets[key] = {
            "href": f"./{code}.tif",
            "type": COG,
            "title": f"{name} - {metres}m",
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": key, "common_name": common}],
            "raster:bands": [{**told, "spatial_resolution": metres, "offset": offset}],
        }
        jp2 = {**assets[key], "href": f"s3://sentinel-s2-l2a/{code}.jp2", "type": "image/jp2"}
        assets[f"{key}-jp2"] = jp2
    scl_file(folder / "SCL.tif")
    told = {"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}
    scl = {"href": "./SCL.tif", "type": COG, "roles": ["data", "reflectance"]}
    assets["scl"] = {**scl, "raster:bands": [told]}
    rgb = [{"name": n, "common_name": n} for n in ("red", "green", "blue")]
    assets["visual"] = {"href": "./TCI.tif", "type": COG, "roles": ["visual"], "eo:bands": rgb}
    assets["aot"] = {**assets["scl"], "href": "./AOT.tif"}
    assets["thumbnail"] = {"href": "./p.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    assets["tileinfo_metadata"] = {
        "href": "./tileInfo.json",
        "type": "application/json",
        "roles": ["metadata"],
    }
    flag = {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    return item(
        "S2B_33UXP_20230628_0_L2A",
        "sentinel-2-l2a" if applied is not None else "sentinel-2-c1-l2a",
        assets,
        platform="sentinel-2b",
        constellation="sentinel-2",
        instruments=["msi"],
        **{"s2:processing_baseline": baseline, "proj:epsg": 32633, **flag},
    )


def planetary_sentinel2(folder: Path, baseline: str = "04.00") -> dict[str, Any]:
    """Planetary Computer, sentinel-2-l2a: codes for keys, red edges of one name, no numbers."""
    assets: dict[str, Any] = {}
    for name, (_, code, metres) in SENTINEL2.items():
        band_file(folder / f"{code}.tif", metres)
        edge = name in ("rededge1", "nir08")
        common = "rededge" if edge else {"swir1": "swir16", "swir2": "swir22"}.get(name, name)
        assets[code] = {
            "href": f"./{code}.tif",
            "type": COG,
            "roles": ["data"],
            "gsd": metres,
            "eo:bands": [{"name": code, "common_name": common}],
        }
    scl_file(folder / "SCL.tif")
    assets["SCL"] = {"href": "./SCL.tif", "type": COG, "roles": ["data"], "gsd": 20}
    rgb = [{"name": code} for code in ("B04", "B03", "B02")]
    assets["visual"] = {"href": "./TCI.tif", "type": COG, "roles": ["data"], "eo:bands": rgb}
    assets["preview"] = {"href": "./p.tif", "type": COG, "roles": ["overview"]}
    return item(
        "S2B_MSIL2A_20230628T072441_R106_T33UXP_20230628T113955",
        "sentinel-2-l2a",
        assets,
        platform="Sentinel-2B",
        constellation="Sentinel 2",
        instruments=["msi"],
        **{"s2:processing_baseline": baseline, "proj:code": "EPSG:32633"},
    )


#: Bits of USGS' QA_PIXEL as items describe them.
QA_BITS = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water")


def planetary_landsat(folder: Path) -> dict[str, Any]:
    """Planetary Computer, landsat-c2-l2."""
    assets: dict[str, Any] = {}
    keys = {"blue": 2, "green": 3, "red": 4, "nir08": 5, "swir16": 6, "swir22": 7}
    for key, number in keys.items():
        band_file(folder / f"SR_B{number}.tif", 30)
        assets[key] = {
            "href": f"SR_B{number}.tif",
            "type": COG,
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": f"OLI_B{number}", "common_name": key}],
            "raster:bands": [{"nodata": 0, "scale": 2.75e-05, "offset": -0.2, "gsd": 30}],
        }
    side = SIDE // 3
    bits = np.random.default_rng(3).integers(0, 2**16, (1, side, side)).astype(np.uint16)
    make_raster(folder / "QA_PIXEL.tif", bits, transform=grid(30), nodata=1)
    fields = [{"name": n, "offset": i, "length": 1} for i, n in enumerate(QA_BITS)]
    fields += [{"name": "cloud_confidence", "offset": 8, "length": 2}]
    roles = ["cloud", "cloud-shadow", "snow-ice", "water-mask"]
    qa = {"href": "QA_PIXEL.tif", "type": COG, "roles": roles}
    assets["qa_pixel"] = {**qa, "classification:bitfields": fields}
    assets["qa_radsat"] = {"href": "QA_RADSAT.tif", "type": COG, "roles": ["saturation"]}
    assets["lwir11"] = {**assets["red"], "href": "ST_B10.tif"}
    assets["lwir11"] |= {"eo:bands": [{"name": "TIRS_B10", "common_name": "lwir11"}]}
    band_file(folder / "ST_B10.tif", 30)
    return item(
        "LC08_L2SP_044034_20230618_02_T1",
        "landsat-c2-l2",
        assets,
        platform="landsat-8",
        instruments=["oli", "tirs"],
    )


def hls(folder: Path, kind: str) -> dict[str, Any]:
    """NASA's LP DAAC, HLS v2.0: ``L30`` or ``S30``; nothing but keys says what the bands are."""
    codes = {
        "L30": ("B02", "B03", "B04", "B05", "B06", "B07"),
        "S30": ("B02", "B03", "B04", "B8A", "B11", "B12"),
    }[kind]
    assets: dict[str, Any] = {}
    for code in codes:
        values = numbers(int(code[1:3].strip("A")), SIDE // 3).astype(np.int16)
        make_raster(folder / f"{code}.tif", values, transform=grid(30), nodata=-9999)
        assets[code] = {"href": f"{code}.tif", "type": COG, "roles": ["data"]}
    fmask = np.random.default_rng(4).integers(0, 256, (1, SIDE // 3, SIDE // 3)).astype(np.uint8)
    make_raster(folder / "Fmask.tif", fmask, transform=grid(30), nodata=255)
    assets["Fmask"] = {"href": "Fmask.tif", "type": COG, "roles": ["data"]}
    assets["browse"] = {"href": "b.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    platform = {"L30": "landsat-8", "S30": "sentinel-2a"}[kind]
    return item(
        f"HLS.{kind}.T33UXP.2023179T095031.v2.0", f"HLS{kind}_2.0", assets, platform=platform
    )


def naip(folder: Path) -> dict[str, Any]:
    """Planetary Computer, naip: one file of four bands, of which GDAL takes the last for alpha."""
    values = np.random.default_rng(5).integers(0, 255, (4, SIDE, SIDE)).astype(np.uint8)
    make_raster(folder / "m.tif", values, transform=grid(1))
    names = [("Red", "red"), ("Green", "green"), ("Blue", "blue"), ("NIR", "nir")]
    bands = [{"name": n, "common_name": c} for n, c in names]
    image = {"href": "m.tif", "type": COG, "roles": ["data"], "eo:bands": bands}
    assets = {"image": image, "thumbnail": {"href": "t.jpg", "type": "image/jpeg"}}
    return item("ca_m_3712261_ne_10_060_20220518", "naip", assets, gsd=0.6)


def stac11(folder: Path) -> dict[str, Any]:
    """Copernicus Data Space, STAC 1.1: one list of bands, the same band at several pixel sizes."""
    assets: dict[str, Any] = {}
    for name, (_, code, metres) in SENTINEL2.items():
        common = {"rededge1": "rededge071", "swir1": "swir16", "swir2": "swir22"}.get(name, name)
        for coarse in (metres, 60):
            key = f"{code}_{coarse}m"
            band_file(folder / f"{key}.tif", coarse)
            assets[key] = {
                "href": f"{key}.tif",
                "type": COG,
                "roles": ["data", "reflectance"],
                "gsd": coarse,
                "nodata": 0,
                "data_type": "uint16",
                "raster:scale": 0.0001,
                "raster:offset": -0.1,
                "bands": [{"name": code, "eo:common_name": common}],
            }
    scl_file(folder / "SCL_20m.tif")
    names = ("no_data", "saturated_or_defective", "topographic_casted_shadows", "cloud_shadows")
    classes = [{"value": i, "name": name} for i, name in enumerate(names)]
    scl = {"href": "SCL_20m.tif", "type": COG, "roles": ["data"], "nodata": 0, "gsd": 20}
    assets["SCL_20m"] = {**scl, "classification:classes": classes}
    found = item(
        "S2B_MSIL2A_20230628T095029_N0509_R079_T33UXP_20230628T113955",
        "sentinel-2-l2a",
        assets,
        platform="sentinel-2b",
        constellation="sentinel-2",
        **{"processing:version": "05.09", "proj:code": "EPSG:32633"},
    )
    return {**found, "stac_version": "1.1.0"}
