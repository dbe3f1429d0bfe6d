"""What a device says when it fails, in geoseg's errors; torch itself is not imported here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from geoseg.errors import DeviceError

__all__ = ["NoRoomError", "explained_failures"]

#: What torch's messages of a failing device have in common, as their types have nothing.
_DEVICE = re.compile(r"CUDA|CUDNN|cuDNN|CUBLAS|cuBLAS|HIP error|MPS")
_FULL = re.compile(r"out of memory|llocate memory|ALLOC_FAILED")


class NoRoomError(DeviceError):
    """Something does not fit into a device's memory; less of it may."""


@contextmanager
def explained_failures(device: str) -> Iterator[None]:
    """Errors that a device causes are raised as :class:`geoseg.errors.DeviceError`.

    A GPU computes while the host goes on, so that its failure comes up in any later call.

    Args:
        device: where it is computed, in words.

    Raises:
        DeviceError: the device failed.
        NoRoomError: its memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).strip() or type(error).__name__
        full = type(error).__name__ == "OutOfMemoryError" or _FULL.search(text)
        if not full and not _DEVICE.search(text):
            raise
        cause = text.splitlines()[0].rstrip(". ")
        if full:
            raise NoRoomError(
                f"{device} ran out of memory ({cause}); use a smaller --batch-size, --size or "
                f"--mem-limit, or --device cpu"
            ) from error
        raise DeviceError(
            f"{device} failed while it computed ({cause}); look at it (nvidia-smi) and give the "
            f"same command again, or use --device cpu"
        ) from error
