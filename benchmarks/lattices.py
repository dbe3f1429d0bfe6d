"""How often check-seams finds a lattice that is there, and one that is not.

    python benchmarks/lattices.py MAP.tif... [--windows 300] [--tries 40] [--known PERIOD]

False alarms are counted in windows of the maps, 200 to 1000 px a side, of places drawn at random.
Then lattices are laid into windows, and it is counted how often they are found at the right axis,
period and phase. Give class rasters that have none themselves, neither resampled nor put
together of tiles, or say which --known periods they have.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.evaluation.lattice import LEVEL, LatticeSearch, find_lattices, tally

IdArray = NDArray[Any]
PERIODS = (2, 3, 4, 8, 16, 32, 64, 128, 256)


def touched_lines(
    length: int, period: int, phase: int, share: float, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw lines of a lattice that are a share of all lines, or all of the lattice's."""
    lattice = np.arange(phase or period, length - 1, period)
    count = min(len(lattice), max(1, math.ceil(share * length)))
    return np.sort(random.choice(lattice, count, replace=False))


def turned_on(ids: IdArray, turns: NDArray[Any]) -> IdArray:
    """Give pixels the class that comes so many after theirs, of those that the map has."""
    classes = np.flatnonzero(np.bincount(ids.ravel()))
    place = np.zeros(int(classes[-1]) + 1, np.int64)
    place[classes] = np.arange(len(classes))
    return np.asarray(classes.astype(ids.dtype)[(place[ids] + turns) % len(classes)])


def wrong_rows(
    ids: IdArray, rows: NDArray[np.int64], part: float, random: np.random.Generator
) -> IdArray:
    """Give a part of the pixels of these rows another class."""
    turns = np.zeros(ids.shape, np.int8)
    turns[rows] = random.random((len(rows), ids.shape[1])) < part
    return turned_on(ids, turns)


def cuts(
    ids: IdArray, rows: NDArray[np.int64], part: float, random: np.random.Generator
) -> IdArray:
    """Give a part of the columns other classes from each of these rows on, as chips that differ."""
    turns = np.zeros(ids.shape, np.int16)
    turns[rows] = random.random((len(rows), ids.shape[1])) < part
    return turned_on(ids, np.cumsum(turns, axis=0))


def copied_rows(
    ids: IdArray, rows: NDArray[np.int64], part: float, random: np.random.Generator
) -> IdArray:
    """Repeat the row above: nothing changes at these lines."""
    out = ids.copy()
    there = random.random(ids.shape[1]) < part
    out[rows] = np.where(there, ids[rows - 1], ids[rows])
    return out


def searched(ids: IdArray, valid: NDArray[np.bool_]) -> dict[tuple[str, str], LatticeSearch]:
    """Look for lattices in an array, as in a map."""
    found = {}
    for axis, turned in (("columns", (ids.T, valid.T)), ("rows", (ids, valid))):
        changes, pairs, alone, triples = tally(*turned)
        lines = np.pad(changes, (1, 0)), np.pad(pairs, (1, 0))
        found[axis, "lines"] = find_lattices(*lines, searches=4)
        found[axis, "alone"] = find_lattices(np.pad(alone, 1), np.pad(triples, 1), searches=4)
    return found


def window(ids: IdArray, size: tuple[int, int], random: np.random.Generator) -> tuple[slice, slice]:
    """Draw a place."""
    top, left = (
        int(random.integers(0, max(1, n - s + 1))) for n, s in zip(ids.shape, size, strict=True)
    )
    return slice(top, top + size[0]), slice(left, left + size[1])


def false_alarms(
    maps: Sequence[tuple[str, IdArray, NDArray[np.bool_]]], count: int, known: set[int]
) -> None:
    """Count windows in which a lattice is found, of other periods than known ones."""
    random = np.random.default_rng(0)
    weights = np.array([ids.size for _, ids, _ in maps], float) ** 0.5
    alarms = judged = 0
    for which in random.choice(len(maps), count, p=weights / weights.sum()):
        name, ids, valid = maps[which]
        size = [int(random.integers(min(200, n), min(1000, n) + 1)) for n in ids.shape]
        place = window(ids, (size[0], size[1]), random)
        found = searched(ids[place], valid[place])
        judged += any(search.longest for search in found.values())
        told = {
            (*key, lattice.period, lattice.phase, f"{lattice.p_value:.2g}")
            for key, search in found.items()
            for lattice in search.lattices
            if lattice.period not in known
        }
        alarms += bool(told)
        if told:
            print(f"  {name} {place}: {sorted(told)}")
    print(
        f"{alarms} false alarms in {judged} windows ({alarms / max(1, judged):.2%}); {count} drawn"
    )


def power(
    maps: Sequence[tuple[str, IdArray, NDArray[np.bool_]]],
    kind: str,
    part: float,
    tries: int,
) -> None:
    """Print how often lattices are found: a table of periods by shares of rows and map sizes."""
    lay = {"rows": wrong_rows, "cuts": cuts}[kind]
    shares = (0.01, 0.03, 1.0)
    print(f"\n{kind}, {part:.0%} of their pixels; columns: sides of a map, px / share of its rows")
    sides = [side for side in (256, 512, 1000, 2000) if any(min(m[1].shape) >= side for m in maps)]
    print("period " + "".join(f"{side:>5}/{share:<5.0%}" for side in sides for share in shares))
    for period in PERIODS:
        line = f"{period:>6} "
        for side in sides:
            large = [m for m in maps if min(m[1].shape) >= side]
            for share in shares:
                if (side - 1) // period < 4:
                    line += f"{'-':>9}  "
                    continue
                random = np.random.default_rng(period)
                hits = 0
                for _ in range(tries):
                    _, *chosen = large[int(random.integers(len(large)))]
                    hits += found_at(chosen, side, period, share, part, lay, random)
                line += f"{hits / tries:>9.0%}  "
        print(line, flush=True)


def found_at(
    chosen: Sequence[NDArray[Any]],
    side: int,
    period: int,
    share: float,
    part: float,
    lay: Callable[..., IdArray],
    random: np.random.Generator,
) -> bool:
    """Lay a lattice into a window, turned half of the times, and look for it."""
    ids, valid = chosen
    place = window(ids, (side, side), random)
    ids, valid = ids[place], valid[place]
    phase = int(random.integers(period))
    turned = bool(random.integers(2))
    if turned:
        ids, valid = ids.T, valid.T
    ids = lay(ids, touched_lines(side, period, phase, share, random), part, random)
    if turned:
        ids, valid = ids.T, valid.T
    found = searched(ids, valid)
    axis = "columns" if turned else "rows"
    right = {("lines", phase), ("alone", phase)}
    if lay is not cuts:
        right.add(("lines", (phase + 1) % period))
    return any(
        lattice.period == period and (kind, lattice.phase) in right
        for (there, kind), search in found.items()
        if there == axis
        for lattice in search.lattices[:1]
    )


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", nargs="+", type=Path)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--known", type=int, action="append", default=[])
    options = parser.parse_args()
    maps = []
    for path in options.maps:
        with rasterio.open(path) as dataset:
            maps.append((path.stem, dataset.read(1), dataset.read_masks(1) != 0))
    print(f"{len(maps)} maps; p < {LEVEL}")
    if options.windows:
        false_alarms(maps, options.windows, set(options.known))
    if options.tries:
        for kind, part in (("rows", 0.3), ("cuts", 0.3), ("cuts", 0.03)):
            power(maps, kind, part, options.tries)


if __name__ == "__main__":
    main()
