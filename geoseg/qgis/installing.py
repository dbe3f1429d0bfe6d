"""The plugin into a profile of QGIS, out of it again, or into a .zip."""

from __future__ import annotations

import configparser
import io
import json
import os
import secrets
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from geoseg.core.files import write_whole
from geoseg.errors import OutputError, UsageError
from geoseg.qgis.profiles import Profile, find_profiles, ini_text, plain_text

__all__ = ["Installed", "install", "plugin_version", "remove", "status", "write_zip"]

#: The plugin as QGIS loads it.
PLUGIN = Path(__file__).parent / "plugin" / "geoseg_qgis"
#: Where QGIS notes which plugins are enabled, and Processing its settings.
ENABLED = ("PythonPlugins", "geoseg_qgis")
#: What install notes beside the plugin, and the kinds of files of which the plugin is made.
_RECORD, _SUFFIXES = "installed.json", {".py", ".svg", ".png", ".txt"}
PROGRAM = ("Processing", "Configuration\\GEOSEG_EXECUTABLE")


@dataclass(frozen=True)
class Installed:
    """What is in a profile.

    Attributes:
        profile: it.
        version: of the plugin there; None without one.
        enabled: whether QGIS loads it.
        program: the geoseg that it runs; "" where it looks for one itself.
        replaced: the program that it ran before :func:`install`, where that was another one.
        trouble: why the profile can't be read; "" else.
    """

    profile: Profile
    version: str | None
    enabled: bool
    program: str
    replaced: str = ""
    trouble: str = ""


def install(profile: str | None = None) -> Installed:
    """Copy the plugin into a profile, enable it, and have it run this geoseg.

    Args:
        profile: its name, or its folder where several have the name; the only one by default.

    Raises:
        UsageError: there is no such profile, or there are several and none is named.
        OutputError: the profile can't be written, or holds another plugin of that name.
    """
    chosen = _choose(profile)
    program = _program()
    target = chosen.plugin
    _check_own(target)
    before = _look(chosen).program
    fresh = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        for file in _files():
            shutil.copyfile(file, fresh / file.name)
        (fresh / _RECORD).write_text(json.dumps({"program": str(program)}), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        chosen.write(*ENABLED, "true")
        chosen.write(*PROGRAM, ini_text(str(program)))
    except OSError as error:
        raise OutputError(
            f"{error.filename or target} can't be written ({error.strerror}); check the profile's "
            f"folder and its permissions"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return replace(_look(chosen), replaced=before if before != str(program) else "")


def remove(profile: str | None = None) -> list[Installed]:
    """Remove the plugin and its settings.

    Args:
        profile: as for :func:`install`; by default all profiles that have it.

    Returns:
        What was there.

    Raises:
        UsageError: there is no such profile.
        OutputError: a profile can't be written.
    """
    chosen = find_profiles() if profile is None else [_choose(profile)]
    removed, failed = [], []
    for one in chosen:
        try:
            before = _look(one)
            if before.version is None and not before.enabled and not before.program:
                continue
            _check_own(one.plugin)
            _remove_from(one, before)
        except OutputError as error:
            failed.append(str(error))
        else:
            removed.append(before)
    if failed:
        done = "".join(f"; it was removed from {one.profile.folder}" for one in removed)
        raise OutputError("; ".join(failed) + done)
    return removed


def _remove_from(profile: Profile, before: Installed) -> None:
    try:
        # What the user set by hand stays.
        own = not before.program or before.program == _recorded(profile.plugin)
        if profile.plugin.exists():
            shutil.rmtree(profile.plugin)
        profile.write(*ENABLED, None)
        if own:
            profile.write(*PROGRAM, None)
    except OSError as error:
        raise OutputError(
            f"{error.filename or profile.plugin} can't be removed ({error.strerror})"
        ) from error


def status() -> list[Installed]:
    """Look into all profiles, also those that can't be read."""
    found = []
    for profile in find_profiles():
        try:
            found.append(_look(profile))
        except OutputError as error:
            found.append(Installed(profile, None, False, "", trouble=str(error)))
    return found


def write_zip(path: Path, *, overwrite: bool = False) -> None:
    """Pack the plugin as QGIS' plugin manager installs it ("Install from ZIP").

    Args:
        path: of the .zip.
        overwrite: replace a .zip of this kind.

    Raises:
        OutputError: it exists, or can't be written.
    """
    if os.path.lexists(path):
        if not overwrite:
            raise OutputError(f"{path} exists; give another name, or --overwrite")
        if not _is_our_zip(path):
            raise OutputError(f"{path} is no plugin of geoseg; give another name")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for source in _files():
            file.write(source, f"{PLUGIN.name}/{source.name}")
    try:
        write_whole(path, packed.getvalue())
    except OSError as error:
        raise OutputError(f"{path} can't be written ({error.strerror})") from error


def plugin_version() -> str:
    """Look up the version of the plugin that this geoseg brings."""
    version = _version_in(PLUGIN)
    assert version is not None
    return version


def _files() -> Iterator[Path]:
    return (file for file in sorted(PLUGIN.iterdir()) if file.is_file())


def _choose(profile: str | None) -> Profile:
    found = find_profiles()
    if profile is not None:
        folder = Path(profile).absolute().resolve()
        named = [p for p in found if profile == p.name or folder == p.folder.resolve()]
        if len(named) == 1:
            return named[0]
        about = (
            f"several QGIS profiles are called {profile}"
            if named
            else f"no QGIS profile is called {profile}"
        )
    elif len(found) == 1:
        return found[0]
    else:
        about = "there are several QGIS profiles"
    if not found:
        raise UsageError(
            "no QGIS profile was found; start QGIS once, which makes one, or set "
            "QGIS_CUSTOM_CONFIG_PATH to the folder that holds 'profiles'"
        )
    listed = ", ".join(f"{p.name} ({p.folder})" for p in found)
    raise UsageError(f"{about}; choose one by its name or folder with --profile: {listed}")


def _program() -> Path:
    """Find the command that belongs to this Python."""
    name = "geoseg.exe" if sys.platform == "win32" else "geoseg"
    beside = Path(sys.executable).parent / name
    # Without an environment of its own, Windows has it in a folder beside; and pip's launcher calls
    # itself by its name without the suffix.
    started = Path(sys.argv[0]).absolute()
    places = [beside, beside.parent / "Scripts" / name, started, started.with_name(name)]
    for candidate in places:
        if candidate.name == name and candidate.is_file():
            return candidate
    raise UsageError(
        f"{beside} is missing, so QGIS could not run this geoseg; install it with pip, in an "
        f"environment of its own"
    )


def _check_own(folder: Path) -> None:
    """Refuse a folder that is not the plugin's, or holds something of the user's.

    Raises:
        OutputError: it is so.
    """
    if folder.is_symlink() or (folder.exists() and _version_in(folder) is None):
        raise OutputError(
            f"{folder} is no plugin that geoseg installed; move it away, or choose another profile"
        )
    if folder.exists():
        kept = [f.name for f in folder.iterdir() if f.name != "__pycache__"]
        foreign = sorted(n for n in kept if Path(n).suffix not in _SUFFIXES and n != _RECORD)
        if foreign:
            raise OutputError(
                f"{folder} holds what geoseg did not put there ({', '.join(foreign)}), which would "
                f"be gone; move it away"
            )


def _recorded(folder: Path) -> str:
    """Read which program an install wrote into the settings; "" where that is not known."""
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return str(found["program"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _version_in(folder: Path) -> str | None:
    """Read the version of a plugin of geoseg's; None where there is none."""
    metadata = configparser.ConfigParser(interpolation=None)
    try:
        metadata.read_string((folder / "metadata.txt").read_text(encoding="utf-8"))
        general = metadata["general"]
        return general.get("version") if general.get("name") == "geoseg" else None
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError):
        return None


def _is_our_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            own = all(name.startswith(f"{PLUGIN.name}/") for name in names)
            return own and f"{PLUGIN.name}/geoseg_predict.py" in names
    except (OSError, zipfile.BadZipFile):
        return False


def _look(profile: Profile) -> Installed:
    try:
        return Installed(
            profile,
            _version_in(profile.plugin),
            profile.read(*ENABLED) == "true",
            plain_text(profile.read(*PROGRAM) or ""),
        )
    except OSError as error:
        raise OutputError(f"the settings of {profile.folder} can't be read: {error}") from error
