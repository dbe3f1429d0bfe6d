"""Strips: the outputs' rows that one row of chips finishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ProbabilitiesError
from geoseg.geo.window import Window
from geoseg.prediction.decide import decide
from geoseg.prediction.plan import Plan
from geoseg.rasters.writing import NODATA, RasterSpec, encode_probability
from geoseg.runtimes import Runtime

__all__ = ["FinishedStrip", "Strip", "check_finite"]


@dataclass(frozen=True)
class FinishedStrip:
    """A strip that the sink takes.

    Attributes:
        window: of the output's grid; None where it holds no row of it.
        arrays: raster -> its rows, (height, width) or (bands, height, width) of its spec's dtype.
        counts: pixels of each class of the legend.
        run: chips of its row of chips that went through the network.
        skipped: those without a measured pixel.
        clouded: its pixels that were measured and are left out for clouds.
    """

    window: Window | None
    arrays: Mapping[str, NDArray[Any]]
    counts: tuple[int, ...]
    run: int
    skipped: int
    clouded: int = 0


class Strip:
    """A strip in the making: its pixels become known piece by piece, in arrays."""

    def __init__(
        self, plan: Plan, window: Window | None, specs: Mapping[str, RasterSpec], runtime: Runtime
    ) -> None:
        """Begin with nodata everywhere.

        Args:
            plan: of the run.
            window: of the output's grid; None where the strip holds no row of it.
            specs: of the rasters that are kept.
            runtime: that gives the probabilities.
        """
        self.window = window
        self._arrays: dict[str, NDArray[Any]] = {}
        if window is not None:
            for name, spec in specs.items():
                bands = () if name != "probs" else (len(spec.descriptions),)
                shape = (*bands, window.height, window.width)
                self._arrays[name] = np.full(shape, spec.nodata, spec.dtype)
        self._legend = np.array([c.id for c in plan.card.classes], dtype=np.uint8)
        self._counts = np.zeros(len(plan.legend), dtype=np.int64)
        own = plan.not_sure
        self._unsure = None if own is None else (plan.options.min_confidence, own.id)
        self._dtype, self._runtime = plan.options.probs_dtype, runtime

    def put(self, window: Window, probs: Any, valid: Any) -> None:
        """Add the classes and stored probabilities of a piece.

        Args:
            window: of the output's grid, within the strip.
            probs: (K, height, width) on the runtime's device, and the members' agreement after it
                where that is kept.
            valid: bool (height, width), in the same memory as ``probs``.

        Raises:
            ProbabilitiesError: one is NaN or infinite.
        """
        assert self.window is not None, "a piece lies in a strip"
        classes = probs[: len(self._legend)]
        decided = decide(classes, valid, self._legend, NODATA, self._unsure)
        check_finite(decided.finite, window)
        self._counts += decided.counts
        top, left = window.row - self.window.row, window.col - self.window.col
        here = np.s_[..., top : top + window.height, left : left + window.width]
        self._arrays["raster"][here] = decided.ids
        if "confidence" in self._arrays:
            self._arrays["confidence"][here] = encode_probability(decided.best, valid, self._dtype)
        for name, numbers in (("probs", classes), ("agreement", probs[-1])):
            if name in self._arrays:
                given = self._runtime.to_numpy(numbers)
                self._arrays[name][here] = encode_probability(given, valid, self._dtype)

    def close(self, run: int, skipped: int, clouded: int = 0) -> None:
        """Note that all pieces have come, of how many chips and clouds; called where they come."""
        self._chips = run, skipped, clouded

    def finish(self) -> FinishedStrip:
        """Give what was made; called once, by the sink, after :meth:`close`."""
        return FinishedStrip(
            self.window, self._arrays, tuple(int(n) for n in self._counts), *self._chips
        )


def check_finite(finite: bool, window: Window) -> None:
    """Refuse probabilities that are none.

    Args:
        finite: whether all are.
        window: where they lie.

    Raises:
        ProbabilitiesError: one is NaN or infinite.
    """
    if not finite:
        raise ProbabilitiesError(
            f"the model gave NaN or infinite probabilities in rows {window.row} to "
            f"{window.bottom - 1}; its weights or the scene's --scale are wrong"
        )
