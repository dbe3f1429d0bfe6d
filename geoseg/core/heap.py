"""A binary heap of whole numbers, for kernels: the smallest entry is always at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = ["pop", "push"]


@kernel
def _before(heap: NDArray[np.int64], i: int, key: int, tie: int) -> Any:
    """Whether entry i comes before another one."""
    return heap[i, 0] < key or (heap[i, 0] == key and heap[i, 1] < tie)


@kernel
def push(heap: NDArray[np.int64], size: int, key: int, tie: int, item: int) -> int:
    """Put an entry in.

    Args:
        heap: (N, 3) of key, tie and item; ``heap[0]`` is the entry with the smallest key, of
            equal ones that with the smallest tie.
        size: entries that are in it, below N.
        key: the entry's.
        tie: the entry's.
        item: the entry's.

    Returns:
        The new size.
    """
    i = size
    while i > 0:
        above = (i - 1) // 2
        if _before(heap, above, key, tie):
            break
        heap[i, 0], heap[i, 1], heap[i, 2] = heap[above, 0], heap[above, 1], heap[above, 2]
        i = above
    heap[i, 0], heap[i, 1], heap[i, 2] = key, tie, item
    return size + 1


@kernel
def pop(heap: NDArray[np.int64], size: int) -> int:
    """Take the first entry out; read it before.

    Args:
        heap: as for :func:`push`.
        size: entries that are in it, at least 1.

    Returns:
        The new size.
    """
    size -= 1
    key, tie, item = heap[size, 0], heap[size, 1], heap[size, 2]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= size:
            break
        if below + 1 < size and _before(heap, below + 1, heap[below, 0], heap[below, 1]):
            below += 1
        if not _before(heap, below, key, tie):
            break
        heap[i, 0], heap[i, 1], heap[i, 2] = heap[below, 0], heap[below, 1], heap[below, 2]
        i = below
    heap[i, 0], heap[i, 1], heap[i, 2] = key, tie, item
    return size
