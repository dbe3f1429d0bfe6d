"""What a user may ask of ``geoseg train``, checked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import UsageError
from geoseg.scene.opening import RASTER_SUFFIXES
from geoseg.scene.sources import Rules

__all__ = ["TrainOptions"]


@dataclass(frozen=True)
class TrainOptions:
    """The options of :func:`geoseg.train`, most of them under the command line's names.

    Attributes:
        config: a recipe's file; without one, images and labels are needed.
        images: files, folders or globs of scenes.
        labels: files, folders or globs of labels.
        column: the column of vector labels that holds the class.
        classes: ``NAME`` or ``NAME=VALUE``: the legend, and what stands for a class in the labels
            (an id, a colour ``#RRGGBB``, or a text in the column).
        ignore: labels that mean no class.
        radius: metres around points and lines that get their class, too.
        bands: numbers, or names that the images carry, in the order that the model is to have.
        band_names: what the images' bands are, as for ``geoseg predict``.
        scale: quantity per number.
        offset: quantity at number 0.
        src_nodata: the number that means "not measured".
        nearblack: make what is near black and connected to an image's edge nodata.
        input_root: folders into which files may point, besides their own.
        allow_vrt: ``any`` lets them point anywhere.
        gsd: metres per pixel that the network works at; images of another gsd are resampled to
            it, and those without a place on Earth are taken as being of it.
        network: a name of :func:`geoseg.networks.list_models`.
        encoder: the network's encoder, for networks that take one.
        encoder_weights: the encoder's pretrained weights, as for :func:`geoseg.create_model`.
        teacher: a model whose probabilities are learned where there are no labels.
        split: ``blocks``, ``files`` or ``random``.
        block: side of a block, px.
        margin: px around held-out blocks that are left out of training.
        fold: ``I/K``: the places are dealt into K parts, and part I is held out.
        steps: steps of the optimizer.
        batch: chips in one forward pass.
        chip: side of the chips, px.
        learning_rate: the highest learning rate.
        loss: a sum such as ``ce+0.5*dice``.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        seed: of everything random but the split.
        changes: ``KEY=VALUE`` for any key of a recipe, in TOML, such as
            ``augmentation.gain=0.1``; the command line's ``--set``.
    """

    config: str | Path | None = None
    images: Sequence[str | Path] = ()
    labels: Sequence[str | Path] = ()
    column: str | None = None
    classes: Sequence[str] = ()
    ignore: Sequence[str] = ()
    radius: float = 0.0
    bands: str | None = None
    band_names: str | None = None
    scale: float | None = None
    offset: float | None = None
    src_nodata: float | None = None
    nearblack: bool = False
    input_root: Sequence[str | Path] = ()
    allow_vrt: str = "local"
    gsd: float | None = None
    network: str | None = None
    encoder: str | None = None
    encoder_weights: str | None = None
    teacher: str | None = None
    split: str | None = None
    block: int | None = None
    margin: int | None = None
    fold: str | None = None
    steps: int | None = None
    batch: int | None = None
    chip: int | None = None
    learning_rate: float | None = None
    loss: str | None = None
    precision: str | None = None
    seed: int | None = None
    changes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check what can be checked without data.

        Raises:
            UsageError: options are missing or contradict each other.
        """
        builtin_fields(self)
        data: tuple[str, ...] = ("images", "labels", "column", "classes", "ignore", "radius")
        data += (
            "bands",
            "band_names",
            "scale",
            "offset",
            "src_nodata",
            "nearblack",
            "gsd",
            "input_root",
            "allow_vrt",
        )
        default = {f.name: f.default for f in fields(self)}
        given = [name for name in data if getattr(self, name) not in (default[name], (), [])]
        if self.config is not None and Path(self.config).suffix.lower() in RASTER_SUFFIXES:
            raise UsageError(
                f"{self.config} is no recipe but an image; the shell may have taken a glob apart: "
                f"quote it (--images 'scenes/*.tif'), or repeat --images"
            )
        if self.config is not None and given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} is for training without a recipe, and "
                f"{self.config} is one; write it there"
            )
        for name in ("block", "margin"):
            if getattr(self, name) is not None and self.split in ("files", "random"):
                raise UsageError(
                    f"--{name} is of the split by blocks and --split is {self.split}; leave one of "
                    f"them out"
                )
        if self.config is None and not self.images:
            raise UsageError("give a recipe, or --images and --labels")
        if self.config is None and not self.labels and self.teacher is None:
            raise UsageError(
                "give --labels with what is there, or --teacher with a model that knows"
            )

    @property
    def rules(self) -> Rules:
        """What the files may point to."""
        return Rules.of(self.input_root, self.allow_vrt)
