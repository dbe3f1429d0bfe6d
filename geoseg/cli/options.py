"""Options that several commands share, defined once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from geoseg.errors import UsageError

__all__ = [
    "Bbox",
    "Bytes",
    "Keys",
    "Overlap",
    "Percentiles",
    "Pixels",
    "asset_option",
    "band_options",
    "cloud_option",
    "device_options",
    "force_option",
    "json_option",
    "max_pixels_option",
    "model_option",
    "number_or_each",
    "output_options",
    "overwrite_option",
    "progress_option",
    "root_options",
    "scene_argument",
    "stretch_option",
]

F = TypeVar("F", bound=Callable[..., Any])


class Bbox(click.ParamType):  # type: ignore[type-arg]
    """``west,south,east,north``."""

    name = "W,S,E,N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """Parse the text.

        Raises:
            UsageError: it isn't four numbers.
        """
        if isinstance(value, tuple):
            return value
        try:
            west, south, east, north = (float(v) for v in str(value).replace(" ", ",").split(","))
        except ValueError as error:
            raise UsageError(
                f"--bbox {value!r}: give four numbers as west,south,east,north"
            ) from error
        return west, south, east, north


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """``2GB``, ``500MB``, ``1.5GiB`` or a number of bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the text.

        Raises:
            UsageError: it is no such size.
        """
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]*[.]?[0-9]+)\s*([kmgt]?)(i?)b?", str(value).strip().lower())
        if match is None:
            raise UsageError(f"{value!r} is no size of memory: write 2GB, 500MB or 1.5GiB")
        number, prefix, binary = match.groups()
        if len(number) > 30:
            raise UsageError(f"{number[:30]}... is more memory than there is; write 2GB or 500MB")
        return int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(prefix or " ")))


class Overlap(click.ParamType):  # type: ignore[type-arg]
    """A number of px, or ``auto``."""

    name = "PX|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Parse the text.

        Raises:
            UsageError: it is neither.
        """
        if value == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError as error:
            raise UsageError(f"--overlap {value!r}: give a number of px, or auto") from error


def _all(decorators: Sequence[Callable[[F], F]], function: F) -> F:
    """Give a command options, in the order in which they are listed."""
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def number_or_each(option: str, texts: tuple[str, ...], what: str) -> float | dict[str, float]:
    """Parse a repeatable option: one number for all classes, or class -> number.

    Args:
        option: its name.
        texts: as given, at least one.
        what: a number is, for the message, with an example of both forms.

    Raises:
        UsageError: the texts are neither.
    """
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return float(texts[0])
        pairs = [text.rpartition("=") for text in texts]
        if all(name for name, _, _ in pairs):
            return {name: float(value) for name, _, value in pairs}
    except ValueError:
        pass
    raise UsageError(f"{option} {' '.join(texts)}: give {what}")


def scene_argument(function: F) -> F:
    """Add SCENE...: one raster, a folder, or several one-band files."""
    return click.argument("scene", nargs=-1, required=True, metavar="SCENE...")(function)


def model_option(function: F) -> F:
    """Add -m/--model."""
    return click.option(
        "-m",
        "--model",
        help="Embedded model's name, or a model folder or .zip.  [default: the embedded one that "
        "suits the scene's bands and gsd]",
    )(function)


def band_options(function: F) -> F:
    """Add --bands, --band-names, --scale, --offset, --src-nodata and --nearblack."""
    decorators = (
        click.option(
            "-b",
            "--bands",
            help="Band numbers in the model's order (3,2,1); or names that the scene carries, in "
            "any order.",
        ),
        click.option(
            "--band-names",
            metavar="NAMES",
            help="What the scene's bands are, where it does not say it: one name a band, in the "
            "file's order (red,green,blue,nir).",
        ),
        click.option("--scale", type=float, help="Reflectance = number * SCALE + OFFSET."),
        click.option("--offset", type=float, help="The OFFSET of --scale.  [default: 0]"),
        click.option(
            "--src-nodata", type=float, help="The number in the scene that means: not measured."
        ),
        click.option(
            "--nearblack",
            is_flag=True,
            help="Make what is near black and connected to the scene's edge nodata: the collar of "
            "a JPEG picture.",
        ),
    )
    return _all(decorators, function)


class Percentiles(click.ParamType):  # type: ignore[type-arg]
    """``low,high``."""

    name = "LOW,HIGH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Parse the text.

        Raises:
            UsageError: it isn't two numbers.
        """
        if isinstance(value, tuple):
            return value
        try:
            low, high = (float(v) for v in str(value).split(","))
        except ValueError as error:
            raise UsageError(f"--stretch {value!r}: give two percentiles, such as 2,98") from error
        return low, high


def stretch_option(function: F) -> F:
    """Add --stretch."""
    return click.option(
        "--stretch",
        type=Percentiles(),
        help="For models of 8-bit pictures: two percentiles of the whole scene, such as 2,98, that "
        "become 0 and 255.",
    )(function)


class Keys(click.ParamType):  # type: ignore[type-arg]
    """A key, or several with commas between them."""

    name = "KEY"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Take the text apart."""
        if isinstance(value, tuple):
            return value
        return tuple(key for part in str(value).split(",") if (key := part.strip()))


def asset_option(function: F) -> F:
    """Add --asset, as ``assets``: one list of all keys."""
    return click.option(
        "--asset",
        "assets",
        multiple=True,
        type=Keys(),
        callback=lambda _, __, given: tuple(key for keys in given for key in keys),
        help="An asset of the STAC item that holds bands, by its key; repeatable, or with commas.  "
        "[default: all that are known to be bands]",
    )(function)


def cloud_option(function: F) -> F:
    """Add --clouds."""
    return click.option(
        "--clouds",
        default="auto",
        show_default=True,
        metavar="auto|none|clouds-ms|csmask|FILE",
        help="auto: what the scene's own cloud layer says is cloud or its shadow becomes nodata, "
        "without one what csmask says where it is installed, or where the scene looks cloudy the "
        "embedded model clouds-ms; none: it is mapped; clouds-ms, csmask: this model says it, or "
        "the network of ukis-csmask; FILE: a mask (0 and 1, or 0 and 255), a product's cloud "
        "layer, polygons of clouds, or the folder of a model of them.",
    )(function)


def root_options(function: F) -> F:
    """Add --input-root and --allow-vrt: where input files may point."""
    decorators = (
        click.option(
            "--input-root",
            multiple=True,
            type=click.Path(),
            metavar="FOLDER",
            help="A folder into which virtual rasters (VRT) may point, besides their own; "
            "repeatable.",
        ),
        click.option(
            "--allow-vrt",
            type=click.Choice(["local", "any"]),
            default="local",
            show_default=True,
            help="any: follow whatever a file names, servers included; for files you trust.",
        ),
    )
    return _all(decorators, function)


def device_options(function: F) -> F:
    """Add --device and --threads: where a model runs."""
    decorators = (
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="auto, cpu, cuda, cuda:N, cuda:all (all GPUs) or mps.",
        ),
        click.option("-j", "--threads", type=int, help="Threads for computing on a CPU."),
    )
    return _all(decorators, function)


def force_option(function: F) -> F:
    """Add --force."""
    return click.option(
        "--force", is_flag=True, help="Make the polygons even if there are more than 10 million."
    )(function)


class Pixels(click.ParamType):  # type: ignore[type-arg]
    """A number of pixels, such as ``2e11``."""

    name = "PIXELS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse the text.

        Raises:
            UsageError: it is no such number.
        """
        option = param.opts[-1] if param is not None else "the number of pixels"
        try:
            number = float(value)
        except ValueError as error:
            raise UsageError(f"{option} {value!r}: give a number, such as 2e11") from error
        if not number >= 1:
            raise UsageError(f"{option} is {value}; it must be at least 1")
        return number


def _limit_pixels(ctx: click.Context, _: click.Parameter, value: float | None) -> float | None:
    """Let the command, as long as it runs, open rasters of so many pixels."""
    if value is not None:
        from geoseg.scene.declared import pixel_limit

        ctx.with_resource(pixel_limit(value))
    return value


def max_pixels_option(function: F) -> F:
    """Add --max-pixels: for the rasters that a command opens."""
    return click.option(
        "--max-pixels",
        type=Pixels(),
        callback=_limit_pixels,
        expose_value=False,
        help="Refuse rasters that hold more pixels.  [default: 1e11]",
    )(function)


def overwrite_option(function: F) -> F:
    """Add --overwrite."""
    return click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")(function)


def progress_option(function: F) -> F:
    """Add --progress."""
    return click.option(
        "--progress",
        type=click.Choice(["auto", "json", "none"]),
        default="auto",
        show_default=True,
        help="A bar on a terminal, JSON lines on standard output, or nothing.",
    )(function)


def output_options(function: F) -> F:
    """Add -v and -q."""
    decorators = (
        click.option(
            "-v",
            "--verbose",
            count=True,
            help="Print more details; -vv shows tracebacks.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors."),
    )
    return _all(decorators, function)


def json_option(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
