"""The memory that a scene's files are decoded in: GDAL's block cache, and its decoders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from geoseg.core.machine import available_memory, release_memory
from geoseg.scene.file_blocks import TALL_ROWS, number_bytes
from geoseg.scene.scene_band import SceneBand

__all__ = ["blocks_warning", "cache_bytes", "decoder_bytes", "release_decoders"]

#: Of the memory that a run may take, so much is for the blocks of files at most.
SHARE = 4
#: What scenes of small blocks take at least and at most, whatever the limit.
LEAST_BYTES, USUAL_BYTES = 64 << 20, 512 << 20


def cache_bytes(bands: Sequence[SceneBand], limit: int | None) -> int:
    """Bytes of a block cache in which no block is decoded twice, as far as memory allows.

    Args:
        bands: that are read together.
        limit: of the run's memory, bytes; None for what is free.
    """
    usual = min(max(_small_bytes(bands), LEAST_BYTES), USUAL_BYTES)
    wanted = _wanted(bands)
    # What is larger and not enough would be no better.
    return wanted if usual < wanted <= _most(limit) else usual


def decoder_bytes(bands: Iterable[SceneBand]) -> int:
    """Bytes that decoders of tall blocks take beside the cache.

    A thread decodes one file at a time, and two may: the one that reads rows of chips, and the one
    that looks at the scene's numbers meanwhile.

    Args:
        bands: that are read together.
    """
    tall = (b.blocks.decoder_bytes for b in bands if b.blocks is not None and b.blocks.tall)
    return 2 * max(tall, default=0)


def release_decoders(bands: Iterable[SceneBand]) -> None:
    """Give back what decoders of tall blocks have freed: the C library keeps it for each thread.

    Args:
        bands: that were read together.
    """
    if decoder_bytes(bands):
        release_memory()


def blocks_warning(bands: Sequence[SceneBand], limit: int | None) -> Iterator[str]:
    """Warn where blocks are decoded again for each row of chips, since memory is too small.

    Args:
        bands: that are read together.
        limit: of the run's memory, bytes; None for what is free.
    """
    wanted = _wanted(bands)
    if max(wanted, USUAL_BYTES) <= max(_most(limit), USUAL_BYTES) or not _kept_bytes(bands):
        return
    band = max(bands, key=lambda b: 0 if b.blocks is None else b.blocks.decoder_bytes)
    assert band.blocks is not None, "some band has tall blocks"
    more = "free some memory" if limit is None else f"--mem-limit {_round_up(SHARE * wanted)}"
    yield (
        f"{Path(band.path).name} is stored in blocks of {band.blocks.width} x {band.blocks.height} "
        f"px, which are decoded as a whole: to keep them takes {wanted / 1e6:.0f} MB, more than a "
        f"quarter of the memory, so they are decoded again for each row of chips; {more}, or write "
        f"the scene in smaller blocks"
    )


def _wanted(bands: Sequence[SceneBand]) -> int:
    """Bytes of all rows of blocks that are read from several times."""
    tall = _kept_bytes(bands)
    small = [b for b in bands if b.blocks is None or not b.blocks.tall]
    return tall + min(_small_bytes(small), USUAL_BYTES) if tall else 0


def _kept_bytes(bands: Iterable[SceneBand]) -> int:
    """Bytes of two rows of tall blocks of each file, or of one where there is only one.

    So much of GDAL's cache is enough to decode none twice: a row of blocks is read from top to
    bottom, and a few chips, or what is resampled, may reach into two of them.

    Args:
        bands: that are read together; those of other blocks count nothing.
    """
    total = 0
    for band, several in _by_file(bands):
        blocks, grid = band.blocks, band.grid
        if blocks is None or not blocks.tall:
            continue
        width = math.ceil(grid.width / blocks.width) * blocks.width
        height = blocks.height * min(2, math.ceil(grid.height / blocks.height))
        together = max(several, blocks.bands)
        total += height * width * together * number_bytes(band.dtype)
    return total + total // 64  # what GDAL notes of each block counts, too


def _by_file(bands: Iterable[SceneBand]) -> Iterator[tuple[SceneBand, int]]:
    """The first of each file's bands, and how many of the file's they are."""
    files: dict[str, list[SceneBand]] = {}
    for band in bands:
        files.setdefault(band.path, []).append(band)
    for several in files.values():
        yield several[0], len(several)


def _small_bytes(bands: Iterable[SceneBand]) -> int:
    """Bytes of a few rows of the tallest blocks that are not tall."""
    return 3 * TALL_ROWS * sum(number_bytes(b.dtype) * b.grid.width for b in bands)


def _most(limit: int | None) -> int:
    return (available_memory() if limit is None else limit) // SHARE


def _round_up(size: int) -> str:
    """A size as an option takes it."""
    return f"{-(-size // 10**8) / 10:.1f}GB"
