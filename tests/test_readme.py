"""README.md is short, and what it and the manual say of install, make and scripts is there."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields

import pytest

import geoseg
from geoseg.evaluation.options import EvaluateOptions
from geoseg.evaluation.sample_design import SampleOptions
from geoseg.mosaicking.options import MosaicOptions
from geoseg.prediction.options import PredictOptions
from geoseg.training.options import TrainOptions
from geoseg.zoo import list_embedded
from tests.pages import ROOT, Page, pages

#: Function -> what its keywords are beyond its signature.
OPTIONS = {
    "mosaic": MosaicOptions,
    "predict": PredictOptions,
    "evaluate": EvaluateOptions,
    "sample": SampleOptions,
    "train": TrainOptions,
}

PAGES = list(pages())
README = PAGES[0]
BLOCKS = [block for page in PAGES for block in page.blocks]
SPANS = [span for page in PAGES for span in page.spans]
LINES = [line for block in BLOCKS if block.language in ("sh", "bash") for line in block.lines]
COMMANDS = [command for block in BLOCKS for command in block.commands]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_is_two_screens() -> None:
    assert len(README.text.encode()) <= 8000


def test_it_names_every_command_and_every_embedded_model() -> None:
    for name in (
        "info",
        "predict",
        "vectorize",
        "mosaic",
        "train",
        "models",
        "check-seams",
        "sample",
    ):
        assert f"`geoseg {name}`" in README.text
    assert "`evaluate`" in README.text
    assert all(f"`{name}`" in README.text for name in list_embedded())


def test_names_of_classes_are_those_of_embedded_models() -> None:
    known = {c.name for name in list_embedded() for c in geoseg.load_model(name).card.classes}
    found = []
    for line in COMMANDS:
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


def test_what_is_installed_by_pip_is_there() -> None:
    extras = set(PROJECT["optional-dependencies"])
    commands = [c for c in [*LINES, *SPANS] if c.startswith("pip install ")]
    named = [e for c in commands for e in re.findall(r"(?:\.|geoseg)\[([\w,-]+)\]", c)]
    assert len(commands) >= 5 and named
    assert {extra for names in named for extra in names.split(",")} <= extras
    for command in commands:
        if "--no-index" in command:
            continue
        words = shlex.split(command, comments=True)[2:]
        assert all(re.fullmatch(r"(\.|geoseg)(\[[\w,-]+\])?", word) for word in words), command


def test_what_make_makes_is_in_the_makefile() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [c for c in [*LINES, *SPANS] if c.startswith("make ")]
    named = {word for c in commands for word in c.split()[1:] if "=" not in word}
    assert {"demo", "test", "docs"} <= named <= set(targets)


def test_files_that_are_named_are_there() -> None:
    folders = "benchmarks|configs|docs|examples|geoseg|notebooks|tests"
    named = {w for s in [*LINES, *SPANS] for w in s.split() if re.match(rf"({folders})/", w)}
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists(), name


def test_benchmarks_have_the_options_that_are_named() -> None:
    named = [c for c in [*LINES, *SPANS] if c.startswith("python benchmarks/")]
    assert len(named) > 5
    for command in named:
        script, *words = shlex.split(command)[1:]
        text = (ROOT / script).read_text(encoding="utf-8")
        for option in (word for word in words if word.startswith("--")):
            assert f'add_argument("{option}"' in text, command


def calls(source: str) -> Iterator[tuple[str, list[str]]]:
    """Functions of geoseg that a piece of Python calls, and by which keywords."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "geoseg":
                yield node.func.attr, [k.arg for k in node.keywords if k.arg]


def test_python_calls_what_there_is() -> None:
    found = [call for block in BLOCKS if block.language == "python" for call in calls(block.text)]
    assert len(found) >= 10
    for name, keywords in found:
        if name == "train" and importlib.util.find_spec("torch") is None:
            continue  # its module takes an extra
        taken = set(inspect.signature(getattr(geoseg, name)).parameters)
        taken |= {f.name for f in fields(OPTIONS[name])} if name in OPTIONS else set()
        if name == "create_model":
            taken |= set(keywords)  # a network's own
        assert set(keywords) <= taken, name


@pytest.mark.parametrize("page", [page for page in PAGES if page.commands], ids=str)
def test_a_second_run_to_the_same_names_is_explained(page: Page) -> None:
    """Its outputs are there already, so that it is refused."""
    plain = [c for c in page.commands if re.fullmatch(r"geoseg predict \S+( *#.*)?", c)]
    if page.path.name in ("README.md", "quickstart.md"):
        assert plain and "--overwrite" in page.text


# The citation


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    keys = dict(re.findall(r"^([\w-]+): *(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(keys)
    assert keys["version"] == PROJECT["version"] and keys["license"] == PROJECT["license"]
    assert "The geoseg developers" in text
