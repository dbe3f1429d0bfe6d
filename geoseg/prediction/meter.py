"""How far a run is, how fast it goes and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from geoseg.geo.window import Window
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.run_log import RunLog

__all__ = ["Meter"]


#: What a run waits for -> the stages of its main thread that are spent on it.
BOTTLENECKS = {
    "reading": ("wait for reading",),
    "computing": ("chips", "forward", "crf", "stitch", "regrid", "decide"),
    "writing": ("wait for writing",),
}


#: At least so much time lies between two reports of chips.
EVERY_SECONDS = 1.0


class Meter:
    """Reports how far the strips are, how fast they come and what they wait for."""

    def __init__(self, plan: Plan, lanes: Sequence[OutputLane], done: int, log: RunLog) -> None:
        """Start.

        Args:
            plan: of the run.
            lanes: all of them.
            done: pixels of strips that were there before.
            log: where it is reported, and what is clocked.
        """
        self._log = log
        self._before = self._done = done
        self._total = plan.grid.height * sum(lane.right - lane.left for lane in lanes)
        self._seen = float(done)
        # A pixel of the model's grid in those of the output.
        mine, models = plan.grid, plan.model_grid
        self._factor = mine.height * mine.width / (models.height * models.width)
        self._started = self._reported = time.perf_counter()

    def chip(self, pixels: float) -> None:
        """Count a chip, and report it now and then, since a strip of a wide scene takes long.

        Args:
            pixels: of the model's grid that are its share of its strip.
        """
        self._seen += pixels * self._factor
        if time.perf_counter() - self._reported >= EVERY_SECONDS:
            self._report()

    def strip(self, window: Window | None) -> None:
        """Count a finished strip, and report it.

        Args:
            window: of it.
        """
        if window is None:
            return
        self._done += window.height * window.width
        self._report()

    def _report(self) -> None:
        # Chips come before their strips; that of a strip which was resampled may be rounded.
        done = min(max(self._done, int(self._seen)), self._total)
        if done <= self._before:
            return  # how fast it is can't be said yet
        self._reported = time.perf_counter()
        spent = max(time.perf_counter() - self._started, 1e-6)
        speed = (done - self._before) / spent
        waits = {
            name: sum(self._log.seconds.get(stage, 0.0) for stage in stages)
            for name, stages in BOTTLENECKS.items()
        }
        self._log.report(
            "progress",
            stage="predict",
            done=done,
            total=self._total,
            mpx_s=round(speed / 1e6, 3),
            seconds_left=round((self._total - done) / speed),
            bottleneck=max(waits, key=waits.__getitem__),
        )
