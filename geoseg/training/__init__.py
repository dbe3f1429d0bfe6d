"""Teaching a network.

In go images with labels, or a recipe; out comes a model folder. :mod:`~geoseg.training.make_recipe`
writes the recipe from the data, :mod:`~geoseg.training.recipe` is its form,
:mod:`~geoseg.training.scenes` reads and splits the ground, :mod:`~geoseg.training.chips` draws
chips, :mod:`~geoseg.training.augment` varies them, :mod:`~geoseg.training.losses` has the losses,
:mod:`~geoseg.training.validation` judges held-out ground, and :mod:`~geoseg.training.run` learns,
with checkpoints (:mod:`~geoseg.training.run_folder`). Start with ``run.py``.
"""
