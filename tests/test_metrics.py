"""geoseg.evaluation.metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoseg.errors import EvaluationError
from geoseg.evaluation.metrics import (
    CLASS_MEASURES,
    MEASURES,
    confusion,
    f1,
    frequency_weighted_iou,
    iou,
    kappa,
    mean_iou,
    pixel_accuracy,
    precision,
    recall,
)

# Class 1 is never called, class 2 is not in truth, class 3 is in neither.
COUNTS = np.array([[6, 0, 2, 0], [3, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def random_maps(seed: int = 0, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of 3 images, two thirds alike; some of the truth is unknown."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=(3, 20, 30), dtype=np.uint8)
    wrong = rng.integers(classes, size=truth.shape, dtype=np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.67, truth, wrong)
    truth[:, :3] = 255
    return truth, predicted


# Counting


def test_rows_are_truth_and_columns_prediction() -> None:
    counts = confusion(np.array([[0, 0], [1, 2]]), np.array([[0, 1], [1, 2]]), 4)
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[0, 1] = expected[1, 1] = expected[2, 2] = 1
    np.testing.assert_array_equal(counts, expected)
    assert counts.dtype == np.int64


def test_ids_are_counted_in_the_order_of_the_table() -> None:
    truth, predicted = np.array([7, 0, 300], np.uint16), np.array([7, 7, 0], np.uint16)
    np.testing.assert_array_equal(
        confusion(truth, predicted, (300, 7, 0)), [[0, 0, 1], [0, 1, 0], [0, 1, 0]]
    )


def test_what_is_ignored_is_left_out_whatever_was_predicted() -> None:
    truth, predicted = np.array([0, 255, 255, 1], np.uint8), np.array([0, 1, 99, 1], np.uint8)
    np.testing.assert_array_equal(confusion(truth, predicted, 2), [[1, 0], [0, 1]])
    signed = np.array([0, -1, -1, 1], np.int8)
    np.testing.assert_array_equal(
        confusion(signed, predicted, 2, ignore_index=-1), [[1, 0], [0, 1]]
    )
    many = confusion(np.array([255]), np.array([255]), 256, ignore_index=None)
    assert many.sum() == many[255, 255] == 1


@pytest.mark.parametrize(
    ("truth", "predicted", "classes", "message"),
    [
        ([0, 4], [0, 1], [0, 1], r"truth holds \[4\] in 1 pixels; the classes are \[0, 1\]"),
        ([0, 1], [4, 4], [0, 1], r"prediction holds \[4\] in 2 pixels"),
        ([0, 1], [255, 1], [0, 1], r"prediction holds \[255\]"),
        ([-1, 1], [0, 1], [0, 1], r"truth holds \[-1\]"),
        ([3, 1], [1, 1], [1, 5], r"truth holds \[3\]"),
        ([2**40, 1], [1, 1], 2, r"truth holds \[1099511627776\]"),
        ([0.0, 1.0], [0, 1], 2, "truth is of float64; class ids are integers"),
        ([0, 1], [True, False], 2, "prediction is of bool"),
        ([0, 1], [0, 1, 1], 2, r"shape \(2,\) and the prediction \(3,\)"),
        ([0, 1], [0, 1], [1, 1], "each once"),
        ([0, 1], [0, 1], [-1, 1], "0 to 65535"),
        ([0, 1], [0, 1], 0, r"the classes are \[\]"),
    ],
)
def test_nothing_is_dropped_in_silence(
    truth: Any, predicted: Any, classes: Any, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        confusion(np.array(truth), np.array(predicted), classes)


def test_counts_go_beyond_32_bits() -> None:
    part = confusion(np.zeros(1000, np.uint8), np.tile([0, 0, 0, 1], 250), 2)
    counts = np.zeros((2, 2), np.int64)
    counts += part * 10**15
    counts += part
    assert counts.tolist() == [[750 * (10**15 + 1), 250 * (10**15 + 1)], [0, 0]]
    assert pixel_accuracy(counts) == 0.75
    large = random_counts() * 2**40
    for measure in MEASURES.values():
        assert measure(large) == pytest.approx(measure(random_counts()), rel=1e-12)


def random_counts() -> np.ndarray:
    return confusion(*random_maps(), 5)


# Numbers


def test_golden(shared: Path) -> None:
    path = shared / "reference" / "seed-models.json"
    if not path.is_file():
        pytest.skip("needs ../shared/reference/seed-models.json")
    golden = json.loads(path.read_text())["losses_metrics_golden"]["metrics"]
    matrix = np.array(golden["confusion_rows_true_cols_pred"])
    truth, predicted = (i.ravel().repeat(matrix.ravel()) for i in np.indices(matrix.shape))
    counts = confusion(truth, predicted, len(matrix))
    np.testing.assert_array_equal(counts, matrix)
    np.testing.assert_allclose(iou(counts), golden["iou"], rtol=1e-14)
    for name, measure in {
        "miou": mean_iou,
        "pixel_acc": pixel_accuracy,
        "mean_class_acc": MEASURES["mean_class_accuracy"],
        "fw_iou": frequency_weighted_iou,
        "kappa": kappa,
        "dice_f1_macro": MEASURES["mean_f1"],
    }.items():
        assert measure(counts) == pytest.approx(golden[name], rel=1e-13), name


def test_each_measure_by_hand() -> None:
    nan = np.nan
    np.testing.assert_allclose(iou(COUNTS), [6 / 11, 0, 0, nan])
    np.testing.assert_allclose(precision(COUNTS), [6 / 9, nan, 0, nan])
    np.testing.assert_allclose(recall(COUNTS), [6 / 8, 0, nan, nan])
    np.testing.assert_allclose(f1(COUNTS), [12 / 17, 0, 0, nan])
    assert mean_iou(COUNTS) == pytest.approx(6 / 11 / 3)
    assert MEASURES["mean_f1"](COUNTS) == pytest.approx(12 / 17 / 3)
    assert MEASURES["mean_class_accuracy"](COUNTS) == pytest.approx(6 / 8 / 2)
    assert pixel_accuracy(COUNTS) == 0.5
    assert frequency_weighted_iou(COUNTS) == pytest.approx(8 / 12 * 6 / 11)
    assert kappa(COUNTS) == pytest.approx((0.5 - 0.5) / (1 - 0.5))


@pytest.mark.filterwarnings("error")
def test_what_is_undefined_is_nan_without_a_warning() -> None:
    nothing = np.zeros((3, 3), np.int64)
    for measure in MEASURES.values():
        assert np.isnan(measure(nothing))
    for per_class in CLASS_MEASURES.values():
        assert np.isnan(per_class(nothing)).all() and per_class(nothing).shape == (3,)
    one_class = np.diag([9, 0])
    assert mean_iou(one_class) == pixel_accuracy(one_class) == 1.0
    assert MEASURES["mean_f1"](one_class) == 1.0
    assert np.isnan(kappa(one_class))  # chance alone agrees
    assert kappa(np.array([[0, 9], [0, 0]])) == 0.0


def test_measures_are_those_of_torchmetrics() -> None:
    from torchmetrics import classification

    truth, predicted = random_maps(classes=5)
    predicted[predicted == 4] = 3  # one class is never called
    counts = confusion(truth, predicted, 6)  # one is nowhere

    def theirs(name: str, **options: Any) -> np.ndarray:
        metric = getattr(classification, name)(6, ignore_index=255, **options)
        for t, p in zip(truth, predicted, strict=True):
            metric.update(torch.from_numpy(p), torch.from_numpy(t).long())
        value: np.ndarray = metric.compute().numpy()
        return value

    np.testing.assert_array_equal(counts, theirs("MulticlassConfusionMatrix"))
    for ours, expected in (
        (mean_iou, theirs("MulticlassJaccardIndex")),
        (pixel_accuracy, theirs("MulticlassAccuracy", average="micro")),
        (MEASURES["mean_class_accuracy"], theirs("MulticlassAccuracy", average="macro")),
        (kappa, theirs("MulticlassCohenKappa")),
        (MEASURES["mean_f1"], theirs("MulticlassF1Score")),
    ):
        assert ours(counts) == pytest.approx(float(expected), rel=1e-5), ours
    # They give 0 where we say NaN.
    for per_class, name in (
        (iou, "JaccardIndex"),
        (precision, "Precision"),
        (recall, "Recall"),
        (f1, "F1Score"),
    ):
        expected = theirs(f"Multiclass{name}", average="none")
        np.testing.assert_allclose(np.nan_to_num(per_class(counts)), expected, rtol=1e-5)


def test_the_mean_iou_is_not_the_mean_over_images() -> None:
    """A class fills one image, and in another its three pixels are missed."""
    truth, predicted = np.zeros((2, 100), int), np.zeros((2, 100), int)
    truth[0], predicted[0] = 1, 1
    truth[1, :3] = 1
    counts = confusion(truth, predicted, 2)
    assert iou(counts).tolist() == [97 / 100, 100 / 103]
    images = [mean_iou(confusion(t, p, 2)) for t, p in zip(truth, predicted, strict=True)]
    assert images == [1.0, pytest.approx((0.97 + 0) / 2)]
    assert mean_iou(counts) == pytest.approx((97 / 100 + 100 / 103) / 2)
    assert abs(mean_iou(counts) - np.mean(images)) > 0.2


# Laws

maps = st.tuples(st.integers(1, 6), st.integers(0, 60)).flatmap(
    lambda shape: st.tuples(
        st.just(shape[0]),
        hnp.arrays(np.uint8, shape[1], elements=st.integers(0, shape[0] - 1) | st.just(255)),
        hnp.arrays(np.uint8, shape[1], elements=st.integers(0, shape[0] - 1)),
    )
)


@given(maps, st.integers(0, 60))
def test_parts_add_up_to_the_whole(example: Any, cut: int) -> None:
    classes, truth, predicted = example
    whole = confusion(truth, predicted, classes)
    halves = confusion(truth[:cut], predicted[:cut], classes) + confusion(
        truth[cut:], predicted[cut:], classes
    )
    np.testing.assert_array_equal(halves, whole)
    assert whole.sum() == (truth != 255).sum()


@given(maps)
def test_every_pixel_is_counted_at_its_place(example: Any) -> None:
    classes, truth, predicted = example
    counts = np.zeros((classes, classes), int)
    for t, p in zip(truth, predicted, strict=True):
        if t != 255:
            counts[t, p] += 1
    np.testing.assert_array_equal(confusion(truth, predicted, classes), counts)


@given(maps)
def test_a_map_agrees_with_itself(example: Any) -> None:
    classes, _, predicted = example
    counts = confusion(predicted, predicted, classes)
    different = len(np.unique(predicted))
    for name, measure in MEASURES.items():
        undefined = different == 0 or (name == "kappa" and different == 1)
        assert np.isnan(measure(counts)) if undefined else measure(counts) == pytest.approx(1.0)
    for per_class in CLASS_MEASURES.values():
        values = per_class(counts)
        assert (values[np.unique(predicted)] == 1.0).all()
        assert np.isnan(values).sum() == classes - different


@given(maps, st.randoms(use_true_random=False))
def test_the_order_of_the_classes_changes_nothing(example: Any, random: Any) -> None:
    classes, truth, predicted = example
    order = list(range(classes))
    random.shuffle(order)
    counts, shuffled = (confusion(truth, predicted, ids) for ids in (classes, order))
    np.testing.assert_array_equal(shuffled, counts[np.ix_(order, order)])
    for measure in MEASURES.values():
        assert measure(shuffled) == pytest.approx(measure(counts), nan_ok=True)
    for per_class in CLASS_MEASURES.values():
        np.testing.assert_array_equal(per_class(shuffled), per_class(counts)[order])


@given(maps)
def test_measures_stay_in_their_range(example: Any) -> None:
    classes, truth, predicted = example
    counts = confusion(truth, predicted, classes)
    for name, measure in MEASURES.items():
        value = measure(counts)
        assert np.isnan(value) or (-1 if name == "kappa" else 0) <= value <= 1 + 1e-12
    precise, found, both = precision(counts), recall(counts), f1(counts)
    defined = ~np.isnan(precise) & ~np.isnan(found) & (precise + found > 0)
    harmonic = 2 * precise[defined] * found[defined] / (precise[defined] + found[defined])
    np.testing.assert_allclose(both[defined], harmonic)
    np.testing.assert_allclose(iou(counts), both / (2 - both))


def test_torch_is_not_needed() -> None:
    import subprocess
    import sys

    code = "import sys, geoseg.evaluation.metrics; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
