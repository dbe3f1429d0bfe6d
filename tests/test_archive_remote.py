"""Archives in buckets, and scenes on servers: the same as on this machine, whatever fails."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
from click.testing import CliRunner

import geoseg
from geoseg.archive.bucket import BucketStore
from geoseg.archive.ledger import Ledger
from geoseg.archive.manifest import read_manifest
from geoseg.archive.reachable import check_scenes
from geoseg.archive.run import batch
from geoseg.archive.sources import addresses, source_of_file
from geoseg.archive.store import store_of
from geoseg.archive.worker import run_job
from geoseg.cli.batch import command as batch_command
from geoseg.core import s3
from geoseg.core.importing import EXTRAS
from geoseg.core.s3 import Bucket
from geoseg.core.s3_settings import gdal_options_of_s3, s3_settings
from geoseg.errors import OutputError, SceneError, UsageError
from geoseg.mosaicking.finding import confidence_beside, date_of, find_maps
from tests.buckets import Relay, S3Server, clean
from tests.helpers import make_raster, tiny_model
from tests.servers import FaultyServer
from tests.stacitems import earth_search, save

pytestmark = pytest.mark.extra("batch", "s3")

PARQUET = ("--vector-format", "parquet")


def make_scenes(folder: Path, count: int, size: int = 64) -> None:
    folder.mkdir()
    for number in range(count):
        rows = np.random.default_rng(number).integers(0, 3000, (2, 4, 4))
        values = np.kron(rows, np.ones((size // 4, size // 4))).astype(np.uint16)
        make_raster(folder / f"s{number:03}.tif", values, descriptions=("red", "nir"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, some scenes, and an archive of them in a folder."""
    folder = tmp_path_factory.mktemp("remote")
    tiny_model(folder / "model", ("red", "nir"), ("water", "trees", "crops"), seed=1)
    make_scenes(folder / "scenes", 4)
    done = run(folder, {}, "scenes", "-o", "archive", *PARQUET)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3") / "log")
    server.client.create_bucket(Bucket="maps")
    server.client.create_bucket(Bucket="scenes")
    yield server
    server.stop()


@pytest.fixture()
def relay(server: S3Server) -> Iterator[Relay]:
    relay = Relay(server.port)
    yield relay
    relay.stop()


@pytest.fixture()
def reach(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[pytest.MonkeyPatch]:
    """Leads this process to the server, which takes any credentials; ledgers are the test's own."""
    server.ask_for_keys(asking=False)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in clean(server.environment()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "kept" / "cache"))
    yield monkeypatch
    server.ask_for_keys(asking=False)


def arguments(*args: str) -> list[str]:
    return [sys.executable, "-m", "geoseg", "batch", "--workers", "1", "-m", "model", *args]


def run(folder: Path, environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(*args),
        cwd=folder,
        env=clean(environment),
        capture_output=True,
        text=True,
        timeout=240,
    )


def command(*args: str) -> tuple[int, str]:
    """A command in this process: its exit code, and what it said."""
    done = CliRunner().invoke(batch_command, list(args))
    said = done.output + ("" if done.exception is None else str(done.exception))
    return done.exit_code, said


def files(archive: Path) -> dict[str, bytes]:
    found = {p.relative_to(archive).as_posix(): p for p in archive.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def maps(found: dict[str, bytes]) -> dict[str, bytes]:
    """What does not know when and where it was made."""
    ends = (".tif", ".qml", ".parquet")
    return {n: c for n, c in found.items() if n.endswith(ends) and n != "items.parquet"}


def timeless(content: bytes) -> Any:
    """An item without times, and without its report's hash, which has times."""
    item = json.loads(content)
    for name in ("created", "processing:datetime", "datetime"):
        item["properties"].pop(name, None)
    del item["assets"]["report"]["file:checksum"], item["assets"]["report"]["file:size"]
    return item


def task(place: Path, out: str, scene: Path | str, key: str = "k-1") -> dict[str, Any]:
    return {
        "key": key,
        "source": addresses(source_of_file(scene).record()),
        "out": out,
        "options": {"model": str(place / "model"), "no_vector": True},
        "vector_suffix": ".parquet",
        "timeout": None,
    }


def test_a_bucket_holds_what_a_folder_does(
    place: Path, server: S3Server, relay: Relay, reach: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though the server refuses now and then, and a worker is killed while it uploads."""
    refused: set[str] = set()

    def fault(method: str, path: str) -> str | None:
        if method == "PUT" and "s001" in path and path.endswith(".qml"):
            return None if relay.holding.is_set() else "hold"
        if method == "PUT" and "/s00" in path and path not in refused:
            refused.add(path)
            return "503"
        return None

    relay.fault = fault
    own = {**server.environment(relay.port), "GEOSEG_CACHE": os.environ["GEOSEG_CACHE"]}
    given = "scenes", "-o", "s3://maps/a/b/", *PARQUET
    process = subprocess.Popen(
        arguments(*given), cwd=place, env=clean(own), stderr=subprocess.PIPE, text=True
    )
    assert relay.holding.wait(120)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    half = server.objects("maps", "a/b/")
    relay.go_on.set()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert [n for n in half if n.startswith("s001") and n.endswith("landcover.tif")]
    assert not [n for n in half if n.startswith("s001") and n.endswith("item.json")]
    found, wanted = server.objects("maps", "a/b/"), files(place / "archive")
    assert set(found) - {"ledger.txt"} == set(wanted) - {"ledger.sqlite"}
    assert maps(found) == maps(wanted) and len(maps(found)) == 12
    assert len(refused) > 12
    for name, content in found.items():
        if name.endswith("/item.json"):
            assert timeless(content) == timeless(wanted[name])
            item = json.loads(content)
            for asset in item["assets"].values():
                file = found[f"{item['id']}/{asset['href'][2:]}"]
                assert asset["file:checksum"] == "1220" + sha256(file)
        if name.startswith("models/"):
            assert content == wanted[name]
        # Where it was made is nobody's business.
        assert b"geoseg-work" not in content, name
    report = json.loads(found["report.json"])
    assert report["archive"] == "s3://maps/a/b" and report["jobs"]["done"] == 4
    assert not [
        p for p in (tmp_path / "kept").rglob("*") if "geoseg-work" in str(p) and p.is_file()
    ]
    look_after(place, server, tmp_path)


def look_after(place: Path, server: S3Server, tmp_path: Path) -> None:
    """The commands for an archive, and the mosaic, of the one that was just made."""
    archive = "s3://maps/a/b"
    again = batch(
        str(place / "scenes"), archive, model=place / "model", workers=1, vector_suffix=".parquet"
    )
    assert again.out == archive and again.counts["done"] == 4 and again.stopped == ""
    code, said = command("status", archive, "--json")
    assert code == 0 and json.loads(said)["counts"]["done"] == 4
    code, said = command("report", archive)
    assert code == 0 and f"{archive}/collection.json" in said.split()
    code, said = command("verify", archive)
    assert code == 0 and "all files are what was written" in said, said
    one = place / "archive", tmp_path / "one.tif"
    other = archive, tmp_path / "other.tif"
    tops = []
    for maps_, out in (one, other):
        geoseg.mosaic(maps_, out, top="last", no_vector=True)
        with rasterio.open(out) as dataset:
            tops.append(dataset.read())
    np.testing.assert_array_equal(*tops)
    (key,) = [n for n in server.objects("maps", "a/b/") if n.startswith("s002") and ".tif" in n]
    whole = server.client.get_object(Bucket="maps", Key=f"a/b/{key}")["Body"].read()
    changed = whole[:-1] + bytes([whole[-1] ^ 1])
    server.client.put_object(Bucket="maps", Key=f"a/b/{key}", Body=changed)
    server.client.put_object(Bucket="maps", Key="a/b/stranger/x", Body=b"")
    code, said = command("verify", archive)
    assert code == 1 and f"{key}: found {len(whole)} bytes" in said and "stranger" in said, said
    server.client.delete_object(Bucket="maps", Key=f"a/b/{key}")
    code, said = command("verify", archive)
    assert code == 1 and f"{key}: the ledger and the item has it" in said, said
    # What somebody else wrote stays, whatever its name.
    server.client.put_object(Bucket="maps", Key="a/b/collection.json", Body=b"mine")
    code, said = command("report", archive)
    assert code == 1 and "collection.json was not made by geoseg" in said
    assert server.objects("maps", "a/b/")["collection.json"] == b"mine"


def test_what_is_refused_before_the_first_job(
    place: Path, server: S3Server, reach: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(out: str, scenes: str | None = None) -> str:
        with pytest.raises((OutputError, UsageError, SceneError)) as caught:
            batch(scenes or str(place / "scenes"), out, model=place / "model", workers=1)
        # In a line, and before any job.
        assert "\n" not in str(caught.value) and "stopped in order" not in str(caught.value)
        return str(caught.value)

    server.client.put_object(Bucket="maps", Key="mine/notes.txt", Body=b"mine")
    said = refused("s3://maps/mine")
    assert "something else than an archive" in said and "mine/notes.txt" in said
    assert set(server.objects("maps", "mine/")) == {"notes.txt"}
    server.client.put_object(Bucket="maps", Key="theirs/ledger.txt", Body=b"mine")
    assert "something else than an archive" in refused("s3://maps/theirs")
    assert "is no archive" in command("status", "s3://maps/mine")[1]
    said = refused("s3://nobody/a")
    assert "NoSuchBucket" in said and "make the bucket" in said
    assert "are written into folders and into buckets" in refused("gs://maps/a")
    server.client.put_object(
        Bucket="maps", Key="far/ledger.txt", Body=b"far: 1.sqlite", Metadata={"geoseg": "1"}
    )
    assert "on the machine far" in refused("s3://maps/far")
    store_of("s3://maps/old").make()
    assert "is gone from" in command("status", "s3://maps/old")[1]
    reader = server.user("reader", "s3:GetObject", "s3:ListBucket")
    server.client.upload_file(str(place / "scenes" / "s000.tif"), "scenes", "no/s0.tif")
    server.client.upload_file(str(place / "scenes" / "s000.tif"), "scenes", "yes/s1.tif")
    (tmp_path / "list.txt").write_text("s3://scenes/no/s0.tif\ns3://scenes/yes/s1.tif\n")
    scenes = str(tmp_path / "list.txt")

    def scenes_are_refused() -> None:
        said = refused(str(tmp_path / "archive"), scenes)
        assert "none of 2 scenes that were tried may be read" in said and "AWS_PROFILE" in said
        with Ledger(tmp_path / "archive" / "ledger.sqlite") as ledger:
            assert ledger.counts()["waiting"] == 2 == sum(ledger.counts().values())

    server.ask_for_keys(asking=True)
    for keys, code, setting in (
        (reader, "AccessDenied", "policy"),
        ({**reader, "AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch", "AWS_SECRET"),
        ({"AWS_ACCESS_KEY_ID": "x"}, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
    ):
        for name, value in keys.items():
            reach.setenv(name, value)
        for out in ("s3://maps/new", "s3://maps/old"):
            said = refused(out)
            assert code in said and setting in said, said
        if keys is not reader:
            scenes_are_refused()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        reach.delenv(name)
    assert "NoCredentialsError" in refused("s3://maps/new")
    scenes_are_refused()
    server.ask_for_keys(asking=False)
    assert not server.objects("maps", "new")


def test_a_scene_that_is_denied_among_others(
    place: Path, server: S3Server, reach: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = server.user("some", "s3:GetObject", on="arn:aws:s3:::scenes/yes/*")
    for name in ("no/s0.tif", "yes/s1.tif"):
        server.client.upload_file(str(place / "scenes" / "s000.tif"), "scenes", name)
    server.ask_for_keys(asking=True)
    for name, value in user.items():
        reach.setenv(name, value)
    scenes = [source_of_file(f"s3://scenes/{n}") for n in ("no/s0.tif", "yes/s1.tif", "yes/s2.tif")]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(scene.job({}, "0") for scene in scenes)
        check_scenes(ledger, {})
    kinds = [
        run_job(task(place, str(tmp_path), scene.files[0], f"k-{number}")).get("kind")
        for number, scene in enumerate(scenes)
    ]
    assert kinds[:2] == ["denied", None] and kinds[2] in ("missing", "denied")


def test_a_bucket_that_fails_amid_the_run(
    place: Path,
    server: S3Server,
    relay: Relay,
    reach: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What may pass is tried later; what lasts stops the run; an item never comes without all."""
    scene, wanted = place / "scenes" / "s000.tif", next((place / "archive").glob("s000-*"))

    def job(out: str) -> tuple[str, str, bool]:
        done = run_job(task(place, out, scene))
        return done.get("kind", "done"), done.get("reason", ""), done.get("passing", False)

    store_of("s3://maps/amid").make()
    reach.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{relay.port}")
    relay.fault = lambda method, path: "503" if path.endswith(".qml") else None
    kind, reason, passing = job("s3://maps/amid")
    assert kind == "unreachable" and passing and "SlowDown" in reason, reason
    for silent in ("hold", None):
        relay.fault = lambda method, path, fault=silent: fault if "item" not in path else None
        reach.setattr("geoseg.core.s3._SILENCE", 1)
        s3._made.cache_clear()
        reach.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{relay.port if silent else 9}")
        kind, reason, passing = job("s3://maps/amid")
        assert kind == "unreachable" and passing, reason
        assert ("ReadTimeoutError" if silent else "EndpointConnectionError") in reason, reason
    reach.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{relay.port}")
    relay.go_on.set()
    put = Bucket.put

    def cut(self: Bucket, key: str, content: Any, **more: Any) -> None:
        if key.endswith(".tif"):
            content = io.BytesIO(content.read()[:-100])
            more["sha256"] = sha256(content.getvalue())
        put(self, key, content, **more)

    reach.setattr(Bucket, "put", cut)
    kind, reason, passing = job("s3://maps/amid")
    assert kind == "unreachable" and passing and "landcover.tif has" in reason, reason
    reach.setattr(Bucket, "put", put)
    assert not [name for name in server.objects("maps", "amid/") if "item" in name]
    # What a failed job left is there for the next try; what a done one left is not.
    work = tmp_path / "kept" / "geoseg-work"
    assert len([*work.glob("*/.geoseg-k-1")]) == 1
    assert job("s3://maps/none")[0] == "done"  # workers do not ask whose the place is
    kind, reason, passing = job("s3://gone/amid")
    assert kind == "stop" and "NoSuchBucket" in reason, reason
    # A later try replaces what is there, and only what geoseg made.
    assert job("s3://maps/amid")[0] == "done"
    assert len([*work.glob("*/.geoseg-k-1")]) == 1  # of the bucket that is not there
    found = server.objects("maps", "amid/k-1/")
    assert found["landcover.tif"] == (wanted / "landcover.tif").read_bytes()
    server.client.put_object(Bucket="maps", Key="amid/k-1/landcover.qml", Body=b"mine")
    kind, reason, _ = job("s3://maps/amid")
    assert kind == "output" and "landcover.qml was not made by geoseg" in reason
    assert server.objects("maps", "amid/k-1/") == {**found, "landcover.qml": b"mine"}


def test_a_worker_without_boto3_stops_the_run(
    place: Path, reach: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would send one scene after another to quarantine."""
    reach.setitem(EXTRAS, "s3", ("geoseg_test_package",))
    done = run_job(task(place, "s3://maps/without", place / "scenes" / "s000.tif"))
    assert done["kind"] == "stop" and "pip install 'geoseg[s3]'" in done["reason"]


def test_two_that_begin_an_archive_at_once(
    server: S3Server, relay: Relay, reach: pytest.MonkeyPatch
) -> None:
    """Of two machines one is refused; a server that can't tell who was first is taken as it is."""
    said = BucketStore._said

    def begun_since(self: BucketStore) -> str | None:
        reach.setattr(BucketStore, "_said", said)
        server.client.put_object(
            Bucket="maps", Key="at_once/ledger.txt", Body=b"far: 1.sqlite", Metadata={"geoseg": "1"}
        )
        return None

    reach.setattr(BucketStore, "_said", begun_since)
    reach.setattr(BucketStore, "_check_empty", lambda self: None)
    with pytest.raises(UsageError, match="on the machine far"):
        store_of("s3://maps/at_once").make()
    reach.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{relay.port}")
    relay.fault = lambda method, path: "501" if method == "PUT" and not relay.failed else None
    store_of("s3://maps/plain").make()
    assert list(server.objects("maps", "plain/")) == ["ledger.txt"] and len(relay.failed) == 1


def test_what_jobs_leave_on_a_workers_disk(reach: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is there for the next try, not for two at once, and not for ever."""
    store = store_of("s3://maps/disk")
    paths = []
    for key in ("old", "new"):
        with pytest.raises(ZeroDivisionError), store.job_folder(key) as folder:
            paths.append(folder)
            1 / 0  # noqa: B018
    (paths[1] / "strip").write_bytes(b"x")
    os.utime(paths[0], (0, 0))
    with store.job_folder("new") as folder:
        assert (folder / "strip").exists() and not paths[0].exists()
        with pytest.raises(OutputError, match="another run is at work"), store.job_folder("new"):
            raise AssertionError
    assert not folder.exists()


def test_bodies_that_break_off_are_read_to_the_end(
    server: S3Server, relay: Relay, reach: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(3_000_000)
    server.client.put_object(Bucket="maps", Key="large", Body=content)
    reach.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{relay.port}")
    relay.fault = lambda method, path: "cut" if len(relay.failed) < 2 else None
    with Bucket("maps").open("large") as file:
        # No comparison of the bytes themselves: how they differ would be shown at length.
        assert sha256(file.read()) == sha256(content)
    assert len(relay.failed) == 2
    relay.fault = lambda method, path: "cut"
    with pytest.raises(OSError, match="broke off"), Bucket("maps").open("large") as file:
        file.read()


def test_large_files_are_sent_in_parts(server: S3Server, reach: pytest.MonkeyPatch) -> None:
    reach.setattr("geoseg.core.s3.MOST_PUT", 1_000_000)
    reach.setattr("geoseg.core.s3._PART", 5 << 20)
    content = np.random.default_rng(1).bytes(6 << 20)
    bucket = Bucket("maps")
    bucket.put("parts", io.BytesIO(content), media="image/tiff", marks={"geoseg": "1"}, sha256="")
    about = bucket.about("parts")
    assert about is not None and about.size == len(content) and about.marks == {"geoseg": "1"}
    assert sha256(server.objects("maps", "parts")[""]) == sha256(content)


def test_items_in_a_bucket_are_scenes(
    place: Path, server: S3Server, reach: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One item, many, and a catalogue that links them; each map is the local one's."""
    folder = tmp_path / "item"
    folder.mkdir()
    item = earth_search(folder)
    save(folder, item)
    collection = {"type": "FeatureCollection", "features": [item]}
    (folder / "items.json").write_text(json.dumps(collection), encoding="utf-8")
    links = [{"rel": "item", "href": href} for href in ("./item.json", "s3://other/item.json")]
    catalog = {"type": "Catalog", "id": "c", "links": links[:1]}
    (folder / "catalog.json").write_text(json.dumps(catalog), encoding="utf-8")
    (folder / "astray.json").write_text(json.dumps({**catalog, "links": links}), encoding="utf-8")
    for path in folder.iterdir():
        server.client.upload_file(str(path), "scenes", f"stac/{path.name}")
    found = {
        name: list(read_manifest(f"s3://scenes/stac/{name}.json"))
        for name in ("item", "items", "catalog")
    }
    for sources in found.values():
        (source,) = sources
        assert source.item is not None
        hrefs = {asset["href"] for asset in source.item["assets"].values()}
        assert "s3://scenes/stac/B04.tif" in hrefs
    with pytest.raises(SceneError, match="in a bucket leads to that and to http"):
        list(read_manifest("s3://scenes/stac/astray.json"))
    options = {"model": "landcover-ms", "no_vector": True}
    local = geoseg.predict(folder / "item.json", tmp_path / "a.tif", **options)
    remote = geoseg.predict("s3://scenes/stac/item.json", tmp_path / "b.tif", **options)
    job = task(place, str(tmp_path), "x")
    job |= {"source": addresses(found["items"][0].record()), "options": options}
    assert run_job(job)["outcome"] == "done"
    pixels = []
    for path in (local.raster, remote.raster, tmp_path / "k-1" / "landcover.tif"):
        with rasterio.open(path) as dataset:
            pixels.append(dataset.read())
    assert len(np.unique(pixels[0])) > 1
    for other in pixels[1:]:
        np.testing.assert_array_equal(pixels[0], other)
    with pytest.raises(SceneError, match=r"s3://scenes/stac/none.json does not exist"):
        geoseg.predict("s3://scenes/stac/none.json", tmp_path / "c.tif", **options)


def test_what_lies_beside_a_map_in_a_bucket(server: S3Server, reach: pytest.MonkeyPatch) -> None:
    """Its date and its confidence, for mosaics."""
    item = {"properties": {"datetime": "2024-06-01T10:20:30Z"}}
    put = server.client.put_object
    for name, content in (
        ("a/landcover.tif", b"a"),
        ("a/item.json", json.dumps(item).encode()),
        ("a/confidence.tif", b"c"),
        ("b/landcover.tif", b"b"),
        ("b/below/landcover.tif", b"no scene"),
        (".geoseg-c/landcover.tif", b"of a run"),
    ):
        put(Bucket="maps", Key=f"beside/{name}", Body=content)
    found, _ = find_maps("s3://maps/beside/")
    assert found == ["s3://maps/beside/a/landcover.tif", "s3://maps/beside/b/landcover.tif"]
    assert find_maps("s3://maps/beside/b")[0] == found[1:]
    assert [str(date_of(path)) for path in found] == ["2024-06-01 10:20:30+00:00", "None"]
    assert [confidence_beside(path) for path in found] == [
        "s3://maps/beside/a/confidence.tif",
        None,
    ]
    with pytest.raises(SceneError, match=r"holds no \*/landcover.tif"):
        find_maps("s3://maps/nothing")
    with pytest.raises(SceneError, match="NoSuchBucket"):
        find_maps("s3://nobody/nothing")


def test_gdal_and_boto3_are_led_to_the_same_server(
    place: Path, server: S3Server, reach: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING", "AWS_REGION"):
        reach.delenv(name)
    reach.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.port}")
    reach.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.client.upload_file(str(place / "scenes" / "s001.tif"), "scenes", "s001.tif")
    done = run_job(task(place, "s3://maps/boto", "s3://scenes/s001.tif"))
    assert done["outcome"] == "done", done
    (local,) = (place / "archive").glob("s001-*/landcover.tif")
    assert server.objects("maps", "boto/k-1/")["landcover.tif"] == local.read_bytes()


def test_what_the_environment_says_of_s3() -> None:
    said = {
        "AWS_S3_ENDPOINT": "minio:9000",
        "AWS_HTTPS": "no",
        "AWS_ENDPOINT_URL": "https://b",
        "AWS_NO_SIGN_REQUEST": "YES",
    }
    found = s3_settings(said)
    assert (found.endpoint, found.in_host, found.signed) == ("http://minio:9000", True, False)
    assert "AWS_S3_ENDPOINT" not in gdal_options_of_s3(said)
    found = s3_settings({"AWS_ENDPOINT_URL": "https://b", "AWS_REGION": "r"})
    assert (found.endpoint, found.in_host, found.region) == ("https://b", None, "r")
    assert s3_settings({}).endpoint is None and gdal_options_of_s3({}) == {}
    ignored = {"AWS_ENDPOINT_URL": "https://b", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
    assert s3_settings(ignored).endpoint is None and gdal_options_of_s3(ignored) == {}
    assert gdal_options_of_s3({"AWS_CA_BUNDLE": "c.pem", "AWS_DEFAULT_REGION": "r"}) == {
        "CURL_CA_BUNDLE": "c.pem",
        "AWS_REGION": "r",
    }


def test_scenes_of_a_server_that_fails_now_and_then(place: Path, tmp_path: Path) -> None:
    """Each map is the local scene's; one that is missing and one that is denied are named so."""
    shutil.copytree(place / "scenes", tmp_path / "served")
    shutil.copy(place / "scenes" / "s000.tif", tmp_path / "served" / "mine.tif")
    faulty = FaultyServer(tmp_path / "served")
    try:
        faulty.forbidden = {"/mine.tif"}
        faults = {0: "503", 1: "cut", 3: "503", 4: "cut", 6: "cut"}
        faulty.fault = lambda number, first: faults.get(number)
        names = [*(f"s00{number}" for number in range(4)), "none", "mine"]
        listed = "".join(f"{faulty.url}/{name}.tif\n" for name in names)
        (tmp_path / "list.txt").write_text(listed, encoding="utf-8")
        soon = {"GDAL_HTTP_RETRY_DELAY": "0.1", "GDAL_HTTP_LOW_SPEED_TIME": "2"}
        archive = tmp_path / "archive"
        done = run(place, soon, str(tmp_path / "list.txt"), "-o", str(archive), *PARQUET)
        assert done.returncode == 3, done.stderr
        assert faulty.failed == len(faults)
    finally:
        faulty.stop()
    with Ledger(archive / "ledger.sqlite") as ledger:
        assert ledger.counts()["done"] == 4
        kinds = {job.name: job.kind for job in ledger.jobs("quarantined")}
    assert kinds == {"none": "missing", "mine": "denied"}

    def by_scene(found: dict[str, bytes]) -> dict[str, bytes]:
        return {name[:4] + name[name.index("/") :]: content for name, content in found.items()}

    assert by_scene(maps(files(archive))) == by_scene(maps(files(place / "archive")))
