"""geoseg: land-cover maps from satellite and aerial scenes.

Importing this package is cheap; torch, rasterio and geopandas are imported when they are used.
Beside the rooms stand ``events.py``, the protocol of progress that ``--progress json`` prints, and
``errors.py``, the tree of errors with their exit codes.
"""

from __future__ import annotations

import importlib

# Not from typing: the less is loaded, the sooner Ctrl-C is the command line's own.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from geoseg.archive.plan import plan_batch as plan_batch
    from geoseg.archive.run import batch as batch
    from geoseg.cards.card import ModelCard as ModelCard
    from geoseg.cards.legend import ClassInfo as ClassInfo
    from geoseg.errors import GeosegError as GeosegError
    from geoseg.evaluation.calibrating import calibrate as calibrate
    from geoseg.evaluation.run import evaluate as evaluate
    from geoseg.evaluation.sample_design import sample as sample
    from geoseg.evaluation.seam_check import check_seams as check_seams
    from geoseg.mosaicking.run import mosaic as mosaic
    from geoseg.networks import create_model as create_model
    from geoseg.networks import import_model as import_model
    from geoseg.networks import list_models as list_models
    from geoseg.networks import model_info as model_info
    from geoseg.polygons.vectorizing import vectorize as vectorize
    from geoseg.prediction.border_probe import probe_border as probe_border
    from geoseg.prediction.dry_run import dry_run as dry_run
    from geoseg.prediction.run import predict as predict
    from geoseg.scene.opening import open_scene as open_scene
    from geoseg.training.run import train as train
    from geoseg.zoo import find_model as load_model

_PUBLIC = {
    "ClassInfo": ("geoseg.cards.legend", "ClassInfo"),
    "GeosegError": ("geoseg.errors", "GeosegError"),
    "ModelCard": ("geoseg.cards.card", "ModelCard"),
    "batch": ("geoseg.archive.run", "batch"),
    "check_seams": ("geoseg.evaluation.seam_check", "check_seams"),
    "create_model": ("geoseg.networks", "create_model"),
    "dry_run": ("geoseg.prediction.dry_run", "dry_run"),
    "evaluate": ("geoseg.evaluation.run", "evaluate"),
    "import_model": ("geoseg.networks", "import_model"),
    "list_models": ("geoseg.networks", "list_models"),
    "load_model": ("geoseg.zoo", "find_model"),
    "model_info": ("geoseg.networks", "model_info"),
    "mosaic": ("geoseg.mosaicking.run", "mosaic"),
    "open_scene": ("geoseg.scene.opening", "open_scene"),
    "plan_batch": ("geoseg.archive.plan", "plan_batch"),
    "predict": ("geoseg.prediction.run", "predict"),
    "calibrate": ("geoseg.evaluation.calibrating", "calibrate"),
    "probe_border": ("geoseg.prediction.border_probe", "probe_border"),
    "sample": ("geoseg.evaluation.sample_design", "sample"),
    "train": ("geoseg.training.run", "train"),
    "vectorize": ("geoseg.polygons.vectorizing", "vectorize"),
}

#: Public functions whose modules can't be imported without an extra -> the extra.
_EXTRAS = {"batch": "batch", "plan_batch": "batch", "train": "train"}

__all__ = [
    "ClassInfo",
    "GeosegError",
    "ModelCard",
    "__version__",
    "batch",
    "calibrate",
    "check_seams",
    "create_model",
    "dry_run",
    "evaluate",
    "import_model",
    "list_models",
    "load_model",
    "model_info",
    "mosaic",
    "open_scene",
    "plan_batch",
    "predict",
    "probe_border",
    "sample",
    "train",
    "vectorize",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("geoseg")
    if name in _EXTRAS:
        from geoseg.core.importing import missing

        if missing(_EXTRAS[name]):
            return _refusing(name)
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'geoseg' has no attribute {name!r}")


def _refusing(name: str) -> Callable[..., Any]:
    """Stand for a function without its extra: help() and ``import *`` look at every name."""

    def refuse(*args: Any, **options: Any) -> None:
        """Name the packages that are not installed and that this needs."""
        from geoseg.core.importing import require

        require(_EXTRAS[name], f"geoseg.{name}")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


def __dir__() -> list[str]:
    return sorted(__all__)
