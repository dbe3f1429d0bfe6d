"""Fill the pages of the manual with what the code says: options, events, recipes, cards, errors.

MkDocs calls :func:`on_page_markdown` for each page. A line ``<!-- generate: WHAT NAME -->`` becomes
the tables that :data:`MADE` makes of the code. Classes are read as text, so that nothing heavy is
imported and no extra is needed.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "geoseg"
DOCS = ROOT / "docs"

#: A line that stands for what is made, and the one before it for who reads the source.
MARK = re.compile(
    r"^(?:\*In the repository: .*\*\n\n)?<!-- generate: (\w+) ?(.*?) -->$", re.MULTILINE
)
#: Roles of Sphinx in docstrings.
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?")


# What MkDocs calls


def on_page_markdown(markdown: str, *, page: Any = None, **_: Any) -> str:
    """Replace the marks of a page."""
    return MARK.sub(lambda match: MADE[match[1]](match[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Mark short code in sentences: manual.css keeps an option's name on one line."""
    return re.sub(r"<code>(?=[^<]{1,40}</code>)", '<code class="short">', html)


# Classes


@cache
def _classes() -> dict[str, list[ast.ClassDef]]:
    """All classes of the package, by name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


@cache
def _constants() -> dict[str, Any]:
    """The constants of the package that are literals, by name."""
    found: dict[str, Any] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                with contextlib.suppress(ValueError):
                    found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def class_source(name: str) -> ast.ClassDef:
    """A class of the package by its name.

    Raises:
        LookupError: there is none, or more than one.
    """
    found = _classes().get(name, [])
    if len(found) != 1:
        raise LookupError(f"{len(found)} classes are called {name}")
    return found[0]


def described(node: ast.ClassDef) -> tuple[str, dict[str, str]]:
    """The text of a class's docstring, and what it says of each attribute."""
    text = ast.get_docstring(node) or ""
    head, _, rest = text.partition("\nAttributes:\n")
    attributes: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if match := re.match(r" {4}(\w+): (.*)", line):
            name = match[1]
            attributes[name] = match[2]
        elif line.startswith(" " * 8) and name:
            attributes[name] += " " + line.strip()
        elif line.strip():
            break
    return plain(head), {key: plain(value) for key, value in attributes.items()}


def plain(text: str) -> str:
    """A docstring's reStructuredText as Markdown."""
    text = ROLE.sub("`", text).replace("``", "`")
    text = re.sub(r"`geoseg(?:\.\w+)*\.(\w+)`", r"`\1`", text)
    return re.sub(r"(?<![<(])https://[^\s),;]+", r"<\g<0>>", text).strip()


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Name, type and default of the fields of a dataclass or TypedDict."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            default = "" if line.value is None else ast.unparse(line.value)
            if match := re.fullmatch(r"field\(default_factory=(\w+)\)", default):
                default = {"dict": "{}", "tuple": "()"}.get(match[1], f"{match[1]}()")
            elif re.fullmatch(r"[A-Z_]{3,}(\[\d\])?", default):
                default = repr(eval(default, {}, _constants()))
            yield line.target.id, ast.unparse(line.annotation), default


def cell(text: str) -> str:
    """Text that may stand in a cell of a table: Python-Markdown takes bars in code as they are."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(p if p.startswith("`") else p.replace("|", "\\|") for p in parts)


def prose(text: str) -> str:
    """The text of a command's help as Markdown: commands and options as code, and no HTML."""
    names, values = _commands()
    option = r"--?[a-z][\w-]*"
    chosen = "|".join(rf"{o} (?:{'|'.join(v)})" for o, v in values.items())
    given = rf"(?:(?:{chosen})(?![\w-])|{option})"
    one = "|".join(map(re.escape, names))
    span = rf"geoseg (?:{one})(?: {given})?|(?:{one}) {given}|{given}"
    text = re.sub(rf"(?<![\w`-])({span})(?![\w-])", r"`\1`", text)
    return re.sub(r"<(\w+)>(\S*\w)", r"`<\1>\2`", text)


@cache
def _commands() -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The names of all commands, the longest first, and the words that options may be."""
    import click

    from geoseg.cli.app import _cli

    context = click.Context(_cli, info_name="geoseg")
    names: list[str] = []
    values: dict[str, list[str]] = {"--overlap": ["auto"]}

    def look(group: click.Group, before: str) -> None:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            names.append(before + name)
            for parameter in command.params:
                if isinstance(parameter.type, click.Choice):
                    for option in parameter.opts:
                        values.setdefault(option, []).extend(map(str, parameter.type.choices))
            if isinstance(command, click.Group):
                look(command, f"{before}{name} ")

    look(_cli, "")
    return tuple(sorted(names, key=len, reverse=True)), values


def option_text(text: str) -> str:
    """The help of an option, with what click puts after it in brackets as sentences."""
    body, notes = text, ""
    if match := re.search(r"(?:\s*\[[^][]*\])+$", text):
        body = text[: match.start()]
        for note in re.findall(r"\[([^][]*)\]", match[0]):
            # A default may have semicolons of its own.
            head, _, tail = note.rpartition("; ")
            for part in [head, tail] if head and _bounds(tail) else [note]:
                notes += f" {_bounds(part) or part[0].upper() + part[1:]}."
    return prose(body + notes)


def _bounds(note: str) -> str:
    """What click says of a range of numbers, in words; nothing for other notes."""
    if match := re.fullmatch(r"(?:(\S+)<=)?x(?:<=(\S+))?|x>=(\S+)", note):
        low, high = match[1] or match[3], match[2]
        if low and high:
            return f"From {low} to {high}"
        return f"At least {low}" if low else f"At most {high}"
    return ""


def _kind(annotation: str, linked: set[str]) -> str:
    """A type for people, with links to those that have a section of their own."""
    if match := re.fullmatch(r"NotRequired\[(.*)\]", annotation):
        return f"{_kind(match[1], linked)}, optional"
    if annotation.startswith("Literal["):
        names = ast.literal_eval(annotation.removeprefix("Literal"))
        return " or ".join(f"`{name}`" for name in names)
    if annotation in linked:
        return f"[{annotation}](#{annotation.lower()})"
    return f"`{annotation}`"


def class_table(name: str, *, linked: set[str] | None = None) -> str:
    """What a class is, and its fields."""
    return f"{described(class_source(name))[0]}\n\n{field_table(name, linked=linked)}"


def field_table(name: str, *, linked: set[str] | None = None) -> str:
    """The fields of a class: name, type, default and meaning."""
    node = class_source(name)
    meanings = described(node)[1]
    rows = list(fields(node))
    has_defaults = any(default for _, _, default in rows)
    head = "| field | type | default | meaning |" if has_defaults else "| field | type | meaning |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for field, annotation, default in rows:
        cells = [f"`{field}`", _kind(annotation, linked or set())]
        if has_defaults:
            cells.append(f"`{default}`" if default else "required")
        cells.append(meanings.get(field, ""))
        lines.append(f"| {' | '.join(cell(c) for c in cells)} |")
    return "\n".join(lines)


# Pages


def events(_: str) -> str:
    """All events and what they are made of, as geoseg/events.py has them."""
    source = (PACKAGE / "events.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    named = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    # Why the file is long is for those who read the file.
    head = (ast.get_docstring(tree) or "").partition("\n")[2].partition("\n\nThe file is long")[0]
    union = re.search(r"^Event = \((.*?)\)", source, re.MULTILINE | re.DOTALL)
    assert union is not None
    sent = [name for name in re.findall(r"\w+", union[1]) if name in named]
    parts = [plain(head), "## Events at a glance", "| event | stage | section |\n|---|---|---|"]
    for name in sent:
        kinds = {field: annotation for field, annotation, _ in _inherited(named, name)}
        event, stage = (_kind(kinds[k], set()) if k in kinds else "" for k in ("event", "stage"))
        parts[-1] += f"\n| {event} | {stage} | [{name}](#{name.lower()}) |"
    parts.append("## Each event")
    parts += [f"### {name}\n\n{_with_base(named, name)}" for name in sent]
    parts.append("## What events hold")
    held = [name for name in named if name not in sent]
    parts += [f"### {name}\n\n{_with_base(named, name)}" for name in held]
    return "\n\n".join(parts)


def _inherited(named: dict[str, ast.ClassDef], name: str) -> list[tuple[str, str, str]]:
    bases = [b.id for b in named[name].bases if isinstance(b, ast.Name) and b.id in named]
    return [*(f for base in bases for f in _inherited(named, base)), *fields(named[name])]


def _with_base(named: dict[str, ast.ClassDef], name: str) -> str:
    bases = [b.id for b in named[name].bases if isinstance(b, ast.Name) and b.id in named]
    table = class_table(name, linked=set(named))
    links = ", ".join(f"[{base}](#{base.lower()})" for base in bases)
    return f"{table}\n\nAnd all fields of {links}." if bases else table


def errors(_: str) -> str:
    """The tree of errors, and what each means."""
    tree = ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    lines = ["| error | is a | means | exit code |", "|---|---|---|---|"]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(f"`{ast.unparse(base)}`" for base in node.bases)
            code = {"GeosegError": 1, "UsageError": 2, "TooManyPolygonsError": 2}.get(node.name, 1)
            lines.append(f"| `{node.name}` | {bases} | {cell(described(node)[0])} | {code} |")
    return "\n".join(lines)


def sensors(_: str) -> str:
    """The sensors that are known by name, with their bands and the meaning of their numbers."""
    from geoseg.scene.sensors import SENSORS

    lines = ["| sensor | bands by code | whole numbers mean |", "|---|---|---|"]
    for sensor in SENSORS:
        codes = ", ".join(f"{code} {name}" for code, name in sensor.codes.items())
        if sensor.scale is None:
            meaning = f"not known: {sensor.why}"
        else:
            sign = "-" if sensor.offset < 0 else "+"
            offset = f" {sign} {abs(sensor.offset):g}" if sensor.offset else ""
            scale = f"{sensor.scale:.9f}".rstrip("0")
            meaning = f"reflectance = number * {scale}{offset} ({sensor.why})"
        lines.append(f"| {sensor.name} | {cell(codes) or 'by name only'} | {cell(meaning)} |")
    return "\n".join(lines)


def public(_: str) -> str:
    """The public names, with a line each."""
    import geoseg

    lines = ["| name | is for |", "|---|---|"]
    for name in geoseg.__all__:
        if name == "__version__":
            lines.append("| `geoseg.__version__` | The version, as text. |")
            continue
        text = summary(name)
        lines.append(f"| [`geoseg.{name}`][geoseg.{name}] | {cell(text)} |")
    return "\n".join(lines)


def summary(name: str) -> str:
    """The first line of a public name's docstring, read as text: train's needs an extra."""
    import geoseg

    module, attribute = geoseg._PUBLIC[name]
    path = ROOT / Path(*module.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == attribute:
                return plain((ast.get_docstring(node) or "").partition("\n\n")[0])
    return ""


def include(name: str) -> str:
    """A page of the repository, with its links as they are from here."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    # Drawings are as wide as a terminal.
    text = re.sub(r"^```\n(.*?)^```$", r"``` {.text .drawing}\n\1```", text, flags=re.M | re.S)
    text = re.sub(r"\]\((DESIGN|CONTRIBUTING|CHANGELOG)\.md", lambda m: m[0].lower(), text)

    def there(match: re.Match[str]) -> str:
        target = match[2].partition("#")[0]
        known = re.match(r"https?://|#", match[2]) or (DOCS / target).is_file()
        return match[0] if known else match[1]  # a file of the repository is not in the manual

    return re.sub(r"(?<!!)\[([^]]+)\]\(([^)]+)\)", there, text)


def file(name: str) -> str:
    """A file of the repository as a block."""
    path = ROOT / name
    text = path.read_text(encoding="utf-8").rstrip()
    return f"```{path.suffix[1:]}\n{text}\n```"


# The command line


def cli(_: str) -> str:
    """Every command and its options."""
    import click

    from geoseg.cli.app import _cli

    context = click.Context(_cli, info_name="geoseg")
    parts = []
    for name in _cli.list_commands(context):
        command = _cli.get_command(context, name)
        assert command is not None
        parts += _command(command, f"geoseg {name}", context, level=2)
    return "\n\n".join(parts)


def _command(command: Any, name: str, parent: Any, *, level: int) -> Iterator[str]:
    import click

    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield f"{'#' * level} {name}"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{name} {usage}\n```"
    yield prose(inspect.cleandoc(command.help or ""))
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from _command(found, f"{name} {inner}", context, level=level + 1)
        return
    lines = ["| option | does |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            option, text = record
            lines.append(f"| {cell(f'`{option}`')} | {cell(option_text(text))} |")
    if len(lines) > 2:
        yield "\n".join(lines)


#: What stands for what.
# The embedded models


def model(name: str) -> str:
    """What the card of an embedded model says: classes, scores, probabilities, sources."""
    from geoseg.zoo import find_model

    return card_page(find_model(name).card)


def card_page(card: Any) -> str:
    """What any card says."""
    from geoseg.cards.reading import calibration_lines, flat_scores, meaning_rows, taught_line

    lines = [card.description, "", "| | |", "|---|---|"]
    lines += [f"| {key} | {cell(value)} |" for key, value in meaning_rows(card).items()]
    lines += ["", "### Classes", "", "| id | class | colour |", "|---|---|---|"]
    swatch = '<span style="background:{}">&emsp;</span> `{}`'
    lines += [f"| {c.id} | {c.name} | {swatch.format(c.color, c.color)} |" for c in card.classes]
    lines += ["", "### Scores", "", "| what | found |", "|---|---|"]
    lines += [f"| {cell(key)} | {cell(value)} |" for key, value in flat_scores(card)]
    lines += ["", "### Probabilities", ""]
    told = calibration_lines(card)
    lines += [f"- {line}" for line in told] or [
        "How right they are was not measured with labels that did not teach it: take a confidence "
        "for an order, and no more."
    ]
    if told:
        lines += ["", reliability(card.scores["calibration"]["bins"])]
    lines += [
        "",
        "### How it was made",
        "",
        card.provenance,
        "",
        f"For `predict`, {taught_line(card)}.",
    ]
    return "\n".join(lines)


def reliability(bins: list[dict[str, Any]]) -> str:
    """A reliability diagram as SVG: how often each confidence is right, with all pixels' shares."""
    side, total = 240, max(1, sum(b["pixels"] for b in bins))
    shapes = []
    for b in bins:
        left, width = b["low"] * side, (b["high"] - b["low"]) * side
        if b["accuracy"] is None:
            continue
        height, share = b["accuracy"] * side, b["pixels"] / total
        shapes.append(
            f'<rect x="{left:.1f}" y="{side - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" fill="teal" fill-opacity="{0.15 + 0.85 * share**0.5:.2f}">'
            f"<title>{b['confidence']:.2f} is right in {b['accuracy']:.2f} of {b['pixels']} "
            f"pixels</title></rect>"
        )
    return (
        f'<svg viewBox="-4 -4 {side + 8} {side + 8}" width="{side}" role="img" '
        f'aria-label="How often each confidence is right">{"".join(shapes)}'
        f'<path d="M0 {side}L{side} 0M0 0V{side}H{side}" fill="none" stroke="gray"/></svg>\n\n'
        f"Confidence to the right, the share that is right upwards; on the diagonal both are the "
        f"same. Darker bars hold more pixels."
    )


MADE: dict[str, Callable[[str], str]] = {
    "class": class_table,
    "cli": cli,
    "errors": errors,
    "events": events,
    "fields": field_table,
    "file": file,
    "include": include,
    "model": model,
    "public": public,
    "sensors": sensors,
}
