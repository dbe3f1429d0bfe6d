"""Passwords and tokens in addresses reach nobody but the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geoseg
from geoseg.core.names import full_address, public_name, scrub
from geoseg.errors import GeosegError
from tests import forked
from tests.canary import Server, plain, serving
from tests.helpers import make_raster, tiny_model

TOKEN, PASSWORD = "Tok3nOfTheDay", "Passw0rdOfMine"


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("scene.tif", "scene.tif"),
        ("what?.tif", "what?.tif"),
        ("a#b/x@y.tif", "a#b/x@y.tif"),
        ("/vsizip/a@b.zip/x?.tif", "/vsizip/a@b.zip/x?.tif"),
        ("https://example.org/a.tif", "https://example.org/a.tif"),
        ("https://me:pw@example.org:8/a@b.tif", "https://example.org:8/a@b.tif"),
        ("https://token@example.org/a.tif", "https://example.org/a.tif"),
        ("https://example.org/a.tif?sig=x&se=2026&sp=r&sv=1", "https://example.org/a.tif?..."),
        ("https://e.org/a.tif?X-Amz-Signature=x&X-Amz-Date=1", "https://e.org/a.tif?..."),
        ("https://e.org/a.tif?AWSAccessKeyId=x&Signature=y&Expires=1", "https://e.org/a.tif?..."),
        ("https://e.org/a.tif?access_token=x", "https://e.org/a.tif?..."),
        ("https://e.org/a.tif#token=x", "https://e.org/a.tif?..."),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
        ("/vsicurl/https://me:pw@e.org/a.tif?token=x", "/vsicurl/https://e.org/a.tif?..."),
        (
            "/vsicurl?header.Authorization=Bearer%20x&url=https%3A%2F%2Fme%3Apw%40e.org%2Fa.tif",
            "/vsicurl/https://e.org/a.tif",
        ),
        ("/vsizip/vsicurl/https://e.org/a.zip?sig=x/b.tif", "/vsizip/vsicurl/https://e.org/a.zip?..."),
        ("zip+https://me:pw@e.org/a.zip!b.tif", "zip+https://e.org/a.zip!b.tif"),
    ],
)  # fmt: skip
def test_public_names(given: str, public: str) -> None:
    assert public_name(given) == public
    assert public_name(public) == public
    assert full_address(public_name(given)) == given


def test_two_scenes_have_two_names_and_a_renewed_token_is_the_same_scene() -> None:
    address = "https://example.org/get?"
    names = [
        public_name(address + query)
        for query in ("id=1&token=a", "token=b&id=1", "id=2&token=a", "id=12", "token=a")
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert not any("id=" in name or "token" in name for name in names)
    assert full_address(names[1]) == f"{address}token=b&id=1"


def test_texts_of_others_are_scrubbed() -> None:
    public_name(f"https://me:{PASSWORD}@example.org/a.tif?sig={TOKEN}")
    text = scrub(
        f"HTTP response code: 403 - https://me:{PASSWORD}@example.org/a.tif?sig={TOKEN}, "
        f"/vsicurl/http://u:{PASSWORD}@e.org/b.tif?x={TOKEN} "
        f"and /vsicurl?header.a={TOKEN}&url=https%3A%2F%2Fe.org"
    )
    assert TOKEN not in text and PASSWORD not in text
    assert "https://example.org/a.tif?..." in text and "http://e.org/b.tif?..." in text
    assert scrub("rows 1 to 5 of scene.tif: what?") == "rows 1 to 5 of scene.tif: what?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    values = np.random.default_rng(0).integers(0, 200, (1, 300, 200)).astype(np.uint8)
    make_raster(folder / "scene.tif", values, descriptions=("red",))
    plain(folder / "map.tif")
    make_raster(folder / "labels.tif", values % 2)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model", ("red",), ("dark", "bright"))


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serving(folder) as found:
        yield found


def secret_url(server: Server, name: str) -> str:
    address = server.address.replace("http://", f"http://me:{PASSWORD}@")
    return f"{address}/{name}?sig={TOKEN}&sv=2026&item=A_{TOKEN}_B"


def leaks(place: Path, *texts: str) -> list[str]:
    """Where a secret stands: in what was said, in names and contents of all files."""
    found = [text for text in texts if TOKEN in text or PASSWORD in text]
    for path in place.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(s in str(path) or s.encode() in content for s in (TOKEN, PASSWORD)):
            found.append(str(path))
    return found


def command(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked.run(
        [sys.executable, "-m", "geoseg", *arguments],
        cwd=cwd,
        env={**os.environ, "CPL_CURL_VERBOSE": "NO"},
    )


def test_predict_keeps_the_secret(
    server: Server, model: Path, tmp_path: Path, folder: Path
) -> None:
    arguments = ("predict", secret_url(server, "scene.tif"), "-m", model, "--progress", "json")
    done = command(*arguments, "-v", "--probs", "probs.tif", "--preview", "p.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not leaks(tmp_path, done.stdout, done.stderr)
    assert any(TOKEN in hit for hit in server.hits)  # whom it is for
    report = json.loads((tmp_path / "scene_landcover.json").read_text())
    (shown,) = report["scene"]["paths"]
    assert shown.startswith(f"{server.address}/scene.tif?...")
    own = geoseg.predict(folder / "scene.tif", tmp_path / "own.tif", model=model, no_vector=True)
    assert own.raster.read_bytes() == (tmp_path / "scene_landcover.tif").read_bytes()


@pytest.mark.parametrize("verbose", [(), ("-vv",)])
def test_failures_keep_the_secret(
    server: Server, model: Path, tmp_path: Path, verbose: tuple[str, ...]
) -> None:
    for name in ("none.tif", "none.vrt", "none.jp2"):
        for arguments in (
            ("predict", secret_url(server, name), "-m", model, "--progress", "json"),
            ("info", secret_url(server, name), "--json"),
        ):
            done = command(*arguments, *(verbose if "predict" in arguments else ()), cwd=tmp_path)
            assert done.returncode == 1
            assert not leaks(tmp_path, done.stdout, done.stderr)
            assert f"{server.address}/{name}" in done.stderr


def test_other_commands_keep_the_secret(server: Server, tmp_path: Path, model: Path) -> None:
    url, labels, scene = (secret_url(server, f"{n}.tif") for n in ("map", "labels", "scene"))
    said = []
    for arguments in (
        ("info", scene, "-m", model, "--json"),
        ("vectorize", url),
        ("sample", url, "-n", "9", "-o", "points.gpkg"),
        ("check-seams", url, "--size", "32", "--overlap", "8", "--json"),
        ("evaluate", url, "--labels", url, "--json", "e.json", "--csv", "e.csv"),
        ("evaluate", url, "--labels", url, "--html", "e.html"),
        ("evaluate", url, "--points", url),
        ("evaluate", model, "--labels", labels, "--scene", scene, "--write-card"),
        ("predict", url, "-m", model, "-b", "1", "--aoi", url),
    ):  # fmt: skip
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == (2 if {"--points", "--aoi"} & set(arguments) else 0), done.stderr
        said += [done.stdout, done.stderr]
    assert (tmp_path / "map.gpkg").exists()
    assert not leaks(tmp_path, *said)
    assert not leaks(model)


def test_a_stopped_run_keeps_the_secret_and_goes_on_with_a_renewed_one(
    server: Server, model: Path, tmp_path: Path
) -> None:
    url = secret_url(server, "scene.tif")

    def stop(event: dict[str, Any]) -> None:
        told.append(json.dumps(event))
        if event["event"] == "progress" and event["done"] > 0.7 * event["total"]:
            raise KeyboardInterrupt

    told: list[str] = []
    options: dict[str, Any] = {"model": model, "no_vector": True, "size": 64, "overlap": 16}
    with pytest.raises(KeyboardInterrupt) as caught:
        geoseg.predict(url, tmp_path / "o.tif", progress=stop, **options)
    hidden = [path for path in tmp_path.iterdir() if path.name.startswith(".geoseg")]
    assert hidden
    assert not leaks(tmp_path, str(caught.value), *told)
    with pytest.raises(GeosegError) as other:
        geoseg.predict(url.replace("item=A", "item=B"), tmp_path / "o.tif", **options)
    assert TOKEN not in str(other.value)
    events: list[dict[str, Any]] = []
    renewed = url.replace(f"sig={TOKEN}", "sig=another")
    geoseg.predict(renewed, tmp_path / "o.tif", progress=events.append, **options)
    assert any("finished strip" in event.get("message", "") for event in events)
    assert not leaks(tmp_path, *(json.dumps(event) for event in events))
