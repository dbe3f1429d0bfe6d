"""What travels with weights: a model's card, which says what the model takes and gives.

A model is a folder (or .zip) of a card, weights and often a graph. The card holds bands, their
order and quantity, normalization, classes and colours, chip size, and what the model was taught on;
it is written as JSON in the terms of STAC's MLM extension. No torch and no rasterio here.
Everything is in ``card.py``: start with ``ModelCard``.
"""
