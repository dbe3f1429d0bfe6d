"""Sums of losses, as a text such as ce+0.5*dice names them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.errors import TrainingError
from geoseg.training.loss_parts import as_computable, one_hot_targets, truth_of
from geoseg.training.losses import LOSSES, SOFT_LOSSES

__all__ = ["Loss", "make_loss", "terms_of"]


@dataclass(frozen=True, eq=False)
class Loss:
    """A sum of losses, for networks with and without an auxiliary output. See :func:`make_loss`.

    Attributes:
        hard: (factor, function of logits and labels).
        soft: (factor, function of logits, probabilities and pixel weights).
        ignore_index: the label that says nothing.
        aux_weight: factor of the auxiliary output's loss.
    """

    hard: tuple[tuple[float, Callable[..., Tensor]], ...]
    soft: tuple[tuple[float, Callable[..., Tensor]], ...]
    ignore_index: int
    aux_weight: float

    def __call__(
        self,
        output: Tensor | Mapping[str, Tensor],
        target: Tensor,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """Compare a network's output with its target.

        Args:
            output: logits float (N, K, H, W), or a mapping with these as ``out`` and, maybe, those
                of an auxiliary head as ``aux``, both at the target's size.
            target: integer labels (N, H, W), or probabilities float (N, K, H, W). Where a term
                needs labels, a pixel's label is its most likely class; where it needs
                probabilities, a label is one class for certain.
            pixel_weight: float (N, H, W), 0 where there is no target; None is 1 everywhere. Terms
                that take labels ignore the pixels of weight 0 and count all others alike.

        Returns:
            A scalar.

        Raises:
            TrainingError: the output is a mapping without ``out``, shapes do not fit, or a label is
                no class.
        """
        outputs = output if isinstance(output, Mapping) else {"out": output}
        if "out" not in outputs:
            raise TrainingError(
                f"the network gave a dict with {sorted(outputs)}; its logits must be in 'out', and "
                f"those of an auxiliary head in 'aux'"
            )
        soft = target.is_floating_point()
        if self.hard:
            labels = target.argmax(dim=1) if soft else target.long()
            if pixel_weight is not None:
                labels = labels.masked_fill(pixel_weight <= 0, self.ignore_index)
        if self.soft:
            probs = target
            if not soft:
                logits = as_computable(outputs["out"])
                probs = one_hot_targets(*truth_of(logits, target, self.ignore_index), logits)
            weight = torch.ones_like(probs[:, 0]) if soft else probs.sum(dim=1)
            if pixel_weight is not None:
                weight = weight * pixel_weight

        def compare(logits: Tensor) -> Tensor:
            values = [factor * function(logits, labels) for factor, function in self.hard]
            values += [factor * function(logits, probs, weight) for factor, function in self.soft]
            return torch.stack(values).sum()

        loss = compare(outputs["out"])
        return loss + self.aux_weight * compare(outputs["aux"]) if "aux" in outputs else loss


_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"


_TERM = re.compile(
    rf"\s*(?:(?P<factor>{_NUMBER})\s*\*\s*)?(?P<name>[a-z_]+)\s*(?:\((?P<options>[^()]*)\)\s*)?"
)


_HOW = (
    "write a sum such as 'ce', 'ce+0.5*dice', 'focal(gamma=2)' or 'ohem(threshold=0.6,"
    "min_kept=256)'"
)


def make_loss(
    spec: str,
    *,
    weight: Sequence[float] | NDArray[np.float64] | Tensor | None = None,
    ignore_index: int = 255,
    aux_weight: float = 0.4,
) -> Loss:
    """Build a loss from its text in a recipe.

    The text is a sum of terms ``[factor *] name [(option = value, ...)]`` with the names of
    :data:`LOSSES`: ``ce``, ``ce+0.5*dice``, ``focal(gamma=2)``,
    ``ohem(threshold=0.6,min_kept=256)``, ``dice(present_only=true)``, ``soft_ce``. Options are the
    keywords of the functions.

    Args:
        spec: the text.
        weight: K numbers of 0 and more, of the classes; for all terms but dice and lovasz, which
            count the classes alike by what they are.
        ignore_index: the label that says nothing.
        aux_weight: factor of the auxiliary output's loss, 0 and more; 0.4 is that of Zhao et al.
            2017, PSPNet (https://arxiv.org/abs/1612.01105).

    Returns:
        A function of (output, target, pixel_weight), see :meth:`Loss.__call__`.

    Raises:
        TrainingError: the text is no such sum, an option or weight breaks its rule.

    Examples:
        >>> loss = make_loss("ce + 0.5*dice")
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> round(float(loss(logits, torch.tensor([[[0, 1]]]))), 4)
        0.9431
    """
    terms = _parse(spec)
    if not 0 <= aux_weight < math.inf:
        raise TrainingError(f"aux_weight is {aux_weight}; it must be 0 at least: 0.4 is usual")
    weights = None if weight is None else torch.as_tensor(weight).detach().double()
    if weights is not None:
        _check_weights(weights, spec, [name for _, name, _ in terms])
    hard: list[tuple[float, Callable[..., Tensor]]] = []
    soft: list[tuple[float, Callable[..., Tensor]]] = []
    for factor, name, options in terms:
        if _takes(name, "weight"):
            options["weight"] = weights
        if _takes(name, "ignore_index"):
            options["ignore_index"] = ignore_index
        (soft if name in SOFT_LOSSES else hard).append((factor, partial(LOSSES[name], **options)))
    loss = Loss(tuple(hard), tuple(soft), ignore_index, aux_weight)
    # One pixel that says nothing, so that an option that breaks its rule is refused now.
    classes = 2 if weights is None else len(weights)
    loss(torch.zeros(1, classes, 1, 1), torch.full((1, 1, 1), ignore_index))
    return loss


def terms_of(spec: str) -> list[str]:
    """List the names of a loss's terms.

    Raises:
        TrainingError: the text is no such sum.
    """
    return [name for _, name, _ in _parse(spec)]


def _check_weights(weights: Tensor, spec: str, names: Sequence[str]) -> None:
    """Refuse class weights that are unsound, or that no term of the loss takes.

    Raises:
        TrainingError: they are.
    """
    sound = weights.ndim == 1 and len(weights) and weights.isfinite().all()
    if not sound or (weights < 0).any() or not weights.any():
        raise TrainingError(
            f"the class weights are {weights.tolist()}; give one number a class, each 0 at "
            f"least and not all 0"
        )
    if not any(_takes(name, "weight") for name in names):
        raise TrainingError(
            f"the loss {spec!r} has no use for class weights; leave them out, or add a term "
            f"that has: {[name for name in LOSSES if _takes(name, 'weight')]}"
        )


def _parse(spec: str) -> list[tuple[float, str, dict[str, Any]]]:
    """Read the terms of a loss's text: factor, name, options."""
    terms: list[tuple[float, str, dict[str, Any]]] = []
    place = 0
    while True:
        match = _TERM.match(spec, place)
        if match is None:
            raise TrainingError(
                f"the loss {spec!r} can't be read from {spec[place:]!r} on; {_HOW}; the names are "
                f"{list(LOSSES)}"
            )
        name = match["name"]
        if name not in LOSSES:
            raise TrainingError(f"the loss {spec!r} names {name!r}; the names are {list(LOSSES)}")
        factor = float(match["factor"] or 1.0)
        if not 0 < factor < math.inf:
            raise TrainingError(f"the loss {spec!r} has the factor {factor}; it must be above 0")
        terms.append((factor, name, _options(spec, name, match["options"] or "")))
        place = match.end()
        if place == len(spec):
            return terms
        if spec[place] != "+":
            raise TrainingError(f"the loss {spec!r} can't be read from {spec[place:]!r} on; {_HOW}")
        place += 1


def _options(spec: str, name: str, text: str) -> dict[str, Any]:
    """Read the keywords of one term; their types are those of the function's defaults."""
    known = {
        key: parameter.default
        for key, parameter in inspect.signature(LOSSES[name]).parameters.items()
        if isinstance(parameter.default, bool | int | float) and key != "ignore_index"
    }
    options: dict[str, Any] = {}
    for entry in text.split(",") if text.strip() else []:
        key, _, value = (part.strip() for part in entry.partition("="))
        if key not in known or key in options:
            raise TrainingError(
                f"the loss {spec!r} gives {name} the option {entry.strip()!r}; its options are "
                f"{sorted(known) or 'none'}, each once, as in 'name=value'"
            )
        kind = type(known[key])
        try:
            options[key] = {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (KeyError, ValueError) as error:
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise TrainingError(
                f"the loss {spec!r} gives {key} the value {value!r}; it is {wanted}"
            ) from error
        if not math.isfinite(options[key]):
            raise TrainingError(f"the loss {spec!r} gives {key} the value {value!r}; it is finite")
    return options


def _takes(name: str, keyword: str) -> bool:
    return keyword in inspect.signature(LOSSES[name]).parameters
