"""geoseg.training.losses."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from geoseg.errors import TrainingError
from geoseg.training.class_weights import median_frequency_weights
from geoseg.training.loss_spec import make_loss
from geoseg.training.losses import (
    LOSSES,
    cross_entropy,
    dice,
    focal,
    logit_regression,
    lovasz,
    ohem,
    soft_cross_entropy,
)

#: Those that take labels.
HARD: list[Callable[..., Tensor]] = [cross_entropy, dice, focal, lovasz, ohem]
#: Those of them that count all classes alike.
UNWEIGHTED = (dice, lovasz)


def example(
    classes: int = 4, ignored: bool = True, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Logits and labels of 2 chips of 7 x 5 px."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, classes, 7, 5, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (2, 7, 5), generator=generator)
    if ignored:
        labels[0, :2] = 255
        labels[1, 3, 1:4] = 255
    return logits, labels


# The numbers of seed-models.json


def h32(count: int, seed: int) -> np.ndarray:
    """Numbers in -1 to 1 from a hash, as _meta.fingerprint_definition says."""
    x = (np.arange(count, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x &= np.uint64(0xFFFFFFFF)
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x &= np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return x / 2.0**32 * 2 - 1


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    path = shared / "reference" / "seed-models.json"
    if not path.is_file():
        pytest.skip("needs ../shared/reference/seed-models.json")
    numbers: dict[str, Any] = json.loads(path.read_text())["losses_metrics_golden"]
    return numbers


W = [0.5, 1.0, 2.0, 0.25]


@pytest.mark.parametrize(
    ("name", "loss", "ignored"),
    [
        ("ce_mean", cross_entropy, False),
        ("ce_ignore255", cross_entropy, True),
        (
            "ce_ignore255_weighted",
            lambda z, t: cross_entropy(z, t, weight=torch.tensor(W).double()),
            True,
        ),
        ("focal_softmax_gamma0_ignore255", lambda z, t: focal(z, t, gamma=0.0), True),
        ("focal_softmax_gamma1_ignore255", lambda z, t: focal(z, t, gamma=1.0), True),
        ("focal_softmax_gamma2_ignore255", focal, True),
        ("focal_softmax_gamma5_ignore255", lambda z, t: focal(z, t, gamma=5.0), True),
        (
            "focal_softmax_gamma2_alpha_w_ignore255",
            lambda z, t: focal(z, t, weight=torch.tensor(W)),
            True,
        ),
        ("focal_softmax_gamma2_noignore", focal, False),
        ("dice_ignore255_macro", dice, True),
        ("dice_no_ignore_macro", dice, False),
        ("dice_ignore255_smooth1", lambda z, t: dice(z, t, smooth=1.0), True),
    ],
)
def test_golden(
    golden: dict[str, Any], name: str, loss: Callable[[Tensor, Tensor], Tensor], ignored: bool
) -> None:
    logits = torch.from_numpy(3 * h32(2 * 4 * 6 * 8, 21)).view(2, 4, 6, 8)
    labels = torch.from_numpy(np.floor((h32(96, 33) + 1) / 2 * 4).astype(np.int64)).view(2, 6, 8)
    assert labels.flatten().bincount().tolist() == golden["target_hist"]
    if ignored:
        labels[0, 0, :] = 255
        labels[1, 5, 2:6] = 255
    assert loss(logits, labels).item() == pytest.approx(golden[name], rel=1e-12)


# Other libraries


@pytest.mark.parametrize("weight", [None, W])
def test_cross_entropy_is_that_of_torch(weight: list[float] | None) -> None:
    logits, labels = example()
    weights = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    theirs = F.cross_entropy(logits, labels, weight=weights, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, labels, weight=weights), theirs)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("weight", [None, W])
def test_focal_is_that_of_kornia(gamma: float, weight: list[float] | None) -> None:
    from kornia.losses import focal_loss

    logits, labels = example()
    weights = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    parts = focal_loss(
        logits, labels, alpha=None, gamma=gamma, weight=weights, ignore_index=255, reduction="none"
    )
    ours = focal(logits, labels, gamma=gamma, weight=weights)
    torch.testing.assert_close(ours, parts.sum() / (labels != 255).sum())


def test_focal_is_not_one_against_the_rest() -> None:
    """One pixel at p = 0.25: 0.75^2 log 4, where two sigmoids give another number."""
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1)
    ours = focal(logits, torch.zeros(1, 1, 1, dtype=torch.long)).item()
    assert ours == pytest.approx(0.75**2 * math.log(4), rel=1e-6)
    sigmoids = 0.5**2 * math.log(2) + 0.75**2 * math.log(4)
    assert abs(ours - sigmoids) > 0.1


@pytest.mark.parametrize("classes", [4, 6])  # two of the six have no label
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_is_that_of_smp(classes: int, smooth: float) -> None:
    from segmentation_models_pytorch.losses import DiceLoss

    logits, _ = example(classes)
    _, labels = example(4)
    theirs = DiceLoss("multiclass", ignore_index=255, smooth=smooth / 2)(logits, labels)
    torch.testing.assert_close(dice(logits, labels, smooth=smooth), theirs)


@pytest.mark.parametrize("classes", [4, 6])  # two of the six have no label
def test_lovasz_is_that_of_smp(classes: int) -> None:
    from segmentation_models_pytorch.losses import LovaszLoss

    logits, _ = example(classes, dtype=torch.float32)
    _, labels = example(4)
    theirs = LovaszLoss("multiclass", ignore_index=255)(logits, labels)
    torch.testing.assert_close(lovasz(logits, labels), theirs)


def test_lovasz_of_certain_answers_is_one_minus_the_mean_iou() -> None:
    """At the corners of the cube it is the Jaccard loss itself."""
    _, labels = example(ignored=False)
    answer = labels.roll(1, dims=2)
    logits = 200.0 * torch.nn.functional.one_hot(answer, 4).movedim(-1, 1).double()
    counts = torch.bincount(4 * labels.flatten() + answer.flatten(), minlength=16).view(4, 4)
    hits = counts.diagonal()
    iou = (hits / (counts.sum(0) + counts.sum(1) - hits)).double()
    torch.testing.assert_close(lovasz(logits, labels), 1.0 - iou.mean())


def test_dice_of_the_classes_that_are_there() -> None:
    logits, _ = example(6)
    _, labels = example(4)
    every, present = dice(logits, labels), dice(logits, labels, present_only=True)
    torch.testing.assert_close(present * 4, every * 6)


def test_dice_counts_the_batch_at_once() -> None:
    logits, labels = example()
    each = torch.stack([dice(z[None], t[None]) for z, t in zip(logits, labels, strict=True)])
    assert abs(dice(logits, labels) - each.mean()) > 1e-4


# One formula for each, written out


def test_online_mining_keeps_the_hard_pixels() -> None:
    logits, labels = example()
    log_p = logits.log_softmax(1).movedim(1, -1)
    truths = [
        (float(-log_p[n, i, j, t]), t)
        for (n, i, j), t in np.ndenumerate(labels.numpy())
        if t != 255
    ]

    def expected(kept: list[tuple[float, Any]], w: list[float]) -> float:
        return sum(w[t] * value for value, t in kept) / sum(w[t] for _, t in kept)

    hard = [(v, t) for v, t in truths if math.exp(-v) < 0.6]
    assert 10 < len(hard) < len(truths) - 5
    hardest = sorted(truths, reverse=True)
    ones = [1.0] * 4
    for min_kept, kept in ((10, hard), (len(truths) - 2, hardest[:-2]), (256, truths)):
        ours = ohem(logits, labels, min_kept=min_kept).item()
        assert ours == pytest.approx(expected(kept, ones), rel=1e-9)
    weighted = ohem(logits, labels, min_kept=10, weight=torch.tensor(W)).item()
    assert weighted == pytest.approx(expected(hard, W), rel=1e-9)
    everything = ohem(logits, labels, threshold=1.1, min_kept=1)
    torch.testing.assert_close(everything, cross_entropy(logits, labels))
    none_hard = ohem(logits, labels, threshold=1e-9, min_kept=3).item()
    assert none_hard == pytest.approx(expected(hardest[:3], ones), rel=1e-9)


def test_one_hot_targets_give_the_usual_cross_entropy() -> None:
    logits, labels = example(ignored=False)
    probs = F.one_hot(labels, 4).permute(0, 3, 1, 2).double()
    for weight in (None, torch.tensor(W, dtype=torch.float64)):
        ours = soft_cross_entropy(
            logits, probs, torch.ones(2, 7, 5, dtype=torch.float64), weight=weight
        )
        torch.testing.assert_close(ours, F.cross_entropy(logits, labels, weight=weight))


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


# What all have in common


@pytest.mark.parametrize("loss", HARD)
def test_gradients(loss: Callable[..., Tensor]) -> None:
    logits, labels = example()
    # Fewer kept than are hard, and more.
    options: list[dict[str, Any]] = [{"min_kept": 5}, {"min_kept": 40}] if loss is ohem else [{}]
    if loss is focal:
        options = [{"gamma": 0.5}, {"gamma": 2.0, "weight": torch.tensor(W)}]
    for keywords in options:
        assert torch.autograd.gradcheck(
            lambda z, k=keywords: loss(z, labels, **k), logits.requires_grad_()
        )


@pytest.mark.parametrize("loss", HARD)
def test_an_ignored_batch_is_zero_with_zero_gradient(loss: Callable[..., Tensor]) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = {} if loss in UNWEIGHTED else {"weight": torch.tensor([0.5, 1.0, 2.0])}
    for keywords in ({}, weight):
        value = loss(logits, torch.full((2, 4, 4), 255), **keywords)
        logits.grad = None
        value.backward()
        assert value.item() == 0.0
        assert logits.grad is not None and not logits.grad.any()


def test_no_weight_at_all_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.full((1, 2, 3, 3), 0.5), torch.zeros(1, 3, 3))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_a_batch_of_classes_without_weight_is_zero() -> None:
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    weight = torch.tensor([0.0, 1.0])
    for loss in (cross_entropy, focal, ohem):
        assert loss(torch.randn(1, 2, 2, 2), labels, weight=weight).item() == 0.0


@pytest.mark.parametrize("loss", HARD)
def test_ignored_pixels_have_no_part(loss: Callable[..., Tensor]) -> None:
    logits, labels = example()
    other = logits + 30 * (labels == 255)[:, None] * torch.randn_like(logits)
    assert loss(other, labels).item() == loss(logits, labels).item()
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert logits.grad is not None
    assert not logits.grad.movedim(1, -1)[labels == 255].any()
    assert logits.grad.movedim(1, -1)[labels != 255].any()
    # The ignored label may be any number; bytes are labels too.
    minus = labels.masked_fill(labels == 255, -1)
    assert loss(logits, minus, ignore_index=-1).item() == loss(logits, labels.byte()).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", HARD)
def test_half_precision_is_computed_in_float32(
    loss: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    logits, labels = example(dtype=torch.float32)
    half = (20 * logits).to(dtype)
    value = loss(half, labels)
    assert value.dtype == torch.float32
    assert value.item() == loss(half.float(), labels).item()


def test_logits_that_are_the_teachers_but_for_a_constant_have_no_loss() -> None:
    logits, _ = example()
    probs, weight = logits.softmax(1), torch.ones(2, 7, 5)
    shift = torch.arange(70.0).view(2, 1, 7, 5)
    assert logit_regression(logits + shift, probs, weight).item() < 1e-4
    other = logits.clone()
    other[:, 0] += 3.0
    # Less its mean over four classes, the shift is 2.25 of one and -0.75 of three.
    expected = (2.25 - 0.5) + 3 * 0.5 * 0.75**2
    assert logit_regression(other, probs, weight).item() == pytest.approx(expected, rel=1e-3)
    w = torch.tensor([0.0, 1.0, 1.0, 1.0])
    weighted = logit_regression(other, probs, weight, weight=w).item()
    assert weighted == pytest.approx(3 * 0.5 * 0.75**2, rel=1e-3)
    weight[:, 3:] = 0.0
    other[:, :, 3:] = 100.0 * torch.rand(2, 4, 4, 5)
    found = logit_regression(other, probs, weight).item()
    assert found == pytest.approx(expected, rel=1e-3)
    assert logit_regression(other, probs, torch.zeros(2, 7, 5)).item() == 0.0


def test_half_precision_with_soft_targets_is_computed_in_float32() -> None:
    logits, _ = example(dtype=torch.float32)
    probs, weight = torch.softmax(-logits, 1), torch.ones(2, 7, 5)
    half = logits.bfloat16()
    value = soft_cross_entropy(half, probs, weight)
    assert value.dtype == torch.float32
    assert value.item() == soft_cross_entropy(half.float(), probs, weight).item()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_focal_has_a_gradient_where_nothing_is_left_to_learn(gamma: float) -> None:
    logits = torch.tensor([200.0, 0.0, 0.0, 200.0]).view(1, 2, 1, 2).requires_grad_()
    labels = torch.tensor([[[0, 0]]])  # p is exactly 1 and exactly 0
    value = focal(logits, labels, gamma=gamma)
    value.backward()
    assert value.item() == pytest.approx(100.0)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", HARD)
def test_labels_that_do_not_fit_are_explained(loss: Callable[..., Tensor]) -> None:
    logits = torch.zeros(1, 3, 2, 2)
    with pytest.raises(TrainingError, match=r"hold \[-2, 3\]; they must be 0 to 2, or 255"):
        loss(logits, torch.tensor([[[0, 3], [-2, 255]]]))
    with pytest.raises(TrainingError, match=r"\(1, 3, 2, 2\) and the labels \(1, 2, 3\)"):
        loss(logits, torch.zeros(1, 2, 3, dtype=torch.long))
    if loss not in UNWEIGHTED:
        with pytest.raises(TrainingError, match="2 class weights and 3 classes"):
            loss(logits, torch.zeros(1, 2, 2, dtype=torch.long), weight=torch.ones(2))


# Recipes' texts


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ce", cross_entropy),
        ("dice", dice),
        ("lovasz", lovasz),
        (" dice ( present_only = true , smooth=2 ) ", None),
        ("focal(gamma=2)", focal),
        ("focal()", focal),
        ("ohem(threshold=0.6,min_kept=256)", ohem),
        ("ohem(min_kept=10)", lambda z, t: ohem(z, t, min_kept=10)),
        ("ce+0.5*dice", lambda z, t: cross_entropy(z, t) + 0.5 * dice(z, t)),
        (
            "1e-1 * ce + .5*focal(gamma=1.5)+ 2.*ce",
            lambda z, t: 2.1 * cross_entropy(z, t) + 0.5 * focal(z, t, gamma=1.5),
        ),
        ("soft_ce", cross_entropy),
    ],
)
def test_sums_of_losses(spec: str, expected: Callable[[Tensor, Tensor], Tensor] | None) -> None:
    classes = 5 if expected is None else 4
    logits, _ = example(classes)
    _, labels = example()
    if expected is None:
        value = dice(logits, labels, present_only=True, smooth=2.0)
    else:
        value = expected(logits, labels)
    torch.testing.assert_close(make_loss(spec)(logits, labels), value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "can't be read from ''"),
        ("ce+", "can't be read from ''"),
        ("ce dice", "can't be read from 'dice'.*write a sum"),
        ("ce-dice", "can't be read from '-dice'"),
        ("-1*ce", r"can't be read from '-1\*ce'"),
        ("ce*0.5", r"can't be read from '\*0.5'"),
        ("focal(gamma=2", r"can't be read from '\(gamma=2'"),
        ("cross", r"names 'cross'; the names are \['ce', "),
        ("0*ce", "factor 0.0; it must be above 0"),
        ("1e999*ce", "factor inf"),
        ("ce(gamma=2)", r"gives ce the option 'gamma=2'; its options are none"),
        ("focal(alpha=2)", r"option 'alpha=2'; its options are \['gamma'\]"),
        ("focal(gamma=1,gamma=2)", "each once"),
        ("focal(2)", "option '2'"),
        ("focal(ignore_index=0)", "option 'ignore_index=0'"),
        ("focal(gamma=two)", "gamma the value 'two'; it is a number"),
        ("focal(gamma=nan)", "gamma the value 'nan'; it is finite"),
        ("focal(gamma=-1)", "gamma is -1.0; it must be 0 at least"),
        ("dice(smooth=-1)", "smooth is -1.0"),
        ("dice(present_only=True)", "'True'; it is true or false"),
        ("ohem(min_kept=2.5)", "'2.5'; it is a whole number"),
        ("ohem(min_kept=0)", "min_kept 0; the threshold"),
        ("ohem(threshold=0)", "threshold is 0.0"),
        ("logits(beta=0)", "beta is 0.0; it must be above 0"),
    ],
)
def test_a_wrong_text_is_explained(spec: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make_loss(spec)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0], "each 0 at least"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, math.nan], "one number a class"),
        ([], "one number a class"),
        ([[1.0]], "one number a class"),
    ],
)
def test_wrong_class_weights_are_explained(weight: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make_loss("ce", weight=weight)


def test_class_weights_go_to_all_terms_but_dice() -> None:
    logits, labels = example()
    w = torch.tensor(W)
    for spec, expected in {
        "ce+dice": cross_entropy(logits, labels, weight=w) + dice(logits, labels),
        "focal": focal(logits, labels, weight=w),
        "ohem": ohem(logits, labels, weight=w),
        "soft_ce": cross_entropy(logits, labels, weight=w),
    }.items():
        torch.testing.assert_close(make_loss(spec, weight=W)(logits, labels), expected)
    with pytest.raises(TrainingError, match="'dice' has no use for class weights"):
        make_loss("dice", weight=W)


@pytest.mark.parametrize(
    "spec", ["ce", "dice", "focal", "ohem(min_kept=9)", "soft_ce", "ce+soft_ce", "logits"]
)
def test_probabilities_and_labels_are_targets_of_all_losses(spec: str) -> None:
    logits, labels = example()
    known = labels != 255
    certain = F.one_hot(labels.masked_fill(~known, 0), 4).movedim(-1, 1).double()
    loss = make_loss(spec)
    value = loss(logits, labels)
    torch.testing.assert_close(loss(logits, certain, known.double()), value)
    # What is ignored may be said by weights too.
    torch.testing.assert_close(loss(logits, labels.masked_fill(~known, 1), known.double()), value)
    if "soft" not in spec and spec != "logits":
        doubtful = 0.4 * certain + 0.15
        torch.testing.assert_close(loss(logits, doubtful, 0.3 * known.double()), value)
    no_weight = loss(logits.requires_grad_(), certain, torch.zeros(2, 7, 5))
    no_weight.backward()
    assert no_weight.item() == 0.0 and logits.grad is not None and not logits.grad.any()


def test_an_auxiliary_output_counts_less() -> None:
    logits, labels = example()
    aux = logits.flip(1)
    for spec in ("ce+dice", "soft_ce"):
        main, side = (make_loss(spec)(z, labels) for z in (logits, aux))
        both = {"out": logits, "aux": aux}
        torch.testing.assert_close(make_loss(spec)(both, labels), main + 0.4 * side)
        torch.testing.assert_close(
            make_loss(spec, aux_weight=0.0)({"out": logits, "aux": aux}, labels), main
        )
        torch.testing.assert_close(make_loss(spec)({"out": logits}, labels), main)
    with pytest.raises(TrainingError, match=r"a dict with \['logits'\]; its logits must be in"):
        make_loss("ce")({"logits": logits}, labels)
    with pytest.raises(TrainingError, match="aux_weight is -1"):
        make_loss("ce", aux_weight=-1)


def test_the_table_is_what_recipes_may_name() -> None:
    for name in LOSSES:
        make_loss(name)


# Class weights


def test_median_frequency_weights_follow_segnet() -> None:
    # Three images of 100 px; the classes are on 3, 2 and 1 of them, the last on none.
    weights = median_frequency_weights([200, 80, 20, 0], [300, 200, 100, 0])
    frequency = np.array([200 / 300, 80 / 200, 20 / 100])
    np.testing.assert_allclose(weights[:3], 0.4 / frequency)
    assert weights[3] == 1.0


@pytest.mark.parametrize(
    ("counts", "appearances"),
    [([0, 0], [0, 0]), ([5, 1], [4, 4]), ([1], [1, 1]), ([-1, 2], [3, 3]), ([[1]], [[1]])],
)
def test_counts_that_make_no_weights_are_explained(counts: Any, appearances: Any) -> None:
    with pytest.raises(TrainingError, match="two lists of one number a class"):
        median_frequency_weights(counts, appearances)
