"""What a scene is: its bands, by name as far as names, codes and the sensor say, and its files.

:mod:`geoseg.scene.opening` makes one of what the user names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from geoseg.core.wording import counted
from geoseg.errors import BandError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.clouds import CloudRule
from geoseg.scene.sensors import BAND_NAMES, STAND_INS, Sensor, band_code, common_name
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["CloudLayer", "ItemSource", "Scene", "SceneBand", "finest_grid", "pixel_size"]


@dataclass(frozen=True)
class SceneBand:
    """One band of a scene.

    Attributes:
        name: geoseg's band name, or None where it is not known.
        label: as found: description or file stem; ``#3`` where there is neither.
        path: the file.
        index: in the file, from 1.
        dtype: of the numbers.
        nodata: the number that stands for "not measured", or None.
        scale: quantity per number by the item or the file's tags, or None.
        offset: quantity at number 0 by the item or the file's tags, or None.
        grid: of the file.
        rules: what the file may point to.
        by_item: whether scale and offset are those of a STAC item, not the file's.
        alpha: whether a band that the file marks as alpha says what was measured; not where an
            item says that it is a band like others.
    """

    name: str | None
    label: str
    path: str
    index: int
    dtype: str
    nodata: float | None
    scale: float | None
    offset: float | None
    grid: PixelGrid
    rules: Rules = LOCAL
    by_item: bool = False
    alpha: bool = True

    def __str__(self) -> str:
        """Name and label, for messages."""
        return f"{self.name} ({self.label})" if self.name not in (None, self.label) else self.label


@dataclass(frozen=True)
class CloudLayer:
    """A raster that says which pixels of a scene are clouds.

    Attributes:
        band: of the raster, whole numbers.
        rule: which of them are left out.
        source: the asset or file that it is.
    """

    band: SceneBand
    rule: CloudRule
    source: str


@dataclass(frozen=True)
class ItemSource:
    """The STAC item that a scene was opened from.

    Attributes:
        id: its identifier.
        collection: of which it is a part, or None.
        href: its path or address; "" where that isn't known.
        datetime: when the scene was acquired, as the item has it, or None.
        baseline: of a Sentinel-2 product's processing, such as 400 for 04.00; None where unknown.
        offset_taken_off: whether the offset that the baseline adds was taken off again; None where
            the item says nothing of it.
    """

    id: str
    collection: str | None
    href: str
    datetime: str | None
    baseline: int | None = None
    offset_taken_off: bool | None = None


@dataclass(frozen=True)
class Scene:
    """What was opened. No file stays open.

    Attributes:
        name: the stem for outputs.
        paths: the files with bands.
        bands: all of them, except alpha.
        sensor: None where it is unknown.
        texts: file and folder names, for the sensor's conventions.
        tags: metadata of the first file.
        ignored: files of the folder that were not used, with the reason.
        files: all on this machine that are read: those behind virtual rasters, too, and what lies
            beside a file and describes it.
        item: the STAC item that it was opened from, or None.
        clouds: the layer that says which pixels are clouds, or None.
        notes: what the user should know.
    """

    name: str
    paths: tuple[str, ...]
    bands: tuple[SceneBand, ...]
    sensor: Sensor | None
    texts: tuple[str, ...]
    tags: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    item: ItemSource | None = None
    clouds: CloudLayer | None = None
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> PixelGrid:
        """The grid of the finest band."""
        return finest_grid(self.bands)

    @property
    def all_files(self) -> tuple[str, ...]:
        """Every file that is read, here or on a server."""
        clouds = () if self.clouds is None else (self.clouds.band.path,)
        return tuple(dict.fromkeys([*self.paths, *clouds, *self.files]))

    def choose(self, wanted: Sequence[str], spec: str | None = None) -> tuple[SceneBand, ...]:
        """Choose the bands that a model needs, in the model's order.

        Args:
            wanted: the model's bands by name.
            spec: what the user says, comma-separated. Band numbers from 1, or labels and names
                that the scene carries, choose bands in the model's order. For a scene whose bands
                carry no names, names say what each of its bands is, in the file's order.

        Raises:
            BandError: bands are missing, unknown or too few.
        """
        if spec is not None:
            return self._choose_by_spec(wanted, [s.strip() for s in spec.split(",") if s.strip()])
        by_name: dict[str, list[SceneBand]] = {}
        for band in self.bands:
            if band.name is not None:
                by_name.setdefault(band.name, []).append(band)
        chosen: list[SceneBand] = []
        missing: list[str] = []
        for name in wanted:
            # A band that the model needs itself does not stand in for another.
            others = (n for n in STAND_INS.get(name, ()) if n not in wanted)
            served = next((n for n in (name, *others) if n in by_name), None)
            if served is None:
                missing.append(name)
                continue
            if len(by_name[served]) > 1:
                twice = " and ".join(b.label for b in by_name[served])
                raise BandError(
                    f"{self.name}: {twice} are all {served}; say with --bands which ones to use, "
                    f"as band numbers in the model's order: {', '.join(wanted)}"
                )
            chosen += by_name[served]
        if not missing:
            return tuple(chosen)
        found = ", ".join(str(b) for b in self.bands)
        if not by_name and len(self.bands) >= len(wanted):
            raise BandError(
                f"{self.name}: its {counted(len(self.bands), 'band')} carry no names; the model "
                f"needs {', '.join(wanted)}: give them with --bands, as names in the file's "
                f"order or as band numbers in the model's order"
            )
        if not by_name:
            found = f"{counted(len(self.bands), 'band')} without names"
        raise BandError(
            f"{self.name}: band {', '.join(missing)} not found among {found}; "
            f"the model needs {', '.join(wanted)}: choose another model (geoseg info shows which "
            f"fit), or say with --bands which bands these are"
        )

    def _choose_by_spec(self, wanted: Sequence[str], items: list[str]) -> tuple[SceneBand, ...]:
        if all(item.isdecimal() for item in items) and items:
            self._check_count(wanted, items)
            numbers = [int(item) for item in items]
            outside = [n for n in numbers if not 1 <= n <= len(self.bands)]
            if outside:
                raise BandError(
                    f"--bands names band {outside[0]}; {self.name} has bands 1 to {len(self.bands)}"
                )
            return tuple(self.bands[n - 1] for n in numbers)
        if any(band.name for band in self.bands) or (items and all(map(self._find, items))):
            self._check_count(wanted, items)
            return tuple(self._by_text(item) for item in items)
        names = [common_name(item) for item in items]
        unknown = [item for item, name in zip(items, names, strict=True) if name is None]
        if unknown:
            raise BandError(
                f"--bands: {unknown[0]!r} is no band name; known are {', '.join(BAND_NAMES)}"
            )
        if len(items) != len(self.bands):
            raise BandError(
                f"--bands gives {counted(len(items), 'name')} and {self.name} has "
                f"{counted(len(self.bands), 'band')} without names: give one name a band in "
                f"the file's order, or band numbers"
            )
        named = tuple(replace(b, name=n) for b, n in zip(self.bands, names, strict=True))
        return replace(self, bands=named).choose(wanted)

    def _check_count(self, wanted: Sequence[str], items: list[str]) -> None:
        if len(items) != len(wanted):
            raise BandError(
                f"--bands gives {counted(len(items), 'band')}; the model needs {len(wanted)}, "
                f"in this order: {', '.join(wanted)}"
            )

    def _find(self, text: str) -> list[SceneBand]:
        """Find the bands with this label, else this code, else this name."""
        code, name = band_code(text), common_name(text)
        return (
            [b for b in self.bands if b.label == text]
            or [b for b in self.bands if code is not None and band_code(b.label) == code]
            or [b for b in self.bands if name is not None and b.name == name]
        )

    def _by_text(self, text: str) -> SceneBand:
        found = self._find(text)
        if len(found) != 1:
            wrong = f"{len(found)} bands" if found else "no band"
            raise BandError(
                f"--bands: {self.name} has {wrong} {text!r}; it has "
                f"{', '.join(str(b) for b in self.bands)}: give labels, or band numbers"
            )
        return found[0]


def finest_grid(bands: Sequence[SceneBand]) -> PixelGrid:
    """Find the grid of the band with the smallest pixels."""
    # Thousands of bands of one file share a grid, and measuring it takes milliseconds.
    return min({id(b.grid): b.grid for b in bands}.values(), key=pixel_size)


def pixel_size(grid: PixelGrid) -> float:
    """Measure a pixel: square metres, or square CRS units where metres are not known."""
    return grid.pixel_area or abs(grid.transform.determinant)
