"""Files of an archive that are replaced with each run: whole, and only those that geoseg made."""

from __future__ import annotations

from pathlib import Path

from geoseg.core.files import write_whole
from geoseg.core.ownership import is_ours
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError

__all__ = ["check_replaceable", "write_text"]


def check_replaceable(path: Path) -> None:
    """Refuse to replace what geoseg did not make.

    Args:
        path: of a file that need not be there.

    Raises:
        OutputError: there is such a file.
    """
    if path.exists() and not is_ours(path):
        raise OutputError(
            f"{path} was not made by geoseg as it is now; move it away, or choose another folder"
        )


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; one that is there is replaced.

    Args:
        path: of the file.
        text: its content.

    Raises:
        OutputError: the folder or the disk refuses.
    """
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise explain_write_error(error, path) from error
