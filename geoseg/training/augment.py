"""How training chips are changed: another place, sensor, sky or season.

Every function takes a random generator and nothing else that is random, so that a chip can be made
again. Values are physical (reflectance, or numbers as in the file); what is in parts of white is
relative to 1 for reflectance and to the brightest number otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geoseg.training.augment_options import Augmentation

__all__ = [
    "add_haze",
    "blend_weights",
    "change_light",
    "coarsen",
    "finish",
    "move_covariance",
    "move_statistics",
    "resize",
    "roughen",
    "turn",
]

Floats = NDArray[np.float32]

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
    "watervapor": 0.945,
    "cirrus": 1.374,
    "swir1": 1.614,
    "swir2": 2.202,
}


def add_haze(pixels: Floats, bands: Sequence[str], amount: float) -> Floats:
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
    result: Floats = np.maximum(hazy, 0.0).astype(np.float32)
    return result


def change_light(
    rng: np.random.Generator, pixels: Floats, bands: Sequence[str], a: Augmentation, white: float
) -> Floats:
    """Change a chip as another sky, sun, sensor or camera would.

    Args:
        rng: all that is random.
        pixels: float32 (C, H, W), physical values.
        bands: C names.
        a: how much.
        white: the value of white.

    Returns:
        float32 (C, H, W).
    """
    x = pixels
    if a.haze > 0 and "blue" in bands and rng.random() < a.haze_share:
        # What is taken away leaves the darkest pixels something.
        dark = float(np.percentile(x[list(bands).index("blue")], 1))
        x = add_haze(x, bands, float(rng.uniform(-0.9 * min(max(dark, 0.0), a.haze), a.haze)))
    if rng.random() < a.light_share:
        x = _gains(rng, x, bands, a, white)
    u = rng.random()
    if u < a.grey_share:
        mixture = rng.dirichlet(np.ones(len(x))).astype(np.float32)
        x = np.repeat(np.tensordot(mixture, x, 1)[None], len(x), axis=0)
    elif u < a.grey_share + a.shuffle_share:
        x = x[rng.permutation(len(x))]
    if a.saturation > 0 and (a.saturation_share == 1 or rng.random() < a.saturation_share):
        grey = x.mean(axis=0, keepdims=True)
        x = grey + (x - grey) * _factor(rng, a.saturation)
    if a.hue > 0 and len(x) == 3 and rng.random() < 0.5:
        x = np.tensordot(_rotation(math.radians(rng.uniform(-a.hue, a.hue))), x, 1)
    if a.contrast > 0 or a.brightness > 0:
        mean = np.float32(x.mean())
        shift = np.float32(rng.uniform(-a.brightness, a.brightness) * white)
        x = ((x - mean) * _factor(rng, a.contrast) + mean + shift).astype(np.float32)
    if a.slope > 0:
        x = x * _ramp(rng, x.shape[-2:], a.slope)
    if a.gamma > 0:
        scaled = np.asarray(x.clip(0, white) / white, np.float32)
        x = scaled ** _factor(rng, a.gamma) * np.float32(white)
    if a.veil > 0 and rng.random() < a.veil_share:
        amount = np.float32(rng.uniform(0, a.veil))
        x = x * (1 - amount) + amount * np.float32(rng.uniform(0.6, 0.9) * white)
    if a.blur > 0 and rng.random() < a.blur_share:
        from scipy.ndimage import gaussian_filter

        sigma = float(rng.uniform(0, a.blur))
        x = gaussian_filter(x, (0, sigma, sigma), mode="nearest")
    return np.ascontiguousarray(x, np.float32)


def _gains(
    rng: np.random.Generator, x: Floats, bands: Sequence[str], a: Augmentation, white: float
) -> Floats:
    """Multiply all bands, each one, and along the wavelength."""
    if a.gain or a.band_gain or a.tilt:
        log: NDArray[np.float64] = rng.normal(0, a.gain) + rng.normal(0, a.band_gain, len(x))
        slope, bend = rng.normal(0, a.tilt, 2)
        if a.tilt and len(x) > 1:
            wave = np.log([WAVELENGTH.get(b, 1.0) for b in bands])
            wave = (wave - wave.mean()) / max(float(wave.std()), 1e-6)
            log = log + slope * wave + 0.7 * bend * (wave**2 - 1)
        x = x * np.exp(log).astype(np.float32)[:, None, None]
    if a.band_offset:
        x = x + (rng.normal(0, a.band_offset, len(x)) * white).astype(np.float32)[:, None, None]
    return x


def _ramp(rng: np.random.Generator, shape: tuple[int, ...], most: float) -> Floats:
    """Draw factors (H, W) that rise evenly in some direction, from 1 - s to 1 + s at the rim."""
    height, width = shape
    angle = rng.uniform(0, 2 * math.pi)
    down, right = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    along = math.sin(angle) * down[:, None] + math.cos(angle) * right
    along /= abs(math.sin(angle)) + abs(math.cos(angle))
    return np.asarray(1 + rng.uniform(0, most) * along, np.float32)


def _factor(rng: np.random.Generator, most: float) -> np.float32:
    return np.float32(math.exp(rng.uniform(-most, most)))


def _rotation(angle: float) -> Floats:
    """Make the matrix that turns three bands about grey (Rodrigues' formula about (1, 1, 1))."""
    c, s = math.cos(angle), math.sin(angle) / math.sqrt(3)
    q = (1 - c) / 3
    return np.array(
        [[c + q, q - s, q + s], [q + s, c + q, q - s], [q - s, q + s, c + q]], np.float32
    )


def move_statistics(rng: np.random.Generator, x: Floats, other: Floats) -> Floats:
    """Move a chip towards the mean and spread of another one in log(50 x + 1), band by band.

    Args:
        rng: how far, evenly 0 to 1.
        x: float32 (C, H, W), reflectance.
        other: float32 (C, ., .).

    Returns:
        float32 (C, H, W), 0 and above.
    """
    mine, theirs = _logarithm(x), _logarithm(other)
    mean, goal = mine.mean(axis=(1, 2)), theirs.mean(axis=(1, 2))
    spread, wide = (v.std(axis=(1, 2)) + 0.03 for v in (mine, theirs))
    far = rng.uniform()
    factor = np.exp(far * np.log(wide / spread).clip(-1.1, 1.1))[:, None, None]
    moved = (mine - mean[:, None, None]) * factor + (mean + far * (goal - mean))[:, None, None]
    return _reflectance(moved)


def move_covariance(rng: np.random.Generator, x: Floats, other: Floats) -> Floats:
    """Give a chip's shapes the spectra of another one, as far as a linear map can.

    In log(50 x + 1) the bands of a chip are taken for normally distributed, and the linear map that
    moves one such distribution into the other over the shortest way is applied in part (Pitie and
    Kokaram 2007, The linear Monge-Kantorovitch linear colour mapping for example-based colour
    transfer). Unlike :func:`move_statistics` it leaves bands in relations to each other that they
    have somewhere.

    Args:
        rng: how far, evenly 0 to 1.
        x: float32 (C, H, W), reflectance.
        other: float32 (C, ., .).

    Returns:
        float32 (C, H, W), 0 and above.
    """
    bands = len(x)
    mine, theirs = (_logarithm(v).reshape(bands, -1).astype(np.float64) for v in (x, other))
    # An even chip has no covariance to divide by.
    source, target = (np.atleast_2d(np.cov(v)) + np.eye(bands) * 0.03**2 for v in (mine, theirs))
    root = _power(source, 0.5)
    inverse = _power(source, -0.5)
    whole = inverse @ _power(root @ target @ root, 0.5) @ inverse
    # Three times the contrast at most, as of an even chip noise would be made.
    scales, axes = np.linalg.eigh((whole + whole.T) / 2)
    whole = (axes * scales.clip(1 / 3, 3)) @ axes.T
    far = rng.uniform()
    part = (1 - far) * np.eye(bands) + far * whole
    mean, goal = mine.mean(axis=1, keepdims=True), theirs.mean(axis=1, keepdims=True)
    moved = part @ (mine - mean) + (mean + far * (goal - mean))
    return _reflectance(moved).reshape(x.shape)


def _logarithm(x: Floats) -> Floats:
    """Compute log(50 x + 1) of reflectance, in which spectra are about normally distributed."""
    return np.asarray(np.log1p(50 * x.clip(0, None)))


def _reflectance(logarithm: NDArray[Any]) -> Floats:
    """Undo :func:`_logarithm`; float32, 0 and above."""
    return np.asarray(np.maximum(np.expm1(logarithm) / 50, 0).astype(np.float32))


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Raise a symmetric matrix without negative eigenvalues to a power."""
    values, axes = np.linalg.eigh(matrix)
    return np.asarray((axes * values.clip(0, None) ** exponent) @ axes.T)


def smooth_field(rng: np.random.Generator, side: int, fewest: int, most: int) -> Floats:
    """Draw a field (side, side) of mean 0 and deviation 1, with ``fewest`` to ``most`` hills."""
    nodes = int(rng.integers(fewest, most + 1))
    coarse = torch.from_numpy(rng.standard_normal((1, 1, nodes, nodes), dtype=np.float32))
    fine = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)[0, 0]
    return np.asarray((fine - fine.mean()) / (fine.std() + 1e-6), np.float32)


def blend_weights(rng: np.random.Generator, side: int, kinds: Sequence[float]) -> Floats:
    """Draw how much of a chip stays its own when another one is mixed in.

    Args:
        rng: all that is random.
        side: of the chip, px.
        kinds: shares of whole, rectangles, smooth fields and grains.

    Returns:
        float32 (side, side), 0 to 1.
    """
    kind = int(rng.choice(4, p=np.asarray(kinds) / sum(kinds)))
    if kind == 0:
        return np.full((side, side), rng.uniform(0.05, 0.95), np.float32)
    if kind == 2:
        field = smooth_field(rng, side, 2, 12) * rng.uniform(0.7, 8) + rng.normal(0, 0.7)
        return np.asarray(1 / (1 + np.exp(-field)), np.float32)
    if kind == 3:
        return np.asarray(grains(rng, side) > rng.normal(0, 0.5), np.float32)
    own = np.ones((side, side), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        height, width = (int(n) for n in rng.integers(side // 10 + 1, int(side * 0.6) + 2, 2))
        row = int(rng.integers(max(side - height, 0) + 1))
        col = int(rng.integers(max(side - width, 0) + 1))
        own[row : row + height, col : col + width] = 0
    return own


def grains(rng: np.random.Generator, side: int) -> Floats:
    """Draw a field (side, side) of mean 0 and deviation 1 that is alike over 1 to 4 px."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), rng.uniform(0, 2))
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def roughen(rng: np.random.Generator, pixels: Floats, a: Augmentation) -> Floats:
    """Sharpen a chip, or make it grainy, after other chips were mixed in.

    Args:
        rng: all that is random.
        pixels: float32 (C, H, W), physical values.
        a: how much.

    Returns:
        float32 (C, H, W); above 0 where it was, if it was sharpened or grained.
    """
    x = pixels
    if a.sharpen > 0 and rng.random() < a.sharpen_share:
        from scipy.ndimage import gaussian_filter

        sigma = float(rng.uniform(0.7, 2.0))
        smooth = gaussian_filter(x, (0, sigma, sigma), mode="nearest")
        sharp = x + np.float32(rng.uniform(0, a.sharpen)) * (x - smooth)
        # A bright edge must not leave a black rim: at most nine tenths of the light are lost.
        x = np.maximum(sharp, np.minimum(0.1 * x, x))
    if a.speckle > 0 and rng.random() < a.speckle_share:
        x = x * np.exp(np.float32(rng.uniform(0, a.speckle)) * grains(rng, x.shape[-1]))
    return np.asarray(x, np.float32)


def finish(rng: np.random.Generator, pixels: Floats, a: Augmentation, white: float) -> Floats:
    """Add shadow and noise, and lose a band, after other chips were mixed in.

    Args:
        rng: all that is random.
        pixels: float32 (C, H, W), physical values.
        a: how much.
        white: the value of white.

    Returns:
        float32 (C, H, W).
    """
    x = pixels
    if a.shadow > 0 and rng.random() < a.shadow_share:
        field = smooth_field(rng, x.shape[-1], 2, 8)
        x = x * np.exp(rng.uniform(0.2, 1) * a.shadow * field).astype(np.float32)
    if a.noise > 0 and rng.random() < a.noise_share:
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x = x + noise * np.float32(rng.uniform(0, a.noise) * white)
    if a.dropout > 0 and rng.random() < a.dropout:
        x = x.copy()
        lost = int(rng.integers(len(x)))
        x[lost] = x[lost].mean()
    return x


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resample bilinearly with antialiasing, corners not aligned.

    Args:
        x: float (C, H, W).
        height: rows wanted.
        width: columns wanted.
    """
    if tuple(x.shape[-2:]) == (height, width):
        return x
    return F.interpolate(
        x[None], size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )[0]


def coarsen(
    pixels: Tensor, probs: Tensor, valid: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Area-average pixels and targets to fewer pixels; targets that are not valid have no part.

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
    means = F.adaptive_avg_pool2d(probs * weight, size) / share.clamp_min(1e-6)
    return F.adaptive_avg_pool2d(pixels, size), means, share[0] > 0.5


def turn(x: Tensor, turns: int, flip: bool) -> Tensor:
    """Turn the last two axes by quarters, and flip the last one."""
    x = torch.rot90(x, turns, dims=(-2, -1))
    return (x.flip(-1) if flip else x).contiguous()
