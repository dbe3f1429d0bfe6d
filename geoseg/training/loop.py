"""The steps of a run: chips, loss, optimizer, and now and then a validation and a checkpoint.

Every process takes all steps, each with its share of a step's chips. Around that, the first one
judges and writes, and says whether to go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from geoseg.cards.card import ModelCard
from geoseg.core.gdal import first_line
from geoseg.core.prefetch import prefetch
from geoseg.errors import TrainingError
from geoseg.events import LogEvent
from geoseg.networks.normalize import normalize
from geoseg.training.checkpoint import RunState
from geoseg.training.chips import Chip
from geoseg.training.class_weights import class_weights
from geoseg.training.loss_spec import make_loss
from geoseg.training.network_setup import parameter_groups
from geoseg.training.process import Process
from geoseg.training.recipe import TrainConfig
from geoseg.training.schedules import OPTIMIZERS, SCHEDULES
from geoseg.training.setup import Setup
from geoseg.training.tensorboard import open_events, write_events

__all__ = ["learn"]

#: The label of pixels without a target; no class's channel, however many there are.
IGNORED = -1
#: Seconds after which a checkpoint is written between two validations, too.
SAVE_EVERY = 180.0


def learn(
    process: Process, setup: Setup, network: nn.Module, checkpoint: dict[str, Any] | None
) -> RunState:
    """Take the steps that are left.

    Args:
        process: what this process works on.
        setup: scenes, chips and card.
        network: on the device; it is what learns.
        checkpoint: of the same run, to go on from; None begins with the first step.

    Returns:
        What the run knows after its last step.

    Raises:
        TrainingError: the loss is no number, or the optimizer's numbers overflow.
        OutputError: checkpoint, log or events can't be written.
    """
    config, fabric, report = process.config, process.fabric, process.report
    weight = class_weights(config, setup.source)
    loss = make_loss(config.loss, weight=weight, ignore_index=IGNORED, aux_weight=config.aux_weight)
    # On a CPU this is about a third quicker.
    network = network.to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[config.optimizer](
        parameter_groups(config, network), config.learning_rate, config.weight_decay
    )
    state = RunState(config, network, optimizer, fabric)
    if checkpoint is not None:
        state.load(checkpoint)
        report.note(f"going on after step {state.step} of {config.steps}")
    model, stepper = fabric.setup(network, optimizer)
    model.train()
    begun, started = state.step, time.monotonic()
    saved = started
    # A run may have been stopped between its last validation and the model.
    end = begun if state.patience_is_over() else config.steps
    batches = prefetch(_share(process, setup.source.batch(step)) for step in range(begun, end))
    with closing(open_events(process.folder, begun)) if process.first else nullcontext() as events:
        for chips in batches:
            _prepare_step(config, state.step, network, stepper)
            state.advance(_step(fabric, state.step, chips, model, loss, stepper, setup.card))
            left = (time.monotonic() - started) / (state.step - begun) * (config.steps - state.step)
            report.progress(state.step, config.steps, state.losses[-1], left)
            if state.step % config.every == 0 or state.step == config.steps:
                if _validate(process, setup, state, events, left):
                    break
                saved = time.monotonic()
            elif process.first and time.monotonic() - saved >= SAVE_EVERY:
                process.folder.save(state.checkpoint())
                saved = time.monotonic()
    return state


def _share(process: Process, chips: list[Chip]) -> list[list[Chip]]:
    """Take this process's chips, one list a forward pass."""
    fabric = process.fabric
    own = chips[fabric.global_rank :: fabric.world_size]
    size = process.config.batch // fabric.world_size
    return [own[i : i + size] for i in range(0, len(own), size)]


def _prepare_step(config: TrainConfig, step: int, network: nn.Module, optimizer: Any) -> None:
    """Set what depends on the step alone: random numbers, learning rate, batch norms."""
    # What a step draws does not depend on where the run began.
    torch.manual_seed(int(np.random.default_rng([config.seed, 2, step]).integers(2**63)))
    for group in optimizer.param_groups:
        group["lr"] = _learning_rate(config, step) * group["rate"]
    if step >= config.freeze_norm * config.steps:
        _freeze_norms(network)


def _learning_rate(config: TrainConfig, step: int) -> float:
    """Rise linearly in the warm-up, then fall by the schedule, to 0 after the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * SCHEDULES[config.schedule](done)


def _freeze_norms(network: nn.Module) -> None:
    """Let batch norms use their running statistics, and leave these as they are."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _step(
    fabric: Any,
    step: int,
    parts: list[list[Chip]],
    model: nn.Module,
    loss: Any,
    optimizer: Any,
    card: ModelCard,
) -> float:
    """Take one step of the optimizer, with a forward pass for each part; gives its loss."""
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for number, chips in enumerate(parts, start=1):
        pixels, probs, weight = (
            torch.stack([getattr(chip, name) for chip in chips]).to(fabric.device)
            for name in ("pixels", "probs", "weight")
        )
        x = normalize(pixels, card.normalization).contiguous(memory_format=torch.channels_last)
        with fabric.no_backward_sync(model, enabled=number < len(parts)):
            value = loss(model(x), probs.float(), weight) / len(parts)
            if not torch.isfinite(value):
                origins = "; ".join(dict.fromkeys(chip.origin for chip in chips))
                raise TrainingError(
                    f"the loss is {value.item()} at step {step + 1}, with chips of {origins}; "
                    f"look for values that are no numbers there, or start anew with a lower "
                    f"learning_rate (--no-resume)"
                )
            fabric.backward(value)
        total += float(value.item())
    fabric.clip_gradients(model, optimizer, max_norm=1.0, error_if_nonfinite=False)
    try:
        optimizer.step()
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise TrainingError(
            f"the optimizer's numbers grow beyond float32 at step {step + 1} "
            f"({first_line(error)}); start anew (--no-resume) with a lower learning_rate, "
            f"encoder_rate or weight_decay"
        ) from error
    return total


def _validate(process: Process, setup: Setup, state: RunState, events: Any, left: float) -> bool:
    """Judge, write log and checkpoint, and say whether training ends before its last step."""
    config, stop = process.config, False
    if process.first:
        rate = _learning_rate(config, state.step - 1)
        row = state.validate(setup.scenes, setup.card, rate)
        process.folder.write_log(state.log)
        process.folder.save(state.checkpoint())
        write_events(events, row)
        process.report(_log_event(row, left))
        stop = state.patience_is_over()
    stop = bool(process.fabric.broadcast(stop))
    if stop:
        process.report.note(f"no better for {config.patience} validations: stopped")
    return stop


def _log_event(row: Mapping[str, float], left: float) -> LogEvent:
    """Make an event of a row of the log."""
    own = ("step", "loss", "learning_rate")
    return {
        "event": "log",
        "step": row["step"],
        "loss": row["loss"],
        "learning_rate": row["learning_rate"],
        "scores": {name: value for name, value in row.items() if name not in own},
        "seconds_left": round(left),
    }
