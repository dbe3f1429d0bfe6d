"""One HTML page of an evaluation: nothing is fetched, nothing runs, pictures are within."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from geoseg.core.pages import page_text, share_bar, shown, table
from geoseg.evaluation.thumbnails import RGB, RIGHT, WRONG, Pictures, png

__all__ = ["page"]


def page(report: Mapping[str, Any], pictures: Pictures, colors: Mapping[int, RGB]) -> str:
    """Write an evaluation's report as a page.

    Args:
        report: of :func:`geoseg.evaluate`.
        pictures: of the map, and of its labels where there are some.
        colors: of the classes by id.

    Returns:
        The text of the HTML file.
    """
    by_points = "points" in report
    truth = str(report["points" if by_points else "labels"])
    parts = [
        f"<h1>{escape(_name(report['map']))} against {escape(_name(truth))}</h1>",
        _facts(report, truth),
        *(f'<p class="warning">{escape(w)}</p>' for w in report["warnings"]),
    ]
    if by_points:
        parts += _points(report, colors)
    else:
        parts += _labels(report, colors)
    parts += _maps(pictures, colors)
    if "calibration" in report:
        parts += _calibration(report["calibration"])
    return page_text(f"{_name(report['map'])}: evaluation", parts)


def _name(path: Any) -> str:
    """Give the last part of a path or address."""
    return str(path).rstrip("/").rsplit("/", 1)[-1]


def _words(key: str) -> str:
    return key.replace("_", " ")


def _facts(report: Mapping[str, Any], truth: str) -> str:
    """Write what was compared, and how much was counted."""
    rows = [("map", report["map"])]
    if "model" in report:
        model, speed = report["model"], report["speed"]
        rows = [
            ("model", f"{model['name']} ({model['path']})"),
            ("sha256", model["sha256"]),
            ("scene", ", ".join(map(str, report["scene"]))),
            ("speed", f"{speed['mpx_s']:.3g} Mpx/s on {speed['device']}"),
        ]
    rows.append(("points" if "points" in report else "labels", truth))
    if "column" in report:
        rows.append(("column", report["column"]))
    rows += [(_words(k), shown(v)) for k, v in report["counted"].items()]
    cells = ((f"<th>{escape(k)}</th>", f'<td class="text">{escape(str(v))}</td>') for k, v in rows)
    return table((), cells)


def _class_cell(entry: Mapping[str, Any], colors: Mapping[int, RGB]) -> str:
    red, green, blue = colors.get(entry["id"], (128, 128, 128))
    return (
        f'<td class="text"><span class="swatch" style="background:rgb({red},{green},{blue})">'
        f"</span>{escape(str(entry['name']))}</td>"
    )


def _labels(report: Mapping[str, Any], colors: Mapping[int, RGB]) -> list[str]:
    """Write what is known from labels."""
    parts = ["<h2>The whole map</h2>"]
    values = [(f"<th>{escape(_words(k))}</th>", shown(v)) for k, v in report["measures"].items()]
    parts.append(table((), values))
    classes = report["classes"]
    shares = [
        ("iou", "IoU"),
        ("f1", "F1"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("boundary_f1", "boundary F1"),
        ("polygons_right", "polygons right"),
        ("polygons_median_share", "median share of a polygon"),
    ]
    shares = [(key, title) for key, title in shares if key in classes[0]]
    numbers = [("labelled_pixels", "labelled px"), ("mapped_pixels", "mapped px")]
    numbers += [("polygons", "polygons")] if "polygons" in classes[0] else []
    rows = (
        [
            _class_cell(c, colors),
            *(shown(c[key]) for key, _ in numbers),
            *(share_bar(c[key]) for key, _ in shares),
        ]
        for c in classes
    )
    parts.append("<h2>The classes</h2>")
    parts.append(table(["class", *(t for _, t in numbers), *(t for _, t in shares)], rows))
    if "boundaries" in report:
        tolerance = report["boundaries"]["tolerance_m"]
        parts.append(f"<p>Borders are met within {tolerance:.6g} m.</p>")
    parts.append("<h2>What became of the labels</h2>")
    parts.append(_confusion(classes, report["counts"]["pixels"], colors, "labels", "map"))
    return parts


def _confusion(
    classes: Sequence[Mapping[str, Any]],
    counts: Sequence[Sequence[float]],
    colors: Mapping[int, RGB],
    rows_are: str,
    columns_are: str,
) -> str:
    """Write counts, or shares of the whole, shaded by their share of the row."""
    rows = []
    for entry, row in zip(classes, counts, strict=True):
        total = sum(row)
        cells = [_class_cell(entry, colors)]
        for n in row:
            share = n / total if total else 0.0
            cells.append(
                f'<td style="background:rgba(var(--bar),{0.75 * share:.3f})" '
                f'title="{share:.1%} of the row">{shown(n)}<br>{share:.1%}</td>'
            )
        rows.append([*cells, shown(total)])
    head = [f"{rows_are} \\ {columns_are}", *(str(c["name"]) for c in classes), "sum"]
    return table(head, rows)


def _points(report: Mapping[str, Any], colors: Mapping[int, RGB]) -> list[str]:
    """Write what is known from points."""
    unit = {"m2": "m²", "px": "px"}[report["area_unit"]]
    rows = (
        [
            _class_cell(c, colors),
            shown(c["points"]),
            _interval(c["users_accuracy"], 3),
            _interval(c["producers_accuracy"], 3),
            f"{c['mapped_area']:.6g}",
            _interval(c["area"], None),
        ]
        for c in report["classes"]
    )
    overall = _interval(report["overall_accuracy"], 4)
    shares = list(zip(*report["area_shares"]["shares"], strict=True))  # of reference by map
    return [
        f"<p>Overall accuracy {overall}; ± is half of the 95 % interval.</p>",
        "<h2>The classes</h2>",
        table(
            ["class", "points", "user's", "producer's", f"mapped, {unit}", f"area, {unit}"], rows
        ),
        "<h2>Points by what is there and what the map says</h2>",
        _confusion(report["classes"], report["counts"]["points"], colors, "reference", "map"),
        "<h2>Share of the mapped area by what is there and what the map says</h2>",
        _confusion(report["classes"], shares, colors, "reference", "map"),
    ]


def _interval(found: Mapping[str, float | None], digits: int | None) -> str:
    """Write an estimate and half of its 95 % interval, with so many digits."""
    value, low, high = found["value"], found["low"], found["high"]
    if value is None:
        return "–"
    form = "{:.6g}" if digits is None else f"{{:.{digits}f}}"
    margin = "?" if low is None or high is None else form.format((high - low) / 2)
    return f"{form.format(value)} ± {margin}"


def _image(data: bytes, title: str, kind: str) -> str:
    text = base64.b64encode(data).decode("ascii")
    return (
        f'<figure><img class="{kind}" alt="{escape(title)}" '
        f'src="data:image/png;base64,{text}"><figcaption>{escape(title)}</figcaption></figure>'
    )


def _maps(pictures: Pictures, colors: Mapping[int, RGB]) -> list[str]:
    parts = ["<h2>Pictures</h2>"]
    if pictures.every > 1:
        parts.append(f"<p>One pixel of every {pictures.every} in each direction.</p>")
    parts.append(_image(png(pictures.paint(pictures.mapped, colors)), "the map", "map"))
    labels, agreement = pictures.labels, pictures.agreement()
    if labels is not None and agreement is not None:
        parts.append(_image(png(pictures.paint(labels, colors)), "the labels", "map"))
        parts.append(_image(png(agreement), "where they agree", "map"))
        swatches = " ".join(
            f'<span class="swatch" style="background:rgb{color}"></span>{text}&ensp;'
            for color, text in ((RIGHT, "the same"), (WRONG, "different"))
        )
        parts.append(f"<p>{swatches} nothing where one of them is missing.</p>")
    return parts


def _calibration(found: Mapping[str, Any]) -> list[str]:
    fitted = found["temperature"]
    rows = [(f"<th>{escape(k.upper())}</th>", shown(found[k])) for k in ("ece", "mce")]
    rows += [
        ("<th>Brier score</th>", shown(found["brier"])),
        ("<th>NLL</th>", shown(found["nll"])),
    ]
    rows.append(("<th>temperature that fits</th>", shown(fitted["value"])))
    rows.append(("<th>ECE with it</th>", shown(fitted["ece_after"])))
    return [
        "<h2>Are the probabilities right?</h2>",
        _image(_diagram(found["bins"]), "share that is right by probability", "chart"),
        table((), rows),
        f"<p>The temperature was fitted to {shown(fitted['sampled_pixels'])} of "
        f"{shown(found['pixels'])} pixels.</p>",
    ]


def _diagram(bins: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw reliability above, pixels below, in inks for dark and light grounds; PNG."""
    # The object interface: pyplot would open a window system and keep the figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, width = "#808080", bins[0]["high"] - bins[0]["low"]
    figure = Figure(figsize=(4.6, 5.2), dpi=110)
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    full = [b for b in bins if b["pixels"]]
    places = [b["low"] for b in full]
    upper.bar(places, [b["accuracy"] for b in full], width, align="edge", color="#4a86c5",
              edgecolor=ink, linewidth=0.6)  # fmt: skip
    upper.plot([0, 1], [0, 1], "--", color=ink, linewidth=1)
    upper.plot([b["confidence"] for b in full], [b["accuracy"] for b in full], "o",
               color="#d9822b", markersize=4)  # fmt: skip
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
    total = sum(b["pixels"] for b in full) or 1
    lower.bar(places, [b["pixels"] / total for b in full], width, align="edge", color="#4a86c5",
              edgecolor=ink, linewidth=0.6)  # fmt: skip
    lower.set(xlabel="probability of the mapped class", ylabel="pixels")
    for axis in (upper, lower):
        axis.set_facecolor("none")
        axis.tick_params(colors=ink)
        axis.xaxis.label.set_color(ink)
        axis.yaxis.label.set_color(ink)
        for spine in axis.spines.values():
            spine.set_color(ink)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
