"""HTML pages that stand alone: nothing is fetched, nothing runs, pictures are within."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from typing import Any

from geoseg.core.ownership import HTML_MARK

__all__ = ["page_text", "share_bar", "shown", "table"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --line: #c8c8c8;
  --soft: #f2f2f2; --bar: 49, 110, 180; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #181a1b; --line: #4a4d50;
  --soft: #25282a; --bar: 90, 155, 230; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .25rem .55rem; text-align: right; }
th { background: var(--soft); font-weight: 600; }
th:first-child, td.text { text-align: left; }
td.bar { background-image: linear-gradient(rgba(var(--bar), .35), rgba(var(--bar), .35));
  background-repeat: no-repeat; }
.swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid var(--line);
  margin-right: .4em; vertical-align: -.1em; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 100%; }
figure img { max-width: 100%; border: 1px solid var(--line); }
img.map { width: 21rem; image-rendering: pixelated; }
figcaption { font-size: .9em; }
.warning { border-left: 4px solid #d08a00; padding-left: .7rem; }
footer { margin-top: 3rem; font-size: .85em; opacity: .75; }
"""


def page_text(title: str, parts: Iterable[str]) -> str:
    """Put a page together.

    Args:
        title: of the window, as text.
        parts: of the body, as HTML.

    Returns:
        The text of the HTML file; :func:`geoseg.core.ownership.is_ours` knows it by its mark.
    """
    footer = f"<footer>geoseg {escape(version('geoseg'))}</footer>"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{HTML_MARK}\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join([*parts, footer])
        + "\n</body>\n</html>\n"
    )


def shown(value: Any) -> str:
    """Write a number for people.

    Args:
        value: a number, None for one that is unknown, or a text.
    """
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ")
    return f"{value:.4f}" if isinstance(value, float) and abs(value) < 1000 else f"{value}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table.

    Args:
        head: its columns' titles, as text; none for a table of facts.
        rows: of cells, which are HTML already: a whole ``<td>`` or ``<th>``, or what is in one.
    """
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "\n".join(
        "<tr>" + "".join(c if c.startswith("<t") else f"<td>{c}</td>" for c in row) + "</tr>"
        for row in rows
    )
    header = f"<thead><tr>{top}</tr></thead>\n" if head else ""
    return f'<div class="wide"><table>\n{header}<tbody>\n{body}\n</tbody></table></div>'


def share_bar(value: float | None, text: str | None = None, width: str = "") -> str:
    """Write a share as a cell of a table, with a bar.

    Args:
        value: 0 to 1; None where it is unknown.
        text: what is written in it; the share by default.
        width: of the cell at least, as CSS has it.
    """
    if value is None:
        return "<td>–</td>"
    size = 100 * min(max(value, 0.0), 1.0)
    written = f"{value:.4f}" if text is None else escape(text)
    least = f";min-width:{width}" if width else ""
    return f'<td class="bar" style="background-size:{size:.2f}% 100%{least}">{written}</td>'
