import os
from collections.abc import Iterator
from pathlib import Path

# Threads of several tests, or of other programs, that wait for each other cost minutes; this must
# stand before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

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
