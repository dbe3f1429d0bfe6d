"""Teaching a network.

In go images with labels, or a recipe; out comes a model folder. :mod:`~geoseg.training.recipe` is
the recipe's form and :mod:`~geoseg.training.recipe_file` its file;
:mod:`~geoseg.training.make_recipe` writes one from the data. :mod:`~geoseg.training.scenes` reads
the ground, :mod:`~geoseg.training.sides` splits it, :mod:`~geoseg.training.chips` draws chips,
:mod:`~geoseg.training.augment` varies them, :mod:`~geoseg.training.losses` has the losses
(``loss_spec.py`` reads sums of them),
:mod:`~geoseg.training.schedules` optimizers and learning rates,
:mod:`~geoseg.training.validation` judges held-out ground, and :mod:`~geoseg.training.run` learns,
with checkpoints in a folder of the run's own (:mod:`~geoseg.training.run_folder`). Start with
``run.py``.
"""
