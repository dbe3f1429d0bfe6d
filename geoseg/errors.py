"""Every error that geoseg raises on purpose, as one tree.

::

    GeosegError                 anything geoseg can explain; the command line exits with 1
    |-- UsageError              the options contradict each other or the scene; exits with 2
    |   `-- TooManyPolygonsError a map is so noisy that its polygons are not made unasked
    |-- SceneError              the scene can't be opened, read or understood
    |   |-- BandError           bands are missing, unknown or ambiguous
    |   `-- RadiometryError     the meaning of the numbers is unknown
    |-- ModelError              the model folder, its card or its weights are wrong
    |   `-- ProbabilitiesError  a network gave something other than probabilities of its classes
    |-- DeviceError             the device asked for is not here, or ran out of memory
    |-- MissingExtraError       packages are needed that are not installed
    |-- OutputError             an output exists, can't be written, or the disk is full
    |-- EvaluationError         the points or labels make an evaluation impossible
    `-- TrainingError           the labels, the split or the loss make training impossible

LabelError (labels can't be read as classes, or be brought to a grid) is both an EvaluationError and
a TrainingError: training and evaluation read labels by the same code.

A message says what was found, the rule, and what to do, in one line.
"""

from __future__ import annotations

__all__ = [
    "BandError",
    "DeviceError",
    "EvaluationError",
    "GeosegError",
    "LabelError",
    "MissingExtraError",
    "ModelError",
    "OutputError",
    "ProbabilitiesError",
    "RadiometryError",
    "SceneError",
    "TooManyPolygonsError",
    "TrainingError",
    "UsageError",
]


class GeosegError(Exception):
    """An error that geoseg can explain.

    Attributes:
        exit_code (int): what the command line exits with.
    """

    exit_code = 1


class UsageError(GeosegError):
    """The options contradict each other, the model or the scene."""

    exit_code = 2


class TooManyPolygonsError(UsageError):
    """A map would give more polygons than are made unasked: it is noise, mostly."""


class SceneError(GeosegError):
    """The scene can't be opened, read or understood."""


class BandError(SceneError):
    """Bands are missing, unknown or ambiguous."""


class RadiometryError(SceneError):
    """The meaning of the scene's numbers is unknown."""


class ModelError(GeosegError):
    """The model folder, its card or its weights are wrong."""


class ProbabilitiesError(ModelError):
    """A network gave something other than probabilities of the card's classes."""


class DeviceError(GeosegError):
    """The device asked for is not here, or ran out of memory."""


class MissingExtraError(GeosegError):
    """Packages are needed that are not installed; the message names the extra that brings them."""


class OutputError(GeosegError):
    """An output exists already, can't be written, or the disk is full."""


class EvaluationError(GeosegError):
    """The points or labels make an evaluation impossible."""


class TrainingError(GeosegError):
    """The labels, the split or the loss make training impossible."""


class LabelError(EvaluationError, TrainingError):
    """Labels can't be brought to a grid, or hold what is no class."""
