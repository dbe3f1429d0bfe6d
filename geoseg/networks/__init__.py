"""The networks, in torch: by name, with their weights, in and out of model folders.

In goes a name (``table.py`` lists them) or a model folder; out comes a module that gives logits,
built by ``create.py``. What networks share is ``base.py``; ``papers/`` has one file per paper,
``encoders.py`` takes features from timm, ``weights/`` finds pretrained weights, ``crf/`` is the
dense CRF. ``folder.py`` loads and saves models, ``export.py`` writes them as ONNX, ``bench.py``
times them. To add an architecture, write a file in ``papers/`` and a line in ``table.py``.
Importing this package is cheap: torch and the architectures are loaded when they are used. Start
with ``table.py``.

For other rooms:
    bench: measure_speed, networks_table, published
    create: chip_multiple
    crf: DenseCRF, EXACT_PIXELS
    device: pick_device, pick_devices
    export: export_graph, export_model, write_graph
    folder: save_files
    normalize: normalize
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
