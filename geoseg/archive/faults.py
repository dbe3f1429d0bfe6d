"""Why a job failed, in a word, and whether the fault may pass."""

from __future__ import annotations

import re
from dataclasses import dataclass

from geoseg.core.locking import BusyError
from geoseg.core.s3 import S3Error
from geoseg.errors import (
    BandError,
    DeviceError,
    GeosegError,
    MissingExtraError,
    ModelError,
    OutputError,
    RadiometryError,
    SceneError,
    UsageError,
)

__all__ = ["KINDS", "Fault", "fault_of"]

#: Kind -> what it means, for people.
KINDS = {
    "missing": "the scene is not there",
    "denied": "the scene may not be read with these credentials",
    "unreachable": "a server failed again and again",
    "corrupt": "the scene can't be read",
    "unfit": "the scene does not suit the model or the options",
    "empty": "the scene holds no measured pixel",
    "too large": "the scene, or its polygons, are more than was allowed",
    "crashed": "workers went away with it",
    "too long": "it ran past --job-timeout",
    "model": "the model can't be used",
    "output": "its outputs can't be written",
    "unexpected": "an error that geoseg does not know",
}

#: Of servers, and of file systems of networks.
_PASSING = re.compile(
    r"HTTP (response|error) code: (5\d\d|429|408)|timed? ?out|[Cc]onnection|[Cc]ould(n't| not) "
    r"(connect|resolve)|[Rr]esolving|[Ss]low ?[Dd]own|reset by peer|SSL|cut short|cut off|"
    r"transfer closed|Partial file|Operation too slow"
)
_PASSING_HERE = re.compile(
    r"Input/output error|Stale file handle|Resource temporarily unavailable|[Tt]imed out|"
    # Dask gives a job to another worker while the first one, which was told to go, is at it yet.
    r"another run is at work"
)
_FULL = re.compile(r"disk is full|No space left|quota", re.I)
_DENIED = re.compile(
    r"HTTP (response|error) code: 40[13]|[Aa]ccess ?[Dd]enied|Forbidden|InvalidAcc|Access Key Id|"
    r"request signature|AWS_SECRET_ACCESS_KEY|[Tt]oken (has expired|is|you provided)|NoCredentials"
)
_MISSING = re.compile(r"no such file|HTTP (response|error) code: (404|410)|does not exist|NoSuch")
_LARGE = re.compile(r"--max-pixels|million polygons|too many polygons")
#: What the messages say of a file that GDAL fails at, or that is no JSON.
_CORRUPT = re.compile(r"can't be read|GDAL can open|damaged|cut short|is no JSON|in a file of ")
_EMPTY = re.compile(r"no pixel was measured")


@dataclass(frozen=True)
class Fault:
    """What is made of an error.

    Attributes:
        kind: a key of :data:`KINDS`; ``stop`` where the run can't go on: the disk is full, the
            archive's bucket refuses, or a package is missing on a worker, which fails all scenes.
        reason: the error, in a line.
        passing: whether the same may succeed later.
    """

    kind: str
    reason: str
    passing: bool = False


def fault_of(error: BaseException, *, remote: bool = False) -> Fault:
    """Classify an error of a job.

    Args:
        error: whatever ``predict`` raised.
        remote: whether the scene is read from a server. What is cut short there may come whole the
            next time; a file of this machine is damaged.
    """
    passes = _PASSING if remote else _PASSING_HERE
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, BusyError):
        return Fault("output", reason, passing=True)
    if isinstance(error, MemoryError):
        return Fault("crashed", f"out of memory: {reason}", passing=True)
    if _FULL.search(reason) or isinstance(error, MissingExtraError):
        return Fault("stop", reason)
    if isinstance(error, OutputError) and isinstance(error.__cause__, S3Error):
        passing = error.__cause__.passing
        return Fault("unreachable" if passing else "stop", reason, passing)
    if isinstance(error, GeosegError):
        return _known(error, reason, passes)
    if isinstance(error, OSError) and passes.search(reason):
        return Fault("unreachable", reason, passing=True)
    return Fault("unexpected", f"{type(error).__name__}: {reason}")


def _known(error: GeosegError, reason: str, passes: re.Pattern[str]) -> Fault:
    if isinstance(error, SceneError) and not isinstance(error, BandError | RadiometryError):
        for pattern, kind in ((_EMPTY, "empty"), (_LARGE, "too large"), (_DENIED, "denied")):
            if pattern.search(reason):
                return Fault(kind, reason)
        if _MISSING.search(reason):
            return Fault("missing", reason)
        if passes.search(reason):
            return Fault("unreachable", reason, passing=True)
        return Fault("corrupt" if _CORRUPT.search(reason) else "unfit", reason)
    if _LARGE.search(reason):
        return Fault("too large", reason)
    if isinstance(error, ModelError | DeviceError):
        return Fault("model", reason)
    if isinstance(error, OutputError):
        return Fault("output", reason, passing=bool(_PASSING_HERE.search(reason)))
    if isinstance(error, UsageError | BandError | RadiometryError):
        return Fault("unfit", reason)
    return Fault("unexpected", reason)
