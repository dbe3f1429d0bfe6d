"""Training chips: drawn at random places, changed, with their targets, and drawn again from a pool.

Chip number i depends on (seed, i) and nothing else, and a step's batch on (seed, step): what step
500 sees does not depend on where the run began, nor on how many processes share it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.errors import TrainingError
from geoseg.training.augment import (
    blend_weights,
    change_light,
    coarsen,
    finish,
    move_covariance,
    move_statistics,
    resize,
    roughen,
    turn,
)
from geoseg.training.augment_options import Augmentation
from geoseg.training.cast_shadows import cast_shadows
from geoseg.training.class_pixels import pixels_by_class
from geoseg.training.held_out import reflect
from geoseg.training.laid_clouds import lay_clouds
from geoseg.training.laid_clouds_options import LaidClouds
from geoseg.training.recipe import TrainConfig
from geoseg.training.scenes import TrainingScene
from geoseg.training.split import TRAIN
from geoseg.training.targets import UNKNOWN
from geoseg.training.teacher import Teacher

__all__ = ["Chip", "ChipSource"]

#: Side of the squares by which scenes are indexed, px.
CELL = 64
#: Added to each class of a teacher's answer where a label is a set of classes.
LEAST_DOUBT = 0.01
#: Places that are tried for a chip before the run gives up.
TRIES = 100


@dataclass(frozen=True)
class Chip:
    """One training chip.

    Attributes:
        pixels: float32 (C, S, S), physical values.
        probs: float16 (K, S, S), what to learn.
        weight: float32 (S, S), 0 where nothing is to be learned.
        origin: where it was cut, for messages.
    """

    pixels: Tensor
    probs: Tensor
    weight: Tensor
    origin: str


@dataclass(frozen=True)
class _Cut:
    """A piece of a scene.

    Attributes:
        pixels: float32 (C, N, N) of all bands.
        probs: float32 (K, N, N), of labels; 0 where there are none.
        labelled: bool (N, N).
        seen: bool (N, N), measured and on the training side.
        origin: for messages.
        allowed: float32 (K, N, N), which classes labels that are sets leave open: 1 for those, and
            for all where no set is; None where that is so everywhere.
    """

    pixels: NDArray[np.float32]
    probs: NDArray[np.float32]
    labelled: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    origin: str
    allowed: NDArray[np.float32] | None = None


class ChipSource:
    """Makes training chips."""

    def __init__(
        self,
        config: TrainConfig,
        scenes: Sequence[TrainingScene],
        bands: Sequence[str],
        white: float,
        teacher: Teacher | None = None,
    ) -> None:
        """Index the training side by class.

        Args:
            config: the recipe.
            scenes: all of them; those without usable pixels on the training side are left out.
            bands: names of the scenes' bands; the recipe's own come first.
            white: the value of white, see :mod:`geoseg.training.augment`.
            teacher: answers where there are no labels.

        Raises:
            TrainingError: no pixel of the training side can be learned from.
        """
        self._config = config
        self._bands = tuple(bands)
        self._white = white
        self._members = config.members()
        self._teacher = teacher
        if teacher is not None:
            self._asked = [self._bands.index(b) for b in teacher.card.bands]
        counts = [pixels_by_class(s, len(config.classes), TRAIN, CELL) for s in scenes]
        kept = [i for i, c in enumerate(counts) if c.any()]
        if not kept:
            raise TrainingError("no pixel of the training side has a target; look at the labels")
        self._scenes = [scenes[i] for i in kept]
        # Of each scene: cells with something in them, and how much of each class.
        self._cells: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        for i in kept:
            places = np.argwhere(counts[i].sum(axis=2) > 0)
            self._cells.append(places)
            self._counts.append(counts[i][places[:, 0], places[:, 1]])
        totals = np.array([c.sum(axis=0) for c in self._counts], np.float64)
        #: Pixels of the training side by class, (K,).
        self.class_pixels = totals.sum(axis=0).astype(np.int64)
        #: Pixels of the scenes in which a class appears, (K,).
        self.class_appearances = (
            ((totals > 0) * totals.sum(axis=1, keepdims=True)).sum(axis=0).astype(np.int64)
        )
        self._classes = np.flatnonzero(self.class_pixels)
        # The root keeps one large scene from giving all examples.
        weight = np.array([s.config.weight for s in self._scenes])
        share = np.sqrt(totals) * weight[:, None]
        self._class_share = share / np.maximum(share.sum(axis=0), 1e-9)
        area = np.sqrt(totals.sum(axis=1)) * weight
        self._scene_share = area / area.sum()
        self._pool: dict[int, Chip] = {}

    def batch(self, step: int) -> list[Chip]:
        """Give the chips of a step, in the order in which they are learned.

        Args:
            step: from 0.

        Returns:
            batch * accumulate chips.
        """
        config = self._config
        count = config.batch * config.accumulate
        rng = np.random.default_rng([config.seed, 1, step])
        if config.pool:
            first = step * config.fresh
            numbers = first + rng.choice(config.pool, count, replace=False)
        else:
            first = step * count
            numbers = np.arange(first, first + count)
        for old in [n for n in self._pool if n < first]:
            del self._pool[old]
        chips = []
        for number in numbers.tolist():
            if number not in self._pool:
                self._pool[number] = self.chip(number)
            chip = self._pool[number]
            if config.invariance != Augmentation():
                light = change_light(
                    rng, chip.pixels.numpy(), config.bands, config.invariance, self._white
                )
                chip = replace(chip, pixels=torch.from_numpy(light))
            if config.augmentation.flips:
                turns, flip = int(rng.integers(4)), bool(rng.integers(2))
                chip = Chip(
                    turn(chip.pixels, turns, flip),
                    turn(chip.probs, turns, flip),
                    turn(chip.weight, turns, flip),
                    chip.origin,
                )
            chips.append(chip)
        return chips

    def chip(self, number: int) -> Chip:
        """Make a chip.

        Args:
            number: from 0.

        Raises:
            TrainingError: no place was found after many tries.
        """
        config = self._config
        a = config.augmentation.at(self._done(number))
        rng = np.random.default_rng([config.seed, 0, number])
        halo = config.teacher_halo if self._teacher is not None else 0
        factor = 1.0
        if a.gsd_max > 1.0 and rng.random() < a.gsd_share:
            factor = float(rng.uniform(1.0, a.gsd_max))
        side = round(config.chip * factor)
        cut = self._source(rng, side + 2 * halo, a)
        if config.laid_clouds is not None:
            cut = self._clouded(rng, cut, config.laid_clouds)
        values = roughen(rng, cut.pixels, a)
        if a.cast > 0 and rng.random() < a.cast_share:
            values = cast_shadows(rng, values, self._bands, a.cast)
        if factor == 1.0:
            values = finish(rng, values, a, self._white)
        probs, weight = cut.probs, cut.seen & cut.labelled
        if self._teacher is not None:
            answer = self._teacher.probs(values[self._asked])
            if config.teacher_temperature != 1.0:
                answer = answer ** np.float32(1 / config.teacher_temperature)
                answer /= np.maximum(answer.sum(axis=0), 1e-6)
            if cut.allowed is not None:
                answer = _kept_to(cut.allowed, answer)
            probs = np.where(cut.labelled, probs, answer)
            weight = cut.seen
        elif cut.allowed is not None:
            of_sets = (cut.allowed < 1).any(axis=0) & ~cut.labelled
            alike = cut.allowed / np.maximum(cut.allowed.sum(axis=0), 1e-6)
            probs = np.where(of_sets, alike, probs)
            weight = cut.seen & (cut.labelled | of_sets)
        inner = np.s_[halo : halo + side, halo : halo + side]
        pixels = torch.from_numpy(np.ascontiguousarray(values[: len(config.bands), *inner]))
        target = torch.from_numpy(np.ascontiguousarray(probs[:, *inner]))
        known = torch.from_numpy(np.ascontiguousarray(weight[inner]))
        if factor != 1.0:
            pixels, target, known = coarsen(pixels, target, known, (config.chip, config.chip))
            # Now, since a coarser sensor is not a quieter one.
            pixels = torch.from_numpy(finish(rng, pixels.numpy(), a, self._white))
        return Chip(pixels, target.half(), known.float(), cut.origin)

    def _clouded(self, rng: np.random.Generator, cut: _Cut, a: LaidClouds) -> _Cut:
        """Lay clouds over a piece, unless it has some."""
        names = [c.name for c in self._config.classes]
        places = [names.index(name) for name in a.names]
        if cut.probs[places].any() or (cut.allowed is not None and (cut.allowed < 1).any()):
            return cut
        pixels, became = lay_clouds(rng, cut.pixels, self._bands, a)
        probs, labelled = cut.probs.copy(), cut.labelled.copy()
        for number, place in enumerate(places, start=1):
            here = became == number
            probs[:, here], probs[place, here] = 0, 1
            labelled |= here
        labelled &= became != UNKNOWN
        return replace(cut, pixels=pixels, probs=probs, labelled=labelled)

    def _done(self, number: int) -> float:
        """Compute the share of the run that is over when a chip is first drawn."""
        config = self._config
        if config.pool:
            return max(number - config.pool, 0) / max(config.steps * config.fresh, 1)
        return number / (config.steps * config.batch * config.accumulate)

    def _source(self, rng: np.random.Generator, side: int, a: Augmentation, depth: int = 0) -> _Cut:
        """Cut a piece, put it under another light, and mix others in."""
        cut = self._cut(rng, side)
        values = cut.pixels
        if a.statistics > 0 and rng.random() < a.statistics:
            values = move_statistics(rng, values, self._cut(rng, max(side // 2, 8)).pixels)
        if a.covariance > 0 and rng.random() < a.covariance:
            values = move_covariance(rng, values, self._cut(rng, max(side // 2, 8)).pixels)
        values = change_light(rng, values, self._bands, a, self._white)
        cut = replace(cut, pixels=values)
        share = a.mix if depth == 0 else a.mix_again
        if share > 0 and depth < 3 and rng.random() < share:
            cut = _mixed(cut, self._source(rng, side, a, depth + 1), rng, a)
        return cut

    def _cut(self, rng: np.random.Generator, side: int) -> _Cut:
        """Cut a piece of a scene at a random place, and zoom it."""
        a = self._config.augmentation
        for _ in range(TRIES):
            index, row, col = self._place(rng)
            zoom = 1.0
            if a.zoom != (1.0, 1.0) and rng.random() < a.zoom_share:
                zoom = math.exp(rng.uniform(math.log(a.zoom[0]), math.log(a.zoom[1])))
            own = max(round(side / zoom), 1)
            scene = self._scenes[index]
            height, width = scene.shape
            rows = reflect(row - int(rng.integers(own)), own, height)
            cols = reflect(col - int(rng.integers(own)), own, width)
            found = scene.cut(rows, cols, (TRAIN,))
            if found is not None:
                break
        else:
            raise TrainingError(
                f"{TRIES} places were tried for a chip of {side} px and none holds a measured "
                f"pixel of the training side; make chip smaller"
            )
        values, seen = found
        labelled = scene.labelled[rows][:, cols] & seen
        sets = None if scene.sets is None else scene.sets[rows][:, cols]
        target = np.where(labelled, scene.target[rows][:, cols], UNKNOWN)
        if own != side:
            values = resize(torch.from_numpy(values), side, side).numpy()
            place = ((np.arange(side) + 0.5) * own / side).astype(np.int64)
            target, seen = target[place][:, place], seen[place][:, place]
            sets = None if sets is None else sets[place][:, place]
        labelled = target != UNKNOWN
        classes = np.arange(len(self._config.classes), dtype=np.uint8)[:, None, None]
        probs = (target[None] == classes).astype(np.float32)
        origin = f"{scene.name} around row {row}, column {col}"
        allowed = None
        if sets is not None and sets.any():
            allowed = np.moveaxis(self._members[sets], -1, 0)
        return _Cut(values, probs, labelled, seen, origin, allowed)

    def _place(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw a scene and a pixel of it around which a chip is laid."""
        balanced = rng.random() < self._config.balance
        if balanced:
            k = int(rng.choice(self._classes))
            index = int(rng.choice(len(self._scenes), p=self._class_share[:, k]))
            counts = self._counts[index][:, k]
        else:
            index = int(rng.choice(len(self._scenes), p=self._scene_share))
            counts = self._counts[index].sum(axis=1)
        total = np.cumsum(counts)
        nth = int(rng.integers(total[-1]))
        cell = int(np.searchsorted(total, nth, side="right"))
        top, left = (int(n) * CELL for n in self._cells[index][cell])
        scene = self._scenes[index]
        rows, cols = slice(top, top + CELL), slice(left, left + CELL)
        usable = scene.usable(rows, TRAIN)[:, cols]
        if balanced:
            usable &= scene.target[rows, cols] == k
        places = np.flatnonzero(usable)
        place = int(places[nth - (int(total[cell - 1]) if cell else 0)])
        row, col = divmod(place, usable.shape[1])
        return index, top + row, left + col


def _kept_to(allowed: NDArray[np.float32], answer: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep a teacher's answer to the classes that a label leaves open, (K, N, N).

    People saw what the teacher guesses: what it gives to other classes goes to these, in its own
    proportions. Where it gives them hardly anything it knows nothing of them, and they are alike.
    """
    doubt = np.where((allowed < 1).any(axis=0), np.float32(LEAST_DOUBT), np.float32(0))
    kept = (answer + doubt) * allowed
    return np.asarray(kept / np.maximum(kept.sum(axis=0), 1e-6), np.float32)


def _mixed(cut: _Cut, other: _Cut, rng: np.random.Generator, a: Augmentation) -> _Cut:
    """Mix two pieces into one."""
    own = blend_weights(rng, cut.seen.shape[0], a.mix_kinds)
    mine, theirs = own > 0, own < 1
    return _Cut(
        cut.pixels * own + other.pixels * (1 - own),
        cut.probs * own + other.probs * (1 - own),
        (cut.labelled | ~mine) & (other.labelled | ~theirs),
        (cut.seen | ~mine) & (other.seen | ~theirs),
        f"{cut.origin} with {other.origin}",
        _mixed_sets(cut.allowed, other.allowed, own),
    )


def _mixed_sets(
    mine: NDArray[np.float32] | None,
    theirs: NDArray[np.float32] | None,
    own: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    """Mix what labels leave open: in a mixture a set says as much less as there is less of it."""
    if mine is None and theirs is None:
        return None
    open_here, open_there = (np.float32(1) if a is None else a for a in (mine, theirs))
    return np.asarray(open_here * own + open_there * (1 - own), np.float32)
