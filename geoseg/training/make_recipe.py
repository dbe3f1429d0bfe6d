"""A recipe from images and labels alone: what the user did not say is looked up in the data."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.cards.legend import ClassInfo
from geoseg.core.jsontext import builtin_fields
from geoseg.errors import RadiometryError, SceneError, TrainingError, UsageError
from geoseg.labels.classes import spelled
from geoseg.labels.vector_files import class_column, is_vector, read_features
from geoseg.rasters.class_raster import open_class_raster
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.scene import RASTER_SUFFIXES, Scene, gdal_options, open_scene, opened
from geoseg.scene.sensors import common_name
from geoseg.scene.sources import Rules
from geoseg.training.held_out import quiet
from geoseg.training.pairing import find_files, pair
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import load_document, make_config
from geoseg.training.targets import CLASS_COLUMNS
from geoseg.zoo import find_model

__all__ = ["TrainOptions", "make_recipe"]

#: Colours of classes that have none: those of Dynamic World first, then ColorBrewer's Set3.
COLORS = (
    "#419BDF", "#397D49", "#E49635", "#C4281B", "#A59B8F", "#88B053", "#DFC35A", "#7A87C6",
    "#B39FE1", "#8DD3C7", "#FFFFB3", "#BEBADA", "#FB8072", "#80B1D3", "#FDB462", "#B3DE69",
    "#FCCDE5", "#BC80BD", "#CCEBC5", "#FFED6F",
)  # fmt: skip
#: From so many images on, whole images are held out instead of blocks of them.
MANY = 10
FOLDS = 5
STEPS = 500


@dataclass(frozen=True)
class TrainOptions:
    """What the user may say; each field is the command line's option of the same name.

    Attributes:
        config: a recipe's file; without one, images and labels are needed.
        images: files, folders or globs of scenes.
        labels: files, folders or globs of labels.
        column: of vector labels, with the class.
        classes: ``NAME`` or ``NAME=VALUE``: the legend, and what stands for a class in the labels
            (an id, a colour ``#RRGGBB``, or a text in the column).
        ignore: labels that say nothing.
        radius: metres around points and lines.
        bands: as for ``geoseg predict``.
        scale: quantity per number.
        offset: quantity at number 0.
        src_nodata: the number that means "not measured".
        input_root: folders into which files may point, besides their own.
        allow_vrt: ``any`` lets them point anywhere; see
            :class:`geoseg.prediction.options.PredictOptions`.
        gsd: metres per pixel that the network works at; images of another gsd are resampled to
            it, and those without a place on Earth are taken as being of it.
        network: a name of :func:`geoseg.networks.list_models`.
        encoder: of the network.
        encoder_weights: pretrained ones, see :func:`geoseg.networks.create_model`.
        teacher: a model whose probabilities are learned where there are no labels.
        split: ``blocks``, ``files`` or ``random``.
        block: side of a block, px.
        margin: px around held-out blocks.
        fold: ``I/K``: the places are dealt into K parts, and part I is held out.
        steps: of the optimizer.
        batch: chips in one forward pass.
        chip: their side, px.
        learning_rate: the highest.
        loss: such as ``ce+0.5*dice``.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        seed: of everything random.
        changes: ``KEY=VALUE`` for any key of a recipe, in TOML; ``augmentation.gain=0.1``.
    """

    config: str | Path | None = None
    images: Sequence[str | Path] = ()
    labels: Sequence[str | Path] = ()
    column: str | None = None
    classes: Sequence[str] = ()
    ignore: Sequence[str] = ()
    radius: float = 0.0
    bands: str | None = None
    scale: float | None = None
    offset: float | None = None
    src_nodata: float | None = None
    input_root: Sequence[str | Path] = ()
    allow_vrt: str = "local"
    gsd: float | None = None
    network: str | None = None
    encoder: str | None = None
    encoder_weights: str | None = None
    teacher: str | None = None
    split: str | None = None
    block: int | None = None
    margin: int | None = None
    fold: str | None = None
    steps: int | None = None
    batch: int | None = None
    chip: int | None = None
    learning_rate: float | None = None
    loss: str | None = None
    precision: str | None = None
    seed: int | None = None
    changes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without data.

        Raises:
            UsageError: options are missing or contradict each other.
        """
        builtin_fields(self)
        data: tuple[str, ...] = ("images", "labels", "column", "classes", "ignore", "radius")
        data += ("bands", "scale", "offset", "src_nodata", "gsd", "input_root", "allow_vrt")
        default = {f.name: f.default for f in fields(self)}
        given = [name for name in data if getattr(self, name) not in (default[name], (), [])]
        if self.config is not None and Path(self.config).suffix.lower() in RASTER_SUFFIXES:
            raise UsageError(
                f"{self.config} is no recipe but an image; the shell may have taken a glob apart: "
                f"quote it (--images 'scenes/*.tif'), or repeat --images"
            )
        if self.config is not None and given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} is for training without a recipe, and "
                f"{self.config} is one; write it there"
            )
        for name in ("block", "margin"):
            if getattr(self, name) is not None and self.split in ("files", "random"):
                raise UsageError(
                    f"--{name} is of the split by blocks and --split is {self.split}; leave one of "
                    f"them out"
                )
        if self.config is None and not self.images:
            raise UsageError("give a recipe, or --images and --labels")
        if self.config is None and not self.labels and self.teacher is None:
            raise UsageError(
                "give --labels with what is there, or --teacher with a model that knows"
            )

    @property
    def rules(self) -> Rules:
        """What the files may point to."""
        return Rules.of(self.input_root, self.allow_vrt)


def make_recipe(options: TrainOptions, output: str | Path) -> TrainConfig:
    """The recipe of a run: the user's file, or one made from images and labels.

    Args:
        options: what the user says.
        output: the model folder to be; it gives a model its name.

    Returns:
        The recipe.

    Raises:
        GeosegError: something is missing, or does not fit.
    """
    if options.config is not None:
        path = Path(options.config)
        document, base, where = load_document(path), path.resolve().parent, str(path)
    else:
        document, base, where = _from_data(options, Path(output)), Path.cwd(), "the options"
    _override(document, options)
    for text in options.changes:
        _merge(document, _parse(text))
    return make_config(document, base, where)


def _override(document: dict[str, Any], options: TrainOptions) -> None:
    """Options that go before the recipe's keys."""
    keys = ("network", "teacher", "steps", "batch", "chip", "learning_rate", "loss", "precision")
    for key in (*keys, "seed"):
        if getattr(options, key) is not None:
            document[key] = getattr(options, key)
    if options.teacher is not None and Path(options.teacher).exists():
        document["teacher"] = str(Path(options.teacher).resolve())
    network = dict(document.get("network_options", {}))
    if options.network is not None and options.config is not None:
        network = {}  # those of the recipe's own network
    for key in ("encoder", "encoder_weights"):
        if getattr(options, key) is not None:
            network[key] = getattr(options, key)
    document["network_options"] = network
    split = dict(document.get("split", {}))
    for key, value in (("by", options.split), ("block", options.block), ("margin", options.margin)):
        if value is not None:
            split[key] = value
    if options.fold is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", options.fold)
        if match is None:
            raise UsageError(f"--fold is {options.fold!r}; give I/K, such as 1/5")
        split["fold"], split["folds"] = int(match[1]), int(match[2])
    document["split"] = split


def _parse(text: str) -> dict[str, Any]:
    """``KEY=VALUE`` as TOML; what is no TOML value is text.

    Raises:
        UsageError: there is no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.-]+", key.strip()):
        raise UsageError(f"--set {text!r}: give KEY=VALUE, such as ema=0.99 or augmentation.mix=0")
    try:
        tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--set {text!r}: {key!r} is no key of a recipe ({error})") from error
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {_quoted(value.strip())}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _merge(document: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes into a document, table by table."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(document.get(key), Mapping):
            inner = dict(document[key])
            _merge(inner, value)
            document[key] = inner
        else:
            document[key] = value


# From images and labels


def _from_data(options: TrainOptions, output: Path) -> dict[str, Any]:
    """A recipe's document from images and labels."""
    rules = options.rules
    images, given = (find_files(map(Path, files)) for files in (options.images, options.labels))
    pairs = pair(images, given, rules)
    with quiet():
        scenes = [open_scene(path, rules) for path, _ in pairs]
    labels = sorted({path for _, found in pairs for path in found})
    _check_raster_options(labels, options)
    bands, spec = _bands(scenes, options.bands)
    quantity = _quantity(scenes, bands, spec, options)
    gsd, gsd_range = _gsd(scenes, options.gsd)
    legend, values = _legend(labels, options)
    if len(legend) < 2:
        raise TrainingError(
            f"the labels hold one class, {legend[0].name}: a network that knows no other is always "
            f"right; label something else, too, or name a second class with --class"
        )
    shortest = min(min(s.grid.height, s.grid.width) for s in scenes)
    area = sum(s.grid.height * s.grid.width for s in scenes)
    chip = options.chip or int(np.clip(shortest // 4 // 32 * 32, 64, 256))
    steps = options.steps or STEPS
    blocks = len(scenes) < MANY or options.block is not None or options.margin is not None
    by = options.split or ("blocks" if blocks else "files")
    # About five blocks a part.
    block = int(np.clip(round(math.sqrt(area / (5 * FOLDS)) / 16) * 16, 32, 1024))
    number = quantity == "number"
    light = {"gain": 0.0, "band_offset": 0.02, "contrast": 0.2, "brightness": 0.05}
    return {
        "name": _slug(output.name),
        "description": f"Classes {', '.join(c.name for c in legend)} from {', '.join(bands)}.",
        "provenance": (
            f"Taught by geoseg train on {len(pairs)} images with "
            f"{'labels' if labels else 'a teacher'}; recipe.json in the run's folder has it all."
        ),
        "bands": list(bands),
        "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in legend],
        "label_values": values,
        "quantity": quantity,
        "gsd": gsd,
        "gsd_range": list(gsd_range),
        "scenes": [
            {
                "path": str(path.resolve()),
                "labels": [str(p.resolve()) for p in found],
                **({"column": options.column} if options.column else {}),
                **({"ignore_label": _ignored(options.ignore)} if options.ignore else {}),
                "radius": options.radius,
                **({"input_root": list(rules.roots)} if rules.roots else {}),
                "allow_vrt": rules.vrt,
                "bands": list(spec),
                **{
                    key: getattr(options, key)
                    for key in ("scale", "offset", "src_nodata")
                    if getattr(options, key) is not None
                },
            }
            for path, found in pairs
        ],
        "split": {"by": by, "block": block, "margin": min(max(block // 6, 1), 64), "folds": FOLDS},
        **_network(options),
        "encoder_rate": 0.3 if options.encoder_weights else 1.0,
        "loss": "ce+0.5*dice" if labels else "soft_ce",
        "chip": chip,
        "steps": steps,
        "warmup": min(100, steps // 10),
        "every": max(steps // 10, 1),
        # The average reaches over a tenth of the run.
        "ema": float(np.clip(1 - 10 / steps, 0.9, 0.999)),
        "inference": {"size": max(256, chip), "overlap": max(256, chip) // 4},
        "augmentation": {
            "zoom": [0.75, 1.5],
            "band_gain": 0.05,
            "noise": 0.01,
            "mix": 0.3,
            **(light if number else {"gain": 0.1}),
        },
    }


def _network(options: TrainOptions) -> dict[str, Any]:
    """The network where the user names none.

    A small U-Net, which learns most from few labels and no pretrained weights; with an encoder, a
    DeepLabV3+ with a light decoder.
    """
    if options.network:
        return {}
    if options.encoder is None and options.encoder_weights is None:
        return {"network": "small_unet"}
    # The encoder's name goes before this one.
    network = {"encoder": "mobilenetv3_small_100", "channels": 64}
    return {"network": "deeplabv3plus", "network_options": network}


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")
    return slug if re.fullmatch(r"[a-z][a-z0-9._-]+[a-z0-9]", slug) else f"model-{slug or 'new'}"


def _ignored(texts: Sequence[str]) -> list[int | str]:
    return [int(text) if re.fullmatch(r"-?\d+", text) else text for text in texts]


def _bands(scenes: Sequence[Scene], given: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's bands by name, and what the scenes' bands are to be chosen by.

    Raises:
        TrainingError: the scenes hold other bands than the first one.
    """
    first = scenes[0]
    names = [band.name for band in first.bands]
    if given is not None:
        spec = tuple(text.strip() for text in given.split(",") if text.strip())
        if all(name is None for name in names) and not all(t.isdigit() for t in spec):
            return tuple(common_name(text) or text for text in spec), spec
        by_label = {str(i): b for i, b in enumerate(first.bands, start=1)}
        by_label |= {b.label: b for b in first.bands}
        by_label |= {b.name: b for b in first.bands if b.name}
        unknown = [text for text in spec if text not in by_label]
        if unknown:
            raise UsageError(
                f"--bands {unknown[0]!r} is no band of {first.name}; it has "
                f"{', '.join(map(str, first.bands))}"
            )
        return tuple(by_label[t].name or f"band{t}" for t in spec), spec
    if all(name is None for name in names):
        for scene in scenes:
            if len(scene.bands) != len(names):
                raise TrainingError(
                    f"{first.name} has {len(names)} bands without names and {scene.name} "
                    f"{len(scene.bands)}; give --bands with the numbers of those to use"
                )
        numbers = tuple(str(i) for i in range(1, len(names) + 1))
        return tuple(f"band{i}" for i in numbers), numbers
    found = tuple(dict.fromkeys(name for name in names if name is not None))
    for scene in scenes:
        missing = set(found) - {band.name for band in scene.bands}
        if missing:
            raise TrainingError(
                f"{scene.name} has no band {', '.join(sorted(missing))}, which {first.name} has; "
                f"give --bands with those that all images have"
            )
    return found, ()


def _quantity(
    scenes: Sequence[Scene], bands: Sequence[str], spec: Sequence[str], options: TrainOptions
) -> str:
    """Reflectance where all scenes tell their unit, else the numbers as they are."""
    if options.teacher is not None:
        return find_model(options.teacher).card.quantity
    try:
        for scene in scenes:
            chosen = scene.choose(bands, ",".join(spec) or None)
            find_radiometry(
                scene, chosen, "reflectance", scale=options.scale, offset=options.offset
            )
    except RadiometryError:
        return "number"
    return "reflectance"


def _gsd(scenes: Sequence[Scene], given: float | None) -> tuple[float, tuple[float, float]]:
    """The model's gsd and the range around those of the scenes.

    Raises:
        UsageError: no scene has one, and the user gives none.
    """
    known = [gsd for scene in scenes if scene.grid.gsd for gsd in scene.grid.gsd]
    if given is None and not known:
        raise UsageError(
            f"{scenes[0].name} has no CRS, so the size of its pixels is unknown; give --gsd in "
            f"metres"
        )
    middle = given if given is not None else float(np.median(known))
    low, high = (min([middle, *known]), max([middle, *known])) if given is None else (middle,) * 2
    return float(f"{middle:.4g}"), (float(f"{0.75 * low:.3g}"), float(f"{1.33 * high:.3g}"))


# The legend


def _legend(
    labels: Sequence[Path], options: TrainOptions
) -> tuple[list[ClassInfo], dict[str, Any]]:
    """Classes and what stands for them in the labels.

    Raises:
        UsageError: the labels don't tell, and the user doesn't either.
    """
    if options.classes:
        return _given_legend(options.classes)
    if not labels:
        return list(find_model(str(options.teacher)).card.classes), {}
    if all(is_vector(path) for path in labels):
        return _vector_legend(labels, options)
    rasters = [path for path in labels if not is_vector(path)]
    return _raster_legend(rasters, options)


def _check_raster_options(labels: Sequence[Path], options: TrainOptions) -> None:
    """Refuse options of vector labels where all labels are rasters: they would do nothing.

    Raises:
        UsageError: it is so.
    """
    if not labels or any(is_vector(path) for path in labels):
        return
    for name, value in (("column", options.column), ("radius", options.radius)):
        if value:
            raise UsageError(
                f"--{name} is of polygons, points and lines, and {labels[0].name} is a raster; "
                f"leave it out"
            )
    texts = [text for text in options.ignore if not re.fullmatch(r"-?\d+", text)]
    if texts:
        raise UsageError(
            f"--ignore is {texts[0]!r} and {labels[0].name} is a raster; labels of a raster are "
            f"ignored by id"
        )


def _given_legend(texts: Sequence[str]) -> tuple[list[ClassInfo], dict[str, Any]]:
    classes, values = [], {}
    for number, text in enumerate(texts, start=1):
        name, _, value = (part.strip() for part in text.partition("="))
        if not name:
            raise UsageError(f"--class {text!r}: give NAME or NAME=VALUE")
        number_given = re.fullmatch(r"\d+", value)
        # An id in the labels is the id in the map, too.
        id_ = int(value) if number_given and int(value) <= 254 else number
        color = value if re.fullmatch(r"#[0-9A-Fa-f]{6}", value) else COLORS[number % len(COLORS)]
        classes.append(ClassInfo(id_, name, color))
        if value:
            values[name] = int(value) if number_given else value
    ids = [c.id for c in classes]
    if len(set(ids)) < len(ids):
        raise UsageError(
            f"--class gives the ids {ids}; give an id in the labels to each class or to none"
        )
    return classes, values


def _vector_legend(
    labels: Sequence[Path], options: TrainOptions
) -> tuple[list[ClassInfo], dict[str, Any]]:
    """One class for each value of the column, in alphabetical order."""
    kinds = [p + k for k in ("Point", "LineString", "Polygon") for p in ("", "Multi")]
    found: dict[str, str] = {}
    left_out = {spelled(text) for text in options.ignore}
    for path in labels:
        frame = read_features(str(path), options.column, kinds, "polygon", options.rules)
        if options.radius == 0 and not frame.geom_type.str.endswith("Polygon").all():
            raise UsageError(
                f"{path} holds points or lines, which have no area; say with --radius how many "
                f"metres around them are of their class"
            )
        column = class_column(str(path), frame, options.column, CLASS_COLUMNS)
        for value in frame[column]:
            text = spelled(value)
            if text and text not in left_out:
                found.setdefault(text, str(value).strip())
    if not 1 <= len(found) <= 255:
        raise UsageError(
            f"the labels' column holds {len(found)} different values; a legend has 1 to 255 "
            f"classes: choose another with --column, or name the classes with --class"
        )
    if all(re.fullmatch(r"\d{1,3}", text) and int(text) <= 254 for text in found):
        ids = sorted(int(text) for text in found)
        legend = [ClassInfo(i, f"class {i}", COLORS[n % len(COLORS)]) for n, i in enumerate(ids)]
        return legend, {c.name: str(c.id) for c in legend}
    ordered = sorted(found)
    return [
        ClassInfo(n, found[text], COLORS[n % len(COLORS)])
        for n, text in enumerate(ordered, start=1)
    ], {}


def _raster_legend(
    labels: Sequence[Path], options: TrainOptions
) -> tuple[list[ClassInfo], dict[str, Any]]:
    """The legend in the rasters' tags, or one class for each id in them."""
    left_out = {int(text) for text in options.ignore if re.fullmatch(r"-?\d+", text)}
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    held: set[int] = set()
    for path in labels:
        with quiet(), gdal_options(str(path)), opened(str(path), options.rules) as dataset:
            if dataset.count >= 3:
                raise UsageError(
                    f"the labels {path.name} are a picture of {dataset.count} bands; say which "
                    f"colour is which class: --class building=#3C1098 --class ..."
                )
            try:
                table = dataset.colormap(1)
            except ValueError:
                table = {}
        with quiet(), open_class_raster(path, rules=options.rules) as raster:
            names |= raster.legend
            for strip in raster.strips():
                held |= set(np.unique(strip.ids[strip.valid]).tolist())
        colors |= {i: "#{:02X}{:02X}{:02X}".format(*rgba[:3]) for i, rgba in table.items()}
    ids = sorted((set(names) or held) - left_out)
    if not ids or ids[0] < 0 or ids[-1] > 254 or len(held) > 255:
        raise SceneError(
            f"the labels hold {sorted(held)[:8]}; class ids are 0 to 254, and 255 is nodata: name "
            f"the classes with --class NAME=ID, or leave ids out with --ignore"
        )
    return [
        ClassInfo(i, names.get(i, f"class {i}"), colors.get(i, COLORS[n % len(COLORS)]))
        for n, i in enumerate(ids)
    ], {}
