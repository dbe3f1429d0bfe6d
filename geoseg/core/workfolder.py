"""Hidden folders that geoseg alone makes, and that one run at a time works in."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from geoseg.core.locking import BusyError, Lock
from geoseg.errors import OutputError

__all__ = ["WorkFolder", "claim_folder", "leave_folder", "work_folder_of"]

#: In each folder, first of all: only what geoseg made is ever emptied.
MARK = "made-by-geoseg"
#: Held while a run works in the folder; those of training have the other one.
LOCK = "lock"
LOCKS = (LOCK, ".lock")
#: A folder that another run removes while this one takes it is made anew so often.
_TRIES = 10
#: How often a folder is looked at before it is somebody else's.
_LOOKS = 6


def work_folder_of(output: Path) -> Path:
    """Name the hidden folder beside an output that a run which writes it works in."""
    return output.absolute().parent / f".geoseg-{output.name}"


class WorkFolder:
    """A folder that this run alone works in, from :meth:`take` to the end.

    Attributes:
        path: of the folder.
        found: whether an earlier run left it.
    """

    def __init__(self, path: Path, lock: Lock, *, found: bool) -> None:
        """Hold a folder that is locked; see :meth:`take`."""
        self.path, self.found = path, found
        self._lock = lock

    @classmethod
    def take(cls, output: Path) -> WorkFolder:
        """Make the folder of an output, or take over what an earlier run left.

        Args:
            output: final path of the output.

        Returns:
            The folder, which no other run gets.

        Raises:
            OutputError: another run is at work on the output, or what has the folder's name is not
                geoseg's: a link, a file, or a folder without the mark.
            OSError: the folder can't be made.
        """
        path = work_folder_of(output)
        for _ in range(_TRIES):
            try:
                found = claim_folder(path, 0o700)
                lock = Lock.take(path / LOCK)
            except BusyError as error:
                raise OutputError(
                    f"another run is at work on {output} now; wait for it, or give another name"
                ) from error
            except FileNotFoundError:
                continue  # The run that had it has ended meanwhile, and removed it.
            return cls(path, lock, found=found)
        raise OutputError(
            f"other runs make and remove {path} all the time; wait for them, or give another name"
        )

    def clear(self, but: Sequence[str] = ()) -> None:
        """Remove what is in the folder.

        Args:
            but: names that stay, beside the mark and the lock.
        """
        with os.scandir(self.path) as entries:
            old = [entry for entry in entries if entry.name not in (MARK, LOCK, *but)]
        for entry in old:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)

    def release(self) -> None:
        """Leave the folder to a later run."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the folder and all that is in it, as far as that is possible."""
        with suppress(OSError):
            self.clear()
        leave_folder(self.path, self._lock)


def claim_folder(path: Path, mode: int = 0o777) -> bool:
    """Make a folder and mark it as geoseg's, or see that it is.

    Args:
        path: of the folder; its parent is there.
        mode: of a new one, less the user's mask.

    Returns:
        Whether it was there.

    Raises:
        OutputError: what stands there is not geoseg's: a link, a file, a folder without the mark
            that holds something, or one with a link in it.
        OSError: it can't be made.
    """
    try:
        os.mkdir(path, mode)
        found = False
    except FileExistsError:
        _check_ours(path)
        found = True
    _mark(path)
    return found


def leave_folder(path: Path, lock: Lock) -> None:
    """Release a claimed folder, which goes away where nothing of a run is left in it.

    Args:
        path: of the folder.
        lock: of a file in it.
    """
    # The mark goes while the lock is held: so there is never a run at work in a folder without.
    with suppress(OSError):
        if set(os.listdir(path)) <= {MARK, lock.path.name}:
            (path / MARK).unlink()
    lock.release(remove=True)
    with suppress(OSError):
        path.rmdir()


def _mark(path: Path) -> None:
    """Write the mark into a folder that is new or empty."""
    with suppress(FileExistsError):
        # Exclusively: no link that stands there is followed.
        os.close(os.open(path / MARK, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _check_ours(path: Path) -> None:
    """Refuse to work in what geoseg did not make.

    Raises:
        OutputError: it is a link or a file, it has no mark, or there are links in it.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OutputError(
                f"{path} is a link or a file, and geoseg works in a folder of that name which it "
                f"makes itself; remove it, or give another name"
            )
    except FileNotFoundError:
        return  # removed since; the next try makes it
    # A list of names that is taken while a run comes and another goes may have none of the mark's.
    if not any(_is_marked(path, number) for number in range(_LOOKS)):
        raise OutputError(
            f"{path} was not made by geoseg (it holds no file {MARK}), so it is neither used nor "
            f"emptied; move it away, or give another name"
        )
    for folder, folders, files in os.walk(path):
        link = next((n for n in (*folders, *files) if os.path.islink(os.path.join(folder, n))), "")
        if link:
            raise OutputError(
                f"{os.path.join(folder, link)} is a link, which geoseg never makes, so {path} is "
                f"neither used nor emptied; remove it, or give another name"
            )


def _is_marked(path: Path, number: int) -> bool:
    """Whether a folder has the mark, holds nothing that could be lost, or is gone.

    Args:
        path: of the folder.
        number: of the look; before a further one others get time.
    """
    time.sleep(0.02 * number)
    names = [MARK]
    try:
        names = os.listdir(path)
        if stat.S_ISREG(os.lstat(path / MARK).st_mode):
            return True
    except FileNotFoundError:
        if not os.path.lexists(path):
            return True
    try:
        # A run that was killed between making and marking leaves it empty; one that removes it
        # while another takes it, with the other's lock alone.
        return all(name in LOCKS and os.lstat(path / name).st_size == 0 for name in names)
    except FileNotFoundError:
        return False
