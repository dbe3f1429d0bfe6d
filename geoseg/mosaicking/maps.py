"""The maps of a mosaic: what each is, and that they have one legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rasterio.enums import ColorInterp, MaskFlags

from geoseg.cards.legend import ClassInfo
from geoseg.core.workers import Stop
from geoseg.errors import SceneError, UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.mosaicking.finding import confidence_beside, date_of
from geoseg.polygons.inputs import legend_of
from geoseg.rasters.class_raster import open_class_raster
from geoseg.rasters.writing import NODATA
from geoseg.scene.files import opened
from geoseg.scene.sources import Rules

__all__ = ["MapFile", "check_legends", "differences", "in_order", "look_at", "named", "oddities"]

#: Names or differences that a message has at most.
SHOWN = 3
#: The sides of pixels of one size may differ by this: a UTM zone's scale does, along and across.
SAME_SIZE = 1.03
#: What a map and the raster of its confidence have in common, if one run made them.
RUN_TAGS = ("GEOSEG_SCENE", "GEOSEG_MODEL_SHA256")


@dataclass(frozen=True)
class MapFile:
    """A map.

    Attributes:
        path: of the file.
        grid: where its pixels lie.
        classes: the legend.
        not_sure: the one of their ids that stands for no class, for want of confidence; or None.
        model: name of the model that made it, by its tags; "" where they don't say.
        model_sha256: of the model's files; "" likewise.
        plain: whether nodata is 255 and nothing else masks a pixel.
        date: when the scene was taken; None where that is not known.
        confidence: path of the raster of the winning probability, or None.
    """

    path: str
    grid: PixelGrid
    classes: tuple[ClassInfo, ...]
    model: str = ""
    model_sha256: str = ""
    plain: bool = True
    date: datetime | None = None
    confidence: str | None = None
    not_sure: int | None = None


def look_at(path: str, rules: Rules, *, confidence: bool) -> MapFile:
    """Look at a map's header, and at what lies beside it.

    Args:
        path: of a class raster.
        rules: what it may point to.
        confidence: whether the raster of its confidence is needed.

    Raises:
        SceneError: it is no class raster with a legend, or what lies beside it is wrong.
    """
    with open_class_raster(path, rules=rules) as raster:
        dataset, tags = raster.dataset, raster.dataset.tags()
        if dataset.dtypes[0] != "uint8":
            raise SceneError(
                f"{raster.path} is of {dataset.dtypes[0]}; a mosaic is made of class rasters of "
                f"uint8, as geoseg predict writes them: convert it, so that what is nodata becomes "
                f"{NODATA} (gdalwarp -ot Byte -dstnodata {NODATA} {Path(path).name} converted.tif)"
            )
        if not raster.legend:
            raise SceneError(
                f"{raster.path} has no names of classes in its tags, so whether it has the classes "
                f"of the others is unknown; give class rasters as geoseg predict writes them"
            )
        classes = tuple(legend_of(raster, Stop()))
        if any(c.id >= NODATA for c in classes):
            raise SceneError(
                f"{raster.path}: its legend has the class {max(c.id for c in classes)}; a mosaic's "
                f"classes are 0 to {NODATA - 1}, and {NODATA} is nodata"
            )
        grid = PixelGrid.of(dataset)
        plain = dataset.nodata == NODATA and dataset.mask_flag_enums[0] == [MaskFlags.nodata]
        plain &= ColorInterp.alpha not in dataset.colorinterp
    found = confidence_beside(path) if confidence else None
    if found is not None:
        _check_confidence(found, path, grid, [tags.get(tag) for tag in RUN_TAGS], rules)
    return MapFile(
        path,
        grid,
        classes,
        tags.get("GEOSEG_MODEL", ""),
        tags.get("GEOSEG_MODEL_SHA256", ""),
        plain,
        date_of(path),
        found,
        raster.not_sure,
    )


def _check_confidence(
    path: str, of: str, grid: PixelGrid, run: Sequence[str | None], rules: Rules
) -> None:
    """See that a raster of confidence is a map's.

    Raises:
        SceneError: it isn't.
    """
    with opened(path, rules) as dataset:
        tags = dataset.tags()
        scaled = dataset.dtypes[0] == "float32" or dataset.scales[0] != 1
        if dataset.count != 1 or not scaled or not PixelGrid.of(dataset).same_pixels(grid):
            raise SceneError(
                f"{path} is not the confidence of {of}: that has one band of float32, or of uint8 "
                f"with a scale tag, on the same pixels; give the one of the same run"
            )
        if [tags.get(tag) for tag in RUN_TAGS] != list(run):
            raise SceneError(
                f"{path} is of another scene or model than {of}, by their tags "
                f"({', '.join(RUN_TAGS)}); give the one of the same run"
            )


def check_legends(maps: Sequence[MapFile]) -> None:
    """See that all maps have the same classes.

    Raises:
        UsageError: two differ in an id or a name.
    """
    first = maps[0]
    for other in maps[1:]:
        found = differences(first.classes, other.classes)
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise UsageError(
                f"{first.path} and {other.path} have different classes: "
                f"{'; '.join(found[:SHOWN])}{more}. A mosaic's maps have the same ids and names: "
                f"predict them with one model{_also(first, other)}"
            )


def _also(first: MapFile, other: MapFile) -> str:
    """Name what else maps have to share where only one of two has pixels that are not sure."""
    same = (first.not_sure is None) == (other.not_sure is None)
    return "" if same else ", and all with --min-confidence or none"


def differences(one: Sequence[ClassInfo], other: Sequence[ClassInfo]) -> list[str]:
    """Say in which classes two legends differ; colours don't count.

    >>> differences([ClassInfo(1, "water", "#0000FF")], [ClassInfo(1, "trees", "#0000FF")])
    ["1 is 'water' in the first and 'trees' in the second"]
    """
    a, b = ({c.id: c.name for c in legend} for legend in (one, other))
    found = []
    for i in sorted({*a, *b}):
        if a.get(i) != b.get(i):
            names = (repr(legend[i]) if i in legend else "no class" for legend in (a, b))
            found.append("{} is {} in the first and {} in the second".format(i, *names))
    return found


def in_order(maps: Sequence[MapFile], top: str) -> list[MapFile]:
    """Sort maps by rank, the one on top first.

    Args:
        maps: in the order given.
        top: one of :data:`geoseg.mosaicking.options.TOPS`.

    Raises:
        UsageError: the rule needs what some maps don't have.
    """
    if top == "first":
        return list(maps)
    if top == "last":
        return list(reversed(maps))
    undated = [m.path for m in maps if m.date is None]
    if top == "newest" and undated:
        raise UsageError(
            f"{named(undated)} {_has(undated)} no date, so which map is the newest is unknown; it "
            f"is taken from properties.datetime of the item.json beside a map, as in an archive: "
            f"write that, or give --top first or last (the order given) or --top frequent"
        )
    lacking = [m.path for m in maps if m.confidence is None]
    if top == "confident" and lacking:
        raise UsageError(
            f"{named(lacking)} {_has(lacking)} no raster of confidence, which --top confident "
            f"needs beside each map (confidence.tif beside a landcover.tif, else the one that the "
            f"map's report names): predict with --confidence (batch: --also confidence), or choose "
            f"another --top"
        )
    if undated:
        return list(maps)
    return sorted(maps, key=_age)


def _age(one: MapFile) -> float:
    assert one.date is not None
    return -(one.date - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def named(paths: Sequence[str]) -> str:
    """Name some paths, and count the rest.

    >>> named(["a", "b"]), named(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    if len(paths) > SHOWN:
        return f"{', '.join(paths[:SHOWN])} and {len(paths) - SHOWN} more"
    return " and ".join([", ".join(paths[:-1]), paths[-1]] if len(paths) > 1 else paths)


def _has(paths: Sequence[str]) -> str:
    return "has" if len(paths) == 1 else "have"


def oddities(maps: Sequence[MapFile]) -> list[str]:
    """Report what maps of one mosaic rarely differ in."""
    found = []
    models = _groups(maps, lambda m: m.model_sha256)
    if len(models) > 1:
        shown = "; ".join(
            f"{group[0].model or 'unknown'} ({named([m.path for m in group])})"
            for group in models[:SHOWN]
        )
        found.append(
            f"the maps were made by {len(models)} models, so borders between scenes may be borders "
            f"between models: {shown}"
        )
    sizes = _sizes(maps)
    if len(sizes) > 1:
        shown = "; ".join(
            f"{min(group[0].grid.gsd or (0.0,)):.3g} m ({named([m.path for m in group])})"
            for group in sizes[:SHOWN]
        )
        found.append(f"the maps have pixels of {len(sizes)} sizes: {shown}")
    colours = _groups(maps, lambda m: str(sorted((c.id, c.color) for c in m.classes)))
    if len(colours) > 1:
        found.append(f"the maps have different colours; those of {maps[0].path} are taken")
    return found


def _sizes(maps: Sequence[MapFile]) -> list[list[MapFile]]:
    """Put maps together whose pixels have the same size on the ground, the finest first."""
    groups: list[list[MapFile]] = []
    last = 0.0
    measured = [(min(m.grid.gsd), m) for m in maps if m.grid.gsd]
    for gsd, one in sorted(measured, key=lambda pair: pair[0]):
        if gsd > last * SAME_SIZE:
            groups.append([])
            last = gsd
        groups[-1].append(one)
    return groups


def _groups(maps: Sequence[MapFile], key: Callable[[MapFile], str]) -> list[list[MapFile]]:
    """Put those together that have the same key, in the order of the first of each."""
    groups: dict[str, list[MapFile]] = {}
    for one in maps:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())
