"""The grid that a network works on, where its gsd is not the scene's."""

from __future__ import annotations

from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid

__all__ = ["on_model_grid"]


#: A scene may be this much coarser than the coarsest gsd of the card before it is refused.
COARSEST_FACTOR = 4.0


#: gsd is measured on the ellipsoid; a UTM zone's scale error must not count as "too fine".
GSD_SLACK = 1.01


def on_model_grid(
    grid: PixelGrid, gsd: float, gsd_range: tuple[float, float], name: str
) -> tuple[PixelGrid, list[str]]:
    """Find the grid that a network sees.

    Args:
        grid: the scene's.
        gsd: the model's, metres.
        gsd_range: the finest and coarsest gsd at which scenes are taken as they are.
        name: the model's, for messages.

    Returns:
        The scene's grid, or one over the same ground with the model's gsd; and what to report.

    Raises:
        SceneError: the scene is far too coarse.
    """
    if grid.gsd is None:
        return grid, [f"the scene's gsd is unknown: taken as the model's {gsd:g} m"]
    low, high = gsd_range[0] / GSD_SLACK, gsd_range[1] * GSD_SLACK
    if all(low <= own <= high for own in grid.gsd):
        return grid, []
    across, down = grid.gsd
    if max(grid.gsd) > high * COARSEST_FACTOR:
        raise SceneError(
            f"the scene's pixels are {across:.3g} x {down:.3g} m and the model {name!r} takes "
            f"{gsd_range[0]:g} to {gsd_range[1]:g} m: they hold too little to be refined to "
            f"{gsd:g} m; choose a model for coarser scenes"
        )
    resampled = grid.zoom(snap(gsd / across), snap(gsd / down))
    return resampled, [
        f"the scene's pixels of {across:.3g} x {down:.3g} m are resampled to the model's "
        f"{gsd:g} m, and the result back to the scene's grid"
    ]


def snap(factor: float) -> float:
    """Round a factor that nearly is a whole number of pixels, or a whole fraction of one.

    A 2 m scene in UTM has pixels of 1.9996 m on the ellipsoid; five of them make 10 m.
    """
    whole = round(factor) if factor >= 1 else 1 / round(1 / factor)
    return float(whole) if abs(whole / factor - 1) < 2 * (GSD_SLACK - 1) else factor
