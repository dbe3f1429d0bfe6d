"""Options that several commands share, defined once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from geoseg.errors import UsageError

__all__ = [
    "Bbox",
    "Bytes",
    "Overlap",
    "band_options",
    "device_options",
    "force_option",
    "json_option",
    "model_option",
    "scene_argument",
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


def scene_argument(function: F) -> F:
    """SCENE...: one raster, a folder, or several one-band files."""
    return click.argument("scene", nargs=-1, required=True, metavar="SCENE...")(function)


def model_option(function: F) -> F:
    """-m/--model."""
    return click.option(
        "-m",
        "--model",
        help="Embedded model's name, or a model folder or .zip.  [default: the embedded one that "
        "suits the scene's bands and gsd]",
    )(function)


def band_options(function: F) -> F:
    """What the scene's bands and numbers are."""
    decorators = (
        click.option(
            "-b",
            "--bands",
            help="Band numbers or labels in the model's order (3,2,1); or, for a scene without "
            "band names, what its bands are (red,green,blue,nir).",
        ),
        click.option("--scale", type=float, help="Reflectance = number * SCALE + OFFSET."),
        click.option("--offset", type=float, help="See --scale.  [default: 0]"),
        click.option("--src-nodata", type=float, help="The number that means: not measured."),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def device_options(function: F) -> F:
    """Where a model runs."""
    decorators = (
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
        ),
        click.option("-j", "--threads", type=int, help="Threads for computing on a CPU."),
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def force_option(function: F) -> F:
    """--force."""
    return click.option("--force", is_flag=True, help="Make more than 10 million polygons, too.")(
        function
    )


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
