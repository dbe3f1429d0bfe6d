"""Which assets of a STAC item are a scene's bands, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geoseg.errors import SceneError, UsageError
from geoseg.scene.item import Asset, AssetBand, Item
from geoseg.scene.sensors import Sensor, band_code, band_name, common_name, detect_sensor

__all__ = ["Choice", "choose_assets", "declared_name", "is_raster", "sensor_of"]

#: Properties that hold a product's own name, which says more than the platform.
PRODUCTS = (
    *("s2:product_uri", "sentinel:product_id", "s2:granule_id", "landsat:product_id"),
    "landsat:scene_id",
)
#: What is read, by media type, or by the address where there is none; the best first.
MEDIA = (
    re.compile(r"image/(tiff|geotiff|x-geotiff|vnd\.stac\.geotiff)|\.tiff?$"),
    re.compile(r"image/jp2|image/jpeg2000|\.(jp2|j2k)$"),
)
#: Of assets that are no bands, and those of which one is for bands.
OTHER_ROLES = {"thumbnail", "overview", "metadata"}
BAND_ROLES = {"data", "reflectance", "visual"}
#: Keys of pictures for the screen, whose role is data in some catalogues.
PICTURES = {"visual", "overview", "preview", "thumbnail", "rendered_preview", "tci", "true_color"}
#: Why an asset is no band.
NO_NAME = "it has no name of a band that geoseg knows"
#: That are opened, each over a network; the largest archives have some twenty.
MOST = 100
_RESOLUTION = re.compile(r"[_-](\d+)m$", re.I)


@dataclass(frozen=True)
class Choice:
    """The assets that a scene is made of.

    Attributes:
        assets: in the item's order, or in the user's.
        unused: the others, each with the reason.
    """

    assets: tuple[Asset, ...]
    unused: tuple[str, ...]


def texts_of(item: Item) -> tuple[str, ...]:
    """What an item says of its product and its sensor, the most telling first."""
    products = [value for key in PRODUCTS if (value := item.said(key))]
    platform = [value for key in ("platform", "constellation") if (value := item.said(key))]
    collection = [item.collection] if item.collection else []
    return tuple(dict.fromkeys([item.id, *products, *collection, *platform]))


def sensor_of(item: Item) -> Sensor | None:
    """Find the sensor that an item speaks of, or None."""
    bands = [band for asset in item.assets.values() for band in asset.bands]
    names = [*item.assets, *(band.name for band in bands if band.name)]
    return detect_sensor(texts_of(item), [c for name in names if (c := band_code(name))])


def declared_name(band: AssetBand, key: str | None, sensor: Sensor | None) -> str | None:
    """Find the band that an item means, or None where it isn't known.

    Args:
        band: as the item describes it.
        key: of its asset, where it is the only band of that.
        sensor: without which codes mean nothing.
    """
    by_common = common_name(band.common) if band.common else None
    return by_common or next(
        (name for said in (band.name, key) if said and (name := band_name(said, sensor))), None
    )


def choose_assets(item: Item, sensor: Sensor | None, wanted: Sequence[str] = ()) -> Choice:
    """Choose the assets that are a scene's bands.

    Files of one band that has a name come first, and of the same name GeoTIFF before JPEG 2000 and
    small pixels before large ones. Files of several bands follow where they hold more than these,
    and a picture for the screen where there is nothing else.

    Args:
        item: that names them.
        sensor: of it, or None.
        wanted: keys that the user chose; none for all that are bands.

    Raises:
        UsageError: the user names an asset that isn't there.
        SceneError: there is none, or it isn't clear which one is meant.
    """
    if wanted:
        missing = [key for key in wanted if key not in item.assets]
        if missing:
            raise UsageError(
                f"--asset {missing[0]}: the item {item.id} has no such asset; it has "
                f"{', '.join(item.assets)}"
            )
        others = (f"{key}: not among --asset" for key in item.assets if key not in wanted)
        return Choice(tuple(item.assets[key] for key in dict.fromkeys(wanted)), tuple(others))
    unused = {key: why for key, asset in item.assets.items() if (why := _unfit(asset))}
    files = [asset for key, asset in item.assets.items() if key not in unused]
    named: dict[str, list[Asset]] = {}
    stacks: list[Asset] = []
    for asset in files:
        name = _only_name(asset, sensor)
        if name is not None:
            named.setdefault(name, []).append(asset)
        elif len(asset.bands) == 1 and (asset.bands[0].name or asset.bands[0].common):
            unused[asset.key] = NO_NAME
        else:
            stacks.append(asset)
    singles = [asset for same in named.values() for asset in _best(same, unused)]
    chosen = [*singles, *_stacks(item, stacks, set(named), sensor, unused)]
    if not chosen:
        listed = "; ".join(f"{key}: {why}" for key, why in unused.items()) or "it has none"
        raise SceneError(
            f"{item.href or item.id}: no asset of the item is a band of a scene ({listed}); choose "
            f"assets with --asset KEY, or give the rasters themselves"
        )
    if len(chosen) > MOST:
        raise SceneError(
            f"{item.href or item.id}: {len(chosen)} assets of the item may be bands, and at most "
            f"{MOST} are opened; choose assets with --asset KEY"
        )
    taken = {asset.key for asset in chosen}
    ordered = tuple(asset for key, asset in item.assets.items() if key in taken)
    return Choice(ordered, tuple(f"{key}: {why}" for key, why in unused.items()))


def _unfit(asset: Asset) -> str:
    """Why an asset is no band, or "" where it may be one or more."""
    roles = set(asset.roles)
    if _medium(asset) is None:
        what = f"its type is {asset.media[:60]}" if asset.media else "its type is not given"
        return f"{what}, and bands are GeoTIFF or JPEG 2000"
    if found := roles & OTHER_ROLES:
        return f"its role is {min(found)}"
    if roles and not roles & BAND_ROLES:
        return f"its role is {', '.join(sorted(roles))[:60]}, not data"
    return ""


def is_raster(asset: Asset) -> bool:
    """Whether an asset is, by what the item says, a kind of file that bands are read from."""
    return _medium(asset) is not None


def _medium(asset: Asset) -> int | None:
    """The place of an asset's kind of file in :data:`MEDIA`, or None."""
    said = asset.media or re.split(r"[?#]", asset.href)[0].lower()
    return next((i for i, kind in enumerate(MEDIA) if kind.search(said)), None)


def _is_picture(asset: Asset) -> bool:
    """Whether an asset is made for the screen."""
    return asset.key.lower() in PICTURES or "visual" in asset.roles


def _only_name(asset: Asset, sensor: Sensor | None) -> str | None:
    """The name of an asset's only band; None where it has none, or more than one band."""
    if len(asset.bands) > 1 or _is_picture(asset):
        return None
    return declared_name(asset.bands[0] if asset.bands else AssetBand(), asset.key, sensor)


def _best(same: list[Asset], unused: dict[str, str]) -> Iterator[Asset]:
    """Of assets with the same band those of the best kind of file, then of the finest pixels."""
    known = all(map(_resolution, same))
    ranks = {a.key: (_medium(a) or 0, _resolution(a) if known else 0.0) for a in same}
    best = min(ranks.values())
    for asset in same:
        if ranks[asset.key] == best:
            yield asset
        elif ranks[asset.key][0] > best[0]:
            unused[asset.key] = "its band is there as GeoTIFF"
        else:
            unused[asset.key] = "its band is there at a finer pixel size"


def _resolution(asset: Asset) -> float:
    """Metres per pixel as far as the item says; 0 where it doesn't."""
    said = asset.bands[0].resolution if asset.bands else None
    match = _RESOLUTION.search(asset.key)
    return said or (float(match[1]) if match else 0.0)


def _stacks(
    item: Item,
    stacks: Sequence[Asset],
    singles: set[str],
    sensor: Sensor | None,
    unused: dict[str, str],
) -> list[Asset]:
    """Choose among files of several bands, or of bands that are not described.

    Raises:
        SceneError: it isn't clear which one is meant.
    """
    more: list[Asset] = []
    pictures: list[Asset] = []
    for asset in stacks:
        names = {declared_name(band, None, sensor) for band in asset.bands}
        if _is_picture(asset):
            pictures.append(asset)
        elif singles and names <= {*singles, None}:
            why = "its bands are there one by one" if names - {None} else NO_NAME
            unused[asset.key] = why
        else:
            more.append(asset)
    if len(more) > 1:
        named = [a for a in more if any(declared_name(b, None, sensor) for b in a.bands)]
        if len(named) == 1:
            unused |= {asset.key: NO_NAME for asset in more if asset not in named}
            more = named
    pictures_serve = not singles and not more and len(pictures) == 1
    if not pictures_serve:
        unused |= {asset.key: "it is a picture for the screen" for asset in pictures}
    if len(more) > 1:
        raise SceneError(
            f"{item.href or item.id}: the assets {', '.join(asset.key for asset in more)} all may "
            f"hold the scene's bands, and nothing says which one is meant; choose with --asset KEY"
        )
    return pictures if pictures_serve else more
