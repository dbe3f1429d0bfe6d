"""A model's probabilities are made right by labels that did not teach it: ``models calibrate``.

One temperature is fitted to all scenes (:mod:`geoseg.evaluation.calibration`). How right it makes
probabilities is measured of each scene with the temperature of the others alone, so that the errors
that the card gives are those of ground that did not take part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard
from geoseg.cards.replacing import replace_card
from geoseg.core.wording import counted
from geoseg.errors import EvaluationError, UsageError
from geoseg.evaluation.calibration import (
    BINS,
    binned_sample,
    errors_of,
    fit_temperature,
    softened,
)
from geoseg.evaluation.held_out import Sampled, read_held_out, sample_of
from geoseg.evaluation.report import number
from geoseg.events import Progress
from geoseg.zoo import check_changeable, find_model

__all__ = ["Calibrated", "calibrate"]

#: Confidences of which the card says what --min-confidence takes away.
LEASTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Fewer scenes don't show how a temperature does on others.
FEWEST_SCENES = 2


@dataclass(frozen=True)
class Calibrated:
    """What :func:`calibrate` has found.

    Attributes:
        card: with the temperature, and the scores ``calibration``.
        written: the card's file where it was written.
    """

    card: ModelCard
    written: Path | None

    @property
    def report(self) -> dict[str, Any]:
        """What the card says of it."""
        found: dict[str, Any] = self.card.scores["calibration"]
        return found


def calibrate(
    model: str | Path,
    scenes: str | Path,
    *,
    write: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Find the temperature of a model from labelled scenes that did not teach it.

    Args:
        model: an embedded model's name, or a model folder or .zip.
        scenes: a TOML file that lists them (:func:`geoseg.evaluation.held_out.read_held_out`).
        write: put temperature and scores into the card in the model's folder.
        device: where the model runs.
        threads: how many compute on a CPU; None for one a core.
        progress: called with an event for each scene that is done (see :mod:`geoseg.events`).

    Returns:
        The card with both.

    Raises:
        UsageError: the list is wrong, has fewer than two scenes, or the card can't be changed.
        EvaluationError: no temperature of 0.02 to 50 fits.
        GeosegError: a scene or its labels can't be read.
        OutputError: the card can't be written.
    """
    files = find_model(model)
    card = files.card
    if write:
        check_changeable(files, "--write")
    if card.activation != "softmax":
        raise UsageError(
            f"the model's activation is {card.activation}; a temperature is of softmax: its "
            f"probabilities stay as they are"
        )
    listed = read_held_out(scenes, device=device, threads=threads)
    if len(listed) < FEWEST_SCENES:
        raise UsageError(
            f"{scenes} lists {counted(len(listed), 'scene')}; give {FEWEST_SCENES} at least, "
            f"since what a temperature is worth shows on scenes that it was not fitted to"
        )
    samples = []
    for done, held in enumerate(listed, start=1):
        samples.append(sample_of(model, card, held))
        if progress is not None:
            progress({"event": "progress", "stage": "scenes", "done": done, "total": len(listed)})
    temperature, report = judged(samples)
    # What was fitted softens probabilities that the card's own temperature had softened.
    card = replace(card, temperature=card.temperature * temperature)
    card = card.with_scores(calibration={"temperature": card.temperature, **report})
    return Calibrated(card, replace_card(card, files.path) if write else None)


def judged(samples: Sequence[Sampled]) -> tuple[float, dict[str, Any]]:
    """Fit the temperature, and measure what it does for scenes that did not take part.

    Args:
        samples: of at least two scenes.

    Returns:
        The temperature of all, and the report.

    Raises:
        EvaluationError: none of 0.02 to 50 fits.
    """
    temperature = _fitted(samples)
    if not math.isfinite(temperature):
        raise EvaluationError(
            "no temperature of 0.02 to 50 fits the labels: all pixels are right, or probabilities "
            "say nothing; give more scenes"
        )
    apart = []
    for i in range(len(samples)):
        found = _fitted([*samples[:i], *samples[i + 1 :]])
        apart.append(found if math.isfinite(found) else temperature)
    every = range(len(samples))
    groups = {
        group: _scores(samples, apart, [i for i in every if samples[i].group == group])
        for group in dict.fromkeys(s.group for s in samples)
    }
    bins = sum((_bins(samples[i], apart[i]) for i in every), np.zeros((3, BINS)))
    _, _, confidence, accuracy = errors_of(bins)
    return temperature, {
        **_scores(samples, apart, every),
        "temperatures_apart": [min(apart), max(apart)],
        "groups": groups,
        "bins": [
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "pixels": int(bins[0, k]),
                "confidence": number(confidence[k]),
                "accuracy": number(accuracy[k]),
            }
            for k in range(BINS)
        ],
        "min_confidence": _what_is_left(samples, apart),
    }


def _fitted(samples: Sequence[Sampled]) -> float:
    logs = np.concatenate([s.logs for s in samples])
    return fit_temperature(logs, np.concatenate([s.truth for s in samples]))


def _bins(sample: Sampled, temperature: float) -> NDArray[np.float64]:
    """Count pixels by their confidence: (3, BINS)."""
    mapped = sample.logs.argmax(axis=1)
    return binned_sample(sample.logs, sample.truth, mapped, temperature)


def _scores(
    samples: Sequence[Sampled], apart: Sequence[float], chosen: Sequence[int]
) -> dict[str, Any]:
    """Score some of the scenes, each with the temperature of the others."""
    before = sum((_bins(samples[i], 1.0) for i in chosen), np.zeros((3, BINS)))
    after = sum((_bins(samples[i], apart[i]) for i in chosen), np.zeros((3, BINS)))
    return {
        "scenes": len(chosen),
        "pixels": int(after[0].sum()),
        "accuracy": number(after[2].sum() / after[0].sum()),
        "ece_before": number(errors_of(before)[0]),
        "ece": number(errors_of(after)[0]),
    }


def _what_is_left(samples: Sequence[Sampled], apart: Sequence[float]) -> list[dict[str, Any]]:
    """Say what share of pixels and of errors each confidence takes away, and what is right then."""
    confidence, right = [], []
    for sample, temperature in zip(samples, apart, strict=True):
        confidence.append(np.exp(softened(sample.logs, temperature)).max(axis=1))
        right.append(sample.logs.argmax(axis=1) == sample.truth)
    sure, correct = np.concatenate(confidence), np.concatenate(right)
    wrong = max(1, int((~correct).sum()))
    return [
        {
            "value": least,
            "not_sure": float((sure < least).mean()),
            "errors": float((~correct & (sure < least)).sum() / wrong),
            "accuracy": number(correct[sure >= least].mean()) if (sure >= least).any() else None,
        }
        for least in LEASTS
    ]
