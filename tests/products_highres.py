"""Deliveries of WorldView and Pléiades, tiny: true names, layouts and metadata, shortened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from tests.helpers import make_raster

GRID = Affine(0.5, 0, 516219.75, 0, -0.5, 6507229.75)
#: Letters of bands by the number of them, in the order of the files.
LETTERS = {1: ["P"], 3: ["R", "G", "B"], 4: ["B", "G", "R", "N"],
           8: ["C", "B", "G", "Y", "R", "RE", "N", "N2"]}  # fmt: skip


def imd(
    letters: Sequence[str], satellite: str, bits: int, band_id: str, enhancement: str = "Off"
) -> str:
    """An .IMD of version 28.3; of natural colour its groups are not in the file's order."""
    groups = sorted(letters, key="CBGYRN".find) if band_id == "RGB" else letters
    bands = "".join(
        f"BEGIN_GROUP = BAND_{letter}\n\tULLon =   15.27992605;\n\tabsCalFactor = 8.919e-03;\n"
        f"\teffectiveBandwidth = 6.000000e-02;\n\tTDILevel = 10;\nEND_GROUP = BAND_{letter}\n"
        for letter in groups
    )
    return (
        f'version = "28.3";\nimageDescriptor = "ORStandard2A";\nbandId = "{band_id}";\n'
        f'productLevel = "LV3D";\nradiometricLevel = "Corrected";\n'
        f'radiometricEnhancement = "{enhancement}";\nbitsPerPixel = {bits};\n{bands}'
        f'outputFormat = "GeoTIFF";\nBEGIN_GROUP = IMAGE_1\n\tsatId = "{satellite}";\n'
        f"\tcloudCover = 0.018;\nEND_GROUP = IMAGE_1\nEND;\n"
    )


def as_xml(text: str) -> str:
    """The same as X.XML, whose keys are in capitals."""
    out = []
    for line in text.splitlines():
        key, _, value = line.strip().rstrip(";").partition(" = ")
        if key == "BEGIN_GROUP":
            out.append(f"<{'IMAGE' if value == 'IMAGE_1' else value}>")
        elif key == "END_GROUP":
            out.append(f"</{'IMAGE' if value == 'IMAGE_1' else value}>")
        elif value:
            out.append(f"<{key.upper()}>{value.strip(chr(34))}</{key.upper()}>")
    return f'<?xml version="1.0"?><isd><IMD>{"".join(out)}</IMD></isd>'


def maxar(
    folder: Path,
    values: NDArray[Any],
    *,
    satellite: str = "WV02",
    bits: int = 16,
    xml: bool = False,
    band_id: str | None = None,
    enhancement: str = "Off",
    parts: int = 1,
) -> Path:
    """A folder with rasters of values (C, H, W), side by side, and their metadata."""
    root = folder / "056956784010_01_P001_MUL"
    stem = "16AUG31104614-M2AS{}-056956784010_01_P001"
    letters = LETTERS[len(values)]
    usual = {1: "P", 3: "RGB", 4: "BGRN", 8: "Multi"}[len(values)]
    text = imd(letters, satellite, bits, band_id or usual, enhancement)
    root.mkdir(parents=True)
    width = values.shape[2] // parts
    for i in range(parts):
        part = values[:, :, i * width : (i + 1) * width]
        name = stem.format(f"_R1C{i + 1}")
        make_raster(root / f"{name}.TIF", part, transform=GRID @ Affine.translation(i * width, 0))
    end = ".XML" if xml else ".IMD"
    (root / (stem.format("") + end)).write_text(as_xml(text) if xml else text)
    (root / (stem.format("") + ".TIL")).write_text('bandId = "Multi";\nnumTiles = 1;\n')
    return root


def airbus(
    folder: Path,
    pictures: dict[str, tuple[NDArray[Any], Sequence[str]]],
    *,
    mission: str = "PNEO",
    indexed: bool = True,
    processing: str = "BASIC",
    gain: float = 10000,
    bits: int = 12,
) -> Path:
    """A folder with rasters (C, H, W) and the identifiers of their bands, and a DIM_X.XML."""
    root = folder / f"IMG_01_{mission}_MS-FS"
    root.mkdir(parents=True)
    files, factors = [], ""
    for name, (values, bands) in pictures.items():
        make_raster(root / f"{name}.TIF", values, transform=GRID)
        indexes = "".join(
            f"<Raster_Index><BAND_ID>{b}</BAND_ID><BAND_INDEX>{i}</BAND_INDEX></Raster_Index>"
            for i, b in enumerate(bands, start=1)
        )
        shown = f"<Raster_Index_List>{indexes}</Raster_Index_List>" if indexed else ""
        files.append(
            f'<Data_Files><Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="{name}.TIF"/>'
            f"</Data_File><Raster_Display>{shown}<Special_Value><SPECIAL_VALUE_TEXT>NODATA"
            f"</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_COUNT>0</SPECIAL_VALUE_COUNT></Special_Value>"
            f"</Raster_Display></Data_Files>"
        )
        # Programs that add reflectance's factors do so whatever the numbers are.
        factors += "".join(
            f"<{kind}><BAND_ID>{b}</BAND_ID><GAIN>{gain}</GAIN><BIAS>0</BIAS></{kind}>"
            for kind in ("Band_Radiance", "Band_Reflectance")
            for b in bands
        )
    (root / f"DIM_{mission}3_202206011015590_MS-FS_ORT.XML").write_text(
        '<?xml version="1.0"?><Dimap_Document><Metadata_Identification>'
        '<METADATA_FORMAT version="2.15">DIMAP</METADATA_FORMAT></Metadata_Identification>'
        f"<Dataset_Sources><MISSION>{mission}</MISSION></Dataset_Sources>"
        "<Processing_Information><Product_Settings><Radiometric_Settings>"
        f"<RADIOMETRIC_PROCESSING>{processing}</RADIOMETRIC_PROCESSING></Radiometric_Settings>"
        f"</Product_Settings></Processing_Information><Raster_Data><Data_Access>{''.join(files)}"
        "</Data_Access><Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE><NBITS>16</NBITS>"
        "</Raster_Encoding></Raster_Data><Radiometric_Data><Dynamic_Range>"
        f"<ACQUISITION_RANGE>{bits}</ACQUISITION_RANGE><PRODUCT_RANGE>{bits}</PRODUCT_RANGE>"
        f"</Dynamic_Range><Radiometric_Calibration><Instrument_Calibration><Band_Measurement_List>"
        f"{factors}</Band_Measurement_List></Instrument_Calibration></Radiometric_Calibration>"
        "</Radiometric_Data></Dimap_Document>"
    )
    return root


def counts(count: int, side: int = 16, most: int = 2047) -> NDArray[np.uint16]:
    """What a sensor counts, (count, side, side)."""
    return np.random.default_rng(0).integers(1, most, (count, side, side)).astype(np.uint16)
