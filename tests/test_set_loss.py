"""geoseg.training.set_loss: losses of labels that leave classes open."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from geoseg.errors import TrainingError
from geoseg.training.loss_spec import make_loss
from geoseg.training.losses import cross_entropy, dice
from geoseg.training.set_loss import set_cross_entropy, set_dice

pytestmark = pytest.mark.extra("torch")
W = torch.tensor([2.0, 0.5, 1.0, 3.0])


def example() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, one-hot targets and which pixels are known, of 2 chips of 7 x 5 px."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 4, 7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (2, 7, 5), generator=generator)
    labels[0, :2] = 255
    known = labels != 255
    certain = F.one_hot(labels.masked_fill(~known, 0), 4).movedim(-1, 1).double()
    return logits, certain, labels


@pytest.mark.parametrize("weight", [None, W])
def test_of_labels_of_one_class_they_are_cross_entropy_and_dice(weight: Tensor | None) -> None:
    logits, certain, labels = example()
    known = (labels != 255).double()
    torch.testing.assert_close(
        set_cross_entropy(logits, certain, known, weight=weight),
        cross_entropy(logits, labels, weight=weight),
    )
    torch.testing.assert_close(
        set_dice(logits, certain, known), dice(logits, labels, present_only=True)
    )


def test_a_set_is_one_class_of_what_its_classes_have_together() -> None:
    """Classes 2 and 3 as one: the loss of a network whose probability they share."""
    logits, certain, labels = example()
    known = (labels != 255).double()
    merged = torch.cat((logits[:, :2], logits[:, 2:].logsumexp(dim=1, keepdim=True)), dim=1)
    together = labels.clone()
    together[labels == 3] = 2
    open_ = certain.clone()
    open_[:, 2:] = certain[:, 2:].sum(dim=1, keepdim=True) / 2
    torch.testing.assert_close(
        set_cross_entropy(logits, open_, known), cross_entropy(merged, together)
    )
    # It weighs as much as its classes on average.
    three = torch.tensor([2.0, 0.5, 2.0])
    for times in (torch.ones(5), torch.arange(1.0, 6.0)):
        torch.testing.assert_close(
            set_cross_entropy(logits, times * open_, known, weight=W),
            cross_entropy(merged, together, weight=three),
        )


def test_one_class_that_it_is_not_is_one_sided() -> None:
    logits, _, _ = example()
    target = torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]).view(1, 4, 1, 1).expand_as(logits)
    expected = -torch.log1p(-logits.softmax(dim=1)[:, 0]).mean()
    found = set_cross_entropy(logits, target, torch.ones(2, 7, 5))
    torch.testing.assert_close(found, expected)


def test_pixels_of_sets_have_no_part_in_dice() -> None:
    logits, certain, labels = example()
    of_sets = certain.clone()
    of_sets[1] = 0.25
    only = labels.clone()
    only[1] = 255
    known = (labels != 255).double()
    torch.testing.assert_close(
        set_dice(logits, of_sets, known), dice(logits, only, present_only=True)
    )
    logits.requires_grad_()
    none = set_dice(logits, torch.full_like(certain, 0.25), known)
    none.backward()
    assert none.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_class_weights_are_for_the_cross_entropy_alone() -> None:
    logits, certain, labels = example()
    known = (labels != 255).double()
    found = make_loss("set_ce+0.5*set_dice", weight=W.tolist())(logits, certain, known)
    expected = set_cross_entropy(logits, certain, known, weight=W) + 0.5 * set_dice(
        logits, certain, known
    )
    torch.testing.assert_close(found, expected)
    with pytest.raises(TrainingError, match="3 class weights and 4 classes"):
        set_cross_entropy(logits, certain, known, weight=W[:3])
