"""Scenes, targets and chips for training.

A training scene is held in memory whole: its pixels as physical values, where they were measured,
and for each pixel the probabilities to learn, from a teacher network or from labels. Chips are cut
at random places and changed as another sensor, sky or gsd would change them; every chip depends
on its own random generator only, so that training can go on where it was stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from torch import Tensor
from torch.nn import functional as F

from geoseg.card import Normalization
from geoseg.errors import BandError, SceneError, TrainingError
from geoseg.sensors import band_code, band_name, detect_sensor

__all__ = [
    "Augmentation",
    "ChipSampler",
    "SceneConfig",
    "TrainingScene",
    "add_haze",
    "coarsen",
    "measure_normalization",
    "quiet",
    "read_pixels",
]

LOOKS = ("surface", "top-of-atmosphere")

#: Centre of each band in micrometres (Sentinel-2A; other sensors differ by some percent).
WAVELENGTH = {
    "coastal": 0.443,
    "blue": 0.492,
    "green": 0.560,
    "red": 0.665,
    "rededge1": 0.704,
    "rededge2": 0.741,
    "rededge3": 0.783,
    "nir": 0.833,
    "nir08": 0.865,
    "swir1": 1.614,
    "swir2": 2.202,
}


@dataclass(frozen=True)
class SceneConfig:
    """One scene of the recipe.

    Attributes:
        path: a raster file, or a folder of one-band files named by their band code.
        place: scenes of one place lie on the same side of the split.
        split: ``train`` or ``validation``.
        look: ``surface`` or ``top-of-atmosphere`` reflectance.
        scale: reflectance per number.
        offset: reflectance at number 0.
        bands: names in the file's order, for files that don't name their bands.
        labels: a raster of class ids on the scene's grid; it goes before the teacher.
        ignore_label: the id in ``labels`` that says nothing.
        answer: path of another scene on the same grid; the teacher is asked about that one.
        relabel: the whole scene is of this class, whatever the teacher says.
        teacher_haze: goes before the recipe's own (see :class:`geoseg.recipe.TrainConfig`).
        window: (row, col, height, width), px: the part of the scene to use; None is all of it.
        ignore: windows, px of the file, where the target is wrong or unknown.
    """

    path: Path
    place: str
    split: str = "train"
    look: str = "surface"
    scale: float = 1e-4
    offset: float = 0.0
    bands: tuple[str, ...] = ()
    labels: Path | None = None
    ignore_label: int = 255
    answer: Path | None = None
    relabel: str | None = None
    teacher_haze: tuple[float, ...] = ()
    window: tuple[int, int, int, int] | None = None
    ignore: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def name(self) -> str:
        """The file or folder name without suffix."""
        return self.path.stem


@dataclass(frozen=True)
class TrainingScene:
    """One scene with its targets, in memory.

    Attributes:
        config: where it came from.
        pixels: float32 (C, H, W), physical values.
        probs: float16 (K, H, W), what to learn.
        valid: bool (H, W), True where the pixel was measured and its target is known.
    """

    config: SceneConfig
    pixels: NDArray[np.float32]
    probs: NDArray[np.float16]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Augmentation:
    """How chips are changed; every number 0 (``gsd_max`` 1) leaves them as they are.

    Attributes:
        flips: whether to flip and turn by quarters.
        gain: standard deviation of the factor on all bands, and again on each band.
        haze: the most path radiance in blue, in reflectance, to add to surface reflectance; a
            third of it and less is added to top-of-atmosphere reflectance, or its own removed.
        noise: standard deviation of the noise added to each pixel, in reflectance.
        mix: share of the chips into which a rectangle of another chip is set (CutMix,
            https://arxiv.org/abs/1905.04899).
        gsd_max: the coarsest gsd as a multiple of the scene's; 3 turns 10 m into up to 30 m.
        gsd_share: share of the chips that are made coarser.
    """

    flips: bool = True
    gain: float = 0.0
    haze: float = 0.0
    noise: float = 0.0
    mix: float = 0.0
    gsd_max: float = 1.0
    gsd_share: float = 0.5


def read_pixels(
    path: Path, bands: Sequence[str], config: SceneConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a scene's bands as physical values.

    Bands on a coarser grid of the same extent (the 20 m bands of Sentinel-2) are resampled
    bilinearly to the finest grid among the bands asked for.

    Args:
        path: the scene's file or folder.
        bands: names, in the order wanted.
        config: scale, offset and band names.

    Returns:
        (float32 (C, H, W), bool (H, W): True where any band was measured and all are finite).

    Raises:
        SceneError: the scene can't be read, or its bands do not cover one extent.
        BandError: a band is missing.
    """
    if not path.exists():
        raise SceneError(f"{path} does not exist; mend the scene's path in the recipe")
    # A suffix in lower case; folders may hold .jp2 as well.
    files = (
        sorted(f for f in path.iterdir() if f.suffix.lower() in (".tif", ".tiff", ".jp2"))
        if path.is_dir()
        else [path]
    )
    try:
        sources = _find_bands(files, config)
        missing = [band for band in bands if band not in sources]
        if missing:
            raise BandError(
                f"{path} has no band {', '.join(missing)}; it has {', '.join(sources) or 'none'}; "
                f"name the bands in the recipe with bands = [...]"
            )
        with quiet():
            grids = []
            for band in bands:
                with rasterio.open(sources[band][0]) as dataset:
                    grids.append((dataset.height, dataset.width))
            height, width = max(grids)
            if any(height * w != width * h for h, w in grids):
                raise SceneError(
                    f"the bands of {path} have the sizes {sorted(set(grids))}; they must cover one "
                    f"extent, so that one size is a multiple of the other"
                )
            pixels = np.empty((len(bands), height, width), np.float32)
            measured = np.zeros((height, width), bool)
            for i, band in enumerate(bands):
                file, index = sources[band]
                with rasterio.open(file) as dataset:
                    pixels[i] = dataset.read(
                        index, out_shape=(height, width), resampling=Resampling.bilinear
                    )
                    mask = dataset.read_masks(
                        index, out_shape=(height, width), resampling=Resampling.nearest
                    )
                measured |= mask > 0
    except rasterio.errors.RasterioError as error:
        raise SceneError(f"{path} can't be read: {error}") from error
    finite = np.isfinite(pixels).all(axis=0)
    pixels = np.where(finite & measured, pixels * config.scale + config.offset, 0.0)
    return pixels.astype(np.float32), measured & finite


@contextmanager
def quiet() -> Iterator[None]:
    """Chips without a place on Earth can be learned from; rasterio's warning does not help."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _find_bands(files: Sequence[Path], config: SceneConfig) -> dict[str, tuple[Path, int]]:
    """Band name -> file and index in it (from 1)."""
    texts: list[tuple[Path, int, str]] = []
    for file in files:
        with quiet(), rasterio.open(file) as dataset:
            if config.bands and len(files) == 1:
                if len(config.bands) != dataset.count:
                    raise BandError(
                        f"{file} has {dataset.count} bands and the recipe names "
                        f"{len(config.bands)}; name all of them, in the file's order"
                    )
                return {name: (file, i) for i, name in enumerate(config.bands, start=1)}
            for i, description in enumerate(dataset.descriptions, start=1):
                texts.append((file, i, description or (file.stem if dataset.count == 1 else "")))
    codes = [code for _, _, text in texts if (code := band_code(text))]
    sensor = detect_sensor([file.name for file in files], codes)
    found = {}
    for file, i, text in texts:
        if name := band_name(text, sensor):
            found[name] = (file, i)
    return found


def add_haze(
    pixels: NDArray[np.float32], bands: Sequence[str], amount: float
) -> NDArray[np.float32]:
    """Turn surface reflectance into what a plausible sky would make of it, or the other way round.

    A band at wavelength w gets the path radiance ``amount * (0.492 / w)**3`` and loses the share
    ``4.4 * amount * (0.492 / w)`` of the ground's light. Fitted to pairs of L1C and L2A scenes of
    four places: at 0.075 it gives 0.075, 0.051, 0.030, 0.015, 0.002 in blue, green, red, nir and
    swir1, where the pairs give 0.076, 0.048, 0.030, 0.024, 0.003.

    Args:
        pixels: float32 (C, H, W), reflectance.
        bands: C names.
        amount: path radiance in blue, in reflectance; below 0 that much is taken away.

    Returns:
        float32 (C, H, W), not below 0.
    """
    share = np.array([WAVELENGTH["blue"] / WAVELENGTH.get(b, 10.0) for b in bands], np.float32)
    light = (abs(amount) * share**3)[:, None, None]
    kept = (1.0 - 4.4 * abs(amount) * share)[:, None, None]
    hazy = pixels * kept + light if amount >= 0 else (pixels - light) / kept
    result: NDArray[np.float32] = np.maximum(hazy, 0.0).astype(np.float32)
    return result


def measure_normalization(
    scenes: Sequence[TrainingScene], kind: str, clip: tuple[float, float] | None
) -> Normalization:
    """Take a normalization's parameters from the training scenes, each scene counting the same.

    Only valid pixels count: nodata would pull the mean down.

    Args:
        scenes: of the training side.
        kind: ``z-score``, or ``log-logistic``: of the mean m and standard deviation s of
            y = log(50 x + 1), with center = m - s and spread = 5 s, so that the input becomes
            sigmoid((y - m) / s).
        clip: (low, high) for the physical values, or None.

    Raises:
        TrainingError: no pixel is valid, a band never changes, or the kind can't be measured.
    """
    if kind not in ("z-score", "log-logistic"):
        raise TrainingError(f"normalization is {kind!r}; training measures z-score or log-logistic")
    means, squares = [], []
    for scene in scenes:
        x = scene.pixels[:, scene.valid].astype(np.float64)
        if x.size == 0:
            continue
        x = x.clip(*clip) if clip else x
        x = np.log1p(50.0 * x) if kind == "log-logistic" else x
        means.append(x.mean(axis=1))
        squares.append((x**2).mean(axis=1))
    if not means:
        raise TrainingError("no training scene has a valid pixel; look at nodata and labels")
    mean = np.mean(means, axis=0)
    deviation = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0.0))
    if not (deviation > 0).all():
        raise TrainingError(
            f"bands {np.flatnonzero(~(deviation > 0)).tolist()} hold one value in all training "
            f"scenes; a band that never changes teaches nothing: leave it out"
        )
    values = (
        {"center": mean - deviation, "spread": 5.0 * deviation}
        if kind == "log-logistic"
        else {"mean": mean, "stddev": deviation}
    )
    # Six digits are more than the data know, and keep the card readable.
    parameters = {k: tuple(float(f"{x:.6g}") for x in v) for k, v in values.items()}
    return Normalization(kind, parameters, clip)


def coarsen(
    pixels: Tensor, probs: Tensor, valid: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Area-average pixels and targets to fewer pixels; what is not valid has no part in it.

    Args:
        pixels: float (C, H, W).
        probs: float (K, H, W).
        valid: bool (H, W).
        size: (rows, columns) wanted.

    Returns:
        (pixels, probs, valid) at the new size; valid where more than half of the area was.
    """
    weight = valid[None].float()
    share = F.adaptive_avg_pool2d(weight, size)
    stack = F.adaptive_avg_pool2d(torch.cat((pixels, probs)) * weight, size)
    stack = stack / share.clamp_min(1e-6)
    return stack[: len(pixels)], stack[len(pixels) :], share[0] > 0.5


class ChipSampler:
    """Cuts random chips from the training scenes and changes them."""

    def __init__(
        self,
        scenes: Sequence[TrainingScene],
        bands: Sequence[str],
        *,
        size: int,
        balance: float,
        augmentation: Augmentation,
    ) -> None:
        """Index the scenes' pixels by class.

        Args:
            scenes: of the training side.
            bands: names of the pixels' bands.
            size: chip side, px.
            balance: share of the chips that are laid around a pixel of a class drawn evenly among
                the classes, the rarer ones so more often; the others lie anywhere, large scenes
                more often.
            augmentation: how chips are changed.

        Raises:
            TrainingError: no scene has a valid pixel.
        """
        self._scenes = [scene for scene in scenes if scene.valid.any()]
        if not self._scenes:
            raise TrainingError("no training scene has a valid pixel; look at nodata and labels")
        self._bands = tuple(bands)
        self._size = size
        self._balance = balance
        self._augmentation = augmentation
        area = np.sqrt([scene.valid.sum() for scene in self._scenes])
        self._scene_share = area / area.sum()
        # For each class and scene, the flat places of the pixels that are most likely of it.
        self._places: list[list[NDArray[np.int64]]] = []
        for scene in self._scenes:
            best = np.where(scene.valid, scene.probs.argmax(axis=0), -1).ravel()
            self._places.append([np.flatnonzero(best == k) for k in range(len(scene.probs))])
        counts = np.array([[len(p) for p in places] for places in self._places], float)
        self._classes = np.flatnonzero(counts.sum(axis=0) > 0)
        # The root keeps one large scene from giving all examples of a class.
        share = np.sqrt(counts)
        self._class_share = share / np.maximum(share.sum(axis=0), 1e-9)
        # The most path radiance that a scene can lose before its darkest pixels go black.
        self._dark = [self._darkest_blue(scene) for scene in self._scenes]

    def _darkest_blue(self, scene: TrainingScene) -> float:
        if "blue" not in self._bands:
            return 0.0
        blue = scene.pixels[self._bands.index("blue")][scene.valid]
        return float(np.percentile(blue, 1))

    def batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw chips.

        Args:
            rng: all that is random.
            count: N.

        Returns:
            (pixels float32 (N, C, H, W) in physical values, probs float32 (N, K, H, W),
            weight float32 (N, H, W): 1 where valid, else 0).
        """
        chips = [self._chip(rng) for _ in range(count)]
        for i in range(count):
            if rng.random() < self._augmentation.mix:
                self._set_in(rng, chips[i], chips[int(rng.integers(count))])
        pixels, probs, valid = (torch.stack(part) for part in zip(*chips, strict=True))
        return pixels, probs, valid.float()

    def _chip(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        a = self._augmentation
        index, row, col = self._place(rng)
        scene = self._scenes[index]
        factor = 1.0
        if a.gsd_max > 1.0 and rng.random() < a.gsd_share:
            factor = float(rng.uniform(1.0, a.gsd_max))
        side = round(self._size * factor)
        rows = self._span(rng, row, side, scene.valid.shape[0])
        cols = self._span(rng, col, side, scene.valid.shape[1])
        parts = (scene.pixels, scene.probs, scene.valid)
        pixels, probs, valid = (
            torch.from_numpy(np.ascontiguousarray(part[..., rows, :][..., cols])) for part in parts
        )
        chip = (pixels, probs.float(), valid)
        if side != self._size:
            chip = coarsen(*chip, (self._size, self._size))
        if a.flips:
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            chip = (
                _turn(chip[0], turns, flip),
                _turn(chip[1], turns, flip),
                _turn(chip[2], turns, flip),
            )
        changed = self._change_light(rng, chip[0].numpy(), scene.config.look, self._dark[index])
        return torch.from_numpy(changed), chip[1], chip[2]

    def _place(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """A scene and a pixel of it around which a chip is laid."""
        if rng.random() < self._balance:
            k = int(rng.choice(self._classes))
            index = int(rng.choice(len(self._scenes), p=self._class_share[:, k]))
            flat = int(rng.choice(self._places[index][k]))
            row, col = divmod(flat, self._scenes[index].valid.shape[1])
            return index, row, col
        index = int(rng.choice(len(self._scenes), p=self._scene_share))
        height, width = self._scenes[index].valid.shape
        return index, int(rng.integers(height)), int(rng.integers(width))

    def _span(
        self, rng: np.random.Generator, center: int, side: int, length: int
    ) -> slice | NDArray[np.int64]:
        """``side`` px around the center; a scene that is too small is continued by mirror."""
        start = center - int(rng.integers(side))
        if side <= length:
            start = min(max(start, 0), length - side)
            return slice(start, start + side)
        index = np.arange(start, start + side) % (2 * length)
        return np.where(index < length, index, 2 * length - 1 - index)

    def _change_light(
        self, rng: np.random.Generator, pixels: NDArray[np.float32], look: str, dark: float
    ) -> NDArray[np.float32]:
        a = self._augmentation
        if a.haze > 0 and rng.random() < 0.7:
            if look == "surface":
                amount = rng.uniform(0.0, a.haze)
            else:
                amount = rng.uniform(-min(0.9 * dark, 0.75 * a.haze), a.haze / 3)
            pixels = add_haze(pixels, self._bands, float(amount))
        if a.gain > 0:
            gain = rng.normal(0.0, a.gain) + rng.normal(0.0, a.gain, len(pixels))
            pixels = pixels * np.exp(gain).astype(np.float32)[:, None, None]
        if a.noise > 0:
            # After a coarser gsd was made: a coarser sensor is not a quieter one.
            noise = rng.standard_normal(pixels.shape, dtype=np.float32)
            pixels = pixels + noise * np.float32(a.noise * rng.random())
        return pixels

    def _set_in(
        self,
        rng: np.random.Generator,
        chip: tuple[Tensor, Tensor, Tensor],
        other: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Copy one rectangle of another chip into this one, pixels and targets alike."""
        height, width = (int(x) for x in rng.integers(self._size // 8, self._size // 2 + 1, 2))
        row = int(rng.integers(self._size - height + 1))
        col = int(rng.integers(self._size - width + 1))
        for target, source in zip(chip, other, strict=True):
            target[..., row : row + height, col : col + width] = source[
                ..., row : row + height, col : col + width
            ]


def _turn(x: Tensor, turns: int, flip: bool) -> Tensor:
    x = torch.rot90(x, turns, dims=(-2, -1))
    return x.flip(-1) if flip else x.contiguous()
