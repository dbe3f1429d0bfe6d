"""Networks in whole numbers of 8 bits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import geoseg
from geoseg.cards.card import INT8_NAME, Normalization
from geoseg.cards.files import ModelFiles, read_model
from geoseg.cli import main
from geoseg.core.cache import Cache
from geoseg.errors import DeviceError, ModelError, OutputError, SceneError
from geoseg.graphs.binding import attach, noted
from geoseg.graphs.quantize import Draft, quantize_graph
from geoseg.networks import load_network, save_model
from geoseg.networks.export import write_graph
from geoseg.prediction.quantizing import CALIBRATION_CHIPS, quantize
from geoseg.runtimes import load_runtime
from geoseg.runtimes.int8 import quantize_files
from geoseg.runtimes.on_openvino import OpenVinoRuntime
from geoseg.scene.radiometry import Radiometry
from tests.helpers import make_raster, tiny_model

BANDS, CLASSES = ("red", "nir"), ("water", "trees", "crops")
RADIOMETRY = Radiometry((1.0, 1.0), (0.0, 0.0), "for a test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("models")
    made = tiny_model(
        parent / "one-sided",
        BANDS,
        CLASSES,
        network="small_unet",
        network_options={"width": 8, "depth": 1},
        normalization=Normalization("z-score", {"mean": (500.0,) * 2, "stddev": (300.0,) * 2}),
        multiple=2,
        size=32,
        overlap=8,
    )
    # Each class is somewhere the likeliest, so that labels tell what 8 bits spoil.
    network = load_network(read_model(made))
    with torch.no_grad():
        x = (torch.from_numpy(np.stack(chips(8)).astype(np.float32)) - 500) / 300
        network.head.bias -= network(x).mean(dim=(0, 2, 3))
    path = parent / "model"
    save_model(read_model(made).card, network, path)
    write_graph(path)
    return path


@pytest.fixture
def files(folder: Path) -> ModelFiles:
    return read_model(folder)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))


def chips(n: int, seed: int = 0, side: int = 32) -> list[np.ndarray]:
    """Smooth, as scenes are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 1000, (n, 2, side // 4, side // 4))
    return list(coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint16))


def content_of(kept: Path) -> bytes:
    """What the cache keeps in a file."""
    content = Cache().read(str(kept))
    assert content is not None
    return content


def load(files: ModelFiles, runtime: str = "auto", n: int = 4, **options: Any) -> Any:
    return load_runtime(
        files,
        RADIOMETRY,
        runtime=runtime,
        device="cpu",
        **{"precision": "int8", "sample": lambda: chips(n), **options},
    )


@pytest.mark.parametrize("runtime", ["auto", "openvino", "onnxruntime"])
def test_it_nearly_gives_what_fp32_gives(files: ModelFiles, runtime: str) -> None:
    told: list[str] = []
    made = load(files, runtime, report=told.append)
    assert made.name == ("onnxruntime" if runtime == "onnxruntime" else "openvino")
    assert made.precision == "int8"
    x = np.stack(chips(4))
    expected, found = load(files, precision="fp32").probs(x), made.probs(x)
    assert 0 < np.abs(found - expected).max() < 0.1
    agreement = (expected.argmax(1) == found.argmax(1)).mean()
    assert agreement > 0.95
    (message,) = told
    if runtime != "onnxruntime":  # whose rounding is its own
        judged = (expected[1::2].argmax(1) == found[1::2].argmax(1)).mean()
        assert f"{100 * judged:.4g} % of fp32's labels on the 2 chips of this scene" in message
    assert message in made.choice


def test_its_layers_are_in_8_bits_but_the_first_and_the_last(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.runtimes.int8.AIM", 0.0)
    load(files)
    (kept,) = (tmp_path / "cache" / "int8").iterdir()
    graph = attach(content_of(kept), files).graph
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    whole = [n.input[1] in dequantized for n in convolutions]
    assert whole == [False] + [True] * (len(convolutions) - 2) + [False]
    weights = {t.name: t for t in graph.initializer}
    scales = [
        weights[n.input[1]].dims[0]
        for n in graph.node
        if n.op_type == "DequantizeLinear" and n.output[0] in {c.input[1] for c in convolutions}
    ]
    assert scales and all(n > 1 for n in scales), "a scale a channel"
    # Logits of 8 bits alone would change one label in a hundred.
    quantized = {n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    last = graph.node[[n.output[0] for n in graph.node].index(graph.output[0].name)]
    assert last.op_type != "DequantizeLinear"
    assert not quantized.intersection(last.input)


def drafted(files: ModelFiles) -> Draft:
    assert files.graph is not None
    return quantize_graph(files, RADIOMETRY, files.graph, chips(4))


def test_without_its_layers_it_is_the_network_in_floating_point(files: ModelFiles) -> None:
    draft = drafted(files)
    bare = draft.without(draft.layers)
    assert "QuantizeLinear" not in {n.op_type for n in bare.graph.node}
    x = np.stack(chips(3, seed=1))
    made = load(replace(files, int8=bare.SerializeToString()), "onnxruntime")
    np.testing.assert_allclose(
        made.probs(x), load(files, "onnxruntime", precision="fp32").probs(x), atol=1e-5
    )


def test_each_layer_can_be_left_in_floating_point(files: ModelFiles) -> None:
    draft = drafted(files)
    for layer in draft.layers:
        graph = draft.without([layer]).graph
        dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
        inputs = {n.name: n.input for n in graph.node}
        # Biases keep their 32 bits, which are as good as exact.
        assert not dequantized.intersection(inputs[layer][:2]), layer
        convolutions = {n.name for n in graph.node if n.op_type == "Conv"} - {layer}
        for other in convolutions.intersection(draft.layers):
            assert dequantized.issuperset(inputs[other][:2]), (layer, other)


def test_what_spoils_most_comes_first(files: ModelFiles) -> None:
    among = convolutions(files)
    victim = [name for name in drafted(files).layers if name in among][1]
    broken = drafted(files)
    # Weights of the other sign.
    for tensor in broken._model.graph.initializer:
        if tensor.name == weight_of(files, victim) + "_quantized":
            signs = -numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(signs, tensor.name))
    assert broken.layers[0] == victim


def convolutions(files: ModelFiles) -> dict[str, Any]:
    return {n.name: n for n in drafted(files)._model.graph.node if n.op_type == "Conv"}


def weight_of(files: ModelFiles, name: str) -> str:
    return str(convolutions(files)[name].input[1]).removesuffix("_DequantizeLinear_Output")


def test_layers_are_left_in_floating_point_until_the_labels_hold(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(aim: float) -> tuple[float, int]:
        monkeypatch.setattr("geoseg.runtimes.int8.AIM", aim)
        new = quantize_files(files, RADIOMETRY, chips(8), Cache())
        assert new.int8 is not None
        found = noted(onnx.load_model_from_string(new.int8))
        return float(found["geoseg:agreement"]), int(found["geoseg:floating"])

    plain, none = made(0.0)
    assert none == 0
    aim = (plain + 1) / 2
    better, some = made(aim)
    assert 0 < some < len(drafted(files).layers)
    assert better >= aim > plain


def test_where_bf16_changes_too_much_the_rest_is_in_fp32(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.runtimes.on_openvino.precisions", lambda: ("fp32", "bf16", "int8"))
    monkeypatch.setattr("geoseg.runtimes.int8.AIM", 0.9)
    first = quantize_files(files, RADIOMETRY, chips(8), Cache())
    monkeypatch.setattr("geoseg.runtimes.int8.AIM", 1.1)
    tried: list[str] = []
    compiled = OpenVinoRuntime._compile

    def compiling(self: Any, model: Any, dtype: Any) -> Any:
        tried.append(noted(model).get("geoseg:rest", ""))
        return compiled(self, model, dtype)

    monkeypatch.setattr(OpenVinoRuntime, "_compile", compiling)
    quantize_files(files, RADIOMETRY, chips(8), Cache())
    assert first.int8 is not None
    assert noted(onnx.load_model_from_string(first.int8))["geoseg:rest"] == "bf16"
    assert [rest for rest in dict.fromkeys(tried) if rest] == ["bf16", "fp32"]


def test_where_no_layer_helps_it_says_so(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.runtimes.int8.AIM", 1.1)
    monkeypatch.setattr("geoseg.runtimes.int8.LEAST_AGREEMENT_INT8", 1.1)
    told: list[str] = []
    load(files, report=told.append)
    assert "less than 110 %" in told[0]
    assert "--precision auto" in told[0]


def test_threads_change_no_bit(files: ModelFiles) -> None:
    x = chips(6)
    one, three = ([p.copy() for _, p in load(files, threads=n).run(enumerate(x))] for n in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_it_is_calibrated_once_for_the_same_chips(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = load(files).probs(np.stack(chips(2)))

    def quantized(*_: Any) -> Any:
        raise AssertionError("calibrated again")

    monkeypatch.setattr("geoseg.runtimes.int8.quantize_files", quantized)
    np.testing.assert_array_equal(load(files).probs(np.stack(chips(2))), expected)
    with pytest.raises(AssertionError, match="again"):
        load(files, n=3)
    hot = replace(RADIOMETRY, gain=(2.0, 1.0))
    with pytest.raises(AssertionError, match="again"):
        load_runtime(files, hot, precision="int8", device="cpu", sample=lambda: chips(4))
    (kept,) = (tmp_path / "cache" / "int8").iterdir()
    kept.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="again"):
        load(files)


def test_other_devices_are_refused_before_anything_is_done(files: ModelFiles) -> None:
    for runtime in ("openvino", "onnxruntime"):
        with pytest.raises(DeviceError, match="--runtime torch"):
            load_runtime(files, RADIOMETRY, runtime=runtime, precision="int8", device="cuda")


def test_without_chips_it_says_what_to_do(files: ModelFiles) -> None:
    for sample in (None, list):
        with pytest.raises(SceneError, match="geoseg models quantize"):
            load(files, sample=sample)


# geoseg models quantize


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    top = np.concatenate(chips(6), axis=2)
    values = np.concatenate([top, top[:, :, ::-1]], axis=1)
    return make_raster(tmp_path / "scene.tif", values, descriptions=BANDS)


def test_a_quantized_folder_needs_no_chips(folder: Path, scene: Path, tmp_path: Path) -> None:
    made = quantize(folder, scene, tmp_path / "int8")
    assert 0.9 < made.agreement <= 1
    assert 4 <= made.chips <= CALIBRATION_CHIPS / 2
    names = {p.name for p in (tmp_path / "int8").iterdir()}
    assert names == {"model.json", "model.onnx", INT8_NAME, "weights.safetensors"}
    files, before = read_model(tmp_path / "int8"), read_model(folder)
    assert files.graph == before.graph
    assert files.sha256 != before.sha256, "a map may depend on it"
    told: list[str] = []
    int8 = load(files, sample=None, report=told.append)
    x = np.stack(chips(4))
    assert (
        int8.probs(x).argmax(1) == load(files, precision="fp32").probs(x).argmax(1)
    ).mean() > 0.9
    (message,) = told
    share = f"{100 * made.agreement:.4g} % of fp32's labels on"
    assert share in message and share in made.words
    assert f"{share} {made.chips} chips of the scene that the model was quantized with" in message
    assert "on this scene they were not compared" in message
    # Chips of another shape are taken as well.
    assert int8.probs(np.stack(chips(1, side=16))).shape == (1, 3, 16, 16)


def test_the_command_tells_the_agreement(
    folder: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["models", "quantize", str(folder), str(scene), "-o", str(tmp_path / "new")]
    with pytest.raises(SystemExit) as end:
        main([*args, "--json"])
    assert end.value.code == 0
    entry = json.loads(capsys.readouterr().out)
    assert 0.9 < entry["agreement"] <= 1
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 1
    assert "exists already" in capsys.readouterr().err


def test_a_model_without_a_graph_gets_both(scene: Path, tmp_path: Path) -> None:
    bare = tiny_model(tmp_path / "bare", BANDS, CLASSES, multiple=2, size=32, overlap=8)
    quantize(bare, scene, tmp_path / "both")
    files = read_model(tmp_path / "both")
    assert files.graph is not None
    assert files.int8 is not None


def test_a_failed_write_leaves_nothing(
    folder: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(card: Any, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoseg.networks.folder.write_card", full)
    with pytest.raises(OutputError, match="No space"):
        quantize(folder, scene, tmp_path / "new")
    assert not [p for p in tmp_path.iterdir() if "new" in p.name]


def test_a_scene_without_pixels_is_refused(folder: Path, tmp_path: Path) -> None:
    empty = make_raster(
        tmp_path / "empty.tif", np.zeros((2, 64, 64), np.uint16), descriptions=BANDS, nodata=0
    )
    with pytest.raises(SceneError, match="no pixel was measured"):
        quantize(folder, empty, tmp_path / "new")


def test_a_graph_of_another_model_or_shape_is_refused(
    folder: Path, scene: Path, tmp_path: Path
) -> None:
    quantize(folder, scene, tmp_path / "int8")
    files = read_model(tmp_path / "int8")
    other = tiny_model(
        tmp_path / "other",
        BANDS,
        CLASSES,
        network="small_unet",
        seed=1,
        network_options={"width": 8, "depth": 1},
    )
    with pytest.raises(ModelError, match=r"model\.int8\.onnx.*geoseg models quantize"):
        load(replace(read_model(other), int8=files.int8))
    assert files.int8 is not None
    model = onnx.load_model_from_string(files.int8)
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = 64
    fixed = replace(files, int8=model.SerializeToString())
    with pytest.raises(ModelError, match=r"does not take chips of 32x32 px.*--size"):
        load(fixed).probs(np.stack(chips(1)))


def test_predict_writes_a_map_in_int8(folder: Path, scene: Path, tmp_path: Path) -> None:
    quantize(folder, scene, tmp_path / "int8")
    maps = []
    for precision in ("int8", "fp32"):
        made = load(read_model(tmp_path / "int8"), precision=precision)
        result = geoseg.predict(
            scene,
            tmp_path / f"{precision}.tif",
            model=tmp_path / "int8",
            runtime=made,
            no_vector=True,
        )
        maps.append(result.report["classes"])
    assert [c["name"] for c in maps[0]] == [c["name"] for c in maps[1]]
