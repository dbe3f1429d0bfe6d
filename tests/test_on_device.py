"""A device with a memory of its own, played by the CPU: what goes there, what comes back, when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt
from torch.overrides import TorchFunctionMode

import geoseg
from geoseg.errors import ProbabilitiesError
from geoseg.networks import load_network
from geoseg.prediction.on_device import fill_nearest
from geoseg.runtimes.multi_device import MultiDevice
from geoseg.runtimes.on_torch import TorchRuntime
from geoseg.runtimes.transfers import Transfers
from geoseg.scene.radiometry import Radiometry
from tests.helpers import make_raster, tiny_model

pytestmark = pytest.mark.extra("torch")

BANDS = ("red", "nir")
CLASSES = ("water", "trees", "crops")


class FakeDevice(TorchRuntime):
    """A CPU that counts what is copied to it and from it, and by which thread."""

    def __init__(self, model: Path) -> None:
        files = geoseg.load_model(model)
        n = len(files.card.bands)
        radiometry = Radiometry((1.0,) * n, (0.0,) * n, "for a test")
        super().__init__(load_network(files), files.card, radiometry, torch.device("cpu"))
        self.on_device = True
        self.uploads: list[str] = []
        self.downloads: list[str] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.sizes: list[int] = []

    def upload(self, arrays: Sequence[NDArray[Any]]) -> Callable[[], list[Any]]:
        self.uploads.append(threading.current_thread().name)
        self.sizes.append(sum(array.nbytes for array in arrays))
        return super().upload(arrays)

    def asarray(self, array: NDArray[np.float32]) -> Any:
        self.uploads.append("what all strips need")
        return super().asarray(array)

    def _taken(self, pixels: Any) -> torch.Tensor:
        assert isinstance(pixels, torch.Tensor), "chips are cut on the device"
        self.shapes.add(tuple(pixels.shape))
        return super()._taken(pixels)

    def download(self, tensors: Sequence[Any]) -> Callable[[], list[NDArray[Any]]]:
        home = super().download(tensors)

        def arrays() -> list[NDArray[Any]]:
            self.downloads.append(threading.current_thread().name)
            return home()

        return arrays

    def to_numpy(self, array: Any) -> NDArray[np.float32]:
        if isinstance(array, torch.Tensor):
            self.downloads.append("waited for")
        return super().to_numpy(array)


class Waits(TorchFunctionMode):
    """Notes whatever makes a program wait for a GPU, in the thread that enters it."""

    #: Of tensors: these look at numbers, or make shapes of them.
    WAIT = ("item", "cpu", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        masks = name == "__getitem__" and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for i in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )
        if name in self.WAIT or masks or (name == "where" and len(args) == 1):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", BANDS, CLASSES)


def scene_of(path: Path, height: int, width: int, **options: Any) -> Path:
    """Numbers with holes: single pixels, a rectangle, and a whole block of rows."""
    random = np.random.default_rng(1)
    values = random.integers(1, 400, (2, height, width)).astype(np.uint16)
    values[:, random.random((height, width)) < 0.01] = 0
    values[:, height // 3 : height // 2, width // 3 : width // 2] = 0
    return make_raster(path, values, descriptions=BANDS, nodata=0, **options)


def arrays(folder: Path) -> dict[str, NDArray[Any]]:
    found = {}
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as dataset:
            found[path.name] = dataset.read()
    return found


def predict(
    scene: Path, folder: Path, model: Path, runtime: Any, **options: Any
) -> dict[str, NDArray[Any]]:
    folder.mkdir()
    geoseg.predict(
        scene,
        folder / "map.tif",
        model=model,
        runtime=runtime,
        probs=folder / "probs.tif",
        confidence=folder / "confidence.tif",
        no_vector=True,
        **options,
    )
    return arrays(folder)


@pytest.mark.parametrize("columns", [60, 300])
def test_a_row_of_chips_goes_there_once_and_a_strip_comes_back_once(
    tmp_path: Path, model: Path, columns: int
) -> None:
    """Whatever the number of chips, and nothing is waited for where it is computed."""
    scene = scene_of(tmp_path / "scene.tif", 150, columns)
    device = FakeDevice(model)
    with Waits() as waits:
        predict(scene, tmp_path / "out", model, device, size=32, overlap=8, batch_size=4)
    # The scene begins at row -500000, and chips at multiples of 24.
    strips = len(range(-(-500_000 % 24), 150 - 32, 24)) + 1
    for_all = device.uploads.count("what all strips need")
    there = [thread for thread in device.uploads if thread != "what all strips need"]
    assert there == ["geoseg-read"] * strips
    assert for_all == 3  # weights along both axes, class ids
    assert [name.rstrip("_0123456789") for name in device.downloads] == ["geoseg-sink"] * strips
    assert waits.found == []
    assert device.shapes == {(4, 2, 32, 32)}


def test_a_wait_would_be_seen() -> None:
    one = torch.ones(3)
    with Waits() as waits:
        bool(one.sum() > 2)
        one.tolist()
        one[one > 0].sum().item()
    assert waits.found == ["__bool__", "tolist", "__getitem__", "item"]


@pytest.mark.parametrize(
    "options",
    [
        {"probs_dtype": "float32"},
        {"size": 32, "overlap": 8, "batch_size": 3},
        {"size": 32, "overlap": 8, "min_confidence": 0.4, "probs_dtype": "float32"},
        {"size": 48, "overlap": 20, "probs_dtype": "float32", "taper": "gaussian"},
        {"size": 32, "overlap": 8, "crf": True, "probs_dtype": "float32"},
    ],
)
def test_the_map_is_that_of_a_cpu(tmp_path: Path, model: Path, options: dict[str, Any]) -> None:
    scene = scene_of(tmp_path / "scene.tif", 90, 130)
    plain = FakeDevice(model)
    plain.on_device = False
    plain._taken = lambda pixels: torch.from_numpy(pixels)  # type: ignore[method-assign]
    cpu = predict(scene, tmp_path / "cpu", model, plain, **options)
    device = predict(scene, tmp_path / "device", model, FakeDevice(model), **options)
    two: Any = MultiDevice([FakeDevice(model), FakeDevice(model)])
    both = predict(scene, tmp_path / "both", model, two, **options)
    assert len(cpu) == 3
    for name, values in cpu.items():
        assert (values == 255).any() or np.isnan(values).any()  # holes
        if options.get("crf"):  # sums over a lattice depend on how many chips are in a batch
            np.testing.assert_allclose(device[name], values, atol=1e-5)
        else:
            np.testing.assert_array_equal(device[name], values)
        np.testing.assert_array_equal(both[name], device[name])


def test_a_coarser_output_grid_takes_one_transfer_a_strip_too(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "coarse", BANDS, CLASSES, gsd=10.0, gsd_range=(8.0, 12.0))
    fine = Affine(4, 0, 500000, 0, -4, 5000000)
    scene = scene_of(tmp_path / "scene.tif", 150, 200, transform=fine)
    plain, device = FakeDevice(model), FakeDevice(model)
    plain.on_device = False
    plain._taken = lambda pixels: torch.from_numpy(pixels)  # type: ignore[method-assign]
    options = {"size": 32, "overlap": 8}
    cpu = predict(scene, tmp_path / "cpu", model, plain, **options)
    found = predict(scene, tmp_path / "device", model, device, **options)
    for name, values in cpu.items():
        np.testing.assert_array_equal(found[name], values)
    strips = len(range(0, 60 - 32, 24)) + 1
    assert device.uploads.count("geoseg-read") == strips == len(device.downloads)


def test_a_row_without_pixels_of_its_own_is_one_pixel(tmp_path: Path, model: Path) -> None:
    """Rows of which a sparse file holds no block: nothing is sent, or one pixel."""
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "height": 256, "width": 64, "count": 2, "dtype": "uint16"}
    grid = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5000000)}
    for nodata in (None, 0):
        with rasterio.open(
            path,
            "w",
            tiled=True,
            blockxsize=64,
            blockysize=64,
            sparse_ok=True,
            nodata=nodata,
            **profile,
            **grid,
        ) as dataset:
            dataset.descriptions = BANDS
            ones = np.full((2, 64, 64), 7, np.uint16)
            dataset.write(ones, window=Window(0, 0, 64, 64))
        plain, device = FakeDevice(model), FakeDevice(model)
        plain.on_device = False
        plain._taken = lambda pixels: torch.from_numpy(pixels)  # type: ignore[method-assign]
        options = {"size": 32, "overlap": 8, "overwrite": True, "restart": True}
        cpu = predict(
            scene=path, folder=tmp_path / f"cpu{nodata}", model=model, runtime=plain, **options
        )
        found = predict(path, tmp_path / f"device{nodata}", model, device, **options)
        for name, values in cpu.items():
            np.testing.assert_array_equal(found[name], values)
        assert len(device.sizes) == len([n for n in device.uploads if n == "geoseg-read"])
        assert (min(device.sizes) < 100) == (nodata is None)


def test_not_a_number_ends_the_run(tmp_path: Path, model: Path) -> None:
    scene = scene_of(tmp_path / "scene.tif", 90, 130)
    device = FakeDevice(model)
    forward = device._forward
    device._forward = lambda raw: forward(raw) * torch.nan  # type: ignore[method-assign]
    with pytest.raises(ProbabilitiesError, match="NaN or infinite"):
        predict(scene, tmp_path / "out", model, device, size=32, overlap=8)
    assert not list((tmp_path / "out").glob("*.tif"))


@pytest.mark.parametrize("seed", range(6))
def test_what_was_not_measured_is_filled_from_a_nearest_pixel(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.prediction.on_device.DISTANCES", 2000)  # some rows at a time
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2)
    valid = random.random((height, width)) < random.choice([0.02, 0.3, 0.9])
    valid[random.integers(height), random.integers(width)] = True
    places = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    filled = fill_nearest(torch.from_numpy(places), torch.from_numpy(valid))[0].numpy().astype(int)
    rows, cols = np.divmod(filled, width)
    assert valid[rows, cols].all()
    down, right = np.mgrid[:height, :width]
    distance = np.hypot(rows - down, cols - right)
    np.testing.assert_allclose(distance, distance_transform_edt(~valid), atol=1e-4)


@pytest.mark.parametrize("dtypes", [("uint8",), ("uint16", "bool"), ("float64", "uint8", "int64")])
def test_arrays_come_through_a_transfer_as_they_are(dtypes: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    given = [random.integers(0, 2, (3, 5, i + 1)).astype(d) for i, d in enumerate(dtypes)]
    transfers = Transfers(torch.device("cpu"))
    there = transfers.upload([array[..., ::-1] for array in given])()
    for array, tensor in zip(given, there, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array[..., ::-1])
    widest = sorted(there, key=lambda tensor: -tensor.dtype.itemsize)
    for tensor, array in zip(widest, transfers.download(widest)(), strict=True):
        np.testing.assert_array_equal(array, tensor.numpy())


@pytest.mark.parametrize("several", [False, True])
def test_turned_chips_of_two_shapes_share_a_batch(model: Path, several: bool) -> None:
    """Quarter turns of chips that are not square."""
    random = np.random.default_rng(0)
    shapes = [(2, 5, 9), (2, 9, 5), (2, 5, 9), (2, 9, 5), (2, 5, 9)]
    chips = [random.integers(0, 99, shape).astype(np.uint16) for shape in shapes]
    plain = FakeDevice(model)
    plain.on_device = False
    plain._taken = lambda pixels: torch.from_numpy(pixels)  # type: ignore[method-assign]
    expected = [probs for _, probs in plain.run(enumerate(chips))]
    tensors = [torch.from_numpy(chip) for chip in chips]
    made: Any = FakeDevice(model)
    made = MultiDevice([made, FakeDevice(model)]) if several else made
    items, found = zip(*made.run(enumerate(tensors), 4), strict=True)
    assert items == tuple(range(5))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-6)
