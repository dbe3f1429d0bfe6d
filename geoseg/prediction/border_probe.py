"""How far from a chip's edge its predictions still depend on what lies beyond the edge.

A network sees nothing beyond its chip, so near the edge its probabilities are other than they
would be with the ground around. Here the same ground is seen twice, as a chip and in the middle of
a chip of twice the side, and the difference is added up by the distance from the chip's edge. The
curve goes into the model's card, where ``geoseg predict --overlap auto`` and ``--exact`` find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ChipBorder, ModelCard
from geoseg.cards.files import ModelFiles
from geoseg.cards.replacing import replace_card
from geoseg.core.gdal import block_cache
from geoseg.core.importing import require
from geoseg.errors import ModelError, SceneError, UsageError
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan, make_plan
from geoseg.runtimes import Runtime, checked, load_runtime
from geoseg.scene.fill import fill_nearest
from geoseg.scene.radiometry import Radiometry
from geoseg.zoo import check_changeable, find_model

__all__ = ["Probe", "probe_border"]

#: Chips that are probed, at most; at 512 px they have 16,000 pixels at each distance.
PROBED_CHIPS = 8
#: The least chip, px: smaller ones have no inside to speak of.
LEAST = 16
#: Probabilities that differ by less are the same. A tenth of the 1e-5 that --exact promises,
#: because other ground may show the border a little farther in; a convolutional network's border
#: fades so fast that this costs some three px.
SAME = 1e-6
#: Share of labels that may change where the border no longer counts. One in a thousand is not seen
#: in a map, and far below what a map gets wrong anyway; less would ask for chips that overlap
#: nearly as far as the network can see at all.
FEW = 1e-3
#: Flips are counted over this many px from a distance on: a single ring has few pixels.
RINGS = 8


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        card: of the model, with the new border.
        chips: that were probed.
        written: the card's file, where it was written.
    """

    card: ModelCard
    chips: int
    written: Path | None

    @property
    def border(self) -> ChipBorder:
        """The measured border."""
        assert self.card.border is not None
        return self.card.border


def probe_border(
    model: str | Path,
    scene: str | Path | Sequence[str | Path] | None = None,
    *,
    size: int | None = None,
    threads: int | None = None,
    write: bool = False,
    **reading: Any,
) -> Probe:
    """Measure how far from a chip's edge a model's predictions still change.

    It runs by torch on the CPU, whose arithmetic hardly depends on a chip's size, so that what is
    measured is the border.

    Args:
        model: an embedded model's name, or a model folder or .zip.
        scene: the ground to look at, as :func:`geoseg.predict` takes it; None for random smooth
            numbers in the range of the model's normalization.
        size: chip side, px, rounded up to the card's multiple; by default the card's, or the
            largest that the scene has room for. Chips need half their side of ground around them.
        threads: how many compute; None for one a core.
        write: put the result into the card in the model's folder.
        **reading: how the scene is read: ``bands``, ``band_names``, ``scale``, ``offset``,
            ``src_nodata``, ``input_root`` and ``allow_vrt`` of ``predict``.

    Returns:
        The card with its border, see :class:`geoseg.cards.card.ChipBorder`.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: the scene is too small for the size, or the model is embedded or a .zip,
            which can't be written.
        SceneError: the scene has hardly a measured pixel, or can't be read.
        ModelError: the model can't be read, or gives NaN.
        OutputError: the card can't be written.
    """
    require("torch", "geoseg models probe")
    files = find_model(model)
    card = files.card
    if write:
        check_changeable(files, "--write")
    if size is not None and size < LEAST:
        raise UsageError(f"--size is {size}; a chip to probe has at least {LEAST} px")
    if scene is None:
        ground = _random(card, size)
    else:
        options = PredictOptions(model=files.path, no_vector=True, **reading)
        ground = _of_scene(make_plan(scene, options), size)
    runtime = load_runtime(
        files, ground.radiometry, runtime="torch", precision="fp32", device="cpu", threads=threads
    )
    curves = _measured(runtime, ground, files)
    card = replace(card, border=curves.border(ground.name))
    written = replace_card(card, files.path) if write else None
    return Probe(card, curves.chips, written)


@dataclass(frozen=True)
class _Ground:
    """Where a model is probed.

    Attributes:
        name: of it, in words.
        radiometry: what its numbers mean.
        side: of a chip, px.
        chips: with the ground around them, (C, side + 2 context, side + 2 context).
    """

    name: str
    radiometry: Radiometry
    side: int
    chips: Iterator[NDArray[Any]]


def _random(card: ModelCard, size: int | None) -> _Ground:
    """Random smooth numbers."""
    side = _round_up(size or card.size, card.multiple)
    ones, zeros = (1.0,) * len(card.bands), (0.0,) * len(card.bands)
    radiometry = Radiometry(ones, zeros, "random numbers")
    return _Ground("random smooth numbers", radiometry, side, _random_ground(card, side))


def _of_scene(plan: Plan, size: int | None) -> _Ground:
    """Places all over a scene.

    Raises:
        UsageError: it is too small.
    """
    card = plan.card
    fits = _largest_side(min(plan.ground.height, plan.ground.width), card.multiple)
    side = _round_up(size or min(card.size, fits), card.multiple)
    shape = f"{plan.scene.name} is {plan.ground.height}x{plan.ground.width} px"
    if fits < LEAST:
        raise UsageError(
            f"{shape}, which is too few for a chip of {LEAST} px with half as much ground "
            f"around; give a larger scene, or none for random numbers"
        )
    if side > fits:
        raise UsageError(
            f"{shape}, which has room for chips of {fits} px with half as much ground around, "
            f"and not for {side}; give a smaller --size, or a larger scene"
        )
    return _Ground(plan.scene.name, plan.radiometry, side, _scene_ground(plan, side))


def _measured(runtime: Runtime, ground: _Ground, files: ModelFiles) -> _Curves:
    """Run a model on each chip with the ground around it and without.

    Raises:
        ModelError: it gives NaN.
        SceneError: there is no chip.
    """
    curves, side = _Curves(ground.side), ground.side
    context = _context(side, files.card.multiple)
    inner = (..., slice(context, context + side), slice(context, context + side))
    for pixels in ground.chips:
        wide = runtime.to_numpy(checked.probs(runtime, pixels[None]))[0][inner]
        alone = np.ascontiguousarray(pixels[inner])
        chip = runtime.to_numpy(checked.probs(runtime, alone[None]))[0]
        if not (np.isfinite(wide).all() and np.isfinite(chip).all()):
            raise ModelError(f"{files.path}: the model gave NaN or infinite probabilities")
        curves.add(wide, chip)
    if not curves.chips:
        raise SceneError(
            f"{ground.name}: no place of {side + 2 * context} px is measured for the most part; "
            f"give another scene, a smaller --size, or no scene for random numbers"
        )
    return curves


class _Curves:
    """Adds up differences by the distance from a chip's edge."""

    def __init__(self, side: int) -> None:
        self.side, self.chips = side, 0
        near = np.minimum(np.arange(side), side - 1 - np.arange(side))
        self._distance = np.minimum(near[:, None], near[None, :])
        self._pixels = np.bincount(self._distance.ravel())
        self._sum = np.zeros(len(self._pixels))
        self._largest = np.zeros(len(self._pixels))
        self._flips = np.zeros(len(self._pixels))

    def add(self, wide: NDArray[np.float32], chip: NDArray[np.float32]) -> None:
        """A chip's probabilities (K, side, side) with the ground around and without."""
        difference = np.abs(wide - chip).max(axis=0)
        flipped = wide.argmax(axis=0) != chip.argmax(axis=0)
        distance = self._distance.ravel()
        self._sum += np.bincount(distance, difference.ravel())
        self._flips += np.bincount(distance, flipped.ravel())
        np.maximum.at(self._largest, distance, difference.ravel())
        self.chips += 1

    def border(self, ground: str) -> ChipBorder:
        """The curves, rounded to three digits, and both distances."""
        pixels = self._pixels * self.chips
        exact = _from(self._largest < SAME)
        # Over the next rings together, as far as there are any.
        summed = [np.append(0.0, np.cumsum(values)) for values in (self._flips, pixels)]
        ends = np.minimum(np.arange(len(pixels)) + RINGS, len(pixels))
        flips, counted = (total[ends] - total[:-1] for total in summed)
        shown = slice(0, exact)
        return ChipBorder(
            self.side,
            ground,
            exact,
            _from(flips < FEW * counted),
            _rounded((self._sum / pixels)[shown]),
            _rounded(self._largest[shown]),
            _rounded((self._flips / pixels)[shown]),
        )


def _from(holds: NDArray[np.bool_]) -> int | None:
    """The first index from which on it holds to the end, or None."""
    broken = np.flatnonzero(~holds)
    if not broken.size:
        return 0
    return None if broken[-1] == len(holds) - 1 else int(broken[-1]) + 1


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{v:.3g}") for v in values)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _context(side: int, multiple: int) -> int:
    """Px of ground around a chip: half its side, in phase with what the network halves."""
    return _round_up(side // 2, multiple)


def _largest_side(room: int, multiple: int) -> int:
    """The largest chip that has its ground around it within ``room`` px."""
    side = room // 2 // multiple * multiple
    while side > 0 and side + 2 * _context(side, multiple) > room:
        side -= multiple
    return side


def _random_ground(card: ModelCard, side: int) -> Iterator[NDArray[np.float32]]:
    """Chips with the ground around them, of seeded smooth numbers: hills of 1 to 16 px radius."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    wide = side + 2 * _context(side, card.multiple)
    shape = (len(card.bands), wide, wide)
    for _ in range(PROBED_CHIPS):
        total = random.standard_normal(shape, np.float32)
        for sigma in (1, 4, 16):
            smooth = gaussian_filter(random.standard_normal(shape, np.float32), (0, sigma, sigma))
            total += smooth / smooth.std()
        yield _in_quantity(card, total / 2).astype(np.float32)


def _in_quantity(card: ModelCard, values: NDArray[Any]) -> NDArray[Any]:
    """Numbers of mean 0 and deviation 1 (C, H, W) as values that suit the card's normalization."""
    p = {
        name: np.array(numbers)[:, None, None]
        for name, numbers in card.normalization.parameters.items()
    }
    match card.normalization.kind:
        case "z-score":
            values = values * p["stddev"] + p["mean"]
        case "min-max":
            values = p["minimum"] + (p["maximum"] - p["minimum"]) * (0.5 + 0.25 * values)
        case "log-logistic":
            # So that the logistic function gets numbers of mean 0 and deviation 1.
            values = np.expm1((values + 1) / 5 * p["spread"] + p["center"]) / 50
        case _:
            values = 0.25 + 0.1 * values if card.quantity == "reflectance" else values
    return values


def _scene_ground(plan: Plan, side: int) -> Iterator[NDArray[Any]]:
    """Places all over a scene, chips with the ground around them, at most :data:`PROBED_CHIPS`."""
    multiple = plan.card.multiple
    wide = side + 2 * _context(side, multiple)
    lasts = (plan.ground.height - wide, plan.ground.width - wide)
    rows, cols = (
        sorted({last * i // 3 // multiple * multiple for i in range(4)}) for last in lasts
    )
    places = [(row, col) for row in rows for col in cols]
    # In an order that is scattered, so that the first ones that serve are not all at the top.
    order = np.random.default_rng(0).permutation(len(places))
    found = 0
    with block_cache(plan.cache_bytes), plan.ground_reader() as reader:
        for number in order:
            if found == PROBED_CHIPS:
                return
            row, col = places[number]
            pixels, valid = reader.read(Window(row, col, wide, wide))
            if valid.mean() < 0.5:
                continue
            found += 1
            # Filled before the chip is cut out of it, so that both see the same.
            yield pixels if valid.all() else fill_nearest(pixels, valid)
