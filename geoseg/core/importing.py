"""What threads hold while they import, and packages that not every install has."""

from __future__ import annotations

import importlib
import sys
import threading
from importlib.util import find_spec
from types import ModuleType

from geoseg.errors import MissingExtraError

__all__ = [
    "EXTRAS",
    "IMPORTING",
    "import_openvino",
    "missing",
    "package_version",
    "reported",
    "require",
]

#: Held while scipy, or numba, which imports it, is imported: two threads that import parts of a
#: package at once may find it half made.
IMPORTING = threading.Lock()

_TORCH = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "onnxscript")

#: Extra of pyproject.toml -> the packages that it brings, as they are imported. Smaller ones first.
EXTRAS = {
    "torch": _TORCH,
    "train": (*_TORCH, "lightning_fabric", "tensorboardX"),
    "torchgeo": (*_TORCH, "torchgeo", "requests"),
    "onnxruntime": ("onnxruntime",),
    "batch": ("distributed", "pystac_client"),
    "s3": ("boto3",),
    "clouds": ("ukis_csmask",),
}


def missing(extra: str) -> list[str]:
    """List the packages of an extra that are not installed, by whatever distribution.

    Args:
        extra: a key of :data:`EXTRAS`.
    """
    return [package for package in EXTRAS[extra] if not _installed(package)]


def _installed(package: str) -> bool:
    spec = find_spec(package)
    # A folder that happens to have the name is a package of sorts, without an origin.
    return spec is not None and spec.origin is not None


def require(extra: str, what: str) -> None:
    """Refuse what needs an extra that is not installed; called before any work.

    Args:
        extra: a key of :data:`EXTRAS`.
        what: needs it; begins the message.

    Raises:
        MissingExtraError: a package of it is missing.
    """
    if names := missing(extra):
        *others, last = names
        listed = f"{', '.join(others)} and {last}" if others else last
        which, them = ("which are", "them") if others else ("which is", "it")
        raise MissingExtraError(
            f"{what} needs {listed}, {which} not installed; install {them}: "
            f"pip install 'geoseg[{extra}]'"
        )


def reported(error: ImportError) -> str | None:
    """Say what a failed import of an extra's package asks for; None of any other.

    Args:
        error: of an import that nobody required beforehand, or of a package that is there and
            can't be loaded.
    """
    package = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return (
                f"{package} can't be imported ({error}); install it: pip install 'geoseg[{extra}]'"
            )
    return None


def package_version(package: str) -> str:
    """Look up a package's version.

    Those of an extra are asked themselves where no distribution has their name: ``onnxruntime``,
    for one, is also brought by onnxruntime-gpu.

    Args:
        package: as it is imported.

    Raises:
        ImportError: there is no such package.
    """
    from importlib.metadata import PackageNotFoundError, version  # 20 ms, of no use to --help

    try:
        return version(package)
    except PackageNotFoundError:
        if not any(package in names for names in EXTRAS.values()):
            raise
        return str(importlib.import_module(package).__version__)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which reports each import to a server unasked.

    OpenVINO does without where the module for that is missing. A process that is forked for it
    would also share whatever is open here.

    Returns:
        The module.
    """
    name = "openvino_telemetry"
    if "openvino" in sys.modules or name in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[name]
