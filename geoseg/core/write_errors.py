"""Why a file could not be written, in words that say what to do."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from geoseg.errors import OutputError

__all__ = ["explain_write_error"]

#: A disk with less room than this is full, whatever a library calls it.
_FULL_BYTES = 1 << 20


def explain_write_error(error: BaseException, path: Path) -> OutputError:
    """Make an OutputError that says why a file could not be written.

    Args:
        error: what was raised, by Python or a library.
        path: of the file.
    """
    code = error.errno if isinstance(error, OSError) else None
    text = str(error)
    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _is_full(path)
    if full or "No space left" in text or "File too large" in text:
        return OutputError(f"{path}: the disk is full; free some space or choose another folder")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: the folder can't be written; choose another with -o")
    return OutputError(f"{path} can't be written ({text.splitlines()[0] if text else error!r})")


def _is_full(path: Path) -> bool:
    """Whether there is no room; libraries often speak of something else then."""
    folder = next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False
