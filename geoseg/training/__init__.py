"""Teaching a network.

In go images with labels, or a recipe; out comes a model folder. The recipe is in
:mod:`~geoseg.training.recipe` (its scenes in ``scene_config.py``, its file in ``recipe_file.py``,
what is checked of it in ``recipe_checks.py``);
:mod:`~geoseg.training.make_recipe` makes one of the user's options, where there is no file from the
images (``from_data.py``), their labels' classes (``legend.py``) and which belong together
(``pairing.py``). :mod:`~geoseg.training.setup` prepares a run:
:mod:`~geoseg.training.scenes` reads the ground (``derived_bands.py`` bands for a teacher),
:mod:`~geoseg.training.targets` its labels (``vector_labels.py`` those in vector files),
:mod:`~geoseg.training.teacher` answers where there are none, :mod:`~geoseg.training.sides` splits
it (:mod:`~geoseg.training.cross_validation` leaves out each group in turn). Then
:mod:`~geoseg.training.loop` takes the steps: :mod:`~geoseg.training.chips` draws chips,
:mod:`~geoseg.training.augment` varies them, :mod:`~geoseg.training.losses` has the losses
(``loss_spec.py`` reads sums of them, ``set_loss.py`` is that of sets, ``class_weights.py`` weighs
classes), :mod:`~geoseg.training.schedules` optimizers and learning rates,
:mod:`~geoseg.training.validation` judges held-out ground, and
:mod:`~geoseg.training.checkpoint` is what a stopped run goes on from, in a folder of the run's own
(:mod:`~geoseg.training.run_folder`). Start with ``run.py``.

For other rooms:
    run: train
    taught_scenes: add_taught
"""
