"""The networks by name, and model folders in and out.

To add an architecture: one file in ``papers/``, and one line in :mod:`geoseg.networks.table`.
Importing this package is cheap: torch and the architectures are loaded when they are used.
"""

from geoseg.networks.create import ModelInfo, create_model, model_info
from geoseg.networks.folder import import_model, load_network, save_model
from geoseg.networks.table import list_models

__all__ = [
    "ModelInfo",
    "create_model",
    "import_model",
    "list_models",
    "load_network",
    "model_info",
    "save_model",
]
