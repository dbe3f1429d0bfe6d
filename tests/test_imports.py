"""Where modules may import from, what stays unloaded, and what is never used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import geoseg

ROOT = Path(geoseg.__file__).parent
#: Those of the plugin are QGIS': they import nothing of geoseg, and nothing imports them.
PLUGIN = ROOT / "qgis" / "plugin"
MODULES = sorted(path for path in ROOT.rglob("*.py") if PLUGIN not in path.parents)

#: From the ground up: a module imports from its own room or those before it.
ROOMS = [
    "errors",
    "events",
    "core",
    "geo",
    "cards",
    "scene",
    "zoo",
    "rasters",
    "graphs",
    "networks",
    "runtimes",
    "polygons",
    "labels",
    "prediction",
    "mosaicking",
    "evaluation",
    "training",
    "archive",
    "qgis",
    "cli",
]
#: (from, to): imports upwards that are meant, each with its reason. There are none.
EXCEPTIONS: set[tuple[str, str]] = set()
#: The public names are gathered here, when they are asked for.
FACADE = {"__init__", "__main__"}

HEAVY = (
    "torch",
    "numpy",
    "rasterio",
    "geopandas",
    "shapely",
    "scipy",
    "pandas",
    "matplotlib",
    "pyproj",
    "pyogrio",
    "timm",
    "segmentation_models_pytorch",
    "torchvision",
    "torchgeo",
    "onnx",
    "openvino",
    "onnxruntime",
    "numba",
)


def room(module: str) -> int:
    return ROOMS.index(module)


def name_of(path: Path) -> str:
    """A file's place among the rooms: ``geoseg/cli/info.py`` -> ``cli``."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at the top or within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module == "geoseg":
                yield from (f"geoseg.{alias.name}" for alias in node.names)
            yield node.module


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_room_has_its_place() -> None:
    assert {name_of(path) for path in MODULES} - FACADE == set(ROOMS)


def test_every_room_says_what_it_is_for() -> None:
    """In three sentences at least, where to start among them."""
    for name in ROOMS:
        path = ROOT / name / "__init__.py"
        if path.exists():
            text = " ".join((ast.get_docstring(parse(path)) or "").split())
            assert text.count(".") >= 3 and "tart with" in text, name


def taken_by_others(name: str) -> dict[str, set[str]]:
    """What modules outside of a room take from it: module -> names; "" is the room itself."""
    taken: dict[str, set[str]] = {}
    for path in MODULES:
        tree = parse(path)
        for node in ast.walk(tree) if name_of(path) != name else ():
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            module = node.module.removeprefix("geoseg.")
            if module.split(".")[0] != name:
                continue
            module = module.removeprefix(name).removeprefix(".")
            for alias in node.names:
                if not module and (ROOT / name / f"{alias.name}.py").is_file():
                    used = set(attributes(tree, alias.asname or alias.name))
                    taken.setdefault(alias.name, set()).update(used)
                else:
                    taken.setdefault(module, set()).add(alias.name)
    return taken


def attributes(tree: ast.AST, of: str) -> Iterator[str]:
    """What is taken out of a module that was imported as a whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node) == f"{of}.{node.attr}":
            yield node.attr


def handed_on(name: str) -> str:
    """The list of names for other rooms at the end of a room's docstring."""
    text = ast.get_docstring(parse(ROOT / name / "__init__.py")) or ""
    return text.partition("For other rooms:\n")[2]


def as_listed(taken: dict[str, set[str]]) -> str:
    """Modules and names as a room's docstring lists them."""
    lines = []
    for module, names in sorted(taken.items()):
        line = f"{module}: {', '.join(sorted(names))}"
        lines += textwrap.wrap(line, 96, subsequent_indent="    ", break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), "    ")


@pytest.mark.parametrize("name", [n for n in ROOMS if (ROOT / n).is_dir()])
def test_a_room_lists_what_others_take_from_it(name: str) -> None:
    taken = taken_by_others(name)
    own = taken.pop("", set())
    assert own <= set(getattr(importlib.import_module(f"geoseg.{name}"), "__all__", ()))
    listed = as_listed(taken)
    assert handed_on(name) == listed, f"geoseg/{name}/__init__.py must list:\n{listed}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_never_imports_from_a_later_room(path: Path) -> None:
    own = name_of(path)
    if own in FACADE:
        return
    for module in imported(parse(path)):
        if not module.startswith("geoseg."):
            continue
        other = module.split(".")[1]
        assert room(other) <= room(own) or (own, other) in EXCEPTIONS, f"{own} imports {other}"


def dotted_name(path: Path) -> str:
    """``geoseg/cli/info.py`` -> ``geoseg.cli.info``."""
    parts = ("geoseg", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_modules_import_no_cycle() -> None:
    names = {dotted_name(path) for path in MODULES}
    edges = set()
    for path in MODULES:
        for node in ast.walk(parse(path)):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [name if name in names else node.module for name in inner]
            edges |= {(dotted_name(path), name) for name in found if name in names}
    # The public names are gathered at the top, and a room's table names its own files: both load
    # them when they are asked for.
    edges = {(a, b) for a, b in edges if "geoseg" not in (a, b) and not a.startswith(b)}
    while edges:
        leaves = {b for _, b in edges} - {a for a, _ in edges}
        assert leaves, f"modules import each other in a circle: {sorted(edges)}"
        edges = {(a, b) for a, b in edges if b not in leaves}


@pytest.mark.parametrize(
    "code",
    [
        "import geoseg",
        "import geoseg; dir(geoseg); geoseg.__version__",
        "from geoseg.cli import main; main(['--help'])",
        "from geoseg.cli import main; main(['--version'])",
        "from geoseg.cli import main; main(['models', 'list', '--networks'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    script = (
        "import sys\n"
        "try:\n"
        f"    exec({code!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        f"print('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]


def test_the_public_names_are_there() -> None:
    for name in geoseg.__all__:
        assert getattr(geoseg, name) is not None
    with pytest.raises(AttributeError):
        _ = geoseg.no_such_name  # type: ignore[attr-defined]


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions, classes and methods without a leading underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, kinds) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_public_definitions_have_docstrings(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree)
    bare = [name for name, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert bare == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_all_names_what_is_there(path: Path) -> None:
    tree = parse(path)
    defined = {
        name
        for node in ast.walk(tree)
        for name in ([node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else [])
        + ([node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else [])
        + ([a.asname or a.name for a in node.names] if isinstance(node, ast.ImportFrom) else [])
    }
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = ast.literal_eval(node.value)
            assert set(names) - {"__version__"} <= defined


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "yaml.load", "os.system", "os.popen"}


def dotted(node: ast.expr) -> str:
    """``np.load`` for the function of a call, or the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def constant(call: ast.Call, keyword: str) -> object:
    """The literal value of a call's keyword, or None."""
    for k in call.keywords:
        if k.arg == keyword and isinstance(k.value, ast.Constant):
            return k.value.value
    return None


def _root(node: ast.ImportFrom) -> str:
    return (node.module or "").split(".")[0]


def unsafe(tree: ast.AST) -> Iterator[str]:
    """What could run code that a file brings along."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from {node.module or ""} if _root(node) in FORBIDDEN_MODULES else ()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in FORBIDDEN_CALLS:
            yield called
        if called == "torch.load" and constant(node, "weights_only") is not True:
            yield "torch.load without weights_only=True"
        if called in ("torch.jit.load", "torch.export.load", "torch.hub.load"):
            yield called
        if called.endswith("load") and constant(node, "allow_pickle"):
            yield "allow_pickle=True"
        if constant(node, "shell"):
            yield "shell=True"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_code_out_of_files(path: Path) -> None:
    assert list(unsafe(parse(path))) == []


@pytest.mark.parametrize("path", sorted(PLUGIN.rglob("*.py")), ids=lambda p: p.name)
def test_the_plugin_is_made_of_the_standard_library_and_qgis(path: Path) -> None:
    tree = parse(path)
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        for name in names:
            package = name.split(".")[0]
            assert package in sys.stdlib_module_names | {"qgis", "processing"}, name
    assert list(unsafe(tree)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "def f():\n    exec(text)",
        "yaml.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "torch.jit.load(f)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_code_out_of_files_would_be_found(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


def test_ways_that_run_no_code_are_let_through() -> None:
    code = "network.eval(); torch.load(f, weights_only=True); np.load(f, allow_pickle=False)"
    assert list(unsafe(ast.parse(code))) == []
