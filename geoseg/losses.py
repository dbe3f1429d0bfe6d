"""What training makes small."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["soft_cross_entropy"]


def soft_cross_entropy(logits: Tensor, probs: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy with probabilities as the target, averaged over the weighted pixels.

    With one-hot targets it is the usual cross-entropy; with a teacher's probabilities it is, up to
    a constant, the divergence of Hinton et al. 2015 (https://arxiv.org/abs/1503.02531) at
    temperature 1.

    Args:
        logits: float (N, K, H, W).
        probs: float (N, K, H, W), the target; sums to 1 over K where the weight is not 0.
        weight: float (N, H, W), 0 where there is no measurement or no target.

    Returns:
        A scalar, in nats; 0 where no pixel has weight.

    Examples:
        >>> import torch
        >>> target = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
        >>> loss = soft_cross_entropy(torch.zeros(1, 2, 1, 1), target, torch.ones(1, 1, 1))
        >>> round(float(loss), 4)
        0.6931
    """
    per_pixel = -(probs * F.log_softmax(logits, dim=1)).sum(dim=1)
    # Without any weight the sum is 0 already; the clamp only keeps 0 / 0 away.
    return (per_pixel * weight).sum() / weight.sum().clamp_min(1e-6)
