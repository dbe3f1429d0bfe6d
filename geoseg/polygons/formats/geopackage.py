"""GeoPackage, with the classes' colours where QGIS looks for them."""

from __future__ import annotations

import sqlite3
from xml.sax.saxutils import quoteattr

from geoseg.core.ours import STYLE
from geoseg.polygons.formats.job import GdalWriter, Job

__all__ = ["write_geopackage"]


def write_geopackage(job: Job) -> None:
    """Write a GeoPackage."""
    # GDAL's newest GeoPackage version (1.4) makes older QGIS and GDAL warn.
    GdalWriter("GPKG", dataset={"VERSION": "1.3"})(job)
    if job.classes:
        _add_style(job)


def _add_style(job: Job) -> None:
    """Add the table of styles that QGIS reads: polygons in the classes' colours."""
    categories = "".join(
        f'<category symbol="{i}" value="{c.id}" label={quoteattr(c.name)} render="true"/>'
        for i, c in enumerate(job.classes)
    )
    symbols = "".join(
        f'<symbol type="fill" name="{i}" alpha="1"><layer class="SimpleFill" enabled="1" pass="0" '
        f'locked="0"><prop k="color" v="{",".join(map(str, c.rgb))},255"/>'
        f'<prop k="outline_style" v="no"/><prop k="style" v="solid"/></layer></symbol>'
        for i, c in enumerate(job.classes)
    )
    qml = (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        '<qgis version="3.22" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="class_id" symbollevels="0" enableorderby="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>"
    )
    with sqlite3.connect(job.path) as database:
        database.execute(
            "CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,"
            " f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),"
            " f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,"
            " useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),"
            " update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"
        )
        row = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (job.layer,)
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name,"
            " f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner)"
            " VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '')",
            (job.layer, row.fetchone()[0], STYLE[0], qml, STYLE[1]),
        )
        # As QGIS does it: what is no feature is listed as attributes.
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id)"
            " VALUES ('layer_styles', 'attributes', 'layer_styles', '', 0)"
        )
    database.close()
