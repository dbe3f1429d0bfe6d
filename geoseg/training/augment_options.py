"""How far training chips are changed: the options of a recipe's ``augmentation``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import TrainingError

__all__ = ["Augmentation"]


@dataclass(frozen=True)
class Augmentation:
    """How chips are changed. By default chips are flipped and turned, and nothing else.

    Attributes:
        flips: whether to flip and turn by quarters.
        zoom: (smallest, largest) factor by which pixels are enlarged; drawn evenly in logarithm.
        zoom_share: share of the chips that are zoomed.
        gsd_max: the coarsest gsd as a multiple of the scene's; 3 turns 10 m into up to 30 m.
        gsd_share: share of the chips that are made coarser.
        light_share: share of the chips whose brightness is changed by ``gain``, ``band_gain``,
            ``tilt`` and ``band_offset``.
        gain: standard deviation of the logarithm of the factor on all bands.
        band_gain: the same of the factor on each band.
        tilt: the same of the factor's slope, and a little less of its curvature, over the logarithm
            of wavelength.
        band_offset: standard deviation of what is added to each band, in parts of white.
        haze: the most haze, as the path radiance in blue, in reflectance; as much is also taken
            away, as far as the darkest pixels allow.
        haze_share: share of the chips with it.
        veil: the most of a light grey, evenly over the chip, in place of haze for numbers that are
            no reflectance; 0.4 leaves 60 % of the picture.
        veil_share: share of the chips with it.
        contrast: largest change of the logarithm of the contrast about the chip's mean.
        brightness: the most that is added to all bands, or taken away, in parts of white.
        slope: the most by which brightness rises, as a share, from the chip's middle to its rim in
            some direction, as ground does that is seen under other angles.
        gamma: largest change of the logarithm of the exponent.
        saturation: largest change of the logarithm of how far each band lies from the bands' mean.
        saturation_share: share of the chips with it.
        hue: the most by which colours of three bands turn about grey, degrees.
        grey_share: share of the chips of which all bands become one random mixture.
        shuffle_share: share of the chips whose bands change places.
        blur: largest standard deviation of a Gaussian blur, px.
        blur_share: share of the chips with it.
        sharpen: by how much, at most, the difference from a blurred picture is added again; fields
            and woods become as rough as a town.
        sharpen_share: share of the chips with it, after mixing.
        speckle: the most of a grain of 1 to 4 px, as a standard deviation of the logarithm of the
            brightness.
        speckle_share: share of the chips with it, after mixing.
        shadow: largest logarithm of smooth brightness across the chip.
        shadow_share: share of the chips with it.
        cast: the most of the sun's light that is lost where houses and trees beyond the picture
            cast their shadows, 0 to 1; blue, of which the sky gives most, keeps more. Labels stay.
        cast_share: share of the chips with such shadows.
        noise: the most noise, as a standard deviation, in parts of white.
        noise_share: share of the chips with it.
        dropout: share of the chips of which one band is lost: it becomes its mean over the chip.
        mix: share of the chips into which another one is mixed.
        mix_again: of these, share into which a further one is mixed.
        mix_kinds: relative shares of mixing as a whole (mixup, https://arxiv.org/abs/1710.09412),
            in rectangles (CutMix, https://arxiv.org/abs/1905.04899), along smooth fields and in
            grains of 1 to 4 px.
        statistics: share of the chips that are moved towards the mean and spread of another one,
            band by band, in the logarithm of reflectance.
        covariance: share of the chips whose spectra are moved towards the mean and covariance of
            another one's, all bands together.
        ease: share of the run, at its end, in which light and colours are changed less: what is
            learned last then suits pictures as they are.
        ease_to: by what the changes of light and colours, and the shares of chips that become
            grey, change bands or lose one, are multiplied then.
    """

    flips: bool = True
    zoom: tuple[float, float] = (1.0, 1.0)
    zoom_share: float = 1.0
    gsd_max: float = 1.0
    gsd_share: float = 0.5
    light_share: float = 1.0
    gain: float = 0.0
    band_gain: float = 0.0
    tilt: float = 0.0
    band_offset: float = 0.0
    haze: float = 0.0
    haze_share: float = 0.5
    veil: float = 0.0
    veil_share: float = 0.15
    contrast: float = 0.0
    brightness: float = 0.0
    slope: float = 0.0
    gamma: float = 0.0
    saturation: float = 0.0
    saturation_share: float = 1.0
    hue: float = 0.0
    grey_share: float = 0.0
    shuffle_share: float = 0.0
    blur: float = 0.0
    blur_share: float = 0.2
    sharpen: float = 0.0
    sharpen_share: float = 0.2
    speckle: float = 0.0
    speckle_share: float = 0.2
    shadow: float = 0.0
    shadow_share: float = 0.3
    cast: float = 0.0
    cast_share: float = 0.3
    noise: float = 0.0
    noise_share: float = 0.5
    dropout: float = 0.0
    mix: float = 0.0
    mix_again: float = 0.0
    mix_kinds: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)
    statistics: float = 0.0
    covariance: float = 0.0
    ease: float = 0.0
    ease_to: float = 0.4

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            TrainingError: a value breaks its rule.
        """
        builtin_fields(self)
        for name, value in vars(self).items():
            if isinstance(value, tuple | bool):
                continue
            most = 1.0 if name.endswith("share") or name in _SHARES else math.inf
            most = {"haze": MOST_HAZE, "slope": 0.9, "cast": 1.0}.get(name, most)
            if not 0 <= value <= most or math.isinf(value):
                limit = "0 and above" if math.isinf(most) else f"0 to {most:g}"
                raise TrainingError(f"augmentation.{name} is {value}; it must be {limit}")
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise TrainingError(
                f"augmentation.zoom is {self.zoom}; give (smallest, largest) factor, above 0"
            )
        if self.gsd_max < 1:
            raise TrainingError(f"augmentation.gsd_max is {self.gsd_max}; it must be 1 at least")
        kinds = self.mix_kinds
        if len(kinds) != 4 or not sum(kinds) > 0 or min(kinds) < 0:
            raise TrainingError(
                f"augmentation.mix_kinds is {kinds}; give four shares (whole, rectangles, "
                f"fields, grains), 0 at least and not all 0"
            )

    def check_light(self, key: str) -> None:
        """Refuse changes after which the answer is another one, or the pixels lie elsewhere.

        Args:
            key: of the recipe, for the message.

        Raises:
            TrainingError: there are some.
        """
        default = Augmentation()
        others = [
            name
            for name, value in vars(self).items()
            if name not in _LIGHT and value != getattr(default, name)
        ]
        if others:
            raise TrainingError(
                f"{key}.{others[0]}: what is there after it is no longer the same; the keys of "
                f"{key} are {', '.join(_LIGHT)}"
            )

    def at(self, done: float) -> Augmentation:
        """Ease the changes where a run is near its end.

        Args:
            done: share of the run that is over, 0 to 1.
        """
        if done < 1 - self.ease:
            return self
        return replace(self, **{name: getattr(self, name) * self.ease_to for name in _EASED})


#: Above 1 / 4.4 nothing of the ground's light would be left in blue.
MOST_HAZE = 0.2
_SHARES = ("dropout", "mix", "mix_again", "statistics", "covariance", "ease", "ease_to")
#: What leaves on the ground all that was there.
_LIGHT = (
    *("light_share", "gain", "band_gain", "tilt", "band_offset", "haze", "haze_share"),
    *("contrast", "brightness", "slope"),
)
#: What is eased at the end of a run.
_EASED = (
    *("gain", "band_gain", "tilt", "band_offset", "haze", "veil", "shadow", "dropout"),
    *(
        "contrast",
        "brightness",
        "slope",
        "gamma",
        "saturation",
        "hue",
        "grey_share",
        "shuffle_share",
    ),
)
