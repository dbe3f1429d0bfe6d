"""Scenes over a network, and in archives: the local file's bytes, or a clear end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio.env

from geoseg.core.gdal import gdal_options
from geoseg.errors import SceneError
from geoseg.scene.opening import open_scene
from tests.buckets import S3Server
from tests.helpers import make_raster, tiny_model
from tests.servers import FaultyServer

#: Nobody waits for the half minute of the defaults; it also shows that the user's word is taken.
SOON = {"GDAL_HTTP_LOW_SPEED_TIME": "1", "GDAL_HTTP_RETRY_DELAY": "0.1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 3000 x 2000 px, also in an archive; a model; and the map of the local file."""
    folder = tmp_path_factory.mktemp("remote")
    random = np.random.default_rng(0)
    fields = random.integers(1, 255, (3, 40, 60)).repeat(50, axis=1).repeat(50, axis=2)
    # What the model does not look at makes the file large: its bytes don't pack.
    noise = random.integers(1, 255, (1, 2000, 3000))
    make_raster(
        folder / "scene.tif",
        np.concatenate([fields, noise]).astype(np.uint8),
        descriptions=("red", "green", "blue", "nir"),
        nodata=0,
        tiled=True,
        compress="deflate",
    )
    with zipfile.ZipFile(folder / "scene.zip", "w") as archive:
        archive.write(folder / "scene.tif", "scene.tif")
    tiny_model(folder / "model", ("red", "green", "blue"), ("a", "b", "c"), size=256, overlap=32)
    done = predict(folder, folder / "scene.tif", folder / "local")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture()
def server(place: Path) -> Iterator[FaultyServer]:
    server = FaultyServer(place)
    yield server
    server.stop()


def predict(
    place: Path, scene: str | Path, out: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command into a folder of its own."""
    out.mkdir(exist_ok=True)
    return subprocess.run(
        [
            *(sys.executable, "-m", "geoseg", "predict", str(scene), "-m", str(place / "model")),
            *("-o", "map.tif", "--vector", "map.parquet", "--runtime", "openvino"),
            *("--precision", "fp32", *options),
        ],
        cwd=out,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def assert_same(place: Path, out: Path, done: subprocess.CompletedProcess[str]) -> None:
    """The outputs are the local file's, byte by byte."""
    assert done.returncode == 0, done.stderr
    for name in ("map.tif", "map.parquet", "map.qml"):
        assert (out / name).read_bytes() == (place / "local" / name).read_bytes(), name


def test_over_http(place: Path, server: FaultyServer, tmp_path: Path) -> None:
    assert_same(place, tmp_path, predict(place, f"{server.url}/scene.tif", tmp_path))
    assert server.bodies > 1 and server.failed == 0


def test_over_http_as_an_independent_server_gives_it(place: Path, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "RangeHTTPServer", "0", "--bind", "127.0.0.1"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        done = predict(place, f"http://127.0.0.1:{port}/scene.tif", tmp_path)
        assert_same(place, tmp_path, done)
    finally:
        server.kill()
        server.wait()


def test_in_an_archive(place: Path, tmp_path: Path) -> None:
    scene = f"/vsizip/{place / 'scene.zip'}/scene.tif"
    assert_same(place, tmp_path, predict(place, scene, tmp_path))


def test_in_an_archive_over_http(place: Path, server: FaultyServer, tmp_path: Path) -> None:
    scene = f"/vsizip/vsicurl/{server.url}/scene.zip/scene.tif"
    assert_same(place, tmp_path, predict(place, scene, tmp_path))


@pytest.mark.parametrize("url", ["s3://scenes/a/scene.tif", "/vsis3/scenes/a/scene.tif"])
def test_from_s3(place: Path, tmp_path: Path, s3: dict[str, str], url: str) -> None:
    assert_same(place, tmp_path, predict(place, url, tmp_path, **s3))


def test_what_s3_does_not_have_is_named_at_once(
    place: Path, tmp_path: Path, s3: dict[str, str]
) -> None:
    start = time.monotonic()
    done = predict(place, "s3://scenes/a/none.tif", tmp_path, **s3)
    assert done.returncode == 1 and "check the address and the access rights" in done.stderr
    assert time.monotonic() - start < 20  # Python and its libraries take some


@pytest.fixture(scope="module")
def s3(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server with the scene; gives the environment that leads there."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "log")
    try:
        server.client.create_bucket(Bucket="scenes")
        server.client.upload_file(str(place / "scene.tif"), "scenes", "a/scene.tif")
        yield server.environment()
    finally:
        server.stop()


def test_a_local_scene_where_the_user_has_gdal_look_at_no_other_file(
    place: Path, tmp_path: Path
) -> None:
    done = predict(place, place / "scene.tif", tmp_path, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    assert_same(place, tmp_path, done)


@pytest.mark.parametrize("fault", ["cut", "503", "stall"])
def test_a_server_that_fails_now_and_then(
    place: Path, server: FaultyServer, tmp_path: Path, fault: str
) -> None:
    # Twice in a row, also at the very first one, which is the header.
    server.fault = lambda number, first: fault if number % 16 in (0, 1) else None
    done = predict(place, f"{server.url}/scene.tif", tmp_path, **SOON)
    assert_same(place, tmp_path, done)
    assert server.failed >= 4


def test_a_slow_server_is_waited_for(place: Path, server: FaultyServer, tmp_path: Path) -> None:
    """Longer than a server may be silent, which is not too short for a machine with much to do."""
    server.fault = lambda number, first: "slow" if number < 2 else None
    silent = {**SOON, "GDAL_HTTP_LOW_SPEED_TIME": "3"}
    done = predict(place, f"{server.url}/scene.tif", tmp_path, **silent)
    assert_same(place, tmp_path, done)
    assert server.broken_off == 0


def test_a_server_may_be_silent_for_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"GDAL_HTTP_LOW_SPEED_TIME": "30", "GDAL_HTTP_LOW_SPEED_LIMIT": "1000"}
    with gdal_options("https://example.org/scene.tif"):
        assert wanted.items() <= {k: str(v) for k, v in rasterio.env.getenv().items()}.items()
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "60")
    with gdal_options("https://example.org/scene.tif"):
        assert "GDAL_HTTP_LOW_SPEED_TIME" not in rasterio.env.getenv()
    with gdal_options("scene.tif"):
        assert not wanted.keys() & rasterio.env.getenv().keys()


def test_a_server_that_refuses_everything_is_not_asked_for_long(
    place: Path, server: FaultyServer, tmp_path: Path
) -> None:
    """It took 195 requests and 80 seconds, and the file was of no known format."""
    server.fault = lambda number, first: "503"
    done = predict(place, f"{server.url}/scene.tif", tmp_path, **SOON)
    assert done.returncode == 1 and "HTTP response code: 503, 5 times" in done.stderr
    assert "give the same command again later" in done.stderr
    assert server.bodies == 5


@pytest.mark.parametrize("fault", ["cut", "stall", "503"])
def test_a_server_that_fails_for_good_ends_the_run_and_the_same_command_goes_on(
    place: Path, server: FaultyServer, tmp_path: Path, fault: str
) -> None:
    # GDAL would keep the whole scene otherwise.
    little = {**SOON, "CPL_VSIL_CURL_CACHE_SIZE": "1000000"}

    def fails(number: int, first: int) -> str | None:
        return fault if len(list(tmp_path.rglob("strip-*.json"))) >= 2 else None

    server.fault = fails
    start = time.monotonic()
    stopped = predict(place, f"{server.url}/scene.tif", tmp_path, **little)
    assert time.monotonic() - start < 60
    assert stopped.returncode == 1
    error = stopped.stderr.strip().splitlines()[-1]
    assert "scene.tif: rows" in error and "give the same command again later" in error
    assert ("HTTP response code: 503" in error) == (fault == "503")
    assert "finished strip" in stopped.stderr
    assert server.failed < 20, server.failed
    assert not (tmp_path / "map.tif").exists()
    server.fault = lambda number, first: None
    done = predict(place, f"{server.url}/scene.tif", tmp_path)
    assert "going on after" in done.stderr
    assert_same(place, tmp_path, done)


def test_a_scene_that_is_not_there_is_named_at_once(
    place: Path, server: FaultyServer, tmp_path: Path
) -> None:
    start = time.monotonic()
    done = predict(place, f"{server.url}/none.tif", tmp_path)
    assert done.returncode == 1 and "HTTP response code: 404" in done.stderr
    assert time.monotonic() - start < 20


def test_a_server_that_is_down_is_asked_again_by_the_same_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GDAL would keep for good that the file does not exist."""
    monkeypatch.setattr("geoseg.core.gdal.NETWORK_DELAYS", (0.01, 0.01))
    for _ in range(2):
        with pytest.raises(SceneError, match=r"[Cc]onnect"):
            open_scene("http://127.0.0.1:9/x.tif")
