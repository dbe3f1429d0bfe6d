"""Clouds that are laid over clear ground: a recipe's ``laid_clouds``.

People have drawn few clouds, and clear scenes are many: so clouds are made, with what is known of
them, and every pixel's answer is known, too. Their optical depth is a fractal, made in the Fourier
domain (clouds of several layers over real images: Czerkawski and others 2023,
doi:10.3390/rs15174138; that clouds are fractals: Cahalan and others 1994,
doi:10.1175/1520-0469(1994)051<2434:TAOFSC>2.0.CO;2). A cloud of depth t sends back b / (1 + b) of
the light, b = (1 - g) t / 2, and lets the rest through (two-stream approximation: Coakley and
Chylek 1975, doi:10.1175/1520-0469(1975)032<0409:TTSAIR>2.0.CO;2). It is white, but where water and
above all ice take light, in the short-wave infrared (Nakajima and King 1990,
doi:10.1175/1520-0469(1990)047<1878:DOTOTA>2.0.CO;2); haze is bluer (Angstrom's law). The ground in
its shadow keeps the light of the sky, which is blue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.training.laid_clouds_options import CLOUD_BANDS, LaidClouds
from geoseg.training.targets import UNKNOWN

__all__ = ["GROUND", "SHADOW", "THICK", "THIN", "Sky", "fractal", "lay_clouds", "under_sky"]

Floats = NDArray[np.float32]

#: What a pixel became.
GROUND, THIN, THICK, SHADOW = range(4)
#: Of scattering by drops: most of it goes forwards.
ASYMMETRY = 0.85


class Sky(NamedTuple):
    """Clouds over a chip.

    Attributes:
        depth: optical depth above each pixel at 0.55 micrometres, (H, W).
        shading: of the clouds, on each other: what multiplies their light, (H, W).
        blueness: how depth falls with wavelength (Angstrom's exponent).
        colour: what is left of a cloud's light, (C,).
        sunwards: optical depth between each pixel and the sun, (H, W).
        diffuse: how far light that is scattered in a cloud still reaches its shadow, 0 to 1.
        skylight: share of the light that a pixel in full shadow keeps, (C,).
        path: what the air adds before a cloud comes into it, in reflectance, (C,).
    """

    depth: Floats
    shading: Floats
    blueness: float
    colour: Floats
    sunwards: Floats
    diffuse: float
    skylight: Floats
    path: Floats


def lay_clouds(
    rng: np.random.Generator, pixels: Floats, bands: Sequence[str], a: LaidClouds
) -> tuple[Floats, NDArray[np.uint8]]:
    """Draw clouds and lay them over a chip; some chips stay without.

    Args:
        rng: all that is random.
        pixels: float32 (C, H, W), reflectance.
        bands: C names.
        a: which clouds.

    Returns:
        (float32 (C, H, W), uint8 (H, W): :data:`GROUND`, :data:`THIN`, :data:`THICK`,
        :data:`SHADOW`, or UNKNOWN where one of the last three can't be seen).
    """
    became = np.zeros(pixels.shape[1:], np.uint8)
    if rng.random() >= a.share:
        return pixels, became
    for _ in range(2 if rng.random() < a.again else 1):
        sky = _draw(rng, pixels, bands, a)
        pixels, new = under_sky(pixels, bands, sky, a)
        became = _after(became, new)
    return pixels, became


def _after(before: NDArray[np.uint8], new: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Say what pixels became of which some had become something before, by a lower cloud."""
    # Thick hides what is below, thin does not; a shadow on a cloud is that cloud's.
    kept = (new == GROUND) | ((before == THICK) & (new != THICK))
    kept |= (before == THIN) & (new > THICK)
    kept |= (before == UNKNOWN) & (new != THICK)
    return np.where(kept, before, new)


def under_sky(
    pixels: Floats, bands: Sequence[str], sky: Sky, a: LaidClouds
) -> tuple[Floats, NDArray[np.uint8]]:
    """Show a chip as it would look under a sky.

    Args:
        pixels: float32 (C, H, W), reflectance.
        bands: C names.
        sky: its clouds.
        a: from where on they are called so.

    Returns:
        As :func:`lay_clouds`.
    """
    lost = _lost(sky.sunwards, sky.diffuse)
    result = np.empty_like(pixels)
    for i, band in enumerate(bands):
        depth = sky.depth * np.float32((0.55 / CLOUD_BANDS[band].wavelength) ** sky.blueness)
        sent_back = _sent_back(depth)
        ground = pixels[i] - sky.path[i]
        ground = ground * (1 - lost * (1 - sky.skylight[i])) * (1 - sent_back)
        # Between the cloud and bright ground light goes back and forth.
        ground /= 1 - sent_back * pixels[i].clip(0, 0.9)
        # A thick cloud stands above most of the air.
        air = sky.path[i] * (1 - sent_back)
        result[i] = ground + air + sent_back * sky.colour[i] * sky.shading
    whole = _sent_back(sky.depth)
    became = np.zeros(pixels.shape[1:], np.uint8)
    became[lost >= a.shadow_from] = SHADOW
    became[whole >= a.thin_from] = THIN
    became[whole >= a.thick_from] = THICK
    seen = abs(result - pixels).max(axis=0) >= a.visible
    became[(became != GROUND) & ~seen] = UNKNOWN
    return result, became


def _sent_back(depth: Floats) -> Floats:
    """Compute which share of the light a cloud of an optical depth sends back."""
    b = depth * np.float32((1 - ASYMMETRY) / 2)
    return np.asarray(b / (1 + b))


def _lost(depth: Floats, diffuse: float) -> Floats:
    """Compute which share of the sun's own light is lost in a shadow."""
    beam = 1 - np.exp(-np.float32(1 - ASYMMETRY**2) * depth)
    return np.asarray(diffuse * _sent_back(depth) + (1 - diffuse) * beam, np.float32)


def _draw(rng: np.random.Generator, pixels: Floats, bands: Sequence[str], a: LaidClouds) -> Sky:
    """Draw the clouds of one kind over a chip."""
    height, width = pixels.shape[1:]
    kind = int(rng.choice(4, p=np.asarray(a.kinds) / sum(a.kinds)))
    distance = math.exp(rng.uniform(math.log(a.distance[0]), math.log(a.distance[1])))
    if kind == 3:
        distance = min(distance, 2.0)  # haze lies on the ground
    angle = rng.uniform(0, 2 * math.pi)
    down, right = (round(distance * f(angle)) for f in (math.sin, math.cos))
    around = max(abs(down), abs(right))
    side = max(height, width) + 2 * around
    field = _depth(rng, side, kind)
    inner = np.s_[around : around + height, around : around + width]
    # The shadow of a pixel's cloud lies (down, right) of it.
    shifted = np.s_[around - down : around - down + height, around - right : around - right + width]
    slant = np.float32(1 / rng.uniform(0.45, 1.0))
    ice = kind == 2 or (kind < 2 and rng.random() < 0.2)
    known = [CLOUD_BANDS[band] for band in bands]
    of_bands = [rng.uniform(*(band.ice if ice else band.water)) for band in known]
    colour = np.array(of_bands) * rng.normal(1, 0.02, len(bands))
    bright = rng.uniform(0.75, 1.25) if kind < 2 else rng.uniform(0.85, 1.1)
    sky_light = np.array([band.skylight for band in known]) * rng.uniform(0.5, 1.7)
    sky_light = (sky_light + rng.uniform(0, 0.15)).clip(0, 0.8)
    dark = np.percentile(pixels.reshape(len(pixels), -1), 1, axis=1).clip(0, None)
    return Sky(
        depth=field[inner],
        shading=_shading(rng, field, (down, right), kind)[inner],
        blueness=float(rng.uniform(0.4, 1.4) if kind == 3 else rng.normal(0.05, 0.1)),
        colour=np.asarray(colour * bright, np.float32),
        sunwards=field[shifted] * slant,
        # Haze scatters forwards to the ground below it.
        diffuse=1.0 if kind == 3 else float(rng.uniform(0, 0.8)),
        skylight=np.asarray(sky_light, np.float32),
        path=np.asarray(dark * (rng.uniform() if rng.random() < 0.5 else 0), np.float32),
    )


def _depth(rng: np.random.Generator, side: int, kind: int) -> Floats:
    """Draw optical depths (side, side) of a kind of cloud."""
    rough = rng.uniform(0.3, 1.0)  # Hurst's exponent
    if kind == 0:
        largest = math.exp(rng.uniform(math.log(10), math.log(120)))
        # Low powers make clouds, and shadows, that are alike from edge to edge.
        cover, power = rng.uniform(0.03, 0.55), rng.uniform(0.15, 1.4)
        most = math.exp(rng.uniform(math.log(4), math.log(90)))
        found = most * _above(fractal(rng, side, rough, largest=largest), cover) ** power
    elif kind == 1:
        found = rng.uniform(3, 30) * _above(fractal(rng, side, rough), rng.uniform(0.4, 1.4))
    elif kind == 2:
        stretch, turn = rng.uniform(1.5, 8), rng.uniform(0, math.pi)
        field = fractal(rng, side, rough, stretch=stretch, turn=turn)
        found = rng.uniform(0.5, 5) * _above(field, rng.uniform(0.2, 1.2)) ** rng.uniform(0.8, 1.5)
    else:
        field = fractal(rng, side, rng.uniform(0.8, 1.6))
        found = rng.uniform(0.15, 2) * np.exp(rng.uniform(0.2, 1.0) * field)
    return np.asarray(found, np.float32)


def _above(field: Floats, cover: float) -> Floats:
    """Cut a field where a share of it lies above; a share above 1 lifts all of it."""
    lifted = field - np.quantile(field, max(1 - cover, 0)) + 3 * max(cover - 1, 0)
    return np.asarray(lifted.clip(0, None), np.float32)


def _shading(rng: np.random.Generator, depth: Floats, away: tuple[int, int], kind: int) -> Floats:
    """Draw how bright sides of clouds are towards the sun, and dark ones away from it."""
    if kind > 1:
        return np.ones_like(depth)
    tops = np.log1p(depth)
    slope = np.gradient(tops)
    length = math.hypot(*away) or 1.0
    # Tops rise away from the sun on the side that it shines on.
    lit = (slope[0] * away[0] + slope[1] * away[1]) / length
    lit /= lit.std() + 1e-3
    return np.asarray((1 + rng.uniform(0, 0.2) * lit).clip(0.5, 1.4), np.float32)


def fractal(
    rng: np.random.Generator,
    side: int,
    rough: float,
    *,
    largest: float = math.inf,
    stretch: float = 1.0,
    turn: float = 0.0,
) -> Floats:
    """Draw a fractal field by its spectrum (Peitgen and Saupe 1988, The Science of Fractal Images).

    Args:
        rng: all that is random.
        side: px.
        rough: Hurst's exponent: the lower, the rougher.
        largest: px beyond which nothing is alike; infinity for none.
        stretch: by how much it is longer in one direction.
        turn: that direction, radians.

    Returns:
        float32 (side, side), mean 0 and deviation 1.
    """
    from scipy import fft

    # Beyond the field there is more of it: it must not meet itself at its ends.
    size = fft.next_fast_len(side + side // 4, real=True)
    down, right = fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None]
    along = right * math.cos(turn) + down * math.sin(turn)
    across = down * math.cos(turn) - right * math.sin(turn)
    square = (along * math.sqrt(stretch)) ** 2 + (across / math.sqrt(stretch)) ** 2
    square = square + max(1 / largest, 0.25 / size) ** 2
    amplitude = square ** (-(rough + 1) / 2)
    amplitude[0, 0] = 0
    noise = rng.standard_normal((2, *amplitude.shape))
    found = fft.irfft2((noise[0] + 1j * noise[1]) * amplitude, s=(size, size))[:side, :side]
    return np.asarray((found - found.mean()) / (found.std() + 1e-9), np.float32)
