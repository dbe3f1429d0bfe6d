"""STAC items as an archive's scenes: what is kept of them opens the same scene."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.archive import stac_items
from geoseg.archive.json_stream import read_features, read_lines
from geoseg.archive.slim_items import source_of_item
from geoseg.archive.sources import SceneSource, addresses, job_key, scene_to_open
from geoseg.archive.stac_items import read_items
from geoseg.errors import SceneError, UsageError
from geoseg.scene.item import Item, parse_item
from geoseg.scene.opening import open_scene
from geoseg.scene.scene import Scene
from geoseg.scene.sources import Rules
from tests import stacitems
from tests.servers import FaultyServer

Maker = Callable[[Path], dict[str, Any]]
MAKERS: dict[str, Maker] = {
    "earth-search": stacitems.earth_search,
    "earth-search-c1": partial(stacitems.earth_search, applied=None),
    "earth-search-not-applied": partial(stacitems.earth_search, applied=False),
    "planetary-s2": stacitems.planetary_sentinel2,
    "planetary-landsat": stacitems.planetary_landsat,
    "hls-l30": partial(stacitems.hls, kind="L30"),
    "hls-s30": partial(stacitems.hls, kind="S30"),
    "naip": stacitems.naip,
    "copernicus": stacitems.stac11,
}
PLACE = "https://stac.example.com/collections/c/items/i.json"


def through_json(source: SceneSource) -> dict[str, Any]:
    """What the ledger gives a worker."""
    record: dict[str, Any] = json.loads(json.dumps(source.record(), allow_nan=False))
    return addresses(record)


def alike(scene: Scene) -> Scene:
    """A scene without the list of what is no band of it, and of where its item was read."""
    assert scene.item is not None
    return replace(scene, ignored=(), files=(), item=replace(scene.item, href=""))


def assert_opens_the_same(full: Scene, source: SceneSource) -> None:
    slim = open_scene(scene_to_open(through_json(source)))
    assert alike(slim) == alike(full)
    assert set(slim.ignored) <= set(full.ignored)
    gone = [line for line in full.ignored if line not in slim.ignored]
    assert all("jpeg" in line or "json" in line for line in gone), gone


def small(identifier: str = "i", href: str = "B04.tif", **more: Any) -> dict[str, Any]:
    value = stacitems.item(identifier, "c", {"B04": {"href": href, "type": "image/tiff"}})
    return {**value, **more}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_kept_of_an_item_opens_the_same_scene(name: str, tmp_path: Path) -> None:
    value = MAKERS[name](tmp_path)
    file = stacitems.save(tmp_path, value)
    (source,) = read_items(str(file))
    full = open_scene(file)
    assert_opens_the_same(full, source)
    kept, whole = json.dumps(source.item), json.dumps(value)
    assert len(kept) < len(whole) + (len(str(tmp_path)) + 20) * len(value["assets"])
    # Once more, by what was kept.
    again = source_of_item(source.item, source.place)
    assert again.item == source.item


numbers = st.one_of(
    st.none(), st.sampled_from(["nan", "inf", 0, 1, -0.1, 1e-4, 10**400, -(10**400)])
)
names = st.sampled_from(["B04", "red", "visual", "SCL", "qa", "", None, 7])
lists = {
    "classification:classes": st.just([{"value": 3, "name": "cloud"}, {"value": "x"}, 7]),
    "classification:bitfields": st.just([{"offset": 3, "length": 1, "name": "cloud"}]),
}
band = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "common_name": names,
        "eo:common_name": names,
        "scale": numbers,
        "raster:scale": numbers,
        "offset": numbers,
        "nodata": numbers,
        "raster:nodata": numbers,
        "gsd": numbers,
        "raster:spatial_resolution": numbers,
        **lists,
    },
)
bands = st.lists(st.one_of(band, st.just(5)), max_size=3)
asset = st.builds(
    lambda said, more: {**said, **more},
    band,
    st.fixed_dictionaries(
        {"href": st.just("a.tif")},
        optional={
            "type": st.sampled_from(["image/tiff", "image/JP2", "", None, 4]),
            "roles": st.sampled_from([["data"], ["Cloud"], "x", [4, "visual"]]),
            "bands": bands,
            "eo:bands": bands,
            "raster:bands": bands,
            "raster:histogram": st.just({}),
            "proj:epsg": st.sampled_from([32633, None, "x", True]),
            "proj:code": st.sampled_from(["EPSG:4326", "IAU:1"]),
        },
    ),
)


@pytest.mark.parametrize("name", ["scale", "raster:scale", "offset", "nodata"])
@pytest.mark.parametrize("value", ["abc", True, "0.1 m", [1]])
def test_what_decides_what_numbers_mean_is_a_number(name: str, value: Any) -> None:
    band = {"name": "B04", name: value}
    with pytest.raises(SceneError, match=f"{name} of a band is .* must be a number"):
        parse_item({**small(), "assets": {"B04": {"href": "a.tif", "raster:bands": [band]}}}, PLACE)


@given(st.dictionaries(st.sampled_from(["B04", "SCL", "image", "x"]), asset, max_size=4))
def test_what_is_kept_of_assets_means_the_same(assets: dict[str, Any]) -> None:
    value = {**small(), "assets": assets}
    slim = source_of_item(value, PLACE).item
    json.dumps(slim, allow_nan=False)
    full, kept = parse_item(value, PLACE), parse_item(slim, PLACE)
    assert kept.assets.keys() == full.assets.keys()
    for key, one in kept.assets.items():
        # By their words: NaN is not itself.
        assert repr(replace(one, href="")) == repr(replace(full.assets[key], href=""))


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5), st.integers()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
        ),
        max_leaves=20,
    ),
    st.sampled_from(["properties", "assets", "links", "bbox", "geometry", "id", "collection"]),
)
def test_any_json_is_an_item_or_is_refused_in_a_line(odd: Any, key: str) -> None:
    try:
        source = source_of_item({**small(), key: odd}, PLACE)
    except SceneError as error:
        assert "\n" not in str(error)
    else:
        json.dumps(source.record(), allow_nan=False)
        assert job_key(source, {}, "m")


def test_addresses_are_absolute_and_without_access() -> None:
    signed = "https://blob.example.com/B02.tif?st=1&sig=SECRET"
    assets = {
        "B02": {"href": signed, "type": "image/tiff"},
        "B03": {"href": "../B03.tif", "type": "image/tiff"},
        "B04": {"href": "s3://bucket/B04.tif", "type": "image/tiff"},
        "B05": {"href": "/vsicurl/https://u:SECRET@x/B05.tif", "type": "image/tiff"},
    }
    source = source_of_item({**small(), "assets": assets}, PLACE + "?token=SECRET")
    assert source.item is not None and "SECRET" not in json.dumps(source.record())
    found = {key: one["href"] for key, one in source.item["assets"].items()}
    assert found["B03"] == "https://stac.example.com/collections/c/B03.tif"
    assert found["B04"] == "s3://bucket/B04.tif"
    filled = through_json(source)
    assert filled["item"]["assets"]["B02"]["href"] == signed
    renewed = signed.replace("SECRET", "OTHER")
    assets["B02"]["href"] = renewed
    again = source_of_item({**small(), "assets": assets}, PLACE + "?token=OTHER")
    assert job_key(again, {}, "m") == job_key(source, {}, "m")
    assert through_json(again)["item"]["assets"]["B02"]["href"] == renewed


def test_the_key_is_that_of_the_pixels() -> None:
    def key(**more: Any) -> str:
        value = small()
        value["properties"] |= {"eo:cloud_cover": 3, **more.pop("properties", {})}
        value["assets"]["B04"] |= more
        return job_key(source_of_item(value, PLACE), {}, "m")

    assert key() == key(title="red") == key(properties={"eo:cloud_cover": 4, "updated": "now"})
    scaled = key(**{"raster:bands": [{"scale": 0.0001}]})
    applied = key(properties={"earthsearch:boa_offset_applied": True})
    assert len({key(), scaled, applied, key(href="B05.tif")}) == 4
    # However it is written.
    assert scaled == key(bands=[{"raster:scale": 1e-4}])


def test_an_item_may_name_files_in_its_own_folder_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    value = stacitems.naip(tmp_path / "in")
    value["assets"]["image"]["href"] = "../m.tif"
    (tmp_path / "in/m.tif").rename(tmp_path / "m.tif")
    (source,) = read_items(str(stacitems.save(tmp_path / "in", value)))
    with pytest.raises(SceneError, match="--input-root"):
        open_scene(scene_to_open(through_json(source)))
    rules = Rules.of(tmp_path)
    assert open_scene(scene_to_open(through_json(source)), rules).bands


def test_a_self_link_says_where_a_listed_item_lies(tmp_path: Path) -> None:
    own = {"links": [{"rel": "self", "href": "https://x.example.com/a/i.json?token=T"}]}
    features = [small("a", **own), small("b")]
    file = stacitems.save(tmp_path, {"type": "FeatureCollection", "features": features})
    a, b = read_items(str(file))
    assert a.item and b.item
    assert a.item["assets"]["B04"]["href"] == "https://x.example.com/a/B04.tif"
    assert a.item["links"] == [{"rel": "self", "href": "https://x.example.com/a/i.json?..."}]
    assert b.item["assets"]["B04"]["href"] == str(tmp_path / "B04.tif")
    opened = scene_to_open(through_json(b))
    assert isinstance(opened, Item) and opened.href == str(file)


def test_boxes_are_those_of_items(tmp_path: Path) -> None:
    ring = [[[170.0, -1], [180, -1], [180, 2.5], [170, -1]]]
    cases = [
        ({"bbox": [1, 2, 3, 4]}, (1, 2, 3, 4)),
        ({"bbox": [1, 2, 0, 3, 4, 9]}, (1, 2, 3, 4)),
        ({"bbox": [170, 2, -170, 4]}, (170, 2, -170, 4)),
        ({"bbox": [1, "x", 3, 4]}, None),
        ({"bbox": [1, 5, 3, 4]}, None),
        ({"geometry": {"type": "Polygon", "coordinates": ring}}, (170, -1, 180, 2.5)),
        ({}, None),
    ]
    for more, box in cases:
        assert source_of_item(small(**more), PLACE).footprint == box


def lines(values: list[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_every_kind_of_file_gives_its_items_in_order(tmp_path: Path) -> None:
    values = [small(f"i{n}", f"{n}.tif") for n in range(5)]
    whole = json.dumps({"features": values, "type": "FeatureCollection"}, indent=2)
    (tmp_path / "a.json").write_text(whole, encoding="utf-8")
    (tmp_path / "b.geojson").write_text("\ufeff" + whole, encoding="utf-8")
    (tmp_path / "c.ndjson").write_text(lines(values) + "\n", encoding="utf-8")
    server = FaultyServer(tmp_path)
    try:
        for name in ("a.json", "b.geojson", "c.ndjson"):
            assert [s.name for s in read_items(str(tmp_path / name))] == [f"i{n}" for n in range(5)]
            far = list(read_items(f"{server.url}/{name}"))
            assert far[3].item and far[3].item["assets"]["B04"]["href"] == f"{server.url}/3.tif"
    finally:
        server.stop()


def catalog(kind: str, *links: tuple[str, str]) -> str:
    listed = [{"rel": rel, "href": href} for rel, href in links]
    return json.dumps({"type": kind, "id": "c", "description": "", "links": listed})


def write_tree(folder: Path) -> Path:
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        links = [("item", f"./{name}1.json"), ("item", f"{name}2.json"), ("parent", "../c.json")]
        text = catalog("Collection", *links, ("child", "../c.json"))
        (folder / name / "collection.json").write_text(text, encoding="utf-8")
        for number in (1, 2):
            stacitems.save(folder / name, small(f"{name}{number}"), f"{name}{number}.json")
    children = [("child", f"{name}/collection.json") for name in ("two", "one", "two")]
    (folder / "c.json").write_text(catalog("Catalog", *children), encoding="utf-8")
    return folder / "c.json"


def test_a_catalogue_leads_to_its_items_each_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    server = FaultyServer(tmp_path)
    try:
        for place in (str(root), f"{server.url}/c.json"):
            found = list(read_items(place))
            assert [s.name for s in found] == ["two1", "two2", "one1", "one2"]
            base = str(tmp_path) if place == str(root) else server.url
            assert found[0].item and found[0].item["assets"]["B04"]["href"] == f"{base}/two/B04.tif"
    finally:
        server.stop()


def test_an_item_that_is_gone_is_a_scene_whose_job_reports_it(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    (tmp_path / "two/two2.json").unlink()
    (tmp_path / "one/one1.json").write_text("{", encoding="utf-8")
    found = list(read_items(str(root)))
    assert [s.name for s in found] == ["two1", "two2", "one1", "one2"]
    assert found[1].files == (str(tmp_path / "two/two2.json"),)
    # A catalogue that is gone hides nobody knows how many.
    (tmp_path / "two/collection.json").unlink()
    with pytest.raises(SceneError, match=r"collection\.json can't be read"):
        list(read_items(str(root)))


@pytest.mark.parametrize("href", ["../x.json", "/etc/x.json", "https://x/x.json", "file:///x.json"])
@pytest.mark.parametrize("rel", ["item", "child"])
def test_a_catalogue_of_this_machine_stays_in_its_folder(
    href: str, rel: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    stacitems.save(tmp_path, small(), "x.json")
    root = tmp_path / "in/c.json"
    root.write_text(catalog("Catalog", (rel, href)), encoding="utf-8")
    with pytest.raises(SceneError, match="below its own folder"):
        list(read_items(str(root)))
    (tmp_path / "in/link").symlink_to(tmp_path)
    root.write_text(catalog("Catalog", (rel, "link/x.json")), encoding="utf-8")
    with pytest.raises(SceneError, match="below its own folder"):
        list(read_items(str(root)))


def test_a_catalogue_on_a_server_leads_to_servers_only(tmp_path: Path) -> None:
    server = FaultyServer(tmp_path)
    try:
        for href in ("file:///etc/passwd", "s3://b/x.json", "ftp://x/x.json"):
            (tmp_path / "c.json").write_text(catalog("Catalog", ("child", href)), encoding="utf-8")
            with pytest.raises(SceneError, match=r"http\(s\) only"):
                list(read_items(f"{server.url}/c.json"))
    finally:
        server.stop()


def test_catalogues_have_a_depth(tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / f"{n}.json").write_text(catalog("Catalog", ("child", f"{n + 1}.json")))
    with pytest.raises(SceneError, match="goes no deeper"):
        list(read_items(str(tmp_path / "0.json")))


def test_an_item_that_comes_twice_is_given_once_unless_it_differs(tmp_path: Path) -> None:
    file = tmp_path / "x.ndjson"
    other = small(links=[{"rel": "self", "href": "https://x.example.com/i"}], bbox=[1, 2, 3, 4])
    file.write_text(lines([small(), small("j"), small()]), encoding="utf-8")
    assert [s.name for s in read_items(str(file))] == ["i", "j"]
    file.write_text(lines([small(), {**small(), "collection": "d"}]), encoding="utf-8")
    assert len(list(read_items(str(file)))) == 2
    for differs in (small(href="other.tif"), other):
        file.write_text(lines([small(), differs]), encoding="utf-8")
        with pytest.raises(UsageError, match=r"item i of the collection c twice, and the two diff"):
            list(read_items(str(file)))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "", "must be a JSON object"),
        ("a.json", "[1]", "must be a JSON object"),
        ("a.json", '{"type": "Feature"', "a comma or }"),
        ("a.json", '{"type": "Feature",}', "a comma or }"),
        ("a.json", '{"features": [{"type": "Feature"', "no JSON"),
        ("a.json", '{"type": "Point"}', 'must be "Feature"'),
        ("a.json", '{"features": [{"type": "Feature"}]}', "item 1: .*no STAC item"),
        ("a.json", '{"features": []} x', "something follows"),
        ("a.json", '{"type": "Feature", "id": "\udcff"}', "no UTF-8|no STAC item"),
        ("a.json", '{"a": ' + "[" * 100_000, "nested too deeply"),
        ("a.ndjson", '{"type":\n', "line 1 is no JSON"),
        ("a.ndjson", "\n5\n", "item 1: .*JSON int"),
        ("a.parquet", "x", "can't be read as Parquet"),
    ],
)
def test_what_is_no_stac_is_refused_in_a_line(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SceneError, match=said) as caught:
        list(read_items(str(tmp_path / name)))
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_what_holds_no_item_or_only_a_part_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    cases = [
        ('{"type": "FeatureCollection", "features": []}', "holds no STAC item"),
        (catalog("Catalog"), "holds no STAC item"),
        (catalog("Catalog", ("search", "https://x/search")), "--stac-api"),
        (catalog("Collection", ("items", "https://x/items")), "--stac-api"),
        (
            json.dumps(
                {
                    "features": [small()],
                    "type": "FeatureCollection",
                    "links": [{"rel": "next", "href": "https://x/2"}],
                }
            ),
            "one page of a search",
        ),
    ]
    for text, said in cases:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=said):
            list(read_items(str(file)))
    with pytest.raises(SceneError, match="can't be read"):
        list(read_items(str(tmp_path / "none.json")))
    with pytest.raises(UsageError, match=r"http\(s\)"):
        list(read_items("gs://bucket/items.parquet"))


def test_a_file_that_is_too_large_for_a_download_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stac_items, "MOST", 100)
    monkeypatch.setattr(stac_items._fetched, "__defaults__", (100,))
    monkeypatch.setattr(stac_items._opened, "__defaults__", (100,))
    stacitems.save(tmp_path, small())
    server = FaultyServer(tmp_path)
    try:
        with pytest.raises(SceneError, match="download it"):
            list(read_items(f"{server.url}/item.json"))
    finally:
        server.stop()


class Pieces(io.RawIOBase):
    """A file that gives a few bytes at a time."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes, self._at, self._n = data, sizes, 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._sizes[self._n % len(self._sizes)]
        self._n += 1
        part = self._data[self._at : self._at + min(size, len(buffer))]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=9)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=9,
)


@given(
    st.dictionaries(st.sampled_from(["type", "links", "a"]), anything),
    st.none() | st.lists(anything, max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_streamed_json_is_the_same_as_whole(
    rest: dict[str, Any],
    features: list[Any] | None,
    sizes: list[int],
    indent: int | None,
    first: bool,
) -> None:
    own = {} if features is None else {"features": features}
    text = json.dumps({**own, **rest} if first else {**rest, **own}, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geoseg.archive.json_stream.PART", sizes[0])
        *found, last = read_features(Pieces(text.encode(), sizes), "x")  # type: ignore[arg-type]
    assert found == [(True, one) for one in features or []]
    assert last == (False, rest)


def test_memory_does_not_grow_with_the_number_of_items(tmp_path: Path) -> None:
    import tracemalloc

    class Endless(io.RawIOBase):
        """30,000 items of 4 kB, which no disk holds."""

        def __init__(self) -> None:
            self._parts = self._all()
            self._left = b""

        def _all(self) -> Iterator[bytes]:
            yield b'{"type": "FeatureCollection", "features": ['
            for n in range(30_000):
                yield (b"," if n else b"") + json.dumps({"n": n, "x": "x" * 4000}).encode()
            yield b"]}"

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self._left = self._left or next(self._parts, b"")
            part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)

    tracemalloc.start()
    count = sum(is_one for is_one, _ in read_features(Endless(), "x"))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_000 and peak < 8_000_000


def test_a_line_that_does_not_end_is_refused() -> None:
    with pytest.raises(SceneError, match="line 1 has more than"):
        list(read_lines(io.BytesIO(b'"' + b"x" * 10_000_001), "x"))
    text = b'{"features": ["' + b"x" * 11_000_000
    with pytest.raises(SceneError, match="has more than"):
        list(read_features(io.BytesIO(text), "x"))


def test_a_table_of_items_gives_the_items_back(tmp_path: Path) -> None:
    rustac = pytest.importorskip("rustac")
    originals: dict[str, dict[str, Any]] = {}
    for name, make in MAKERS.items():
        (tmp_path / name).mkdir()
        value = make(tmp_path / name)
        for one in value["assets"].values():
            if not one["href"].startswith("s3:"):
                one["href"] = f"{name}/{one['href']}"
        ring = [[[15.0, 45], [16, 45], [16, 46], [15, 46], [15, 45]]]
        value |= {"id": name, "geometry": {"type": "Polygon", "coordinates": ring}}
        originals[name] = {**value, "bbox": [15.0, 45.0, 16.0, 46.0]}
    table = tmp_path / "items.parquet"
    rustac.write_sync(str(table), list(originals.values()))
    found = list(read_items(str(table)))
    assert {source.name for source in found} == set(originals)
    for source in found:
        full = open_scene(parse_item(originals[source.name], str(tmp_path / "items.json")))
        slim = open_scene(scene_to_open(through_json(source)))
        assert {b.label: b for b in slim.bands} == {b.label: b for b in full.bands}
        assert (slim.sensor, slim.clouds, slim.texts) == (full.sensor, full.clouds, full.texts)
        assert slim.item and full.item
        assert replace(slim.item, href="") == replace(full.item, href="")
        assert source.footprint == (15, 45, 16, 46)
    # The same job as that of the JSON.
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"features": list(originals.values())}), encoding="utf-8")
    whole = {"type": "FeatureCollection", "features": list(originals.values())}
    file.write_text(json.dumps(whole), encoding="utf-8")
    assert {job_key(s, {}, "m") for s in found} == {
        job_key(s, {}, "m") for s in read_items(str(file))
    }
