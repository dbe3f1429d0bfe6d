"""What a user may ask of ``geoseg evaluate``, checked one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import UsageError
from geoseg.scene.sources import Rules

__all__ = ["EvaluateOptions"]


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of :func:`geoseg.evaluate`, most of them under the command line's names.

    Attributes:
        points: vector file of labelled points: a random sample with the map's classes as strata,
            as :func:`geoseg.sample` draws it.
        labels: raster of labels on any grid, with the map's ids, or vector file of polygons; in
            any CRS. At the centre of each of the map's pixels the label is taken that is there.
            Where polygons of different classes overlap, there is none.
        column: of points or polygons, with the name or id of the class that is really there, empty
            where nobody looked; None takes ``reference`` of points, and ``class_id`` of polygons.
            Points of a class that the map does not have are errors of the map.
        ignore: labels that mean no class ("cloud", 0): ids, or for points and polygons names, too.
        colors: of labels that are a mask in class colours, each as "NAME=#RRGGBB"; any other
            colour is ignored. The command line's ``--class``.
        scene: what the model maps, as :func:`geoseg.predict` takes it. The map and its
            probabilities go into the system's temporary folder (TMPDIR) and are removed.
        bands: of the scene, as for :func:`geoseg.predict`.
        band_names: of the scene, as for :func:`geoseg.predict`.
        scale: quantity per number of the scene.
        offset: quantity at number 0 of the scene.
        src_nodata: the scene's number for "not measured".
        nearblack: as for :func:`geoseg.predict`.
        stretch: as for :func:`geoseg.predict`.
        input_root: folders into which files may point, besides their own.
        allow_vrt: ``any`` lets files point anywhere.
        device: where the model runs.
        threads: how many compute on a CPU; None for one a core.
        probs: raster of the map's probabilities, as ``geoseg predict --probs`` writes it: they are
            compared with how often the map is right. With ``scene`` they are at hand anyway.
        boundary_tolerance: metres by which a border may lie elsewhere, for the boundary F1; by
            default twice the side of a pixel in the map's middle.
        json: file for the report.
        csv: file for a table, one measure a line.
        html: file for a page with tables and pictures.
        write_card: put the scores into the card of the model, under ``evaluations``.
        write_temperature: put the temperature that fits these labels into the card, so that the
            model's probabilities are right on average from then on.
        overwrite: replace files that exist.
    """

    points: str | Path | None = None
    labels: str | Path | None = None
    column: str | None = None
    ignore: Sequence[int | str] = ()
    colors: Sequence[str] = ()
    scene: str | Path | Sequence[str | Path] | None = None
    bands: str | None = None
    band_names: str | None = None
    scale: float | None = None
    offset: float | None = None
    src_nodata: float | None = None
    nearblack: bool = False
    stretch: tuple[float, float] | None = None
    input_root: str | Path | Sequence[str | Path] = ()
    allow_vrt: str = "local"
    device: str = "auto"
    threads: int | None = None
    probs: str | Path | None = None
    boundary_tolerance: float | None = None
    json: str | Path | None = None
    csv: str | Path | None = None
    html: str | Path | None = None
    write_card: bool = False
    write_temperature: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without files.

        Raises:
            UsageError: the options contradict each other, or one is out of range.
        """
        builtin_fields(self)
        if (self.points is None) == (self.labels is None):
            raise UsageError("give either points (--points) or labels (--labels)")
        if self.points is not None:
            for name in ("probs", "boundary_tolerance"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"--{name.replace('_', '-')} is for labels; leave it out with --points"
                    )
        if self.colors and (self.points is not None or self.column is not None or self.ignore):
            raise UsageError(
                "--class gives the colours of a mask (--labels), of which all others are ignored; "
                "leave --points, --column and --ignore out"
            )
        tolerance = self.boundary_tolerance
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise UsageError(f"the boundary tolerance is {tolerance:g} m; it must be at least 0")
        Rules.of(self.input_root, self.allow_vrt)

    @property
    def rules(self) -> Rules:
        """What the files may point to."""
        return Rules.of(self.input_root, self.allow_vrt)

    @property
    def reading(self) -> dict[str, Any]:
        """How the scene is read: the options of that by name."""
        names = ("bands", "band_names", "scale", "offset", "src_nodata", "nearblack", "stretch")
        return {name: getattr(self, name) for name in names}
