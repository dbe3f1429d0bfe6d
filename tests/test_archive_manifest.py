"""Manifests of an archive: every way to name scenes gives each of them once, in an order."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from geoseg.archive.ledger import Ledger
from geoseg.archive.manifest import read_manifest
from geoseg.archive.place import LEDGER
from geoseg.archive.sources import SceneSource, addresses, job_key, scene_to_open, source_of_file
from geoseg.errors import UsageError
from geoseg.scene.opening import open_scene
from tests import stacitems
from tests.helpers import make_raster


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def read(manifest: Path | str) -> list[SceneSource]:
    return list(read_manifest(str(manifest)))


def below(folder: Path, manifest: Path | str | None = None) -> list[str]:
    """Paths of the scenes, relative to a folder."""
    found = read(manifest or folder)
    assert all(len(source.files) == 1 for source in found)
    return [os.path.relpath(source.files[0], folder) for source in found]


def refused(manifest: Path | str, said: str, *, later: bool = False) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        found = read_manifest(str(manifest))  # at once, unless it begins well
        assert later
        list(found)
    assert "\n" not in str(caught.value)


def test_a_folder_gives_products_folders_of_bands_and_rasters(tmp_path: Path) -> None:
    safe = "S2A_MSIL2A_20230628T100601_N0509_R022_T33UXP_20230628T113955.SAFE"
    touch(
        tmp_path,
        f"b/{safe}/GRANULE/L2A/IMG_DATA/R10m/T33UXP_20230628T100601_B04_10m.jp2",
        "b/LC08_L2SP_044034_20230618/LC08_L2SP_044034_20230618_SR_B4.TIF",
        "b/LC08_L2SP_044034_20230618/LC08_L2SP_044034_20230618_QA_PIXEL.TIF",
        "bands/red.tif",
        "bands/nir.tif",
        "bands/notes.txt",
        "ortho/one.tif",
        "ortho/two.TIF",
        "ortho/one.tif.aux.xml",
        "ortho/one.tif.ovr",
        "ortho/deep/er/three.jp2",
        ".hidden/four.tif",
        "ortho/.five.tif",
        "a.vrt",
        "readme.md",
    )
    assert below(tmp_path) == [
        "a.vrt",
        "b/LC08_L2SP_044034_20230618",
        f"b/{safe}",
        "bands",
        "ortho/deep/er/three.jp2",
        "ortho/one.tif",
        "ortho/two.TIF",
    ]
    assert read(tmp_path / "b")[1].name == safe.removesuffix(".SAFE")
    # The folder itself may be the scene.
    assert below(tmp_path, tmp_path / "bands") == ["bands"]
    assert read(tmp_path / "b" / safe)[0].name == safe.removesuffix(".SAFE")


def test_a_renamed_product_and_archives_of_products_are_scenes(tmp_path: Path) -> None:
    """An archive of any other name may hold anything, such as a model."""
    touch(
        tmp_path,
        "july/GRANULE/L2A/IMG_DATA/R10m/T33UXP_20230628T100601_B04_10m.jp2",
        "july/GRANULE/L2A/IMG_DATA/R20m/T33UXP_20230628T100601_B11_20m.jp2",
        "x.SAFE.zip",
        "LC08_L2SP_193024_20200407_20200822_02_T1.tar",
        "model.zip",
    )
    found = ["LC08_L2SP_193024_20200407_20200822_02_T1.tar", "july", "x.SAFE.zip"]
    assert below(tmp_path, tmp_path) == found
    assert below(tmp_path, tmp_path / "x.SAFE.zip") == ["x.SAFE.zip"]
    with pytest.raises(UsageError, match="no manifest"):
        read(tmp_path / "model.zip")


def test_what_is_found_in_a_folder_opens(tmp_path: Path) -> None:
    values = np.full((1, 8, 8), 7, np.uint16)
    for name in ("one/red.tif", "one/nir.tif", "two.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_raster(tmp_path / name, values)
    one, two = read(tmp_path)
    opened = open_scene(scene_to_open(addresses(one.record())))
    assert sorted(band.name or "" for band in opened.bands) == ["nir", "red"]
    assert len(open_scene(scene_to_open(addresses(two.record()))).bands) == 1


def test_scenes_that_are_numbered_like_bands_are_scenes(tmp_path: Path) -> None:
    for name in ("b1.tif", "b2.tif"):
        make_raster(tmp_path / name, np.full((3, 8, 8), 7, np.uint16))
    assert below(tmp_path) == ["b1.tif", "b2.tif"]


def test_items_are_the_same_scenes_however_they_are_named(tmp_path: Path) -> None:
    """With their dates, and a key of their own."""
    for name in ("a", "b"):
        stacitems.save(tmp_path, {**stacitems.naip(tmp_path), "id": name}, f"{name}.json")
    (tmp_path / "list.txt").write_text("a.json\nb.json\n", encoding="utf-8")
    (tmp_path / "list.csv").write_text("scene\na.json\nb.json\n", encoding="utf-8")
    wanted = [job_key(s, {}, "") for name in "ab" for s in read(tmp_path / f"{name}.json")]
    assert len(set(wanted)) == 2
    for manifest in ("list.txt", "list.csv", "?.json"):
        found = read(tmp_path / manifest)
        assert [job_key(source, {}, "") for source in found] == wanted
        assert all(source.item for source in found)
    (tmp_path / "b.json").write_text("{", encoding="utf-8")  # one of many
    assert [bool(source.item) for source in read(tmp_path / "list.txt")] == [True, False]


@pytest.mark.parametrize("column", ["scal", "src-nodata", "min_area", "Model"])
def test_a_column_that_is_meant_as_an_option_is_not_ignored(tmp_path: Path, column: str) -> None:
    (tmp_path / "a.csv").write_text(f"scene,id,{column}\na.tif,1,2\n", encoding="utf-8")
    refused(tmp_path / "a.csv", f"a column called {column.lower()}", later=True)


def test_a_file_has_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "a b.tif")
    names = [str(tmp_path / "a b.tif"), (tmp_path / "a b.tif").as_uri(), f"{tmp_path}/./a b.tif"]
    (tmp_path / "list.txt").write_text("\n".join(names), encoding="utf-8")
    assert below(tmp_path, tmp_path / "list.txt") == ["a b.tif"]


def test_a_name_that_is_no_text_is_a_scene(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"a\xff.tif"))
    (source,) = read(tmp_path)
    assert source.name == "a?" and os.fsencode(source.files[0]).endswith(b"a\xff.tif")
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.add([source.job({}, "")])
        (job,) = ledger.claim(1)
    assert job.source["files"] == list(source.files)


def test_a_name_with_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]/x.tif", "a1/y.tif", "b?.tif", "bc.tif")
    assert below(tmp_path, tmp_path / "a[1]") == ["a[1]/x.tif"]
    assert below(tmp_path, tmp_path / "b?.tif") == ["b?.tif"]


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/notes.txt", ".git/x.tif")
    refused(tmp_path, "holds no scene; geoseg looks for")


def test_an_archives_own_maps_are_no_scenes(tmp_path: Path) -> None:
    touch(tmp_path, "x.tif", f"maps/{LEDGER}", "maps/x-0123456789/landcover.tif")
    assert below(tmp_path) == ["x.tif"]
    assert below(tmp_path, tmp_path / "*") == ["x.tif"]
    refused(tmp_path / "maps", "an archive of maps that geoseg made")


def test_links_lead_nowhere_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.tif")
    (tmp_path / "a/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "broken.tif").symlink_to(tmp_path / "none.tif")
    assert below(tmp_path) == ["a/x.tif", "broken.tif"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.tif", "b/y.tif")
    (tmp_path / "b").chmod(0)
    try:
        refused(tmp_path, "b can't be read", later=True)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_that_can_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/x.tif", "b/y.tif")
    before = os.scandir

    def scandir(path: str | Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return before(path)

    monkeypatch.setattr(os, "scandir", scandir)
    refused(tmp_path, later=True, said="b can't be read .Permission denied")


def test_a_pattern_gives_its_files_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.tif", "b/2.tif", "b/c/3.tif", "b/notes.txt", "b/4.tif.aux.xml")
    assert below(tmp_path, tmp_path / "*/*.tif") == ["a/1.tif", "b/2.tif"]
    assert below(tmp_path, tmp_path / "**/*.tif") == ["a/1.tif", "b/2.tif", "b/c/3.tif"]
    refused(tmp_path / "*.tif", "nothing has such a name")
    # Folders are looked into, and what is no scene is passed over.
    assert below(tmp_path, tmp_path / "b*") == ["b/2.tif", "b/c/3.tif"]
    assert below(tmp_path, tmp_path / "b/*") == ["b/2.tif", "b/c/3.tif"]
    refused(tmp_path / "b/*.txt", "matches no scene")
    touch(tmp_path, "i/1.json", "i/2.json")
    assert below(tmp_path, tmp_path / "i/*.json") == ["i/1.json", "i/2.json"]


def test_a_list_is_relative_to_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/one.tif", "two.tif")
    text = (
        f"# scenes\n\n one.tif \n../two.tif\n{tmp_path / 'two.tif'}\nhttps://x.example.com/3.tif\n"
    )
    text += "two.tif\n"
    (tmp_path / "in/list.txt").write_text("\ufeff" + text, encoding="utf-8")
    found = read(tmp_path / "in/list.txt")
    assert [source.files for source in found] == [
        (str(tmp_path / "in/one.tif"),),
        (str(tmp_path / "two.tif"),),
        ("https://x.example.com/3.tif",),
        (str(tmp_path / "in/two.tif"),),  # which is not there, as its job will report
    ]
    assert [source.name for source in found] == ["one", "two", "3", "two"]
    (tmp_path / "in/list.txt").write_text("# nothing\n", encoding="utf-8")
    refused(tmp_path / "in/list.txt", "lists no scene")
    (tmp_path / "in/list.txt").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "in/list.txt", "UTF-8")


def test_a_list_comes_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.tif\nb/c.tif\n"))
    assert below(tmp_path, "-") == ["a.tif", "b/c.tif"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    refused("-", "standard input lists no scene")


def test_a_table_has_options_of_each_scene(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "Scene,bands,scale,src_nodata,remark\n"
        'a.tif,"red=3,green=2",0.0001,0,old\n'
        "b.tif,,,,\n"
        "https://x.example.com/c.tif?sig=SECRET,,,nan,\n",
        encoding="utf-8",
    )
    a, b, c = read(table)
    assert a.options == {"bands": "red=3,green=2", "scale": 0.0001, "src_nodata": 0.0}
    assert b.options == {} and b.files == (str(tmp_path / "b.tif"),)
    assert np.isnan(c.options["src_nodata"]) and "SECRET" not in str(c.record())
    assert addresses(c.record())["files"] == ["https://x.example.com/c.tif?sig=SECRET"]
    table.write_text("scene,nearblack,clouds,cloud_buffer\na.tif,Yes,none,0\nb.tif,no,,\n", "utf-8")
    a, b = read(table)
    assert a.options == {"nearblack": True, "clouds": "none", "cloud_buffer": 0.0}
    assert b.options == {"nearblack": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the columns none"),
        ("name,scale\na,1\n", "the columns name, scale;"),
        ("scene,scale\na.tif,1\n,2\n", "row 3 names no scene"),
        ("scene,scale\na.tif,big\n", "row 2: scale is 'big'; it must be a number"),
        ("scene,scale\na.tif,inf\n", "row 2: scale is 'inf'; it must be a number"),
        ("scene,nearblack\na.tif,maybe\n", "row 2: nearblack is 'maybe'; it must be one of yes, "),
        ("scene,clouds\na.tif,mask.tif\n", "row 2: clouds is 'mask.tif'; it must be one of auto"),
        ("scene,scale\n", "lists no scene"),
        ("scene,scale\na.tif,1,5,6\n", "row 2 has 4 values, and the table has 2 columns"),
        ("scene,Scene \na.tif,b.tif\n", "two columns called scene"),
        ('scene\n"a.tif\n' + "x" * 200_000, "is no CSV"),
    ],
)
def test_a_wrong_table_is_refused_with_its_row(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    refused(tmp_path / "t.csv", said, later="row 3" in said)


def test_the_same_scene_is_given_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif")
    file = tmp_path / "l.txt"
    file.write_text(
        "a.tif\n./a.tif\nhttps://x.example.com/b.tif?sig=1\nhttps://x.example.com/b.tif?sig=2\n",
        "utf-8",
    )
    assert [source.name for source in read(file)] == ["a", "b"]
    # With other options it is another map.
    table = tmp_path / "t.csv"
    table.write_text("scene,scale\na.tif,1\na.tif,2\na.tif,1\n", encoding="utf-8")
    assert [source.options for source in read(table)] == [{"scale": 1.0}, {"scale": 2.0}]


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x.pdf", "x.tif")
    refused(tmp_path / "x.pdf", "is no manifest")
    refused(tmp_path / "none", "no such file or folder")
    refused("https://x.example.com/list.txt", "an address of something other than STAC items")
    assert below(tmp_path, tmp_path / "x.tif") == ["x.tif"]


def test_stac_items_are_a_manifest(tmp_path: Path) -> None:
    (source,) = read(stacitems.save(tmp_path, stacitems.naip(tmp_path)))
    assert source.item is not None and source.files == ()
    assert open_scene(scene_to_open(addresses(source.record()))).bands


def test_keys_are_names_of_folders_and_differ(tmp_path: Path) -> None:
    sources = [
        source_of_file(tmp_path / name)
        for name in ("a.tif", "b/a.tif", "ä ö.tif", "...tif", "x" * 200 + ".tif", "a/b/../c.tif")
    ]
    keys = [job_key(source, {}, "model") for source in sources]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert len(key) < 100 and key.strip("._-") == key and "/" not in key and key.isascii()
    a = sources[0]
    assert job_key(a, {"overlap": 32}, "model") != keys[0] != job_key(a, {}, "other")
    assert job_key(a, {"threads": 3, "overwrite": True}, "model") == keys[0]
    assert source_of_file(f"{tmp_path}/b/../a.tif") == a
