"""``--crf``: chips' probabilities brought into line with their pixels, before the stitch.

Each chip goes through the mean field of :class:`geoseg.networks.crf.DenseCRF`, and the chips are
blended as ever, so no seam appears that was not there. For this, what a pixel gets must not
depend on the chip it lies in: colours are the network's own input times a constant, never stretched
to a chip's extremes, and all chips share one lattice.

What it did with the defaults and the embedded model landcover-ms (:class:`CRFOptions` says how they
were chosen):

- examples/landsat7_nc_2000.tif at 28.5 m: the agreement with its labels rose from 59.5 to 60.4 %
  (forest 66 to 68 %, developed 91 to 92 %, water 57 to 52 %), with 32 % fewer borders between
  classes.
- a Sentinel-2 scene of 1068x1068 px: with chips of 256 and of 512 px, 99.6 % of the pixels have one
  class, as they have without it (99.5 %).
- one thread of a CPU took 1.4 s for a chip of 512x512 px, 6 bands and 9 classes.

What it costs besides time: small classes that the network is never sure of shrink or vanish
(shrub and grass in the first scene), and probabilities become surer than they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.cards.card import ModelCard
from geoseg.errors import DeviceError, UsageError
from geoseg.scene.radiometry import Radiometry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CRFOptions", "ChipCRF", "check_chip", "color_bands", "parse_options"]

#: Filters by name, as in :data:`geoseg.networks.crf.FILTERS`, which would load torch.
FILTERS = ("permutohedral", "exact", "window")

#: Normalization -> what one unit of the network's input is in a photograph's 0..255, in which the
#: CRF's beta is given.
COLOR_UNITS: dict[str, float] = {
    # One standard deviation of the training scenes; that of ImageNet's photographs is 0.225 of 255.
    "z-score": 57.4,
    # These give 0 to 1.
    "min-max": 255.0,
    "log-logistic": 255.0,
}
#: The same without normalization, by quantity: reflectance is 0 to 1, numbers are taken for 8-bit.
QUANTITY_UNITS: dict[str, float] = {"reflectance": 255.0, "number": 1.0}

#: More bands than these are left out: each is a dimension more, in which pixels lie farther apart,
#: until each is alone on the lattice and nothing is smoothed. These separate land covers.
COLOR_BANDS = ("red", "green", "blue", "nir", "swir1", "swir2")


@dataclass(frozen=True)
class CRFOptions:
    """What ``--crf-option`` may say.

    The defaults are much milder than those for photographs (alpha 80, beta 13, spatial 3, bilateral
    5): land-cover networks are unsure of many pixels, so weights of several logits let the common
    classes swallow the rest. With these, the example scene's agreement rose further, to 63.7 %, but
    water fell from 67 to 53 % and grass was gone. A wider reach (alpha 20 to 80) costs more of
    the small classes at the same weights, and a bilateral weight below the spatial one leaves
    specks along sharp edges.

    Attributes:
        filter: ``permutohedral``, ``exact`` (chips of at most 256x256 px) or ``window``.
        iterations: how often the mean field is updated.
        alpha: how far pixels of like colours bind each other, px of the model's grid.
        beta: how much like colours may differ, on a scale of 0 to 255.
        gamma: how far pixels of any colour bind each other, px.
        spatial: weight of pixels of any colour (``gamma``).
        bilateral: weight of pixels of like colours (``alpha``, ``beta``).
        radius: of the filter ``window``, px.
    """

    filter: str = "permutohedral"
    iterations: int = 5
    alpha: float = 10.0
    beta: float = 20.0
    gamma: float = 2.0
    spatial: float = 1.5
    bilateral: float = 1.5
    radius: int = 5


def parse_options(texts: Sequence[str]) -> CRFOptions:
    """Read ``NAME=VALUE`` options.

    >>> parse_options(["iterations=3", "beta=20"]).beta
    20.0

    Args:
        texts: any number of them; the last of a name counts.

    Raises:
        UsageError: one has no such form, no such name or no such value.
    """
    options = CRFOptions()
    for text in texts:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or name not in asdict(options):
            raise UsageError(
                f"--crf-option {text!r}: give NAME=VALUE with one of the names "
                f"{', '.join(asdict(options))}"
            )
        options = replace(options, **{name: _RULES[name](text, value)})
    return options


def _filter(text: str, value: str) -> str:
    if value not in FILTERS:
        raise UsageError(f"--crf-option {text!r}: filter is one of {', '.join(FILTERS)}")
    return value


def _count(text: str, value: str) -> int:
    # isdecimal, since int() also takes "1_000" and " +3".
    if not (value.isascii() and value.isdecimal() and int(value) <= 1000):
        raise UsageError(f"--crf-option {text!r}: give a whole number from 0 to 1000")
    return int(value)


def _number(least: float) -> Callable[[str, str], float]:
    def read(text: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        # A length or a weight beyond a million is a slip, and float32 would lose count.
        if not least <= number <= 1e6:
            raise UsageError(f"--crf-option {text!r}: give a number from {least:g} to 1e6")
        return number

    return read


_RULES: dict[str, Callable[[str, str], Any]] = {
    "filter": _filter,
    "iterations": _count,
    "alpha": _number(0.1),
    "beta": _number(0.1),
    "gamma": _number(0.1),
    "spatial": _number(0.0),
    "bilateral": _number(0.0),
    "radius": _count,
}


def check_chip(options: CRFOptions, height: int, width: int) -> None:
    """Refuse chips that the exact filter can't take, before any work.

    Args:
        options: the user's.
        height: of a chip, px.
        width: of a chip, px.

    Raises:
        UsageError: they are too large for it.
    """
    if options.filter != "exact":
        return
    from geoseg.networks.crf import EXACT_PIXELS

    if height * width > EXACT_PIXELS:
        raise UsageError(
            f"--crf-option filter=exact looks at all pairs of pixels and takes chips of at most "
            f"256x256 px; these are {height}x{width}: give --size 256, or filter=permutohedral"
        )


def color_bands(bands: Sequence[str]) -> list[int]:
    """Choose which of a model's bands are a pixel's colour, as places.

    Up to six bands all are; of more, those of :data:`COLOR_BANDS` that are there, or the first six
    where none is.

    >>> color_bands(["blue", "green", "red", "rededge1", "nir", "nir08", "swir1"])
    [0, 1, 2, 4, 6]

    Args:
        bands: of the card.
    """
    most = len(COLOR_BANDS)
    if len(bands) <= most:
        return list(range(len(bands)))
    return [i for i, band in enumerate(bands) if band in COLOR_BANDS] or list(range(most))


class ChipCRF:
    """The CRF made ready for one model's chips of one scene."""

    def __init__(self, card: ModelCard, radiometry: Radiometry, options: CRFOptions) -> None:
        """Build it.

        Args:
            card: of the model.
            radiometry: from the scene's numbers to the card's quantity.
            options: the user's.
        """
        from geoseg.networks.crf import DenseCRF

        self._card, self._radiometry = card, radiometry
        kind = card.normalization.kind
        self._unit = QUANTITY_UNITS[card.quantity] if kind == "none" else COLOR_UNITS[kind]
        self._bands = color_bands(card.bands)
        self._crf = DenseCRF(
            len(card.classes),
            filter=options.filter,
            iterations=options.iterations,
            theta_alpha=options.alpha,
            theta_beta=options.beta,
            theta_gamma=options.gamma,
            spatial_weight=options.spatial,
            bilateral_weight=options.bilateral,
            radius=options.radius,
        ).eval()

    def __call__(
        self,
        probs: Any,
        pixels: Any,
        valid: Any,
        places: Sequence[tuple[int, int]],
    ) -> Any:
        """A batch's probabilities in line with its pixels.

        What was not measured has no say: its pixels are copies of measured ones, and the network's
        answer to them is nobody's land cover.

        Args:
            probs: float32 (N, K, H, W) of the runtime, a numpy array or a tensor.
            pixels: (N, C, H, W), the raw numbers that the runtime took, an array or a tensor.
            valid: (N, H, W), True = measured, an array or a tensor.
            places: (row, col) of the N chips' first pixels on the world's grid.

        Returns:
            Like ``probs``, and on its device; they add up to 1 over the classes.

        Raises:
            DeviceError: the device ran out of memory.
        """
        import torch

        given = torch.as_tensor(probs)
        # Only these two have all of torch's functions that the lattice needs.
        device = given.device if given.device.type == "cuda" else torch.device("cpu")
        try:
            with torch.inference_mode():
                logits = given.to(device, torch.float32).clamp(min=1e-6).log()
                out = self._crf.to(device)(
                    logits,
                    self._colors(torch.as_tensor(pixels, device=device)),
                    None if valid.all() else torch.as_tensor(valid, device=device),
                    places,
                )
                out = torch.softmax(out, dim=1)
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{device} ran out of memory in --crf on chips of {pixels.shape[2]}x"
                f"{pixels.shape[3]} px; use a smaller --batch-size or --size"
            ) from error
        return out.numpy() if isinstance(probs, np.ndarray) else out.to(given.device)

    def _colors(self, raw: Tensor) -> Tensor:
        """The network's input in 0..255, (N, bands, H, W); the same for all chips and scenes."""
        import torch

        from geoseg.networks.normalize import normalize

        shape = (1, -1, 1, 1)
        x = raw.to(torch.float32)
        gain = x.new_tensor(self._radiometry.gain).view(shape)
        bias = x.new_tensor(self._radiometry.bias).view(shape)
        x = normalize(x * gain + bias, self._card.normalization)
        return x[:, self._bands] * self._unit
