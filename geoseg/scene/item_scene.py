"""From a STAC item to a scene: its assets are opened, and described by what the item says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from geoseg.core.gdal import gdal_options
from geoseg.errors import SceneError
from geoseg.scene.assets import choose_assets, declared_name, sensor_of, texts_of
from geoseg.scene.bands import bands_of, said_of_alpha
from geoseg.scene.clouds import rule_of
from geoseg.scene.files import add_files, opened
from geoseg.scene.item import Asset, AssetBand, Item, address_of, file_name
from geoseg.scene.scene import CloudLayer, ItemSource, Scene
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import Sensor, sensor_with_reason
from geoseg.scene.sources import Rules, is_remote

__all__ = ["open_item"]

#: Properties with a Sentinel-2 product's processing baseline, and with whether the offset that it
#: adds was taken off again.
BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


def open_item(item: Item, rules: Rules, wanted: Sequence[str] = (), clouds: str = "auto") -> Scene:
    """Open the scene that a STAC item describes.

    Args:
        item: that names its files.
        rules: where local files may lie, besides the item's own folder.
        wanted: keys of the assets that are its bands; none for all that are known to be.
        clouds: one of :data:`geoseg.scene.clouds.CLOUDS`: whether its cloud layer is opened.

    Returns:
        Its bands, sensor, clouds and tags; no file stays open.

    Raises:
        UsageError: an asset that is wanted isn't there.
        SceneError: no asset is a band, one lies where the item may not lead, or can't be opened.
    """
    sensor = sensor_of(item)
    choice = choose_assets(item, sensor, wanted)
    opening = _Opening(item, rules, sensor)
    bands = [band for asset in choice.assets for band in opening.bands(asset)]
    layer = opening.clouds() if clouds == "auto" else None
    local = [] if not item.href or is_remote(item.href) else [item.href]
    return Scene(
        name=file_name(item.id),
        paths=tuple(dict.fromkeys(b.path for b in bands)),
        bands=tuple(bands),
        sensor=opening.sensor,
        sensor_by="the STAC item" if sensor else opening.sensor_by,
        texts=texts_of(item),
        tags=opening.tags,
        ignored=tuple(
            line for line in choice.unused if not (layer and line.startswith(f"{layer.source}: "))
        ),
        files=(*local, *opening.behind),
        item=_source(item),
        clouds=layer,
        notes=tuple(dict.fromkeys(opening.notes)),
    )


def _source(item: Item) -> ItemSource:
    baseline = item.said(*BASELINES)
    number = re.fullmatch(r"(?:N)?(\d{2})\.?(\d{2})", baseline or "")
    flags = (item.properties.get(key) for key in APPLIED)
    return ItemSource(
        id=item.id,
        collection=item.collection,
        href=item.href,
        datetime=item.datetime,
        baseline=int(number[1] + number[2]) if number and number[1] != "99" else None,
        offset_taken_off=next((flag for flag in flags if isinstance(flag, bool)), None),
    )


def _is_alpha(said: AssetBand) -> bool:
    """Whether an item says that a band holds no numbers but what was measured."""
    return (said.common or said.name or "").lower() in ("alpha", "mask")


class _Opening:
    """Opens assets one by one, and collects what is found."""

    def __init__(self, item: Item, rules: Rules, sensor: Sensor | None) -> None:
        self.item, self.rules, self.sensor = item, rules, sensor
        self.sensor_by = ""
        self.behind: dict[str, None] = {}
        self.tags: dict[str, str] = {}
        self.notes: list[str] = []

    def bands(self, asset: Asset) -> list[SceneBand]:
        """The bands of an asset, as the item and the file describe them.

        Raises:
            SceneError: it lies where the item may not lead, or can't be opened.
        """
        found, tags = self._described(asset)
        if not self.tags:
            self.tags = tags
            if self.sensor is None:
                own = [v for k, v in tags.items() if re.search("SPACECRAFT|PLATFORM", k, re.I)]
                self.sensor, self.sensor_by = sensor_with_reason(own)
        declared = tuple(said for said in asset.bands if not _is_alpha(said))
        if len(declared) == 1 and not (declared[0].name or declared[0].common):
            declared *= len(found)  # what holds for all of them
        if declared and len(declared) != len(found):
            self.notes.append(
                f"the item describes {len(declared)} bands of its asset {asset.key} and the file "
                f"has {len(found)}: only what the file says of them is used"
            )
            declared = ()
        if not declared:
            declared = (AssetBand(),) * len(found)
        single = len(found) == 1
        return [
            self._merged(band, said, asset, single=single)
            for band, said in zip(found, declared, strict=True)
        ]

    def clouds(self) -> CloudLayer | None:
        """The item's cloud layer, or None where it has none.

        Raises:
            SceneError: it can't be opened, or holds no whole numbers.
        """
        for asset in self.item.assets.values():
            band = asset.bands[0] if asset.bands else AssetBand()
            rule = rule_of(asset.key, self.sensor, band.classes, band.bits)
            if rule is None or len(asset.bands) > 1 or not asset.href:
                continue
            found, _ = self._described(asset)
            if not found[0].dtype.startswith(("int", "uint")):
                raise SceneError(
                    f"{found[0].path}: a cloud layer has whole numbers, and these are "
                    f"{found[0].dtype}; give --clouds none to do without"
                )
            return CloudLayer(replace(found[0], label=asset.key), rule, asset.key)
        return None

    def _described(self, asset: Asset) -> tuple[list[SceneBand], dict[str, str]]:
        """The bands and the tags of an asset's file."""
        file = address_of(asset, self.item, self.rules)
        with gdal_options(file), opened(file, self.rules) as dataset:
            add_files(dataset, self.behind, self.rules)
            self._compare_crs(asset, dataset)
            # Writers mark the fourth of four bands as alpha, also where it is near infrared.
            all_bands = 1 < len(asset.bands) == dataset.count
            said = any(map(_is_alpha, asset.bands))
            alpha = True if said else False if all_bands else None
            bands = bands_of(dataset, file, self.rules, alpha=alpha)
            self.notes += said_of_alpha(dataset, file, bands) if alpha is None else []
            return bands, dict(dataset.tags())

    def _compare_crs(self, asset: Asset, dataset: Any) -> None:
        code = dataset.crs.to_epsg() if dataset.crs else None
        if asset.epsg is not None and code is not None and asset.epsg != code:
            self.notes.append(
                f"the item says that its files are in EPSG:{asset.epsg}, and {asset.key} is in "
                f"EPSG:{code}: the file's is taken"
            )

    def _merged(self, band: SceneBand, said: AssetBand, asset: Asset, *, single: bool) -> SceneBand:
        """A band of a file with what the item says of it, which comes first."""
        key = asset.key
        declared = declared_name(said, key if single else None, self.sensor)
        name = declared or band.name
        label = key if single else said.name or said.common or f"{key} {band.label}"
        scale, offset = said.scale, said.offset
        if (scale, offset) in ((1.0, None), (1.0, 0.0), (None, 0.0)):
            scale = offset = None
        told = scale is not None or offset is not None
        if told and band.scale is not None:
            ours, theirs = (
                (1.0 if s is None else s, o or 0.0)
                for s, o in ((scale, offset), (band.scale, band.offset))
            )
            if not all(map(math.isclose, ours, theirs)):
                self.notes.append(
                    f"the item gives scale and offset of {key} as {ours}, and the file as "
                    f"{theirs}: the item's are taken"
                )
        nodata, nodata_by = band.nodata, ""
        if said.nodata is not None:
            nodata, nodata_by = said.nodata, "the STAC item"
        sentinel2 = self.sensor is not None and self.sensor.name == "Sentinel-2"
        if nodata is None and sentinel2 and band.dtype.startswith("uint"):
            nodata, nodata_by = 0.0, "ESA's specification of the product"
        return replace(
            band,
            name=name,
            named_by="the STAC item" if declared else "",
            label=label,
            nodata=nodata,
            nodata_by=nodata_by,
            scale=scale if told else band.scale,
            offset=offset if told else band.offset,
            by_item=told,
        )
