"""Archives of real maps for tests, and STAC's own schemas, which are read offline."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

import geoseg
from geoseg.archive.model_item import write_model_item
from geoseg.archive.stac_item import write_item
from geoseg.cards.files import read_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
KEY = "landsat7_nc_2000-0123456789"


def add_map(
    out: Path, key: str, scene: Path, source: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Predict a scene into an archive's folder and write its item, as a job does; its item."""
    folder = out / key
    folder.mkdir(parents=True)
    report = geoseg.predict(scene, folder / "landcover.tif", **options).report
    return write_item(folder, key, source or {}, report)


def example_archive(out: Path) -> dict[str, Any]:
    """An archive of one map with all outputs, and its model's item; the map's item."""
    folder = out / KEY
    names = {name: folder / f"{name}.tif" for name in ("probs", "confidence", "agreement")}
    item = add_map(
        out,
        KEY,
        EXAMPLE,
        vector=folder / "polygons.gpkg",
        preview=folder / "preview.png",
        tta="flips",
        **names,
    )
    report = json.loads((folder / "landcover.json").read_text(encoding="utf-8"))
    write_model_item(out, read_model(report["model"]["path"]))
    return item


def copies(item: Mapping[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Items like a real one, each with an id and a place of its own."""
    text = json.dumps(item)
    for i in range(count):
        key = f"scene_{i:06}-{i:010x}"
        found = json.loads(text.replace(item["id"], key))
        west = -170 + i % 340
        corners = [[west, 0], [west + 1, 0], [west + 1, 1], [west, 1], [west, 0]]
        found["geometry"] = {"type": "Polygon", "coordinates": [corners]}
        found["bbox"] = [west, 0, west + 1, 1]
        yield found


def problems(document: Mapping[str, Any], shared: Path) -> list[str]:
    """What STAC's schemas have against a document: those of 1.1 and of its extensions."""
    folder = shared / "reference" / "operations" / "validators" / "schemas"
    if not folder.is_dir():
        pytest.skip("needs STAC's schemas in ../shared, which is not part of the repository")
    pystac = pytest.importorskip("pystac")
    core = Path(pystac.__file__).parent / "validation" / "jsonschemas"
    known = {}
    for path in core.glob("*/v1.1.0/*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        known[schema["$id"].rstrip("#")] = schema
        known[f"https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/{path.name}"] = schema
    for path in core.glob("geojson/*.json"):
        known[f"https://geojson.org/schema/{path.name}"] = json.loads(path.read_text("utf-8"))
    for path in folder.glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        address = schema["$id"].rstrip("#")
        if match := re.fullmatch(r"(\w+)-(v[\d.]+)", path.stem):
            address = f"https://stac-extensions.github.io/{match[1]}/{match[2]}/schema.json"
        known[address] = {**schema, "$id": address}
    registry = Registry().with_resources(
        (address, Resource.from_contents(schema, default_specification=DRAFT7))
        for address, schema in known.items()
    )
    kind = "item" if document["type"] == "Feature" else "collection"
    wanted = [f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"]
    return [
        f"{address}: {list(error.path)}: {error.message[:200]}"
        for address in [*wanted, *document["stac_extensions"]]
        for error in jsonschema.Draft7Validator(known[address], registry=registry).iter_errors(
            document
        )
    ]


class _Done:
    """What came of a job, as Dask gives it."""

    status = "finished"

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def result(self, timeout: float | None = None) -> Any:
        return self._outcome

    def add_done_callback(self, function: Any) -> None:
        function(self)


class _Client:
    def submit(self, function: Any, task: Any, **_: Any) -> _Done:
        return _Done(json.loads(json.dumps(function(task))))


class _Here:
    client, dashboard = _Client(), ""

    def slots(self) -> int:
        return 1


@contextmanager
def in_this_process(*_: Any) -> Iterator[Any]:
    """In place of :func:`geoseg.archive.cluster.connected`: this process does the jobs."""
    yield _Here()


def ledger_says(out: Path) -> dict[str, Any]:
    """Keys of attempts in their order, names by key, kinds by name, and results."""
    with closing(sqlite3.connect(out / "ledger.sqlite")) as base:
        jobs = base.execute("SELECT key, name, kind, result FROM jobs ORDER BY number").fetchall()
        attempts = base.execute("SELECT key FROM attempts ORDER BY id").fetchall()
    return {
        "attempts": [key for (key,) in attempts],
        "names": {key: name for key, name, _, _ in jobs},
        "kinds": {name: kind for _, name, kind, _ in jobs if kind},
        "results": [json.loads(result) for *_, result in jobs],
    }
