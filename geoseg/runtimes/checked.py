"""What runtimes give, looked at before anything is made of it.

Kernels that follow take shapes and dtypes on trust, so whatever a runtime gives passes here:
:func:`run` and :func:`probs` are the only ways in which geoseg asks one. They look at no pixel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoseg.core.wording import counted
from geoseg.errors import ProbabilitiesError

if TYPE_CHECKING:
    from geoseg.runtimes import Runtime

__all__ = ["check_probs", "probs", "run"]

T = TypeVar("T")


def run(
    runtime: Runtime,
    chips: Iterable[tuple[T, NDArray[Any]]],
    batch_size: int | None = None,
    *,
    classes: int | None = None,
) -> Generator[tuple[T, Any], None, None]:
    """Run chips through a runtime, and check each chip's probabilities and their order.

    Args:
        runtime: any, a caller's own included.
        chips: (what comes back with it, raw numbers (C, H, W)).
        batch_size: the most chips in one forward pass on a GPU.
        classes: how many the caller needs; None for as many as the runtime says that it has.

    Raises:
        ProbabilitiesError: a chip came back twice, not at all or out of order, or its
            probabilities are
            not float32 (K, H, W) on the runtime's device.
    """
    if classes is not None and runtime.classes != classes:
        raise ProbabilitiesError(
            f"the runtime {runtime.name} gives {runtime.classes} channels and this run needs "
            f"{classes}; a runtime's classes must be the model card's"
        )
    given: deque[tuple[T, tuple[int, ...]]] = deque()
    complete = False

    def numbered() -> Iterator[tuple[int, NDArray[Any]]]:
        nonlocal complete
        for number, (item, pixels) in enumerate(chips):
            given.append((item, pixels.shape[-2:]))
            yield number, pixels
        complete = True

    example, done = runtime.zeros((0,)), 0
    answers = runtime.run(numbered(), batch_size)
    try:
        for number, answer in answers:
            if not given or number != done:
                raise ProbabilitiesError(
                    f"the runtime {runtime.name} answered to chip {number} where chip {done} was "
                    f"due; it must answer to each chip once, in the order in which they come"
                )
            item, sides = given.popleft()
            check_probs(answer, (runtime.classes, *sides), example, f"the runtime {runtime.name}")
            yield item, answer
            done += 1
    finally:
        if hasattr(answers, "close"):
            answers.close()
    if given or not complete:
        raise ProbabilitiesError(
            f"the runtime {runtime.name} ended after {counted(done, 'chip')} and more were "
            f"there; it must answer to each chip once, in the order in which they come"
        )


def probs(runtime: Runtime, pixels: NDArray[Any]) -> Any:
    """Run a batch through a runtime, and check its probabilities.

    Args:
        runtime: any.
        pixels: raw numbers (N, C, H, W).

    Raises:
        ProbabilitiesError: they are not float32 (N, K, H, W) on the runtime's device.
    """
    answer = runtime.probs(pixels)
    shape = (len(pixels), runtime.classes, *pixels.shape[2:])
    check_probs(answer, shape, runtime.zeros((0,)), f"the runtime {runtime.name}")
    return answer


def check_probs(answer: Any, shape: tuple[int, ...], example: Any, whose: str) -> None:
    """Refuse what is not float32 probabilities of a shape, of an example's kind and device.

    Args:
        answer: what a runtime gave.
        shape: what it must have.
        example: float32, an array or a tensor on the device where the answer must be.
        whose: answer it is, for the message.

    Raises:
        ProbabilitiesError: it is something else; the message names what was found and what must
            come.
    """
    if (
        isinstance(answer, np.ndarray) == isinstance(example, np.ndarray)
        and getattr(answer, "shape", None) == shape
        and str(getattr(answer, "dtype", "")).removeprefix("torch.") == "float32"
        and getattr(answer, "device", None) == getattr(example, "device", None)
    ):
        return
    raise ProbabilitiesError(
        f"{whose} gave {_in_words(answer)} and must give float32 {shape} in {_place(example)}, one "
        f"number for each of the model's classes and each pixel of a chip; take a model whose card "
        f"and graph agree (geoseg models graph writes its model.onnx anew), or correct the runtime"
    )


def _in_words(answer: Any) -> str:
    """Describe what a runtime gave."""
    if not hasattr(answer, "dtype") or not hasattr(answer, "shape"):
        return f"a {type(answer).__name__}"
    kind = str(answer.dtype).removeprefix("torch.")
    return f"{kind} {tuple(answer.shape)} in {_place(answer)}"


def _place(array: Any) -> str:
    if isinstance(array, np.ndarray):
        return "a numpy array"
    return f"a {type(array).__name__} on {getattr(array, 'device', 'no device')}"
