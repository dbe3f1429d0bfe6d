"""The plan of an archive in words."""

from __future__ import annotations

from collections.abc import Iterator

from geoseg.archive.plan import ArchivePlan
from geoseg.core.wording import counted

__all__ = ["plan_text"]


def plan_text(plan: ArchivePlan, price_per_hour: float | None = None) -> str:
    """Write a plan for people.

    Args:
        plan: of an archive.
        price_per_hour: of one worker, where the user gave one.
    """
    return "\n".join(_lines(plan, price_per_hour))


def _lines(plan: ArchivePlan, price_per_hour: float | None) -> Iterator[str]:
    states = ", ".join(f"{count} {state}" for state, count in plan.counts.items())
    yield f"scenes     {plan.scenes}: {states}"
    yield f"to do      {counted(plan.to_do, 'scene')}, {plan.pixels / 1e6:.4g} Mpx"
    if plan.worker_seconds is None:
        yield "time       unknown: no probe came to an end"
    elif plan.to_do:
        hours = plan.worker_seconds / 3600
        yield f"time       {_wall(plan)}{hours:.3g} worker-hours"
        yield f"outputs    about {(plan.bytes or 0) / 1e9:.3g} GB"
        if plan.price is not None:
            each = f"{hours:.3g} worker-hours at {price_per_hour:g}"
            yield f"price      about {plan.price:.4g}: {each}"
        yield f"estimated  from {plan.basis}"
    if plan.refused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in plan.refused.items())
        yield f"refused    {kinds}; for instance"
        yield from (f"  {name}: {reason}" for name, reason in plan.examples)
    yield from map(str, plan.files)
    yield "no map was made"


def _wall(plan: ArchivePlan) -> str:
    if plan.wall_seconds is None:
        return "the cluster has no workers now; "
    return f"about {plan.wall_seconds / 3600:.3g} hours with {counted(plan.workers, 'worker')}; "
