"""Servers on this machine, and files that would make GDAL ask them."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from tests.helpers import make_raster

SIDE = 64


@dataclass
class Server:
    """What was asked of it.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        hits: method and path of each request.
    """

    address: str
    hits: list[str] = field(default_factory=list)


@contextmanager
def serving(folder: Path | None = None) -> Iterator[Server]:
    """A server of a folder's files, with ranges; of nothing, it only counts."""
    server = Server("")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            server.hits.append(f"{self.command} {self.path}")
            file = None if folder is None else folder / self.path.split("?")[0].lstrip("/")
            if file is None or not file.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = file.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, total = 0, len(body)
            if asked:
                first = int(asked[1])
                body = body[first : int(asked[2] or total) + 1]
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{total}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server.address = f"http://127.0.0.1:{running.server_address[1]}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield server
        running.shutdown()


def plain(path: Path, value: int = 3, **profile: Any) -> Path:
    """A raster of one band that could be a scene, a map or labels."""
    values = np.full((1, SIDE, SIDE), value, np.uint8)
    values[:, : SIDE // 2] = 5
    return make_raster(path, values, **profile)


def virtual(path: Path, name: str, *, relative: bool = False, source: str = "Simple") -> Path:
    """A virtual raster of one file."""
    rect = f'xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"'
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><{source}Source>'
        f'<SourceFilename relativeToVRT="{int(relative)}">{name}</SourceFilename>'
        f"<SourceBand>1</SourceBand><SrcRect {rect}/><DstRect {rect}/>"
        f"</{source}Source></VRTRasterBand></VRTDataset>"
    )
    return path


def _bands(text: str, subclass: str) -> str:
    return (
        f'<VRTDataset rasterXSize="16" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="{subclass}">{text}</VRTRasterBand></VRTDataset>'
    )


def _warped(path: Path, source: str, crs: str) -> Path:
    place = "500000,10,0,5000000,0,-10"
    back = "-50000,0.1,0,500000,0,-0.1"
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8" subClass="VRTWarpedDataset">'
        f'<VRTRasterBand dataType="Byte" band="1" subClass="VRTWarpedRasterBand"/>'
        f"<GDALWarpOptions><SourceDataset>{source}</SourceDataset><Transformer>"
        f"<GenImgProjTransformer><SrcGeoTransform>{place}</SrcGeoTransform>"
        f"<SrcInvGeoTransform>{back}</SrcInvGeoTransform><DstGeoTransform>{place}"
        f"</DstGeoTransform><DstInvGeoTransform>{back}</DstInvGeoTransform><ReprojectTransformer>"
        f"<ReprojectionTransformer><SourceSRS>{crs}</SourceSRS><TargetSRS>EPSG:32633</TargetSRS>"
        f"</ReprojectionTransformer></ReprojectTransformer></GenImgProjTransformer></Transformer>"
        f'<BandList><BandMapping src="1" dst="1"/></BandList></GDALWarpOptions></VRTDataset>'
    )
    return path


def _overview_file(path: Path, where: str) -> Path:
    plain(path)
    beside = path.with_name(f"{path.name}.aux.xml")
    beside.write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{where}</MDI>'
        f"</Metadata></PAMDataset>"
    )
    return path


def _internal(path: Path, where: str) -> Path:
    plain(path)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=where)
    assert not path.with_name(f"{path.name}.aux.xml").exists()
    return path


def _beside(path: Path, suffix: str, where: str) -> Path:
    plain(path)
    virtual(path.with_name(path.name + suffix), where)
    return path


def _behind_png(folder: Path, where: str) -> Path:
    """A virtual raster behind the first bytes of a PNG, which another one names."""
    inner = virtual(folder / "inner.png", where)
    inner.write_bytes(b"\x89PNG\r\n\x1a\n" + inner.read_bytes())
    return virtual(folder / "polyglot.vrt", "inner.png", relative=True)


def _behind_link(folder: Path, private: Path) -> Path:
    """A link to a virtual raster: the folder that its names start at is not the link's."""
    virtual(folder / "real.vrt", f"../{private.parent.name}/{private.name}", relative=True)
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "link.vrt").symlink_to(folder / "real.vrt")
    return virtual(folder / "outer.vrt", "a/b/link.vrt", relative=True)


def _behind_hfa(path: Path, where: str) -> Path:
    """A virtual raster behind the first bytes of the file in which ArcGIS keeps statistics."""
    plain(path)
    beside = virtual(path.with_suffix(".aux"), where)
    text = beside.read_text().replace(
        "<VRTRasterBand", f'<Metadata domain="HFA"><MDI key="HFA_DEPENDENT_FILE">{path.name}</MDI>'
        f"</Metadata><VRTRasterBand",
    )  # fmt: skip
    beside.write_text("EHFA_HEADER_TAG" + text)
    return path


def disguises(folder: Path, server: Server, private: Path) -> dict[str, Path]:
    """Rasters that would lead to the server or to a private file, by what they are."""
    folder.mkdir()

    def url(name: str) -> str:
        # GDAL remembers what was not there; each file asks for its own.
        return f"/vsicurl/{server.address}/{name}.tif"

    def text(name: str, content: str) -> Path:
        (folder / name).write_text(content)
        return folder / name

    def in_folder(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    (folder / "link.tif").symlink_to(private)
    plain(folder / "near.tif")
    whole = "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>64</UpperLeftY><LowerRightX>64"
    whole += "</LowerRightX><LowerRightY>0</LowerRightY><TileLevel>0</TileLevel><TileCountX>1"
    whole += "</TileCountX><TileCountY>1</TileCountY></DataWindow>"
    raw = "<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>16</LineOffset>"
    return {
        "absolute path": virtual(folder / "absolute.vrt", str(private)),
        "path that climbs": virtual(folder / "climbs.vrt", f"../{private.parent.name}/"
                                    f"{private.name}", relative=True),
        "symlink": virtual(folder / "symlink.vrt", "link.tif", relative=True),
        "named .tif": virtual(folder / "named.tif", str(private)),
        "URL": virtual(folder / "url.vrt", url("url")),
        "URL named .tif": virtual(folder / "url.tif", url("urltif")),
        "bare URL": virtual(folder / "bare.vrt", f"{server.address}/bare.tif"),
        "archive of a URL": virtual(folder / "zip.vrt", f"/vsizip/vsicurl/{server.address}/a.zip"),
        "nested": virtual(
            folder / "nested.vrt",
            f"deep/{virtual(in_folder('deep') / 'inner.tif', url('nested')).name}",
            relative=True,
        ),
        "inline": virtual(folder / "inline.vrt", "&lt;VRTDataset rasterXSize='9'/>"),
        "other case": text(
            "case.vrt",
            virtual(folder / "lower.vrt", url("case")).read_text()
            .replace("SourceFilename", "sourcefilename"),
        ),
        "attribute": text(
            "attribute.vrt",
            f'<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
            f'<SimpleSource SourceFilename="{url("attribute")}" SourceBand="1"/></VRTRasterBand>'
            f"</VRTDataset>",
        ),
        "raw band": text(
            "raw.vrt",
            _bands(f"<SourceFilename>/etc/passwd</SourceFilename>{raw}", "VRTRawRasterBand"),
        ),
        "raw band here": text(
            "rawhere.vrt",
            _bands(
                f'<SourceFilename relativeToVRT="1">near.tif</SourceFilename>{raw}',
                "VRTRawRasterBand",
            ),
        ),
        "derived band": text(
            "derived.vrt",
            _bands("<PixelFunctionType>sum</PixelFunctionType>", "VRTDerivedRasterBand"),
        ),
        "overview": text(
            "overview.vrt",
            virtual(folder / "with.vrt", "near.tif", relative=True).read_text().replace(
                "</VRTRasterBand>",
                f"<Overview><SourceFilename>{url('overview')}</SourceFilename><SourceBand>1"
                f"</SourceBand></Overview></VRTRasterBand>",
            ),
        ),
        "warped": _warped(folder / "warped.vrt", url("warped"), "EPSG:32633"),
        "CRS": _warped(folder / "crs.vrt", f"{folder}/near.tif", f"{server.address}/crs.wkt"),
        "WMS": text(
            "wms.tif",
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{server.address}/${{z}}/${{x}}/${{y}}.png'
            f"</ServerUrl></Service>{whole}<Projection>EPSG:3857</Projection><BandsCount>1"
            f"</BandsCount></GDAL_WMS>",
        ),
        "MRF": text(
            "mrf.tif",
            f"<MRF_META><CachedSource><Source>{url('mrf')}</Source></CachedSource>"
            f'<Raster><Size x="64" y="64" c="1"/></Raster></MRF_META>',
        ),
        "STAC": text(
            "stac.tif",
            '{"type":"FeatureCollection","stac_version":"1.0.0","features":[{"type":"Feature",'
            '"stac_version":"1.0.0","properties":{"proj:epsg":32633},"assets":{"a":{"href":"'
            + f"{server.address}/stac.tif" + '"}}}]}',
        ),
        "index of tiles": text(
            "gti.tif",
            f"<GDALTileIndexDataset><IndexDataset>{server.address}/a.gpkg</IndexDataset>"
            f"</GDALTileIndexDataset>",
        ),
        "OVERVIEW_FILE": _overview_file(folder / "aux.tif", url("aux")),
        "OVERVIEW_FILE here": _overview_file(folder / "auxhere.tif", str(private)),
        "OVERVIEW_FILE within": _internal(folder / "within.tif", url("within")),
        "overviews": _beside(folder / "ovr.tif", ".ovr", url("ovr")),
        "OVERVIEWS": _beside(folder / "upper.tif", ".OVR", url("upper")),
        "mask": _beside(folder / "msk.tif", ".msk", url("msk")),
        "tile's metadata": virtual(
            folder / "tile.vrt", _internal(folder / "tile.tif", url("tile")).name, relative=True
        ),
        "part of a tile": virtual(
            folder / "part.vrt", f"GTIFF_DIR:1:{_internal(folder / 'part.tif', url('part'))}"
        ),
        "link": _behind_link(folder, private),
        "behind HFA": _behind_hfa(folder / "hfa.tif", url("hfa")),
        "behind a PNG": _behind_png(folder, url("png")),
        "entities": text(
            "bomb.vrt",
            '<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
            '<VRTDataset rasterXSize="8" rasterYSize="8">&b;</VRTDataset>',
        ),
        "HDF5": _hdf5(folder / "hdf5.tif"),
    }  # fmt: skip


def _hdf5(path: Path) -> Path:
    """No more than GDAL needs to take it for HDF5."""
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))
    return path


def vectors(folder: Path, server: Server) -> dict[str, str]:
    """Vector files and names that would lead to the server."""
    folder.mkdir()
    square = '{"type":"Polygon","coordinates":[[[15,45],[15.01,45],[15.01,45.01],[15,45]]]}'
    feature = f'{{"type":"Feature","properties":{{"class_id":3}},"geometry":{square}}}'
    crs = '"crs":{{"type":"{}","properties":{{"href":"' + server.address + '/crs","type":"wkt"}}}},'

    def text(name: str, content: str) -> str:
        (folder / name).write_text(content)
        return str(folder / name)

    ogr = (
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{server.address}/a.geojson'
        f"</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    return {
        "OGR VRT": text("ogr.vrt.geojson", ogr),
        "OGR VRT named .gpkg": text("ogr.gpkg", ogr),
        "OGR VRT named .gml": text("ogr.gml", f'<?xml version="1.0"?>\n<!-- a -->{ogr}'),
        "pipeline": text(
            "task.geojson",
            '{"type":"gdal_streamed_alg","command_line":"gdal vector pipeline ! read '
            + f'{server.address}/b.geojson"}}',
        ),
        "linked CRS": text(
            "link.geojson",
            f'{{"type":"FeatureCollection",{crs.format("link")}"features":[{feature}]}}',
        ),
        "linked CRS, spelt": text(
            "spelt.geojson",
            f'{{"type":"FeatureCollection",{crs.format("li" + chr(92) + "u006ek")}'
            f'"features":[{feature}]}}',
        ),
        "WFS": text(
            "wfs.gml", f"<OGRWFSDataSource><URL>{server.address}/wfs</URL></OGRWFSDataSource>"
        ),
        "URL": f"{server.address}/c.geojson",
        "GDAL's name of a URL": f"/vsicurl/{server.address}/d.geojson",
        "service": f"WFS:{server.address}/wfs",
        "database": "PG:host=127.0.0.1 dbname=a",
    }  # fmt: skip
