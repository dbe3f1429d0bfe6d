"""Each recipe of configs/ runs on the real data: some steps of each stage.

A whole run takes hours. Here the scenes are thinned to the smallest one or two of each kind, and
the steps to a handful; all else is as in the recipe: bands, labels, teacher, sets, losses,
augmentation, stages, network.
"""

import runpy
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from geoseg import predict
from geoseg.cards.files import read_model
from geoseg.networks.folder import import_model
from geoseg.rasters.class_raster import open_class_raster
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import load_config
from geoseg.training.run import train
from geoseg.training.scene_config import SceneConfig

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def teacher(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dynamicworld"
    import_model(shared / "models/dynamicworld", folder)
    return folder


def thinned(config: TrainConfig) -> tuple[SceneConfig, ...]:
    """The smallest one or two scenes of each kind: by side, and by what their labels say."""
    seen: Counter[tuple[object, ...]] = Counter()
    kept = []
    for scene in sorted(config.scenes, key=lambda s: sum(f.stat().st_size for f in files_of(s))):
        kind = (
            scene.group if scene.group in config.split.chosen_by else "",
            scene.split,
            bool(scene.labels),
            frozenset(scene.label_map.values()),
            scene.everywhere,
            scene.derive,
        )
        seen[kind] += 1
        if seen[kind] <= (1 if scene.label_map or scene.everywhere else 2):
            kept.append(scene)
    return tuple(kept)


def files_of(scene: SceneConfig) -> list[Path]:
    """What a scene is read from."""
    return [*scene.path.rglob("*")] if scene.path.is_dir() else [scene.path]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_runs(path, shared, teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSEG_DATA", str(shared))
    monkeypatch.setenv("GEOSEG_TEACHER", str(teacher))
    monkeypatch.setenv("GEOSEG_PREPARED", str(tmp_path / "prepared"))
    script = CONFIGS / f"{path.stem.replace('-', '_')}.py"
    if script.exists():
        monkeypatch.setattr(sys, "argv", [script.name, str(tmp_path / "prepared")])
        runpy.run_path(str(script), run_name="__main__")
    short = {"steps": 3, "warmup": 1, "every": 3}
    whole = load_config(path)
    options = {k: v for k, v in whole.network_options.items() if k != "encoder_weights"}
    config: TrainConfig = replace(
        whole,
        **short,
        scenes=thinned(whole),
        batch=2,
        pool=min(whole.pool, 6),
        cross_validation={},
        network_options=options,
        stages=tuple(
            {**{k: v for k, v in stage.items() if k != "scenes"}, **short, "batch": 2}
            for stage in whole.stages
        ),
    )
    card = train(config, tmp_path / "model", threads=1)
    assert card.classes == whole.classes and card.bands == whole.bands
    assert read_model(tmp_path / "model").card == card
    scene = next(s for s in config.scenes if not s.derive)
    numbers = {"scale": 1e-4, "offset": 0.0} if whole.quantity == "reflectance" else {}
    made = predict(
        scene.path,
        tmp_path / "map.tif",
        model=tmp_path / "model",
        no_vector=True,
        band_names=scene.band_names or None,
        clouds="none",
        allow_vrt="any",  # several images joined
        **numbers,
    )
    with open_class_raster(made.raster) as raster:
        assert {c.name for c in whole.classes} <= set(raster.legend.values())
