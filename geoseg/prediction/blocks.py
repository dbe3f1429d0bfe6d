"""One large scene by several processes: blocks of strips, and then one map.

::

    predict_or_split -> blocks -> predict_block, each by any process -> predict_or_split -> map

A block is a range of strips' numbers, in all lanes. Whoever splits a scene leaves the record of a
run that was stopped before its first strip (``report.run_record``): with what is chosen there,
runtime, precision and lanes, every block is computed, and its strips are kept in a work folder of
its own beside the map. Whoever makes the map takes them over as its own, and computes what is
missing; blocks of another record (of another kind of machine, say) are of no use.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from geoseg.core.gdal import block_cache
from geoseg.core.locking import BusyError
from geoseg.core.staging import Staging
from geoseg.core.workfolder import WorkFolder, work_folder_of
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError
from geoseg.events import Progress
from geoseg.prediction.engine import predict_strips
from geoseg.prediction.journal import StripStore
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan
from geoseg.prediction.rasters import check_disk, raster_specs
from geoseg.prediction.run import Loaded, Prediction, begin, kept_strips, load, make_map
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.strip_files import bring_strips, forget_damaged
from geoseg.runtimes import Runtime
from geoseg.scene.opening import Source

__all__ = ["Block", "predict_block", "predict_or_split"]

#: Numbers of its first strip, and of the first one after.
Block = tuple[int, int]


def predict_or_split(
    scene: Source,
    output: Path,
    *,
    split: float | None = None,
    progress: Progress | None = None,
    runtime: Runtime | str = "auto",
    **options: Any,
) -> Prediction | list[Block]:
    """Make a scene's map of what is there of it, or say in which blocks it is to be computed.

    What a run of something else has left is forgotten: nobody is there to be asked.

    Args:
        scene: as for :func:`geoseg.predict`.
        output: the class raster.
        split: pixels of the output that a block has, about; None to make the map.
        progress: called with each event (see :mod:`geoseg.events`).
        runtime: as for :func:`geoseg.predict`.
        **options: the fields of :class:`geoseg.prediction.options.PredictOptions`.

    Returns:
        The map; or two blocks or more, where more is left to be computed than ``split``.

    Raises:
        GeosegError: no output has appeared then.
    """
    log = RunLog(progress)
    plan, staging = begin(scene, _options(output, runtime, options), log)
    places = _places(output)
    loaded = load(plan, runtime, staging.earlier() or {}, log, same_lanes=bool(places))
    staging.resumable(loaded.record, restart=bool(staging.differs(loaded.record)))
    if places or staging.earlier() is not None or _is_large(plan, split):
        blocks = _take_stock(plan, loaded, staging, places, split, log)
        if blocks:
            return blocks
        staging.resumable(loaded.record)
    done = make_map(plan, loaded, staging, log)
    for place in places:
        with suppress(BusyError, OutputError, OSError):  # somebody is at it: it is removed by them
            WorkFolder.take(place).remove()
    return done


def predict_block(
    scene: Source,
    output: Path,
    block: Block,
    *,
    progress: Progress | None = None,
    runtime: Runtime | str = "auto",
    **options: Any,
) -> bool:
    """Compute a block of a scene's strips, and leave them for whoever makes the map.

    Args:
        scene: as for :func:`predict_or_split`.
        output: the class raster.
        block: one of its.
        progress: called with each event (see :mod:`geoseg.events`).
        runtime: as for :func:`geoseg.predict`.
        **options: as it was given them.

    Returns:
        Whether the block is there; False where strips of this machine could not be used, so that
        it is left to whoever makes the map.

    Raises:
        GeosegError: something failed; strips that are finished are kept.
    """
    log = RunLog(progress)
    plan, whole = begin(scene, _options(output, runtime, options), log)
    record = whole.earlier()
    if record is None:
        raise OutputError(
            f"{output}: what was decided for its blocks is not there any more; have the scene done "
            f"again (geoseg batch retry)"
        )
    loaded = load(plan, runtime, record, log, same_lanes=True)
    if whole.differs(loaded.record):
        return False
    first, last = block
    own = Staging([_place(output, block)])
    own.resumable(loaded.record, restart=bool(own.differs(loaded.record)))
    with (
        own,
        block_cache(plan.cache_bytes),
        own.speaking_of_finals(),
        _set_at_end() as cancelled,
    ):
        strips = own.scratch("strips")
        _forget_damaged(strips, log)
        lanes = loaded.lanes
        store = StripStore(strips, raster_specs(plan), len(lanes), cancelled, first=first)
        with kept_strips(own, store, log):
            network = loaded.runtime
            predict_strips(plan, network, lanes, store, lambda: None, log, cancelled, last)
        # Where the map was made meanwhile nobody will come for them.
        own.keep = whole.earlier() is not None
    return True


def _options(output: Path, runtime: Runtime | str, options: Mapping[str, Any]) -> PredictOptions:
    name = runtime if isinstance(runtime, str) else "auto"
    return PredictOptions(output=output, runtime=name, **options)


def _is_large(plan: Plan, split: float | None) -> bool:
    return split is not None and plan.grid.height * plan.grid.width > split


def _take_stock(
    plan: Plan,
    loaded: Loaded,
    staging: Staging,
    places: list[Path],
    split: float | None,
    log: RunLog,
) -> list[Block]:
    """Take over what is there of a scene, keep what was decided, and see what is left to do.

    Returns:
        Blocks of what is left, where that is more than ``split``.
    """
    with staging:
        staging.keep = True
        strips = staging.scratch("strips")
        try:
            strips.mkdir(exist_ok=True)
            for place in places:
                if not Staging([place], overwrite=True).differs(loaded.record):
                    bring_strips(work_folder_of(place) / "scratch" / "strips", strips)
        except OSError as error:
            raise explain_write_error(error, staging.finals[0]) from error
        _forget_damaged(strips, log)
        if split is None or not _is_large(plan, split):
            return []
        store = StripStore(strips, raster_specs(plan), len(loaded.lanes))
        blocks = _blocks(plan, store, len(loaded.lanes), split)
        if blocks:
            check_disk(plan, store, staging)
        return blocks


def _blocks(plan: Plan, store: StripStore, lanes: int, pixels: float) -> list[Block]:
    """Cut what is left of a scene into blocks of about so many pixels, or into none."""
    count = len(plan.chips.row_starts)
    left = [part for lane in range(lanes) for part in store.missing(lane, count)]
    if not left:
        return []
    first, last = min(a for a, _ in left), max(b for _, b in left)
    share = (last - first) / count * plan.grid.height * plan.grid.width
    parts = min(math.ceil(share / pixels), last - first)
    if parts < 2:
        return []
    return list(pairwise(first + round(i * (last - first) / parts) for i in range(parts + 1)))


def _place(output: Path, block: Block) -> Path:
    """Name the file, which never appears, whose work folder is a block's."""
    first, last = block
    return output.with_name(f"{output.stem}-strips-{first:06}-{last:06}")


def _places(output: Path) -> list[Path]:
    """Find the blocks of a map whose work folders are there, from the top."""
    found = output.absolute().parent.glob(f".geoseg-{escape(output.stem)}-strips-*-*")
    return [output.with_name(path.name.removeprefix(".geoseg-")) for path in sorted(found)]


def _forget_damaged(strips: Path, log: RunLog) -> None:
    """Have strips computed anew whose files are not what was written."""

    def say(done: int, total: int) -> None:
        log.report("note", message=f"looking at strip {done + 1} of {total}")

    try:
        forget_damaged(strips, say)
    except OSError as error:
        raise explain_write_error(error, strips) from error


@contextmanager
def _set_at_end() -> Iterator[threading.Event]:
    """An event that is set at the end, whatever ends it, so that no thread goes on."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()
