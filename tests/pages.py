"""The pages of the manual, README among them, as the tests see them: blocks, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from geoseg.cli.app import _cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        language: ``sh`` is run line by line; ``bash`` is a script for another machine.
        text: without the fences.
        note: of the comment in the line before, which readers of the page don't see.
    """

    language: str
    text: str
    note: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return self.language in ("sh", "python") and not self.note.startswith("not run: ")

    @property
    def alone(self) -> bool:
        """Whether each of its commands begins with the page's files."""
        return self.note == "each alone"

    @property
    def needs(self) -> list[str]:
        """The extras that it takes."""
        head, _, names = self.note.partition("needs: ")
        return names.split() if not head else []

    @property
    def lines(self) -> list[str]:
        """The commands of a shell's block, each on a line of its own."""
        joined = self.text.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip()]

    @property
    def commands(self) -> list[str]:
        """Those of geoseg among them."""
        if self.language not in ("sh", "bash"):
            return []
        lines = (line.removeprefix("exec ") for line in self.lines)
        return [line for line in lines if line.startswith("geoseg ")]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        path: of its file.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """As it stands in the file."""
        return self.path.read_text(encoding="utf-8")

    @property
    def files(self) -> list[str]:
        """What must be in the folder that its blocks are run in."""
        match = re.match(r"<!-- files:(.*?)-->", self.text)
        return match[1].split() if match else []

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks, in order."""
        return [
            Block(m["language"], m["text"], m["note"] or "") for m in _FENCE.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """What stands outside of the blocks."""
        return _FENCE.sub("", self.text)

    @property
    def spans(self) -> list[str]:
        """What stands between backquotes in it, which may go over a line's end."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def commands(self) -> list[str]:
        """Commands of geoseg in its blocks."""
        return [command for block in self.blocks for command in block.commands]


def pages() -> Iterator[Page]:
    """Every page that people read, README first."""
    yield Page(ROOT / "README.md")
    yield Page(ROOT / "CONTRIBUTING.md")
    yield from (Page(path) for path in sorted(DOCS.rglob("*.md")))


def arguments(line: str) -> list[str]:
    """What a command gives to geoseg, without what the shell itself takes."""
    words = shlex.split(line, comments=True)[1:]
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "<", "&&", ";")]
    return words[: ends[0]] if ends else words


def parsed(line: str) -> dict[str, object]:
    """The options of a command, as the command line takes them.

    Raises:
        click.UsageError: it does not take them.
    """
    words = arguments(line)
    command: click.Command = _cli
    context = click.Context(_cli, info_name="geoseg")
    while isinstance(command, click.Group) and words:
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    return command.make_context(line, words, parent=context).params


def options() -> set[str]:
    """Every option that a command of geoseg has."""
    found: set[str] = set()

    def look(command: click.Command, context: click.Context) -> None:
        for parameter in command.get_params(context):
            found.update(parameter.opts)
            found.update(parameter.secondary_opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                look(inner, click.Context(inner, info_name=name, parent=context))

    look(_cli, click.Context(_cli, info_name="geoseg"))
    return {option for option in found if option.startswith("-")}
