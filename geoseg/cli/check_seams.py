"""``geoseg check-seams``."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import json_option, root_options
from geoseg.cli.streams import print_json
from geoseg.core.wording import counted

__all__ = ["command"]

_KINDS = {
    "interior": "elsewhere",
    "begins": "chips begin",
    "middle": "middle of overlap",
    "ends": "chips end",
    "blend": "whole blend",
}


@click.command("check-seams")
@click.argument("raster", metavar="CLASS_RASTER", type=click.Path())
@click.option("--size", type=int, help="Chip side, px.  [default: from the raster's tags]")
@click.option(
    "--overlap", type=int, help="Pixels two chips share.  [default: from the raster's tags]"
)
@click.option(
    "--multiple",
    type=int,
    default=1,
    show_default=True,
    help="With --size: chips lie at multiples of this, px.",
)
@root_options
@json_option
def command(raster: str, as_json: bool, **options: Any) -> None:
    """Measure whether a map shows where its chips met, or a lattice.

    CLASS_RASTER is what geoseg predict wrote. How often classes change from one pixel to the next
    is compared across the lines where chips begin, end and are blended, and across all others.

    Of a class raster of any program, lattices are looked for: rows or columns that stand out every
    2 to 256 px.
    """
    from geoseg.evaluation.seam_check import check_seams

    found = check_seams(raster, **options)
    if as_json:
        print_json(found.report)
        return
    if found.report["chips"]:
        _echo_chips(found.report)
        click.echo(found.message)
    click.echo(found.report["lattice"]["message"])


def _echo_chips(report: dict[str, Any]) -> None:
    chips = report["chips"]
    click.echo(
        f"{counted(chips['total'], 'chip')} of {chips['size']} px, {chips['stride']} px apart"
    )
    click.echo(f"{'between':<10}{'lines where':<20}{'lines':>8}{'changes':>10}{'times':>8}")
    for name, axis in report["axes"].items():
        for kind, words in _KINDS.items():
            entry = axis[kind]
            if entry["share"] is not None:
                ratio = entry.get("ratio")
                times = "" if ratio is None else f"{ratio:.2f}"
                click.echo(
                    f"{name:<10}{words:<20}{entry['lines']:>8}{entry['share']:>10.3%}{times:>8}"
                )
