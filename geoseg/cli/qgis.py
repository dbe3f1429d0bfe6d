"""``geoseg qgis``: install, remove, zip, status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli.options import json_option, overwrite_option
from geoseg.cli.streams import print_json

__all__ = ["command"]

_profile_option = click.option(
    "--profile", help="Name of a QGIS profile, or its folder.  [default: the only one]"
)


@click.group("qgis")
def command() -> None:
    """Bring geoseg into QGIS' Processing toolbox, or out of it again.

    The plugin runs this geoseg in its own environment; nothing is installed into QGIS' Python.
    """


@command.command("install")
@_profile_option
def install_command(profile: str | None) -> None:
    """Copy the plugin into a QGIS profile, and enable it."""
    from geoseg.qgis.installing import install

    made = install(profile)
    click.echo(f"installed in  {made.profile.plugin}")
    click.echo(f"it runs       {made.program}")
    if made.replaced:
        click.echo(f"instead of    {made.replaced}")
    click.echo("Restart QGIS; the algorithms are in the Processing toolbox under geoseg.")
    click.echo("To undo:      geoseg qgis remove")


@command.command("remove")
@click.option("--profile", help="Name of a QGIS profile, or its folder.  [default: all]")
def remove_command(profile: str | None) -> None:
    """Remove the plugin and its settings."""
    from geoseg.qgis.installing import remove

    removed = remove(profile)
    for before in removed:
        click.echo(f"removed from  {before.profile.folder}")
    click.echo("Restart QGIS." if removed else "The plugin is in no QGIS profile.")


@command.command("zip")
@click.option("-o", "--output", type=click.Path(), default="geoseg_qgis.zip", show_default=True)
@overwrite_option
def zip_command(output: str, overwrite: bool) -> None:
    """Pack the plugin for QGIS' plugin manager (Install from ZIP)."""
    from geoseg.qgis.installing import write_zip

    write_zip(Path(output), overwrite=overwrite)
    click.echo(f"wrote {output}")


@command.command("status")
@json_option
def status_command(as_json: bool) -> None:
    """Show where the plugin is installed, which version, and what it runs."""
    from geoseg.qgis.installing import plugin_version, status

    own = plugin_version()
    rows: list[dict[str, Any]] = [
        {
            "profile": one.profile.name,
            "folder": str(one.profile.folder),
            "version": one.version,
            "this_version": own,
            "enabled": one.enabled,
            "program": one.program,
            "trouble": one.trouble,
        }
        for one in status()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['profile']}  {row['folder']}")
        if row["trouble"]:
            click.echo(f"  {row['trouble']}")
            continue
        if row["version"] is None:
            click.echo("  the plugin is not installed")
            continue
        other = "" if row["version"] == own else f"; this geoseg brings {own}: geoseg qgis install"
        click.echo(f"  plugin {row['version']}{'' if row['enabled'] else ', disabled'}{other}")
        click.echo(f"  runs {row['program'] or 'the geoseg on the PATH'}")
    if not rows:
        click.echo("no QGIS profile was found; start QGIS once, which makes one")
