"""The dense CRF: numbers of other implementations, and laws that need none."""

import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.errors import ModelError
from geoseg.networks.crf import (
    EXACT_PIXELS,
    FILTERS,
    DenseCRF,
    ExactFilter,
    PermutohedralFilter,
    filters,
    permutohedral,
)


@pytest.fixture(autouse=True)
def one_thread():
    """The arrays are small, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def h32(n, seed):
    """Numbers of -1 to 1 that look random, by the definition beside the golden ones."""
    x = ((np.arange(n, dtype=np.uint64) + seed) * 0x9E3779B1) & 0xFFFFFFFF
    x ^= x >> 16
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> 13
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> 16
    return torch.from_numpy(x / 2**32 * 2 - 1)


def golden_input():
    image = (h32(3 * 24 * 32, 11) * 20 + 128).view(1, 3, 24, 32)
    image[..., 16:] += 60
    logits = (2 * h32(5 * 24 * 32, 13)).view(1, 5, 24, 32)
    logits[:, 0, :, :16] += 1
    logits[:, 1, :, 16:] += 1
    return logits, image


CASES = {
    "alpha160_beta3_gamma3": (160, 3, 3),
    "alpha80_beta13_gamma3": (80, 13, 3),
    "alpha20_beta30_gamma3": (20, 30, 3),
}


def golden_crf(case, filter, **options):
    alpha, beta, gamma = CASES[case]
    thetas = {"theta_alpha": alpha, "theta_beta": beta, "theta_gamma": gamma}
    return DenseCRF(5, filter=filter, **thetas, **options).eval()


@pytest.fixture(params=list(CASES))
def golden(request, shared):
    path = shared / "reference" / "seed-models.json"
    if not path.is_file():
        pytest.skip("needs the reference numbers in ../shared, which are not in the repository")
    numbers = json.loads(path.read_text(encoding="utf-8"))["crf_meanfield_golden"]["cases"]
    return request.param, numbers[request.param]


@torch.inference_mode()
def test_exact_is_the_reference(golden):
    case, numbers = golden
    for key, iterations in (("golden", 10), ("golden_1iter", 1)):
        out = golden_crf(case, "exact", iterations=iterations)(*golden_input())[0]
        for point in numbers[key]["points"]:
            assert out[tuple(point["chw"])].item() == pytest.approx(point["value"], abs=1e-8)
        assert out.mean().item() == pytest.approx(numbers[key]["mean"], abs=1e-8)
    out = golden_crf(case, "exact")(*golden_input())[0]
    assert out.std(unbiased=False).item() == pytest.approx(numbers["golden"]["std"], abs=1e-2)
    found = out.argmax(dim=0).flatten().bincount(minlength=5).tolist()
    assert found == numbers["golden"]["argmax_hist"]


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_permutohedral_is_as_near_as_other_implementations(golden, dtype):
    """Their errors to the last digits, on the two cases it is made for and on the hard one."""
    case, numbers = golden
    logits, image = golden_input()
    exact = golden_crf(case, "exact")(logits, image)
    out = golden_crf(case, "permutohedral")(logits.to(dtype), image.to(dtype))
    assert out.dtype == dtype
    error = (out.double().softmax(dim=1) - exact.softmax(dim=1)).abs()
    theirs = numbers["permuto_torch"]
    assert error.max().item() == pytest.approx(theirs["max_abs_dq"], rel=1e-3)
    assert error.mean().item() == pytest.approx(theirs["mean_abs_dq"], rel=1e-3)
    agree = (out.argmax(dim=1) == exact.argmax(dim=1)).double().mean().item()
    assert agree == pytest.approx(theirs["argmax_agree"], abs=1e-9)


@torch.inference_mode()
def test_window_of_radius_5_is_the_other_implementations(golden):
    case, numbers = golden
    logits, image = golden_input()
    exact = golden_crf(case, "exact")(logits, image)
    out = golden_crf(case, "window", radius=5)(logits, image)
    error = (out.softmax(dim=1) - exact.softmax(dim=1)).abs()
    assert error.mean().item() == pytest.approx(numbers["window_r5"]["mean_abs_dq"], rel=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (1, 12), (1, 1)])
def test_window_that_holds_the_image_is_exact(shape):
    logits, image = torch.randn(1, 3, *shape).double(), torch.rand(1, 2, *shape).double() * 255
    options = {"theta_alpha": 30.0, "theta_beta": 40.0, "iterations": 4}
    exact = DenseCRF(3, filter="exact", **options).eval()(logits, image)
    window = DenseCRF(3, filter="window", radius=max(shape) - 1, **options).eval()(logits, image)
    torch.testing.assert_close(window, exact, atol=1e-12, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
def test_blocks_join(name, monkeypatch):
    """What is cut into blocks of rows to be quick gives the same as in one."""
    logits, image = torch.randn(1, 2, 13, 11).double(), torch.rand(1, 1, 13, 11).double() * 99
    crf = DenseCRF(2, filter=name, theta_beta=30.0, radius=3).eval()
    whole = crf(logits, image)
    monkeypatch.setattr(filters, "_BLOCK", 160)
    torch.testing.assert_close(crf(logits, image), whole, atol=1e-12, rtol=0)


# --- laws that hold for every filter ---------------------------------------------------------


def random_input(n=1, classes=4, bands=3, height=11, width=13, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, height, width, generator=generator, dtype=dtype) * 2
    image = torch.rand(n, bands, height, width, generator=generator, dtype=dtype) * 255
    return logits, image


def soft_crf(name, classes=4, **options):
    """Wide kernels, so that every pixel has company, whatever the filter."""
    defaults = {"theta_alpha": 20.0, "theta_beta": 60.0, "radius": 3, "iterations": 2}
    return DenseCRF(classes, filter=name, **{**defaults, **options})


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
def test_without_weights_or_iterations_logits_stay(name):
    logits, image = random_input()
    for options in ({"spatial_weight": 0.0, "bilateral_weight": 0.0}, {"iterations": 0}):
        torch.testing.assert_close(soft_crf(name, **options)(logits, image), logits)


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
def test_classes_may_come_in_any_order(name):
    logits, image = random_input()
    order = [2, 0, 3, 1]
    crf = soft_crf(name)
    torch.testing.assert_close(crf(logits[:, order], image), crf(logits, image)[:, order])


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
def test_a_batch_is_its_images_one_by_one(name):
    logits, image = random_input(n=3)
    crf = soft_crf(name)
    alone = [crf(logits[i : i + 1], image[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(crf(logits, image), torch.cat(alone), atol=0, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("bands", [1, 3, 13])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (6, 7)])
def test_any_shape_and_any_bands(name, bands, shape):
    logits, image = random_input(bands=bands, height=shape[0], width=shape[1], dtype=torch.float32)
    out = soft_crf(name)(logits, image)
    assert out.shape == logits.shape and torch.isfinite(out).all()
    if shape == (1, 1):
        # A pixel alone hears only itself: x = U + (3 + 5) softmax(x), twice.
        x = logits
        for _ in range(2):
            x = logits + 8 * x.softmax(dim=1)
        torch.testing.assert_close(out, x)


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("value", [0.0, 255.0, -1e4])
def test_in_a_constant_image_all_pixels_hear_the_same(name, value):
    """With kernels far wider than the image, the message is the image's mean everywhere."""
    logits, image = random_input()
    image = torch.full_like(image, value)
    wide = {"theta_alpha": 1e4, "theta_gamma": 1e4, "radius": 13, "iterations": 1}
    out = soft_crf(name, **wide)(logits, image)
    mean = logits.softmax(dim=1).mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(out, logits + 8 * mean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", FILTERS)
def test_gradients_are_those_of_finite_differences(name):
    logits, image = random_input(classes=3, height=4, width=5)
    crf = soft_crf(name, classes=3, radius=2).double().train()
    for parameter in crf.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    names = [n for n, _ in crf.named_parameters()]

    def function(logits, *values):
        return torch.func.functional_call(
            crf, dict(zip(names, values, strict=True)), (logits, image)
        )

    inputs = [logits.requires_grad_(), *crf.parameters()]
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("name", FILTERS)
def test_transposed_is_the_transpose(name):
    features = torch.rand(3, 5, 4, dtype=torch.float64) * 3
    linear = FILTERS[name](features, 2)
    identity = torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(linear(identity).T, linear(identity, transposed=True))


def test_the_blurs_do_not_commute():
    """Or else the test before would say nothing about their order."""
    features = torch.rand(3, 8, 8, dtype=torch.float64) * 4
    matrix = PermutohedralFilter(features, 0)(torch.eye(64, dtype=torch.float64))
    assert (matrix - matrix.T).abs().max() > 1e-3


@pytest.mark.parametrize("name", FILTERS)
def test_a_step_lowers_the_loss(name):
    truth = torch.zeros(1, 12, 12, dtype=torch.int64)
    truth[..., 6:] = 1
    logits, _ = random_input(classes=2, height=12, width=12)
    logits[:, 1] += truth * 2 - 1
    image = truth[:, None].double() * 100
    crf = soft_crf(name, classes=2, spatial_weight=0.1, bilateral_weight=0.1).double().train()
    optimizer = torch.optim.SGD(crf.parameters(), lr=1.0)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(crf(logits, image), truth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.99 * losses[0]


@pytest.mark.parametrize("name", FILTERS)
def test_features_get_no_gradient(name):
    logits, image = random_input()
    image.requires_grad_()
    soft_crf(name)(logits.requires_grad_(), image).sum().backward()
    assert logits.grad is not None and image.grad is None


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_half_logits_are_computed_in_float32(name, dtype):
    logits, image = random_input(dtype=torch.float32)
    crf = soft_crf(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(crf(logits, image), crf(logits.float(), image), atol=0, rtol=0)
    half = crf(logits.to(dtype), image)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, crf(logits, image), atol=0.1, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", FILTERS)
def test_what_was_not_measured_has_no_say(name):
    logits, image = random_input()
    valid = torch.ones(1, 11, 13, dtype=torch.bool)
    valid[:, 4:, :5] = False
    crf = soft_crf(name)
    out = crf(logits, image, valid)
    others = torch.where(valid[:, None], logits, -logits * 50)
    again = crf(others, image, valid)
    keep = valid[:, None].expand_as(out)
    torch.testing.assert_close(again[keep], out[keep], atol=0, rtol=0)
    assert not torch.allclose(crf(others, image)[keep], out[keep])
    torch.testing.assert_close(crf(logits, image, torch.ones_like(valid)), crf(logits, image))
    lost = torch.where(valid[:, None], logits, torch.nan)
    torch.testing.assert_close(crf(lost, image, valid)[keep], out[keep], atol=0, rtol=0)
    # Where nothing counts, nothing is heard.
    torch.testing.assert_close(crf(logits, image, torch.zeros_like(valid)), logits)


def test_training_and_evaluation_have_their_own_iterations():
    logits, image = random_input()
    crf = soft_crf("exact", iterations=(1, 3))
    assert crf.iterations == (1, 3)
    short, long = (soft_crf("exact", iterations=n)(logits, image) for n in (1, 3))
    torch.testing.assert_close(crf.train()(logits, image), short)
    torch.testing.assert_close(crf.eval()(logits, image), long)


def test_parameters_are_three_matrices():
    crf = DenseCRF(7, spatial_weight=2.0, bilateral_weight=4.0)
    assert sum(p.numel() for p in crf.parameters()) == 3 * 49
    eye = torch.eye(7)
    for name, factor in (("spatial", 2), ("bilateral", 4), ("compatibility", 1)):
        assert torch.equal(crf.get_parameter(name), factor * eye)


# --- the lattice -----------------------------------------------------------------------------


def test_hashed_codes_give_the_same_lattice(monkeypatch):
    """Of so many bands that 63 bits can't number the vertices, the vertices are hashed."""
    features = torch.rand(5, 9, 8, dtype=torch.float64) * 6
    values = torch.rand(72, 3, dtype=torch.float64)
    numbered = PermutohedralFilter(features, 0)(values)
    monkeypatch.setattr(permutohedral, "_CODE_LIMIT", 0)
    torch.testing.assert_close(PermutohedralFilter(features, 0)(values), numbered)


@torch.inference_mode()
def test_thirteen_bands_need_hashed_codes_and_are_filtered():
    features = torch.rand(15, 6, 6, dtype=torch.float64) * 60
    features[:, :, 3:] = features[:, :, :3]  # each pixel has one that is like it
    ranges = [99] * 15
    assert permutohedral._multipliers(ranges)[:3] != [16, 16 * 99, 16 * 99**2]
    assert permutohedral._multipliers([5, 7]) == [3, 15, 0]
    same = PermutohedralFilter(features, 0)(torch.eye(36, dtype=torch.float64)).view(6, 6, 6, 6)
    exact = ExactFilter(features, 0)(torch.eye(36, dtype=torch.float64)).view(6, 6, 6, 6)
    for matrix in (same, exact):
        for row, col in ((0, 0), (3, 1), (5, 2)):
            of = matrix[row, col]
            assert of[row, col] > 0
            torch.testing.assert_close(of[row, col + 3], of[row, col])
    # And no one else's: the rest are far apart.
    assert (same > 1e-9).sum() == (exact > 1e-9).sum() == 72


@torch.inference_mode()
def test_images_cut_out_of_a_larger_one_share_its_lattice():
    """Far from the cut, a chip agrees with the whole much better if it knows where it lies."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 70, 74, generator=generator)
    image = torch.randn(1, 3, 70, 74, generator=generator) * 8 + 100
    crf = DenseCRF(3, iterations=2, theta_alpha=4.0, theta_beta=13.0, theta_gamma=2.0).eval()
    whole = crf(logits, image).softmax(dim=1)
    top, left, side, margin = 11, 17, 50, 18
    cut = (..., slice(top, top + side), slice(left, left + side))
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    errors = [
        (crf(logits[cut], image[cut], None, origins).softmax(dim=1) - whole[cut])[inner].abs().max()
        for origins in (None, [(top, left)])
    ]
    assert errors[1] < 0.1 * errors[0]
    # A chip far off is as exact as one nearby: thousands of periods do no harm.
    period = round(3 * 2.0 * 4.0 * 1000)  # rows, of both kernels
    near, far = (crf(logits, image, None, [(row, 0)]) for row in (0, period))
    torch.testing.assert_close(near, far, atol=1e-3, rtol=0)


# --- refusals and export ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filter": "gauss"}, "permutohedral"),
        ({"iterations": -1}, "at least 0"),
        ({"iterations": (5, 10, 2)}, "two for training"),
        ({"theta_beta": 0.0}, "theta_beta is 0.0"),
        ({"theta_alpha": float("nan")}, "above 0"),
        ({"radius": -1}, "radius"),
        ({"classes": 0}, "classes"),
    ],
)
def test_options_out_of_range_are_refused(options, match):
    with pytest.raises(ModelError, match=match):
        DenseCRF(**{"classes": 3, **options})


@pytest.mark.parametrize(
    ("logits", "image", "valid"),
    [
        ((1, 4, 5, 5), (1, 3, 5, 5), None),
        ((1, 3, 5, 5), (1, 3, 10, 10), None),
        ((2, 3, 5, 5), (1, 3, 5, 5), None),
        ((1, 3, 5, 5), (1, 0, 5, 5), None),
        ((3, 5, 5), (3, 5, 5), None),
        ((1, 3, 5, 5), (1, 3, 5, 5), (5, 5)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, image, valid):
    valid = None if valid is None else torch.ones(valid, dtype=torch.bool)
    with pytest.raises(ModelError, match="shape"):
        DenseCRF(3)(torch.zeros(logits), torch.zeros(image), valid)


def test_exact_refuses_large_images():
    side = int(EXACT_PIXELS**0.5)
    with pytest.raises(ModelError, match="permutohedral"):
        ExactFilter(torch.zeros(1, side, side + 1), 0)


@pytest.mark.parametrize("name", ["exact", "window"])
def test_exports_to_onnx_at_a_fixed_size(name, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logits, image = random_input(classes=3, height=6, width=7, dtype=torch.float32)
    crf = soft_crf(name, classes=3, radius=1, iterations=1).eval()
    path = tmp_path / "crf.onnx"
    torch.onnx.export(crf, (logits, image), dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    (out,) = session.run(None, dict(zip(names, (logits.numpy(), image.numpy()), strict=True)))
    np.testing.assert_allclose(out, crf(logits, image).detach().numpy(), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FILTERS)
def test_cuda_gives_the_cpus_numbers(name):
    logits, image = random_input()
    crf = soft_crf(name)
    expected = crf(logits, image)
    out = crf.cuda()(logits.cuda(), image.cuda())
    torch.testing.assert_close(out.cpu(), expected, atol=1e-6, rtol=0)
