"""OpenVINO and ONNX Runtime: the graph beside the weights, and chips through it."""

import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame

import geoseg
from geoseg.cards.card import Normalization
from geoseg.cards.files import ModelFiles, read_model
from geoseg.cli import main
from geoseg.errors import DeviceError, MissingExtraError, ModelError, OutputError
from geoseg.graphs.binding import apart, attach, bind, graph_fits
from geoseg.graphs.for_openvino import read_graph
from geoseg.graphs.surround import GRAPH_NORMALIZATIONS
from geoseg.networks.export import _same_padding, export_graph, write_graph
from geoseg.networks.normalize import NORMALIZATIONS
from geoseg.runtimes import load_runtime
from geoseg.runtimes.on_openvino import precisions
from geoseg.scene.radiometry import Radiometry
from geoseg.zoo import list_embedded
from tests.helpers import tiny_model

BANDS, CLASSES = ("red", "nir", "swir1"), ("water", "trees", "crops", "built")
RADIOMETRY = Radiometry((0.001, 0.002, 0.001), (-0.1, 0.0, 0.05), "for a test")
RUNTIMES = ("openvino", "onnxruntime")
NORMALIZED = {
    "none": Normalization(),
    "z-score": Normalization(
        "z-score",
        {"mean": (0.1, 0.2, 0.3), "stddev": (0.05, 0.1, 0.2)},
        clip=(0.0, 0.6),
    ),
    "min-max": Normalization(
        "min-max", {"minimum": (0.0, 0.1, 0.0), "maximum": (0.7, 0.8, 0.9)}, clip=(0.0, 0.5)
    ),
    "log-logistic": Normalization(
        "log-logistic", {"center": (1.0, 1.5, 2.0), "spread": (0.5, 1.0, 0.7)}, clip=(0.0, 1.0)
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_model(
        tmp_path_factory.mktemp("models") / "model",
        BANDS,
        CLASSES,
        network="small_unet",
        network_options={"width": 8, "depth": 1},
        normalization=NORMALIZED["z-score"],
        multiple=2,
    )
    write_graph(path)
    return path


@pytest.fixture
def files(folder: Path) -> ModelFiles:
    return read_model(folder)


def chips(n: int, height: int = 20, width: int = 26, dtype: str = "uint16") -> np.ndarray:
    top = 120 if dtype in ("uint8", "int8") else 600
    numbers = np.random.default_rng(0).integers(0, top, (n, len(BANDS), height, width))
    return numbers.astype(dtype)


def load(files: ModelFiles, runtime: str, **options: Any) -> Any:
    precision = options.pop("precision", "fp32")
    return load_runtime(
        files, RADIOMETRY, runtime=runtime, precision=precision, device="cpu", **options
    )


# From raw numbers to probabilities


def test_every_normalization_is_there_for_both() -> None:
    assert set(GRAPH_NORMALIZATIONS) == set(NORMALIZATIONS) == set(NORMALIZED)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", NORMALIZED)
@pytest.mark.parametrize(
    ("activation", "temperature"), [("softmax", 1.0), ("softmax", 2.5), ("sigmoid", 1), ("none", 1)]
)
def test_probabilities_are_torchs(
    files: ModelFiles, runtime: str, kind: str, activation: str, temperature: float
) -> None:
    card = replace(
        files.card,
        normalization=NORMALIZED[kind],
        activation=activation,
        temperature=temperature,
    )
    files, x = replace(files, card=card), chips(2)
    found = load(files, runtime).probs(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, load(files, "torch").probs(x), atol=2e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint32", "int32", "int64", "float32", "float64"]
)
def test_numbers_of_any_kind_are_taken(files: ModelFiles, runtime: str, dtype: str) -> None:
    x = chips(1, dtype=dtype)
    np.testing.assert_allclose(
        load(files, runtime).probs(x), load(files, "torch").probs(x), atol=2e-5
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_chips_of_any_shape_that_suits_the_network(files: ModelFiles, runtime: str) -> None:
    made, expected = load(files, runtime), load(files, "torch")
    for shape in ((2, 2), (2, 64), (34, 18), (2, 2)):
        x = chips(1, *shape)
        np.testing.assert_allclose(made.probs(x), expected.probs(x), atol=2e-5)


@pytest.mark.skipif("bf16" not in precisions(), reason="this CPU has no bf16")
def test_bf16_leaves_the_scaling_in_fp32(files: ModelFiles) -> None:
    """Of numbers near 4000, bf16 keeps the sixteens only."""
    z = Normalization("z-score", {"mean": (4000.0,) * 3, "stddev": (3.0,) * 3})
    files = replace(files, card=replace(files.card, normalization=z))
    x = np.random.default_rng(0).integers(3995, 4006, (1, 3, 32, 32)).astype(np.uint16)
    plain = Radiometry((1.0,) * 3, (0.0,) * 3, "")
    fp32, bf16 = (
        load_runtime(files, plain, runtime="openvino", precision=p).probs(x)
        for p in ("fp32", "bf16")
    )
    assert 0 < np.abs(fp32 - bf16).max() < 0.02
    assert (fp32.argmax(1) == bf16.argmax(1)).mean() > 0.98


# One answer, in order


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [*(("openvino", p) for p in precisions() if p != "int8"), ("onnxruntime", "fp32")],
)
def test_threads_and_batches_change_no_bit(files: ModelFiles, runtime: str, precision: str) -> None:
    x = chips(9, 64, 64)
    results = []
    for threads, batch in ((1, None), (2, 1), (3, 7), (5, 2)):
        made = load(files, runtime, threads=threads, precision=precision)
        pairs = [(i, probs.copy()) for i, probs in made.run(enumerate(x), batch)]
        assert [i for i, _ in pairs] == list(range(9))
        results.append(np.stack([probs for _, probs in pairs]))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    assert (results[0][0] != results[0][1]).any()


def test_openvino_computes_a_chip_by_one_thread(files: ModelFiles) -> None:
    for threads in (1, 2):
        compiled = load(files, "openvino", threads=threads).prepare(chips(1)[0])._compiled
        streams = compiled.get_property("NUM_STREAMS")
        assert streams == compiled.get_property("INFERENCE_NUM_THREADS") <= threads


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_two_threads_prepare_is_compiled_once(files: ModelFiles, runtime: str) -> None:
    made, (chip,) = load(files, runtime, threads=2), chips(1)
    with ThreadPoolExecutor(4) as pool:
        programs = list(pool.map(made.prepare, [chip] * 8))
    assert len({id(program) for program in programs}) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_chips_of_two_shapes_come_back_in_order(files: ModelFiles, runtime: str) -> None:
    x = [*chips(3, 8, 8), *chips(3, 16, 12), *chips(2, 8, 8)]
    made = load(files, runtime, threads=2)
    for (i, probs), expected in zip(made.run(enumerate(x)), range(8), strict=True):
        assert i == expected
        assert probs.shape == (4, *x[i].shape[1:])
        np.testing.assert_array_equal(probs, made.probs(x[i][None])[0] if i == 7 else probs)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_chips_may_be_views_and_be_overwritten_later(files: ModelFiles, runtime: str) -> None:
    x = chips(6)
    expected = load(files, runtime).probs(x)
    plain, turned = np.empty_like(x[0]), np.empty((len(BANDS), 26, 20), x.dtype)

    def overwritten() -> Any:
        for i, chip in enumerate(x):
            view = turned.transpose(0, 2, 1) if i % 2 else plain
            view[:] = chip
            yield i, view
            view[:] = 0

    for i, probs in load(files, runtime, threads=2).run(overwritten()):
        np.testing.assert_array_equal(probs, expected[i])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_more_chips_are_taken_than_can_be_used(files: ModelFiles, runtime: str) -> None:
    taken = 0

    def counted() -> Any:
        nonlocal taken
        for chip in chips(20):
            taken += 1
            yield None, chip

    given = 0
    for _ in load(files, runtime, threads=2).run(counted()):
        given += 1
        assert taken <= given + 3
    assert given == 20


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_leaving_early_and_failing_chips_leave_it_whole(files: ModelFiles, runtime: str) -> None:
    made, x = load(files, runtime, threads=2), chips(8)
    expected = made.probs(x)
    for _ in range(3):
        started = made.run(enumerate(x))
        next(started)
        started.close()

    def broken() -> Any:
        yield from enumerate(x[:4])
        raise OSError("the scene is gone")

    with pytest.raises(OSError, match="is gone"):
        list(made.run(broken()))
    np.testing.assert_array_equal(made.probs(x), expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_failure_while_computing_ends_with_an_error(
    files: ModelFiles, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x = load(files, runtime, threads=2), chips(6)
    program = made.prepare(x[0])
    if runtime == "openvino":

        class Failing:
            def __init__(self, request: Any) -> None:
                self.request = request

            def __getattr__(self, name: str) -> Any:
                return getattr(self.request, name)

            def wait(self) -> None:
                self.request.wait()
                raise RuntimeError("Exception from src\n[CPU] out of luck")

        program._requests.extend([Failing(program._requests.popleft()) for _ in range(3)])
    else:

        class Session:
            def run(self, *_: Any) -> Any:
                raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("out of luck")

        program._session = Session()
    with pytest.raises(ModelError, match=r"out of luck.*--runtime torch"):
        list(made.run(enumerate(x)))
    assert threading.active_count() < 20


# What is not here


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_devices_are_refused(files: ModelFiles, runtime: str) -> None:
    with pytest.raises(DeviceError, match=r"'cuda'.*--runtime torch"):
        load_runtime(files, RADIOMETRY, runtime=runtime, precision="fp32", device="cuda")


def test_precisions_that_the_cpu_lacks_are_refused(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.runtimes.on_openvino.precisions", lambda: ("fp32",))
    with pytest.raises(DeviceError, match=r"'bf16' was asked for.*computes in fp32"):
        load(files, "openvino", precision="bf16")
    with pytest.raises(DeviceError, match=r"'bf16' was asked for.*computes in fp32"):
        load(files, "onnxruntime", precision="bf16")


def test_onnxruntime_that_is_not_installed_is_explained(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.core.importing._installed", lambda package: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'geoseg\[onnxruntime\]'"):
        load(files, "onnxruntime")


# model.onnx


@pytest.mark.parametrize("name", list_embedded())
def test_an_embedded_models_graph_is_its_own(name: str) -> None:
    files = geoseg.load_model(name)
    assert files.graph is not None
    assert len(files.graph) < 1_000_000
    bands, side = len(files.card.bands), 4 * files.card.multiple
    low, high = (0, 255) if files.card.quantity == "number" else (0.0, 0.6)
    x = np.random.default_rng(0).uniform(low, high, (1, bands, side, 2 * side)).astype(np.float32)
    radiometry = Radiometry((1.0,) * bands, (0.0,) * bands, "")
    expected, *found = (
        load_runtime(files, radiometry, runtime=r, precision="fp32", device="cpu").probs(x)
        for r in ("torch", *RUNTIMES)
    )
    for probs in found:
        np.testing.assert_allclose(probs, expected, atol=1e-4)


@pytest.mark.parametrize("name", list_embedded())
def test_an_embedded_model_runs_without_torch(name: str) -> None:
    code = (
        "import sys, numpy as np, geoseg\n"
        "from geoseg.scene.radiometry import Radiometry\n"
        "from geoseg.runtimes import load_runtime\n"
        f"files = geoseg.load_model({name!r})\n"
        "n = len(files.card.bands)\n"
        "r = Radiometry((1.0,) * n, (0.0,) * n, '')\n"
        "for name in ('auto', 'openvino', 'onnxruntime'):\n"
        "    made = load_runtime(files, r, runtime=name, device='cpu', precision='fp32')\n"
        "    made.probs(np.zeros((1, n, 64, 64), np.uint8))\n"
        "    print(made.name, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["openvino", "False"] * 2 + ["onnxruntime", "False"]


def test_the_graph_refers_to_the_weights_and_others_can_read_it(folder: Path) -> None:
    path, weights = folder / "model.onnx", folder / "weights.safetensors"
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    outside = [t for t in tensors if t.data_location == t.EXTERNAL]
    assert len(outside) > 5
    assert {e.value for t in outside for e in t.external_data if e.key == "location"} == {
        weights.name
    }
    x = np.random.default_rng(0).random((1, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(session.run(None, {"pixels": x})[0], compiled([x])[0], atol=1e-4)


def test_writing_the_graph_again_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / "model.onnx").read_bytes()
    path, takes = write_graph(folder)
    assert path.read_bytes() == before
    assert "multiple of 2 px" in takes
    assert {p.name for p in folder.iterdir()} == {"model.json", "model.onnx", "weights.safetensors"}
    assert b"site-packages" not in before
    assert str(Path(geoseg.__file__).parent).encode() not in before


def test_a_graph_of_other_weights_or_another_network_is_refused(files: ModelFiles) -> None:
    other = replace(files, weights=files.weights[:-1] + bytes([files.weights[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"geoseg:weights.*geoseg models graph"):
        load(other, "openvino").probs(chips(1))
    options = {"width": 8, "depth": 2}
    other = replace(files, card=replace(files.card, network_options=options))
    with pytest.raises(ModelError, match=r"geoseg:network.*geoseg models graph"):
        load(other, "onnxruntime").probs(chips(1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("location", "../../etc/passwd"),
        ("location", "model.json"),
        ("offset", "-4"),
        ("offset", "99999999"),
        ("length", "99999999"),
        ("length", "all"),
    ],
)
def test_a_graph_that_refers_elsewhere_is_refused(files: ModelFiles, key: str, value: str) -> None:
    assert files.graph is not None
    model = onnx.load_model_from_string(files.graph)
    tensor = next(t for t in model.graph.initializer if t.data_location == t.EXTERNAL)
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
    with pytest.raises(ModelError, match=r"model\.onnx"):
        attach(model.SerializeToString(), files)


def test_a_tensor_within_a_node_may_not_refer_elsewhere(files: ModelFiles) -> None:
    assert files.graph is not None
    model = onnx.load_model_from_string(files.graph)
    tensor = onnx.TensorProto(name="t", dims=[1], data_type=1, data_location=1)
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], []
    )
    model.graph.node.append(
        onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    )
    with pytest.raises(ModelError, match="passwd"):
        attach(model.SerializeToString(), files)


def test_what_is_no_graph_is_refused(files: ModelFiles) -> None:
    with pytest.raises(ModelError, match=r"not ONNX.*geoseg models graph"):
        load(replace(files, graph=b"nonsense"), "openvino").probs(chips(1))


def test_a_zipped_model_brings_its_graph(files: ModelFiles, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in folder.iterdir():
            zipped.write(file, f"model/{file.name}")
    zipped_files = read_model(archive)
    assert zipped_files.graph == files.graph
    x = chips(1)
    np.testing.assert_array_equal(
        load(zipped_files, "openvino").probs(x), load(files, "openvino").probs(x)
    )
    with pytest.raises(OutputError, match="unpack"):
        write_graph(archive)


def test_the_command_writes_graphs(
    files: ModelFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model(tmp_path / "linear", BANDS, CLASSES, graph=False)
    assert read_model(folder).graph is None
    with pytest.raises(SystemExit) as end:
        main(["models", "graph", str(folder)])
    assert end.value.code == 0
    assert "linear/model.onnx: " in capsys.readouterr().out
    assert read_model(folder).graph is not None


# Models without model.onnx


def test_a_graph_that_was_made_is_kept(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))
    bare, x = replace(files, graph=None), chips(1)
    expected = load(files, "openvino").probs(x)
    assert not (tmp_path / "cache").exists()
    np.testing.assert_allclose(load(bare, "openvino").probs(x), expected, atol=1e-6)
    (kept,) = (tmp_path / "cache" / "graphs").iterdir()

    def exported(*_: Any) -> Any:
        raise AssertionError("exported again")

    monkeypatch.setattr("geoseg.networks.export.export_graph", exported)
    np.testing.assert_allclose(load(bare, "onnxruntime").probs(x), expected, atol=1e-5)
    with pytest.raises(AssertionError, match="again"):
        load(bare, "openvino").probs(chips(1, 32, 32))  # of another shape
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(AssertionError, match="again"):
        load(bare, "openvino").probs(x)
    told: list[str] = []
    monkeypatch.undo()
    monkeypatch.setenv("GEOSEG_CACHE", str(kept))  # a file: nothing can be kept
    found = load(bare, "openvino", report=told.append).probs(x)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    (message,) = told
    assert "GEOSEG_CACHE" in message


def test_a_network_that_onnx_cannot_express_is_explained(tmp_path: Path) -> None:
    folder = tiny_model(
        tmp_path / "crf",
        BANDS,
        CLASSES,
        network_options={"crf": {"filter": "permutohedral"}},
    )
    with pytest.raises(ModelError, match="can't be written as ONNX"):
        load(read_model(folder), "openvino").probs(chips(1))


def test_same_padding_without_symbols_is_same_padding() -> None:
    torch.manual_seed(0)
    for kernel, stride, dilation in ((3, 2, 1), (5, 2, 1), (3, 1, 2), (1, 2, 1), (7, 4, 1)):
        layer = Conv2dSame(2, 3, kernel, stride=stride, dilation=dilation)
        x = torch.rand(1, 2, 8, 12)
        expected = layer(x)
        with _same_padding():
            torch.testing.assert_close(layer(x), expected)
        assert torch.equal(layer(x), expected)


def test_a_graph_of_one_shape_fits_that_alone(files: ModelFiles) -> None:
    content, takes = export_graph(files, (16, 24))
    model = attach(content, files)
    assert takes == "chips of 16x24 px alone"
    assert graph_fits(model, 16, 24)
    assert not graph_fits(model, 24, 16)
    assert files.graph is not None
    assert not graph_fits(attach(files.graph, files), 15, 16)


def test_weights_beside_a_graph_are_the_weights_within_it(files: ModelFiles) -> None:
    assert files.graph is not None
    inside = attach(files.graph, files)
    outside = bind(files.graph, files)
    before = len(outside.graph.input)
    weights = apart(outside, files)
    assert weights and len(outside.graph.input) == before + len(weights)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in inside.graph.initializer}
    left = {t.name: onnx.numpy_helper.to_array(t) for t in outside.graph.initializer}
    assert {**left, **weights}.keys() == tensors.keys()
    for name, values in {**left, **weights}.items():
        np.testing.assert_array_equal(values, tensors[name])
    # What OpenVINO reads is the same to the last bit.
    core = openvino.Core()
    x = np.random.default_rng(0).random((1, len(files.card.bands), 64, 64), dtype=np.float32)
    found = [
        core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
        for model in (
            core.read_model(inside.SerializeToString()),
            read_graph(core, bind(files.graph, files), files),
        )
    ]
    np.testing.assert_array_equal(*found)
