"""Models as ONNX graphs, without torch.

``model.onnx`` refers to the weights beside it. :mod:`~geoseg.graphs.graph` binds the two, surrounds
a network with a card's normalization and activation so that raw numbers go in and probabilities
come out, and reads it into OpenVINO; :mod:`~geoseg.graphs.quantize` makes a graph in 8 bits. Start
with ``graph.py``.
"""
