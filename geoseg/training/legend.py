"""The classes of a recipe that is made from the data, and what stands for them in the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.cards.legend import ClassInfo
from geoseg.core.gdal import gdal_options
from geoseg.errors import SceneError, UsageError
from geoseg.labels.classes import spelled
from geoseg.labels.vector_files import class_column, is_vector, read_features
from geoseg.rasters.class_raster import open_class_raster
from geoseg.scene.files import opened
from geoseg.training.held_out import quiet
from geoseg.training.options import TrainOptions
from geoseg.training.vector_labels import CLASS_COLUMNS
from geoseg.zoo import find_model

__all__ = ["check_label_options", "find_legend"]

#: Colours of classes that have none: those of Dynamic World first, then ColorBrewer's Set3.
COLORS = (
    "#419BDF", "#397D49", "#E49635", "#C4281B", "#A59B8F", "#88B053", "#DFC35A", "#7A87C6",
    "#B39FE1", "#8DD3C7", "#FFFFB3", "#BEBADA", "#FB8072", "#80B1D3", "#FDB462", "#B3DE69",
    "#FCCDE5", "#BC80BD", "#CCEBC5", "#FFED6F",
)  # fmt: skip


def find_legend(
    labels: Sequence[Path], options: TrainOptions
) -> tuple[list[ClassInfo], dict[str, Any]]:
    """Find the classes: those that the user names, else the teacher's or those in the labels.

    Args:
        labels: all label files; empty where only a teacher knows.
        options: what the user says.

    Returns:
        The legend, and class name -> what stands for it in the labels, where that is not its id.

    Raises:
        UsageError: neither the user nor the labels say what the classes are.
        SceneError: the labels of a raster are no class ids.
    """
    if options.classes:
        return _given_legend(options.classes)
    if not labels:
        return list(find_model(str(options.teacher)).card.classes), {}
    if all(is_vector(path) for path in labels):
        return _vector_legend(labels, options)
    rasters = [path for path in labels if not is_vector(path)]
    return _raster_legend(rasters, options)


def check_label_options(labels: Sequence[Path], options: TrainOptions) -> None:
    """Refuse options of vector labels where all labels are rasters: they would do nothing.

    Args:
        labels: all label files.
        options: what the user says.

    Raises:
        UsageError: such an option is given.
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
    """Read ``NAME`` and ``NAME=VALUE``."""
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
    """Make a class of each value of the column, in alphabetical order."""
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
    """Read the legend in the rasters' tags, or make a class of each id in them."""
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
