"""Which runtime and precision ``auto`` takes, and what is kept of it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg.cards.files import ModelFiles, read_model
from geoseg.core.cache import Cache, cache_folder
from geoseg.errors import ModelError
from geoseg.runtimes import RUNTIMES, Entry, Request, Runtime, load_runtime, one_by_one
from geoseg.runtimes.agreement import LEAST_CHIPS, WORTH_TRYING, Agreement, sample_size
from geoseg.runtimes.choose import FEW_CHIPS
from geoseg.scene.radiometry import Radiometry
from tests.helpers import tiny_model

# They choose between all runtimes.
pytestmark = pytest.mark.extra("torch", "onnxruntime")

RADIOMETRY = Radiometry((1.0,), (0.0,), "for a test")


class Fake:
    """Two classes, told apart by a threshold; takes its time.

    It is wrong in a share of each chip's pixels: in ``wrong``, or where that is a function, in what
    it says of the chip.
    """

    classes, device, choice = 2, "cpu", "asked for"

    def __init__(self, name: str, precision: str, seconds: float, wrong: Any) -> None:
        self.name, self.precision = name, precision
        self.seconds, self.wrong = seconds, wrong

    def probs(self, pixels: np.ndarray) -> np.ndarray:
        until = time.process_time() + self.seconds
        while time.process_time() < until:
            pass
        first = (pixels[:, 0] < 128).astype(np.float32)
        for chip, own in zip(pixels, first.reshape(len(first), -1), strict=True):
            share = self.wrong(chip) if callable(self.wrong) else self.wrong
            n = round(share * own.size)
            own[:n] = 1 - own[:n]
        return np.stack([first, 1 - first], axis=1)

    def run(self, chips: Any, batch_size: int | None = None) -> Any:
        return one_by_one(self.probs, chips)

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array


#: (runtime, precision) -> seconds a chip, share of wrong labels; None where it can't run.
Behaviour = dict[tuple[str, str], tuple[float, Any] | None]

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
    assert "99.62 % of fp32's labels on 4 chips of this scene (at least 99.62 %" in made.choice
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


def test_speeds_are_remembered(
    files: ModelFiles, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fakes(BOTH)
    assert "; tried: openvino fp32" in load(files, chips(4)).choice
    assert len(loaded) == 3
    del loaded[:]
    made = load(files, chips(4))
    assert (made.name, made.precision) == ("openvino", "bf16")
    assert "speeds as an earlier run found" in made.choice
    assert loaded == [("openvino", "bf16")], "labels of the same chips were not compared again"
    del loaded[:]
    made = load(files, chips(5))
    assert (made.name, made.precision) == ("openvino", "bf16")
    assert "speeds as an earlier run found" in made.choice and "on 5 chips" in made.choice
    assert sorted(loaded) == [("openvino", "bf16"), ("openvino", "fp32")]
    # Another model, another kind of chip, other candidates and another machine are tried anew.
    for other, sample, options in (
        (replace(files, sha256="other"), chips(4), {}),
        (files, chips(4, side=41), {}),
        (files, [c.astype(np.uint16) for c in chips(4)], {}),
        (files, chips(4), {"runtime": "openvino"}),
    ):
        assert "; tried: " in load(other, sample, **options).choice
    monkeypatch.setattr("geoseg.runtimes.choose.machine", lambda: ["abacus"])
    assert "; tried: " in load(files, chips(4)).choice


# Labels of the scene at hand


def flat(n: int) -> list[np.ndarray]:
    return [np.full((1, 40, 40), i % 7, np.uint8) for i in range(n)]


def textured(n: int, seed: int = 0) -> list[np.ndarray]:
    return [c + np.uint8(seed) for c in chips(n)]


def only_where_flat(chip: np.ndarray) -> float:
    """Of a network whose numbers lie near a border where the ground has texture."""
    return 0.044 if chip.std() > 1 else 0.0


ROUGH: Behaviour = {
    ("openvino", "fp32"): (SLOW, 0.0),
    ("openvino", "bf16"): (FAST, only_where_flat),
}


def test_labels_are_compared_on_the_scene_at_hand(files: ModelFiles, fakes: Any) -> None:
    """What was found on a flat scene says nothing of another one."""
    loaded = fakes(ROUGH)
    made = load(files, flat(16))
    assert made.precision == "bf16"
    assert "100 % of fp32's labels on 16 chips of this scene" in made.choice
    half = [*flat(8), *textured(8)]
    made = load(files, half)
    assert made.precision == "fp32"
    assert "speeds as an earlier run found" in made.choice
    assert "of fp32's labels on" in made.choice and "99.5 % are asked for" in made.choice
    assert "100 %" not in made.choice
    # It is not tried again on the same scene.
    del loaded[:]
    assert load(files, half).precision == "fp32"
    assert loaded == [("openvino", "fp32")]
    # And the flat one is as it was.
    assert load(files, flat(16)).precision == "bf16"


def test_what_is_lost_already_is_not_computed_to_the_end(files: ModelFiles, fakes: Any) -> None:
    fakes(ROUGH)
    load(files, flat(16))
    made = load(files, textured(64))
    assert made.precision == "fp32"
    assert "95.62 % of fp32's labels on 8 chips of this scene" in made.choice


def test_chips_that_differ_must_do_better(files: ModelFiles, fakes: Any) -> None:
    """Their mean is above 99.5 %, and that of all chips of the scene may well be below."""
    fakes({**ROUGH, ("openvino", "bf16"): (FAST, lambda chip: 0.016 if chip[0, 0, 0] == 0 else 0)})
    made = load(files, flat(16))  # three of them
    assert "99.69 % of fp32's labels on 16 chips" in made.choice
    assert made.precision == "fp32"
    fakes({**ROUGH, ("openvino", "bf16"): (FAST, 0.003)})
    assert load(replace(files, sha256="other"), flat(16)).precision == "bf16"


def test_sampling_is_allowed_for() -> None:
    alike = Agreement.of([0.996] * 4)
    assert alike.sound and alike.least == pytest.approx(0.996)
    some = Agreement.of([0.999, 0.995, 0.999, 0.995])
    # Student's t of 3 degrees of freedom at 97.5 % is 3.182.
    assert some.mean == pytest.approx(0.997)
    assert some.least == pytest.approx(0.997 - 3.182 * 0.0023094 / 2, abs=1e-5)
    assert not some.sound
    assert Agreement.of([0.999, 0.995] * 8).sound
    for few in range(1, LEAST_CHIPS):
        assert not Agreement.of([1.0] * few).sound
    assert "99.99 %" in Agreement.of([1.0, 1.0, 1.0, 0.99999]).words()


def test_a_bound_of_so_many_percent_mostly_holds() -> None:
    """Scenes of chips that differ, of which 99.45 % are right: few of them are let through."""
    rng = np.random.default_rng(0)
    for n in (4, 16, 64):
        let = [
            Agreement.of(list(1 - 0.0055 * rng.gamma(2, 0.5, n).clip(0, 9))).sound
            for _ in range(2000)
        ]
        assert np.mean(let) < 0.13


def test_a_candidate_that_fails_on_the_scene_is_left_out(files: ModelFiles, fakes: Any) -> None:
    def fails(chip: np.ndarray) -> float:
        if chip.std() > 1:
            raise ModelError("too rough")
        return 0.0

    fakes({**BOTH, ("openvino", "bf16"): (FAST, fails)})
    assert load(files, flat(4)).precision == "bf16"
    made = load(files, textured(4))
    assert (made.name, made.precision) == ("onnxruntime", "fp32")
    assert "openvino bf16 can't run it: too rough" in made.choice


def test_another_runtime_is_judged_like_another_precision(files: ModelFiles, fakes: Any) -> None:
    fakes({**BOTH, ("openvino", "bf16"): None, ("onnxruntime", "fp32"): (FAST, only_where_flat)})
    assert load(files, flat(4)).name == "onnxruntime"
    assert load(files, textured(4)).name == "openvino"


def test_gpus_precisions_are_judged_alike(files: ModelFiles, fakes: Any) -> None:
    fakes(
        {
            ("torch", "fp32"): (SLOW, 0.0),
            ("torch", "bf16"): (MIDDLE, 0.0),
            ("torch", "fp16"): (FAST, only_where_flat),
        }
    )
    assert load(files, flat(4), device="cuda").precision == "fp16"
    made = load(files, textured(4), device="cuda")
    assert made.precision == "bf16"
    assert "torch fp16" in made.choice and "99.5 % are asked for" in made.choice


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'[["openvino", "fp32"]]',
        b'[["openvino", "fp32", "fast"], ["openvino", "bf16", 0.1]]',
        b'[["openvino", "fp32", NaN], ["openvino", "bf16", 0.1]]',
        b'[["openvino", "fp32", 0.1], ["openvino", "bf16", -1.0]]',
        b'[["openvino", "fp32", 0.1], ["openvino", "bf16", 1' + b"0" * 400 + b"]]",
        b'[["openvino", "fp32", 0.1], ["openvino", "int3", 0.01]]',
        b'[["openvino", "bf16", 0.1]]',
        b'[[["openvino"], {"a": 1}, 0.1]]',
        b"[0.5, 0.9, 4]",
        b"[true, true, true]",
        b"[NaN, NaN, 4]",
        b"[Infinity, 1.0, 4]",
        b"[1.0, 1.0, -4]",
    ],
)
@pytest.mark.parametrize("folder", ["speeds", "labels"])
@pytest.mark.parametrize("written", ["by hand", "by geoseg"])
def test_a_damaged_entry_is_ignored(
    files: ModelFiles, fakes: Any, tmp_path: Path, content: bytes, folder: str, written: str
) -> None:
    fakes({("openvino", "fp32"): (SLOW, 0.0), ("openvino", "bf16"): (FAST, 0.5)})
    load(files, chips(4))
    (entry,) = (tmp_path / "cache" / folder).iterdir()
    if written == "by hand":
        entry.write_bytes(content)
    else:
        Cache().write(f"{folder}/{entry.name}", content)
    made = load(files, chips(4))
    assert made.precision == "fp32"
    assert "50 % of fp32's labels on 1 chips of this scene" in made.choice
    assert ("; tried: " in made.choice) == (folder == "speeds")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "link to itself", "huge"])
def test_what_is_no_file_is_ignored(tmp_path: Path, kind: str) -> None:
    cache, path = Cache(), tmp_path / "cache" / "a" / "b"
    path.parent.mkdir(parents=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to(path if kind == "link to itself" else tmp_path / "nothing")
    assert cache.read("a/b") is None
    cache.write("a/b", b"content")
    assert cache.read("a/b") == (None if kind == "folder" else b"content")


def test_a_file_that_was_changed_is_as_none() -> None:
    cache = Cache()
    cache.write("a/b", b"content\nof lines")
    path = cache_folder() / "a" / "b"
    whole = path.read_bytes()
    for other in (whole[:-1], whole + b"x", whole[:40], whole.replace(b"lines", b"limes"), b"\n"):
        path.write_bytes(other)
        assert cache.read("a/b") is None
    path.write_bytes(whole)
    assert cache.read("a/b") == b"content\nof lines"


def test_so_many_chips_are_compared() -> None:
    sizes = [sample_size(n) for n in range(1, 10_000)]
    assert sizes[: WORTH_TRYING - 1] == [1] * (WORTH_TRYING - 1)
    assert all(a <= b for a, b in pairwise(sizes))
    for n, size in enumerate(sizes, 1):
        assert size <= max(LEAST_CHIPS, n / 8, 1) and (n < 800 or size <= n / 50)


@pytest.mark.parametrize(
    ("sample", "number"),
    [(None, 100), (chips(3), 100), (chips(1), None), ([], 100), (chips(4), WORTH_TRYING - 1)],
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
    made = load(files, chips(4))
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
    made = load(read_model(folder), chips(4))
    assert made.name in ("openvino", "onnxruntime")
    assert "; tried: " in made.choice
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


def dynamic_world(folder: Path) -> ModelFiles:
    import torch

    from geoseg.networks import create_model, save_model
    from geoseg.networks.dynamicworld import release_card

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
            "geoseg.networks.dynamicworld._halve",
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
    monkeypatch.setattr("geoseg.core.cache.MOST_FILES", 3)
    cache = Cache()
    for number in range(6):
        cache.write(f"int8/{number}.onnx", b"graph")
        path = cache_folder() / "int8" / f"{number}.onnx"
        os.utime(path, ns=(number, number))
    assert [cache.read(f"int8/{number}.onnx") for number in range(6)] == [None] * 3 + [b"graph"] * 3
