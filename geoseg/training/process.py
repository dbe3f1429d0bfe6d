"""One process of a run: what it works on, and where its events go."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from geoseg.events import Event, Progress
from geoseg.training.recipe import TrainConfig
from geoseg.training.run_folder import RunFolder

__all__ = ["Process", "Reporter"]

#: Seconds between two events of progress.
REPORT_EVERY = 1.0


class Reporter:
    """Sends events to the one who asked for them, and progress not too often."""

    def __init__(self, progress: Progress | None) -> None:
        """Name the receiver.

        Args:
            progress: called with the events of :mod:`geoseg.events`; None drops them.
        """
        self._progress = progress
        self._last = -math.inf

    def __call__(self, event: Event) -> None:
        """Send an event at once."""
        if self._progress is not None:
            self._progress(event)

    def note(self, message: str) -> None:
        """Send what is good to know."""
        self({"event": "note", "message": message})

    def warn(self, message: str) -> None:
        """Send a warning."""
        self({"event": "warning", "message": message})

    def progress(self, done: int, total: int, loss: float, left: float) -> None:
        """Say how far training is, unless that was said less than a second ago.

        Args:
            done: steps that were taken.
            total: steps of the run.
            loss: of the last step.
            left: seconds until the end, estimated.
        """
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY or done == total:
            self._last = now
            self(
                {
                    "event": "progress",
                    "stage": "train",
                    "done": done,
                    "total": total,
                    "loss": round(loss, 4),
                    "seconds_left": round(left),
                }
            )


@dataclass(frozen=True)
class Process:
    """One process of a run; the first one reads, judges and writes for all.

    Attributes:
        fabric: Lightning's, which joins the processes; it is there for a single one, too.
        config: the recipe.
        folder: of the run.
        report: sends events; those of the first process alone reach somebody.
    """

    fabric: Any
    config: TrainConfig
    folder: RunFolder
    report: Reporter

    @property
    def first(self) -> bool:
        """Whether it is the first one."""
        return bool(self.fabric.global_rank == 0)
