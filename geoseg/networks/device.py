"""The devices that torch computes on, by name."""

from __future__ import annotations

import torch

from geoseg.errors import DeviceError

__all__ = ["pick_device", "pick_devices"]

#: The name of all CUDA devices that this process sees.
ALL_GPUS = "cuda:all"


def pick_device(name: str) -> torch.device:
    """Find the device of this machine that a name means.

    Args:
        name: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or
            ``cuda:all``, whose first one it is.

    Raises:
        DeviceError: it isn't there, or the name is unknown.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device("cuda:0" if name == ALL_GPUS else name)
    except RuntimeError as error:
        raise DeviceError(
            f"device {name!r} is unknown; it must be auto, cpu, cuda, cuda:N, cuda:all or mps"
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"device {name!r} was asked for and torch sees {count} CUDA devices; use --device "
                f"cpu, or install the GPU's driver and a torch built for it"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r} was asked for and is not here; use --device cpu")
    elif device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(
            f"device {name!r} is not supported; use auto, cpu, cuda, cuda:N, cuda:all or mps"
        )
    return device


def pick_devices(name: str) -> list[torch.device]:
    """Find the devices that a name means: more than one for ``cuda:all`` alone.

    Raises:
        DeviceError: see :func:`pick_device`.
    """
    first = pick_device(name)
    if name != ALL_GPUS:
        return [first]
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
