"""What a file may point to, and which driver opens it.

The name and the content of a file come from strangers: a virtual raster named ``scene.tif`` reads
whatever it names, here or on a server. So the driver follows from a file's first bytes and no
other is tried; what a text names must lie in the folder of the file that the user named, or under
a root that the user named, and is looked at in turn. Remote is only what the user calls so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rasterio
import rasterio.errors

from geoseg.core.gdal import GDAL_ERRORS, Refused
from geoseg.core.names import full_address, public_name
from geoseg.errors import SceneError, UsageError
from geoseg.scene import hdf5, zarr
from geoseg.scene.file_kinds import (
    HDF5,
    MAGIC,
    PLAIN,
    first_bytes,
    is_vrt,
    leading_text,
    tiff_metadata,
)
from geoseg.scene.parts import PART, PART_DRIVERS, is_remote
from geoseg.scene.pointers import (
    FOLLOWED,
    Pointer,
    RefusedError,
    may_name_files,
    metadata_pointers,
    vrt_pointers,
)

__all__ = ["ALLOW_VRT", "LOCAL", "SCHEME", "Rules", "is_remote", "lies_in", "open_raster"]

ALLOW_VRT = ("local", "any")
#: What may name other files, by the end of its name: those that are read lie in a folder.
_ONLY_IN_FOLDERS = {
    ".vrt": "a virtual raster (VRT)",
    **dict.fromkeys((".nc", ".nc4", ".cdf", ".h5", ".hdf5"), "netCDF or HDF5"),
}
#: Nested virtual rasters, and overviews of overviews.
MAX_DEPTH = 8
SCHEME = re.compile(r"[A-Za-z0-9_+.-]{2,}:")


@dataclass(frozen=True)
class Rules:
    """What files may point to.

    Attributes:
        roots: folders, resolved, besides a file's own.
        vrt: ``local``: only into these; ``any``: wherever GDAL follows, servers included.
    """

    roots: tuple[str, ...] = ()
    vrt: Literal["local", "any"] = "local"

    @classmethod
    def of(
        cls, input_root: str | Path | Sequence[str | Path] = (), allow_vrt: str = "local"
    ) -> Rules:
        """Make rules of what the user says.

        Args:
            input_root: a folder, or several.
            allow_vrt: one of :data:`ALLOW_VRT`.

        Raises:
            UsageError: a root is no folder, or the word is unknown.
        """
        if allow_vrt not in ALLOW_VRT:
            raise UsageError(
                f"allow_vrt is {allow_vrt!r}; it must be one of {', '.join(ALLOW_VRT)}"
            )
        roots = [input_root] if isinstance(input_root, str | Path) else list(input_root)
        for root in roots:
            if not Path(root).is_dir():
                raise UsageError(f"--input-root {root} is no folder; give one that files point to")
        vrt: Literal["local", "any"] = "any" if allow_vrt == "any" else "local"
        return cls(tuple(os.path.realpath(root) for root in roots), vrt)


LOCAL = Rules()


def open_raster(name: str, rules: Rules) -> Any:
    """Open a dataset of rasterio's.

    Args:
        name: path, URL or GDAL's own name, as :func:`geoseg.core.names.public_name` gives it.
        rules: what the file may point to.

    Raises:
        SceneError: the file, or one that it names, is of a kind that is not opened, or points to
            where it may not.
        rasterio.errors.RasterioError: GDAL can't open it.
    """
    full = full_address(name)
    if rules.vrt == "any":
        return rasterio.open(full)
    check = _Check(name, rules)
    dataset = _open(full, check.drivers())
    try:
        check.tags(dataset)
    except BaseException:
        dataset.close()
        raise
    return dataset


def _open(full: str, drivers: Sequence[str]) -> Any:
    """By the first driver that takes the file; what the first one says otherwise."""
    first: Exception | None = None
    for driver in drivers:
        with Refused() as refused:
            try:
                return rasterio.open(full, driver=driver)
            except GDAL_ERRORS as error:
                first = first or error
                # A server that has been asked often enough is not asked again for each driver.
                if refused.for_good or "not recognized as being in a supported" not in str(error):
                    raise
    assert first is not None
    raise first


class _Check:
    """Looks at a file that the user named, and at all that it leads to."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.rules = rules
        self.seen: set[str] = set()
        self.within: list[str] = []  # virtual rasters that are being looked into
        self.folders: dict[str, dict[str, list[str]]] = {}
        self.part = None if is_remote(name) or os.path.exists(name) else PART.fullmatch(name)
        self.file = self.part["file"] if self.part else name
        here = os.path.dirname(self.file)
        self.roots = (here, *rules.roots)
        if not is_remote(self.file):
            self.roots = (os.path.realpath(here or "."), *rules.roots)

    def drivers(self) -> Sequence[str]:
        """List the drivers that may open the file, likeliest first.

        Raises:
            SceneError: it leads to where it may not, or is of no kind that is opened.
        """
        self._check_name()
        found = self._of_remote() if is_remote(self.file) else self._of_file(self.file, 0)
        return found if self.part is None else (PART_DRIVERS[self.part["driver"].upper()],)

    def tags(self, dataset: Any) -> None:
        """Look at what a dataset's own metadata leads to.

        Raises:
            SceneError: to where it may not.
        """
        self._follow_tags(dataset, self.file, 0)

    def _check_name(self) -> None:
        """Refuse names that are no address of a file.

        Raises:
            SceneError: it is one.
        """
        name = self.file
        if name.lstrip().startswith(("<", "{")):
            raise SceneError(
                f"{name.strip()[:40]!r}... is a text, not the name of a file; save it as a file of "
                f"that kind, or give --allow-vrt any if you trust it"
            )
        if is_remote(name):
            spelling = re.search(r"vrt://|/vsisparse", name)
        else:
            spelling = None if os.path.exists(name) else SCHEME.match(name)
        if spelling:
            raise SceneError(
                f"{name[:60]} is a source in GDAL's own spelling ({spelling[0]}), which may lead "
                f"anywhere; give a file or a URL, or --allow-vrt any if you trust it"
            )

    def _of_remote(self) -> Sequence[str]:
        """Drivers of what can't be looked at beforehand: the suffix says which one is likeliest."""
        suffix = Path(self.file.split("?")[0]).suffix.lower()
        if kind := _ONLY_IN_FOLDERS.get(suffix):
            raise SceneError(
                f"{self.file} is {kind} on a server or in an archive, where geoseg can't look at "
                f"what it leads to; put it into a folder (download or unpack it), or give "
                f"--allow-vrt any if you trust it"
            )
        if zarr.is_zarr(self.file):  # in an archive, which holds no links that are followed
            return ("Zarr",)
        likely = {
            (".jp2", ".j2k"): "JP2OpenJPEG",
            (".png",): "PNG",
            (".jpg", ".jpeg"): "JPEG",
            (".img",): "HFA",
        }
        first = [driver for suffixes, driver in likely.items() if suffix in suffixes]
        others = ("GTiff", *likely.values(), "NITF", "ENVI", "EHdr")
        return tuple(dict.fromkeys((*first, *others)))

    def _of_file(self, path: str, depth: int) -> Sequence[str]:
        """Drivers of a file on this machine, after a look at what it leads to."""
        if depth > MAX_DEPTH:
            raise SceneError(
                f"{self.name}: more than {MAX_DEPTH} files name each other, the last {path}; give "
                f"the rasters themselves"
            )
        self.seen.add(os.path.realpath(path))
        if os.path.isdir(path) and zarr.is_zarr(path):
            self._look_into_zarr(path)
            return ("Zarr",)
        if os.path.isdir(path):
            raise SceneError(
                f"{path} is a folder; a scene of one-band files is given as such, and other "
                f"folders only with --allow-vrt any"
            )
        head = first_bytes(path)
        found: Sequence[str] | None
        if is_vrt(head):
            self.within.append(os.path.realpath(path))
            self._look_into(path, depth)
            self.within.pop()
            found = ("VRT",)
        else:
            found = self._by_bytes(path, head)
            # GDAL chooses for what is named by others, and looks behind a file's first bytes, too.
            if depth and (text := leading_text(head)):
                raise SceneError(self._unfit(path, f"holds {text} behind other bytes"))
        self._look_beside(path, depth)
        if depth and found != ("VRT",):
            self._look_at_tags(path, found, depth)
        return found

    def _by_bytes(self, path: str, head: bytes) -> Sequence[str]:
        if re.match(HDF5[0], head):
            if why := hdf5.leads_out(path):
                raise SceneError(
                    f"{path} is HDF5 (netCDF-4 is, too) that {why}, and such files may lead "
                    f"anywhere; if you trust it, convert it (gdal_translate), or give "
                    f"--allow-vrt any"
                )
            return HDF5[1]
        for magic, drivers in MAGIC:
            if re.match(magic, head, re.S):
                return drivers
        if text := leading_text(head):
            raise SceneError(self._unfit(path, f"is {text}"))
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{")):
            raise SceneError(self._unfit(path, "is a text of XML or JSON, not a raster"))
        return PLAIN

    def _unfit(self, path: str, what: str) -> str:
        return (
            f"{path} {what}; such files may lead anywhere and are not read: give the raster "
            f"itself, or --allow-vrt any if you trust it"
        )

    def _look_into(self, path: str, depth: int) -> None:
        """Follow what a virtual raster names."""
        try:
            pointers = vrt_pointers(Path(path))
        except RefusedError as error:
            raise SceneError(
                f"{path} is a virtual raster (VRT) with {error}; give the rasters themselves, or "
                f"--allow-vrt any if you trust it"
            ) from error
        for pointer in pointers:
            self._follow(pointer, path, "as a virtual raster (VRT)", depth)

    def _look_into_zarr(self, path: str) -> None:
        """See that the files of a Zarr folder are in it."""
        links, names_others = zarr.leads_out(path)
        for linked in links:
            real = os.path.realpath(linked)
            if not any(lies_in(real, root) for root in (os.path.realpath(path), *self.roots)):
                raise SceneError(
                    f"{linked} is a link to {real}; what belongs to a Zarr folder must lie in it: "
                    f"if you trust it, give --input-root {os.path.dirname(real)}, or "
                    f"--allow-vrt any"
                )
        if names_others:
            raise SceneError(
                f"{path} is a Zarr folder of references (kerchunk), which lead to other files or "
                f"servers; write the numbers into a Zarr folder of their own, or give "
                f"--allow-vrt any if you trust it"
            )

    def _look_beside(self, path: str, depth: int) -> None:
        """Follow what lies beside a raster and belongs to it: metadata, overviews, a mask."""
        folder, name = os.path.split(path)
        if folder not in self.folders:
            names: dict[str, list[str]] = {}
            with suppress(OSError):
                for entry in os.listdir(folder or "."):
                    names.setdefault(entry.casefold(), []).append(entry)
            self.folders[folder] = names
        # GDAL does not regard case here.
        here = [self.folders[folder].get(name.casefold() + s, ()) for s in (".ovr", ".msk")]
        for entry in (entry for entries in here for entry in entries):
            beside = os.path.join(folder, entry)
            if os.path.realpath(beside) not in self.seen:
                self._of_file(beside, depth + 1)
        for stem in {name.casefold(), os.path.splitext(name)[0].casefold()}:
            for entry in self.folders[folder].get(stem + ".aux", ()):
                beside = os.path.join(folder, entry)
                if (head := first_bytes(beside)).startswith(b"EHFA") and (
                    text := leading_text(head)
                ):
                    raise SceneError(self._unfit(beside, f"holds {text} behind other bytes"))
        for entry in self.folders[folder].get(name.casefold() + ".aux.xml", ()):
            beside = os.path.join(folder, entry)
            try:
                pointers = metadata_pointers(Path(beside))
            except RefusedError as error:
                raise SceneError(
                    f"{beside} is metadata with {error}; remove the file, or give --allow-vrt any "
                    f"if you trust it"
                ) from error
            except OSError:  # what can't be read by us can't be read by GDAL
                continue
            for pointer in pointers:
                self._follow(pointer, path, f"in {beside}", depth)

    def _look_at_tags(self, path: str, drivers: Sequence[str], depth: int) -> None:
        """As :meth:`tags`, of a file that another one names."""
        # GDAL takes a millisecond a file, and a virtual raster may have ten thousand.
        if drivers == ("GTiff",) and not may_name_files(tiff_metadata(path)):
            return
        try:
            with rasterio.Env(), _open(path, drivers) as dataset:
                self._follow_tags(dataset, path, depth)
        except GDAL_ERRORS:  # said when it is read
            return

    def _follow_tags(self, dataset: Any, path: str, depth: int) -> None:
        for domain, keys in FOLLOWED.items():
            for key, value in dataset.tags(ns=domain).items():
                if key.upper() in keys:
                    pointer = Pointer.of_metadata(value)
                    self._follow(pointer, path, f"in its metadata ({key})", depth)

    def _follow(self, pointer: Pointer, by: str, how: str, depth: int) -> None:
        """See that a name leads to where it may, and look at what is there.

        Raises:
            SceneError: it does not.
        """
        name = pointer.name
        part = PART.fullmatch(name)
        if part and part["driver"].upper() != "GTIFF_DIR":  # whose metadata is not looked at
            name = part["file"]
        found = f"{by} names {public_name(name)[:200]} {how}"
        address = name.startswith(("/vsi", "<", "{")) or "://" in name
        if address or is_remote(by) or (SCHEME.match(name) and not os.path.exists(name)):
            raise SceneError(
                f"{found}; only files in folders are followed, by files in folders: give the "
                f"raster itself, or --allow-vrt any if you trust it"
            )
        path = os.path.join(os.path.dirname(by), name) if pointer.relative else name
        # GDAL takes the folder from the text's own name or from that behind a link, as it goes.
        paths = [os.path.join(folder, name) for folder in (os.path.dirname(by), _behind(by))]
        for path in dict.fromkeys(paths) if pointer.relative else [name]:
            real = os.path.realpath(path)
            if not any(lies_in(real, root) for root in self.roots):
                folder = os.path.dirname(real)
                raise SceneError(
                    f"{found}, which lies in {folder}; a file may point into its own folder only: "
                    f"if you trust it, give --input-root {folder}, or --allow-vrt any"
                )
            if real in self.within:
                raise SceneError(f"{found}, and so itself; write it anew (gdalbuildvrt)")
            if real not in self.seen and os.path.exists(real):
                # By the name that GDAL uses: files beside it are found by that.
                self._of_file(path, depth + 1)


def _behind(path: str) -> str:
    """Find the folder in which a file really lies."""
    return os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)


def lies_in(path: str, folder: str) -> bool:
    """Whether a path is a folder, or in it; both are resolved."""
    return path == folder or path.startswith(os.path.join(folder, ""))
