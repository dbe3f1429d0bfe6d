"""The ledger of an archive: what it says holds, whoever does what at the same time."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from geoseg.archive import coordinators
from geoseg.archive.entries import STATES, Job, NewJob
from geoseg.archive.ledger import LEASE, LONGEST, LOSSES, Ledger
from geoseg.archive.ledger_file import LedgerFile
from geoseg.errors import OutputError


def new(key: str, **source: Any) -> NewJob:
    return NewJob(key, key, source or {"files": [f"/{key}.tif"]})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as one:
        yield one


# The law of states: a simple model does the same.


@dataclass
class Simple:
    """A job as the model has it."""

    number: int
    state: str = "waiting"
    due: float = 0.0
    tries: int = 0
    losses: int = 0
    blocks: list[str] | None = None
    parent: str | None = None
    owner: int | None = None
    result: Any = field(default_factory=dict)


ENDS = st.lists(st.sampled_from(["lost", "lost", "split", "done", "later"]), min_size=2, max_size=6)


class LedgerMachine(RuleBasedStateMachine):
    """Two coordinators with one file and one clock, and a model of both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.jobs: dict[str, Simple] = {}
        self.asked: list[set[str]] = [set(), set()]
        #: Claims that somebody may still report on, the job's own ones and those of before.
        self.claims: list[tuple[int, Job]] = []
        self.ended: list[tuple[int, Job]] = []
        self.attempts = 0

    @initialize()
    def open(self) -> None:
        self.two = [Ledger(self.folder / "l.db", clock=lambda: self.now) for _ in range(2)]
        self.add(0, ["a", "b"])
        self.add(1, ["b"])

    def teardown(self) -> None:
        for one in getattr(self, "two", ()):
            one.__exit__()
        shutil.rmtree(self.folder)

    def _ready(self, who: int) -> list[str]:
        found = [
            (job.losses, job.number, key)
            for key, job in self.jobs.items()
            if (job.parent or key) in self.asked[who]
            and job.state == "waiting"
            and not self._pending(job)
            and job.due <= self.now
            and (job.parent is None or self.jobs[job.parent].state == "waiting")
        ]
        return [key for _, _, key in sorted(found)]

    def _pending(self, job: Simple) -> bool:
        return any(self.jobs[key].state != "done" for key in job.blocks or ())

    @rule(who=st.integers(0, 1), names=st.lists(st.sampled_from("abc"), max_size=4))
    def add(self, who: int, names: list[str]) -> None:
        fresh = [n for n in dict.fromkeys(names) if n not in self.jobs]
        known = len(set(names)) - len(fresh)
        assert self.two[who].add(map(new, names)) == (len(fresh), known)
        last = max((job.number for job in self.jobs.values()), default=0)
        for place, name in enumerate(names, start=1):
            self.asked[who].add(name)
            if name not in self.jobs:
                self.jobs[name] = Simple(last + place)

    @rule(who=st.integers(0, 1), most=st.integers(1, 3))
    def claim(self, who: int, most: int) -> None:
        expected = self._ready(who)[:most]
        taken = self.two[who].claim(most)
        assert [job.key for job in taken] == expected
        for job in taken:
            self.attempts += 1
            one = self.jobs[job.key]
            assert (job.tries, job.losses, job.state) == (one.tries, one.losses, "running")
            assert job.attempt is not None
            one.state, one.owner = "running", job.attempt
            self.claims.append((who, job))

    def _pick(self, data: st.DataObject) -> tuple[Ledger, Job, Simple | None]:
        """A claim, which may have been reported on before."""
        # The latest first, and those of long ago seldom.
        many = [*reversed(self.claims), *self.ended[-1:]]
        return self._taken(data.draw(st.sampled_from(many)))

    def _taken(self, claim: tuple[int, Job]) -> tuple[Ledger, Job, Simple | None]:
        who, job = claim
        if claim in self.claims:
            self.claims.remove(claim)
            self.ended.append(claim)
        one = self.jobs.get(job.key)
        mine = one is not None and one.state == "running" and one.owner == job.attempt
        return self.two[who], job, one if mine else None

    some = precondition(lambda self: self.claims)

    @some
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        self._done(*self._pick(data))

    def _done(self, ledger: Ledger, job: Job, one: Simple | None) -> None:
        assert ledger.done(job, {"pixels": job.attempt}) == (one is not None)
        if one:
            one.state, one.result = "done", {"pixels": job.attempt}

    @some
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        ledger, job, one = self._pick(data)
        assert ledger.quarantine(job, "corrupt", "it is") == (one is not None)
        if one:
            self._quarantined(one)

    def _quarantined(self, one: Simple) -> None:
        one.state = "quarantined"
        if one.parent and self.jobs[one.parent].state == "waiting":
            self.jobs[one.parent].state = "quarantined"

    @some
    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        self._lost(*self._pick(data))

    def _lost(self, ledger: Ledger, job: Job, one: Simple | None) -> None:
        assert ledger.lost(job, "killed") == (one is not None)
        if one and one.losses + 1 == LOSSES:
            self._quarantined(one)
        elif one:
            one.state, one.losses, one.due = "waiting", one.losses + 1, 0.0

    @some
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 5.0, 600.0, 1e9]))
    def try_later(self, data: st.DataObject, seconds: float) -> None:
        self._try_later(*self._pick(data), seconds)

    def _try_later(self, ledger: Ledger, job: Job, one: Simple | None, seconds: float) -> None:
        assert ledger.try_later(job, "HTTP 503", seconds) == (one is not None)
        if one:
            one.state, one.tries = "waiting", one.tries + 1
            one.due = self.now + min(seconds, LONGEST)

    @some
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self._give_back(*self._pick(data))

    def _give_back(self, ledger: Ledger, job: Job, one: Simple | None) -> None:
        assert ledger.give_back(job, "told to go") == (one is not None)
        if one:
            one.state, one.due = "waiting", 0.0

    @some
    @rule(data=st.data(), count=st.integers(1, 2))
    def split(self, data: st.DataObject, count: int) -> None:
        self._split(*self._pick(data), count)

    def _split(self, ledger: Ledger, job: Job, one: Simple | None, count: int) -> None:
        if job.parent is not None:
            return self._give_back(ledger, job, one)
        names = [f"{job.key}-{n}" for n in range(count)]
        blocks = [NewJob(n, n, {}, job.key) for n in names]
        assert ledger.split(job, blocks) == (one is not None)
        if one:
            one.state, one.due = "waiting", 0.0
            one.blocks = [*dict.fromkeys([*(one.blocks or []), *names])]
            for name in names:
                self.jobs.setdefault(name, Simple(one.number, parent=job.key))

    @rule(keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=2), who=st.integers(0, 1))
    def again(self, keys: list[str], who: int) -> None:
        changed = [
            k
            for k in dict.fromkeys(keys)
            if k in self.jobs and self.jobs[k].state in ("done", "quarantined")
        ]
        assert self.two[who].again(keys, "its map is gone") == len(changed)
        for key in changed:
            for block in self.jobs[key].blocks or ():
                del self.jobs[block]
            self.jobs[key] = Simple(self.jobs[key].number, owner=self.jobs[key].owner)

    @rule(most=st.integers(1, 3), ends=ENDS)
    def go_on(self, most: int, ends: list[str]) -> None:
        """A run as it is most often: claimed, reported on, claimed again."""
        for end in ends:
            before = len(self.claims)
            self.claim(0, most)
            for claim in self.claims[before:]:
                if end == "split":
                    self._split(*self._taken(claim), 2)
                elif end == "lost":
                    self._lost(*self._taken(claim))
                elif end == "done":
                    self._done(*self._taken(claim))
                else:
                    self._try_later(*self._taken(claim), 5.0)

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(who=st.integers(0, 1))
    def close_and_open(self, who: int) -> None:
        """One ends, with or without order: what it had running goes back."""
        self.two[who].__exit__()
        self.two[who] = Ledger(self.folder / "l.db", clock=lambda: self.now)
        self.asked[who] = set()
        for one, job in [pair for pair in self.claims if pair[0] == who]:
            self.claims.remove((one, job))
            self.ended.append((one, job))
            simple = self.jobs.get(job.key)
            if simple and simple.state == "running" and simple.owner == job.attempt:
                simple.state = "waiting"

    @invariant()
    def it_says_the_same(self) -> None:
        if not self.jobs:
            return
        for who, ledger in enumerate(self.two):
            found = {job.key: job for job in ledger.jobs(blocks=True)}
            assert found.keys() == self.jobs.keys()
            for key, job in self.jobs.items():
                row = found[key]
                assert (row.state, row.tries, row.losses) == (job.state, job.tries, job.losses), key
                assert row.result == job.result or job.state != "done"
                assert row.parent == job.parent
                if job.state == "waiting":
                    assert (row.pending > 0) == self._pending(job), key
            whole = [job for job in self.jobs.values() if job.parent is None]
            counts = {state: sum(job.state == state for job in whole) for state in STATES}
            assert ledger.counts() == counts
            assert sum(ledger.counts(asked=True).values()) == len(
                [k for k in self.asked[who] if k in self.jobs and self.jobs[k].parent is None]
            )
            due = ledger.next_due()
            assert (due == 0) == bool(self._ready(who))
        attempts = list(self.two[0].attempts())
        assert len(attempts) == self.attempts
        running = {job.owner for job in self.jobs.values() if job.state == "running"}
        assert running <= {a.id for a in attempts if a.ended is None}


LedgerMachine.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestStates = LedgerMachine.TestCase


# What the model leaves out.


def test_every_attempt_is_kept_with_what_came_of_it(ledger: Ledger) -> None:
    ledger.add([new("a")])
    for end in ("give_back", "lost"):
        (job,) = ledger.claim(5)
        getattr(ledger, end)(job, "why")
    (job,) = ledger.claim(5)
    ledger.started(job, "host", "tcp://w", "geoseg 1, openvino 2")
    ledger.try_later(job, "HTTP 503", 0, peak_bytes=7)
    (job,) = ledger.claim(5)
    ledger.done(job, {"bytes": 3}, peak_bytes=9)
    found = list(ledger.attempts("a"))
    assert [a.outcome for a in found] == ["given back", "lost", "failed", "done"]
    assert [a.error for a in found] == ["why", "why", "HTTP 503", ""]
    assert found[2].host == "host" and found[2].worker == "tcp://w"
    assert all(a.ended is not None and a.began <= a.ended for a in found)
    assert ledger.peaks() == {"a": 9}
    assert ledger.span()[2:] == (["host"], {"geoseg": "1", "openvino": "2"})
    assert ledger.job("a") and not ledger.job("b")


def test_an_attempt_began_when_it_was_claimed(tmp_path: Path) -> None:
    now = 100.0
    with Ledger(tmp_path / "l", clock=lambda: now) as ledger:
        ledger.add([new("a")])
        (job,) = ledger.claim(1)
        now = 160.0
        ledger.started(job, "h", "w", "v")  # it is known where only once it is done
        ledger.done(job, {})
        (attempt,) = ledger.attempts()
        assert (attempt.began, attempt.ended) == (100, 160)


def test_a_job_that_took_workers_with_it_waits_for_the_others(ledger: Ledger) -> None:
    ledger.add(map(new, "abc"))
    (job,) = ledger.claim(1)
    ledger.lost(job, "killed")
    assert [j.key for j in ledger.claim(3)] == ["b", "c", "a"]


def test_a_clock_that_is_set_back_keeps_no_job_waiting(tmp_path: Path) -> None:
    now = 1e9
    with Ledger(tmp_path / "l", clock=lambda: now) as ledger:
        ledger.add([new("a")])
        (job,) = ledger.claim(1)
        ledger.try_later(job, "HTTP 503", 600)
        assert ledger.next_due() == 600 and not ledger.claim(1)
        now -= 86_400.0
        assert ledger.next_due() == 0 and len(ledger.claim(1)) == 1


def test_a_block_that_is_named_twice_is_waited_for_once(ledger: Ledger) -> None:
    ledger.add([new("a")])
    (job,) = ledger.claim(1)
    ledger.split(job, [NewJob("b", "b", {}, "a")] * 2)
    (block,) = ledger.claim(5)
    ledger.done(block, {})
    assert [j.key for j in ledger.claim(5)] == ["a"]


def test_blocks_are_claimed_by_whoever_was_asked_for_their_scene(ledger: Ledger) -> None:
    """By a coordinator that comes after the one that split it, and by one beside it."""
    ledger.add([new("a")])
    (job,) = ledger.claim(1)
    ledger.split(job, [NewJob(n, n, {}, "a") for n in "bcd"])
    with Ledger(ledger.path) as other, Ledger(ledger.path) as third:
        other.add([new("a")])
        third.add([new("e")])
        assert other.next_due() == 0
        (block,) = other.claim(1)
        assert block.key == "b" and other.done(block, {"strips": 3}, 7)
        assert [j.key for j in third.claim(5)] == ["e"]
        for block in ledger.claim(5):
            ledger.done(block, {})
        (job,) = other.claim(5)
        assert other.done(job, {}, 5) and other.peaks() == {"a": 7}
    assert [j.key for j in ledger.blocks("a")] == ["b", "c", "d"]
    assert next(ledger.blocks("a")).result == {"strips": 3} and not [*ledger.blocks("b")]


def test_again_leaves_what_is_at_work(ledger: Ledger) -> None:
    ledger.add([new("a")])
    (job,) = ledger.claim(1)
    ledger.split(job, [NewJob("b", "b", {}, "a")])
    (block,) = ledger.claim(1)
    assert ledger.again(["a"], "why") == 0
    assert ledger.done(block, {})


def test_jobs_enter_whole_or_not_at_all(ledger: Ledger) -> None:
    def jobs() -> Iterator[NewJob]:
        yield from map(new, map(str, range(2000)))
        # Meanwhile others write: they are kept from nothing.
        with Ledger(ledger.path) as other:
            assert other.add([new("x")]) == (1, 0)
        raise OSError("the list breaks off")

    with pytest.raises(OSError, match="breaks off"):
        ledger.add(jobs())
    assert ledger.counts()["waiting"] == 1 and not ledger.claim(1)
    assert ledger.add([new("x"), new("y"), new("y")]) == (1, 1)
    assert [j.key for j in ledger.claim(5)] == ["x", "y"]


def test_notes_are_kept(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.note("model") is None
        assert ledger.note("model", {"sha": "x"}) == {"sha": "x"}
        ledger.note("model", [1])
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.note("model") == [1]


# Coordinators that come and go.


def test_what_a_coordinator_leaves_running_goes_back_when_it_ends(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        ledger.add(map(new, "ab"))
        a, _ = ledger.claim(2)
        ledger.done(a, {})
        # Interrupted between the claim and a worker.
    with Ledger(tmp_path / "l") as ledger:
        ledger.add(map(new, "ab"))
        assert [j.key for j in ledger.claim(5)] == ["b"]
        assert [a.outcome for a in ledger.attempts()] == ["done", "given back", ""]


def test_what_a_coordinator_elsewhere_has_is_its_own_for_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    def clock() -> float:
        return now

    with Ledger(tmp_path / "l", clock=clock) as here, Ledger(tmp_path / "l", clock=clock) as there:
        with monkeypatch.context() as patch:
            patch.setattr(coordinators, "_here", lambda: "elsewhere")
            there.add([new("a")])
            (job,) = there.claim(1)
        here.add([new("a")])
        now += LEASE - 1
        assert not here.claim(1)
        with monkeypatch.context() as patch:
            patch.setattr(coordinators, "_here", lambda: "elsewhere")
            there.alive()
        now += LEASE - 1
        assert not here.claim(1)
        now += 2
        (again,) = here.claim(1)
        # It was slow, not dead: what it reports changes nothing any more.
        assert not there.done(job, {"by": "there"})
        assert here.done(again, {"by": "here"})
        found = here.job("a")
        assert found and found.result == {"by": "here"}


def test_a_process_of_the_same_number_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import os, signal
from pathlib import Path
from geoseg.archive.entries import NewJob
from geoseg.archive.ledger import Ledger
ledger = Ledger(Path({str(tmp_path / "l")!r}))
ledger.add([NewJob("a", "a", {{}})])
assert len(ledger.claim(1)) == 1  # without a word that it is alive
print("claimed", flush=True)
signal.pause()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"claimed\n"
        with Ledger(tmp_path / "l") as ledger:
            ledger.add([new("a")])
            assert not ledger.claim(1)
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            # Nobody has looked after it yet, so that its number is still taken.
            (job,) = ledger.claim(1)
            assert job.key == "a"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_a_ledger_that_another_coordinator_is_just_making_is_no_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l"
    faster = threading.Thread(target=lambda: LedgerFile(path).close())
    plain = LedgerFile.rows

    def slow(self: LedgerFile, statement: str, values: Any = ()) -> list[Any]:
        answer = plain(self, statement, values)
        if threading.current_thread() is not faster and faster.ident is None:
            faster.start()
            faster.join(1)
        return answer

    monkeypatch.setattr(LedgerFile, "rows", slow)
    with Ledger(path) as ledger:
        faster.join(60)
        assert not faster.is_alive()
        assert ledger.add([new("a")]) == (1, 0)


def _work(path: Path, out: Path, seed: int, count: int) -> None:
    """A coordinator that does jobs by noting that it did."""
    chance = random.Random(seed)
    with Ledger(path) as ledger, open(out, "a", encoding="utf-8", buffering=1) as log:
        ledger.alive()
        ledger.add(new(f"j{n}") for n in range(count))
        while True:
            jobs = ledger.claim(chance.randint(1, 4))
            if not jobs and ledger.counts()["done"] == count:
                return
            for job in jobs:
                log.write(f"{job.key} {job.attempt}\n")
                time.sleep(chance.random() * 0.004)
                assert ledger.done(job, {"by": seed})
            if not jobs:
                time.sleep(0.01)


def test_no_two_coordinators_do_the_same_job_and_none_is_forgotten(tmp_path: Path) -> None:
    count, path = 300, tmp_path / "l"
    spawn = multiprocessing.get_context("spawn")
    processes = []
    for seed in range(3):
        out = tmp_path / f"{seed}.txt"
        one = spawn.Process(target=_work, args=(path, out, seed, count), daemon=True)
        one.start()
        processes.append(one)
    killed = processes[0]
    until = time.monotonic() + 60
    own = tmp_path / "0.txt"
    while not own.exists() or own.read_text(encoding="utf-8").count("\n") < 30:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    for one in processes[1:]:
        one.join(90)
        assert one.exitcode == 0
    killed.join(10)
    with Ledger(path) as ledger:
        assert ledger.counts() == {"waiting": 0, "running": 0, "done": count, "quarantined": 0}
        attempts = list(ledger.attempts())
    done = [a.key for a in attempts if a.outcome == "done"]
    assert len(done) == len(set(done)) == count
    lines = [
        line
        for n in range(3)
        for line in (tmp_path / f"{n}.txt").read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == len(set(lines))  # no attempt was anybody else's
    given = [a for a in attempts if a.outcome == "given back"]
    assert len(given) <= 4 and all(a.error == "its coordinator went away" for a in given)
    assert {a.outcome for a in attempts} <= {"done", "given back"}


# The file.


def refused(path: Path, said: str) -> None:
    with pytest.raises(OutputError, match=said) as caught:
        Ledger(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_another_programs_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE t (x)")
    base.close()
    before = path.read_bytes()
    refused(path, "another program")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["l"]
    path.write_text("text " * 1000, encoding="utf-8")
    refused(path, "no ledger, or is damaged")
    assert path.read_text(encoding="utf-8").startswith("text ")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "can't be used as a ledger")
    refused(tmp_path / "none" / "l", "can't be used as a ledger")


def test_a_ledger_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l"
    Ledger(path).__exit__()
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 9")
    base.close()
    refused(path, "another version of geoseg")


def test_a_damaged_ledger_is_reported_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        ledger.add(new(f"j{n}", x="y" * 500) for n in range(500))
    data = bytearray(path.read_bytes())
    data[8192 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 8192)
    path.write_bytes(data)
    with pytest.raises(OutputError, match="damaged") as caught, Ledger(path) as ledger:
        ledger.add([new("k")])
        while ledger.claim(10):
            pass
        list(ledger.jobs())
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_reported_and_what_is_done_stays_done(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from pathlib import Path
from geoseg.archive.entries import NewJob
from geoseg.archive.faults import fault_of
from geoseg.archive.ledger import Ledger
from geoseg.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path({str(tmp_path / "l")!r}))
ledger.add(NewJob(f"j{{n}}", "j", {{}}) for n in range(1000))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
count = 0
try:
    for _ in range(1000):
        (job,) = ledger.claim(1)
        ledger.done(job, {{"x": "y" * 20_000}})
        count += 1
except OutputError as error:
    assert "\\n" not in str(error) and "make space" in str(error), error
    assert fault_of(error).kind == "stop"
    assert ledger.counts()["done"] == count
    print(count)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr
    count = int(found.stdout)
    assert 10 < count < 500
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.counts()["done"] == count
        ledger.add(new(f"j{n}") for n in range(1000))
        assert len(ledger.claim(1000)) == 1000 - count


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        refused(tmp_path / "l", "can't be used as a ledger")
    finally:
        tmp_path.chmod(0o700)


def test_a_power_cut_takes_nothing_that_was_reported_as_done(ledger: Ledger) -> None:
    base = ledger._base
    assert base.rows("PRAGMA journal_mode") == [("wal",)]
    assert base.rows("PRAGMA synchronous") == [(2,)]
    assert base.rows("PRAGMA fullfsync") == [(1,)]


def test_a_hundred_thousand_jobs_are_no_burden(tmp_path: Path) -> None:
    count = 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Ledger(tmp_path / "l") as ledger:
        start = time.process_time()
        assert ledger.add(new(f"scene-{n:06}-0123456789", x="y" * 100) for n in range(count)) == (
            count,
            0,
        )
        assert time.process_time() - start < 20
        # What waits costs nothing; what is done neither.
        start = time.process_time()
        for _ in range(100):
            (job,) = ledger.claim(1)
            ledger.started(job, "host", "worker", "geoseg 1")
            ledger.done(job, {"bytes": 1})
        assert (time.process_time() - start) / 100 < 0.02
        start = time.process_time()
        assert ledger.counts(asked=True)["done"] == 100 and ledger.next_due() == 0
        assert time.process_time() - start < 1
        assert sum(1 for _ in ledger.jobs()) == count
    # In kilobytes, or bytes on macOS.
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (60_000_000 if sys.platform == "darwin" else 60_000)


def test_a_jobs_source_is_json_again(ledger: Ledger) -> None:
    source = {"files": [], "item": {"id": "é", "bbox": [1.5, 2, 3, 4]}}
    ledger.add([NewJob("a", "ä", source)])
    (job,) = ledger.claim(1)
    assert job.name == "ä" and json.dumps(job.source) == json.dumps(source)
