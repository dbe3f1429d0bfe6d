"""``geoseg train``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The new model folder."
)
@click.option("--no-resume", is_flag=True, help="Start anew instead of going on.")
@click.option("-q", "--quiet", is_flag=True, help="Say only warnings and errors.")
@click.option("-v", "--verbose", count=True, help="-vv shows tracebacks.")
def command(config: Path, output: Path, no_resume: bool, quiet: bool, verbose: int) -> None:
    """Teach a network from a TOML config file.

    A run that was stopped goes on where it was when the same command is given again.
    """
    from geoseg.training import train

    card = train(config, output, resume=not no_resume, progress=None if quiet else click.echo)
    if not quiet:
        click.echo(f"{card.name} is in {output}; use it with geoseg predict SCENE -m {output}")
