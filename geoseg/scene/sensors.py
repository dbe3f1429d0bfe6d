"""What band codes and numbers mean on each sensor: names, scales and offsets.

Pure tables and text matching; no file is opened here. To add a sensor: one entry in
:data:`SENSORS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from geoseg.scene.spelling import read_spelling

__all__ = [
    "BAND_NAMES",
    "SENSORS",
    "STAND_INS",
    "Sensor",
    "band_code",
    "band_name",
    "common_name",
    "detect_sensor",
    "sensor_with_reason",
]

# Spellings -> geoseg's band names. STAC eo:common_name values (EO extension 2.0), those of
# Earth Engine and QGIS exports, and plain words.
_SPELLINGS = {
    "coastal": "coastal coastalaerosol aerosol ultrablue violet",
    "blue": "blue",
    "green": "green",
    "red": "red",
    "rededge1": "rededge1 rededge071 vre1 rededge704",
    "rededge2": "rededge2 rededge075 vre2 rededge740",
    "rededge3": "rededge3 rededge078 vre3 rededge783",
    "nir": "nir nir1 nearinfrared nearir infrared",
    "nir08": "nir08 nirnarrow narrownir nir2 nira",
    "watervapor": "watervapor watervapour nir09",
    "cirrus": "cirrus",
    "swir1": "swir1 swir16 shortwaveinfrared1 swir1600",
    "swir2": "swir2 swir22 shortwaveinfrared2 swir2200",
    "pan": "pan panchromatic",
    "thermal1": "thermal thermal1 lwir lwir11 tir tir1 tirs1",
    "thermal2": "thermal2 lwir12 tir2 tirs2",
}
_NAMES = {word: name for name, words in _SPELLINGS.items() for word in words.split()}

#: Words that fit several bands, of which a code or a wavelength says which one it is.
_KINDS = {
    "rededge": ("rededge1", "rededge2", "rededge3"),
    "swir": ("swir1", "swir2"),
    "shortwaveinfrared": ("swir1", "swir2"),
}
#: Central wavelengths of bands, nm, on the sensors that geoseg knows and on those like them.
_WAVELENGTHS = {
    "coastal": (425, 448),
    "blue": (455, 500),
    "green": (540, 575),
    "red": (640, 680),
    "rededge1": (700, 712),
    "rededge2": (733, 748),
    "rededge3": (772, 790),
    "nir": (826, 850),
    "nir08": (855, 875),
    "watervapor": (935, 955),
    "cirrus": (1360, 1390),
    "swir1": (1560, 1660),
    "swir2": (2110, 2230),
    "thermal1": (10_500, 11_500),
    "thermal2": (11_800, 12_300),
}

#: The band names that geoseg knows.
BAND_NAMES = tuple(_SPELLINGS)

#: A model's band -> bands of a scene that may stand in for it, said aloud when it happens.
#: Landsat in STAC calls its only near-infrared band nir08.
STAND_INS = {"nir": ("nir08",), "nir08": ("nir",)}

_SENTINEL2 = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge1",
    "6": "rededge2",
    "7": "rededge3",
    "8": "nir",
    "8A": "nir08",
    "9": "watervapor",
    "10": "cirrus",
    "11": "swir1",
    "12": "swir2",
}
_LANDSAT_4_7 = {
    "1": "blue",
    "2": "green",
    "3": "red",
    "4": "nir",
    "5": "swir1",
    "6": "thermal1",
    "7": "swir2",
    "8": "pan",
}
_LANDSAT_8_9 = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "nir",
    "6": "swir1",
    "7": "swir2",
    "8": "pan",
    "9": "cirrus",
    "10": "thermal1",
    "11": "thermal2",
}


@dataclass(frozen=True)
class Sensor:
    """One sensor or product family.

    Attributes:
        name: as shown to people.
        pattern: regular expression found in a file's, folder's or tag's text.
        codes: band code without leading zero -> band name.
        scale: reflectance per number in integer files, or None where the numbers of the product
            are not reflectance.
        offset: reflectance at number 0.
        why: source of scale and offset, or why there are none.
        nodata: the number that its integer files hold where nothing was measured, by the
            product's specification; None where that is left to the files.
    """

    name: str
    pattern: str
    codes: Mapping[str, str] = field(default_factory=dict)
    scale: float | None = None
    offset: float = 0.0
    why: str = ""
    nodata: float | None = None


#: What names of PlanetScope's files begin with.
_PLANET = r"(?<!\d)\d{8}_\d{6}_(?:\d{2}_)?[0-9A-F]{4}_[13][AB]_ANALYTICMS"

#: In the order in which they are tried.
SENSORS: tuple[Sensor, ...] = (
    Sensor(
        "MAJA Sentinel-2",
        r"SENTINEL2[ABCD]_\d{8}-\d{6}-\d{3}_L2A",
        _SENTINEL2,
        1e-4,
        why="MAJA format of THEIA: reflectance x 10000, no offset",
        nodata=-10000.0,
    ),
    Sensor(
        "PlanetScope surface reflectance",
        _PLANET + r"(?:_8B)?_SR",
        scale=1e-4,
        why="PlanetScope product specification: surface reflectance x 10000",
        nodata=0.0,
    ),
    Sensor(
        "PlanetScope",
        _PLANET,
        why="radiance needs the scene's own reflectanceCoefficient from its metadata XML",
        nodata=0.0,
    ),
    # By what products/maxar.py and products/airbus.py read.
    Sensor(
        "WorldView, QuickBird, GeoEye",
        r"^MAXAR ",
        why="they count what the sensor saw; correct them to surface reflectance first, or order "
        "that (AComp: x 10000)",
    ),
    Sensor(
        "Pléiades, SPOT 6 and 7",
        r"^AIRBUS ",
        why="they count what the sensor saw; correct them to surface reflectance first, or order "
        "that (radiometric processing REFLECTANCE)",
    ),
    Sensor(
        "HLS Landsat (L30)",
        r"HLS[._]L30",
        _LANDSAT_8_9,
        1e-4,
        why="HLS user guide v2: reflectance x 10000",
        nodata=-9999.0,
    ),
    Sensor(
        "HLS Sentinel-2 (S30)",
        r"HLS[._]S30",
        _SENTINEL2,
        1e-4,
        why="HLS user guide v2: reflectance x 10000",
        nodata=-9999.0,
    ),
    Sensor(
        "Sentinel-2",
        r"S2[ABCD]_(?:OPER_)?MSI|SENTINEL[_ -]?2(?!\d)|"
        r"(?<![A-Z0-9])T\d{2}[C-HJ-NP-X][A-HJ-NP-Z]{2}_\d{8}T|"
        # Of Earth Search, whose names have the day alone.
        r"(?<![A-Z0-9])S2[ABCD]_T?\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z]{2}_\d{8}",
        _SENTINEL2,
        1e-4,
        why="Sentinel-2 quantification value: reflectance x 10000",
    ),
    Sensor(
        "Landsat 8-9 level 2",
        r"(?<![A-Z0-9])L[CO]0[89]_L2S[PR]",
        _LANDSAT_8_9,
        2.75e-5,
        -0.2,
        why="Landsat Collection 2 level 2: 0.0000275 DN - 0.2",
        nodata=0.0,
    ),
    Sensor(
        "Landsat 4-7 level 2",
        r"(?<![A-Z0-9])L[ET]0[457]_L2S[PR]",
        _LANDSAT_4_7,
        2.75e-5,
        -0.2,
        why="Landsat Collection 2 level 2: 0.0000275 DN - 0.2",
        nodata=0.0,
    ),
    Sensor(
        "Landsat MSS",
        r"(?<![A-Z0-9])LM0[1-5]_",
        why="the multispectral scanner numbers its bands unlike the other Landsats",
    ),
    Sensor(
        "Landsat 8-9",
        r"(?<![A-Z0-9])L[COT]0[89]_|LANDSAT[_ -]?[89](?!\d)",
        _LANDSAT_8_9,
        None,
        why="level-1 numbers need the scene's own REFLECTANCE_MULT and _ADD from its MTL file",
        nodata=0.0,
    ),
    Sensor(
        "Landsat 4-7",
        r"(?<![A-Z0-9])L[ET]0[457]_|LANDSAT[_ -]?[4-7](?!\d)",
        _LANDSAT_4_7,
        None,
        why="level-1 numbers need the scene's own REFLECTANCE_MULT and _ADD from its MTL file",
        nodata=0.0,
    ),
)

_CODE = re.compile(
    r"(?:^|[^A-Za-z0-9])(?:SR_|TOA_)?B0?(\d{1,2}A?)(?:[_ .-]\d{2}m)?$", re.IGNORECASE
)
_EACH_CODE = re.compile(r"(?<![A-Za-z0-9])B0?\d{1,2}A?(?![A-Za-z0-9])", re.IGNORECASE)


def common_name(text: str) -> str | None:
    """Find the band that a plain word names, or None.

    >>> common_name("SWIR-1"), common_name("Band 4 - Red"), common_name("B4")
    ('swir1', 'red', None)
    """
    whole = _NAMES.get(re.sub(r"[^a-z0-9]", "", text.lower()))
    return whole or _NAMES.get(read_spelling(text).words)


def band_code(text: str) -> str | None:
    """Find the band code in a description, or at the end of a file stem; or None.

    It comes without leading zero.

    >>> band_code("B8A"), band_code("T48QUE_20200223T032739_B02_10m"), band_code("red")
    ('8A', '2', None)
    """
    spelling = read_spelling(text)
    if spelling.code and _is_known(spelling.words):
        return spelling.code
    match = _CODE.search(text.strip())
    # What is made of two bands is none of them.
    return match.group(1).upper() if match and len(_EACH_CODE.findall(text)) == 1 else None


def _is_known(words: str) -> bool:
    return words in ("", *_NAMES, *_KINDS)


def detect_sensor(texts: Iterable[str], codes: Iterable[str] = ()) -> Sensor | None:
    """Find which sensor file names and tags speak of, or None.

    Args:
        texts: file and folder names, tag values; the most telling first.
        codes: the band codes found; B8A and B12 exist on Sentinel-2 alone. A B12 of bands that
            are numbered through from B1 says nothing.

    Returns:
        An entry of :data:`SENSORS`.
    """
    return sensor_with_reason(texts, codes)[0]


def sensor_with_reason(
    texts: Iterable[str], codes: Iterable[str] = ()
) -> tuple[Sensor | None, str]:
    """Find which sensor file names and tags speak of, and what says so.

    Args:
        texts: as for :func:`detect_sensor`.
        codes: as for :func:`detect_sensor`.

    Returns:
        An entry of :data:`SENSORS` or None, and the reason in words for people.
    """
    for text in texts:
        for sensor in SENSORS:
            if re.search(sensor.pattern, text.upper()):
                return sensor, f"named in {text!r}"
    found = set(codes)
    numbered = found == {str(i) for i in range(1, len(found) + 1)}
    own = {"8A", "12"} & found
    if own and found <= set(_SENTINEL2) and not numbered:
        sensor = next(s for s in SENSORS if s.name == "Sentinel-2")
        return sensor, f"only it has a band B{max(own)}"
    return None, "neither names nor tags name one"


def band_name(text: str, sensor: Sensor | None, wavelength: float | None = None) -> str | None:
    """Find the band that a description or file stem names, or None where it isn't known.

    A word, the sensor's code and the wavelength must not contradict each other.

    Args:
        text: ``"nir"``, ``"B08"``, ``"T48QUE_B02_10m"``, ``"B4, central wavelength 665 nm"``.
        sensor: codes mean nothing without it: B4 is red on Sentinel-2, near infrared on Landsat 7.
        wavelength: of the band by its metadata, nm.
    """
    spelling = read_spelling(text)
    word, code = common_name(text), band_code(text)
    if code is None and word is None and not _is_known(spelling.words):
        return None
    by_code = sensor.codes.get(code) if sensor is not None and code else None
    lengths = [_by_wavelength(nm) for nm in (spelling.wavelength, wavelength) if nm is not None]
    said = [name for name in (word, by_code, *lengths) if name is not None]
    kind = _KINDS.get(spelling.words) if word is None else None
    if not said or any(not _alike(said[0], other) for other in said):
        return None
    return said[0] if kind is None or said[0] in kind else None


def _by_wavelength(nanometres: float) -> str | None:
    """Find the band whose middle lies there, or None where none does."""
    return next(
        (name for name, (low, high) in _WAVELENGTHS.items() if low <= nanometres <= high), None
    )


def _alike(one: str, other: str) -> bool:
    """Whether two names don't contradict each other: sensors' near infrared bands differ."""
    return one == other or {one, other} <= {"nir", "nir08"}


def sentinel2_offset(
    texts: Iterable[str], tags: Mapping[str, str], baseline: int | None = None
) -> tuple[float | None, str]:
    """Find the reflectance offset of a Sentinel-2 product.

    From processing baseline 04.00 on, 1000 is added to the numbers so that dark pixels need not be
    cut at 0 (ESA, S2 products specification 14.9: RADIO_ADD_OFFSET at level 1C, BOA_ADD_OFFSET at
    level 2A). When a scene was acquired says nothing: ESA has processed old scenes anew, and some
    archives take the 1000 off again.

    Args:
        texts: file and folder names.
        tags: the file's metadata.
        baseline: of the processing, such as 400 for 04.00, where metadata give it.

    Returns:
        (offset in reflectance, where it comes from). The offset is None where nothing says
        whether the 1000 is in the numbers.
    """
    for key, value in tags.items():
        number = re.match(r"\s*(-?\d+(\.\d*)?)", value)
        if key.upper().startswith(("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET")) and number:
            return float(number.group(1)) * 1e-4, f"tag {key}"
    # What programs take over from a product's metadata.
    said = re.fullmatch(r"(0\d)\.(\d\d)", tags.get("PROCESSING_BASELINE", "").strip())
    if baseline is None and said:
        baseline = int(said[1] + said[2])
    if baseline is not None:
        return baseline_offset(baseline)
    for text in (tags.get("PRODUCT_URI", ""), *texts):
        # N9999 marks processing by other than ESA's chain, whose offset the name doesn't say.
        match = re.search(r"_N(0\d{3})_", text.upper())
        if match:
            return baseline_offset(int(match.group(1)))
    return None, "no processing baseline found"


def baseline_offset(baseline: int) -> tuple[float, str]:
    """Find the offset in reflectance of a processing baseline, and say why.

    Args:
        baseline: such as 400 for 04.00.
    """
    if baseline >= 400:
        return -0.1, f"processing baseline N{baseline:04d} adds 1000"
    return 0.0, f"processing baseline N{baseline:04d} adds nothing"
