"""Pretrained encoder weights: where they lie, how they are checked, how they fit other bands.

A published weights file is looked for in ``torch.hub.get_dir()/checkpoints`` (``TORCH_HOME`` moves
it; torch, torchvision and torchgeo keep theirs there too), then in the cache of the Hugging Face
Hub, then at its address: that is ``download.py``. ``sources.py`` knows who publishes what, and how
its bands are called; ``state.py`` reads files of tensors and fills networks with them. Nothing is
fetched unless weights were asked for, and a network never keeps random weights under a pretrained
name. Start with :func:`encoder_state`.
"""

from geoseg.networks.weights.download import Release, find_release, hub_release, weights_folder
from geoseg.networks.weights.sources import encoder_state
from geoseg.networks.weights.state import (
    RGB,
    SUFFIXES,
    EncoderState,
    bands_of_file,
    load_encoder_state,
    one_line,
    read_state,
)

__all__ = [
    "RGB",
    "SUFFIXES",
    "EncoderState",
    "Release",
    "bands_of_file",
    "encoder_state",
    "find_release",
    "hub_release",
    "load_encoder_state",
    "one_line",
    "read_state",
    "weights_folder",
]
