"""What travels with weights: a model's card, which says what the model takes and gives.

A model is a folder or .zip of a card, weights and often a graph, which ``files.py`` reads. The card
(``card.py``) holds bands, their order and quantity, normalization, chip size, and what the model
was trained on; its classes and their colours are ``legend.py``. ``stac.py`` turns it into JSON in
the terms of STAC's MLM extension, and back. No torch and no rasterio here. Start with ``ModelCard``
in ``card.py``.

For other rooms:
    card: CARD_NAME, ChipBorder, GRAPH_NAME, INT8_NAME, ModelCard, Normalization, QUANTITIES,
        WEIGHTS_NAME
    files: ModelFiles, card_text, read_model, write_card
    legend: ClassInfo, NOT_SURE_TAG, not_sure_class
    quantities: darkest_ground, possible_counts, possible_range, takes_8_bits
    reading: calibration_lines, flat_scores, meaning_rows, taught_line
    replacing: replace_card
    stac: to_mlm
    taught: PIXELS, UNLIKE, taught_ground
"""
