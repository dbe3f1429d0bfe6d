"""``geoseg qgis``: the plugin into profiles that look like QGIS', and out again."""

from __future__ import annotations

import configparser
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.cli import main
from geoseg.qgis.installing import PLUGIN, plugin_version
from geoseg.qgis.profiles import Profile, find_profiles, ini_text, plain_text

SETTINGS = """[General]
name=a, b

[PythonPlugins]
other=true

[Processing]
Configuration\\OTHER=1

[qgis]
words=@Variant(\\0\\0\\0\\x7f)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("QGIS_CUSTOM_CONFIG_PATH", "XDG_DATA_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    program = tmp_path / "bin" / "geoseg"
    program.parent.mkdir()
    program.touch()
    monkeypatch.setattr("sys.executable", str(program.with_name("python")))
    yield tmp_path


#: System -> where its QGISes keep their profiles, below the home folder.
PLACES = {
    "linux": [".local/share/QGIS", ".var/app/org.qgis.qgis/data/QGIS"],
    "darwin": ["Library/Application Support/QGIS"],
    "win32": ["AppData/Roaming/QGIS"],
}


def make_profile(home: Path, place: str, version: int = 3, name: str = "default") -> Path:
    folder = home / place / f"QGIS{version}" / "profiles" / name
    ini = settings_file(folder, version)
    ini.parent.mkdir(parents=True)
    ini.write_text(SETTINGS, encoding="utf-8")
    return folder


def settings_file(profile: Path, version: int) -> Path:
    """Qt takes the organization's domain on macOS, its name elsewhere."""
    name = "qgis.org" if "Library" in profile.parts else "QGIS"
    return profile / name / f"QGIS{version}.ini"


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["qgis", *args])
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.mark.parametrize(
    ("system", "place", "version"),
    [(s, p, v) for s, places in PLACES.items() for p in places for v in (3, 4)],
)
def test_a_profile_gets_the_plugin_and_loses_it(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    place: str,
    version: int,
) -> None:
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", system)
    folder = make_profile(home, place, version)
    program = home / "bin" / ("geoseg.exe" if system == "win32" else "geoseg")
    program.touch()
    code, out, _ = run(capsys, "install")
    plugin = folder / "python" / "plugins" / "geoseg_qgis"
    assert code == 0 and str(plugin) in out and "geoseg qgis remove" in out
    expected = {f.name for f in PLUGIN.iterdir() if f.is_file()}
    assert {f.name for f in plugin.iterdir()} == {*expected, "installed.json"}
    ini = settings_file(folder, version)
    settings = configparser.RawConfigParser()
    settings.read(ini)
    assert settings["PythonPlugins"]["geoseg_qgis"] == settings["PythonPlugins"]["other"] == "true"
    assert settings["Processing"]["Configuration\\GEOSEG_EXECUTABLE"] == str(program)
    (row,) = json.loads(run(capsys, "status", "--json")[1])
    assert row["enabled"] and row["version"] == row["this_version"] == plugin_version()
    assert row["program"] == str(program)
    # Again, over an older one.
    metadata = plugin / "metadata.txt"
    metadata.write_text(metadata.read_text().replace(plugin_version(), "0.0.1"))
    assert "geoseg qgis install" in run(capsys, "status")[1]
    assert run(capsys, "install")[0] == 0
    assert f"plugin {plugin_version()}\n" in run(capsys, "status")[1]
    code, out, _ = run(capsys, "remove")
    assert code == 0 and str(folder) in out
    assert not plugin.exists() and not [*plugin.parent.iterdir()]
    assert ini.read_text(encoding="utf-8") == SETTINGS
    assert "in no QGIS profile" in run(capsys, "remove")[1]


def test_several_profiles_are_listed_and_one_is_asked_for(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", "linux")
    first, second = (make_profile(home, PLACES["linux"][0], v) for v in (3, 4))
    work = make_profile(home, PLACES["linux"][1], 4, "work")
    code, _, err = run(capsys, "install")
    assert code == 2 and all(str(f) in err for f in (first, second, work)) and "--profile" in err
    code, _, err = run(capsys, "install", "--profile", "default")
    assert code == 2 and "several QGIS profiles are called default" in err
    assert run(capsys, "install", "--profile", "none")[0] == 2
    assert run(capsys, "install", "--profile", "work")[0] == 0
    assert run(capsys, "install", "--profile", str(second))[0] == 0
    rows = json.loads(run(capsys, "status", "--json")[1])
    assert {r["folder"]: r["enabled"] for r in rows} == {
        str(first): False,
        str(second): True,
        str(work): True,
    }
    assert run(capsys, "remove")[1].count("removed from") == 2


def test_a_custom_folder_comes_first_and_may_be_new(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_profile(home, PLACES["linux"][0])
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(home / "own"))
    assert run(capsys, "install")[0] == 0
    profile = home / "own" / "profiles" / "default"
    assert (profile / "python" / "plugins" / "geoseg_qgis" / "metadata.txt").exists()
    # Which QGIS will start there is not known.
    for name in ("QGIS3.ini", "QGIS4.ini"):
        assert "geoseg_qgis=true" in (profile / "QGIS" / name).read_text()


def test_nothing_of_others_is_replaced(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", "linux")
    code, _, err = run(capsys, "install")
    assert code == 2 and "start QGIS once" in err
    folder = make_profile(home, PLACES["linux"][0])
    plugin = folder / "python" / "plugins" / "geoseg_qgis"
    plugin.mkdir(parents=True)
    (plugin / "notes.txt").write_text("mine")
    for command in ("install", "remove"):
        if command == "remove":  # which looks where there is something of ours
            ini = folder / "QGIS" / "QGIS3.ini"
            ini.write_text(SETTINGS.replace("other=true", "geoseg_qgis=true"))
        code, _, err = run(capsys, command)
        assert code == 1 and "no plugin that geoseg installed" in err
    assert [f.name for f in plugin.parent.iterdir()] == ["geoseg_qgis"]
    assert (plugin / "notes.txt").read_text() == "mine"
    elsewhere = home / "elsewhere"
    (plugin / "notes.txt").unlink()
    plugin.rmdir()
    elsewhere.mkdir()
    plugin.symlink_to(elsewhere)
    assert run(capsys, "install")[0] == 1
    assert not [*elsewhere.iterdir()]


def test_what_a_user_put_there_stays(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the plugin's folder, and a program in the settings that install did not write."""
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", "linux")
    folder, other = (make_profile(home, PLACES["linux"][0], name=n) for n in ("a", "b"))
    ini = settings_file(folder, 3)
    line = "[Processing]\nConfiguration\\GEOSEG_EXECUTABLE=/other/geoseg\n"
    ini.write_text(SETTINGS.replace("[Processing]\n", line))
    assert "instead of    /other/geoseg" in run(capsys, "install", "--profile", "a")[1]
    assert run(capsys, "install", "--profile", str(other) + "/")[0] == 0
    plugin = folder / "python" / "plugins" / "geoseg_qgis"
    (plugin / "my notes.md").write_text("mine")
    code, _, err = run(capsys, "install", "--profile", "a")
    assert code == 1 and "my notes.md" in err
    # The other profile loses it all the same.
    code, _, err = run(capsys, "remove")
    assert code == 1 and "my notes.md" in err and str(other) in err
    assert not (other / "python" / "plugins" / "geoseg_qgis").exists()
    (plugin / "my notes.md").unlink()
    before = ini.read_text()
    own = before.replace(str(home / "bin" / "geoseg"), "/mine/geoseg")
    assert own != before
    ini.write_text(own)
    assert run(capsys, "remove")[0] == 0
    assert "GEOSEG_EXECUTABLE=/mine/geoseg" in ini.read_text() and not plugin.exists()


def test_a_profile_that_can_not_be_read_is_shown(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", "linux")
    broken, _ = (make_profile(home, PLACES["linux"][0], name=n) for n in ("a", "b"))
    ini = settings_file(broken, 3)
    ini.unlink()
    ini.mkdir()
    code, out, _ = run(capsys, "status")
    assert code == 0 and "can't be read" in out and "not installed" in out


def test_who_has_no_home_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    code, _, err = run(capsys, "status")
    assert code == 2 and "QGIS_CUSTOM_CONFIG_PATH" in err


@pytest.mark.parametrize("launcher", ["Scripts/geoseg.exe", "elsewhere/geoseg"])
def test_windows_has_the_program_in_a_folder_beside(
    home: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    """Without an environment of its own; pip's launcher calls itself by its name alone."""
    from geoseg.qgis.installing import _program

    monkeypatch.setattr("geoseg.qgis.installing.sys.platform", "win32")
    monkeypatch.setattr("sys.argv", [str(home / "bin" / launcher)])
    expected = (home / "bin" / launcher).with_suffix(".exe")
    expected.parent.mkdir()
    expected.touch()
    assert _program() == expected


def test_a_program_that_is_missing_is_said(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", "linux")
    make_profile(home, PLACES["linux"][0])
    (home / "bin" / "geoseg").unlink()
    code, _, err = run(capsys, "install")
    assert code == 2 and "is missing" in err and "install it" in err
    assert not (home / PLACES["linux"][0] / "QGIS3/profiles/default/python").exists()


def test_the_zip_is_what_qgis_installs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.zip"
    foreign = tmp_path / "g.zip.partial"
    foreign.write_text("somebody's")
    assert run(capsys, "zip", "-o", str(path))[0] == 0
    assert foreign.read_text() == "somebody's"
    assert {p.name for p in tmp_path.iterdir()} == {"bin", "g.zip", "g.zip.partial"}
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        metadata = file.read("geoseg_qgis/metadata.txt").decode()
    assert {n.split("/")[0] for n in names} == {"geoseg_qgis"}
    assert "geoseg_qgis/geoseg_predict.py" in names and "geoseg_qgis/icon.svg" in names
    general: Any = configparser.ConfigParser()
    general.read_string(metadata)
    for key in ("name", "version", "qgisMinimumVersion", "description", "about", "author"):
        assert general["general"][key]
    assert general["general"]["hasProcessingProvider"] == "yes"
    code, _, err = run(capsys, "zip", "-o", str(path))
    assert code == 1 and "--overwrite" in err
    assert run(capsys, "zip", "-o", str(path), "--overwrite")[0] == 0
    path.write_text("mine")
    code, _, err = run(capsys, "zip", "-o", str(path), "--overwrite")
    assert code == 1 and path.read_text() == "mine"
    for names in ((), ("geoseg_qgis/mine.txt",)):
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, "mine")
        before = path.read_bytes()
        assert run(capsys, "zip", "-o", str(path), "--overwrite")[0] == 1
        assert path.read_bytes() == before
    code, _, err = run(capsys, "zip", "-o", str(path / "x.zip"))
    assert code == 1 and "can't be written" in err


KEYS = st.sampled_from(["a", "b", "Configuration\\A"])
SECTIONS = st.sampled_from(["General", "Processing", "x"])


@given(st.lists(st.tuples(SECTIONS, KEYS, st.sampled_from([None, "1", '"a, b"']))))
def test_settings_keep_every_other_line(changes: list[tuple[str, str, str | None]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        profile = Profile(Path(name), ("QGIS3",))
        expected: dict[tuple[str, str], str] = {("General", "name"): "a, b"}
        (Path(name) / "QGIS").mkdir()
        (Path(name) / "QGIS" / "QGIS3.ini").write_text("[General]\nname=a, b\n")
        for section, key, value in changes:
            profile.write(section, key, value)
            expected.pop((section, key), None)
            if value is not None:
                expected[section, key] = value
        for section in ("General", "Processing", "x"):
            for key in ("a", "b", "Configuration\\A", "name"):
                assert profile.read(section, key) == expected.get((section, key))


def test_a_path_is_written_as_qt_reads_it() -> None:
    """The right values are Qt 5.15's own (QSettings.setValue)."""
    for text, written in (
        ("/usr/bin/geoseg", "/usr/bin/geoseg"),
        ("C:\\a b\\geoseg.exe", "C:\\\\a b\\\\geoseg.exe"),
        ("/a;b,c=d", '"/a;b,c=d"'),
        ("/é1x", "/\\xe9\\x31x"),
        ("/日本", "/\\x65e5\\x672c"),
    ):
        assert ini_text(text) == written
        assert plain_text(written) == text
    assert plain_text(ini_text("/𝒳")) == "/𝒳"


def test_no_profile_of_a_home_without_qgis() -> None:
    assert find_profiles({}) == []


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_the_file_of_settings_stays_what_it_is(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ends: bytes
) -> None:
    """Who may read it, where it is, its line ends, and bytes that are no UTF-8."""
    monkeypatch.setattr("geoseg.qgis.profiles.sys.platform", "linux")
    folder = make_profile(home, PLACES["linux"][0])
    ini, kept = folder / "QGIS" / "QGIS3.ini", home / "kept.ini"
    before = ends.join([b"[a]", b"b=\xe9\x0b\xe2\x80\xa8c", b"", b"[Processing]", b"x=1", b""])
    kept.write_bytes(before)
    kept.chmod(0o600)
    ini.unlink()
    ini.symlink_to(kept)
    assert run(capsys, "install")[0] == 0
    assert ini.is_symlink()
    if sys.platform != "win32":
        assert kept.stat().st_mode & 0o777 == 0o600
    lines = kept.read_bytes().split(ends)
    assert lines[:3] == before.split(ends)[:3] and b"geoseg_qgis=true" in lines
    assert run(capsys, "remove")[0] == 0
    assert kept.read_bytes().startswith(before)
    assert b"geoseg" not in kept.read_bytes()


def test_options_of_the_plugin_are_those_of_the_commands() -> None:
    """Of every field of a dialog, and of what says how a scene is read."""
    import ast

    from geoseg.cli.evaluate import command as evaluate
    from geoseg.cli.info import command as info
    from geoseg.cli.predict import command as predict
    from geoseg.cli.sample import command as sample

    def options(*commands: Any) -> set[str]:
        return {name for c in commands for option in c.params for name in option.opts}

    tree = ast.parse((PLUGIN / "geoseg_predict.py").read_text(encoding="utf-8"))
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("_FIELDS", "_OF_SCENE")
    }
    assert set(tables["_OF_SCENE"]) <= options(info)
    assert set(tables["_FIELDS"]) <= options(predict, evaluate, sample)
    assert {"--clouds", "--cloud-buffer"} <= set(tables["_FIELDS"])
    given = {
        node.value.strip("=")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("--cloud")
    }
    assert given == {"--clouds", "--cloud-buffer"}
