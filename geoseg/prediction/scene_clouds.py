"""The scene as the user wants it, with what says where its clouds are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geoseg.cards.card import ModelCard
from geoseg.prediction.cloud_files import with_cloud_file
from geoseg.prediction.cloud_model import by_model, is_model_folder, model_if_it_can
from geoseg.prediction.cloudy import CLOUDY, cloudy_share
from geoseg.prediction.csmask import by_csmask, csmask_if_it_can
from geoseg.prediction.options import PredictOptions
from geoseg.scene.by_numbers import Decided
from geoseg.scene.clouds import CLOUD_MODEL
from geoseg.scene.declared import pixel_limit
from geoseg.scene.opening import Source, open_scene
from geoseg.scene.scene import Scene

__all__ = ["open_with_clouds", "with_seen_clouds"]


def open_with_clouds(source: Source, options: PredictOptions) -> Scene:
    """Open a scene, and choose what says which of its pixels are clouds.

    Args:
        source: see :func:`geoseg.scene.opening.open_scene`.
        options: the user's.

    Returns:
        The scene, with clouds widened by the user's buffer.

    Raises:
        GeosegError: the scene, or what shows its clouds, can't be opened or asked.
    """
    named = options.cloud_file
    with pixel_limit(options.max_pixels):
        scene = open_scene(
            source,
            options.rules,
            assets=options.assets,
            clouds="auto" if options.clouds == "auto" else "none",
            band_names=options.band_names,
        )
        if named is not None and not is_model_folder(named):
            scene = with_cloud_file(scene, named, options.rules)
    if named is not None and is_model_folder(named):
        scene = replace(scene, clouds=by_model(scene, named, options))
    elif options.clouds == CLOUD_MODEL:
        scene = replace(scene, clouds=by_model(scene, CLOUD_MODEL, options))
    elif options.clouds == "csmask":
        scene = replace(scene, clouds=by_csmask(scene, options))
    elif options.clouds == "auto" and scene.clouds is None:
        scene = replace(scene, clouds=csmask_if_it_can(scene, options))
    return _widened(scene, options)


def with_seen_clouds(
    scene: Scene, options: PredictOptions, cards: Sequence[ModelCard], decided: Decided
) -> Scene:
    """Have a scene's clouds found where its numbers look like some, and nothing says where.

    The embedded model of clouds errs on some clear scenes, so it is asked unasked only of those
    that look cloudy, and where the models of the map say that clouds are no class of theirs.

    Args:
        scene: as :func:`open_with_clouds` gives it.
        options: the user's.
        cards: of the models of the map.
        decided: by the scene's numbers.

    Returns:
        The scene, with its clouds.
    """
    if options.clouds != "auto" or scene.clouds is not None:
        return scene
    if any(card.clouds != () for card in cards):
        return scene
    if cloudy_share(cards[0], decided.survey, decided.radiometry) < CLOUDY:
        return scene
    return _widened(replace(scene, clouds=model_if_it_can(scene, options)), options)


def _widened(scene: Scene, options: PredictOptions) -> Scene:
    if scene.clouds is None:
        return scene
    return replace(scene, clouds=replace(scene.clouds, buffer=options.cloud_buffer))
