"""geoseg.core.locking: one run at a time, on every system."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from geoseg.core import locking
from geoseg.core.locking import BusyError, Lock

#: Windows, as far as its locks go: no fcntl, a msvcrt whose locks belong to open files, and no
#: removal of an open file.
WINDOWS = """
import errno, os, sys, types
import fcntl as real
locks = {}
def lock(handle, mode, count):
    assert (mode, count) == (2, 1)
    try:
        real.flock(handle, real.LOCK_EX | real.LOCK_NB)
    except OSError:
        raise PermissionError(errno.EACCES, "Permission denied") from None
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=lock, LK_NBLCK=2)
for name in ("O_NOFOLLOW",):
    delattr(os, name)
unlink = os.unlink
def in_use(path):
    return any(
        os.path.realpath(f"/proc/self/fd/{n}") == os.path.realpath(path)
        for n in os.listdir("/proc/self/fd")
    )
def guarded(path, **options):
    if in_use(path):
        raise PermissionError(errno.EACCES, "used by another process", str(path))
    unlink(path, **options)
os.unlink = guarded
"""


def holder(path: Path, before: str = "") -> subprocess.Popen[str]:
    """A process that holds a lock until its standard input ends; it has said so."""
    code = before + textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from geoseg.core.locking import Lock
        with Lock.take(Path({str(path)!r})):
            print("held", flush=True)
            sys.stdin.read()
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_kept_away_until_the_first_one_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    with pytest.raises(BusyError, match="another run holds"):
        Lock.take(path)
    process.communicate("")
    with Lock.take(path) as lock:
        assert lock.by_system


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Lock.take(path):
        pass


def test_two_runs_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with Lock.take(tmp_path / "lock"):
        for same in (tmp_path / "lock", tmp_path / "link" / "lock"):
            with pytest.raises(BusyError):
                Lock.take(same)
        with Lock.take(tmp_path / "other"):
            pass
    with Lock.take(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_lock_still_keeps_this_process_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    with Lock.take(tmp_path / "lock") as lock:
        assert not lock.by_system
        with pytest.raises(BusyError):
            Lock.take(tmp_path / "lock")


def test_other_errors_of_locking_are_raised_and_hold_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Input/output error"):
        Lock.take(tmp_path / "lock")
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.undo()
    with Lock.take(tmp_path / "lock"):
        pass


def test_a_lock_that_was_removed_between_opening_and_locking_keeps_nobody_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run ends just then: its file is gone, and a third run may make a new one."""
    path = tmp_path / "lock"
    first, taken, real = Lock.take(path), [], locking._lock
    locking._held.clear()  # as if the first one were of another process

    def ends_amid(handle: int, name: Path) -> bool:
        if not taken:
            taken.append(True)
            first.release(remove=True)
        return real(handle, name)

    monkeypatch.setattr(locking, "_lock", ends_amid)
    second = Lock.take(path)
    monkeypatch.undo()
    assert path.exists()
    locking._held.clear()
    with pytest.raises(BusyError):
        Lock.take(path)
    second.release(remove=True)
    assert not path.exists()


def test_of_many_that_take_and_remove_one_lock_only_one_is_inside(tmp_path: Path) -> None:
    """Processes and their threads; who is inside makes a file that must not be there."""
    code = textwrap.dedent(f"""
        import os, threading, time
        from pathlib import Path
        from geoseg.core.locking import BusyError, Lock
        folder = Path({str(tmp_path)!r})
        def work():
            done = 0
            while done < 60:
                try:
                    lock = Lock.take(folder / "lock")
                except BusyError:
                    continue
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
                os.unlink(folder / "inside")
                lock.release(remove=True)
                done += 1
        failed = []
        threading.excepthook = lambda about: failed.append(about.exc_value)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
    """)
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed_and_nothing_but_plain_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        Lock.take(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no plain file"):
        Lock.take(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        Lock.take(tmp_path / "nowhere" / "lock")


def test_a_second_release_does_nothing(tmp_path: Path) -> None:
    first = Lock.take(tmp_path / "lock")
    first.release()
    second = Lock.take(tmp_path / "lock")
    first.release(remove=True)
    assert (tmp_path / "lock").exists()
    with pytest.raises(BusyError):
        Lock.take(tmp_path / "lock")
    second.release()


def test_threads_that_start_together(tmp_path: Path) -> None:
    inside, most, begin = [0], [0], threading.Barrier(8)

    def work() -> None:
        begin.wait()
        try:
            with Lock.take(tmp_path / "lock"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
        except BusyError:
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_windows_simulated(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holder(path, WINDOWS)
    code = WINDOWS + textwrap.dedent(f"""
        from pathlib import Path
        from geoseg.core.locking import BusyError, Lock
        path = Path({str(path)!r})
        try:
            Lock.take(path)
        except BusyError:
            print("busy", flush=True)
        sys.stdin.readline()
        lock = Lock.take(path)
        assert lock.by_system
        try:
            Lock.take(path)
        except BusyError:
            print("busy")
        lock.release(remove=True)
        assert not path.exists()
        path.symlink_to("elsewhere")
        try:
            Lock.take(path)
        except OSError as error:
            print(error.strerror)
    """)
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    late = threading.Timer(60, other.kill)  # where it waits for the lock instead
    late.start()
    assert other.stdout.readline() == "busy\n"
    late.cancel()
    process.communicate("")
    out, _ = other.communicate("\n", timeout=60)
    assert out == "busy\nit is a symbolic link, which is not followed\n"
    assert not (tmp_path / "elsewhere").exists()


def test_a_system_without_any_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "fcntl", None)
    with Lock.take(tmp_path / "lock") as lock:
        assert not lock.by_system
