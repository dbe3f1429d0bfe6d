"""What a scene is: its bands, by name as far as names, codes and the sensor say, and its files.

:mod:`geoseg.scene.opening` makes one of what the user names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.wording import counted
from geoseg.errors import BandError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.clouds import CloudRule
from geoseg.scene.dates import dates_of
from geoseg.scene.scene_band import SceneBand, finest_grid
from geoseg.scene.sensors import (
    BAND_NAMES,
    STAND_INS,
    Sensor,
    band_code,
    band_name,
)

__all__ = [
    "CloudLayer",
    "FoundClouds",
    "ItemSource",
    "Scene",
]

#: Bands that a message lists.
MOST_SHOWN = 20


@dataclass(frozen=True)
class CloudLayer:
    """A raster that says which pixels of a scene are clouds.

    Attributes:
        band: of the raster, whole numbers.
        rule: which of them are left out.
        source: the asset or file that it is.
        buffer: how far around clouds and their shadows all is left out, metres.
    """

    band: SceneBand
    rule: CloudRule
    source: str
    buffer: float = 0.0

    @property
    def grid(self) -> PixelGrid:
        """Where its pixels lie."""
        return self.band.grid

    @property
    def name(self) -> str:
        """What shows the clouds, for people."""
        return self.rule.name

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it is read from."""
        return (self.band.path,)

    @property
    def record(self) -> list[Any]:
        """All that says which pixels are left out, but for the files' content, for JSON."""
        return [self.source, self.rule.name, *astuple(self.rule)[1:4], self.buffer]


@dataclass(frozen=True)
class FoundClouds:
    """Clouds that no raster's numbers show.

    Attributes:
        name: what shows them, for people.
        source: the file or package that it is.
        grid: on which they are found, of all of the scene.
        finder: gives in a ``with`` a function: window of the grid -> (H, W), True = a cloud or its
            shadow. It gives a pixel the same in whichever window.
        buffer: how far around them all is left out, metres.
        paths: the files that they are found by, but for the scene's.
        about: what else they depend on, for JSON.
        by: the model that finds them, by name; empty where it is none.
    """

    name: str
    source: str
    grid: PixelGrid
    finder: Callable[[], AbstractContextManager[Callable[[Window], NDArray[np.bool_]]]]
    buffer: float = 0.0
    paths: tuple[str, ...] = ()
    about: tuple[Any, ...] = ()
    by: str = ""

    @property
    def record(self) -> list[Any]:
        """All that says which pixels are left out, but for the files' content, for JSON."""
        return [self.source, self.name, *self.about, self.buffer]


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
        clouds: what says which pixels are clouds, or None.
        notes: what the user should know.
        sensor_by: what says the sensor, in words.
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
    clouds: CloudLayer | FoundClouds | None = None
    notes: tuple[str, ...] = ()
    sensor_by: str = ""

    @property
    def grid(self) -> PixelGrid:
        """The grid of the finest band."""
        return finest_grid(self.bands)

    @property
    def all_files(self) -> tuple[str, ...]:
        """Every file that is read, here or on a server."""
        clouds = () if self.clouds is None else self.clouds.paths
        return tuple(dict.fromkeys([*self.paths, *clouds, *self.files]))

    @property
    def cloud_bands(self) -> tuple[SceneBand, ...]:
        """What is read to see where clouds are, besides the bands."""
        return (self.clouds.band,) if isinstance(self.clouds, CloudLayer) else ()

    def choose(self, wanted: Sequence[str], spec: str | None = None) -> tuple[SceneBand, ...]:
        """Choose the bands that a model needs, in the model's order.

        Args:
            wanted: the model's bands by name.
            spec: what the user says, comma-separated: band numbers from 1, in the model's order;
                or names, codes or labels that the scene carries, in any order.

        Raises:
            BandError: bands are missing, unknown or too few.
        """
        if spec is not None:
            return self._choose_by_spec(wanted, [s.strip() for s in spec.split(",") if s.strip()])
        by_name: dict[str, list[SceneBand]] = {}
        for band in self.bands:
            # A model may know a band by a word that geoseg does not.
            by_name.setdefault(band.name or band.label, []).append(band)
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
            self._check_dates(chosen, wanted)
            return tuple(chosen)
        raise BandError(self._missing(missing, wanted))

    def _check_dates(self, chosen: Sequence[SceneBand], wanted: Sequence[str]) -> None:
        """Refuse bands of several dates: what has changed in between would be mapped.

        Raises:
            BandError: their names have several.
        """
        if self.item is not None:
            return
        dates = dates_of([(band.label if band.has_words else "", band.path) for band in chosen])
        if len(dates) < 2:
            return
        shown = "; ".join(
            f"{day}: {', '.join(str(chosen[i]) for i in places)}"
            for day, places in sorted(dates.items())
        )
        raise BandError(
            f"{self.name}: its bands are of {len(dates)} dates by their names ({shown}), and a "
            f"scene is of one: give those of one date, or choose them with --bands, as band "
            f"numbers in the model's order: {', '.join(wanted)}"
        )

    def _missing(self, missing: Sequence[str], wanted: Sequence[str]) -> str:
        """Say which bands a model lacks, what there is, and what to do."""
        needs = f"the model needs {', '.join(wanted)}"
        if all(band.name is None for band in self.bands) and len(self.bands) >= len(wanted):
            return (
                f"{self.name}: {self._unnamed()}; {needs}: say what they are with --band-names, "
                f"one name a band in the file's order, or choose them with --bands, as band "
                f"numbers in the model's order"
            )
        return (
            f"{self.name}: band {', '.join(missing)} not found among {self._listed()}; {needs}: "
            f"choose another model (geoseg info shows which fit), or say with --band-names which "
            f"bands these are"
        )

    def _unnamed(self) -> str:
        """Say what the bands are called of which no name is known."""
        if not any(band.has_words for band in self.bands):
            return f"its {counted(len(self.bands), 'band')} carry no names"
        codes = self.sensor is None and any(band_code(band.label) for band in self.bands)
        why = " (codes mean nothing without the sensor, which is unknown)" if codes else ""
        return f"what its bands are called is not understood{why}: {self._listed()}"

    def _listed(self) -> str:
        """The bands, for messages."""
        if not any(band.name or band.has_words for band in self.bands):
            return f"{counted(len(self.bands), 'band')} without names"
        some = ", ".join(str(b) for b in self.bands[:MOST_SHOWN])
        more = len(self.bands) - MOST_SHOWN
        return f"{some} and {more} more" if more > 0 else some

    def _choose_by_spec(self, wanted: Sequence[str], items: list[str]) -> tuple[SceneBand, ...]:
        if len(items) != len(wanted):
            raise BandError(
                f"--bands gives {counted(len(items), 'band')}; the model needs {len(wanted)}: "
                f"{', '.join(wanted)} (numbers in this order, or names in any)"
            )
        if items and all(item.isascii() and item.isdecimal() for item in items):
            numbers = [int(item) for item in items]
            outside = [n for n in numbers if not 1 <= n <= len(self.bands)]
            if outside:
                raise BandError(
                    f"--bands names band {outside[0]}; {self.name} has bands 1 to {len(self.bands)}"
                )
            return tuple(self.bands[n - 1] for n in numbers)
        some = replace(self, bands=tuple(map(self._by_text, items)))
        try:
            return some.choose(wanted)
        except BandError as error:
            raise BandError(f"--bands {','.join(items)}: {error}") from error

    def find(self, text: str) -> list[SceneBand]:
        """Find the bands with this label, else this code, else this name."""
        code, name = band_code(text), band_name(text, self.sensor)
        return (
            [b for b in self.bands if b.label == text]
            or [b for b in self.bands if code is not None and band_code(b.label) == code]
            or [b for b in self.bands if name is not None and b.name == name]
        )

    def _by_text(self, text: str) -> SceneBand:
        found = self.find(text)
        if len(found) != 1:
            wrong = f"{len(found)} bands" if found else "no band"
            raise BandError(
                f"--bands: {self.name} has {wrong} {text!r}; it has {self._listed()}: give names "
                f"that it has, or band numbers in the model's order; or say what its bands are "
                f"with --band-names"
            )
        return found[0]

    def with_names(self, spec: str | None) -> Scene:
        """Say what the bands are.

        Args:
            spec: names or the sensor's codes, comma-separated, one a band, in the scene's order;
                ``-`` for a band that is none of them. None leaves all as it is.

        Raises:
            BandError: a name is unknown, or they are not as many as there are bands.
        """
        if spec is None:
            return self
        items = [item.strip() for item in spec.split(",") if item.strip()]
        if len(items) != len(self.bands):
            raise BandError(
                f"--band-names gives {counted(len(items), 'name')} and {self.name} has "
                f"{self._listed()}: give one a band, in this order, and - for one that is no "
                f"band of a model's"
            )
        names = [None if item == "-" else band_name(item, self.sensor) for item in items]
        unknown = [i for i, n in zip(items, names, strict=True) if n is None and i != "-"]
        if unknown:
            raise BandError(
                f"--band-names: {unknown[0]!r} is no band name; known are {', '.join(BAND_NAMES)}, "
                f"and - for a band that is none of these"
            )
        notes = [
            f"the scene's {band} is taken as {name}, as --band-names says"
            for band, name in zip(self.bands, names, strict=True)
            if band.name not in (None, name) and name is not None
        ]
        bands = tuple(
            replace(b, name=n, named_by="--band-names")
            for b, n in zip(self.bands, names, strict=True)
        )
        return replace(self, bands=bands, notes=(*self.notes, *notes))
