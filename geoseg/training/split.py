"""Which pixels are learned from and which are held out.

Chips that overlap, or lie side by side, look alike: a network that saw one of them knows the other.
So places are split, not chips. Blocks of a scene, or whole scenes, go to one side; around held-out
blocks a margin belongs to neither. A training chip never holds a pixel of a held-out block or of
its margin, and a validation chip never one of the training side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import TrainingError

__all__ = ["FINAL", "MARGIN", "TRAIN", "VALIDATION", "SplitConfig", "deal", "fill_blocks"]

#: The sides of a pixel. What is on the final one is looked at once the weights are final.
TRAIN, VALIDATION, MARGIN, FINAL = 0, 1, 2, 3

KINDS = ("scenes", "blocks", "files", "groups", "random")


@dataclass(frozen=True)
class SplitConfig:
    """How scenes are split.

    Attributes:
        by: ``scenes``: each scene says its own ``split``; ``blocks``: squares of each scene;
            ``files``: whole scenes, all those of one place together; ``groups``: whole groups of
            places, such as biomes, as each scene says in its ``group``; ``random``: squares of a
            chip's size without a margin, whose neighbours are on the other side, so that scores
            flatter.
        folds: into how many parts places are dealt; one of them is held out.
        fold: which one, 1 to ``folds``.
        block: side of a block, px.
        margin: px around held-out blocks that belong to neither side.
        seed: of the dealing; not the recipe's, so that the parts are the same whatever that is.
        chosen_by: groups that are held out in every run: its course, the best of its weights and
            the recipe's settings are judged by these.
        left_out: groups that are held out besides, which nothing is chosen by: they are judged
            once, at the end.
    """

    by: str = "scenes"
    folds: int = 5
    fold: int = 1
    block: int = 256
    margin: int = 32
    seed: int = 0
    chosen_by: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            TrainingError: a value breaks its rule.
        """
        builtin_fields(self)
        if self.by not in KINDS:
            raise TrainingError(f"the split is by {self.by!r}; it is by one of {', '.join(KINDS)}")
        if self.folds < 2:
            raise TrainingError(
                f"folds is {self.folds}; 2 at least, of which one is held out (5: a fifth)"
            )
        if not 1 <= self.fold <= self.folds:
            raise TrainingError(f"fold is {self.fold}; it must be 1 to {self.folds}, as folds says")
        if self.block < 8:
            raise TrainingError(f"block is {self.block} px; it must be 8 at least")
        if self.margin < 0:
            raise TrainingError(f"margin is {self.margin} px; it must be 0 at least")
        if self.seed < 0:
            raise TrainingError(f"the split's seed is {self.seed}; it must be 0 at least")
        if self.by != "groups" and (self.chosen_by or self.left_out):
            raise TrainingError(
                f"chosen_by and left_out name groups and the split is by {self.by}; say by = "
                f"'groups'"
            )
        both = sorted(set(self.chosen_by) & set(self.left_out))
        if both:
            raise TrainingError(
                f"{both[0]} is in chosen_by and in left_out; the final score is of groups that "
                f"nothing was chosen by"
            )

    def side_of(self, group: str) -> int:
        """Find the side of a group's scenes, where the split is by groups."""
        if group in self.left_out:
            return FINAL
        return VALIDATION if group in self.chosen_by else TRAIN


def deal(counts: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Deal places into folds so that each fold gets its share of each class.

    The places of the rarest class are dealt first, to the fold that has least of it. What is dealt
    depends on counts and seed alone.

    Args:
        counts: int (N, K), labelled pixels of each place by class.
        folds: how many.
        seed: of the order among equals.

    Returns:
        int64 (N,), the fold of each place, 0 to folds - 1; -1 for a place without labels.

    Raises:
        TrainingError: fewer places with labels than folds.

    Examples:
        >>> deal(np.array([[9, 0], [9, 0], [8, 1], [8, 1]]), 2, seed=0).tolist() in (
        ...     [a, 1 - a, b, 1 - b] for a in (0, 1) for b in (0, 1)
        ... ) or "rare classes lie on both sides"
        True
    """
    labelled = np.flatnonzero(counts.sum(axis=1) > 0)
    if len(labelled) < folds:
        raise TrainingError(
            f"{len(labelled)} places have labels, too few to deal them into {folds} parts of which "
            f"one is held out; choose fewer parts (--fold 1/2, or split.folds), smaller blocks "
            f"(--block, or split.block), or label more places"
        )
    total = np.maximum(counts.sum(axis=0), 1)
    share = counts / total
    # A place belongs to the class of which it holds most; the classes held by few places go first.
    rarest = share.argmax(axis=1)
    holders = np.bincount(rarest[labelled], minlength=counts.shape[1])
    shuffled = np.random.default_rng(seed).permutation(labelled).tolist()
    order = sorted(shuffled, key=lambda i: (holders[rarest[i]], -share[i, rarest[i]]))
    fold = np.full(len(counts), -1, np.int64)
    held = np.zeros((folds, counts.shape[1]))
    places = np.zeros(folds)
    for i in order:
        # Least of the place's class; among equals the fold with the fewest places.
        best = min(range(folds), key=lambda f: (round(held[f, rarest[i]], 9), places[f], f))
        fold[i] = best
        held[best] += share[i]
        places[best] += 1
    return fold


def fill_blocks(
    sides: NDArray[np.uint8], block: int, held_out: NDArray[np.bool_], margin: int
) -> None:
    """Put each pixel of a scene that is split by blocks on its side, in place.

    Args:
        sides: uint8 (H, W), becomes :data:`TRAIN`, :data:`VALIDATION` and :data:`MARGIN`.
        block: side of a block, px; those at the right and bottom edges may be smaller.
        held_out: bool (rows of blocks, columns of blocks).
        margin: px around held-out blocks that belong to neither side.
    """
    sides[:] = TRAIN
    places = np.argwhere(held_out) * block
    for row, col in places:
        top, left = max(row - margin, 0), max(col - margin, 0)
        sides[top : row + block + margin, left : col + block + margin] = MARGIN
    for row, col in places:
        sides[row : row + block, col : col + block] = VALIDATION
