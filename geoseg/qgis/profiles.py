"""QGIS' profiles: where they are, and the settings in them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from geoseg.core.files import write_whole
from geoseg.errors import UsageError

__all__ = ["Profile", "find_profiles"]

#: Of QGIS 3 and 4: the folder of their profiles, and the file of settings in each.
APPLICATIONS = ("QGIS3", "QGIS4")
#: The folder of settings in a profile: Qt names it after the organization, on macOS the domain.
_SETTINGS = {"darwin": ("qgis.org", "QGIS")}
#: The flatpak's name, in whose folder its QGIS has its data.
FLATPAK = "org.qgis.qgis"


@dataclass(frozen=True)
class Profile:
    """One profile of a user.

    Attributes:
        folder: in which plugins and settings are.
        applications: which of :data:`APPLICATIONS` it is of; both where that can't be known.
    """

    folder: Path
    applications: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in QGIS' menu."""
        return self.folder.name

    @property
    def plugin(self) -> Path:
        """The plugin's folder."""
        return self.folder / "python" / "plugins" / "geoseg_qgis"

    @property
    def settings(self) -> list[Path]:
        """Its files of settings: those that are there, or those that QGIS would make."""
        first, *others = _settings_folders()
        files = [self.folder / first / f"{name}.ini" for name in self.applications]
        more = [self.folder / f / f"{name}.ini" for f in others for name in self.applications]
        return [file for file in (*files, *more) if file.exists()] or files

    def read(self, section: str, key: str) -> str | None:
        """Look up a setting as it is written; None where there is none."""
        for file in self.settings:
            lines = _lines(file)[0]
            found = _find(lines, section, key)
            if found is not None:
                return lines[found].partition("=")[2]
        return None

    def write(self, section: str, key: str, value: str | None) -> None:
        """Change a setting, or remove it with None; every other line stays as it is.

        Raises:
            OSError: the file can't be read or written.
        """
        for file in self.settings:
            before, end = _lines(file)
            lines = _changed(before, section, key, value)
            if lines != before:
                file.parent.mkdir(parents=True, exist_ok=True)
                text = "".join(f"{line}{end}" for line in lines)
                # The file may be a link to where somebody keeps such files.
                write_whole(file.resolve(), text.encode("utf-8", "surrogateescape"))


def find_profiles(environment: Mapping[str, str] = os.environ) -> list[Profile]:
    """Find the user's profiles, of QGIS 3 and 4, also of the flatpak.

    Args:
        environment: its ``QGIS_CUSTOM_CONFIG_PATH`` comes before everything else.

    Returns:
        Those that are there. In a custom folder there is one called ``default``, at least: QGIS
        makes it when it starts.

    Raises:
        UsageError: the user has no home folder.
    """
    custom = environment.get("QGIS_CUSTOM_CONFIG_PATH")
    if custom:
        found = _profiles_in(Path(custom) / "profiles", APPLICATIONS)
        return found or [Profile(Path(custom) / "profiles" / "default", APPLICATIONS)]
    places = [
        (base / "QGIS" / name / "profiles", (name,))
        for base in _bases(environment)
        for name in APPLICATIONS
    ]
    return [profile for place, names in places for profile in _profiles_in(place, names)]


def _bases(environment: Mapping[str, str]) -> list[Path]:
    """List where programs keep a user's data, on this system.

    Raises:
        UsageError: the user has no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError as error:
        raise UsageError(
            f"{error} QGIS' profiles are looked for there; set HOME, or QGIS_CUSTOM_CONFIG_PATH"
        ) from error
    if sys.platform == "win32":
        return [Path(environment.get("APPDATA") or home / "AppData" / "Roaming")]
    if sys.platform == "darwin":
        return [home / "Library" / "Application Support"]
    data = Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share")
    return [data, home / ".var" / "app" / FLATPAK / "data"]


def _settings_folders() -> tuple[str, ...]:
    return _SETTINGS.get(sys.platform, ("QGIS",))


def _profiles_in(place: Path, names: tuple[str, ...]) -> list[Profile]:
    if not place.is_dir():
        return []
    # Each has a file of settings or a folder of plugins, once QGIS has started with it.
    marks = *_settings_folders(), "python"
    folders = sorted(f for f in place.iterdir() if any((f / mark).is_dir() for mark in marks))
    return [Profile(folder, names) for folder in folders]


def ini_text(value: str) -> str:
    r"""Write a text as Qt's settings have it (``QSettings::IniFormat``).

    >>> ini_text("/home/a b/geoseg"), ini_text("C:\\geoseg.exe"), ini_text("/é1")
    ('/home/a b/geoseg', 'C:\\\\geoseg.exe', '/\\xe9\\x31')
    """
    out = []
    escape_digit = False  # it would be read as a part of the number before it
    for character in value:
        if character in '"\\':
            out.append(f"\\{character}")
            escape_digit = False
        elif not " " <= character <= "~" or (
            escape_digit and character in "0123456789abcdefABCDEF"
        ):
            out.append("".join(f"\\x{unit:x}" for unit in _utf16(character)))
            escape_digit = True
        else:
            out.append(character)
            escape_digit = False
    text = "".join(out)
    return f'"{text}"' if any(c in text for c in ";,=") or text != text.strip() else text


def plain_text(written: str) -> str:
    r"""Read a text as :func:`ini_text` writes it.

    >>> plain_text(r'"/a;b"'), plain_text(r"/\xe9\x31"), plain_text(r"C:\\geoseg.exe")
    ('/a;b', '/é1', 'C:\\geoseg.exe')
    """
    text = written.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]

    def plain(found: re.Match[str]) -> str:
        return chr(int(found[1], 16)) if found[1] else found[2]

    text = re.sub(r"\\(?:x([0-9a-fA-F]+)|(.))", plain, text)
    # Characters beyond the first 65536 are written as two.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _utf16(character: str) -> list[int]:
    data = character.encode("utf-16-le")
    return [int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2)]


def _lines(file: Path) -> tuple[list[str], str]:
    """Read the lines of a file of settings, none if it is not there, and what ends them.

    Qt 6 writes UTF-8, Qt 5 escapes; whatever else is in there comes back as it was.
    """
    if not file.exists():
        return [], os.linesep
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    end = "\r\n" if "\r\n" in text else "\n"
    return text.removesuffix(end).split(end) if text else [], end


def _section(lines: list[str], section: str) -> tuple[int, int] | None:
    """Find a section: its first line after the header, and where it ends."""
    for start, line in enumerate(lines):
        if line.strip() == f"[{section}]":
            end = start + 1
            while end < len(lines) and not lines[end].startswith("["):
                end += 1
            return start + 1, end
    return None


def _find(lines: list[str], section: str, key: str) -> int | None:
    start, end = _section(lines, section) or (0, 0)
    for i in range(start, end):
        if lines[i].partition("=")[0].strip() == key:
            return i
    return None


def _changed(lines: list[str], section: str, key: str, value: str | None) -> list[str]:
    lines = list(lines)
    at = _find(lines, section, key)
    if value is None:
        if at is not None:
            del lines[at]
        return lines
    if at is not None:
        lines[at] = f"{key}={value}"
        return lines
    place = _section(lines, section)
    if place is None:
        return [*lines, *([""] if lines else []), f"[{section}]", f"{key}={value}"]
    lines.insert(place[0], f"{key}={value}")
    return lines
