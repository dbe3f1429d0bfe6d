"""The certificate of an archive: one byte, one file more or less, and it says so."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.archive.verify import FINDINGS, Finding, certificate_text, verify
from tests.archives import KEY, example_archive


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """An archive of one real map."""
    out = tmp_path_factory.mktemp("archive")
    example_archive(out)
    return out


def about(path: Path):
    content = path.read_bytes()
    return {"size": len(content), "checksum": hashlib.sha256(content).hexdigest()}


def ledger_of(out: Path):
    """What a ledger says of an archive as it is now."""
    folders = [f for f in out.iterdir() if f.is_dir() and f.name != "models"]
    return {f.name: {p.name: about(p) for p in f.iterdir()} for f in folders}


def add_job(out: Path, key: str, **files: bytes) -> None:
    """A small job: its files, and an item that knows them."""
    folder = out / key
    folder.mkdir(parents=True)
    assets = {}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        checksum = "1220" + hashlib.sha256(content).hexdigest()
        assets[name] = {"href": f"./{name}", "file:size": len(content), "file:checksum": checksum}
    (folder / "item.json").write_text(json.dumps({"id": key, "assets": assets}))


@pytest.fixture
def out(tmp_path):
    for i in range(5):
        add_job(tmp_path, f"scene-{i}", map=bytes([i]) * 1000, polygons=b"p" * i)
    return tmp_path


def kinds(certificate):
    return [(finding.kind, finding.path) for finding in certificate.findings]


def test_a_real_archive_is_whole(real):
    found = verify(real, ledger_of(real))
    assert found.is_whole
    assert found.jobs == 1
    paths = [p for p in (real / KEY).iterdir()]
    assert (found.files, found.bytes) == (len(paths), sum(p.stat().st_size for p in paths))
    text = certificate_text(found)
    assert found.sha256 in text
    assert text.endswith("all files are what was written\n")


def test_sha256sum_finds_the_same(real, tmp_path):
    if shutil.which("sha256sum") is None:
        pytest.skip("needs the program sha256sum")
    lines = []
    found = verify(real, ledger_of(real), each=lines.append)
    assert lines == sorted(lines, key=lambda line: line.split("  ")[1])
    listing = tmp_path / "SHA256SUMS"
    listing.write_text("".join(f"{line}\n" for line in lines))
    subprocess.run(["sha256sum", "--check", "--strict", listing], cwd=real, check=True)
    assert hashlib.sha256(listing.read_bytes()).hexdigest() == found.sha256


def test_one_byte_of_any_file_is_found(real, tmp_path):
    ledger = ledger_of(real)
    before = verify(real, ledger)
    for name in sorted(ledger[KEY]):
        copy = tmp_path / name
        shutil.copytree(real, copy)
        path = copy / KEY / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        found = verify(copy, ledger)
        assert ("differs", f"{KEY}/{name}") in kinds(found)
        assert found.sha256 != before.sha256
        (finding, *_) = [f for f in found.findings if f.kind == "differs"]
        assert "the ledger has" in finding.text
        assert ("the item has" in finding.text) == (name != "item.json")
        assert not found.is_whole
        assert "is not what was written" in certificate_text(found)


@given(at=st.integers(0, 999), change=st.integers(1, 255))
@settings(max_examples=30)
def test_one_byte_anywhere_is_found(at, change, tmp_path_factory):
    out = tmp_path_factory.mktemp("archive")
    add_job(out, "a", map=bytes(1000))
    ledger = ledger_of(out)
    content = bytearray(1000)
    content[at] ^= change
    (out / "a" / "map").write_bytes(content)
    assert kinds(verify(out, ledger)) == [("differs", "a/map")]


def test_an_item_that_disagrees_with_the_ledger_is_found(out):
    """Both are right about themselves, and the file is as the ledger has it."""
    ledger = ledger_of(out)
    item = json.loads((out / "scene-1" / "item.json").read_text())
    item["assets"]["map"]["file:checksum"] = "1220" + "0" * 64
    (out / "scene-1" / "item.json").write_text(json.dumps(item))
    ledger["scene-1"]["item.json"] = about(out / "scene-1" / "item.json")
    found = verify(out, ledger)
    assert kinds(found) == [("differs", "scene-1/map")]
    assert "the item has" in found.findings[0].text
    assert "ledger" not in found.findings[0].text


def test_what_is_missing_and_what_is_too_much_is_found(out):
    ledger = ledger_of(out)
    (out / "scene-0" / "map").unlink()
    (out / "scene-1" / "item.json").unlink()
    shutil.rmtree(out / "scene-2")
    (out / "scene-3" / "notes.txt").write_text("mine")
    (out / "scene-3" / "map.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata></PAMDataset>'
    )
    (out / "scene-4" / "map.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    add_job(out, "stranger", map=b"x")
    (out / "folder").mkdir()
    add_job(out, "half", map=b"x")
    (out / "begun").mkdir()
    (out / "begun" / "landcover.tif").write_bytes(b"x")
    (out / ".hidden").mkdir()
    (out / "models").mkdir()
    (out / "collection.json").write_text("{}")
    found = verify(out, ledger, unfinished={"half", "begun", "waiting"})
    assert kinds(found) == [
        ("missing", "scene-0/map"),
        ("missing", "scene-1/item.json"),
        ("missing", "scene-2/item.json"),
        ("missing", "scene-2/map"),
        ("missing", "scene-2/polygons"),
        ("no item", "scene-1/item.json"),
        ("no item", "scene-2/item.json"),
        ("not done", "half/item.json"),
        ("unknown file", "scene-3/notes.txt"),
        ("unknown file", "scene-4/map.aux.xml"),
        ("unknown folder", "folder"),
        ("unknown folder", "stranger"),
    ]
    assert found.counts["missing"] == 5
    text = certificate_text(found)
    for kind in found.counts:
        assert FINDINGS[kind] in text
    assert "stranger: with an item" in text
    assert json.dumps(found.as_json())


def test_a_ledger_without_the_items_is_enough(out):
    """It need not know the item's own hash: that is in the hash of all."""
    ledger = ledger_of(out)
    for files in ledger.values():
        del files["item.json"]
    found = verify(out, ledger)
    assert found.is_whole
    assert found.sha256 == verify(out, ledger_of(out)).sha256
    paths = {
        key: {f"{key}/{name}": {**a, "checksum": "1220" + a["checksum"]} for name, a in f.items()}
        for key, f in ledger.items()
    }
    assert verify(out, paths) == found


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"id": "other"}',
        b'{"id": "scene-0"}',
        b'{"id": "scene-0", "assets": {"a": {"href": "./map"}}}',
        b'{"id": "scene-0", "assets": []}',
        b"[" * 100_000,
    ],
)
def test_items_that_can_not_be_read_are_found(out, content):
    ledger = ledger_of(out)
    del ledger["scene-0"]["item.json"]
    (out / "scene-0" / "item.json").write_bytes(content)
    assert kinds(verify(out, ledger)) == [("bad item", "scene-0/item.json")]


def test_an_item_can_not_lead_elsewhere(out):
    ledger = ledger_of(out)
    del ledger["scene-0"]["item.json"]
    item = json.loads((out / "scene-0" / "item.json").read_text())
    for i, href in enumerate(
        ("../scene-1/map", "/dev/zero", "https://example.com/a", "..", "a\\b")
    ):
        item["assets"][str(i)] = {"href": href, "file:size": 1, "file:checksum": "1220"}
    (out / "scene-0" / "item.json").write_text(json.dumps(item))
    assert verify(out, ledger).is_whole


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_can_not_be_read_is_found_and_does_not_stop(out):
    ledger = ledger_of(out)
    (out / "scene-0" / "map").unlink()
    os.mkfifo(out / "scene-0" / "map")
    (out / "scene-1" / "map").unlink()
    (out / "scene-1" / "map").mkdir()
    (out / "scene-2" / "map").unlink()
    (out / "scene-2" / "map").symlink_to("nowhere")
    shutil.rmtree(out / "scene-3")
    (out / "scene-3").write_text("a file")
    wanted = [("unreadable", f"scene-{i}/map") for i in range(3)]
    found = verify(out, ledger)
    assert [k for k in kinds(found) if k[1] != "scene-3" and "scene-3" not in k[1]] == wanted
    assert {k for k in kinds(found) if "scene-3" in k[1]} >= {("missing", "scene-3/map")}
    if os.geteuid() != 0:
        (out / "scene-4" / "map").chmod(0)
        assert ("unreadable", "scene-4/map") in kinds(verify(out, ledger))
        (out / "scene-4" / "map").chmod(stat.S_IRWXU)


def test_names_of_any_kind_can_be_told(out):
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    for name in (b"line\nend", b"\xff\xfe", "ä".encode()):
        (os.fsencode(out / "scene-0") + b"/" + name).decode(errors="replace")
        with open(os.fsencode(out / "scene-0") + b"/" + name, "wb"):
            pass
    ledger = ledger_of(out)
    found = verify(
        out, {**ledger, "scene-0": {k: ledger["scene-0"][k] for k in ("map", "polygons")}}
    )
    assert len(found.findings) == 3
    text = certificate_text(found)
    text.encode()
    assert "line\\nend" in text and "ä" in text
    assert verify(out, ledger).is_whole


def test_order_and_threads_change_nothing(out):
    ledger = ledger_of(out)
    (out / "scene-3" / "map").write_bytes(b"other")
    one = verify(out, ledger, threads=1)
    backwards = {
        key: dict(reversed(files.items())) for key, files in reversed(sorted(ledger.items()))
    }
    lines: list[list[str]] = []
    for threads in (1, 2, 7):
        for expected in (ledger, backwards):
            lines.append([])
            assert verify(out, expected, threads=threads, each=lines[-1].append) == one
    assert all(found == lines[0] for found in lines)


@given(order=st.permutations(range(6)))
@settings(max_examples=10)
def test_archives_filled_in_any_order_are_the_same(order, tmp_path_factory):
    out = tmp_path_factory.mktemp("archive")
    for i in order:
        add_job(out, f"scene-{i}", map=bytes([i]) * 10)
    again = tmp_path_factory.mktemp("archive")
    for i in range(6):
        add_job(again, f"scene-{i}", map=bytes([i]) * 10)
    assert verify(out, ledger_of(out)) == verify(again, ledger_of(again))


def test_two_files_that_change_places_change_the_hash(out):
    before = verify(out, ledger_of(out))
    (out / "scene-0" / "map").rename(out / "x")
    (out / "scene-1" / "map").rename(out / "scene-0" / "map")
    (out / "x").rename(out / "scene-1" / "map")
    after = verify(out, ledger_of(out))
    assert (before.files, before.bytes) == (after.files, after.bytes)
    assert before.sha256 != after.sha256


def test_the_ledger_is_asked_job_by_job_in_the_callers_thread(out):
    import threading

    asked = []

    class Ledger(dict):
        def __getitem__(self, key):
            asked.append((key, threading.get_ident()))
            return super().__getitem__(key)

    seen = []
    found = verify(
        out,
        Ledger(ledger_of(out)),
        threads=3,
        progress=lambda done, read: seen.append((done, read)),
    )
    assert asked == [(f"scene-{i}", threading.get_ident()) for i in range(5)]
    assert seen[-1] == (5, found.bytes)
    assert seen == sorted(seen)


def test_an_interrupt_ends_it(out):
    def interrupt(done, read):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(out, ledger_of(out), threads=3, progress=interrupt)


def test_long_lists_are_cut_in_the_text_alone(tmp_path):
    expected = {f"job-{i:03}": {"map": {"size": 1, "checksum": "0" * 64}} for i in range(100)}
    found = verify(tmp_path, expected)
    assert found.counts == {"missing": 100, "no item": 100}
    assert "and 80 more" in certificate_text(found)
    assert len(found.as_json()["findings"]) == 200
    assert Finding("no item", "job-000/item.json") in found.findings
