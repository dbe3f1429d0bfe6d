"""Which runtime and precision ``auto`` takes, and what is kept of it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg.card import ModelFiles, read_model
from geoseg.errors import ModelError
from geoseg.radiometry import Radiometry
from geoseg.runtimes import RUNTIMES, Entry, Request, Runtime, load_runtime
from geoseg.runtimes.cache import Cache, cache_folder
from geoseg.runtimes.choose import FEW_CHIPS, WORTH_TRYING
from geoseg.runtimes.cpu import available_cores
from tests.helpers import tiny_model

# They choose between all runtimes.
pytestmark = pytest.mark.extra("torch", "onnxruntime")

RADIOMETRY = Radiometry((1.0,), (0.0,), "for a test")


class Fake:
    """Two classes, told apart by a threshold; takes its time."""

    classes, device, choice = 2, "cpu", "asked for"

    def __init__(self, name: str, precision: str, seconds: float, wrong: float) -> None:
        self.name, self.precision = name, precision
        self.seconds, self.wrong = seconds, wrong

    def probs(self, pixels: np.ndarray) -> np.ndarray:
        until = time.process_time() + self.seconds
        while time.process_time() < until:
            pass
        first = (pixels[:, 0] < 128).astype(np.float32)
        n = round(self.wrong * first[0].size)
        first.reshape(len(first), -1)[:, :n] = 1 - first.reshape(len(first), -1)[:, :n]
        return np.stack([first, 1 - first], axis=1)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array


#: (runtime, precision) -> seconds a chip, share of wrong labels; None where it can't run.
Behaviour = dict[tuple[str, str], tuple[float, float] | None]

SLOW, MIDDLE, FAST = 0.02, 0.01, 0.004


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("geoseg.runtimes.choose._wants_gpu", lambda device: device == "cuda")


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return replace(read_model(tiny_model(tmp_path / "model", ["red"], ["a", "b"])), graph=b"there")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], list[tuple[str, str]]]:
    """Put runtimes of a behaviour in place of the real ones; gives what is loaded from then on."""

    def put(behaviour: Behaviour) -> list[tuple[str, str]]:
        loaded: list[tuple[str, str]] = []

        def loader(name: str) -> Callable[[Request, str], Runtime]:
            def load(wanted: Request, precision: str) -> Any:
                loaded.append((name, precision))
                how = behaviour[name, precision]
                if how is None:
                    raise ModelError("its layers are too odd")
                return Fake(name, precision, *how)

            return load

        for name in RUNTIMES:
            found = tuple(p for n, p in behaviour if n == name)
            entry = Entry(loader(name), lambda device, found=found: found)
            monkeypatch.setitem(RUNTIMES, name, entry)
        return loaded

    return put


def chips(n: int, side: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, side, side)).astype(np.uint8) for _ in range(n)]


def load(files: ModelFiles, sample: Sequence[np.ndarray] | None = None, **options: Any) -> Runtime:
    where = {"device": "cpu", "chips": 100, **options}
    return load_runtime(
        files, RADIOMETRY, sample=None if sample is None else lambda: sample, **where
    )


BOTH: Behaviour = {
    ("openvino", "fp32"): (SLOW, 0.0),
    ("openvino", "bf16"): (FAST, 0.004),
    ("onnxruntime", "fp32"): (MIDDLE, 0.0),
    ("torch", "fp32"): (SLOW, 0.0),
}


def test_the_fastest_is_taken_that_gives_the_labels(files: ModelFiles, fakes: Any) -> None:
    fakes(BOTH)
    made = load(files, chips(4), chips=WORTH_TRYING)
    assert (made.name, made.precision) == ("openvino", "bf16")
    assert "99.62 % of its labels" in made.choice
    assert "openvino fp32" in made.choice
    assert "onnxruntime fp32" in made.choice
    fakes({**BOTH, ("openvino", "bf16"): (FAST, 0.006)})
    made = load(replace(files, sha256="another"), chips(4))
    assert (made.name, made.precision) == ("onnxruntime", "fp32")


@pytest.mark.parametrize("when", ["loaded", "run"])
def test_a_runtime_that_fails_leaves_the_choice_to_the_others(
    files: ModelFiles, fakes: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    fakes({**BOTH, ("onnxruntime", "fp32"): None if when == "loaded" else (MIDDLE, 0.0)})
    if when == "run":
        answers = Fake.probs

        def fails(self: Fake, pixels: np.ndarray) -> np.ndarray:
            if self.name == "onnxruntime":
                raise ModelError("its layers are too odd")
            return answers(self, pixels)

        monkeypatch.setattr(Fake, "probs", fails)
    made = load(files, chips(4))
    assert (made.name, made.precision) == ("openvino", "bf16")
    assert "onnxruntime fp32 can't run it: its layers are too odd" in made.choice


def test_fp32_stays_where_others_gain_nothing(files: ModelFiles, fakes: Any) -> None:
    fakes({**BOTH, ("openvino", "bf16"): (SLOW, 0.0), ("onnxruntime", "fp32"): (SLOW, 0.0)})
    made = load(files, chips(4))
    assert (made.name, made.precision) == ("openvino", "fp32")


def test_what_was_found_is_remembered(
    files: ModelFiles, fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fakes(BOTH)
    load(files, chips(3))
    assert len(loaded) == 3
    del loaded[:]
    for few in (chips(3), chips(1)):
        made = load(files, few)
        assert (made.name, made.precision) == ("openvino", "bf16")
        assert "an earlier run" in made.choice
    assert loaded == [("openvino", "bf16")] * 2
    # Another model, another kind of chip, other candidates and another machine are tried anew.
    for other, sample, options in (
        (replace(files, sha256="other"), chips(3), {}),
        (files, chips(3, side=41), {}),
        (files, [c.astype(np.uint16) for c in chips(3)], {}),
        (files, chips(3), {"runtime": "openvino"}),
    ):
        assert "tried on 3 chips" in load(other, sample, **options).choice
    monkeypatch.setattr("geoseg.runtimes.choose.machine", lambda: ["abacus"])
    assert "tried on 3 chips" in load(files, chips(3)).choice


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"runtime": "openvino"}', b"\xff\xfe", b"null"]
)
def test_a_damaged_entry_is_ignored(
    files: ModelFiles, fakes: Any, tmp_path: Path, content: bytes
) -> None:
    fakes(BOTH)
    load(files, chips(2))
    (entry,) = (tmp_path / "cache" / "choices").iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(content)
    assert "tried on 2 chips" in load(files, chips(2)).choice
    entry.write_bytes(whole.replace(b'"bf16"', b'"int3"'))
    assert "tried on 2 chips" in load(files, chips(2)).choice
    entry.write_bytes(whole.replace(b'"agreement": 0.9', b'"agreement": 0.1'))
    assert "tried on 2 chips" in load(files, chips(2)).choice
    entry.write_bytes(whole.replace(b'"openvino"', b"5"))
    assert "tried on 2 chips" in load(files, chips(2)).choice


@pytest.mark.parametrize(
    ("sample", "number"),
    [(None, 100), (chips(1), 100), (chips(1), None), ([], 100), (chips(4), WORTH_TRYING - 1)],
)
def test_for_few_chips_it_is_fp32(
    files: ModelFiles, fakes: Any, sample: Any, number: int | None
) -> None:
    loaded = fakes(BOTH)
    made = load(files, sample, chips=number)
    assert (made.name, made.precision) == ("openvino", "fp32")
    assert loaded == [("openvino", "fp32")]
    assert not cache_folder().exists()


def test_what_is_asked_for_is_not_tried(files: ModelFiles, fakes: Any) -> None:
    fakes(BOTH)

    def sample() -> list[np.ndarray]:
        raise AssertionError("no chip is needed")

    for options, expected in (
        ({"runtime": "openvino", "precision": "bf16"}, ("openvino", "bf16")),
        ({"runtime": "onnxruntime"}, ("onnxruntime", "fp32")),
        ({"runtime": "torch"}, ("torch", "fp32")),
        ({"device": "cuda"}, ("torch", "fp32")),
    ):
        made = load_runtime(files, RADIOMETRY, sample=sample, **{"device": "cpu", **options})
        assert (made.name, made.precision) == expected
    made = load(files, chips(1), precision="bf16")
    assert (made.name, made.precision) == ("openvino", "bf16")


def test_torch_takes_what_the_others_cannot_run(files: ModelFiles, fakes: Any) -> None:
    fakes({**BOTH, ("openvino", "fp32"): None})
    made = load(files, chips(3))
    assert (made.name, made.precision) == ("torch", "fp32")
    assert "its layers are too odd" in made.choice
    with pytest.raises(ModelError, match="too odd"):
        load(files, chips(3), runtime="openvino")


def test_few_chips_are_not_worth_a_conversion(files: ModelFiles, fakes: Any) -> None:
    fakes(BOTH)
    bare = replace(files, graph=None)
    for n, name in ((None, "torch"), (FEW_CHIPS - 1, "torch"), (FEW_CHIPS, "openvino")):
        made = load(bare, chips(2), chips=n)
        assert made.name == name
    assert "geoseg models graph" in load(bare, chips(2), chips=3).choice
    assert load(files, chips(2), chips=3).name == "openvino"


def test_a_real_network_is_tried_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model(tmp_path / "real", ["red"], ["a", "b"])
    made = load(read_model(folder), chips(2))
    assert made.name in ("openvino", "onnxruntime")
    assert "tried on 2 chips" in made.choice
    expected = load(read_model(folder), runtime="torch").probs(np.stack(chips(2)))
    labels = made.probs(np.stack(chips(2))).argmax(axis=1)
    assert (labels == expected.argmax(axis=1)).mean() >= 0.995


# The cache


def test_the_cache_lies_where_the_platform_keeps_such_things(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("GEOSEG_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "geoseg"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == tmp_path / ".cache" / "geoseg"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "geoseg"


def test_a_cache_that_cannot_be_written_is_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "file" / "below"))
    told: list[str] = []
    cache = Cache(told.append)
    for _ in range(2):
        cache.write("a/b", b"content")
        assert cache.read("a/b") is None
    (message,) = told
    assert "GEOSEG_CACHE" in message
    Cache().write("a/b", b"content")  # nobody to tell


def test_a_cache_file_appears_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()
    cache.write("a/b", b"old")

    def fails(source: Any, target: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr("os.replace", fails)
    cache.write("a/b", b"new")
    assert cache.read("a/b") == b"old"
    assert [p.name for p in (cache_folder() / "a").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("900000 100000", 8), ("", 8)],
)
def test_a_containers_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr("geoseg.runtimes.cpu.CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert available_cores() == cores


def dynamic_world(folder: Path) -> ModelFiles:
    import torch

    from geoseg.models import create_model, save_model
    from geoseg.models.dynamicworld import release_card

    torch.manual_seed(0)
    save_model(release_card(), create_model("dynamicworld", in_channels=9, classes=9), folder)
    return read_model(folder)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("wrong", [False, True])
def test_a_network_that_openvino_gets_wrong_is_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool, precision: str
) -> None:
    """An antialiased resize: no error, and other numbers. The same as a convolution is right."""
    from torch.nn import functional as F

    if wrong:
        monkeypatch.setattr(
            "geoseg.models.dynamicworld._halve",
            lambda x: F.interpolate(
                x, scale_factor=0.5, mode="bilinear", align_corners=False, antialias=True
            ),
        )
    files = dynamic_world(tmp_path / "model")
    radiometry = Radiometry((1e-4,) * 9, (0.0,) * 9, "for a test")
    rng = np.random.default_rng(0)
    chips = list(rng.integers(0, 5000, (2, 9, 64, 64)).astype(np.uint16))
    options: dict[str, Any] = {"device": "cpu", "chips": 1000, "sample": lambda: chips}
    made = load_runtime(files, radiometry, precision=precision, **options)
    plain = load_runtime(files, radiometry, runtime="torch", precision="fp32", device="cpu")
    if wrong:
        assert made.name == "torch" and "OpenVINO gives other numbers" in made.choice
    else:
        assert made.name == "openvino"
        made = load_runtime(files, radiometry, runtime="openvino", precision="fp32", device="cpu")
    for chip in chips:
        np.testing.assert_allclose(made.probs(chip[None]), plain.probs(chip[None]), atol=1e-4)


def test_the_cache_keeps_the_newest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.runtimes.cache.MOST_FILES", 3)
    cache = Cache()
    for number in range(6):
        cache.write(f"int8/{number}.onnx", b"graph")
        path = cache_folder() / "int8" / f"{number}.onnx"
        os.utime(path, ns=(number, number))
    assert [cache.read(f"int8/{number}.onnx") for number in range(6)] == [None] * 3 + [b"graph"] * 3
