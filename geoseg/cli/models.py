"""``geoseg models``: list, show, import."""

from __future__ import annotations

import json

import click

from geoseg.cli.options import json_option

__all__ = ["command"]


@click.group("models")
def command() -> None:
    """List, show and import models."""


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The embedded models."""
    from geoseg.zoo import find_model, list_embedded

    cards = [find_model(name).card for name in list_embedded()]
    if as_json:
        entries = [
            {
                "name": c.name,
                "network": c.network,
                "bands": list(c.bands),
                "classes": [k.name for k in c.classes],
                "gsd_range": list(c.gsd_range),
                "license": c.license,
                "description": c.description,
            }
            for c in cards
        ]
        click.echo(json.dumps(entries, indent=2))
        return
    for c in cards:
        low, high = c.gsd_range
        click.echo(
            f"{c.name:<16} {len(c.classes)} classes  {low:g}-{high:g} m  {','.join(c.bands)}"
        )


@command.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """One model's card. NAME is an embedded model, a model folder or a .zip."""
    from geoseg.zoo import find_model

    files = find_model(name)
    card = files.card
    if as_json:
        click.echo(json.dumps(card.to_mlm(), indent=2, ensure_ascii=False))
        return
    click.echo(f"{card.name}: {card.description}")
    low, high = card.gsd_range
    rows = {
        "network": f"{card.network} {dict(card.network_options) or ''}".strip(),
        "bands": ", ".join(card.bands),
        "numbers": card.quantity,
        "gsd": f"{card.gsd:g} m, takes {low:g} to {high:g} m",
        "chips": f"{card.size} px, overlap {card.overlap} px, margin {card.margin} px",
        "license": card.license,
        "sha256": files.sha256,
        "made": card.provenance,
    }
    for key, value in rows.items():
        click.echo(f"  {key:<8} {value}")
    click.echo("  classes")
    for c in card.classes:
        click.echo(f"    {c.id:>3} {c.color} {c.name}")
    if card.scores:
        click.echo("  scores")
        for key, score in card.scores.items():
            click.echo(f"    {key}: {score}")


@command.command("import")
@click.argument("source", type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="The new model folder.")
@json_option
def import_command(source: str, output: str, as_json: bool) -> None:
    """Turn a release into a geoseg model folder.

    SOURCE is a Dynamic World release (a folder with weights.npz), a geoseg model folder or .zip.
    """
    from geoseg.models import import_model

    card = import_model(source, output)
    if as_json:
        click.echo(json.dumps(card.to_mlm(), indent=2, ensure_ascii=False))
        return
    click.echo(f"{card.name} is in {output}; use it with geoseg predict SCENE -m {output}")
