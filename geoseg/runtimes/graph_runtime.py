"""What the runtimes that compute on a CPU without torch share.

A chip is computed by one thread, whatever the number of threads, and ``threads`` chips at a time:
so the bits do not depend on the number of threads, and no thread waits for another.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import GRAPH_NAME, INT8_NAME
from geoseg.cards.files import ModelFiles
from geoseg.core.cache import Cache
from geoseg.core.importing import package_version, require
from geoseg.core.machine import available_cores
from geoseg.errors import ModelError
from geoseg.graphs.binding import bind, graph_fits, identity
from geoseg.graphs.surround import surround
from geoseg.runtimes import NumpyArrays
from geoseg.runtimes.checked import check_probs
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["CpuRuntime", "Program"]

T = TypeVar("T")

#: Numbers that a graph takes as they are.
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class Program(Protocol):
    """A graph made ready for chips of one shape and dtype, with a few places to compute in."""

    def start(self, pixels: NDArray[Any]) -> Any:
        """Begin a chip (C, H, W) in a free place; gives the place."""

    def wait(self, place: Any) -> NDArray[np.float32]:
        """The chip's probabilities (1, K, H, W), once they are there; valid until :meth:`free`.

        Whether they are what they should be is not looked at.

        Raises:
            ModelError: the runtime failed.
        """

    def free(self, place: Any) -> None:
        """Let another chip have the place; waits where the chip in it is not done."""


#: What kind of array a chip's probabilities are.
_EXAMPLE = np.zeros(0, np.float32)


class _Begun(NamedTuple, Generic[T]):
    """A chip that is computed.

    Attributes:
        item: what comes back with it.
        sides: height and width, px.
        program: that computes it.
        place: where.
    """

    item: T
    sides: tuple[int, ...]
    program: Program
    place: Any


class CpuRuntime(NumpyArrays):
    """A graph made ready for one scene; see :class:`geoseg.runtimes.Runtime`.

    A subclass compiles; what is compiled is kept by the chip's dtype and shape.
    """

    name: str

    def __init__(
        self,
        files: ModelFiles,
        radiometry: Radiometry,
        *,
        precision: str,
        threads: int | None,
        cache: Cache,
    ) -> None:
        """Take note of everything; nothing is computed before the first chip.

        Args:
            files: the model.
            radiometry: from the scene's numbers to the card's quantity.
            precision: of the forward passes.
            threads: chips at a time; None for the cores that this process may use.
            cache: for graphs that had to be made from the network.
        """
        self.precision = precision
        self.classes = len(files.card.classes)
        self.device = "cpu"
        self.choice = "asked for"
        graph = files.int8 if precision == "int8" else files.graph
        self.graph = hashlib.sha256(graph).hexdigest() if graph else ""
        self.threads = threads or available_cores()
        self._files = files
        self._radiometry = radiometry
        self._cache = cache
        self._programs: dict[tuple[str, int, int], Program] = {}
        self._preparing = threading.Lock()

    def prepare(self, pixels: NDArray[Any]) -> Program:
        """Make what computes chips like this one; see :meth:`geoseg.runtimes.Runtime.prepare`."""
        dtype = pixels.dtype if pixels.dtype.name in _DTYPES else np.dtype(np.float32)
        height, width = pixels.shape[1:]
        key = (dtype.name, height, width)
        with self._preparing:
            if key not in self._programs:
                model = self._graph(height, width)
                surround(model, self._files.card, self._radiometry, dtype, height, width)
                self._programs[key] = self._compile(model, dtype)
            return self._programs[key]

    def _graph(self, height: int, width: int) -> ModelProto:
        """A graph in this precision for chips of a shape, as :func:`bind` gives it.

        Raises:
            ModelError: there is none.
        """
        if self.precision != "int8":
            return bind(graph_for(self._files, height, width, self._cache), self._files)
        assert self._files.int8 is not None, "a loader sees to that"
        model = bind(self._files.int8, self._files, INT8_NAME)
        if not graph_fits(model, height, width):
            raise ModelError(
                f"{self._files.path}: its {INT8_NAME} does not take chips of {height}x{width} px; "
                f"quantize it with this --size, or use --precision fp32"
            )
        return model

    def _compile(self, model: ModelProto, dtype: np.dtype[Any]) -> Program:
        """Make a graph that :func:`geoseg.graphs.surround.surround` completed ready.

        Args:
            model: its tensors may lie in the weights yet.
            dtype: of its input.
        """
        raise TypeError(f"{type(self).__name__} can't compile; a CpuRuntime must")

    def run(
        self, chips: Iterable[tuple[T, NDArray[Any]]], batch_size: int | None = None
    ) -> Iterator[tuple[T, Any]]:
        """Each chip's probabilities; see :meth:`geoseg.runtimes.Runtime.run`.

        While the caller has one chip's, ``threads`` others are computed.
        """
        begun: deque[_Begun[T]] = deque()
        try:
            for item, pixels in chips:
                program = self.prepare(pixels)
                if len(begun) > self.threads:
                    yield from self._oldest(begun)
                begun.append(_Begun(item, pixels.shape[1:], program, program.start(pixels)))
            while begun:
                yield from self._oldest(begun)
        finally:
            # Whoever stops early leaves nobody computing into memory that is gone.
            for chip in begun:
                chip.program.free(chip.place)

    def _oldest(self, begun: deque[_Begun[T]]) -> Iterator[tuple[T, Any]]:
        """The chip that was begun first; its place is free after that.

        Raises:
            ModelError: the graph gives something else than the card says.
        """
        chip = begun[0]
        answer = chip.program.wait(chip.place)
        shape = (1, self.classes, *chip.sides)
        check_probs(answer, shape, _EXAMPLE, f"{self._files.path}: its graph in {self.name}")
        yield chip.item, answer[0]
        begun.popleft()
        chip.program.free(chip.place)

    def probs(self, pixels: NDArray[Any]) -> Any:
        """Probabilities of a batch; see :meth:`geoseg.runtimes.Runtime.probs`."""
        shape = (len(pixels), self.classes, *pixels.shape[2:])
        out = np.empty(shape, dtype=np.float32)
        for i, probs in self.run(enumerate(pixels)):
            out[i] = probs
        return out


def graph_for(files: ModelFiles, height: int, width: int, cache: Cache) -> bytes:
    """The content of a ``model.onnx`` that takes chips of a shape.

    It is the model's own, or was kept by an earlier run, or is made from the network by torch.

    Args:
        files: the model.
        height: of a chip, px.
        width: of a chip, px.
        cache: where what was made is kept.

    Raises:
        MissingExtraError: torch is not installed, which makes it.
        ModelError: the model's own is damaged or another's, or the network can't be written as
            ONNX.
    """
    if files.graph is not None and graph_fits(bind(files.graph, files), height, width):
        return files.graph
    require("torch", f"{files.path}: a {GRAPH_NAME} that takes chips of {height}x{width} px")
    made_from = json.dumps([identity(files), version("geoseg"), package_version("torch")])
    key = hashlib.sha256(made_from.encode()).hexdigest()
    name = f"graphs/{key}-{height}x{width}.onnx"
    kept = cache.read(name)
    if kept is not None:
        try:
            if graph_fits(bind(kept, files), height, width):
                return kept
        except ModelError:
            pass  # damaged; it is made again below
    from geoseg.networks.export import export_graph

    content, _ = export_graph(files, (height, width))
    cache.write(name, content)
    return content
