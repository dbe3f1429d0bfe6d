"""Rows of chips and strips in a device's memory, such as a GPU's; this module imports torch.

A row of chips is sent there once, as raw numbers. Chips are cut, filled and reflected there, what
they give is stitched and decided there (:mod:`~geoseg.prediction.stitch`), and one strip of class
ids and stored probabilities comes back. No step in between waits for the device: nothing that is
computed there is looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from geoseg.core.failures import explained_failures
from geoseg.geo.window import Window
from geoseg.prediction.chips import ChipRow, StripInput
from geoseg.prediction.plan import Plan
from geoseg.prediction.strip import FinishedStrip, Strip, check_finite
from geoseg.rasters.writing import NODATA, PROBABILITY_STEPS, RasterSpec
from geoseg.runtimes import DeviceRuntime

__all__ = ["DeviceRow", "DeviceStrips", "fill_nearest"]

#: Distances that :func:`fill_nearest` compares at a time, so that they take 128 MB.
DISTANCES = 1 << 25


class DeviceRow:
    """One row of chips on a device; see :class:`geoseg.prediction.chips.ChipRow`.

    Attributes:
        windows: of its chips, from the left.
        to_run: those that hold a measured pixel.
    """

    def __init__(self, row: ChipRow, runtime: DeviceRuntime) -> None:
        """Begin to send it.

        Args:
            row: that was read.
            runtime: with the device.
        """
        self.windows, self.to_run = row.windows, row.to_run
        self._device, self._input, self._shape = runtime.device, row.strip_input, row.valid.shape
        # Knows where windows lie, and holds no array.
        every = np.broadcast_to(np.bool_(True), self._shape)
        self._row = replace(row, pixels=every[None], valid=every, clouded=None, wanted=None)
        # All pixels of such a row are the same one.
        pixels = row.pixels if row.alike is None else row.pixels[:, :1, :1]
        # Where all or nothing was measured the device needs no mask.
        self._all = row.complete if row.alike is None else row.alike
        self._partial = () if row.alike is not None else _partial(row)
        arrays = [pixels]
        if not self._all:
            arrays.append(row.valid)
        if row.wanted is not None:
            arrays.append(row.wanted)
        self._sent = runtime.upload(arrays) if self.to_run else None

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels, float32 (C, rows, columns), which were measured, and which of these are wanted.

        The last two are (rows, columns).
        """
        assert self._sent is not None, "of a row with chips to run"
        with explained_failures(self._device):
            pixels, *masks = self._sent()
            # Every network takes float32; other numbers can't all be cut and put together there.
            pixels = pixels.to(torch.float32).expand(-1, *self._shape)
            if self._all:
                every = torch.ones((), dtype=torch.bool, device=pixels.device)
                valid = every.expand(self._shape)
            else:
                valid = masks.pop(0)
            return pixels, valid, valid & masks[0] if masks else valid

    @cached_property
    def strip_input(self) -> StripInput:
        """What the strip needs to know, with ``valid`` on the device where there are chips."""
        if not self.to_run or self._input.window is None:
            return self._input
        return replace(self._input, valid=self._tensors[2][self._row.inside(self._input.window)])

    def chip(self, window: Window) -> Tensor:
        """A chip as the network sees it, float32 (C, H, W) on the device.

        It is filled and reflected as :meth:`geoseg.prediction.chips.ChipRow.chip` does it; of
        several measured pixels that are equally near another one may be taken.
        """
        here = self._row.inside(window)
        pixels, valid = (tensor[..., *here] for tensor in self._tensors[:2])
        with explained_failures(self._device):
            if window.col in self._partial:
                pixels = fill_nearest(pixels, valid)
            for axis, (before, after) in enumerate(self._row.beyond(window), start=1):
                if before or after:
                    places = _mirrored(before, pixels.shape[axis], after, pixels.device)
                    pixels = pixels.index_select(axis, places)
        return pixels

    def measured(self, window: Window) -> Tensor:
        """Where a chip's pixels are the scene's own and valid, (height, width)."""
        (above, below), (left, right) = self._row.beyond(window)
        valid = self._tensors[1][self._row.inside(window)]
        return torch.nn.functional.pad(valid, (left, right, above, below))


def _partial(row: ChipRow) -> frozenset[int]:
    """Columns of the chips of which some pixels were measured and some not."""
    if row.complete:
        return frozenset()
    return frozenset(w.col for w in row.to_run if not row.valid[row.inside(w)].all())


def _mirrored(before: int, length: int, after: int, device: torch.device) -> Tensor:
    """Do what :func:`geoseg.prediction.chips.mirrored` does, on the device."""
    places = torch.arange(-before, length + after, device=device) % (2 * length)
    return torch.minimum(places, 2 * length - 1 - places)


def fill_nearest(pixels: Tensor, valid: Tensor) -> Tensor:
    """Replace what was not measured by the nearest measured pixel.

    The nearest pixel of each column is found first, from above and from below; the nearest of all
    is the best of these over the columns. That is exact, and on a GPU faster than it sounds.

    Args:
        pixels: (C, H, W).
        valid: (H, W), bool, at least one True.

    Returns:
        A new tensor like ``pixels``.
    """
    height, width = valid.shape
    rows = torch.arange(height, device=valid.device)[:, None]
    far = 2 * (height + width)
    above = torch.where(valid, rows, -far).cummax(dim=0).values
    below = torch.where(valid, rows, far).flip(0).cummin(dim=0).values.flip(0)
    nearest = torch.where(rows - above <= below - rows, above, below)
    down = ((nearest - rows) ** 2).to(torch.int32)
    cols = torch.arange(width, device=valid.device, dtype=torch.int32)
    across = (cols[:, None] - cols) ** 2
    filled = torch.empty_like(pixels)
    thin = max(1, DISTANCES // (width * width))
    for top in range(0, height, thin):
        part = slice(top, top + thin)
        col = (down[part, None, :] + across).argmin(dim=2)
        row = nearest[part].gather(1, col)
        filled[:, part] = pixels[:, row, col]
    return filled


class DeviceStrips:
    """Makes strips on a device."""

    def __init__(self, plan: Plan, specs: Mapping[str, RasterSpec], runtime: DeviceRuntime) -> None:
        """Send what all strips need.

        Args:
            plan: of the run.
            specs: of the rasters that are kept.
            runtime: with the device.
        """
        self._plan, self._specs, self._runtime = plan, specs, runtime
        ids = [c.id for c in plan.card.classes]
        self._legend = runtime.asarray(np.array(ids, np.float32)).to(torch.uint8)

    def begin(self, window: Window | None) -> Strip:
        """Begin a strip.

        Args:
            window: of the output's grid; None where it holds no row of it.
        """
        if window is None:
            return Strip(self._plan, None, self._specs, self._runtime)
        return _DeviceStrip(self._plan, window, self._specs, self._runtime, self._legend)


class _DeviceStrip(Strip):
    """A strip in the making on a device; see :class:`geoseg.prediction.strip.Strip`."""

    def __init__(
        self,
        plan: Plan,
        window: Window,
        specs: Mapping[str, RasterSpec],
        runtime: DeviceRuntime,
        legend: Tensor,
    ) -> None:
        """Begin with nodata everywhere.

        Args:
            plan: of the run.
            window: of the output's grid.
            specs: of the rasters that are kept.
            runtime: with the device.
            legend: class ids there, uint8 (K,).
        """
        super().__init__(plan, None, {}, runtime)
        self.window: Window = window
        self._device, self._there, self._classes = runtime, legend, plan.legend
        self._rasters: dict[str, Tensor] = {}
        for name, spec in specs.items():
            bands = () if name != "probs" else (len(spec.descriptions),)
            shape = (*bands, window.height, window.width)
            dtype = torch.uint8 if spec.dtype == "uint8" else torch.float32
            self._rasters[name] = torch.full(shape, spec.nodata, dtype=dtype, device=legend.device)
        self._finite = torch.ones((), dtype=torch.bool, device=legend.device)

    def put(self, window: Window, probs: Tensor, valid: Tensor) -> None:
        """Add a piece; whether its probabilities are finite is known in :meth:`finish`."""
        with explained_failures(self._device.device):
            classes = probs[: len(self._legend)]
            index = classes.argmax(dim=0)
            best = classes.gather(0, index[None])[0]
            self._finite &= (best.isfinite() | ~valid).all()
            top, left = window.row - self.window.row, window.col - self.window.col
            here = np.s_[..., top : top + window.height, left : left + window.width]
            ids = self._there[index]
            if self._unsure is not None:
                # As where numpy decides, in 32 bits.
                least, own = float(np.float32(self._unsure[0])), self._unsure[1]
                ids = torch.where(best < least, torch.full_like(ids, own), ids)
            self._rasters["raster"][here] = torch.where(valid, ids, NODATA)
            for name, numbers in (
                ("confidence", best),
                ("probs", classes),
                ("agreement", probs[-1]),
            ):
                if name in self._rasters:
                    self._rasters[name][here] = _encoded(numbers, valid, self._dtype)

    def close(self, run: int, skipped: int, clouded: int = 0) -> None:
        """Begin to bring it home."""
        super().close(run, skipped, clouded)
        with explained_failures(self._device.device):
            ids = self._rasters["raster"]
            counts = [(ids == c.id).sum() for c in self._classes]
            numbers = torch.stack([*counts, self._finite.to(torch.int64)])
        # In this order the arrays lie as numpy wants them: the widest numbers first.
        self._names = sorted(self._rasters, key=lambda n: -self._rasters[n].dtype.itemsize)
        tensors = [numbers, *(self._rasters[name] for name in self._names)]
        self._home = self._device.download(tensors)
        self._rasters = {}

    def finish(self) -> FinishedStrip:
        """Wait for it.

        Raises:
            ProbabilitiesError: one of its pixels is NaN or infinite.
        """
        with explained_failures(self._device.device):
            numbers, *arrays = self._home()
        *counts, finite = (int(n) for n in numbers)
        check_finite(bool(finite), self.window)
        named = dict(zip(self._names, arrays, strict=True))
        return FinishedStrip(self.window, named, tuple(counts), *self._chips)


def _encoded(probs: Tensor, valid: Tensor, dtype: str) -> Tensor:
    """Do what :func:`geoseg.rasters.writing.encode_probability` does, on the device."""
    if dtype == "float32":
        return torch.where(valid, probs, torch.nan)
    steps = (probs.clamp(0.0, 1.0) * PROBABILITY_STEPS).round().to(torch.uint8)
    return torch.where(valid, steps, NODATA)
