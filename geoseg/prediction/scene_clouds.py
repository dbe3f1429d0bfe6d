"""The scene as the user wants it, with what says where its clouds are."""

from __future__ import annotations

from dataclasses import replace

from geoseg.prediction.cloud_files import with_cloud_file
from geoseg.prediction.csmask import by_csmask, csmask_if_it_can
from geoseg.prediction.options import PredictOptions
from geoseg.scene.declared import pixel_limit
from geoseg.scene.opening import Source, open_scene
from geoseg.scene.scene import Scene

__all__ = ["open_with_clouds"]


def open_with_clouds(source: Source, options: PredictOptions) -> Scene:
    """Open a scene, and choose what says which of its pixels are clouds.

    Args:
        source: see :func:`geoseg.scene.opening.open_scene`.
        options: the user's.

    Returns:
        The scene, with clouds widened by the user's buffer.

    Raises:
        SceneError: the scene, or what shows its clouds, can't be opened.
    """
    with pixel_limit(options.max_pixels):
        scene = open_scene(
            source,
            options.rules,
            assets=options.assets,
            clouds="auto" if options.clouds == "auto" else "none",
            band_names=options.band_names,
        )
        if options.cloud_file is not None:
            scene = with_cloud_file(scene, options.cloud_file, options.rules)
    # A model of clouds that geoseg brings will be one more name, and come before csmask in "auto".
    if options.clouds == "csmask":
        scene = replace(scene, clouds=by_csmask(scene, options))
    elif options.clouds == "auto" and scene.clouds is None:
        scene = replace(scene, clouds=csmask_if_it_can(scene, options))
    if scene.clouds is None:
        return scene
    return replace(scene, clouds=replace(scene.clouds, buffer=options.cloud_buffer))
