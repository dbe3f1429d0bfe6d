"""Copies between a computer's memory and a device's: packed, and not waited for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Transfers"]


class Transfers:
    """Copies to and from one device.

    On CUDA they go through pinned memory on a stream of their own, beside what is computed. On
    other devices whoever asks for the numbers waits for the copy.
    """

    def __init__(self, device: torch.device) -> None:
        """Make the stream.

        Args:
            device: to copy to and from.
        """
        self._device = device
        self._cuda = device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]

    def upload(self, arrays: Sequence[NDArray[Any]]) -> Callable[[], list[Tensor]]:
        """Begin one copy to the device; see :meth:`geoseg.runtimes.DeviceRuntime.upload`."""
        # Each begins where any number may begin.
        starts, size = _places([array.nbytes for array in arrays])
        packed = torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda)
        for array, start in zip(arrays, starts, strict=True):
            part = packed.numpy()[start : start + array.nbytes].view(array.dtype)
            part.reshape(array.shape)[...] = array
        if not self._cuda:
            there = packed.to(self._device)
        else:
            with torch.cuda.stream(self._stream):
                there = packed.to(self._device, non_blocking=True)
                arrived = self._stream.record_event()
        shapes = [(array.nbytes, _torch_dtype(array.dtype), array.shape) for array in arrays]

        def tensors() -> list[Tensor]:
            if self._cuda:
                computing = torch.cuda.current_stream(self._device)
                computing.wait_event(arrived)
                there.record_stream(computing)  # its memory is not given away before
            return [
                there[start : start + size].view(dtype).view(shape)
                for start, (size, dtype, shape) in zip(starts, shapes, strict=True)
            ]

        return tensors

    def download(self, tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
        """Begin one copy from the device; see :meth:`geoseg.runtimes.DeviceRuntime.download`."""
        shapes = [
            (math.prod(t.shape) * t.dtype.itemsize, _numpy_dtype(t.dtype), tuple(t.shape))
            for t in tensors
        ]
        packed = torch.cat([t.reshape(-1).view(torch.uint8) for t in tensors])
        home, arrived = packed, None
        if self._cuda:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            home = torch.empty(len(packed), dtype=torch.uint8, pin_memory=True)
            with torch.cuda.stream(self._stream):
                home.copy_(packed, non_blocking=True)
                packed.record_stream(self._stream)
                arrived = self._stream.record_event()

        def arrays() -> list[NDArray[Any]]:
            if arrived is not None:
                arrived.synchronize()
            numbers, start, found = home.cpu().numpy(), 0, []
            for size, dtype, shape in shapes:
                found.append(numbers[start : start + size].view(dtype).reshape(shape))
                start += size
            return found

        return arrays


def _places(sizes: Sequence[int], step: int = 16) -> tuple[list[int], int]:
    """Place arrays of so many bytes one behind the other: where each begins, where all end."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // step) * step
    return starts, end


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    found: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    return found
