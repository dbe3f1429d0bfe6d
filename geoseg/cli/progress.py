"""How a run's events reach the user: a bar, JSON lines, or nothing."""

from __future__ import annotations

import sys

import click

from geoseg.cli.interrupts import interrupt_main
from geoseg.cli.streams import EventLines
from geoseg.events import (
    ArchiveProgress,
    BorderProgress,
    Event,
    MemoryReport,
    MosaicProgress,
    PlanProgress,
    PolygonsProgress,
    PredictProgress,
    Progress,
    ScenesProgress,
    StartEvent,
    TrainProgress,
)

__all__ = ["progress_printer"]


def progress_printer(mode: str, verbosity: int) -> Progress:
    """Make a receiver of events.

    Args:
        mode: ``auto``: a bar on a terminal; ``json``: one object a line on standard output;
            ``none``.
        verbosity: -1 quiet, 0 normal, 1 and more: what was decided, too.
    """
    if mode == "json":
        return EventLines(interrupt_main).receive
    printer = _Human(bar=mode == "auto" and verbosity >= 0 and sys.stderr.isatty(), level=verbosity)
    return printer.receive


class _Human:
    def __init__(self, *, bar: bool, level: int) -> None:
        self.bar = bar
        self.level = level
        self.line = ""

    def receive(self, event: Event) -> None:
        if event["event"] == "progress" and self.bar:
            self._draw(event)
            return
        if self.line:
            click.echo("\r" + " " * (len(self.line) - 1) + "\r", nl=False, err=True)
            self.line = ""
        if event["event"] == "warning" and self.level >= -1:
            click.echo(f"geoseg: warning: {event['message']}", err=True)
        if self.level < 0:
            return
        if event["event"] == "note":
            click.echo(event["message"], err=True)
        elif event["event"] == "log":
            values = {"step": event["step"], "loss": event["loss"]}
            values |= {"learning_rate": event["learning_rate"], **event["scores"]}
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            click.echo(f"{shown}  ({_clock(event['seconds_left'])} left)", err=True)
        elif event["event"] == "start":
            self._show_start(event)

    def _draw(
        self,
        event: PredictProgress
        | PolygonsProgress
        | BorderProgress
        | MosaicProgress
        | ScenesProgress
        | ArchiveProgress
        | PlanProgress
        | TrainProgress,
    ) -> None:
        done, total = event["done"], max(1, event["total"])
        filled = 30 * done // total
        left = ""
        if event["stage"] == "predict" or event["stage"] == "train":
            left = f"  {_clock(event['seconds_left'])} left"
        elif event["stage"] == "archive":
            left = f"  {event['done']} of {event['total']}, {event['running']} running"
            if event["quarantined"]:
                left += f", {event['quarantined']} in quarantine"
            if event["seconds_left"] is not None:
                left += f", {_clock(event['seconds_left'])} left, {event['mpx_s']:.3g} Mpx/s"
        elif event["stage"] == "plan":
            left = f"  {event['done']} of {event['total']} scenes, {event['refused']} refused"
        if event["stage"] == "predict":
            left += f", {event['mpx_s']:.3g} Mpx/s, limited by {event['bottleneck']}"
        line = (
            f"\r{event['stage']:>9} [{'#' * filled}{'.' * (30 - filled)}] "
            f"{100 * done // total:3d}%{left}"
        )
        click.echo(line.ljust(len(self.line)), nl=False, err=True)
        self.line = line

    def _show_start(self, event: StartEvent) -> None:
        scene, model, made = event["scene"], event["model"], event["runtime"]
        click.echo(f"scene  {scene['name']}  ({scene['sensor'] or 'sensor unknown'})", err=True)
        click.echo(f"model  {model['name']}: {model['chosen']}", err=True)
        click.echo(f"values {scene['radiometry']['source']}", err=True)
        click.echo(f"with   {made['name']} {made['precision']}: {made['choice']}", err=True)
        click.echo(f"memory {_memory(event['memory'])}", err=True)
        if self.level >= 1:
            bands = ", ".join(f"{k}={v}" for k, v in scene["bands"].items())
            click.echo(f"bands  {bands}", err=True)
            for line in scene["ignored"]:
                click.echo(f"unused {line}", err=True)


def _memory(memory: MemoryReport) -> str:
    arrays, limit = memory["arrays_bytes"] / 1e6, memory["limit_bytes"] / 1e6
    lanes = f", in {memory['lanes']} lanes" if memory["lanes"] > 1 else ""
    return f"{arrays:.0f} MB for arrays{lanes}; {limit:.0f} MB at most in all"


def _clock(seconds: float) -> str:
    """Write seconds as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
