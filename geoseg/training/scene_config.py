"""One scene of a recipe: its files, and how they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import TrainingError
from geoseg.labels.vector_files import is_vector
from geoseg.scene.sources import Rules

__all__ = ["SceneConfig", "is_color"]


def is_color(text: str) -> bool:
    """Say whether a text is a colour as ``#RRGGBB``."""
    return re.fullmatch("#[0-9A-Fa-f]{6}", text) is not None


@dataclass(frozen=True)
class SceneConfig:
    """One scene of the recipe.

    Attributes:
        path: a raster file, or a folder of one-band files.
        labels: what is there: rasters of class ids or of class colours, or vector files; where
            several say something of a pixel, the first one counts. Empty: only a teacher knows.
        place: scenes of one place lie on the same side of the split; by default each is its own.
        group: of places that are alike, such as a biome, for a split by groups.
        split: ``train`` or ``validation`` (for a split by scenes).
        label_map: what stands in the labels -> what it means: a class, or a set of the recipe's
            ``sets``; in place of ``label_values``, for labels with a legend of their own. In
            rasters it is an id or a colour ``#RRGGBB``, in a vector's column a text or an id.
        everywhere: the class or set that all of the scene is, where no label says otherwise.
        weight: how often chips are laid in it, as a multiple of what its pixels alone would have:
            below 1 for one of many alike, above for one that says what no other does.
        column: the column of vector labels that holds the class.
        ignore_label: ids, or names in a vector's column, that mean no class.
        radius: metres around points and lines of vector labels that are of their class.
        bands: as ``geoseg predict --bands``: numbers in the recipe's order, or names that the
            scene carries.
        band_names: as ``geoseg predict --band-names``: names of all bands, in the file's order,
            for files that don't name them.
        derive: bands that a teacher needs and the scene has not, such as the red edge of Landsat:
            they are what the recipe's other bands lead one to expect, by a fit over the scenes that
            have them. The network itself never sees them.
        scale: quantity per number, in place of what the file or its sensor says.
        offset: quantity at number 0, in place of what the file or its sensor says.
        src_nodata: the number that means "not measured".
        nearblack: make what is near black and connected to the scene's edge nodata.
        input_root: folders into which the scene's and the labels' files may point, besides their
            own.
        allow_vrt: ``any`` lets them point anywhere.
        window: (row, col, height, width), px: the part of the scene to use; None is all of it.
        ignore: such windows in which the target is wrong or unknown.
    """

    path: Path
    labels: tuple[Path, ...] = ()
    place: str = ""
    group: str = ""
    split: str = "train"
    label_map: Mapping[str, str] = field(default_factory=dict)
    everywhere: str = ""
    weight: float = 1.0
    column: str | None = None
    ignore_label: tuple[int | str, ...] = ()
    radius: float = 0.0
    bands: tuple[str, ...] = ()
    band_names: tuple[str, ...] = ()
    derive: tuple[str, ...] = ()
    scale: float | None = None
    offset: float | None = None
    src_nodata: float | None = None
    nearblack: bool = False
    input_root: tuple[str, ...] = ()
    allow_vrt: str = "local"
    window: tuple[int, int, int, int] | None = None
    ignore: tuple[tuple[int, int, int, int], ...] = ()

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            TrainingError: a value breaks its rule.
            UsageError: allow_vrt is no word that is known.
        """
        builtin_fields(self)
        if isinstance(self.src_nodata, str):  # as dump_config writes it
            if self.src_nodata not in ("nan", "inf", "-inf"):
                raise TrainingError(
                    f"{self.path}: src_nodata is {self.src_nodata!r}; it must be a number, nan, "
                    f"inf or -inf"
                )
            object.__setattr__(self, "src_nodata", float(self.src_nodata))
        texts = [key for key in self.label_map if not key.isdecimal() and not is_color(key)]
        if texts and not any(is_vector(path) for path in self.labels):
            raise TrainingError(
                f"{self.path}: label_map has {texts[0]!r} and no label file is a vector file; in "
                f"rasters its keys are ids or colours such as #6EC1E4"
            )
        Rules.of((), self.allow_vrt)
        if self.split not in ("train", "validation"):
            raise TrainingError(f"{self.path}: split is {self.split!r}; it is train or validation")
        if not 0 < self.weight < math.inf:
            raise TrainingError(f"{self.path}: weight is {self.weight}; it must be above 0")
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise TrainingError(f"{self.path}: radius is {self.radius}; it must be 0 m at least")

    @property
    def rules(self) -> Rules:
        """What the files may point to."""
        return Rules.of(self.input_root, self.allow_vrt)

    @property
    def has_labels(self) -> bool:
        """Whether something besides a teacher says what is there."""
        return bool(self.labels or self.everywhere)

    @property
    def name(self) -> str:
        """The file's or folder's name without suffix."""
        return self.path.stem

    @property
    def where(self) -> str:
        """The place, or the scene itself where none is given."""
        return self.place or str(self.path)
