"""A run's log as events of TensorBoard, in the run's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from geoseg.errors import OutputError
from geoseg.training.run_folder import RunFolder

__all__ = ["open_events", "write_events"]


def open_events(folder: RunFolder, step: int) -> Any:
    """Open a writer of events in a run's folder.

    Args:
        folder: of the run.
        step: from which on the run goes; later events, of a run that was stopped, are dropped.

    Returns:
        tensorboardX's writer; whoever calls closes it.

    Raises:
        OutputError: it can't be written.
    """
    from tensorboardX import SummaryWriter

    try:
        return SummaryWriter(str(folder.path), purge_step=step + 1 if step else None)
    except OSError as error:
        raise OutputError(f"events can't be written to {folder.path}: {error}") from error


def write_events(writer: Any, row: Mapping[str, float]) -> None:
    """Write a row of the log, but for what is no number."""
    for name, value in row.items():
        if name != "step" and math.isfinite(value):
            writer.add_scalar(name, value, int(row["step"]))
    writer.flush()
