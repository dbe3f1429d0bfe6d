"""What README.md says to type is what geoseg takes."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

import geoseg
from geoseg.cli.app import _cli
from geoseg.prediction.options import PredictOptions
from geoseg.zoo import list_embedded

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

#: (language, content) of each block between fences.
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
#: What stands between backquotes elsewhere, which may go over a line's end.
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE)]

COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines() if line]
GEOSEG = [c for c in COMMANDS if c.startswith("geoseg ")]
INLINE = [s for s in SPANS if s.startswith("geoseg ")]


def parsed(line: str) -> dict[str, object]:
    """The options of a command, as the command line takes them.

    Raises:
        click.UsageError: it does not take them.
    """
    arguments = shlex.split(line, comments=True)[1:]
    command: click.Command = _cli
    context = click.Context(_cli, info_name="geoseg")
    while isinstance(command, click.Group) and arguments:
        _, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command = found
    return command.make_context(line, arguments, parent=context).params


def test_there_are_commands_to_look_at() -> None:
    assert len(GEOSEG) > 30 and len(INLINE) > 10


@pytest.mark.parametrize("line", GEOSEG)
def test_a_command_is_one_that_geoseg_takes(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize("line", sorted(set(INLINE)))
def test_a_command_within_a_sentence_has_options_that_there_are(line: str) -> None:
    # The sentence is about the command, not about a file.
    with contextlib.suppress(click.MissingParameter):
        parsed(line)


def test_wrong_commands_would_be_found() -> None:
    for line in ("geoseg predict a.tif --no-such", "geoseg nothing", "geoseg vectorize"):
        with pytest.raises(click.UsageError):
            parsed(line)


def test_names_of_classes_are_those_of_embedded_models() -> None:
    known = {c.name for name in list_embedded() for c in geoseg.load_model(name).card.classes}
    found = []
    for line in GEOSEG:
        arguments = shlex.split(line, comments=True)
        if arguments[1] not in ("vectorize", "evaluate"):
            continue  # who teaches a model names its classes
        for option, value in itertools.pairwise(arguments):
            if option == "--classes":
                found += value.split(",")
            elif option == "--merge":
                found += value.split("=")
            elif option in ("--class", "--min-area") and "=" in value:
                found.append(value.split("=")[0])
    assert len(found) >= 5
    assert set(found) <= known


def test_classes_of_one_command_are_of_one_model() -> None:
    (line,) = (line for line in GEOSEG if "--merge" in line)
    one, other = re.findall(r"--merge (\w+)=(\w+)", line)[0]
    legends = [{c.name for c in geoseg.load_model(n).card.classes} for n in list_embedded()]
    assert any({one, other} <= legend for legend in legends)


def test_what_is_installed_by_pip_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    commands = [c for c in [*COMMANDS, *SPANS] if c.startswith("pip install ")]
    named = [e for c in commands for e in re.findall(r"(?:\.|geoseg)\[([\w,-]+)\]", c)]
    assert len(commands) >= 5 and named
    assert {extra for names in named for extra in names.split(",")} <= extras
    for command in commands:
        words = shlex.split(command, comments=True)[2:]
        assert all(re.fullmatch(r"(\.|geoseg)(\[[\w,-]+\])?", word) for word in words), command


def test_what_make_makes_is_in_the_makefile() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [t for c in [*COMMANDS, *SPANS] for t in re.findall(r"^make ([\w-]+)", c)]
    assert {"demo", "test"} <= set(named) <= set(targets)


def test_scripts_that_are_named_are_there() -> None:
    named = [w for s in [*COMMANDS, *SPANS] for w in s.split() if re.fullmatch(r"\w+/.*\.py", w)]
    assert len(named) >= 5
    for script in named:
        assert (ROOT / script).is_file(), script


def calls(source: str) -> Iterator[tuple[str, list[str]]]:
    """Functions of geoseg that a piece of Python calls, and by which keywords."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "geoseg":
                yield node.func.attr, [k.arg for k in node.keywords if k.arg]


def test_python_calls_what_there_is() -> None:
    found = [call for kind, block in BLOCKS if kind == "python" for call in calls(block)]
    assert len(found) >= 4
    for name, keywords in found:
        taken = set(inspect.signature(getattr(geoseg, name)).parameters)
        if name == "predict":
            taken |= {f.name for f in fields(PredictOptions)}
        assert set(keywords) <= taken, name


def test_modules_that_are_named_are_there() -> None:
    for span in SPANS:
        if match := re.fullmatch(r"(geoseg(?:\.\w+)*)\.(\w+)", span):
            path = ROOT / Path(*match[1].split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file(), span
            if match[1] == "geoseg":
                assert match[2] in geoseg.__all__, span
            else:
                source = path.with_suffix(".py").read_text(encoding="utf-8")
                assert re.search(rf"^(class|def) {match[2]}\b", source, re.MULTILINE), span


def test_the_second_run_of_a_scene_is_explained_where_it_is_printed() -> None:
    """Its outputs are there already, so that it is refused."""
    first, second = (m.start() for m in list(re.finditer("^geoseg predict", README, re.M))[:2])
    assert "--overwrite" in README[first:second]
