"""The folder of a training run: recipe, checkpoint, log, curve.

``<output>.training`` lies beside the model folder to be. Each file in it is written whole or not at
all, so that a run that is killed at any moment leaves a sound checkpoint.
"""

from __future__ import annotations

import csv
import gc
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from geoseg.core.files import replace_file, sync_file
from geoseg.core.gdal import first_line
from geoseg.core.locking import BusyError, Lock
from geoseg.core.workfolder import claim_folder, leave_folder
from geoseg.errors import OutputError, TrainingError

__all__ = ["RECIPE_NAME", "RunFolder", "draw_curve", "kept_alone"]

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.csv"
CURVE_NAME = "curve.png"
LOCK_NAME = ".lock"
#: How often a folder that other runs remove meanwhile is made again.
_TRIES = 1000
RECIPE_NAME = "recipe.json"


@contextmanager
def kept_alone(path: Path) -> Iterator[None]:
    """Make a run's folder and keep it for this run alone; removed at the end where it is empty.

    Args:
        path: of the folder.

    Raises:
        OutputError: it can't be written, geoseg did not make it, or another run is at work in it.
    """
    lock = _lock_folder(path)
    try:
        yield
    finally:
        leave_folder(path, lock)


def _lock_folder(path: Path) -> Lock:
    """Make a folder and lock it, again where a run that ends removes it meanwhile."""
    for _ in range(_TRIES):
        try:
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
            claim_folder(path)
            return Lock.take(path / LOCK_NAME)
        except BusyError as error:
            raise OutputError(
                f"another run is at work in {path}; wait for it, or give another output folder"
            ) from error
        except OSError as error:
            if not _went_away(path, error):
                raise OutputError(f"the folder {path} can't be written: {error}") from error
    raise OutputError(f"other runs make and remove {path} all the time; wait for them")


def _went_away(path: Path, error: OSError) -> bool:
    """Whether a folder can't be made or used since another run has removed it just now."""
    if isinstance(error, FileExistsError):
        # mkdir found it there, and then no folder. Between two looks it may be made once more.
        return path.is_dir() or not os.path.lexists(path) or path.is_dir()
    return isinstance(error, FileNotFoundError)


class RunFolder:
    """What a run keeps while it goes on, and what stays when it has ended."""

    def __init__(self, output: Path, digest: str) -> None:
        """Name the folder; nothing is written yet.

        Args:
            output: the model folder to be.
            digest: of the recipe; a checkpoint of another one is refused.
        """
        self.path = output.with_name(output.name + ".training")
        self._digest = digest

    @property
    def scratch(self) -> Path:
        """Where the scenes' flat files lie; removed at the end."""
        return self.path / "scratch"

    @property
    def held_out(self) -> Path:
        """Where rasters of the held-out labels lie."""
        return self.path / "held_out"

    def prepare(self) -> None:
        """Make the folder, and remove what a killed run left.

        Raises:
            OutputError: it can't be written.
        """
        try:
            shutil.rmtree(self.scratch, ignore_errors=True)
            shutil.rmtree(self.held_out, ignore_errors=True)
            self.scratch.mkdir(parents=True)
            for partial in self.path.glob(".*.partial"):
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {self.path} can't be written: {error}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, whole or not at all.

        Args:
            name: of the file.
            content: of it.

        Raises:
            OutputError: it can't be written.
        """
        partial = self.path / f".{name}.{os.getpid()}.partial"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            replace_file(partial, self.path / name)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"{self.path / name} can't be written: {error}") from error

    def write_log(self, log: Sequence[Mapping[str, float]]) -> None:
        """Write the log as CSV and picture.

        Args:
            log: one row a validation; all rows have the first one's keys.

        Raises:
            OutputError: a file can't be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)
        self.write(LOG_NAME, text.getvalue().encode())
        self.write(CURVE_NAME, draw_curve(log))

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint.

        Args:
            state: tensors, numbers, texts and lists of them by name.

        Raises:
            OutputError: it can't be written.
        """
        partial = self.path / f".{CHECKPOINT_NAME}.{os.getpid()}.partial"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            torch.save({**state, "recipe": self._digest}, partial)
            sync_file(partial)
            replace_file(partial, self.path / CHECKPOINT_NAME)
        except (OSError, RuntimeError) as error:  # torch's own where the disk is full
            partial.unlink(missing_ok=True)
            raise OutputError(
                f"the checkpoint in {self.path} can't be written: {first_line(error)}"
            ) from error

    def forget(self) -> None:
        """Remove the checkpoint; log and curve stay."""
        (self.path / CHECKPOINT_NAME).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove the scenes' flat files, and the folder where nothing else is in it."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.scratch.exists():
            # Windows removes no file that is mapped into memory: what is in a cycle still is.
            gc.collect()
            shutil.rmtree(self.scratch, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()

    def read(self) -> dict[str, Any] | None:
        """Read the checkpoint; None where there is none. Nothing in it can run code.

        Raises:
            TrainingError: it is of another recipe, or damaged.
        """
        file = self.path / CHECKPOINT_NAME
        if not file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises errors of pickle, which is imported nowhere
            raise TrainingError(
                f"the checkpoint {file} can't be read ({first_line(error)}); remove it to start "
                f"again"
            ) from error
        if state.get("recipe") != self._digest:
            raise TrainingError(
                f"the checkpoint {file} is of another recipe, or scenes or labels have changed "
                f"since; train from the first step (--no-resume), or give another output folder"
            )
        return state


def draw_curve(log: Sequence[Mapping[str, float]]) -> bytes:
    """Draw the loss and the held-out scores over the steps.

    Args:
        log: rows with ``step``, ``loss`` and scores.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [row["step"] for row in log]
    axes.plot(steps, [row["loss"] for row in log], "o-", color="0.4", label="loss (training)")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    scores = axes.twinx()
    for name in log[0]:
        if name.startswith("mean_iou"):
            scores.plot(steps, [row[name] for row in log], "s-", label=f"{name} (held out)")
        elif name.startswith("agreement"):
            scores.plot(steps, [row[name] for row in log], "--", label=f"{name} (held out)")
    scores.set_ylabel("share")
    scores.set_ylim(0, 1)
    lines = [*axes.get_lines(), *scores.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="lower center", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
