"""Scenes in blocks: what a ledger has of a block, and what a worker does of a scene.

A scene that is larger than ``--split`` says comes back from its first worker in blocks of strips
(:mod:`geoseg.prediction.blocks`), which are jobs of their own: the scene's own job waits until all
are done, and makes the map of what they left in its folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.archive.entries import Job, NewJob

if TYPE_CHECKING:
    from geoseg.prediction.run import Prediction
    from geoseg.scene.opening import Source

__all__ = ["block_jobs", "block_task", "predict_task"]


def block_jobs(job: Job, blocks: Iterable[Sequence[int]]) -> list[NewJob]:
    """Make the jobs of a scene's blocks.

    Args:
        job: of the scene.
        blocks: (first strip, the first after) of each.
    """
    return [
        NewJob(
            f"{job.key}-strips-{first:06}-{last:06}",
            f"{job.name}, strips {first} to {last - 1}",
            {**job.source, "block": [first, last]},
            job.key,
        )
        for first, last in blocks
    ]


def block_task(job: Job, blocks: Sequence[Job], split: float | None) -> dict[str, Any]:
    """What a worker needs to know of blocks.

    Args:
        job: of a block, or of a scene.
        blocks: of the scene, done; none where it was not split.
        split: pixels of a block, or None.

    Returns:
        ``block``, where the job is one; ``split``, where its scene may be; ``seconds`` that its
        blocks took.
    """
    return {
        "block": job.source.get("block"),
        "split": None if blocks else split,
        "seconds": sum(block.result.get("seconds", 0.0) for block in blocks),
    }


def predict_task(
    task: Mapping[str, Any], scene: Source, output: Path, **options: Any
) -> Prediction | dict[str, Any]:
    """Do what a job of a scene, or of a block of it, is there for.

    Args:
        task: with what :func:`block_task` says.
        scene: to open.
        output: the class raster.
        **options: of ``predict``.

    Returns:
        The map; or ``blocks``, where the scene is to be split; or of a block that is done its
        ``seconds``, and whether it is ``used``.

    Raises:
        GeosegError: see :func:`geoseg.predict`.
    """
    from geoseg.prediction.blocks import predict_block, predict_or_split

    start = time.monotonic()
    if task.get("block"):
        first, last = task["block"]
        used = predict_block(scene, output, (first, last), **options)
        return {"used": used, "seconds": time.monotonic() - start}
    found = predict_or_split(scene, output, split=task.get("split"), **options)
    return {"blocks": found} if isinstance(found, list) else found
