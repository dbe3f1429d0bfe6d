"""Where geoseg keeps what the next run can use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Where geoseg keeps things: ``GEOSEG_CACHE``, or the platform's usual place.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if own := os.environ.get("GEOSEG_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "geoseg" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "geoseg"
    base = os.environ.get("XDG_CACHE_HOME")
    # The specification wants relative paths ignored.
    return (Path(base) if base and os.path.isabs(base) else Path.home() / ".cache") / "geoseg"
