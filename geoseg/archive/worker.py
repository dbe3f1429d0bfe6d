"""One job, in a worker: predict a scene into its folder, and say what came of it.

What is raised goes no farther: a worker reports every outcome as a dict, so that nothing has to be
pickled but JSON. A worker that is told to go sets :data:`LEAVING`; the job ends at its next event
and is given back, and its finished strips stay.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from geoseg.archive.asked import further_outputs
from geoseg.archive.deadline import ended_after
from geoseg.archive.faults import fault_of
from geoseg.archive.sources import scene_to_open
from geoseg.archive.stamps import stamp_of
from geoseg.archive.store import store_of
from geoseg.core.importing import package_version
from geoseg.scene.sources import is_remote

__all__ = ["LEAVING", "LeavingError", "TimedOutError", "run_job", "too_long"]

#: Set when this process is told to go.
LEAVING = threading.Event()
#: Compiled networks that a worker keeps for its next scenes.
KEPT = 4
#: Warnings about a map that the ledger keeps, and letters of each: its own report has all.
WARNINGS, WARNING = 5, 300
#: Held by the job that this process is at, as a compiled network is one job's at a time; so is the
#: memory that is measured.
_AT_WORK = threading.Lock()

_GIVEN_BACK = {"outcome": "given back", "reason": "its worker was told to go"}


class LeavingError(BaseException):
    """The worker is told to go: no error that anybody may swallow."""


class TimedOutError(BaseException):
    """The job takes longer than it may."""


def run_job(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job; one at a time in a process.

    Args:
        task: ``key``; ``source``, with full addresses; ``out``, the archive's folder or address;
            ``options`` of ``predict``; ``timeout`` in seconds or None; ``also``, further outputs
            (:mod:`geoseg.archive.asked`); and what ``splitting.block_task`` says.

    Returns:
        ``outcome``: ``done`` or ``split`` with ``result``, ``failed`` with ``kind``, ``reason`` and
        ``passing``, or ``given back``; and always ``host``, ``worker``, ``versions``,
        ``peak_bytes`` and ``seconds``.
    """
    while not _AT_WORK.acquire(timeout=0.5):  # a worker with several threads
        if LEAVING.is_set():
            return {**_GIVEN_BACK, **_whereabouts(), "peak_bytes": None, "seconds": 0.0}
    try:
        return _outcome(task)
    finally:
        _AT_WORK.release()


def _outcome(task: Mapping[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    # Of arrays that are resampled; a worker's terminal may be the user's.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform, gcps, or rpcs")
    _forget_peak()
    about: dict[str, Any]
    try:
        with ended_after(task.get("timeout")):
            # Before anything is read: what changes meanwhile is not what the map is of.
            stamp = stamp_of(task["source"])
            result = {**_predict(task, start), "stamp": stamp}
    except LeavingError:
        about = dict(_GIVEN_BACK)
    except TimedOutError:
        about = {"outcome": "failed", "kind": "too long", "passing": False}
        about["reason"] = too_long(task["timeout"])
    except Exception as error:  # noqa: BLE001 - every outcome is reported
        if LEAVING.is_set():  # a process that ends starts no threads: that is not the scene's fault
            return {**_GIVEN_BACK, **_whereabouts(), "peak_bytes": _peak(), "seconds": 0.0}
        source = task["source"]
        remote = "item" in source or any(map(is_remote, source["files"]))
        fault = fault_of(error, remote=remote)
        about = {"outcome": "failed", "kind": fault.kind, "reason": fault.reason}
        about["passing"] = fault.passing
    else:
        about = {"outcome": "split" if "blocks" in result else "done", "result": result}
    seconds = time.monotonic() - start
    return {**about, **_whereabouts(), "peak_bytes": _peak(), "seconds": seconds}


def _predict(task: Mapping[str, Any], start: float) -> dict[str, Any]:
    from geoseg.archive.splitting import predict_task
    from geoseg.runtimes.kept import keep

    keep(KEPT)
    source, store = task["source"], store_of(task["out"])
    timeout = task.get("timeout")

    def hear(event: Any) -> None:
        if event is not None and event["event"] == "result":
            return  # everything is in place
        if LEAVING.is_set():
            raise LeavingError
        if timeout is not None and time.monotonic() - start > timeout:
            raise TimedOutError

    hear(None)
    options = {**task["options"], **source.get("options", {})}
    with store.job_folder(task["key"]) as folder:
        if not options.get("no_vector"):
            options["vector"] = folder / f"polygons{task['vector_suffix']}"
        done = predict_task(
            task,
            scene_to_open(source),
            folder / "landcover.tif",
            overwrite=True,
            progress=hear,
            **further_outputs(folder, task.get("also", ())),
            **options,
        )
        if isinstance(done, dict):
            return done
        item = store.finish(folder, task["key"], source, done.report, lambda: hear(None))
    result = result_of(item, done.report)
    result["seconds"] += task.get("seconds", 0.0)  # of its blocks
    return result


def too_long(seconds: float) -> str:
    """Say why a job is given up that takes longer than it may."""
    return f"it was not done after {seconds:g} s (--job-timeout)"


def result_of(item: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger keeps of a map that is done.

    Args:
        item: the map's.
        report: of ``geoseg predict``.
    """
    classes = item["assets"]["landcover"]["classification:classes"]
    colors = {entry["value"]: entry.get("color_hint") for entry in classes}
    files = {
        asset["href"].removeprefix("./"): {
            "size": asset["file:size"],
            "checksum": asset["file:checksum"],
        }
        for asset in item["assets"].values()
    }
    return {
        "pixels": report["pixels"]["valid"],
        "seconds": report["seconds"]["total"],
        "classes": [
            {
                **{name: entry[name] for name in ("id", "name", "pixels", "area_m2")},
                "color": colors.get(entry["id"]),
            }
            for entry in report["classes"]
        ],
        "warnings": [warning[:WARNING] for warning in report["warnings"][:WARNINGS]],
        "bytes": sum(file["size"] for file in files.values()),
        "files": files,
    }


def _whereabouts() -> dict[str, str]:
    """Where a job ran, and with which versions."""
    from distributed import get_worker

    try:
        worker = str(get_worker().address)
    except ValueError:
        worker = f"process {os.getpid()}"
    versions = ", ".join(f"{p} {package_version(p)}" for p in ("geoseg", "openvino", "rasterio"))
    return {"host": socket.gethostname(), "worker": worker, "versions": versions}


def _forget_peak() -> None:
    """Have Linux measure the peak of this process's memory anew."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return


def _peak() -> int | None:
    """The most bytes of memory that this process has had."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import psutil

    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
