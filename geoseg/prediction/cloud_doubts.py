"""What is said of a scene that looks cloudy, before the run."""

from __future__ import annotations

from geoseg.prediction.cloudy import CLOUDY, cloudy_share
from geoseg.prediction.plan import Plan
from geoseg.scene.clouds import CLOUD_MODEL
from geoseg.scene.scene import FoundClouds

__all__ = ["cloud_warnings"]


def cloud_warnings(plan: Plan) -> list[str]:
    """Warn of clouds where the user has said nothing of them.

    Args:
        plan: of the run.

    Returns:
        A line, or none.
    """
    clouds = plan.scene.clouds
    by_itself = isinstance(clouds, FoundClouds) and clouds.by == CLOUD_MODEL
    if plan.options.clouds != "auto" or not (clouds is None or by_itself) or plan.card.clouds:
        return []
    share = cloudy_share(plan.card, plan.survey, plan.radiometry)
    if by_itself:
        return [
            f"the scene looks cloudy (at least {share:.0%} of the sampled pixels), and nothing "
            f"says where clouds are: what the embedded model {CLOUD_MODEL} takes for clouds and "
            f"their shadows is left out; give --clouds FILE (a mask or polygons) if you know "
            f"better, --clouds none if they shall be mapped as ground"
        ]
    if share < CLOUDY:
        return []
    return [
        f"the scene looks cloudy (at least {share:.0%} of the sampled pixels), clouds are no class "
        f"of the model, and nothing says where they are: give --clouds FILE (a mask or polygons), "
        f"--clouds {CLOUD_MODEL} (the embedded model of clouds), or --clouds none if they shall be "
        f"mapped as ground"
    ]
