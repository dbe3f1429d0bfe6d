"""An archive's collection and its table of items: valid, true, and the same for other readers."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import geopandas
import pyarrow.parquet as pq
import pytest
import shapely
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from geoseg.archive import collection as collection_module
from geoseg.archive.collection import around, write_collection, write_items_parquet
from geoseg.archive.items import Items
from geoseg.core.ownership import is_ours
from geoseg.errors import OutputError
from tests.archives import copies, example_archive, problems


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """An archive of one real map: its folder, and its item."""
    out = tmp_path_factory.mktemp("archive")
    return out, example_archive(out)


@pytest.fixture
def items(example):
    return list(copies(example[1], 12))


def write_items(out: Path, items) -> Items:
    for item in items:
        (out / item["id"]).mkdir()
        (out / item["id"] / "item.json").write_text(json.dumps(item))
    return Items(out)


def collection_of(out: Path):
    return json.loads((out / "collection.json").read_text())


def test_a_collection_of_a_real_map_keeps_stacs_schemas(example, shared):
    out, item = example
    path = write_collection(out, Items(out), license="Apache-2.0")
    found = json.loads(path.read_text())
    assert problems(found, shared) == []
    assert found["license"] == "Apache-2.0"
    assert found["id"] == item["collection"]
    assert found["extent"]["spatial"]["bbox"] == [item["bbox"]]
    assert found["extent"]["temporal"]["interval"] == [["2000-03-31T15:45:43Z"] * 2]
    classes = item["assets"]["landcover"]["classification:classes"]
    assert found["summaries"]["classification:classes"] == classes
    assert found["summaries"]["gsd"] == [28.5]
    assert found["summaries"]["proj:code"] == ["EPSG:32119"]
    assert found["item_assets"].keys() == item["assets"].keys()
    assert not [k for a in found["item_assets"].values() for k in a if k.startswith("file:")]
    table = found["assets"]["items"]
    content = (out / table["href"]).read_bytes()
    assert table["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    for link in found["links"]:
        assert (out / link["href"]).is_file()


def test_the_schemas_find_what_is_wrong(example, shared):
    out, _ = example
    write_collection(out, Items(out))
    for break_it in (
        lambda c: c["extent"]["spatial"].update(bbox=[[1, 2]]),
        lambda c: c.pop("license"),
        lambda c: c["assets"]["items"].update({"file:size": "1"}),
        lambda c: c["summaries"].update({"classification:classes": []}),
    ):
        broken = collection_of(out)
        break_it(broken)
        assert problems(broken, shared), "the schemas find nothing"


def test_others_read_the_collection(example):
    out, item = example
    write_collection(out, Items(out))
    pystac = pytest.importorskip("pystac")
    found = pystac.Collection.from_file(str(out / "collection.json"))
    (read,) = found.get_items()
    assert read.id == item["id"]
    assert read.get_parent().id == read.get_root().id == found.id
    (model,) = found.get_stac_objects("derived_from")
    assert model.properties["mlm:name"] == "landcover-ms"
    rustac = pytest.importorskip("rustac")
    assert rustac.read_sync(str(out / "collection.json"))["id"] == found.id


def without_moved(item):
    """An item without what the table gives in another form: addresses, nulls, forms of times."""
    if isinstance(item, dict):
        kept = {k: without_moved(v) for k, v in item.items() if v is not None and k != "href"}
        return {k: v for k, v in kept.items() if k not in ("created", "expression")}
    return [without_moved(v) for v in item] if isinstance(item, list) else item


def test_the_table_gives_the_items_back(example):
    """By rustac, which has its own writer and reader of stac-geoparquet."""
    rustac = pytest.importorskip("rustac")
    out, item = example
    path = write_items_parquet(out, Items(out))
    (found,) = json.loads(json.dumps(rustac.read_sync(str(path))))["features"]
    assert without_moved(found) == without_moved(item)
    for asset in found["assets"].values():
        assert (out / asset["href"]).is_file()
    for link in found["links"]:
        assert (
            link["href"].startswith("file:")
            or link["href"] == "./collection.json"
            or (out / link["href"]).is_file()
        )
    expression = found["assets"]["landcover"]["processing:expression"]["expression"]
    assert (out / expression).is_file()


def test_geopandas_reads_the_table(tmp_path, items):
    path = write_items_parquet(tmp_path, items)
    found = geopandas.read_parquet(path)
    assert found.crs == "OGC:CRS84"
    assert found["id"].tolist() == [item["id"] for item in items]
    for shape, item in zip(found.geometry, items, strict=True):
        assert shape.equals(shapely.geometry.shape(item["geometry"]))
    assert str(found["datetime"].dtype) == "datetime64[us, UTC]"
    assert found["datetime"][0].isoformat() == "2000-03-31T15:45:43+00:00"
    some = geopandas.read_parquet(path, bbox=(-169.5, 0.2, -168.5, 0.8))
    assert some["id"].tolist() == [item["id"] for item in items[:2]]
    assert geopandas.read_parquet(path, columns=["gsd", "geometry"])["gsd"].tolist() == [28.5] * 12


def test_the_table_says_what_it_is(tmp_path, items, monkeypatch):
    monkeypatch.setattr("geoseg.archive.items_table._ROWS", 5)
    write_collection(tmp_path, items, title="Maps")
    about = pq.read_metadata(tmp_path / "items.parquet")
    assert about.num_row_groups == 3
    stac = json.loads(about.metadata[b"stac-geoparquet"])
    assert stac["version"] == "1.1.0"
    assert stac["collections"]["landcover"]["title"] == "Maps"
    geo = json.loads(about.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]


def test_rustac_writes_the_same_columns(tmp_path, example):
    """Its own table of the same item has no column that is missing in ours, and the same types."""
    rustac = pytest.importorskip("rustac")
    _, item = example
    ours = pq.read_schema(write_items_parquet(tmp_path, [item]))
    rustac.write_sync(str(tmp_path / "theirs.parquet"), [item])
    theirs = pq.read_schema(tmp_path / "theirs.parquet")
    assert set(theirs.names) - {"type"} == set(ours.names)
    for name in ("datetime", "created"):
        assert str(ours.field(name).type).startswith("timestamp")
        assert str(theirs.field(name).type).startswith("timestamp")
    for name in ("proj:shape", "gsd", "processing:software", "processing:datetime"):
        kinds = [str(s.field(name).type).replace("item", "element") for s in (ours, theirs)]
        assert kinds[0] == kinds[1], name


def test_items_of_several_kinds_share_a_table(tmp_path, items, monkeypatch):
    """One without a place, one across 180 degrees, one with an asset and properties of its own."""
    monkeypatch.setattr("geoseg.archive.items_table._ROWS", 1)  # each its own schema
    items[0]["geometry"] = None
    del items[0]["bbox"]
    parts = [shapely.box(170, 0, 180, 1), shapely.box(-180, 0, -170, 1)]
    items[1]["geometry"] = shapely.geometry.mapping(shapely.MultiPolygon(parts))
    items[1]["bbox"] = [170, 0, -170, 1]
    items[2]["properties"] |= {"eo:cloud_cover": 3, "view": {"off_nadir": 3}, "none": None}
    items[3]["properties"] |= {"eo:cloud_cover": 3.5, "view": {"azimuth": 1.5}}
    items[4]["assets"] = {"landcover": items[4]["assets"]["landcover"], "extra": {"href": "./x"}}
    items[5]["properties"] |= {
        "datetime": None,
        "start_datetime": "2000-01-01T00:00:00Z",
        "end_datetime": "2000-01-31T00:00:00.5Z",
    }
    path = write_items_parquet(tmp_path, items)
    found = geopandas.read_parquet(path)
    assert found["id"].tolist() == [item["id"] for item in items[1:]]  # those with a place
    found.index += 1
    assert found.geometry[1].geom_type == "MultiPolygon"
    assert pq.read_table(path)["bbox"][0].as_py() == {
        "xmin": 170,
        "ymin": 0,
        "xmax": -170,
        "ymax": 1,
    }
    assert found["eo:cloud_cover"][1:3].tolist() == [3.0, 3.5]
    assert found["view"][3] == {"off_nadir": None, "azimuth": 1.5}
    assert found["datetime"].isna().tolist() == [i == 5 for i in range(1, 12)]
    assert found["end_datetime"][5].isoformat() == "2000-01-31T00:00:00.500000+00:00"
    assert found["assets"][4]["extra"] == {"href": f"./{items[4]['id']}/x"}
    assert found["assets"][3]["extra"] is None
    rustac = pytest.importorskip("rustac")
    read = rustac.read_sync(str(path))["features"]
    assert [f["id"] for f in read] == [item["id"] for item in items[1:]]
    assert read[0]["geometry"]["type"] == "MultiPolygon"


def test_maps_without_a_place_are_linked_however_many_there_are(
    tmp_path, items, monkeypatch, shared
):
    monkeypatch.setattr(collection_module, "MOST_LINKS", 5)
    for item in items[3:5]:
        item["geometry"] = None
        del item["bbox"]
    write_collection(tmp_path, items)
    found = collection_of(tmp_path)
    hrefs = [x["href"] for x in found["links"] if x["rel"] == "item"]
    assert hrefs == [f"./{item['id']}/item.json" for item in items[3:5]]
    assert len(geopandas.read_parquet(tmp_path / "items.parquet")) == 10
    assert problems(found, shared) == []
    write_collection(tmp_path, items[3:5])
    assert len(geopandas.read_parquet(tmp_path / "items.parquet")) == 0
    assert collection_of(tmp_path)["extent"]["spatial"]["bbox"] == [[-180, -90, 180, 90]]


def test_values_of_two_types_are_refused(tmp_path, items):
    items[0]["properties"]["gsd"] = "fine"
    with pytest.raises(OutputError, match="values of one name are of two types"):
        write_items_parquet(tmp_path, items)
    items[0]["properties"] = {"datetime": None, "assets": 1}
    with pytest.raises(OutputError, match="a property 'assets'"):
        write_items_parquet(tmp_path, items)
    assert not list(tmp_path.iterdir())


def test_the_order_and_bytes_are_the_keys(tmp_path, items):
    folders = []
    for turn in (1, -1):
        out = tmp_path / f"out{turn}"
        out.mkdir()
        write_collection(out, write_items(out, items[::turn]))
        folders.append(out)
    for name in ("collection.json", "items.parquet"):
        a, b = (out / name for out in folders)
        assert a.read_bytes() == b.read_bytes()
    ids = pq.read_table(folders[0] / "items.parquet", columns=["id"])["id"].to_pylist()
    assert ids == sorted(ids)
    # Again, over what is there; of some of the jobs.
    some = Items(folders[0], [items[2]["id"], items[0]["id"]])
    write_collection(folders[0], some)
    hrefs = [x["href"] for x in collection_of(folders[0])["links"] if x["rel"] == "item"]
    assert hrefs == [f"./{items[i]['id']}/item.json" for i in (0, 2)]


def test_many_items_are_in_the_table_alone(tmp_path, items, monkeypatch, shared):
    monkeypatch.setattr(collection_module, "MOST_LINKS", 11)
    write_collection(tmp_path, items)
    found = collection_of(tmp_path)
    assert [link["rel"] for link in found["links"]] == ["root", "derived_from"]
    assert found["geoseg:items"] == 12
    assert problems(found, shared) == []
    write_collection(tmp_path, items[:11])
    assert sum(x["rel"] == "item" for x in collection_of(tmp_path)["links"]) == 11


def test_foreign_files_are_not_replaced(tmp_path, items):
    for name, content in (
        ("collection.json", b'{"type": "Collection"}'),
        ("items.parquet", b"PAR1"),
    ):
        out = tmp_path / Path(name).stem
        out.mkdir()
        (out / name).write_bytes(content)
        with pytest.raises(OutputError, match=f"{name} was not made by geoseg"):
            write_collection(out, items)
        assert [p.name for p in out.iterdir()] == [name]
    write_collection(tmp_path, items)
    assert is_ours(tmp_path / "collection.json")
    assert is_ours(tmp_path / "items.parquet")
    # Somebody's work on the table is theirs.
    geopandas.read_parquet(tmp_path / "items.parquet").to_parquet(tmp_path / "theirs.parquet")
    assert not is_ours(tmp_path / "theirs.parquet")


def test_what_can_not_be_used_is_reported(tmp_path, items):
    found = write_items(tmp_path, items)
    with pytest.raises(OutputError, match="no finished map"):
        write_collection(tmp_path, [])
    (tmp_path / "models").mkdir()
    (tmp_path / "half-done").mkdir()
    assert len(list(found)) == 12
    with pytest.raises(OutputError, match="half-done"):
        list(Items(tmp_path, ["half-done"]))
    items[3]["collection"] = "other"
    with pytest.raises(OutputError, match="of two collections"):
        write_collection(tmp_path, items)
    for content in (b"{", b"[]", b'{"type": "Feature", "id": "other"}', b"\xff"):
        (tmp_path / items[0]["id"] / "item.json").write_bytes(content)
        with pytest.raises(OutputError, match="run its job again"):
            list(found)


def test_times_of_processing_count_where_no_other_is_known(tmp_path, items):
    marked = {"datetime": "2026-01-01T00:00:00Z", "geoseg:datetime_is_of_processing": True}
    for item in items[:11]:
        item["properties"] |= marked
    write_collection(tmp_path, items)
    interval = [["2000-03-31T15:45:43Z", "2000-03-31T15:45:43Z"]]
    assert collection_of(tmp_path)["extent"]["temporal"]["interval"] == interval
    write_collection(tmp_path, items[:11])
    interval = [["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]]
    assert collection_of(tmp_path)["extent"]["temporal"]["interval"] == interval


longitudes = st.integers(-180, 180)


@given(st.lists(st.tuples(longitudes, longitudes), min_size=1, max_size=8))
def test_the_span_of_longitudes_holds_all_and_is_the_narrowest(spans):
    """By counting degrees that are held by any."""

    def degrees(west, east):
        return {d % 360 for d in range(west, east + 1 if east >= west else east + 361)}

    spans = [(w, e) for w, e in spans if (w, e) != (180, -180)]
    if not spans:
        return
    held = set().union(*(degrees(w, e) for w, e in spans))
    west, east = around(spans)
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    if (west, east) == (-180, 180):
        return
    assert held <= degrees(int(west), int(east))
    gaps = [0]
    for d in range(720):  # the longest run of degrees that nobody holds
        gaps.append(0 if d % 360 in held else gaps[-1] + 1)
    assert len(degrees(int(west), int(east))) == 360 - max(gaps)


def test_memory_does_not_grow_with_the_archive(tmp_path, example):
    class Many:
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self):
            return copies(example[1], self.count)

    peaks = []
    for count in (200, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geoseg.archive.items_table._ROWS", 100)
            tracemalloc.start()
            write_collection(tmp_path, Many(count))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Links and the ends of boxes are kept, a few hundred bytes an item.
    assert peaks[1] < peaks[0] + 800 * 1500
