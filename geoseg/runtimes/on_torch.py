"""The torch runtime: cpu, cuda and mps with the same lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.cards.card import ModelCard
from geoseg.cards.files import ModelFiles
from geoseg.core.failures import NoRoomError, explained_failures
from geoseg.core.wording import counted
from geoseg.errors import DeviceError, ModelError
from geoseg.networks import load_network
from geoseg.networks.device import pick_devices
from geoseg.networks.normalize import normalize
from geoseg.runtimes import Runtime, one_by_one
from geoseg.runtimes.checked import check_probs
from geoseg.runtimes.multi_device import MultiDevice
from geoseg.runtimes.transfers import Transfers
from geoseg.scene.radiometry import Radiometry

__all__ = ["TorchRuntime", "load", "precisions"]

T = TypeVar("T")

#: Chips in one forward pass, to begin with.
BATCH_SIZES = {"mps": 4, "cuda": 16}

#: Precision -> dtype of autocast; fp32 goes without.
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: torch.softmax(x, dim=1),
    "sigmoid": torch.sigmoid,
    "none": lambda x: x,
}


def precisions(device: torch.device) -> tuple[str, ...]:
    """The precisions that torch computes in on a device, fp32 first."""
    if device.type == "cuda":
        return tuple(p for p in _AUTOCAST if p != "bf16" or torch.cuda.is_bf16_supported())
    return ("fp32", "bf16") if device.type == "cpu" else ("fp32",)


def load(
    files: ModelFiles,
    radiometry: Radiometry,
    *,
    precision: str = "fp32",
    device: str,
    threads: int | None,
) -> Runtime:
    """Make a model ready for a scene; see :func:`geoseg.runtimes.load_runtime`."""
    devices = pick_devices(device)
    where = devices[0]
    if precision not in precisions(where):
        raise DeviceError(
            f"precision {precision!r} was asked for, and torch computes in "
            f"{', '.join(precisions(where))} on {where}; use one of these, or --precision auto"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    if where.type == "cuda" and precision == "fp32":
        # Convolutions would be rounded to 10 bits otherwise, where fp32 was asked for.
        torch.backends.cudnn.allow_tf32 = False
    runtimes = [
        TorchRuntime(load_network(files), files.card, radiometry, each, precision)
        for each in devices
    ]
    return MultiDevice(runtimes) if len(runtimes) > 1 else runtimes[0]


class TorchRuntime:
    """A torch network made ready for one scene; see :class:`geoseg.runtimes.Runtime`.

    On a CPU the arrays that leave are numpy arrays that share the tensors' memory; elsewhere they
    are tensors on the device.
    """

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        radiometry: Radiometry,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        """Move the network to the device.

        Args:
            network: in evaluation mode.
            card: what it takes and gives.
            radiometry: from the scene's numbers to the card's quantity.
            device: where to run.
            precision: of convolutions and matrix products: ``fp32``, ``bf16`` or ``fp16``.
        """
        self.precision = precision
        self.choice = "asked for"
        self.graph = ""
        self._autocast = _AUTOCAST[precision]
        self.classes = len(card.classes)
        self.device = str(device)
        self._device = device
        self.batch_size = BATCH_SIZES.get(device.type, 1)
        self._most: int | None = None  # chips that fit into the device's memory, once it is known
        # What leaves is numpy on a CPU; elsewhere it stays on the device until it is asked for.
        self.on_device = device.type != "cpu"
        self._transfers = Transfers(device)
        self._card = card
        self._network = network.to(device).to(memory_format=torch.channels_last)
        shape = (1, -1, 1, 1)
        self._gain = torch.tensor(radiometry.gain, dtype=torch.float32, device=device).view(shape)
        self._bias = torch.tensor(radiometry.bias, dtype=torch.float32, device=device).view(shape)

    def prepare(self, pixels: NDArray[Any]) -> None:
        """Nothing: the network takes any chip as it is."""

    def probs(self, pixels: Any) -> Any:
        """Probabilities of a batch; see :meth:`geoseg.runtimes.Runtime.probs`.

        Args:
            pixels: raw numbers (N, C, H, W), an array or a tensor on any device.

        Raises:
            DeviceError: the device failed, or has no room.
            ModelError: the network can't take such chips, or gives something else than the card
                says.
        """
        try:
            with explained_failures(self.device), torch.inference_mode():
                found = self._forward(self._taken(pixels))
                probs = found if self.on_device else found.numpy()
        except NoRoomError as error:
            raise NoRoomError(
                f"{self.device} ran out of memory on {counted(len(pixels), 'chip')} of "
                f"{pixels.shape[2]}x{pixels.shape[3]} px; use a smaller --batch-size or --size"
            ) from error
        except RuntimeError as error:
            raise ModelError(
                f"torch can't run the network {self._card.network} on chips of {pixels.shape[2]}x"
                f"{pixels.shape[3]} px ({str(error).strip().splitlines()[0]}); use another --size, "
                f"or correct the model"
            ) from error
        shape = (len(pixels), self.classes, *pixels.shape[2:])
        check_probs(probs, shape, self.zeros((0,)), f"the network {self._card.network}")
        return probs

    def run(
        self, chips: Iterable[tuple[T, NDArray[Any]]], batch_size: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Each chip's probabilities; see :meth:`geoseg.runtimes.Runtime.run`.

        On a GPU a batch that does not fit into its memory is halved, and so are all after it.
        """
        if not self.on_device:
            # A CPU's cache overflows beyond one or two chips.
            yield from one_by_one(self.probs, chips)
            return
        waiting = iter(chips)
        shape = 0  # chips of the first batch, which are the most
        while batch := list(islice(waiting, batch_size or self.batch_size)):
            shape = shape or len(batch)
            answers = self.answers([pixels for _, pixels in batch], shape)
            for (item, _), probs in zip(batch, answers, strict=True):
                yield item, probs

    def upload(self, arrays: Sequence[NDArray[Any]]) -> Callable[[], list[Any]]:
        """Begin to copy arrays; see :meth:`geoseg.runtimes.DeviceRuntime.upload`."""
        with explained_failures(self.device):
            return self._transfers.upload(arrays)

    def download(self, tensors: Sequence[Any]) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy tensors; see :meth:`geoseg.runtimes.DeviceRuntime.download`."""
        with explained_failures(self.device):
            return self._transfers.download(tensors)

    def answers(self, chips: Sequence[Any], shape: int) -> list[Any]:
        """Each chip's probabilities; see :class:`geoseg.runtimes.multi_device.BatchRuntime`."""
        answers: list[Any] = [None] * len(chips)
        # Turned chips may have two shapes, if they are not square.
        shapes = {tuple(chip.shape) for chip in chips}
        for sides in shapes:
            places = [i for i, chip in enumerate(chips) if tuple(chip.shape) == sides]
            most = shape if len(shapes) == 1 else len(places)
            found = self._each([chips[i] for i in places], most)
            for place, probs in zip(places, found, strict=True):
                answers[place] = probs
        return answers

    def _each(self, chips: Sequence[Any], shape: int) -> Iterator[Any]:
        """Each chip's probabilities, from one forward pass where the memory suffices.

        Every pass has as many chips as the first one of the run, some of them twice where fewer
        are left: a GPU prepares each shape anew.
        """
        done = 0
        while done < len(chips):
            most = min(self._most or shape, shape)
            size = min(most, len(chips) - done)
            taken = [*chips[done : done + size], *([chips[-1]] * (most - size))]
            try:
                probs = self.probs(self._stacked(taken))
            except NoRoomError:
                if most == 1:
                    raise
                self._most = (most + 1) // 2
                continue
            yield from probs[:size]
            done += size

    def _stacked(self, chips: Sequence[Any]) -> Any:
        """Chips as one batch, where they are."""
        with explained_failures(self.device):
            return np.stack(chips) if isinstance(chips[0], np.ndarray) else torch.stack(list(chips))

    def take(self, probs: Any) -> Any:
        """Another one's probabilities, on this device."""
        with explained_failures(self.device):
            return probs if isinstance(probs, np.ndarray) else probs.to(self._device)

    def _taken(self, pixels: Any) -> Tensor:
        """Raw numbers on the device."""
        if not isinstance(pixels, np.ndarray):
            there: Tensor = pixels.to(self._device, non_blocking=True)
            return there
        if self.on_device:
            found: Tensor = self._transfers.upload([pixels])()[0]
            return found
        return torch.from_numpy(pixels)

    def _forward(self, raw: Tensor) -> Tensor:
        x = raw.to(torch.float32)
        x = normalize(x * self._gain + self._bias, self._card.normalization)
        with torch.autocast(
            self._device.type, dtype=self._autocast, enabled=self._autocast is not None
        ):
            logits = self._network(x.contiguous(memory_format=torch.channels_last))
        logits = logits.to(torch.float32)
        if self._card.temperature != 1.0:
            logits = logits / self._card.temperature
        return _ACTIVATIONS[self._card.activation](logits).to(torch.float32).contiguous()

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A float32 array of zeros on the device."""
        if not self.on_device:
            return np.zeros(shape, dtype=np.float32)
        try:
            with explained_failures(self.device):
                return torch.zeros(shape, dtype=torch.float32, device=self._device)
        except NoRoomError as error:
            raise NoRoomError(
                f"{self.device} has no room for a row of chips ({' x '.join(map(str, shape))} "
                f"numbers); use a smaller --mem-limit, which makes lanes, or --size"
            ) from error

    def asarray(self, array: NDArray[np.float32]) -> Any:
        """A float32 numpy array on the device."""
        with explained_failures(self.device):
            return self._transfers.upload([array])()[0] if self.on_device else array

    def to_numpy(self, array: Any) -> NDArray[np.float32]:
        """The other way round; shares memory on a CPU."""
        with explained_failures(self.device):
            return array if isinstance(array, np.ndarray) else array.cpu().numpy()
