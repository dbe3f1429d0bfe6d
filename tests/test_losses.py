"""geoseg.losses."""

import math

import torch
from torch.nn import functional as F

from geoseg.losses import soft_cross_entropy


def test_one_hot_targets_give_the_usual_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(4, (2, 5, 6))
    probs = F.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    ours = soft_cross_entropy(logits, probs, torch.ones(2, 5, 6))
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels))


def test_soft_targets_are_best_met_by_their_own_logarithm() -> None:
    torch.manual_seed(0)
    probs = torch.softmax(torch.randn(1, 3, 4, 4), dim=1)
    weight = torch.ones(1, 4, 4)
    entropy = -(probs * probs.log()).sum(dim=1).mean()
    torch.testing.assert_close(soft_cross_entropy(probs.log(), probs, weight), entropy)
    other = probs.log() + 0.3 * torch.randn(1, 3, 4, 4)
    assert soft_cross_entropy(other, probs, weight) > entropy


def test_pixels_without_weight_have_no_part() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 0, 0, 1] = 50.0
    probs = torch.zeros(1, 2, 1, 2)
    probs[:, 1] = 1.0
    first_only = torch.tensor([[[1.0, 0.0]]])
    assert math.isclose(
        soft_cross_entropy(logits, probs, first_only).item(), math.log(2), rel_tol=1e-6
    )
    assert soft_cross_entropy(logits, probs, torch.ones(1, 1, 2)).item() > 20


def test_no_weight_at_all_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.full((1, 2, 3, 3), 0.5), torch.zeros(1, 3, 3))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()
