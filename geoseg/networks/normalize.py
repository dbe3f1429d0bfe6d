"""From physical values to a network's input, in torch, on any device.

One function a normalization; :data:`NORMALIZATIONS` is the table. The parameters stand in the
model card, one number a band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from geoseg.cards.card import Normalization

__all__ = ["NORMALIZATIONS", "normalize"]


def _none(x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    return x


def _z_score(x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    return (x - p["mean"]) / p["stddev"]


def _min_max(x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    return (x - p["minimum"]) / (p["maximum"] - p["minimum"])


def _log_logistic(x: Tensor, p: Mapping[str, Tensor]) -> Tensor:
    """Apply the Dynamic World transfer function of reflectance.

    Source: google/dynamicworld, ``log(0.005 * DN + 1)`` with DN = reflectance * 10000, then
    ``(x - center) / spread``, then ``e / (e + 1)`` with ``e = exp(5 x - 1)``.
    """
    x = torch.log1p(x * 50.0)
    x = (x - p["center"]) / p["spread"]
    return torch.sigmoid(5.0 * x - 1.0)


NORMALIZATIONS: dict[str, Callable[[Tensor, Mapping[str, Tensor]], Tensor]] = {
    "none": _none,
    "z-score": _z_score,
    "min-max": _min_max,
    "log-logistic": _log_logistic,
}


def normalize(x: Tensor, normalization: Normalization) -> Tensor:
    """Apply a card's normalization.

    Args:
        x: float (N, C, H, W), physical values in the card's quantity.
        normalization: of the card.

    Returns:
        float (N, C, H, W): what the network takes.
    """
    if normalization.clip is not None:
        x = x.clamp(*normalization.clip)
    parameters = {
        name: torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        for name, values in normalization.parameters.items()
    }
    return NORMALIZATIONS[normalization.kind](x, parameters)
