"""What is asked of all jobs of a run: the model, the options of ``predict``, further outputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from geoseg.cards.files import ModelFiles
from geoseg.errors import UsageError
from geoseg.prediction.options import PredictOptions
from geoseg.scene.clouds import CLOUDS
from geoseg.zoo import find_model

__all__ = ["ALSO", "Asked", "check_numbers", "further_outputs"]

#: Options of ``predict`` that name one scene's files, which an archive names itself.
OWN = {
    *("output", "vector", "probs", "confidence", "agreement", "border", "applicability"),
    *("preview", "overwrite"),
}
#: Outputs that a job has where they are asked for -> their names in its folder.
ALSO = {
    "confidence": "confidence.tif",
    "probs": "probs.tif",
    "agreement": "agreement.tif",
    "border": "border.tif",
    "applicability": "applicability.tif",
    "preview": "preview.png",
}


@dataclass(frozen=True)
class Asked:
    """What all jobs of a run share.

    Attributes:
        files: the model.
        options: of ``predict``, for every job.
        also: keys of :data:`ALSO`, sorted.
        meant: what of this is not as it would be anyway: a job's key is made of it.
    """

    files: ModelFiles
    options: Mapping[str, Any]
    also: tuple[str, ...]
    meant: Mapping[str, Any]

    @classmethod
    def of(cls, model: str | Path, options: Mapping[str, Any], also: Iterable[str]) -> Asked:
        """Check and collect it.

        Args:
            model: an embedded model's name, or a model folder or .zip.
            options: of ``predict``, but for those that name outputs.
            also: keys of :data:`ALSO`.

        Raises:
            UsageError: an option contradicts another, or names an output.
            ModelError: the model can't be read.
        """
        if wrong := sorted(OWN & set(options)):
            raise UsageError(
                f"{wrong[0]} names a file of one scene; an archive names its files itself"
            )
        also = tuple(sorted(set(also)))
        if unknown := [name for name in also if name not in ALSO]:
            raise UsageError(f"also is {unknown[0]!r}; it must be one of {', '.join(ALSO)}")
        clouds = options.get("clouds", "auto")
        if clouds not in CLOUDS:
            raise UsageError(
                f"--clouds {clouds} is a file of one scene's clouds, and an archive is of many; "
                f"give {', '.join(CLOUDS)}, or map that scene with geoseg predict"
            )
        checked = PredictOptions(model=model, **options, **further_outputs(Path(), also))
        meant = _meant(checked) | ({"also": also} if also else {})
        files = find_model(model)
        options = {**options, "model": model}
        for name in ("model", "aoi"):
            path = options.get(name)
            if path is not None and os.path.exists(path):
                options[name] = os.path.abspath(path)  # workers may be elsewhere
        if checked.aoi is not None:
            meant["aoi"] = _content(Path(checked.aoi))
        return cls(files, {**options, "model": str(options["model"])}, also, meant)


def check_numbers(**numbers: float | None) -> None:
    """Refuse numbers that are not above 0.

    Args:
        **numbers: by option; None where it was not given.

    Raises:
        UsageError: there is one.
    """
    for name, value in numbers.items():
        if value is not None and not value > 0:  # NaN is not, either
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is {value:g}; it must be more than 0")


def further_outputs(folder: Path, also: Iterable[str]) -> dict[str, Any]:
    """Name outputs as options of ``predict``.

    Args:
        folder: of the job.
        also: keys of :data:`ALSO`.
    """
    return {name: folder / ALSO[name] for name in also}


def _content(path: Path) -> str:
    """Name what a vector file holds: the same file may hold another area the next time.

    A Shapefile's parts have one name, and count all; of what is no file of this machine the name is
    all there is.
    """
    parts = [path]
    if path.suffix.lower() == ".shp":
        parts = [
            p for end in (".shp", ".shx", ".dbf", ".prj") if (p := path.with_suffix(end)).exists()
        ]
    if not path.is_file():
        return str(path)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _meant(options: PredictOptions) -> dict[str, Any]:
    return {
        field.name: value
        for field in fields(options)
        if field.name not in OWN | {"model"}
        and (value := getattr(options, field.name)) != field.default
        and value not in ((), [])
    }
