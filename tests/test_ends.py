"""How the command line ends: streams that can't be written, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg.cards.card import Normalization
from geoseg.cli.streams import Sink
from tests.helpers import make_raster, tiny_model

GEOSEG = [sys.executable, "-m", "geoseg"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, a map and a model."""
    folder = tmp_path_factory.mktemp("ends")
    values = np.random.default_rng(0).integers(0, 3000, (2, 1500, 1500)).astype(np.uint16)
    make_raster(folder / "large.tif", values, descriptions=("red", "nir"))
    make_raster(folder / "scene.tif", values[:, :60, :50], descriptions=("red", "nir"))
    ids = (values[:1, :60, :50] % 3).astype(np.uint8)
    make_raster(folder / "map.tif", ids, nodata=255)
    make_raster(folder / "labels.tif", ids)
    legend = '{"0": "water", "1": "trees", "2": "crops"}'
    make_raster(folder / "named.tif", ids, nodata=255, tags={"GEOSEG_CLASSES": legend})
    scale = {"mean": (1500.0, 1500.0), "stddev": (300.0, 300.0)}
    tiny_model(
        folder / "model",
        ("red", "nir"),
        ("water", "trees", "crops"),
        normalization=Normalization("z-score", scale),
    )
    return folder


def shell(text: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which $G is geoseg; its exit status is that of geoseg."""
    line = f"G={' '.join(GEOSEG)!r}; {text}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, **env},
        check=False,
    )


def command_lines(place: Path) -> dict[str, str]:
    """Of every command, one that prints something."""
    return {
        "predict": f"predict {place}/scene.tif -m {place}/model --no-vector --overwrite",
        "dry-run": f"predict {place}/scene.tif -m {place}/model --dry-run",
        "json": f"predict {place}/scene.tif -m {place}/model --no-vector --progress json",
        "vectorize": f"vectorize {place}/map.tif -o polygons.gpkg",
        "mosaic": f"mosaic {place}/named.tif --top first",
        "info": f"info {place}/scene.tif -m {place}/model --json",
        "models": "models list --json",
        "sample": f"sample {place}/map.tif -o points.gpkg -n 20",
        "check-seams": f"check-seams {place}/map.tif --size 16 --overlap 4",
        "evaluate": f"evaluate {place}/map.tif --labels {place}/labels.tif",
        "help": "--help",
    }


#: Command -> what it writes.
MADE = {
    "predict": "scene_landcover.tif",
    "json": "scene_landcover.tif",
    "vectorize": "polygons.gpkg",
    "mosaic": "mosaic.tif",
    "sample": "points.gpkg",
}


@pytest.mark.parametrize("name", list(command_lines(Path())))
@pytest.mark.parametrize(
    ("how", "code", "word"),
    [
        (">&-", 1, "Bad file descriptor"),
        ("> /dev/full", 1, "No space left on device"),
        ("| true", 0, ""),
        ("2>&- > /dev/null", 0, ""),
        ("2> /dev/full > /dev/null", 0, ""),
    ],
)
def test_what_cannot_be_printed_stops_no_run(
    place: Path, tmp_path: Path, name: str, how: str, code: int, word: str
) -> None:
    line = command_lines(place)[name]
    done = shell(f"$G {line} {how}", tmp_path)
    if (name, how) == ("json", "| true"):  # events that nobody reads end a run
        assert done.returncode == 130 and "Traceback" not in done.stderr
        assert not (tmp_path / MADE[name]).exists()
        return
    assert done.returncode == code, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("geoseg: error:")]
    assert len(errors) == (1 if word else 0)
    assert all(f"standard output can't be written ({word})" in text for text in errors)
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
    if name in MADE:
        assert (tmp_path / MADE[name]).exists()


def test_a_failure_keeps_its_code_and_its_line(place: Path, tmp_path: Path) -> None:
    for how in (">&-", "> /dev/full", "| true"):
        for args, code in (("none.tif", 1), (f"{place}/scene.tif --size 0", 2)):
            done = shell(f"$G predict {args} -m {place}/model --progress json {how}", tmp_path)
            assert done.returncode == code
            (line,) = done.stderr.splitlines()
            assert line.startswith("geoseg: error:") and "standard output" not in line


def test_a_closed_descriptor_is_not_given_to_a_file(tmp_path: Path) -> None:
    """Else what a library prints goes into a map."""
    code = textwrap.dedent("""
        import os, sys
        import geoseg.cli.app  # which opens none
        def look(*args, **options):
            there = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
            os._exit(7 if there == 3 * ["/dev/null"] else 8)
        geoseg.cli.app.run = look
        from geoseg.cli import main
        main()
    """)
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    done = shell(f"{sys.executable} code.py <&- >&- 2>&-", tmp_path)
    assert done.returncode == 7


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_terminal_without_a_character_shows_an_escape(
    place: Path, tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "Grünwälder ✓ 森.tif").symlink_to(place / "scene.tif")
    odd = tmp_path / os.fsdecode(b"caf\xe9.tif")  # no UTF-8
    odd.symlink_to(place / "scene.tif")
    for name in ("Grünwälder ✓ 森.tif", os.fsdecode(b"caf\xe9.tif")):
        for args in (
            ["info", name],
            ["info", name, "--json"],
            ["predict", name, "--progress=json"],
        ):
            done = subprocess.run(
                [*GEOSEG, *args, "-m", str(place / "model")],
                cwd=tmp_path,
                capture_output=True,
                env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
                check=False,
            )
            assert b"Traceback" not in done.stderr and b"unexpected" not in done.stderr
            if "\udce9" in name:  # which rasterio does not open
                assert done.returncode == 1
                assert done.stderr.startswith(b"geoseg: error: caf\\udce9.tif"), done.stderr
            elif args[-1] == "--json":
                assert done.returncode == 0, done.stderr
                assert json.loads(done.stdout.decode("utf-8"))["paths"] == [name]


class Raw:
    """A raw stream that fails, or is full for a while."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def write(self, data: bytes) -> int | None:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        written: int | None = answer
        return written


def test_a_sink_waits_for_a_full_pipe_and_drops_what_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Sink(Raw(None, None, 3, BrokenPipeError(32, "Broken pipe")))
    assert sink.write(b"abc") == 3 and not sink.failed
    assert sink.write(b"abc") == 3 and sink.write(b"abc") == 3
    assert sink.error is not None and not sink.failed
    gone = Sink(Raw(OSError(22, "Invalid argument")))  # as Windows says it
    gone.write(b"abc")
    assert gone.failed
    monkeypatch.setattr(sys, "platform", "win32")
    assert not gone.failed


# Signals


def caught(process: subprocess.Popen[str]) -> bool:
    """Whether a process handles SIGTERM by now, which Python itself does not."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return process.poll() is not None


def start(args: list[str], cwd: Path) -> subprocess.Popen[str]:
    """A command whose handlers are in place."""
    process = subprocess.Popen(
        args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not caught(process):
        time.sleep(0.001)
    return process


@pytest.mark.parametrize("name", ["predict", "info"])
def test_a_signal_in_the_first_seconds_is_one_line_and_130(
    place: Path, tmp_path: Path, name: str
) -> None:
    """Of three signals, which have one handler, in turn; SIGHUP is of a terminal that is closed."""
    line = command_lines(place)[name].replace("scene.tif", "large.tif")
    for step in range(16):
        process = start([*GEOSEG, *line.split(), *(["--restart"] * (name == "predict"))], tmp_path)
        time.sleep(step * 0.1)
        process.send_signal((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[step % 3])
        sent = time.monotonic()
        _, stderr = process.communicate(timeout=60)
        if process.returncode == 0 and step > 0:
            break  # it had ended before
        assert process.returncode == 130, (step, stderr)
        assert "Traceback" not in stderr and "ignored" not in stderr, (step, stderr)
        errors = [text for text in stderr.splitlines() if text.startswith("geoseg: error:")]
        # Of what a library made of the interrupt it says no more than that.
        assert len(errors) == 1 and errors[0].startswith("geoseg: error: interrupted"), stderr
        assert time.monotonic() - sent < 10  # of two seconds, on a machine that is shared


def test_a_signal_before_anything_is_loaded_is_an_event_too(place: Path, tmp_path: Path) -> None:
    process = start([*GEOSEG, "predict", "x.tif", "--progress", "json"], tmp_path)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    if process.returncode == 130:
        event = json.loads(stdout)
        assert event == {
            "event": "error",
            "code": 130,
            "message": "interrupted; nothing was written",
        }
        assert stderr == "geoseg: error: interrupted; nothing was written\n"


def stand_in(body: str) -> list[str]:
    """``geoseg sample`` whose work is a test's own."""
    code = textwrap.dedent("""
        import sys, os, threading, time
        from concurrent.futures import ThreadPoolExecutor
        import geoseg.evaluation.sample_design
        def work(*args, **options):
        {body}
        geoseg.evaluation.sample_design.sample = work
        sys.argv = ["geoseg", "sample", "map.tif", "-o", "x.gpkg"]
        from geoseg.cli import main
        main()
    """).replace("{body}", textwrap.indent(textwrap.dedent(body), "    "))
    return [sys.executable, "-c", code]


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_threads_amid_a_long_call_are_not_waited_for(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(
        stand_in("""
            pool = ThreadPoolExecutor(1)
            pool.submit(time.sleep, 60)
            threading.Thread(target=time.sleep, args=(60,)).start()
            print("ready", flush=True)
            time.sleep(60)
        """),
        tmp_path,
    )
    ready(process)
    before = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - before < 2
    assert process.returncode == 130
    assert stderr.strip() == "geoseg: error: interrupted; nothing was written"


def test_processes_of_a_run_end_with_it(tmp_path: Path) -> None:
    process = start(
        stand_in("""
            import multiprocessing
            child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
            child.start()
            print("ready", flush=True)
            print(child.pid, flush=True)
            time.sleep(60)
        """),
        tmp_path,
    )
    ready(process)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    until = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_what_a_library_makes_of_an_interrupt_is_one(tmp_path: Path) -> None:
    process = start(
        stand_in("""
            print("ready", flush=True)
            try:
                time.sleep(60)
            except BaseException as error:
                raise ImportError("numpy.core failed to import") from error
        """),
        tmp_path,
    )
    ready(process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "geoseg: error: interrupted\n")


def test_an_interrupt_that_c_code_prints_is_one_line(tmp_path: Path) -> None:
    """As ``import_array()`` of numpy does: it prints the exception, and raises another."""
    process = start(
        stand_in("""
            print("ready", flush=True)
            try:
                time.sleep(60)
            except BaseException:
                sys.excepthook(*sys.exc_info())  # all that PyErr_Print does
                raise ImportError("numpy.core.multiarray failed to import") from None
        """),
        tmp_path,
    )
    ready(process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "geoseg: error: interrupted\n")


def test_an_interrupt_that_python_swallows_comes_again(tmp_path: Path) -> None:
    """In a callback there is no one to raise it to: Python prints it and goes on."""
    process = start(
        stand_in("""
            class Slow:
                def __del__(self):
                    print("ready", flush=True)
                    time.sleep(60)
            slow = Slow()
            del slow
            time.sleep(60)
        """),
        tmp_path,
    )
    ready(process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "geoseg: error: interrupted; nothing was written"


def test_a_second_signal_at_once_leaves_the_clean_up_alone(tmp_path: Path) -> None:
    process = start(
        stand_in("""
            print("ready", flush=True)
            try:
                time.sleep(60)
            finally:
                print("ready", flush=True)
                time.sleep(0.5)
                open("cleaned", "w").close()
        """),
        tmp_path,
    )
    ready(process)
    process.send_signal(signal.SIGINT)
    ready(process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "cleaned").exists(), stderr


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        # A call in C, without the interpreter's lock, from which no signal brings it back.
        ("hashlib.pbkdf2_hmac('sha512', b'', b'', 50_000_000)", 2.0),
        ("time.sleep(60)", 4.5),
    ],
    ids=["library", "clean-up"],
)
def test_what_takes_long_is_not_waited_for(tmp_path: Path, body: str, seconds: float) -> None:
    process = start(
        stand_in(f"""
            import hashlib
            print("ready", flush=True)
            try:
                {body}
            finally:
                {body}
        """),
        tmp_path,
    )
    ready(process)
    time.sleep(0.2)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and "interrupted amid something that takes long" in stderr
    # A little for a machine that is busy.
    assert time.monotonic() - before < seconds + 1


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    """``nohup``, or a shell's ``&``, has SIGINT ignored."""
    body = """
        print("ready", flush=True)
        time.sleep(1)
        os._exit(9)
    """
    process = subprocess.Popen(
        stand_in(body),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    ready(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 9


def test_handlers_are_put_back_where_the_command_line_is_called_as_a_function() -> None:
    from geoseg.cli import main

    def there() -> list[object]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return [*handlers, sys.unraisablehook, sys.excepthook]

    before = there()
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert there() == before
