"""What a runtime gives is looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import geoseg
from geoseg.cards.files import ModelFiles, read_model
from geoseg.errors import DeviceError, GeosegError, ModelError
from geoseg.geo.chip_grid import ChipGrid
from geoseg.geo.window import Window
from geoseg.graphs.binding import bind
from geoseg.networks.export import write_graph
from geoseg.prediction.decide import decide
from geoseg.prediction.stitch import stitch
from geoseg.runtimes import checked, load_runtime
from geoseg.runtimes.ensemble import Ensemble
from geoseg.runtimes.multi_device import MultiDevice
from geoseg.runtimes.on_torch import TorchRuntime
from geoseg.scene.radiometry import Radiometry
from tests.helpers import by_row, make_raster, tiny_model
from tests.oracles import Identity, OneHot
from tests.test_resume import Smooth

BANDS, CLASSES = ("red", "nir", "swir1"), ("water", "trees", "crops", "built")
RADIOMETRY = Radiometry((0.001, 0.002, 0.001), (-0.1, 0.0, 0.05), "for a test")
RUNTIMES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_model(
        tmp_path_factory.mktemp("models") / "model",
        BANDS,
        CLASSES,
        network="small_unet",
        network_options={"width": 8, "depth": 1},
        multiple=2,
    )
    write_graph(path)
    return path


@pytest.fixture
def files(folder: Path) -> ModelFiles:
    return read_model(folder)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 600, (3, 150, 130)).astype(np.uint16)
    return make_raster(tmp_path / "scene.tif", values, descriptions=BANDS)


def chips(n: int, height: int = 20, width: int = 26) -> np.ndarray:
    numbers = np.random.default_rng(0).integers(0, 600, (n, len(BANDS), height, width))
    return numbers.astype("uint16")


# Graphs that give something else than the card says


def _node(kind: str, *more: Any, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["x", *more], ["y"], **attributes)


#: Name -> (nodes from "x", the logits, to "y"; the type and shape of "y", as it would be said).
CHANGES: dict[str, tuple[list[onnx.NodeProto], int, list[int | str] | None]] = {
    "more classes": ([_node("Concat", "x", axis=1)], 1, [1, 8, "h", "w"]),
    "fewer classes": ([_node("Gather", "two", axis=1)], 1, [1, 2, "h", "w"]),
    "one class": ([_node("ReduceMax", axes=[1], keepdims=1)], 1, [1, 1, "h", "w"]),
    "more rows": ([_node("Concat", "x", axis=2)], 1, [1, 4, "2h", "w"]),
    "more columns": ([_node("Concat", "x", axis=3)], 1, [1, 4, "h", "2w"]),
    "fewer rows": ([_node("Gather", "two", axis=2)], 1, [1, 4, 2, "w"]),
    "turned": ([_node("Transpose", perm=[0, 1, 3, 2])], 1, [1, 4, "w", "h"]),
    "channels last": ([_node("Transpose", perm=[0, 2, 3, 1])], 1, [1, "h", "w", 4]),
    "two chips": ([_node("Concat", "x", axis=0)], 1, [2, 4, "h", "w"]),
    "no axis for chips": ([_node("Squeeze", "zero")], 1, [4, "h", "w"]),
    "one more axis": ([_node("Unsqueeze", "zero")], 1, [1, 1, 4, "h", "w"]),
    "a number": ([_node("ReduceMean", keepdims=0)], 1, []),
    "a row": ([_node("Flatten", axis=0)], 1, [1, "n"]),
    "halves": ([_node("Cast", to=TensorProto.FLOAT16)], 10, [1, 4, "h", "w"]),
    "doubles": ([_node("Cast", to=TensorProto.DOUBLE)], 11, [1, 4, "h", "w"]),
    "whole numbers": ([_node("ArgMax", axis=1)], 7, [1, 1, "h", "w"]),
    "as many as are above 0": (
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("NonZero", ["a"], ["b"]),
            helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["c", "zeros"], ["y"]),
        ],
        1,
        [1, 1, 4, "n"],
    ),
    "nothing is said": ([_node("Concat", "x", axis=1)], 1, None),
}


def changed(files: ModelFiles, name: str, *, lies: bool) -> ModelFiles:
    """A model whose graph ends otherwise; where it lies, it says that it doesn't."""
    assert files.graph is not None
    model = onnx.load_model_from_string(files.graph)
    nodes, kind, shape = CHANGES[name]
    (output,) = model.graph.output
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, own in enumerate(names):
                names[i] = "x" if own == output.name else own
    for key, numbers in (("two", [0, 1]), ("zero", [0]), ("zeros", [0, 1])):
        model.graph.initializer.append(helper.make_tensor(key, 7, [len(numbers)], numbers))
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "y"
    if not lies:
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("y", kind, shape))
    return replace(files, graph=model.SerializeToString())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("lies", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_graph_that_gives_something_else_is_refused(
    files: ModelFiles, name: str, lies: bool, runtime: str
) -> None:
    other = changed(files, name, lies=lies)
    made = load_runtime(other, RADIOMETRY, runtime=runtime, precision="fp32", device="cpu")
    with pytest.raises(ModelError, match=r"(must give|need|can't run|failed)"):
        for _, probs in made.run(enumerate(chips(2))):
            assert probs.shape == (4, 20, 26) and probs.dtype == np.float32
        raise AssertionError("nothing was refused")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("lies", [False, True])
@pytest.mark.parametrize(
    "name", ["more classes", "fewer classes", "more rows", "a number", "halves"]
)
def test_a_map_is_not_made_of_it(
    folder: Path, scene: Path, tmp_path: Path, name: str, lies: bool, runtime: str
) -> None:
    files = changed(read_model(folder), name, lies=lies)
    own = tmp_path / "own"
    own.mkdir()
    for file in folder.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    assert files.graph is not None
    (own / "model.onnx").write_bytes(files.graph)
    options = {"model": own, "runtime": runtime, "precision": "fp32", "device": "cpu"}
    with pytest.raises(ModelError, match=r"model\.onnx|graph|can't run"):
        geoseg.predict(scene, tmp_path / "out.tif", size=32, overlap=8, **options)
    assert not (tmp_path / "out.tif").exists()


def test_the_graphs_own_words_are_compared_with_the_card(files: ModelFiles) -> None:
    other = changed(files, "more classes", lies=False)
    assert other.graph is not None
    with pytest.raises(ModelError) as error:
        bind(other.graph, other)
    for words in ("gives FLOAT (1, 8, ?, ?)", "must give FLOAT (1, 4, height, width)", "4 classes"):
        assert words in str(error.value)
    assert files.graph is not None
    for change, words in (
        (lambda g: g.output.append(g.output[0]), "gives FLOAT .* and FLOAT"),
        (lambda g: g.output.pop(), "gives nothing"),
        (lambda g: g.input.pop(), "takes nothing"),
        (lambda g: g.input[0].type.tensor_type.shape.dim.pop(), "takes FLOAT"),
        (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", 7), "takes INT64"),
        (lambda g: g.input[0].type.ClearField("tensor_type"), "takes UNDEFINED"),
    ):
        model = onnx.load_model_from_string(files.graph)
        change(model.graph)
        with pytest.raises(ModelError, match=words):
            bind(model.SerializeToString(), files)


@pytest.mark.parametrize("text", ["", "0", "-2", "two", "1" * 5000, "²"])
@pytest.mark.parametrize("key", ["geoseg:multiple", "geoseg:least"])
def test_notes_of_a_graph_that_are_no_sides_are_refused(
    files: ModelFiles, key: str, text: str
) -> None:
    assert files.graph is not None
    model = onnx.load_model_from_string(files.graph)
    kept = [(e.key, e.value) for e in model.metadata_props if e.key != key]
    del model.metadata_props[:]
    for k, v in (*kept, (key, text)):
        model.metadata_props.add(key=k, value=v)
    other = replace(files, graph=model.SerializeToString())
    with pytest.raises(ModelError, match=key):
        load_runtime(other, RADIOMETRY, runtime="openvino", device="cpu").probs(chips(1))


@pytest.mark.parametrize(
    ("key", "value"), [("length", "4"), ("length", "0"), ("length", "131"), ("location", None)]
)
def test_a_tensor_that_does_not_fit_its_place_is_refused(
    files: ModelFiles, key: str, value: str | None
) -> None:
    assert files.graph is not None
    model = onnx.load_model_from_string(files.graph)
    tensor = next(t for t in model.graph.initializer if t.data_location == t.EXTERNAL)
    kept = [(e.key, e.value) for e in tensor.external_data if e.key != key]
    del tensor.external_data[:]
    for k, v in (*kept, *([(key, value)] if value is not None else [])):
        tensor.external_data.add(key=k, value=v)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        bind(model.SerializeToString(), files)


@pytest.mark.parametrize("sort", ["function", "sparse", "sparse in a node"])
def test_no_tensor_anywhere_may_refer_elsewhere(files: ModelFiles, sort: str) -> None:
    assert files.graph is not None
    model = onnx.load_model_from_string(files.graph)
    tensor = onnx.TensorProto(name="t", dims=[1], data_type=1, data_location=1)
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
    if sort == "sparse":
        model.graph.sparse_initializer.append(sparse)
    elif sort == "sparse in a node":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    else:
        node = helper.make_node("Constant", [], ["c"], value=tensor)
        model.functions.append(helper.make_function("own", "F", [], ["c"], [node], []))
    with pytest.raises(ModelError, match="passwd"):
        bind(model.SerializeToString(), files)


# A caller's own runtime


class Wrong(Smooth):
    """Right but for what ``spoil`` makes of its answers."""

    def __init__(self, spoil: Callable[[Iterator[Any]], Iterator[Any]]) -> None:
        super().__init__(4)
        self.spoil = spoil

    def run(self, chips: Any, batch_size: int | None = None) -> Any:
        return self.spoil(super().run(chips, batch_size))


def _each(change: Callable[[Any], Any]) -> Callable[[Iterator[Any]], Iterator[Any]]:
    return lambda answers: ((item, change(probs)) for item, probs in answers)


def _swapped(answers: Iterator[Any]) -> Iterator[Any]:
    kept = list(answers)
    kept[1], kept[2] = kept[2], kept[1]
    yield from kept


def _twice(answers: Iterator[Any]) -> Iterator[Any]:
    for answer in answers:
        yield answer
        yield answer


def _without_the_second(answers: Iterator[Any]) -> Iterator[Any]:
    return (answer for i, answer in enumerate(answers) if i != 1)


SPOILT: dict[str, tuple[Callable[[Iterator[Any]], Iterator[Any]], str]] = {
    "no chip": (lambda answers: iter(()), "ended after 0 chips"),
    "fewer chips": (lambda answers: islice(answers, 7), "ended after 7 chips"),
    "all but one": (lambda answers: iter(list(answers)[:-1]), r"ended after \d+ chips"),
    "one left out": (_without_the_second, "answered to chip 2 where chip 1 was due"),
    "each twice": (_twice, "answered to chip 0 where chip 1 was due"),
    "other order": (_swapped, "answered to chip 2 where chip 1 was due"),
    "doubles": (_each(lambda p: p.astype(np.float64)), r"gave float64 \(4, 32, 32\)"),
    "halves": (_each(lambda p: p.astype(np.float16)), "gave float16"),
    "the other byte order": (_each(lambda p: p.astype(">f4")), "gave >f4"),
    "whole numbers": (_each(lambda p: (p * 255).astype(np.uint8)), "gave uint8"),
    "more classes": (_each(lambda p: np.concatenate([p] * 20)), r"gave float32 \(80, 32, 32\)"),
    "fewer classes": (_each(lambda p: p[:2]), r"gave float32 \(2, 32, 32\)"),
    "more rows": (_each(lambda p: np.concatenate([p, p], 1)), r"gave float32 \(4, 64, 32\)"),
    "fewer columns": (_each(lambda p: p[..., :9]), r"gave float32 \(4, 32, 9\)"),
    "classes last": (_each(lambda p: np.moveaxis(p, 0, -1)), r"gave float32 \(32, 32, 4\)"),
    "a batch": (_each(lambda p: p[None]), r"gave float32 \(1, 4, 32, 32\)"),
    "labels": (_each(lambda p: p.argmax(0).astype(np.float32)), r"gave float32 \(32, 32\)"),
    "a list": (_each(lambda p: p.tolist()), "gave a list"),
    "nothing": (_each(lambda p: None), "gave a NoneType"),
    "a tensor": (_each(torch.from_numpy), "Tensor on cpu"),
    "a tensor elsewhere": (_each(lambda p: torch.from_numpy(p).to("meta")), "Tensor on meta"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_a_callers_runtime_gives_is_checked(
    tmp_path: Path, folder: Path, scene: Path, name: str
) -> None:
    spoil, words = SPOILT[name]
    with pytest.raises(ModelError, match=words):
        geoseg.predict(
            scene, tmp_path / "out.tif", model=folder, runtime=Wrong(spoil), size=32, overlap=8
        )
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("name", ["fewer chips", "doubles", "fewer classes", "other order"])
def test_members_are_checked_each(name: str) -> None:
    spoil, words = SPOILT[name]
    both = Ensemble([Smooth(4), Wrong(spoil)], "flips", agreement=True)
    with pytest.raises(ModelError, match=words):
        list(checked.run(both, enumerate(chips(5, 32, 32))))


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda p: p[:, ::-1, ::-1].copy()[:, ::-1, ::-1]]
)
def test_arrays_need_not_lie_in_order(
    tmp_path: Path, folder: Path, scene: Path, change: Callable[[Any], Any]
) -> None:
    maps = []
    for i, runtime in enumerate((Smooth(4), Wrong(_each(change)))):
        path = tmp_path / f"{i}.tif"
        geoseg.predict(scene, path, model=folder, runtime=runtime, size=32, overlap=8)
        maps.append(path.read_bytes())
    assert maps[0] == maps[1]


@pytest.mark.parametrize("classes", [3, 5, 9])
def test_a_runtime_of_other_classes_is_refused(
    tmp_path: Path, folder: Path, scene: Path, classes: int
) -> None:
    with pytest.raises(ModelError, match=f"gives {classes} channels and this run needs 4"):
        geoseg.predict(scene, tmp_path / "o.tif", model=folder, runtime=Smooth(classes), size=32)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("zeros", lambda a: a[..., :1]),
        ("zeros", lambda a: a.astype(np.float64)),
        ("zeros", lambda a: np.asfortranarray(a)),
        ("asarray", lambda a: a[..., :3]),
        ("asarray", lambda a: a.astype(np.float64)),
    ],
)
def test_what_is_stitched_in_is_checked(
    monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[Any], Any]
) -> None:
    runtime, grid = Smooth(4), ChipGrid(50, 50, 20, 8)
    real = getattr(runtime, method)
    monkeypatch.setattr(runtime, method, lambda given: change(real(given)))
    given = ((w, np.ones((4, 20, 20), np.float32)) for w in grid.chips())
    options: dict[str, Any] = {"zeros": runtime.zeros, "asarray": runtime.asarray}
    with pytest.raises(ModelError, match=r"zeros\(\) or asarray\(\)"):
        list(stitch(by_row(given, grid), grid, classes=4, **options))


def test_chips_of_another_shape_are_not_stitched() -> None:
    runtime, grid = Smooth(4), ChipGrid(50, 50, 20, 8)
    for shape in ((9, 20, 20), (4, 19, 20), (4, 20, 21)):
        given = ((w, np.ones(shape, np.float32)) for w in grid.chips())
        with pytest.raises(ModelError, match="must be"):
            list(
                stitch(
                    by_row(given, grid),
                    grid,
                    classes=4,
                    zeros=runtime.zeros,
                    asarray=runtime.asarray,
                )
            )


def test_classes_are_decided_of_as_many_numbers() -> None:
    legend, valid = np.arange(4, dtype=np.uint8), np.ones((5, 6), np.bool_)
    for shape in ((3, 5, 6), (5, 5, 6), (4, 6, 6), (4, 5, 5)):
        for probs in (np.zeros(shape, np.float32), torch.zeros(shape)):
            with pytest.raises(ModelError, match="4 classes"):
                decide(probs, valid, legend, 255)


def test_batches_are_checked() -> None:
    runtime: Any = OneHot(4)
    assert checked.probs(runtime, chips(2)).shape == (2, 4, 20, 26)
    runtime.answer = lambda pixels: np.zeros((len(pixels), 5, *pixels.shape[2:]))
    with pytest.raises(ModelError, match=r"gave float32 \(2, 5, 20, 26\)"):
        checked.probs(runtime, chips(2))


def test_nobody_computes_after_the_caller_has_left() -> None:
    closed = []

    class Noted(Identity):
        def run(self, chips: Any, batch_size: int | None = None) -> Any:
            try:
                yield from super().run(chips, batch_size)
            finally:
                closed.append(True)

    answers = checked.run(Noted(3), enumerate(chips(3)))
    next(answers)
    answers.close()
    assert closed == [True]


# torch


class Other(torch.nn.Module):
    """Gives something else than the card says."""

    def __init__(self, change: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(x[:, :1].repeat(1, 4, 1, 1))


def torch_runtime(files: ModelFiles, change: Callable[[torch.Tensor], Any]) -> TorchRuntime:
    return TorchRuntime(Other(change), files.card, RADIOMETRY, torch.device("cpu"))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:, :2],
        lambda x: torch.cat([x, x], 1),
        lambda x: x[..., :9],
        lambda x: torch.cat([x, x], 0),
        lambda x: x[0],
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_a_network_that_gives_something_else_is_refused(
    files: ModelFiles, change: Callable[[Any], Any], several: bool
) -> None:
    runtimes = [torch_runtime(files, change) for _ in range(2)]
    made: Any = MultiDevice(runtimes) if several else runtimes[0]
    with pytest.raises(ModelError, match="the network small_unet gave"):
        list(made.run(enumerate(chips(5))))


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (
            "CUDA error: an illegal memory access was encountered\nCompile with",
            DeviceError,
            "illegal",
        ),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", DeviceError, "nvidia-smi"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", DeviceError, "ran out of memory"),
        ("MPS backend out of memory (MPS allocated: 5 GB)", DeviceError, "smaller --batch-size"),
        (
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes",
            DeviceError,
            "smaller --batch-size or --size",
        ),
        ("The size of tensor a (3) must match", ModelError, "another --size"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_fails_in_torch_comes_with_its_cause(
    files: ModelFiles, said: str, error: type[GeosegError], words: str, several: bool
) -> None:
    def fails(x: torch.Tensor) -> Any:
        raise RuntimeError(said)

    runtimes = [torch_runtime(files, fails) for _ in range(2)]
    made: Any = MultiDevice(runtimes) if several else runtimes[0]
    with pytest.raises(error, match=words) as found:
        list(made.run(enumerate(chips(3))))
    assert "\n" not in str(found.value)


def test_a_device_that_fails_in_stitching_comes_with_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU's failure comes up in any later call."""

    def fails(*_: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    grid = ChipGrid(20, 20, 20, 8)
    given = [(Window(0, 0, 20, 20), torch.ones(4, 20, 20))]
    monkeypatch.setattr("geoseg.prediction.stitch.blend", fails)
    with pytest.raises(DeviceError, match="device-side assert"):
        list(
            stitch(
                by_row(given, grid), grid, classes=4, zeros=torch.zeros, asarray=torch.from_numpy
            )
        )

    class Failing(torch.Tensor):
        def argmax(self, *_: Any, **__: Any) -> Any:
            fails()

    probs = torch.ones(4, 20, 20).as_subclass(Failing)
    with pytest.raises(DeviceError, match="device-side assert"):
        decide(probs, np.ones((20, 20), np.bool_), np.arange(4, dtype=np.uint8), 255)
