"""How programs spell the name of a band: what a description says apart from its decoration.

Earth Engine appends a reducer, GDAL's Sentinel-2 driver a wavelength, ENVI brackets and units, and
many put "Band 4" before. Pure text matching; what the parts mean stands in ``sensors.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Spelling", "read_spelling", "wavelength_of"]

_UNITS = {"nm": 1.0, "nanomet": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "micro": 1e3}
_LENGTH = re.compile(
    r"(?P<low>\d+(?:\.\d+)?)(?:\s*[-–]\s*(?P<high>\d+(?:\.\d+)?))?\s*"
    r"(?P<unit>nm|nanomet(?:er|re)s?|um|µm|μm|micromet(?:er|re)s?|microns?)(?![a-z])",
    re.IGNORECASE,
)
#: ACOLITE's names: rhos_665.
_RHO = re.compile(r"rho[stw]?_(\d{3,4})", re.IGNORECASE)
_CODE = re.compile(r"b0?(\d{1,2}a?)", re.IGNORECASE)
#: Words that go with any band's name and say nothing of which one it is.
_DECORATION = {
    *("sr", "toa", "boa", "toar", "surface", "reflectance", "refl", "rho", "rhos", "rhot", "rhow"),
    *("spectral", "vegetation", "central", "center", "centre", "wavelength", "of", "the"),
}
#: A reducer's result is still what the band is; a standard deviation or a count is not.
_REDUCERS = {
    *("mean", "average", "median", "medoid", "geomedian", "mode", "min", "max", "minimum"),
    *("maximum", "first", "last", "firstnonnull", "lastnonnull", "mosaic"),
}
_PERCENTILE = re.compile(r"p\d{1,3}", re.IGNORECASE)
_DATE = re.compile(r"(19|20)\d{6}")
#: Keys of a band's metadata that hold its wavelength, and those that hold the unit.
_KEYS = ("centralwavelengthum", "centralwavelength", "centerwavelength", "centrewavelength")
_UNIT_KEYS = ("wavelengthunits", "wavelengthunit")


@dataclass(frozen=True)
class Spelling:
    """What a description says.

    Attributes:
        words: what is left of it, letters and digits in lower case; "" where nothing is.
        code: of the band, without leading zero: ``4`` of B04, ``8A``; or None.
        wavelength: nm, or None.
    """

    words: str
    code: str | None
    wavelength: float | None


def read_spelling(text: str) -> Spelling:
    """Take a description apart.

    >>> read_spelling("B4, central wavelength 665 nm")
    Spelling(words='', code='4', wavelength=665.0)
    >>> read_spelling("Band 4 - Near Infrared")
    Spelling(words='nearinfrared', code=None, wavelength=None)
    >>> read_spelling("red_p50").words, read_spelling("red_stdDev").words
    ('red', 'redstddev')
    """
    found = list(_LENGTH.finditer(text))
    wavelength = None
    if len(found) == 1:
        length = found[0]
        ends = [float(length[end]) for end in ("low", "high") if length[end]]
        wavelength = sum(ends) / len(ends) * _unit(length["unit"])
        text = text[: length.start()] + " " + text[length.end() :]
    elif match := _RHO.fullmatch(text.strip()):
        return Spelling("", None, float(match[1]))
    tokens = [token.lower() for token in re.split(r"[\W_]+", text) if token]
    while tokens and (tokens[-1] in _REDUCERS or _PERCENTILE.fullmatch(tokens[-1])):
        tokens.pop()
    while tokens and (tokens[0] in _REDUCERS or _DATE.fullmatch(tokens[0])):
        tokens.pop(0)
    words, codes = _sorted(tokens)
    if len(codes) > 1:
        words += codes
    code = codes[0].upper() if len(codes) == 1 else None
    return Spelling("".join(words), code, wavelength)


def _sorted(tokens: list[str]) -> tuple[list[str], list[str]]:
    """Part words from codes; decoration, and a band's place in its file, are left out."""
    words: list[str] = []
    codes: list[str] = []
    before = ""
    for place, token in enumerate(tokens):
        numbered = before in ("band", "channel") or (place == 0 and len(tokens) > 1)
        if token in ("band", "channel") or token in _DECORATION or (token.isdigit() and numbered):
            pass
        elif match := _CODE.fullmatch(token):
            codes.append(match[1])
        else:
            words.append(token)
        before = token
    return words, codes


def wavelength_of(tags: Mapping[str, str]) -> float | None:
    """Find a band's wavelength in its metadata, nm; None where there is none.

    >>> wavelength_of({"CENTRAL_WAVELENGTH_UM": "0.665"}), wavelength_of({"wavelength": "560 nm"})
    (665.0, 560.0)
    """
    plain = {re.sub(r"[^a-z]", "", key.lower()): value.strip() for key, value in tags.items()}
    unit = next((plain[key] for key in _UNIT_KEYS if key in plain), "")
    for key in (*_KEYS, "wavelength"):
        value = plain.get(key, "")
        if match := _LENGTH.fullmatch(value):
            return float(match["low"]) * _unit(match["unit"])
        if re.fullmatch(r"\d+(\.\d+)?", value):
            number = float(value)
            factor = _unit(unit) if unit else (1e3 if number < 100 else 1.0)
            return round(number * (1e3 if key.endswith("um") else factor), 6)
    return None


def _unit(text: str) -> float:
    """Nanometres in a unit; 1 where it isn't known."""
    return next((nm for name, nm in _UNITS.items() if text.lower().startswith(name)), 1.0)
