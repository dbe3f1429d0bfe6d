import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

import geoseg
from geoseg.cards.card import ChipBorder, Normalization
from geoseg.cards.files import read_model, write_card
from geoseg.cli import main
from geoseg.errors import GeosegError, ModelError, SceneError, UsageError
from geoseg.networks import load_network
from geoseg.prediction.border_probe import PROBED_CHIPS, SAME, _in_quantity, _scene_ground
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.overlap import BLEND
from geoseg.prediction.plan import make_plan
from geoseg.runtimes import load_runtime
from tests.helpers import make_raster, tiny_model
from tests.oracles import OneHot, Poisoned
from tests.test_predict import blocks

BANDS = ("red", "nir")
CLASSES = ("water", "trees", "crops", "built")
#: Name of a network -> options, multiple of its chips, and how far each output pixel reaches: the
#: dilations of the convolutions, at their strides.
LOCAL = {
    "full_separable": ({"stem": 8, "widths": (8, 8), "dilations": ((1, 2), (4,))}, 1),
    "linear": ({}, 1),
    "half_resnet": ({"width": 16, "dilations": (1, 2)}, 2),
    "half_separable": ({"stem": 8, "side": 4, "widths": (8, 8, 8)}, 2),
    "small_unet": ({"width": 8, "depth": 2}, 4),
}


def local_model(folder, network, **card):
    options, multiple = LOCAL[network]
    defaults = {"network_options": options, "multiple": multiple}
    return tiny_model(folder, BANDS, CLASSES, network=network, **{**defaults, **card})


def noise(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(len(BANDS), height, width)).astype(np.float32)


def reach(model, side=64, multiple=4):
    """Outermost px of a chip that know what lies beyond it: where a NaN beyond comes through."""
    files = read_model(model)
    pixels = torch.from_numpy(noise(2 * side, 2 * side))[None]
    outside = torch.ones(2 * side, 2 * side, dtype=torch.bool)
    half = side // 2
    outside[half : half + side, half : half + side] = False
    pixels[:, :, outside] = torch.nan
    with torch.inference_mode():
        out = load_network(files)(pixels)[0, 0, half : half + side, half : half + side]
    known = torch.isnan(out).numpy()
    return next(d for d in range(half) if not known[d : side - d, d : side - d].any())


@pytest.mark.parametrize("network", LOCAL)
def test_exact_is_how_far_a_convolutional_network_looks(tmp_path, network):
    model = local_model(tmp_path / "model", network)
    border = geoseg.probe_border(model, size=64).border
    looks = reach(model)
    assert border.exact <= looks
    if network == "half_resnet":  # its weights carry all the way; the others' fade before
        assert border.exact >= looks - 4 > 0
    assert len(border.mean) == len(border.largest) == len(border.flips) == border.exact
    assert border.exact == 0 or border.largest[-1] >= SAME
    assert (border.exact == 0) == (network == "linear")


def test_the_curves_are_those_of_the_differences(tmp_path, monkeypatch):
    """A runtime that errs by known amounts within known distances of the chip's edge."""

    class Errs(OneHot):
        def answer(self, pixels):
            side = pixels.shape[-1]
            near = np.minimum(np.arange(side), side - 1 - np.arange(side))
            distance = np.minimum(near[:, None], near[None, :])
            probs = np.full((1, 2, side, side), 0.5)
            if side == 32:  # the chip; the ground around makes it 64
                probs[0, 0] -= np.select([distance < 3, distance < 7], [0.25, 1e-4], 0)
                probs[0, 0, 0, :16] += 0.25  # the outermost ring errs for a part only
            probs[0, 1] = 1 - probs[0, 0] - 1e-9
            return probs

    monkeypatch.setattr("geoseg.prediction.border_probe.load_runtime", lambda *a, **k: Errs(2))
    model = tiny_model(tmp_path / "model", BANDS, CLASSES[:2])
    border = geoseg.probe_border(model, size=32).border
    ring = 4 * 31
    assert border.mean[0] == pytest.approx(0.25 * (ring - 16) / ring, rel=0.01)
    np.testing.assert_allclose(border.mean[1:], [0.25, 0.25, 1e-4, 1e-4, 1e-4, 1e-4], rtol=0.01)
    np.testing.assert_allclose(border.largest, [0.25] * 3 + [1e-4] * 4, rtol=0.01)
    assert border.flips[0] == pytest.approx((ring - 16) / ring, rel=0.01)
    assert border.flips[1:3] == (1.0, 1.0)
    assert (border.exact, border.size) == (7, 32)


def test_what_looks_at_the_whole_chip_has_no_exact_distance(tmp_path):
    options = {"encoder": "mobilenetv3_small_100"}  # squeeze and excitation, image pooling
    model = tiny_model(
        tmp_path / "model", BANDS, CLASSES, network="deeplabv3plus", network_options=options
    )
    border = geoseg.probe_border(model, size=64, write=True).border
    assert border.exact is None
    assert len(border.mean) == 32
    scene = make_raster(tmp_path / "scene.tif", noise(100, 100), descriptions=BANDS)
    with pytest.raises(UsageError, match="looks at the whole chip"):
        geoseg.predict(scene, tmp_path / "out.tif", model=model, exact=True)


def test_chips_are_in_phase_with_the_halvings_of_the_network(tmp_path):
    # Half of 100 is no multiple of 8; a chip out of phase differs up to its middle.
    model = local_model(
        tmp_path / "model", "small_unet", network_options={"width": 8, "depth": 3}, multiple=8
    )
    border = geoseg.probe_border(model, size=100).border
    assert border.size == 104 and border.exact is not None


def test_a_scene_is_probed_where_it_is_measured(tmp_path):
    model = local_model(tmp_path / "model", "half_resnet")
    values = noise(150, 400)
    values[:, :, :190] = np.nan
    values[:, 40:44, :] = np.nan
    scene = make_raster(tmp_path / "scene.tif", values, nodata=np.nan, descriptions=BANDS)
    plan = make_plan(scene, PredictOptions(model=model, no_vector=True))
    # Filled from beside, not with zeros, which are like nothing on the ground.
    assert all((pixels != 0).all() for pixels in _scene_ground(plan, 64))
    probe = geoseg.probe_border(model, scene)
    # The card's 64 px, and half as much around, fit.
    assert (probe.border.size, probe.border.ground) == (64, "scene")
    assert 0 < probe.chips <= PROBED_CHIPS
    assert probe.border.exact <= reach(model)
    assert geoseg.probe_border(model, scene, size=70).border.size == 70
    with pytest.raises(UsageError, match="room for chips of 74 px"):
        geoseg.probe_border(model, scene, size=80)
    values[:] = np.nan
    scene = make_raster(tmp_path / "dark.tif", values, nodata=np.nan, descriptions=BANDS)
    with pytest.raises(SceneError, match="measured for the most part"):
        geoseg.probe_border(model, scene)


def test_a_small_scene_takes_smaller_chips(tmp_path):
    model = local_model(tmp_path / "model", "small_unet")
    scene = make_raster(tmp_path / "scene.tif", noise(75, 300), descriptions=BANDS)
    assert geoseg.probe_border(model, scene).border.size == 32  # 36 would ask for 20 px around
    tiny = make_raster(tmp_path / "tiny.tif", noise(30, 300), descriptions=BANDS)
    with pytest.raises(UsageError, match="too few"):
        geoseg.probe_border(model, tiny)


@pytest.mark.parametrize(
    ("normalization", "quantity"),
    [
        (Normalization("z-score", {"mean": (5.0, -3.0), "stddev": (2.0, 0.1)}), "number"),
        (Normalization("min-max", {"minimum": (5.0, -3.0), "maximum": (9.0, 0.1)}), "number"),
        (
            Normalization("log-logistic", {"center": (1.7, 2.4), "spread": (2.0, 2.8)}),
            "reflectance",
        ),
        (Normalization(), "reflectance"),
        (Normalization(), "number"),
    ],
    ids=lambda v: getattr(v, "kind", v),
)
def test_random_numbers_suit_the_normalization(tmp_path, normalization, quantity):
    from geoseg.networks.normalize import normalize

    model = tiny_model(
        tmp_path / "model", BANDS, CLASSES, normalization=normalization, quantity=quantity
    )
    card = read_model(model).card
    values = np.random.default_rng(0).normal(size=(2, 50, 60))
    seen = normalize(torch.from_numpy(_in_quantity(card, values))[None], normalization)[0].numpy()
    assert seen.std(axis=(1, 2)).min() > 0.05
    if normalization.kind == "log-logistic":
        np.testing.assert_allclose(np.log(seen / (1 - seen)), values, atol=1e-6)
    if normalization.kind == "z-score":
        np.testing.assert_allclose(seen, values)
    if normalization.kind == "min-max":
        np.testing.assert_allclose(seen, 0.5 + 0.25 * values)


def test_write_keeps_the_border_in_the_card_and_all_else(tmp_path):
    model = local_model(tmp_path / "model", "half_resnet")
    before = read_model(model)
    probe = geoseg.probe_border(model, size=48, write=True)
    after = read_model(model)
    assert probe.written == model / "model.json"
    assert after.card == replace(before.card, border=probe.border) == probe.card
    assert after.weights == before.weights
    assert sorted(p.name for p in model.iterdir()) == ["model.json", "weights.safetensors"]
    again = geoseg.probe_border(model, size=48)
    assert again.border == probe.border and again.written is None
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", model)
    assert geoseg.probe_border(archive, size=48).border == probe.border
    with pytest.raises(UsageError, match=r"is a \.zip"):
        geoseg.probe_border(archive, size=48, write=True)


def test_nan_and_tiny_chips_are_refused(tmp_path):
    model = local_model(tmp_path / "model", "linear")
    with pytest.raises(UsageError, match="at least 16 px"):
        geoseg.probe_border(model, size=8)
    endless = Normalization("z-score", {"mean": (0.0, 0.0), "stddev": (1e-300, 1.0)})
    broken = local_model(tmp_path / "broken", "linear", normalization=endless)
    with pytest.raises(ModelError, match="NaN or infinite"):
        geoseg.probe_border(broken, size=16)


def test_probe_from_the_command_line(tmp_path, capsys):
    model = local_model(tmp_path / "model", "half_resnet")
    with pytest.raises(SystemExit) as end:
        main(["models", "probe", str(model), "--size", "48", "--json"])
    assert not end.value.code
    report = json.loads(capsys.readouterr().out)
    assert report["chips"] == PROBED_CHIPS and report["ground"] == "random smooth numbers"
    with pytest.raises(SystemExit):
        main(["models", "probe", str(model), "--size", "48", "--write"])
    out = capsys.readouterr().out
    assert f"exact   from {report['exact']} px on" in out
    assert f"enough  from {report['enough']} px on" in out
    assert "model.json was written" in out
    assert read_model(model).card.border.exact == report["exact"]


# What the border is for


def probabilities(tmp_path, scene, model, name, **options):
    path = tmp_path / f"{name}.tif"
    geoseg.predict(
        scene,
        tmp_path / f"{name}_map.tif",
        model=model,
        probs=path,
        probs_dtype="float32",
        no_vector=True,
        **options,
    )
    with rasterio.open(path) as dataset:
        return dataset.read()


def untiled(scene, model):
    """What a network says of a whole scene that goes on mirrored, at its phase of the world."""
    plan = make_plan(scene, PredictOptions(model=model, no_vector=True))
    height, width, (row, col) = plan.grid.height, plan.grid.width, plan.grid.place
    multiple = plan.chips.multiple
    before = [10 * multiple + place % multiple for place in (row, col)]
    after = [
        12 * multiple - (b + n) % multiple for b, n in zip(before, (height, width), strict=True)
    ]
    with rasterio.open(scene) as dataset:
        pixels = np.pad(
            dataset.read(), ((0, 0), *zip(before, after, strict=True)), mode="symmetric"
        )
    runtime = load_runtime(
        plan.files, plan.radiometry, runtime="torch", precision="fp32", device="cpu"
    )
    probs = runtime.to_numpy(runtime.probs(pixels[None]))[0]
    return probs[:, before[0] : before[0] + height, before[1] : before[1] + width]


@pytest.mark.parametrize("network", ["small_unet", "half_resnet"])
@pytest.mark.parametrize("taper", ["cosine", "gaussian"])
def test_exact_gives_what_one_chip_over_the_whole_scene_gives(tmp_path, network, taper):
    model = local_model(tmp_path / "model", network)
    geoseg.probe_border(model, size=64, write=True)
    scene = make_raster(tmp_path / "scene.tif", noise(300, 280, seed=5), descriptions=BANDS)
    whole = untiled(scene, model)
    tiled = {"size": 96, "taper": taper}
    exact = probabilities(tmp_path, scene, model, "exact", exact=True, **tiled)
    assert np.abs(exact - whole).max() < 1e-5
    # The same chips, taken up to their edges, are not that.
    with rasterio.open(tmp_path / "exact_map.tif") as dataset:
        tags = dataset.tags()
    chips = json.loads(tags["GEOSEG_CHIPS"])
    assert chips["margin"] == read_model(model).card.border.exact
    assert json.loads(tags["GEOSEG_OPTIONS"])["exact"] is True
    plain = probabilities(tmp_path, scene, model, "plain", overlap=chips["overlap"], **tiled)
    assert np.abs(plain - whole).max() > 3 * np.abs(exact - whole).max()


def with_border(folder, **changes):
    """A model whose card says it was measured."""
    model = tiny_model(folder, ("red",), CLASSES, multiple=changes.pop("multiple", 1))
    values = {"size": 64, "ground": "x", "exact": 20, "enough": 5, **changes}
    length = 32 if values["exact"] is None else values["exact"]
    curves = ((0.0,) * length,) * 3
    card = replace(read_model(model).card, border=ChipBorder(*values.values(), *curves))
    write_card(card, model)
    return model


@pytest.mark.parametrize(
    ("border", "options", "overlap", "margin"),
    [
        ({}, {"overlap": "auto"}, 10 + BLEND, 5),
        ({"multiple": 4}, {"overlap": "auto"}, 20, 5),
        ({"exact": None}, {"overlap": "auto"}, 10 + BLEND, 5),
        ({"enough": 0}, {"overlap": "auto"}, BLEND, 0),
        ({"enough": 0, "exact": 0}, {"overlap": "auto"}, 0, 0),
        ({}, {"exact": True}, 41, 20),
        ({"multiple": 4}, {"exact": True}, 44, 20),
        ({"enough": 0, "exact": 0}, {"exact": True}, 0, 0),
        ({}, {"exact": True, "size": 512}, 41, 20),
        ({}, {"exact": True, "size": 160}, 41, 20),  # one chip
        ({}, {}, 16, 0),
        ({}, {"overlap": 12}, 12, 0),
    ],
    ids=str,
)
def test_overlap_and_margin_come_from_the_border(tmp_path, border, options, overlap, margin):
    model = with_border(tmp_path / "model", **border)
    scene = make_raster(tmp_path / "scene.tif", blocks(150, 160), descriptions=("red",))
    result = geoseg.predict(
        scene, tmp_path / "out.tif", model=model, runtime=OneHot(4), no_vector=True, **options
    )
    assert result.report["options"]["overlap"] == overlap
    assert result.report["chips"]["margin"] == margin
    size, stride = (result.report["chips"][key] for key in ("size", "stride"))
    assert result.report["chips"]["total"] == 1 or size - stride >= overlap


def test_of_several_models_the_widest_border_counts(tmp_path):
    near = with_border(tmp_path / "near", exact=10, enough=5, multiple=4)
    far = with_border(tmp_path / "far", exact=20, enough=3, multiple=3)
    bare = tiny_model(tmp_path / "bare", ("red",), CLASSES)
    scene = make_raster(tmp_path / "scene.tif", blocks(150, 160), descriptions=("red",))

    def plan(*models, **options):
        return make_plan(scene, PredictOptions(model=models, no_vector=True, **options))

    made = plan(near, far, exact=True)
    assert (made.chips.margin, made.chips.overlap, made.options.precision) == (20, 48, "fp32")
    made = plan(near, far, overlap="auto", size=96)
    assert (made.chips.margin, made.chips.overlap, made.options.precision) == (5, 24, "auto")
    with pytest.raises(UsageError, match=r"probe .*bare --write"):
        plan(near, bare, exact=True)


@pytest.mark.parametrize("wrong", [5, 6])
def test_auto_takes_nothing_from_the_border(tmp_path, wrong):
    model = with_border(tmp_path / "model")
    values = blocks(150, 160)
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=("red",))
    result = geoseg.predict(
        scene,
        tmp_path / "out.tif",
        model=model,
        runtime=Poisoned(4, wrong),
        no_vector=True,
        overlap="auto",
    )
    inner = (slice(wrong, -wrong), slice(wrong, -wrong))  # the scene's own edge is wrong
    with rasterio.open(result.raster) as dataset:
        right = (dataset.read(1) == values[0])[inner].all()
    assert right == (wrong == 5)


@pytest.mark.parametrize(
    ("border", "options", "words"),
    [
        (None, {"exact": True}, "models probe .*model --write"),
        (None, {"overlap": "auto"}, "models probe .*model --write"),
        ({"enough": None}, {"overlap": "auto"}, "looks at the whole chip"),
        ({"exact": None}, {"exact": True}, "looks at the whole chip"),
        ({}, {"exact": True, "size": 41}, "--size 42 or more"),
        ({"multiple": 4}, {"exact": True, "size": 44}, "--size 48 or more"),
        ({}, {"overlap": "auto", "size": 18}, "--size 19 or more"),
        ({}, {"exact": True, "overlap": 20}, "leave --overlap out"),
        ({}, {"exact": True, "overlap": "auto"}, "leave --overlap out"),
        ({}, {"exact": True, "taper": "none"}, "--taper none"),
        ({}, {"exact": True, "crf": True}, "--crf"),
        ({}, {"exact": True, "precision": "bf16"}, "--precision bf16"),
        ({}, {"overlap": "most"}, "or auto"),
    ],
    ids=str,
)
def test_what_can_not_be_promised_is_refused(tmp_path, border, options, words):
    if border is None:
        model = tiny_model(tmp_path / "model", ("red",), CLASSES)
    else:
        model = with_border(tmp_path / "model", **border)
    scene = make_raster(tmp_path / "scene.tif", blocks(150, 160), descriptions=("red",))
    with pytest.raises(UsageError, match=words):
        geoseg.predict(
            scene, tmp_path / "out.tif", model=model, runtime=OneHot(4), no_vector=True, **options
        )
    assert not (tmp_path / "out.tif").exists()


def test_the_size_that_a_refusal_names_is_taken(tmp_path):
    model = with_border(tmp_path / "model", multiple=4)
    scene = make_raster(tmp_path / "scene.tif", blocks(150, 160), descriptions=("red",))
    common = {"model": model, "runtime": OneHot(4), "no_vector": True, "exact": True}
    result = geoseg.predict(scene, tmp_path / "out.tif", size=48, **common)
    chips = result.report["chips"]
    assert chips["size"] - chips["stride"] >= 41


def test_a_stopped_run_of_another_margin_is_not_gone_on_with(tmp_path):
    """Overlap auto may be the same number as one that was given; the margin is not."""
    model = with_border(tmp_path / "model")
    scene = make_raster(tmp_path / "scene.tif", blocks(150, 160), descriptions=("red",))

    class Stops(OneHot):
        def answer(self, pixels):
            if len(self.batches) > 8:
                raise KeyboardInterrupt
            return super().answer(pixels)

    common = {"model": model, "no_vector": True}
    with pytest.raises(KeyboardInterrupt):
        geoseg.predict(scene, tmp_path / "o.tif", runtime=Stops(4), overlap="auto", **common)
    with pytest.raises(GeosegError, match="margin was 5 and is 0"):
        geoseg.predict(scene, tmp_path / "o.tif", runtime=OneHot(4), overlap=18, **common)


def test_overlap_on_the_command_line(tmp_path, capsys):
    model = with_border(tmp_path / "model", enough=3)
    scene = make_raster(tmp_path / "scene.tif", blocks(150, 160), descriptions=("red",))
    out = str(tmp_path / "out.tif")
    common = ["predict", str(scene), "-m", str(model), "-o", out, "--no-vector", "-q"]
    with pytest.raises(SystemExit) as end:
        main([*common, "--overlap", "auto", "--scale", "1"])
    assert not end.value.code, capsys.readouterr().err
    with rasterio.open(out) as dataset:
        assert json.loads(dataset.tags()["GEOSEG_CHIPS"])["overlap"] == 6 + BLEND
    with pytest.raises(SystemExit) as end:
        main([*common, "--overlap", "some"])
    assert end.value.code == 2 and "give a number of px, or auto" in capsys.readouterr().err
