"""Models as ONNX graphs, without torch.

``model.onnx`` refers to the weights beside it; ``binding.py`` takes the two apart, puts them
together and refuses what does not belong together. ``surround.py`` puts a card's normalization and
activation round a network, so that raw numbers go in and probabilities come out, and
``for_openvino.py`` reads that into OpenVINO; ``quantize.py`` makes a graph in 8 bits. Start with
``binding.py``.

For other rooms:
    binding: bind, detach, fill, graph_fits, identity, is_ours, noted
    for_openvino: read_graph
    quantize: Draft, quantize_graph
    surround: surround
"""
