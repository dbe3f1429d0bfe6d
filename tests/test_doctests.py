"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import geoseg

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(geoseg.__path__, "geoseg.")
    if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    # Modules that stand on an extra can't be imported without it.
    assert doctest.testmod(pytest.importorskip(name)).failed == 0


@pytest.mark.extra("train", "onnxruntime")
def test_there_are_examples():
    tried = sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES)
    assert tried >= 10
