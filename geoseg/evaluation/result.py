"""What an evaluation found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluation.area_estimates import Accuracy

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        report: as JSON has it; what is undefined is None.
        matrix: int64 (K, K), points or pixels by reference (rows) and map class (columns).
        accuracy: of labelled points; None for labels.
        warnings: what makes the numbers less sure.
    """

    report: dict[str, Any]
    matrix: NDArray[np.int64]
    accuracy: Accuracy | None
    warnings: tuple[str, ...]
