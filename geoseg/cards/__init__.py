"""What travels with weights: a model's card, which says what the model takes and gives.

A model is a folder (or .zip) of a card, weights and often a graph (``files.py``). The card
(``card.py``) holds bands, their order and quantity, normalization, chip size, and what the model
was taught on; its classes and their colours are ``legend.py``. It is written as JSON in the terms
of STAC's MLM extension. No torch and no rasterio here. Start with ``ModelCard`` in ``card.py``.
"""
