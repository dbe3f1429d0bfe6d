"""Texts that name other files: which they name, and whether they are of a kind that can be judged.

Virtual rasters (VRT) and the metadata that GDAL keeps beside a raster (``.aux.xml``) are XML. GDAL
reads XML in its own way: without regard to case or namespaces, taking attributes for elements, and
going on where it is not well-formed. So everything in a text must be known, or the text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

__all__ = [
    "FOLLOWED",
    "MAX_BYTES",
    "Pointer",
    "RefusedError",
    "may_name_files",
    "metadata_pointers",
    "vrt_pointers",
]

#: Of a text; GDAL's virtual raster of 10,000 tiles in four bands has 30 MB.
MAX_BYTES = 256 << 20

#: Metadata domain -> keys in it that GDAL takes for files' names.
FOLLOWED = {
    "OVERVIEWS": ("OVERVIEW_FILE",),
    "GEOLOCATION": ("X_DATASET", "Y_DATASET"),
}

#: Elements of a virtual raster that hold the name of a file.
_NAMES = {"sourcefilename", "sourcedataset"}
#: Elements that hold a CRS; some of GDAL's readers would fetch one from an address or a file.
_CRS = {"srs", "sourcesrs", "targetsrs", "sourcecrs", "targetcrs", "gcpprojection"}
_CRS_TEXT = re.compile(
    r"\s*$|\s*[A-Za-z_]+\s*\[.*|\s*(EPSG|ESRI|IGNF|OGC|IAU_2015)\s*:\s*[\w.]+(\+\d+)?\s*$|"
    r"\s*urn:[\w:.,+-]+\s*$|\s*\+proj=.*|\s*(WGS84|WGS72|NAD83|NAD27)\s*$|\s*\{.*",
    re.I | re.S,
)
#: All other elements of virtual rasters; neither raw nor derived bands, nor processed ones.
_ELEMENTS = _NAMES | _CRS | set(
    re.findall(r"\w+", """
    vrtdataset vrtrasterband maskband overview overviewlist blockxsize blockysize geotransform
    gcplist gcp metadata mdi description unittype offset scale categorynames category colortable
    entry colorinterp nodatavalue hidenodatavalue histograms histitem histmin histmax bucketcount
    includeoutofrange approximate histcounts gdalrasterattributetable fielddefn name type usage row
    f
    simplesource complexsource averagedsource kernelfilteredsource nodatafromcomplexsource
    sourceband sourceproperties srcrect dstrect openoptions ooi nodata scaleoffset scaleratio
    colortablecomponent exponent srcmin srcmax dstmin dstmax clamp lut usemaskband kernel size coefs
    pansharpeningoptions algorithm algorithmoptions weights resampling numthreads bitdepth
    spatialextentadjustment panchroband spectralband
    gdalwarpoptions warpmemorylimit resamplealg workingdatatype option bandlist bandmapping
    srcnodatareal srcnodataimag dstnodatareal dstnodataimag srcalphaband dstalphaband initdest
    transformer genimgprojtransformer approxtransformer maxerror basetransformer srcgeotransform
    srcinvgeotransform dstgeotransform dstinvgeotransform reprojecttransformer
    reprojectiontransformer reversetransform options areaofinterest westlongitude southlatitude
    eastlongitude northlatitude cutline cutlineblenddist srcgcptransformer gcptransformer order
    reversed refine minimumgcps tolerance tpstransformer srctpstransformer checkwithinvertproj
    """)
)  # fmt: skip
_ATTRIBUTES = set(
    re.findall(r"\w+", """
    rasterxsize rasterysize subclass datatype band blockxsize blockysize relativetovrt shared xoff
    yoff xsize ysize domain format key name resampling resample sampling dataaxistosrsaxismapping
    coordinateepoch projection id info pixel line x y z c1 c2 c3 c4 src dst dstband normalized index
    row0min binsize tabletype maskband
    """)
)  # fmt: skip
_SUBCLASSES = {
    "vrtsourcedrasterband", "vrtwarpedrasterband", "vrtpansharpenedrasterband",
    "vrtwarpeddataset", "vrtpansharpeneddataset",
}  # fmt: skip
_ALL_KEYS = [key for keys in FOLLOWED.values() for key in keys]
#: How a source is opened: what does not change which files are read.
_OPEN_OPTIONS = {"overview_level", "num_threads", "georef_sources"}


class RefusedError(Exception):
    """Why a text is not followed: what stands in it."""


class Pointer(NamedTuple):
    """A name in a text.

    Attributes:
        name: as GDAL takes it.
        relative: to the text's folder; else to the current one.
    """

    name: str
    relative: bool

    @classmethod
    def of_metadata(cls, value: str) -> Pointer:
        """As GDAL takes the value of a key in :data:`FOLLOWED`."""
        base = ":::BASE:::"
        beside = value.upper().startswith(base)
        return cls(value[len(base) :] if beside else value, beside)


def vrt_pointers(path: Path) -> list[Pointer]:
    """Find what a virtual raster names.

    Args:
        path: of a file on this machine.

    Raises:
        RefusedError: it holds what names can't be judged by, or is no sound XML.
        OSError: it can't be read.
    """
    found: list[Pointer] = []
    tags: set[str] = set()

    def element(tag: str, attributes: dict[str, str], text: str, domain: str | None) -> None:
        if domain is not None:  # within metadata anything may stand, XML of others included
            _add_metadata(tag, attributes, text, domain, found)
            return
        if tag not in _ELEMENTS:
            raise RefusedError(f"<{tag}>, which geoseg does not know to be harmless")
        for name, value in attributes.items():
            if name not in _ATTRIBUTES:
                raise RefusedError(
                    f"the attribute {name!r}, which geoseg does not know to be harmless"
                )
            if name == "projection" and not _CRS_TEXT.match(value):
                raise RefusedError(f"{value[:60]!r} for a CRS; it must stand there itself")
            if name == "subclass" and value.lower() not in _SUBCLASSES:
                raise RefusedError(f"bands of the kind {value} (raw, derived or computed)")
        if tag == "ooi" and attributes.get("key", "").lower() not in _OPEN_OPTIONS:
            raise RefusedError(f"the open option {attributes.get('key')!r}")
        if tag in _CRS and not _CRS_TEXT.match(text):
            raise RefusedError(f"{text[:60]!r} for a CRS; it must stand there itself")
        if tag in _NAMES:
            relative = attributes.get("relativetovrt", "0")
            if relative not in ("0", "1"):
                raise RefusedError(f"relativeToVRT={relative!r}")
            found.append(Pointer(text.lstrip(), relative == "1"))
        tags.add(tag)

    _parse(_bytes(path), element)
    if "vrtdataset" not in tags:
        raise RefusedError("no <VRTDataset>")
    return list(dict.fromkeys(found))


def metadata_pointers(path: Path) -> list[Pointer]:
    """Find what a ``.aux.xml`` names that GDAL opens.

    Args:
        path: of a file on this machine.

    Raises:
        RefusedError: it is no sound XML.
        OSError: it can't be read.
    """
    found: list[Pointer] = []

    def element(tag: str, attributes: dict[str, str], text: str, domain: str | None) -> None:
        _add_metadata(tag, attributes, text, domain or "", found)

    data = _bytes(path)
    # Much honest metadata is no sound XML; it matters only where such a key may stand in it.
    if may_name_files(data):
        _parse(data, element)
    return found


def may_name_files(metadata: bytes) -> bool:
    """Whether one of the keys in :data:`FOLLOWED` may stand in metadata, also spelt by numbers.

    Args:
        metadata: XML as it is in a file.
    """
    folded = metadata.lower()
    return b"&#" in metadata or any(key.lower().encode() in folded for key in _ALL_KEYS)


def _add_metadata(
    tag: str, attributes: dict[str, str], text: str, domain: str, found: list[Pointer]
) -> None:
    """Add the name in an item of metadata, where it is one of those that GDAL opens."""
    keys = FOLLOWED.get(domain.upper(), ())
    if tag == "mdi" and attributes.get("key", "").upper() in keys and text.strip():
        found.append(Pointer.of_metadata(text.lstrip()))


def _bytes(path: Path) -> bytes:
    """Read a text as it is.

    Raises:
        RefusedError: it is too long.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise RefusedError(f"more than {MAX_BYTES >> 20} MB of text")
    return data


def _parse(data: bytes, element: Callable[[str, dict[str, str], str, str | None], None]) -> None:
    """Call back for each element, with names in lower case.

    Args:
        data: the text.
        element: takes its name, attributes and text, and the domain of the metadata around it,
            None outside of any.

    Raises:
        RefusedError: the text is no sound XML in UTF-8, or defines entities.
    """
    open_: list[tuple[str, dict[str, str], list[str], str | None]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        known = {name.lower(): value for name, value in attributes.items()}
        domain = open_[-1][3] if open_ else None
        if tag.lower() == "metadata":
            domain = known.get("domain", "")
        open_.append((tag.lower(), known, [], domain))

    def end(tag: str) -> None:
        name, attributes, texts, domain = open_.pop()
        element(name, attributes, "".join(texts), domain)

    def text(part: str) -> None:
        if open_:
            open_[-1][2].append(part)

    def entities(*_: object) -> None:
        raise RefusedError("a document type or a processing instruction")

    # Whatever encoding it declares, GDAL takes the bytes as they are.
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = entities
    parser.EntityDeclHandler = entities
    parser.ProcessingInstructionHandler = entities
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise RefusedError(f"what is no sound XML ({error})") from error
