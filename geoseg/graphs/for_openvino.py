"""A graph as OpenVINO's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoseg.cards.files import ModelFiles
from geoseg.core.importing import import_openvino
from geoseg.graphs.binding import apart

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["read_graph"]


def read_graph(core: Any, model: ModelProto, files: ModelFiles) -> Any:
    """Read an ONNX graph as OpenVINO's model.

    Args:
        core: an ``openvino.Core``.
        model: what :func:`bind` gave, completed or not; it is changed.
        files: the model that it belongs to.

    Returns:
        An ``openvino.Model`` whose weights are constants.

    Raises:
        RuntimeError: OpenVINO can't read it.
    """
    openvino = import_openvino()
    weights = apart(model, files)
    read = core.read_model(model.SerializeToString())
    for parameter in list(read.get_parameters()):
        values = weights.get(parameter.get_friendly_name())
        if values is not None:
            constant = openvino.opset13.constant(values)
            for user in parameter.output(0).get_target_inputs():
                user.replace_source_output(constant.output(0))
            read.remove_parameter(parameter)
    read.validate_nodes_and_infer_types()
    return read
