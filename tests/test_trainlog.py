"""geoseg.training.run_folder: what lies beside the model while a run goes on."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geoseg.errors import OutputError, TrainingError
from geoseg.training.run_folder import RunFolder, draw_curve, kept_alone
from tests.trainhelpers import rows_of

LOG = [
    {"step": 10.0, "loss": 1.5, "agreement_10m": 0.25, "mean_iou_10m": 0.125},
    {"step": 20.0, "loss": 0.5, "agreement_10m": 0.75, "mean_iou_10m": 0.625},
]


def test_what_was_saved_is_read_again(tmp_path):
    folder = RunFolder(tmp_path / "model", "abc")
    assert folder.read() is None
    folder.prepare()
    weights = torch.rand(3, 4)
    folder.write_log(LOG)
    folder.save({"step": 20, "log": LOG, "network": {"w": weights}})
    state = folder.read()
    assert state is not None and state["step"] == 20 and state["log"] == LOG
    assert torch.equal(state["network"]["w"], weights)
    assert rows_of(folder.path / "log.csv") == LOG
    # Nothing half written lies about, and nothing of the model's own name.
    assert not list(folder.path.glob(".*.partial"))
    assert [p.name for p in tmp_path.iterdir()] == ["model.training"]
    folder.forget()
    assert folder.read() is None
    assert (folder.path / "log.csv").exists()


def test_a_checkpoint_of_another_recipe_or_a_damaged_one_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "model", "abc")
    folder.save({"step": 20})
    with pytest.raises(TrainingError, match=r"of another recipe, .*--no-resume"):
        RunFolder(tmp_path / "model", "abd").read()
    file = folder.path / "checkpoint.pt"
    whole = file.read_bytes()
    for damaged in (whole[:200], b"", b"text"):
        file.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"checkpoint\.pt can't be read"):
            folder.read()


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


def test_reading_a_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(tmp_path / "model", "abc")
    folder.prepare()
    torch.save({"recipe": "abc", "step": Evil()}, folder.path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="can't be read"):
        folder.read()
    assert not (tmp_path / "evil").exists()


def test_a_failed_write_leaves_the_file_before_it(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "model", "abc")
    folder.write_log(LOG[:1])

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="no space left"):
        folder.write_log(LOG)
    monkeypatch.undo()
    assert rows_of(folder.path / "log.csv") == LOG[:1]
    assert not list(folder.path.glob(".*.partial"))


def test_preparing_removes_what_a_killed_run_left(tmp_path):
    folder = RunFolder(tmp_path / "model", "abc")
    folder.prepare()
    (folder.scratch / "0-pixels.npy").touch()
    folder.held_out.mkdir()
    (folder.held_out / "old.tif").touch()
    folder.save({"step": 10})
    (folder.path / ".checkpoint.pt.123.partial").touch()
    folder = RunFolder(tmp_path / "model", "abc")
    folder.prepare()
    assert not list(folder.scratch.iterdir()) and not folder.held_out.exists()
    assert not list(folder.path.glob(".*.partial"))
    assert folder.read() is not None
    folder.clean()
    assert not folder.scratch.exists()


def test_a_folder_in_which_nothing_was_kept_goes_away(tmp_path):
    folder = RunFolder(tmp_path / "model", "abc")
    folder.prepare()
    folder.clean()
    assert not list(tmp_path.iterdir())


def test_the_curve_is_a_picture_with_lines():
    picture = Image.open(io.BytesIO(draw_curve(LOG)))
    assert picture.format == "PNG" and picture.size == (800, 450)
    one = np.asarray(picture.convert("RGB")).astype(int)
    other = np.asarray(
        Image.open(io.BytesIO(draw_curve([LOG[0], {**LOG[1], "mean_iou_10m": 0.2}]))).convert("RGB")
    ).astype(int)
    assert (np.ptp(one, axis=2) > 50).sum() > 200  # coloured lines
    assert (one != other).any()
    draw_curve([{"step": 1.0, "loss": 0.5, "agreement_10m": float("nan")}])


def test_a_folder_is_kept_for_one_run_while_others_come_and_go(tmp_path):
    """Runs that end remove lock and folder, while others are about to take them."""
    folder, failed, entered = tmp_path / "model.training", [], [0]

    def work():
        try:
            done = 0
            while done < 200:
                try:
                    with kept_alone(folder):
                        os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
                        os.unlink(folder / "inside")
                        done += 1
                except OutputError as error:
                    assert "another run is at work" in str(error), error
            entered[0] += done
        except (AssertionError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert entered == [800]
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"can't be written: .*Not a directory"),
        kept_alone(tmp_path / "file" / "model.training"),
    ):
        pass
    (tmp_path / "gone.training").symlink_to(tmp_path / "nowhere" / "else")
    with (
        pytest.raises(OutputError, match="is a link or a file"),
        kept_alone(tmp_path / "gone.training"),
    ):
        pass


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_folder_that_geoseg_did_not_make_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Its parts ``scratch`` and ``held_out`` are emptied when a run begins."""
    precious = tmp_path / "precious"
    (precious / "held_out").mkdir(parents=True)
    (precious / "held_out" / "thesis.txt").write_text("years")
    folder = tmp_path / "model.training"
    if kind == "link":
        folder.symlink_to(precious)
    else:
        precious.rename(folder)
    with (
        pytest.raises(OutputError, match=r"model.training (is a link|was not made by geoseg)"),
        kept_alone(folder),
    ):
        pass
    assert (folder / "held_out" / "thesis.txt").read_text() == "years"
