"""Runs commands in a Python that has some packages hidden from it, as if they were not installed.

``python -m tests.hidden`` takes JSON on standard input, ``{"hidden": [...], "commands": [[...]]}``,
and prints ``{"results": [{"code": ..., "output": ..., "errors": ...}], "loaded": [...]}``.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.metadata
import io
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any


def hide(names: Collection[str]) -> None:
    """Let neither ``import`` nor importlib.metadata find these packages."""

    class Finder(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
            if fullname.partition(".")[0] in names:
                return None
            return super().find_spec(fullname, path, target)

        @classmethod
        def find_distributions(cls, context: Any = None) -> Iterator[Any]:  # type: ignore[override]
            context = context or importlib.metadata.DistributionFinder.Context()
            if (context.name or "").replace("-", "_") in names:
                return iter(())
            return iter(super().find_distributions(context))

    plain = importlib.machinery.PathFinder
    sys.meta_path[:] = [Finder if finder is plain else finder for finder in sys.meta_path]


def run_hidden(
    commands: Sequence[Sequence[object]], hidden: Collection[str], cwd: Path
) -> list[dict[str, Any]]:
    """Run geoseg's commands one after another where packages are hidden.

    Args:
        commands: arguments of ``geoseg``.
        hidden: packages, as they are imported.
        cwd: the folder to run in.

    Returns:
        Of each command ``code``, ``output`` and ``errors``.
    """
    given = {"hidden": sorted(hidden), "commands": [[str(a) for a in c] for c in commands]}
    root = Path(__file__).parents[1]
    # PYTHONPATH may name other folders that the packages are in.
    script = f"import sys; sys.path.insert(0, {str(root)!r}); import tests.hidden as h; h.main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["loaded"] == []
    results: list[dict[str, Any]] = answer["results"]
    return results


def main() -> None:
    given = json.load(sys.stdin)
    hide(set(given["hidden"]))
    from geoseg.cli import main as command_line

    results = []
    for command in given["commands"]:
        output, errors = io.StringIO(), io.StringIO()
        code: Any = None
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                command_line(command)
            except SystemExit as end:
                code = end.code
        results.append({"code": code, "output": output.getvalue(), "errors": errors.getvalue()})
    loaded = sorted(set(given["hidden"]) & set(sys.modules))
    sys.stdout.write(json.dumps({"results": results, "loaded": loaded}) + "\n")
