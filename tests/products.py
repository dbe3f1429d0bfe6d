"""Products as their makers deliver them, tiny: true names, layouts and metadata.

Each function writes one into a folder and gives what a user would name. Reflectance comes in as
(6, H, W) in the order of :data:`SIX`, H and W even and the same in blocks of 2 x 2 pixels, so that
bands of 20 m hold it, too.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.helpers import make_raster

SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
#: Sentinel-2's code and pixel size of each.
CODES = (("B02", 10), ("B03", 10), ("B04", 10), ("B08", 10), ("B11", 20), ("B12", 20))
#: Sentinel-2's band codes in the order of the metadata's band_id.
IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
TILE = "T33UUP_20220601T101559"
#: Fields, forest, soil, town, water and snow: reflectance of each in the six bands.
SURFACES = np.array(
    [
        [0.04, 0.08, 0.06, 0.38, 0.22, 0.12],
        [0.02, 0.04, 0.02, 0.28, 0.13, 0.06],
        [0.09, 0.13, 0.17, 0.26, 0.34, 0.28],
        [0.12, 0.14, 0.16, 0.21, 0.22, 0.20],
        [0.05, 0.05, 0.03, 0.02, 0.01, 0.005],
    ]
)


def ground(side: int = 32, seed: int = 0) -> NDArray[np.float64]:
    """Reflectance of a landscape, (6, side, side)."""
    random = np.random.default_rng(seed)
    half = side // 2
    which = random.choice(len(SURFACES), size=(half, half), p=(0.3, 0.3, 0.2, 0.1, 0.1))
    coarse = SURFACES[which].transpose(2, 0, 1) * random.uniform(0.8, 1.2, (1, half, half))
    return coarse.repeat(2, axis=1).repeat(2, axis=2)


def numbers(
    reflectance: NDArray[Any], scale: float = 1e-4, offset: float = 0.0, dtype: str = "uint16"
) -> NDArray[Any]:
    """Whole numbers as products have them."""
    return np.round((reflectance - offset) / scale).astype(dtype)


def grid(metres: float) -> Affine:
    return Affine(metres, 0, 500000, 0, -metres, 5000000)


def raster(path: Path, values: NDArray[Any], metres: float = 10, **options: Any) -> Path:
    """Write (H, W) as a GeoTIFF, or as lossless JPEG 2000 by the suffix; no tag says nodata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".jp2":
        return make_raster(path, values[None], transform=grid(metres), **options)
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", height=height, width=width, count=1, dtype=values.dtype,
        crs="EPSG:32633", transform=grid(metres), QUALITY="100", REVERSIBLE="YES",
    ) as dataset:  # fmt: skip
        dataset.write(values[None])
    return path


def sentinel2_metadata(
    level: str = "2A",
    baseline: str | None = "04.00",
    offset: int | None = -1000,
    quantification: int = 10000,
    uri: str = "",
    images: Sequence[str] = (),
) -> str:
    """MTD_MSIL1C.xml or MTD_MSIL2A.xml, as of products specification 14.9, shortened."""
    kind, boa = ("Level-2A", "BOA_") if level == "2A" else ("Level-1C", "")
    tag, around = (
        ("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST")
        if level == "2A"
        else ("RADIO_ADD_OFFSET", "Radiometric_Offset_List")
    )
    listed = "".join(
        f'<{tag} band_id="{i}">{offset}</{tag}>' for i in range(13) if offset is not None
    )
    files = "".join(f"<IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
        f'<n1:{kind}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/{kind}.xsd">'
        "<n1:General_Info><Product_Info>"
        "<PRODUCT_START_TIME>2022-06-01T10:15:59.024Z</PRODUCT_START_TIME>"
        + (f"<PRODUCT_URI>{uri}</PRODUCT_URI>" if uri else "")
        + f"<PROCESSING_LEVEL>{kind}</PROCESSING_LEVEL>"
        + (f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>" if baseline else "")
        + f"<Product_Organisation><Granule_List><Granule>{files}</Granule></Granule_List>"
        "</Product_Organisation></Product_Info><Product_Image_Characteristics>"
        "<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>"
        "<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>"
        f'<{boa}QUANTIFICATION_VALUE unit="none">{quantification}</{boa}QUANTIFICATION_VALUE>'
        + (f"<{around}>{listed}</{around}>" if listed else "")
        + f"</Product_Image_Characteristics></n1:General_Info></n1:{kind}_User_Product>"
    )


def safe(
    folder: Path,
    reflectance: NDArray[Any],
    name: str = "S2A_MSIL2A_20220601T101559_N0400_R065_T33UUP_20220601T162012.SAFE",
    *,
    level: str = "2A",
    added: int = 1000,
    suffix: str = ".jp2",
    metadata: str | None = "",
    tile: str | None = None,
    scl: NDArray[Any] | None = None,
) -> Path:
    """A .SAFE folder; its metadata are true to the numbers, or the text that is given, or none."""
    root = folder / name
    granule = root / "GRANULE" / f"L{level}_T33UUP_A036259_20220601T101559"
    images = []
    for band, (code, metres) in enumerate(CODES):
        step = metres // 10
        values = numbers(reflectance[band, ::step, ::step], offset=-added / 10000)
        where = f"IMG_DATA/R{metres}m/{TILE}_{code}_{metres}m"
        if level == "1C":
            where = f"IMG_DATA/{TILE}_{code}"
        raster(granule / f"{where}{suffix}", values, metres)
        images.append(f"GRANULE/{granule.name}/{where}")
    side = reflectance.shape[1]
    if level == "2A":
        layer = np.full((side // 2, side // 2), 4, np.uint8) if scl is None else scl
        raster(granule / f"IMG_DATA/R20m/{TILE}_SCL_20m{suffix}", layer, 20)
        raster(granule / f"IMG_DATA/R10m/{TILE}_TCI_10m{suffix}", np.zeros((side, side), np.uint8))
        raster(granule / f"QI_DATA/MSK_CLDPRB_20m{suffix}", np.zeros((4, 4), np.uint8), 20)
    if tile is not None:
        (granule / "MTD_TL.xml").write_text(
            '<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/x.xsd">'
            f'<n1:General_Info><TILE_ID metadataLevel="Brief">{tile}</TILE_ID>'
            "</n1:General_Info></n1:Level-2A_Tile_ID>"
        )
    if metadata == "":
        metadata = sentinel2_metadata(
            level,
            "04.00" if added else "03.01",
            -added if added else None,
            uri=name,
            images=images,
        )
    if metadata is not None:
        (root / f"MTD_MSIL{level}.xml").write_text(metadata)
    return root


def zipped(root: Path, name: str | None = None, *, shell: bool = True) -> Path:
    """A folder as an archive beside it, as hubs give it; without the folder itself if so asked."""
    path = root.parent / (name or f"{root.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            inner = file.relative_to(root.parent if shell else root)
            archive.write(file, str(inner))
    shutil.rmtree(root)
    return path


def tarred(root: Path) -> Path:
    """A folder's files as a .tar beside it, as USGS gives them."""
    path = root.parent / f"{root.name}.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(root.iterdir()):
            archive.add(file, file.name)
    shutil.rmtree(root)
    return path


def loose(
    folder: Path, reflectance: NDArray[Any], name: str, *, added: int = 0, suffix: str = ".tif"
) -> Path:
    """A folder of one-band files B02.tif, ..., without anything else."""
    for band, (code, _) in enumerate(CODES):
        values = numbers(reflectance[band], offset=-added / 10000)
        raster(folder / name / f"{code}{suffix}", values)
    return folder / name


#: Landsat's codes of the six bands.
LANDSAT = {"8": (2, 3, 4, 5, 6, 7), "7": (1, 2, 3, 4, 5, 7)}
SUN = 51.84
#: Of level 1: factor and addend before the division by the sine of the sun's elevation.
LEVEL_1 = (2e-5, -0.1)


def mtl(product: str, level: str, files: dict[int, str], form: str = "txt") -> str:
    """MTL metadata of Collection 2, shortened, as text, XML or JSON."""
    groups: dict[str, dict[str, str]] = {
        "PRODUCT_CONTENTS": {
            "LANDSAT_PRODUCT_ID": product,
            "PROCESSING_LEVEL": level,
            "COLLECTION_NUMBER": "02",
            **{f"FILE_NAME_BAND_{n}": file for n, file in files.items()},
            "FILE_NAME_QUALITY_L1_PIXEL": f"{product}_QA_PIXEL.TIF",
        },
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_8", "SUN_ELEVATION": f"{SUN}"},
    }
    one = {f"REFLECTANCE_MULT_BAND_{n}": "2.0000E-05" for n in files} | {
        f"REFLECTANCE_ADD_BAND_{n}": "-0.100000" for n in files
    }
    if level.startswith("L2"):
        groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"] = {
            f"REFLECTANCE_MULT_BAND_{n}": "2.75e-05" for n in files
        } | {f"REFLECTANCE_ADD_BAND_{n}": "-0.2" for n in files}
    groups["LEVEL1_RADIOMETRIC_RESCALING"] = one
    if form == "json":
        import json

        return json.dumps({"LANDSAT_METADATA_FILE": groups})
    if form == "xml":
        inner = "".join(
            f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in said.items())}</{g}>"
            for g, said in groups.items()
        )
        return f'<?xml version="1.0"?><LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>'
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, said in groups.items():
        lines += [f"  GROUP = {group}"]
        lines += [
            f'    {k} = "{v}"' if not v[-1].isdigit() or "_" in v else f"    {k} = {v}"
            for k, v in said.items()
        ]
        lines += [f"  END_GROUP = {group}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def landsat(
    folder: Path,
    reflectance: NDArray[Any],
    *,
    satellite: str = "8",
    level: str = "L2SP",
    form: str | None = "txt",
    name: str | None = None,
    qa: NDArray[Any] | None = None,
) -> Path:
    """A product of Collection 2 in a folder; the files may bear another name than the product."""
    sensor = "LC08" if satellite == "8" else "LE07"
    product = f"{sensor}_{level}_193024_20200407_20200822_02_T1"
    stem, part = name or product, "SR_" if level.startswith("L2") else ""
    scale, offset = (2.75e-5, -0.2) if part else [v / np.sin(np.radians(SUN)) for v in LEVEL_1]
    files = {}
    for band, number in enumerate(LANDSAT[satellite]):
        files[number] = f"{stem}_{part}B{number}.TIF"
        values = numbers(reflectance[band], scale, offset)
        raster(folder / stem / files[number], values, 30)
    side = reflectance.shape[1]
    layer = np.full((side, side), 21824, np.uint16) if qa is None else qa
    raster(folder / stem / f"{stem}_QA_PIXEL.TIF", layer, 30)
    if form is not None:
        (folder / stem / f"{stem}_MTL.{form}").write_text(mtl(product, level, files, form))
    return folder / stem


def earth_engine(folder: Path, reflectance: NDArray[Any], dtype: str = "uint16") -> Path:
    """A Landsat scene of Earth Engine's LANDSAT/LC08/C02/T1_L2, as Export.image writes it."""
    return make_raster(
        folder / "LC08_044034_20200318.tif",
        ((reflectance + 0.2) / 0.0000275).round().astype(dtype),
        descriptions=[f"SR_B{n}" for n in LANDSAT["8"]],
        transform=grid(30),
    )


def hls(folder: Path, reflectance: NDArray[Any], which: str = "S30") -> Path:
    """A granule of HLS v2 in a folder, with Fmask."""
    name = f"HLS.{which}.T33UUP.2022152T101559.v2.0"
    codes = [c for c, _ in CODES] if which == "S30" else [f"B{n:02d}" for n in LANDSAT["8"]]
    if which == "S30":
        codes[3] = "B8A"
    for band, code in enumerate(codes):
        values = numbers(reflectance[band], dtype="int16")
        raster(folder / name / f"{name}.{code}.tif", values, 30, nodata=-9999)
    side = reflectance.shape[1]
    raster(folder / name / f"{name}.Fmask.tif", np.zeros((side, side), np.uint8), 30, nodata=255)
    return folder / name


def maja(
    folder: Path, reflectance: NDArray[Any], *, sre: bool = True, clm: NDArray[Any] | None = None
) -> Path:
    """A product of MAJA as THEIA delivers it; SRE, before slopes are corrected, is darker."""
    name = "SENTINEL2A_20220601-101559-024_L2A_T33UUP_C_V3-0"
    root = folder / name
    for band, (code, metres) in enumerate(CODES):
        step, code = metres // 10, code.replace("B0", "B")
        values = numbers(reflectance[band, ::step, ::step], dtype="int16")
        values[0, 0] = -10000
        raster(root / f"{name}_FRE_{code}.tif", values, metres)
        if sre:
            darker = np.where(values == -10000, values, values // 2)
            raster(root / f"{name}_SRE_{code}.tif", darker, metres)
    side = reflectance.shape[1]
    layer = np.zeros((side, side), np.uint8) if clm is None else clm
    raster(root / "MASKS" / f"{name}_CLM_R1.tif", layer)
    raster(root / "MASKS" / f"{name}_CLM_R2.tif", layer[::2, ::2], 20)
    raster(root / f"{name}_ATB_R1.tif", np.zeros((side, side), np.uint8))
    (root / f"{name}_MTD_ALL.xml").write_text(
        '<?xml version="1.0"?><Muscate_Metadata_Document><Radiometric_Informations>'
        "<REFLECTANCE_QUANTIFICATION_VALUE>10000</REFLECTANCE_QUANTIFICATION_VALUE>"
        '<SPECIAL_VALUE name="nodata">-10000</SPECIAL_VALUE></Radiometric_Informations>'
        "</Muscate_Metadata_Document>"
    )
    return root


#: PlanetScope's coefficients, of one scene's four bands, and of eight.
COEFFICIENTS = (2.1e-5, 2.2e-5, 2.4e-5, 3.6e-5, 2.0e-5, 2.3e-5, 2.5e-5, 3.7e-5)
PLANET = {4: (0, 1, 2, 3), 8: (None, 0, None, 1, None, 2, None, 3)}


def planet(
    folder: Path,
    reflectance: NDArray[Any],
    *,
    count: int = 4,
    surface: bool = True,
    metadata: bool = True,
    udm2: NDArray[Any] | None = None,
) -> Path:
    """An order of PlanetScope: four or eight bands, surface reflectance or radiance, and udm2."""
    scene = "20220601_101559_24_2414" if count == 8 else "20200601_101559_1032"
    eight = "_8b" if count == 8 else ""
    root = folder / "PSScene"
    values = np.empty((count, *reflectance.shape[1:]), np.uint16)
    for i, source in enumerate(PLANET[count]):
        scale = 1e-4 if surface else COEFFICIENTS[i]
        values[i] = numbers(reflectance[source or 0], scale)
    name = f"{scene}_3B_AnalyticMS{'_SR' if surface else ''}{eight}_clip.tif"
    root.mkdir(parents=True)
    make_raster(root / name, values, transform=grid(3))
    side = reflectance.shape[1]
    mask = np.zeros((8, side, side), np.uint8)
    mask[0] = 1
    make_raster(root / f"{scene}_3B_udm2_clip.tif", mask if udm2 is None else udm2,
                transform=grid(3))  # fmt: skip
    if metadata:
        bands = "".join(
            f"<ps:bandSpecificMetadata><ps:bandNumber>{i + 1}</ps:bandNumber>"
            "<ps:radiometricScaleFactor>0.01</ps:radiometricScaleFactor>"
            f"<ps:reflectanceCoefficient>{COEFFICIENTS[i]}</ps:reflectanceCoefficient>"
            "</ps:bandSpecificMetadata>"
            for i in range(count)
        )
        (root / f"{scene}_3B_AnalyticMS{eight}_metadata_clip.xml").write_text(
            '<?xml version="1.0"?><ps:EarthObservation xmlns:ps="http://schemas.planet.com/ps/v1/'
            f'planet_product_metadata_geocorrected_level">{bands}</ps:EarthObservation>'
        )
    return root


def dimap(
    folder: Path,
    reflectance: NDArray[Any],
    *,
    dtype: str = "uint16",
    scale: float = 1e-4,
    offset: float = -0.1,
) -> Path:
    """BEAM-DIMAP of SNAP: a .dim and a .data folder of ENVI files."""
    name = "S2A_MSIL2A_20220601T101559_N0400_R065_T33UUP_20220601T162012_resampled"
    bands = []
    (folder / f"{name}.data").mkdir(parents=True)
    for band, (code, _) in enumerate(CODES):
        code = code.replace("B0", "B")
        values = reflectance[band].astype(np.float32)
        if not dtype.startswith("float"):
            values = numbers(reflectance[band], scale, offset, dtype)
        path = folder / f"{name}.data" / f"{code}.img"
        height, width = values.shape
        with rasterio.open(
            path, "w", driver="ENVI", height=height, width=width, count=1, dtype=values.dtype,
            crs="EPSG:32633", transform=grid(10),
        ) as dataset:  # fmt: skip
            dataset.set_band_description(1, code)  # SNAP writes the band's name into the .hdr
            dataset.write(values[None])
        path.with_suffix(".img.aux.xml").unlink(missing_ok=True)
        real = dtype.startswith("float")
        bands.append(
            f"<Spectral_Band_Info><BAND_INDEX>{band}</BAND_INDEX><BAND_NAME>{code}</BAND_NAME>"
            f"<DATA_TYPE>{dtype}</DATA_TYPE><PHYSICAL_UNIT>dl</PHYSICAL_UNIT>"
            f"<SCALING_FACTOR>{1.0 if real else scale}</SCALING_FACTOR>"
            f"<SCALING_OFFSET>{0.0 if real else offset}</SCALING_OFFSET>"
            "<LOG10_SCALED>false</LOG10_SCALED><NO_DATA_VALUE_USED>true</NO_DATA_VALUE_USED>"
            "<NO_DATA_VALUE>0.0</NO_DATA_VALUE></Spectral_Band_Info>"
        )
    (folder / f"{name}.dim").write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?><Dimap_Document name="x.dim">'
        f"<Dataset_Id><DATASET_NAME>{name}</DATASET_NAME></Dataset_Id>"
        f"<Image_Interpretation>{''.join(bands)}</Image_Interpretation></Dimap_Document>"
    )
    return folder / f"{name}.dim"
