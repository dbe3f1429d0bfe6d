"""One layer of a GeoPackage that holds others: added or replaced, and the others stay."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pyogrio

from geoseg.core.ours import STYLE, is_our_layer, is_ours
from geoseg.core.staging import check_closed
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError

__all__ = ["OtherLayers"]


class OtherLayers:
    """A GeoPackage that is there already and keeps all it holds but for one layer of geoseg's."""

    def __init__(self, path: Path, layer: str, before: tuple[int, int, int]) -> None:
        """Use :meth:`of`."""
        self.path, self.layer, self._before = path, layer, before

    @classmethod
    def of(
        cls,
        path: Path,
        layer: str,
        *,
        overwrite: bool,
        otherwise: str = "another name with --layer",
    ) -> OtherLayers | None:
        """Look at an output that is there already.

        Args:
            path: of the output.
            layer: that is to be written.
            overwrite: whether a layer of that name is to be replaced.
            otherwise: what the user may give instead, for messages.

        Returns:
            None where there is no GeoPackage, or one with nothing but this layer: then the file
            is written, or replaced, as a whole.

        Raises:
            OutputError: it has a layer of that name, which is not to be replaced or which geoseg
                did not make; or another program is writing it.
        """
        if path.suffix.lower() != ".gpkg" or not path.is_file():
            return None
        check_closed(path)  # what is in the log is not in the file that is looked at
        about = _about(path)
        tables = _tables(path)
        if not tables:
            return None
        there = next((name for name in tables if name.lower() == layer.lower()), None)
        if there is None:
            return cls(path, layer, about)
        if is_ours(path):
            return None
        if not is_our_layer(path, there):
            raise OutputError(
                f"{path} has a layer {there!r} that was not made by geoseg as it is now, and is "
                f"not replaced; give {otherwise}, or another file"
            )
        if not overwrite:
            raise OutputError(
                f"{path} has a layer {there!r} already; give --overwrite to replace it (the other "
                f"layers stay), or {otherwise}"
            )
        return cls(path, there, about)

    def add(self, made: Path) -> None:
        """Put the layer beside the others, in place of an earlier one.

        Args:
            made: a GeoPackage with this layer alone; becomes one with all layers.

        Raises:
            OutputError: the file that is there has changed since, or the new one can't be written.
        """
        joined = made.with_name(f"joined-{os.getpid()}.gpkg")
        try:
            shutil.copyfile(self.path, joined)
            if _about(self.path) != self._before or Path(f"{self.path}-wal").exists():
                raise OutputError(
                    f"{self.path} was changed by another program while this run was at work; "
                    f"nothing was written: close it there, and run this again"
                )
            self._check_sound(joined)
            self._copy_layer(made, joined)
            os.replace(joined, made)
        except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
            raise explain_write_error(error, self.path) from error
        finally:
            joined.unlink(missing_ok=True)

    def _check_sound(self, joined: Path) -> None:
        """Refuse to write into a damaged file, which may damage more of it.

        Raises:
            OutputError: it is one.
        """
        with closing(sqlite3.connect(joined)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise OutputError(
                f"{self.path} is damaged ({found.splitlines()[-1]}); give another file, or mend "
                f"it first (ogr2ogr mended.gpkg {self.path.name})"
            )

    def _copy_layer(self, made: Path, joined: Path) -> None:
        (name,) = (n for n, kind in pyogrio.list_layers(made) if kind is not None)
        with pyogrio.open_arrow(made, layer=name, use_pyarrow=False) as (about, rows):
            pyogrio.write_arrow(
                rows,
                joined,
                layer=self.layer,
                driver="GPKG",
                geometry_name=about["geometry_name"] or "geom",
                geometry_type=about["geometry_type"],
                crs=about["crs"],
            )
        with closing(sqlite3.connect(joined)) as database, database:
            database.execute("ATTACH ? AS made", (str(made),))
            _copy_style(database, self.layer)


def _copy_style(database: sqlite3.Connection, layer: str) -> None:
    """Bring the classes' colours along; styles that others made stay."""
    text = "SELECT sql FROM {}.sqlite_master WHERE name = 'layer_styles'"
    made = database.execute(text.format("made")).fetchone()
    if made is None:  # no class, no style
        return
    if database.execute(text.format("main")).fetchone() is None:
        database.execute(made[0])
        database.execute(
            "INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier, description,"
            " srs_id) VALUES ('layer_styles', 'attributes', 'layer_styles', '', 0)"
        )
    database.execute(
        "DELETE FROM layer_styles WHERE f_table_name = ? AND styleName = ? AND description = ?",
        (layer, *STYLE),
    )
    columns = (
        "f_table_catalog, f_table_schema, {}, f_geometry_column, styleName, styleQML, styleSLD,"
        " useAsDefault, description, owner"
    )
    database.execute(
        f"INSERT INTO layer_styles ({columns.format('f_table_name')})"
        f" SELECT {columns.format('?')} FROM made.layer_styles",
        (layer,),
    )


def _tables(path: Path) -> list[str]:
    """List a GeoPackage's tables and views; none where it isn't one."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            found = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    except sqlite3.Error:
        return []
    return found if "gpkg_contents" in found else []


def _about(path: Path) -> tuple[int, int, int]:
    """Describe what changes where a file does."""
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns
