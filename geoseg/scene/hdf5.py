"""HDF5, of which netCDF-4 is a kind: whether a file leads to others.

An HDF5 file may link to objects in other files, keep its numbers in any file, or be put together of
other files; the library follows all of it in silence. So the file is walked as the library does,
from its first bytes to each object's header, before it is opened. Whatever is not known to stay
within the file counts as leading out of it.

The numbers in comments are sections of the HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["leads_out"]

_UNDEFINED = (1 << 64) - 1
#: Objects of a file: a scene's netCDF has some dozen.
MAX_OBJECTS = 20_000
#: Of one object's header, or of one block of links.
MAX_BLOCK = 16 << 20

# Messages in an object's header (IV.A.2) that matter here.
_LINK_INFO, _LINK, _STORAGE, _LAYOUT, _CONTINUED, _TABLE = 0x02, 0x06, 0x07, 0x08, 0x10, 0x11
#: Those that stay within the object: its type, shape, filters, attributes and times.
_HARMLESS = {*(0x00, 0x01, 0x03, 0x04, 0x05, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x12, 0x13, 0x15, 0x16)}
#: Where free space of the file is kept; only beside the superblock.
_FREE_SPACE = 0x17
_EXTERNAL = 64


class _LeadsOutError(Exception):
    """What leads out of the file, or may."""


def leads_out(path: str) -> str | None:
    """Find what in an HDF5 file leads to others.

    Args:
        path: of a file on this machine that begins with HDF5's signature.

    Returns:
        What it does, in words; None where all that can be read of it lies in itself.
    """
    try:
        with open(path, "rb") as file:
            _Walk(file).all()
    except _LeadsOutError as error:
        return str(error)
    except (OSError, struct.error, IndexError, OverflowError, ValueError):
        return "is cut short or damaged"
    return None


def _unknown(what: str) -> _LeadsOutError:
    return _LeadsOutError(f"holds {what}, which geoseg does not know to be harmless")


class _Walk:
    """Goes to every object that a name in the file leads to."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seen: set[int] = set()
        self.groups: set[int] = set()
        self.waiting: list[int] = []

    def all(self) -> None:
        """Look at all objects.

        Raises:
            _LeadsOutError: one leads out of the file, or isn't understood.
        """
        self.waiting.append(self._root())
        while self.waiting:
            at = self.waiting.pop()
            if at in self.groups:  # netCDF's library would go round in it until the stack is full
                raise _unknown("a group that is in itself, or has two names")
            if at in self.seen:
                continue
            self.seen.add(at)
            if len(self.seen) > MAX_OBJECTS:
                raise _unknown(f"more than {MAX_OBJECTS} objects")
            for kind, data in self._messages(at):
                if kind in (_LINK, _LINK_INFO, _TABLE):
                    self.groups.add(at)
                self._look_at(kind, data)

    def _read(self, at: int, size: int, begin: bytes = b"") -> bytes:
        """Read bytes, which have to be there and begin so."""
        if size > MAX_BLOCK:
            raise _unknown(f"a header of {size} bytes")
        self.file.seek(at)
        found = self.file.read(size)
        if len(found) != size:
            raise ValueError("cut short")
        if not found.startswith(begin):
            raise _unknown("a structure of another kind than is said")
        return found

    def _root(self) -> int:
        """The address of the first group's header, by the superblock (II.A)."""
        head = self._read(0, 16)
        version = head[8]
        if version in (0, 1):
            if tuple(head[13:15]) != (8, 8):
                raise _unknown("addresses that are not of 8 bytes")
            at = 24 if version == 0 else 28
            base, _, _, driver, _, root, cached = struct.unpack("<6QI", self._read(at, 52))
            if base or driver != _UNDEFINED:
                raise _unknown("addresses that do not begin at 0, or a driver of its own")
            if cached == 1:  # which the library takes where that in the header is damaged
                tables = [data[:16] for kind, data in self._messages(root) if kind == _TABLE]
                if any(table != self._read(at + 56, 16) for table in tables):
                    raise _unknown("two tables for one group")
            return int(root)
        if version in (2, 3):
            base, extension, _, root = struct.unpack("<4Q", self._read(12, 32))
            if base or tuple(head[9:11]) != (8, 8):
                raise _unknown("addresses that are not of 8 bytes from 0 on")
            if extension != _UNDEFINED:
                for kind, _ in self._messages(extension):
                    if kind not in (0x00, 0x13, _CONTINUED, _FREE_SPACE):
                        raise _unknown(f"a message of kind {kind} beside its superblock")
            return int(root)
        raise _unknown(f"a superblock of version {version}")

    def _messages(self, at: int) -> Iterator[tuple[int, bytes]]:
        """The messages of an object's header (IV.A.1), continued ones, too."""
        head = self._read(at, 6)
        second = head[:4] == b"OHDR"
        if second:
            if head[4] != 2:
                raise _unknown(f"an object of version {head[4]}")
            flags = head[5]
            at += 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(at + width, int.from_bytes(self._read(at, width), "little"))]
            form, size = ("<BHB", 6 if flags & 4 else 4)
        elif head[0] == 1:
            blocks = [(at + 16, struct.unpack("<I", self._read(at + 8, 4))[0])]
            form, size = "<HHB", 8
        else:
            raise _unknown(f"an object of version {head[0]}")
        done: set[int] = set()
        while blocks:
            start, length = blocks.pop()
            if start in done:
                raise _unknown("a header that goes on in a circle")
            done.add(start)
            block, place = self._read(start, length), 0
            while place + size <= length:
                kind, extent, flags = struct.unpack_from(form, block, place)
                data = block[place + size : place + size + extent]
                place += size + extent
                if len(data) != extent:
                    raise ValueError("cut short")
                if flags & 2 and kind not in _HARMLESS:
                    raise _unknown(f"a message of kind {kind} that is shared")
                if kind == _CONTINUED:
                    where, far = struct.unpack_from("<2Q", data)
                    if second:
                        self._read(where, 4, b"OCHK")
                        where, far = where + 4, far - 8
                    blocks.append((where, far))
                yield kind, data

    def _look_at(self, kind: int, data: bytes) -> None:
        """Follow a message of an object's header."""
        if kind == _LINK:
            self._link(data)
        elif kind == _LINK_INFO:
            self._many_links(data)
        elif kind == _TABLE:
            self._table(struct.unpack_from("<Q", data)[0], set())
        elif kind == _STORAGE:
            raise _LeadsOutError("keeps numbers in another file (external storage)")
        elif kind == _LAYOUT:
            form = data[2] if data[0] < 3 else data[1]
            if form == 3:
                raise _LeadsOutError("is put together of other files (a virtual dataset)")
            if form > 3 or data[0] not in (1, 2, 3, 4, 5):
                raise _unknown(f"numbers that are laid out as {form}")
        elif kind not in _HARMLESS and kind != _CONTINUED:
            raise _unknown(f"a message of kind {kind}")

    def _link(self, data: bytes) -> None:
        """A link (IV.A.2.g) to an address in the file."""
        version, flags = data[0], data[1]
        if version != 1:
            raise _unknown(f"a link of version {version}")
        place, kind = 2, 0
        if flags & 8:
            kind, place = data[2], 3
        place += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        place += width + int.from_bytes(data[place : place + width], "little")
        if kind == 0:
            self.waiting.append(struct.unpack_from("<Q", data, place)[0])
        elif kind == _EXTERNAL:
            raise _LeadsOutError("links to another file (an external link)")
        else:  # by a name, over which netCDF's library may go round in a circle
            raise _unknown(f"a link of kind {kind}")

    def _table(self, at: int, done: set[int]) -> None:
        """The links of a group as older files have them (III.A.1, III.B), which stay within it."""
        if at == _UNDEFINED or at in done:
            return
        done.add(at)
        _, kind, level, used, _, right = struct.unpack("<4sBBHQQ", self._read(at, 24, b"TREE"))
        if kind != 0:
            raise _unknown(f"a table of kind {kind}")
        self._table(right, done)
        keys = struct.unpack(f"<{2 * used + 1}Q", self._read(at + 24, 8 * (2 * used + 1)))
        for child in keys[1::2]:
            if level:
                self._table(child, done)
                continue
            (count,) = struct.unpack("<H", self._read(child, 8, b"SNOD")[6:])
            entries = self._read(child + 8, 40 * count)
            for place in range(0, len(entries), 40):
                _, header, cached = struct.unpack_from("<QQI", entries, place)
                if cached == 2:
                    raise _unknown("a link by a name")
                self.waiting.append(header)

    def _many_links(self, data: bytes) -> None:
        """The links of a group that has many (IV.A.2.c), by each of their indexes."""
        flags, place = data[1], 10 if data[1] & 1 else 2
        heap, *trees = struct.unpack_from("<3Q" if flags & 2 else "<2Q", data, place)
        if data[0] != 0:
            raise _unknown(f"links of version {data[0]}")
        if heap == _UNDEFINED:
            return
        blocks = _Heap(self, heap)
        for tree in trees:
            if tree != _UNDEFINED:
                for record in self._records(tree):
                    self._link(blocks.get(record))

    def _records(self, at: int) -> Iterator[bytes]:
        """What a tree of the second version (III.A.2) says of links: where each lies in a heap."""
        head = self._read(at, 38, b"BTHD")
        kind, node, size, depth = struct.unpack_from("<BIHH", head, 5)
        root, count = struct.unpack_from("<QH", head, 16)
        begin = {5: 4, 6: 8}.get(kind)  # by names, by the order in which they were made
        if begin is None or depth > 1 or head[4] != 0:
            raise _unknown(f"an index of kind {kind}, {depth} levels deep")
        leaves = [(root, count)]
        if root == _UNDEFINED:
            return
        if depth:
            width = 8 + _bytes_for((node - 10) // size)
            inner = self._read(root, 6 + count * size + (count + 1) * width, b"BTIN")
            leaves = []
            for i in range(count + 1):
                child = inner[6 + count * size + i * width :][:width]
                leaves.append(
                    (int.from_bytes(child[:8], "little"), int.from_bytes(child[8:], "little"))
                )
            yield from (inner[6 + i * size + begin :][: size - begin] for i in range(count))
        for leaf, held in leaves:
            records = self._read(leaf, 6 + held * size, b"BTLF")
            yield from (records[6 + i * size + begin :][: size - begin] for i in range(held))


def _bytes_for(number: int) -> int:
    """How many bytes the library takes for numbers up to this one."""
    return (max(number, 1).bit_length() - 1) // 8 + 1


class _Heap:
    """Where links lie (III.G): blocks of growing size, side by side in one space."""

    def __init__(self, walk: _Walk, at: int) -> None:
        self.walk = walk
        head = walk._read(at, 142, b"FRHP")
        _, filters, _, largest = struct.unpack_from("<HHBI", head, 5)
        width, start, most, bits = struct.unpack_from("<HQQH", head, 110)
        root, rows = struct.unpack_from("<QH", head, 132)
        if filters or head[4] != 0:
            raise _unknown("links that are compressed")
        self.offset, self.length = (bits + 7) // 8, _bytes_for(min(most, largest))
        self.blocks: list[tuple[int, int, int]] = [(0, start, root)]
        if rows:
            self.blocks = []
            begin = 5 + 8 + self.offset
            listed = walk._read(root, begin + 8 * width * rows, b"FHIB")[begin:]
            place = 0
            for i, (child,) in enumerate(struct.iter_unpack("<Q", listed)):
                size = start << max(i // width - 1, 0)
                if size > most:
                    break  # blocks of blocks: what lies in there is not found, and refused
                self.blocks.append((place, size, child))
                place += size

    def get(self, record: bytes) -> bytes:
        """What a record of an index names.

        Raises:
            _LeadsOutError: it lies elsewhere than in a block.
        """
        place = int.from_bytes(record[1 : 1 + self.offset], "little")
        length = int.from_bytes(record[1 + self.offset :][: self.length], "little")
        if record[0] == 0:
            for begin, size, at in self.blocks:
                if begin <= place and place + length <= begin + size and at != _UNDEFINED:
                    return self.walk._read(at + place - begin, length)
        raise _unknown("a link that lies out of the way")
