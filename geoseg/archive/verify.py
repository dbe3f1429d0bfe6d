"""Whether every file of an archive is what was written: all are read, and hashed again.

What a file should be is said twice: by the ledger of jobs, and by the STAC item beside the map.
Nothing is changed. A file that can't be read is a finding, not an error.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.archive.model_item import MODELS
from geoseg.archive.stac_item import ITEM_NAME
from geoseg.archive.store import Store, store_of
from geoseg.core.wording import counted
from geoseg.core.workers import Workers

__all__ = ["FINDINGS", "Certificate", "Finding", "certificate_text", "verify"]

#: Kind of a finding -> what it is, in words.
FINDINGS = {
    "missing": "files that are missing",
    "differs": "files that are not what was written",
    "unreadable": "files that can't be read",
    "no item": "jobs that are done and have no item",
    "bad item": "items that can't be read, or are of another job",
    "not done": "items of jobs that are not done",
    "unknown file": "files that no job wrote",
    "unknown folder": "folders that no job knows",
}
#: Bytes that are read at a time.
_BLOCK = 1 << 20
#: An item is some kilobytes; a larger one is none.
_MOST_ITEM_BYTES = 16 << 20
#: Findings of a kind that a text lists.
_LISTED = 20


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        kind: a key of :data:`FINDINGS`.
        path: from the archive's folder.
        text: what was found.
    """

    kind: str
    path: str
    text: str = ""


@dataclass(frozen=True)
class Certificate:
    """What was found of an archive.

    Attributes:
        jobs: that are done, by the ledger.
        files: that were read.
        bytes: of them.
        sha256: of the lines ``checksum  path`` of all files that were read, in the order of their
            jobs and names, as ``sha256sum`` writes them; hexadecimal. Two archives with the same
            one hold the same files.
        findings: sorted; none where all is well.
    """

    jobs: int
    files: int
    bytes: int
    sha256: str
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found that is not as it should be."""
        return not self.findings

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind that there is."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in FINDINGS if found[kind]}

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON has it."""
        return {
            "jobs": self.jobs,
            "files": self.files,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "is_whole": self.is_whole,
            "counts": self.counts,
            "findings": [vars(finding) for finding in self.findings],
        }


@dataclass(frozen=True)
class _Job:
    """What was found of a job: its files' (name, SHA-256) by name, their bytes, and findings."""

    key: str
    hashes: list[tuple[str, str]]
    bytes: int
    findings: list[Finding]


class _StoppedError(Exception):
    """Another thread failed, or the user interrupted."""


def verify(
    out: Path | Store,
    expected: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    unfinished: Container[str] = (),
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    each: Callable[[str], None] | None = None,
) -> Certificate:
    """Compare an archive's files with what the ledger and their items say.

    Args:
        out: the archive's folder, or its files.
        expected: of each job that is done, by key: its files by name, each with ``size``, bytes,
            and ``checksum``, a hexadecimal SHA-256 or multihash of one. Jobs are asked for one by
            one, so it may be a database.
        unfinished: keys of jobs that the ledger knows and that are not done: their folders may
            hold anything but an item.
        threads: that read; by default as many as gain from it.
        progress: called now and then with jobs that are looked at and bytes that are read.
        each: called with each line ``checksum  path``, without line end, for a file that
            ``sha256sum --check`` takes.

    Returns:
        The same, however many threads there are.

    Raises:
        OSError: the archive's folder itself can't be read.
    """
    store = store_of(out) if isinstance(out, Path) else out
    keys = sorted(expected)
    findings = list(_strangers(store, expected, unfinished))
    lines, files, read = hashlib.sha256(), 0, 0
    stopped = threading.Event()
    workers = Workers(threads or store.threads)

    def look(asked: tuple[str, Mapping[str, Mapping[str, Any]]]) -> _Job:
        return _look(store, *asked, stopped)

    # The ledger is asked in this thread alone: a database may want that.
    asked = ((key, expected[key]) for key in keys)
    with workers:
        try:
            for done, job in enumerate(workers.map(look, asked, 2 * workers.threads), start=1):
                findings += job.findings
                files, read = files + len(job.hashes), read + job.bytes
                for name, sha256 in job.hashes:
                    line = f"{sha256}  {job.key}/{name}"
                    lines.update(f"{line}\n".encode(errors="surrogateescape"))
                    if each is not None:
                        each(line)
                if progress is not None:
                    progress(done, read)
        finally:
            stopped.set()
    return Certificate(len(keys), files, read, lines.hexdigest(), tuple(sorted(findings)))


def _strangers(
    store: Store, expected: Container[str], unfinished: Container[str]
) -> Iterator[Finding]:
    """Find folders that no job knows, and items of jobs that are not done."""
    for name in store.folders():
        if name in expected or name == MODELS:
            continue
        has_item = store.has(f"{name}/{ITEM_NAME}")
        if name not in unfinished:
            text = "with an item" if has_item else "without an item"
            yield Finding("unknown folder", name, text)
        elif has_item:
            yield Finding("not done", f"{name}/{ITEM_NAME}", "the ledger says that it is not done")


def _look(
    store: Store, key: str, ledger: Mapping[str, Mapping[str, Any]], stopped: threading.Event
) -> _Job:
    """Read all files of a job that is done, and compare them."""
    by_item, findings = _of_item(store, key)
    says = {
        "ledger": {name.removeprefix(f"{key}/"): about for name, about in ledger.items()},
        "item": by_item,
    }
    found, problem = _names(store, key)
    findings += problem
    known = {ITEM_NAME, *says["ledger"], *by_item}
    hashes, total = [], 0
    for name in sorted({*found, *known}):
        path = f"{key}/{name}"
        said = {who: about[name] for who, about in says.items() if name in about}
        if name not in known:
            if not store.is_harmless(path):
                findings.append(Finding("unknown file", path))
        elif name not in found and not store.has(path):
            if said:  # else it is the item, which is reported already
                findings.append(Finding("missing", path, f"the {' and the '.join(said)} has it"))
        else:
            size, sha256, why = _hash(store, path, stopped)
            if sha256 is None:
                findings.append(Finding("unreadable", path, why))
            else:
                total += size
                hashes.append((name, sha256))
                findings += _compared(path, size, sha256, said)
    return _Job(key, hashes, total, findings)


def _names(store: Store, key: str) -> tuple[list[str], list[Finding]]:
    """List a folder's entries; none where it is missing."""
    try:
        return store.names(key), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [Finding("unreadable", key, str(error.strerror))]


def _of_item(store: Store, key: str) -> tuple[dict[str, Mapping[str, Any]], list[Finding]]:
    """Read what an item says of the files beside it."""
    path = f"{key}/{ITEM_NAME}"
    try:
        with store.open(path) as file:
            item = json.loads(file.read(_MOST_ITEM_BYTES))
        if item["id"] != key:
            return {}, [Finding("bad item", path, f"it is of {item['id']!r}")]
        assets = {Path(a["href"]).name: a for a in item["assets"].values() if _is_beside(a["href"])}
        about: dict[str, Mapping[str, Any]] = {
            name: {"size": asset["file:size"], "checksum": asset["file:checksum"]}
            for name, asset in assets.items()
        }
    except FileNotFoundError:
        return {}, [Finding("no item", path)]
    except OSError as error:
        return {}, [Finding("bad item", path, str(error.strerror))]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return {}, [Finding("bad item", path, f"{type(error).__name__}: {error}"[:200])]
    return about, []


def _is_beside(href: str) -> bool:
    name = href.removeprefix("./")
    return name not in ("", ".", "..") and not {"/", "\\", ":", "\0"} & set(name)


def _hash(store: Store, path: str, stopped: threading.Event) -> tuple[int, str | None, str]:
    """Hash a file: its bytes, its SHA-256, or None and why it can't be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with store.open(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if stopped.is_set():
                    raise _StoppedError
    except OSError as error:
        return 0, None, str(error.strerror or error)
    return size, digest.hexdigest(), ""


def _compared(
    path: str, size: int, sha256: str, said: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    """Compare a file with what is said of it."""
    wrong = [
        f"the {who} has {about['size']} bytes, {_plain_hash(about['checksum'])[:12]}"
        for who, about in said.items()
        if (about["size"], _plain_hash(about["checksum"])) != (size, sha256)
    ]
    if wrong:
        found = f"found {size} bytes, {sha256[:12]}"
        yield Finding("differs", path, "; ".join([found, *wrong]))


def _plain_hash(checksum: Any) -> str:
    """Take the SHA-256 out of a multihash of one."""
    text = str(checksum).lower()
    return text[4:] if len(text) == 68 and text.startswith("1220") else text


def certificate_text(certificate: Certificate) -> str:
    """Write a certificate for people.

    Args:
        certificate: of :func:`verify`.

    Returns:
        Some lines, each with its end.
    """
    lines = [
        f"jobs done      {certificate.jobs}",
        f"files read     {certificate.files}",
        f"bytes read     {certificate.bytes}",
        f"sha256         {certificate.sha256}",
    ]
    for kind, count in certificate.counts.items():
        lines.append(f"{FINDINGS[kind]}: {count}")
        some = [finding for finding in certificate.findings if finding.kind == kind]
        lines += [f"  {_shown(f)}" for f in some[:_LISTED]]
        if len(some) > _LISTED:
            lines.append(f"  and {len(some) - _LISTED} more")
    if certificate.is_whole:
        lines.append("all files are what was written")
    else:
        found = counted(len(certificate.findings), "finding")
        lines.append(f"{found}: the archive is not what was written")
        lines.append(
            "remove files that are not what they were, and give the command that made the archive "
            "again: it makes maps anew of which a file is missing"
        )
    return "\n".join(lines) + "\n"


def _shown(finding: Finding) -> str:
    """Write a finding in a line; names may hold anything, line ends and broken text among it."""
    text = f"{finding.path}: {finding.text}" if finding.text else finding.path
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
