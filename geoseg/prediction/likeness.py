"""What a scene's numbers look like that the user should know of: another order, a picture.

Each is found in pixels from all over the scene, and said with the options that settle it; none is
said of any of the real scenes that this was tried on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from geoseg.errors import RadiometryError
from geoseg.prediction.spectra import likelier, unlike

if TYPE_CHECKING:
    from geoseg.prediction.plan import Plan
    from geoseg.scene.scene_band import SceneBand

__all__ = ["check_no_picture", "likelier_warnings", "nodata_warnings", "unlike_warnings"]

#: The share of the sampled pixels below which few were measured. The tile of a swath's edge has
#: more, and so has the one scene in a hundred of the real ones here that has least.
LEAST_MEASURED = 0.1
#: The share of pixels unlike all known ground from which on it is said: of some 160 real scenes
#: none has more than 0.16; a picture that was stretched for the screen has 0.75.
MOST_UNLIKE = 0.33
#: Of an 8-bit picture there are so many numbers at least; reflectance in whole percent has fewer
#: between 0 and 1 that are multiples of 1/255, namely two.
FEWEST_GREYS = 20
#: How near a multiple of 1/255 floating-point numbers of 32 bits lie, in multiples.
NEAR = 1e-3


def likelier_warnings(plan: Plan) -> list[str]:
    """Describe a scene whose bands rather lie in another order, or have another offset, than said.

    Args:
        plan: of the run, of a model of reflectance.

    Returns:
        A line, or none.
    """
    found = likelier(plan.survey.quantity(plan.radiometry), plan.card.bands)
    if found is None:
        return []
    if found.shift:
        return _shift_warning(plan, found.shift)
    return [
        f"what the scene holds as {', '.join(plan.card.bands)} reflects as "
        f"{', '.join(found.names)} would: if its bands are in another order than they are said to "
        f"be, give {_names_option(plan.scene.bands, plan.bands, found.names)}"
    ]


def _shift_warning(plan: Plan, shift: float) -> list[str]:
    """Describe an offset that is wrong, where one number says it for all bands."""
    gains, biases = set(plan.radiometry.gain), set(plan.radiometry.bias)
    if len(gains) > 1 or len(biases) > 1:
        return []
    gain, bias = gains.pop(), biases.pop()
    scale = "" if gain == 1 else f"--scale {gain:g} "
    return [
        f"the scene's reflectance is that of ground plus {-shift:g}: if an offset was left in its "
        f"numbers, give {scale}--offset {round(bias + shift, 6):g}"
    ]


def unlike_warnings(plan: Plan) -> list[str]:
    """Describe a scene much of which is like no ground that geoseg has seen.

    Args:
        plan: of the run, of a model of reflectance.

    Returns:
        A line, or none.
    """
    share = unlike(plan.survey.quantity(plan.radiometry), plan.card.bands)
    if share is None or share < MOST_UNLIKE:
        return []
    return [
        f"{share:.0%} of the sampled pixels reflect like no land, water or snow that geoseg knows, "
        f"so that their classes mean little: look at the numbers (geoseg info), and check --scale "
        f"and --offset"
    ]


def nodata_warnings(plan: Plan) -> list[str]:
    """Describe a scene of which hardly anything was measured.

    Args:
        plan: of the run.

    Returns:
        A line, or none.
    """
    survey = plan.survey
    if not survey.valid.size or not 0 < survey.valid_share < LEAST_MEASURED:
        return []
    clouds = " or clouds" if plan.scene.clouds is not None else ""
    return [
        f"{1 - survey.valid_share:.0%} of the sampled pixels are nodata{clouds}: if they were "
        f"measured, say what stands for nodata with --src-nodata"
    ]


def _names_option(
    every: Sequence[SceneBand], chosen: Sequence[SceneBand], names: Sequence[str]
) -> str:
    """The option that calls the chosen bands so, and the others what they are called."""
    said = {(b.path, b.index): name for b, name in zip(chosen, names, strict=True)}
    called = [said.get((b.path, b.index), _other_name(b, names)) for b in every]
    return f"--band-names {','.join(called)} (in place of --bands)"


def _other_name(band: SceneBand, taken: Sequence[str]) -> str:
    return "-" if band.name is None or band.name in taken else band.name


def check_no_picture(plan: Plan) -> None:
    """Refuse an 8-bit picture in floating-point numbers, where reflectance is wanted.

    Args:
        plan: of the run, of a model of reflectance.

    Raises:
        RadiometryError: all are whole multiples of 1/255, and the user gave no scale.
    """
    if plan.options.scale is not None:
        return
    greys = plan.survey.quantity(plan.radiometry) * 255
    if not greys.size or greys.min() < -NEAR or greys.max() > 255 + NEAR:
        return
    if (
        np.abs(greys - np.rint(greys)).max() < NEAR
        and len(np.unique(np.rint(greys))) >= FEWEST_GREYS
    ):
        raise RadiometryError(
            f"{plan.scene.name}: all its numbers are whole multiples of 1/255, so they come from "
            f"an 8-bit picture; such numbers are stretched for the screen and no reflectance, "
            f"which the model needs; use the original product, or give "
            f"--scale {plan.radiometry.gain[0]:g} to have them taken as reflectance all the same"
        )
