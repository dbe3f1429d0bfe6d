"""The losses that a recipe may name: what training makes small.

They share a form: logits float (N, K, H, W) and integer labels (N, H, W) in, a scalar out.
Pixels labelled ``ignore_index`` have no part in the value, and their gradient is 0. A batch without
any other pixel gives 0 with a gradient of 0, never NaN. float16 and bfloat16 logits are computed in
float32.

To add a loss: one function of that form, and one line in :data:`LOSSES`; the keywords after ``*``
other than ``weight`` and ``ignore_index`` are its options in a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from geoseg.errors import TrainingError
from geoseg.training.loss_parts import (
    as_computable,
    minus_log_p,
    one_hot_targets,
    truth_of,
    weighted_mean,
    weights_or_ones,
)
from geoseg.training.set_loss import set_cross_entropy, set_dice

__all__ = [
    "LOSSES",
    "cross_entropy",
    "dice",
    "focal",
    "logit_regression",
    "lovasz",
    "ohem",
    "soft_cross_entropy",
]


def soft_cross_entropy(
    logits: Tensor, probs: Tensor, pixel_weight: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy with probabilities as the target, averaged over the weighted pixels.

    With one-hot targets it is :func:`cross_entropy`; with a teacher's probabilities it is, up to a
    constant, the divergence of Hinton et al. 2015 (https://arxiv.org/abs/1503.02531) at
    temperature 1.

    Args:
        logits: float (N, K, H, W).
        probs: float (N, K, H, W), the target; sums to 1 over K where the pixel's weight is not 0.
        pixel_weight: float (N, H, W), 0 where there is no measurement or no target.
        weight: float (K,), of the classes; None counts all alike.

    Returns:
        A scalar, in nats; 0 where no pixel has weight.

    Raises:
        TrainingError: there is not one weight a class.

    Examples:
        >>> target = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
        >>> loss = soft_cross_entropy(torch.zeros(1, 2, 1, 1), target, torch.ones(1, 1, 1))
        >>> round(float(loss), 4)
        0.6931
    """
    logits = as_computable(logits)
    total = pixel_weight
    if weight is not None:
        probs = probs * weights_or_ones(weight, logits)[:, None, None]
        total = pixel_weight * probs.sum(dim=1)
    per_pixel = -(probs * F.log_softmax(logits, dim=1)).sum(dim=1)
    # Without any weight the sum is 0 already; the clamp only keeps 0 / 0 away.
    return (per_pixel * pixel_weight).sum() / total.sum().clamp_min(1e-6)


def logit_regression(
    logits: Tensor,
    probs: Tensor,
    pixel_weight: Tensor,
    *,
    weight: Tensor | None = None,
    beta: float = 1.0,
) -> Tensor:
    """How far logits lie from those of a teacher, averaged over the weighted pixels.

    Ba and Caruana 2014 (https://arxiv.org/abs/1312.6184) let a small network regress on a large
    one's logits: classes that a cross-entropy hardly hears of are learned as well as the likeliest.
    Both sides are freed of what a softmax does not see, their mean over the classes; the teacher's
    logits are the logarithm of its probabilities, not below one in a million. In place of the
    square it is the smooth L1 loss, so that one-hot targets do not outweigh all others.

    Args:
        logits: float (N, K, H, W).
        probs: float (N, K, H, W), the target; sums to 1 over K where the pixel's weight is not 0.
        pixel_weight: float (N, H, W), 0 where there is no measurement or no target.
        weight: float (K,), of the classes; None counts all alike.
        beta: below this difference the loss is a square.

    Returns:
        A scalar: the sum over the classes; 0 where no pixel has weight.

    Raises:
        TrainingError: beta is not above 0, or there is not one weight a class.

    Examples:
        >>> target = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
        >>> logits = torch.tensor([2.0, -2.0]).view(1, 2, 1, 1)
        >>> float(logit_regression(logits, target, torch.ones(1, 1, 1)))
        3.0
    """
    if not beta > 0:
        raise TrainingError(f"beta is {beta}; it must be above 0")
    logits = as_computable(logits)
    goal = probs.clamp_min(1e-6).log()
    each = F.smooth_l1_loss(
        logits - logits.mean(dim=1, keepdim=True),
        goal - goal.mean(dim=1, keepdim=True),
        reduction="none",
        beta=beta,
    )
    if weight is not None:
        each = each * weights_or_ones(weight, logits)[:, None, None]
    return (each.sum(dim=1) * pixel_weight).sum() / pixel_weight.sum().clamp_min(1e-6)


def cross_entropy(
    logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """Mean of -log p of the labelled class, p being the softmax over the classes.

    sum_i w(t_i) (-log p_i(t_i)) / sum_i w(t_i) over the pixels i with their labels t_i, as
    ``torch.nn.functional.cross_entropy`` does, but for batches that are ignored as a whole.

    Args:
        logits: float (N, K, H, W).
        labels: integer (N, H, W), 0 to K - 1 or ``ignore_index``.
        weight: float (K,), of the classes; None counts all alike.
        ignore_index: the label that says nothing.

    Returns:
        A scalar, in nats.

    Raises:
        TrainingError: shapes do not fit, or a label is no class.

    Examples:
        >>> labels = torch.tensor([[[0, 255]]])
        >>> round(float(cross_entropy(torch.zeros(1, 4, 1, 2), labels)), 4)
        1.3863
    """
    logits = as_computable(logits)
    truth, known = truth_of(logits, labels, ignore_index)
    each = weights_or_ones(weight, logits)[truth] * known
    return weighted_mean(minus_log_p(logits, truth, known), each)


def focal(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """Cross-entropy in which a pixel that is recognized well already counts for little.

    The mean over the labelled pixels of -alpha_t (1 - p_t)^gamma log p_t, where p_t is the softmax
    probability of the labelled class: Lin et al. 2017, equation 5
    (https://arxiv.org/abs/1708.02002). Theirs is one detector a class with a sigmoid each; classes
    that exclude each other take the softmax instead. (The focal loss of
    segmentation_models_pytorch is one-vs-rest with sigmoids, and gives other numbers.)

    Args:
        logits: float (N, K, H, W).
        labels: integer (N, H, W), 0 to K - 1 or ``ignore_index``.
        gamma: 0 is plain cross-entropy; higher looks more at the hard pixels.
        weight: float (K,), alpha of each class; None is 1. The mean is over pixels, not over
            alphas, so that doubling all alphas doubles the loss.
        ignore_index: the label that says nothing.

    Returns:
        A scalar, in nats.

    Raises:
        TrainingError: gamma is below 0, shapes do not fit, or a label is no class.

    Examples:
        >>> labels = torch.tensor([[[0, 1]]])
        >>> round(float(focal(torch.zeros(1, 2, 1, 2), labels, gamma=1.0)), 4)
        0.3466
    """
    if not gamma >= 0:
        raise TrainingError(f"focal: gamma is {gamma}; it must be 0 at least: 2 is usual")
    logits = as_computable(logits)
    truth, known = truth_of(logits, labels, ignore_index)
    alpha = weights_or_ones(weight, logits)[truth]
    loss = minus_log_p(logits, truth, known)
    # At p = 1 and gamma < 1 the power's slope is infinite, and infinite times 0 is NaN.
    rest = (-torch.expm1(-loss)).clamp_min(torch.finfo(loss.dtype).tiny)
    return weighted_mean(alpha * rest**gamma * loss, known.to(loss))


def ohem(
    logits: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.6,
    min_kept: int = 256,
    weight: Tensor | None = None,
    ignore_index: int = 255,
) -> Tensor:
    """Cross-entropy of the hard pixels only: online hard example mining, or bootstrapping.

    Kept are the pixels of the batch whose labelled class has a probability below the threshold; if
    these are fewer than ``min_kept``, the ``min_kept`` of least probability (all, where there are
    no more). With the numbers of Wu et al. 2016, ResNet-38 (https://arxiv.org/abs/1611.10080).

    Args:
        logits: float (N, K, H, W).
        labels: integer (N, H, W), 0 to K - 1 or ``ignore_index``.
        threshold: above 0; a pixel with at least this probability is easy.
        min_kept: 1 and more, px of the batch.
        weight: float (K,), of the classes, as in :func:`cross_entropy`.
        ignore_index: the label that says nothing.

    Returns:
        A scalar, in nats.

    Raises:
        TrainingError: an option breaks its rule, shapes do not fit, or a label is no class.

    Examples:
        Of two pixels the one at p = 0.5 is hard, the one at p = 0.9999 is not:

        >>> logits = torch.tensor([[0.0, 9.2], [0.0, 0.0]]).view(1, 2, 1, 2)
        >>> labels = torch.tensor([[[0, 0]]])
        >>> round(float(ohem(logits, labels, min_kept=1)), 4)
        0.6931
    """
    if not threshold > 0 or min_kept < 1:
        raise TrainingError(
            f"ohem: threshold is {threshold} and min_kept {min_kept}; the threshold must be above "
            f"0 and min_kept 1 at least: 0.6 and 256 are usual"
        )
    logits = as_computable(logits)
    truth, known = truth_of(logits, labels, ignore_index)
    loss = minus_log_p(logits, truth, known)
    # What is ignored is the easiest of all.
    ease = torch.exp(-loss.detach()).masked_fill(~known, math.inf)
    hard = ease < threshold
    if hard.sum() < min_kept:
        order = ease.flatten().topk(min(min_kept, ease.numel()), largest=False).indices
        hard = torch.zeros_like(hard).flatten().index_fill(0, order, True).view_as(hard) & known
    return weighted_mean(loss, weights_or_ones(weight, logits)[truth] * hard)


def dice(
    logits: Tensor,
    labels: Tensor,
    *,
    smooth: float = 0.0,
    present_only: bool = False,
    ignore_index: int = 255,
) -> Tensor:
    """One minus the soft Dice coefficient, over the batch and class by class.

    For each class c, with p the softmax probabilities, y the one-hot labels and the sums over all
    labelled pixels of the batch at once, d_c = (2 sum p y + s) / (sum p + sum y + s), s being
    ``smooth``. The loss is the sum of 1 - d_c over the classes that have a label in the batch,
    divided by K: a class without label adds 0, as in
    ``segmentation_models_pytorch.losses.DiceLoss`` (whose ``smooth`` is half of this one, since it
    is added to halves). So the fewer classes a batch has, the smaller the loss is; with
    ``present_only`` it is divided by the number of these classes instead.

    After Milletari et al. 2016 (https://arxiv.org/abs/1606.04797), whose denominator has squares;
    without them as in Sudre et al. 2017 (https://arxiv.org/abs/1707.03237).

    Args:
        logits: float (N, K, H, W).
        labels: integer (N, H, W), 0 to K - 1 or ``ignore_index``.
        smooth: 0 and more, px.
        present_only: the mean over the classes that have a label, instead of over all K.
        ignore_index: the label that says nothing.

    Returns:
        A scalar, 0 to 1.

    Raises:
        TrainingError: smooth is below 0, shapes do not fit, or a label is no class.

    Examples:
        Two classes are recognized without any doubt; of the third there is no label:

        >>> labels = torch.tensor([[[0, 1]]])
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).view(1, 3, 1, 2)
        >>> round(float(dice(logits, labels)), 4), round(float(dice(logits, labels,
        ...     present_only=True)), 4)
        (0.4, 0.6)
    """
    if not smooth >= 0:
        raise TrainingError(f"dice: smooth is {smooth}; it must be 0 at least")
    logits = as_computable(logits)
    truth, known = truth_of(logits, labels, ignore_index)
    probs = logits.softmax(dim=1) * known[:, None]
    one_hot = one_hot_targets(truth, known, probs)
    labelled = one_hot.sum(dim=(0, 2, 3))
    present = labelled > 0
    # Only for classes without label can the denominator be 0, and they are left out below.
    denominator = torch.where(present, probs.sum(dim=(0, 2, 3)) + labelled + smooth, 1.0)
    coefficient = (2.0 * (probs * one_hot).sum(dim=(0, 2, 3)) + smooth) / denominator
    total = ((1.0 - coefficient) * present).sum()
    return total / (present.sum().clamp_min(1) if present_only else len(present))


def lovasz(logits: Tensor, labels: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Lovász-Softmax: a convex stand-in for one minus the mean IoU, over the batch.

    For each class, with e the absolute errors |y - p| of all labelled pixels from the largest to
    the smallest: sum of e_i times what taking pixel i in adds to the Jaccard loss of the pixels
    before it; the mean over the classes that have a label in the batch. Berman et al. 2018,
    algorithm 1 (https://arxiv.org/abs/1705.08790).

    Args:
        logits: float (N, K, H, W).
        labels: integer (N, H, W), 0 to K - 1 or ``ignore_index``.
        ignore_index: the label that says nothing.

    Returns:
        A scalar, 0 to 1.

    Raises:
        TrainingError: shapes do not fit, or a label is no class.

    Examples:
        Without any doubt all right, and all wrong:

        >>> logits = torch.tensor([[[[100.0, -100.0]], [[-100.0, 100.0]]]])
        >>> float(lovasz(logits, torch.tensor([[[0, 1]]]))), float(
        ...     lovasz(logits, torch.tensor([[[1, 0]]]))
        ... )
        (0.0, 1.0)
    """
    logits = as_computable(logits)
    truth, known = truth_of(logits, labels, ignore_index)
    probs = logits.softmax(dim=1).movedim(1, -1)[known]
    one_hot = F.one_hot(truth[known], logits.shape[1]).to(probs)
    errors, order = (one_hot - probs).abs().sort(dim=0, descending=True)
    hits = one_hot.gather(0, order)
    labelled = hits.sum(dim=0)
    missed = labelled - hits.cumsum(dim=0)
    # Of the pixels so far and all others of the class; at least 1 for a class that is there.
    jaccard = 1.0 - missed / (labelled + (1.0 - hits).cumsum(dim=0)).clamp_min(1.0)
    steps = torch.diff(jaccard, dim=0, prepend=jaccard.new_zeros(1, jaccard.shape[1]))
    present = labelled > 0
    total = ((errors * steps).sum(dim=0) * present).sum()
    return total / present.sum().clamp_min(1)


#: Name in a recipe -> function.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": cross_entropy,
    "dice": dice,
    "focal": focal,
    "logits": logit_regression,
    "lovasz": lovasz,
    "ohem": ohem,
    "set_ce": set_cross_entropy,
    "set_dice": set_dice,
    "soft_ce": soft_cross_entropy,
}
#: Those of them whose target is probabilities and the pixels' weights.
SOFT_LOSSES = frozenset({"logits", "set_ce", "set_dice", "soft_ce"})
