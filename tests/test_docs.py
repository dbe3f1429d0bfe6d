"""What README and the manual say: commands and Python run as printed, options and links exist."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

import geoseg
from geoseg.cli import main
from geoseg.core.importing import missing
from geoseg.zoo import find_model
from tests.helpers import make_raster, tiny_model
from tests.pages import DOCS, ROOT, Block, Page, arguments, options, pages, parsed

PAGES = list(pages())
BLOCKS = [(page, block) for page in PAGES for block in page.blocks]
EXAMPLES = ROOT / "examples"

#: Options of other programs that the pages speak of.
OTHERS = {
    *("-vv", "--strict", "--large"),
    *("--nworkers", "--nthreads", "--resources"),  # of dask worker
}


def page_id(page: Page) -> str:
    return str(page)


@pytest.fixture(scope="module")
def generate() -> Any:
    """docs/generate.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What blocks say


@pytest.mark.parametrize(
    "line", sorted({line for _, block in BLOCKS for line in block.commands}), ids=str
)
def test_a_command_is_one_that_geoseg_takes(line: str) -> None:
    parsed(line)


@pytest.mark.parametrize(
    "line",
    sorted({span for page in PAGES for span in page.spans if span.startswith("geoseg ")}),
    ids=str,
)
def test_a_command_within_a_sentence_has_options_that_there_are(line: str) -> None:
    # The sentence is about the command, not about a file.
    about = (click.MissingParameter, click.BadOptionUsage, click.exceptions.NoArgsIsHelpError)
    with contextlib.suppress(*about):
        parsed(re.sub(r"[(,].*", "", line))


def test_options_that_are_named_exist() -> None:
    known = options() | OTHERS
    for page in PAGES:
        for span in page.spans:
            for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", span):
                if span.startswith("-"):
                    assert option in known, f"{page}: {span}"


def test_wrong_commands_would_be_found() -> None:
    for line in ("geoseg predict a.tif --no-such", "geoseg nothing", "geoseg vectorize"):
        with pytest.raises(click.UsageError):
            parsed(line)
    assert "--no-such" not in options() and {"--overlap", "-o", "--networks"} <= options()


def test_blocks_have_a_language_and_notes_have_a_meaning() -> None:
    for page, block in BLOCKS:
        assert block.language in ("sh", "bash", "python", "text", "json", "toml"), (page, block)
        known = re.fullmatch(r"not run: \S.+|needs: \w+( \w+)*|each alone|output|", block.note)
        assert known or block.note.startswith(("files:", "report")), (page, block.note)
        if block.language == "bash":
            assert block.note.startswith("not run: "), (page, block.text)


def test_few_blocks_are_not_run() -> None:
    runnable = [block for _, block in BLOCKS if block.language in ("sh", "python")]
    commands = [line for block in runnable if block.is_run for line in block.commands]
    assert len(commands) > 50
    assert sum(block.is_run for block in runnable) > len(runnable) / 2


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_data_in_blocks_can_be_read(page: Page) -> None:
    for block in page.blocks:
        if block.language == "json":
            for line in block.text.splitlines() if block.text.startswith('{"') else [block.text]:
                json.loads(line)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "python":
            ast.parse(block.text)


# Blocks are run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that pages speak of: a corner of the example scene and what is made of it."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "examples").mkdir()
    for name in ("landsat7_nc_2000.tif", "landsat7_nc_2000_labels.tif"):
        shutil.copy(EXAMPLES / name, folder / "examples")
    window = Window(200, 180, 128, 128)
    with rasterio.open(EXAMPLES / "landsat7_nc_2000.tif") as dataset:
        values, transform = dataset.read(window=window), dataset.window_transform(window)
        kept: dict[str, Any] = {"crs": dataset.crs, "transform": transform}
        kept["nodata"] = dataset.nodata
        named = {"descriptions": dataset.descriptions, "scales": dataset.scales}
        make_raster(folder / "scene.tif", values, **kept, **named)
        make_raster(folder / "unnamed.tif", values, **kept)
    with rasterio.open(EXAMPLES / "landsat7_nc_2000_labels.tif") as dataset:
        seen = dataset.read(1, window=window)
    card = geoseg.load_model("landcover-ms").card
    ids = {c.name: c.id for c in card.classes}
    same = {1: "built", 2: "crops", 3: "grass", 4: "shrub_and_scrub", 5: "trees", 6: "water"}
    labels = np.full(seen.shape, 255, np.uint8)
    for value, name in {**same, 7: "bare"}.items():
        labels[seen == value] = ids[name]
    kept["nodata"] = 255
    make_raster(folder / "labels.tif", labels[None], **kept)
    geoseg.predict(
        folder / "scene.tif",
        folder / "map.tif",
        probs=folder / "probs.tif",
        no_vector=True,
    )
    shutil.copy(folder / "map.tif", folder / "noisy.tif")
    geoseg.vectorize(folder / "labels.tif", folder / "labels.fgb", model="landcover-ms")
    fields = geopandas.read_file(folder / "labels.fgb").rename(columns={"class_name": "crop"})
    fields[["crop", "geometry"]].to_file(folder / "fields.gpkg")
    shutil.copytree(find_model("landcover-ms").path, folder / "trained")
    tiny_model(folder / "mymodel", card.bands, list(ids), quantity="reflectance")
    return folder


@contextlib.contextmanager
def folder_with(files: Iterable[str], place: Path, folder: Path) -> Iterator[None]:
    """Work in a new folder that has copies of these files; NAME=COPY gives one another name."""
    folder.mkdir()
    for name in files:
        name, _, copy = name.partition("=")
        if (place / name).is_dir():
            shutil.copytree(place / name, folder / (copy or name))
        else:
            shutil.copy(place / name, folder / (copy or name))
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_command(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command as printed; what it prints."""
    if line.startswith(("pip install ", "make ")):
        return ""  # looked at by tests/test_readme.py
    assert line.startswith("geoseg "), f"{line}: note why it is not run"
    if "--mem-limit" in line:
        # Of the whole process, in which other tests have loaded whatever they need.
        command = [sys.executable, "-m", "geoseg", *arguments(line)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stderr + done.stdout
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments(line))
    output = capsys.readouterr()
    assert end.value.code == 0, f"{line}\n{output.err}"
    return output.err + output.out


def form(text: str) -> list[str]:
    """What is printed, without its numbers and the widths of its columns."""
    return [" ".join(re.sub(r"\d[\d.e-]*", "#", line).split()) for line in text.splitlines()]


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.is_run for b in p.blocks)], ids=page_id)
def test_a_page_runs_as_printed(
    page: Page, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""

    def run(block: Block) -> str:
        if block.language == "python":
            capsys.readouterr()
            exec(compile(block.text, str(page), "exec"), names)
            return capsys.readouterr().out
        return "".join(run_command(line, capsys) for line in block.lines)

    with folder_with(page.files, place, tmp_path / "page"):
        for block in page.blocks:
            if block.language == "text" and block.note == "output":
                assert form(printed) == form(block.text)
            if not block.is_run or any(missing(extra) for extra in block.needs):
                continue
            if block.alone:
                for i, line in enumerate(block.lines):
                    folder = tmp_path / f"alone{i}"
                    with folder_with(os.listdir(), Path.cwd(), folder):
                        run_command(line, capsys)
                    shutil.rmtree(folder)
            else:
                printed = run(block)


# Links


def anchors(text: str) -> set[str]:
    """Of a page's headings, as MkDocs names them."""
    found: set[str] = set()
    for title in re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M
    ):
        bare = re.sub(r"[`*]|\]\(.*?\)|\[", "", title)
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", bare).strip().lower())
        found.add(slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Page, generate: Any) -> None:
    text = generate.on_page_markdown(page.text) if DOCS in page.path.parents else page.text
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), f"{page}: {target}"
        if anchor:
            there = path.read_text(encoding="utf-8")
            if DOCS in path.parents:
                there = generate.on_page_markdown(there)
            assert anchor in anchors(there), f"{page}: {target}"


def test_every_page_is_in_the_navigation_and_none_is_a_stub(generate: Any) -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        if DOCS in page.path.parents:
            assert f": {page.path.relative_to(DOCS).as_posix()}\n" in config, page
            assert len(generate.on_page_markdown(page.text)) > 1000, page


# What is made of the code


def test_the_reference_is_made_of_the_code(generate: Any) -> None:
    cli = generate.cli("")
    for command in ("predict", "vectorize", "mosaic", "train", "models quantize", "check-seams"):
        assert re.search(rf"^##+ geoseg {command}$", cli, re.MULTILINE)
    assert all(f"{option}" in cli for option in options() - {"--version", "-h", "--help"})
    events = generate.events("")
    assert all(f"### {name}" in events for name in ("StartEvent", "ErrorEvent", "GridReport"))
    recipe = generate.class_table("TrainConfig")
    assert "| `learning_rate` | `float` | `0.001` | the highest. |" in recipe
    for name in ("TrainConfig", "Augmentation", "SplitConfig", "ModelCard", "PredictOptions"):
        for line in generate.class_table(name).splitlines():
            assert not line.endswith("|  |"), f"{name}: {line} has no meaning"
    assert len(generate.errors("").splitlines()) > 12
    assert "Sentinel-2" in generate.sensors("")
    assert all(generate.summary(name) for name in geoseg.__all__ if name != "__version__")


def test_the_report_has_the_fields_that_are_explained(place: Path) -> None:
    page = (DOCS / "reference" / "report.md").read_text(encoding="utf-8")
    table = page.partition("<!-- report -->")[2].partition("<!-- end of report -->")[0]
    report = json.loads((place / "map.json").read_text(encoding="utf-8"))
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(report)


def test_messages_that_are_explained_are_geosegs() -> None:
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)`", page.partition("## Common messages")[2], re.MULTILINE)
    assert len(messages) > 8
    said = "\n".join(
        "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in parts)
        for path in (ROOT / "geoseg").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for parts in [node.values if isinstance(node, ast.JoinedStr) else [node]]
        if isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    )
    for message in messages:
        for part in filter(None, (p.strip() for p in message.split("..."))):
            assert part in said, message
