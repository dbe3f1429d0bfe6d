"""``geoseg batch``: a manifest of scenes into an archive; and the commands for an archive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import click

from geoseg.cli.options import Bytes, Pixels, json_option, output_options, progress_option
from geoseg.cli.predict import command as predict_command
from geoseg.cli.progress import progress_printer
from geoseg.cli.streams import print_json
from geoseg.core.wording import counted
from geoseg.errors import SceneError, UsageError
from geoseg.events import BatchDryRunEvent, Progress

__all__ = ["command"]

#: The exit code where all that can be done is done, and some jobs are in quarantine.
QUARANTINED = 3
#: The exit code where the run stopped in order, and scenes are left for the same command.
STOPPED = 4
#: Seconds after Ctrl-C in which workers may end.
CLEANING = 20.0
#: Options of predict that an archive has in another way, or not at all.
_NOT_HERE = {
    *("scene", "model", "output", "vector", "probs", "confidence", "agreement", "border"),
    "applicability",
    *("preview", "overwrite", "dry_run", "progress", "verbose", "quiet", "restart"),
    *("threads", "mem_limit"),
}


if TYPE_CHECKING:
    from geoseg.archive.ledger_view import LedgerView


class _Batch(click.Group):
    """Runs a manifest, unless the first word is one of the commands for an archive."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the run's hidden name before options that come first."""
        own = args and args[0].startswith("-") and args[0] not in ("-h", "--help")
        return super().parse_args(ctx, ["run", *args] if own else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take a word that is no command for a manifest."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "run", self.commands["run"], args

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the run's help, and what else there is."""
        run = self.commands["run"]
        run.format_help(click.Context(run, info_name=ctx.command_path), formatter)
        with formatter.section("Commands for an archive"):
            formatter.write_dl(
                [(n, c.get_short_help_str()) for n, c in self.commands.items() if n != "run"]
            )


@click.group("batch", cls=_Batch)
def command() -> None:
    """Predict many scenes into an archive; look after one."""


def _predict_options(function: Any) -> Any:
    """Add the options of predict that say how a scene becomes a map."""
    for option in reversed(predict_command.params):
        if option.name not in _NOT_HERE:
            click.decorators._param_memo(function, option)
    return function


@command.command("run", hidden=True)
@click.argument("manifest", required=False)
@click.option(
    "-m", "--model", required=True, help="Embedded model's name, or a model folder or .zip."
)
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(),
    help="The archive's folder, or s3://BUCKET/PREFIX.",
)
@click.option(
    "--stac-api",
    metavar="URL",
    help="Instead of MANIFEST: search there; --bbox, in degrees, says where.",
)
@click.option("--collection", multiple=True, help="Of --stac-api; repeatable.")
@click.option("--datetime", "datetime_", help="Of --stac-api: a time, or two with a / between.")
@click.option(
    "--query", multiple=True, help="Of --stac-api, such as 'eo:cloud_cover<20'; repeatable."
)
@click.option("--limit", type=int, help="Of --stac-api: the most scenes.")
@click.option("--workers", type=int, help="Processes on this machine.  [default: what it can bear]")
@click.option("--threads", type=int, help="Threads of a job.  [default: cores for each worker]")
@click.option("--mem-limit", type=Bytes(), help="Memory of a job.  [default: what there is for it]")
@click.option(
    "--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do the jobs, tcp://..."
)
@click.option("--gpu", is_flag=True, help="Only workers with the resource GPU take jobs.")
@click.option("--job-timeout", type=float, metavar="SECONDS", help="The most that a job may take.")
@click.option("--max-hours", type=float, help="Stop in order after that; the same command goes on.")
@click.option("--max-bytes", type=Bytes(), help="Stop in order after so many bytes of outputs.")
@click.option(
    "--split",
    type=Pixels(),
    help="Compute a scene with more pixels in blocks of about so many, by any workers.",
)
@click.option(
    "--vector-format",
    type=click.Choice(["gpkg", "fgb", "parquet", "geojson"]),
    default="gpkg",
    show_default=True,
    help="Of the polygons.",
)
@click.option(
    "--also",
    type=click.Choice(["confidence", "probs", "agreement", "border", "applicability", "preview"]),
    multiple=True,
    help="Write this of each scene, too; repeatable.",
)
@_predict_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Make no map: write plan.csv and plan.geojson into OUTPUT, and print what a run would do "
    "and cost.",
)
@click.option(
    "--price-per-hour", type=float, help="Of --dry-run: what one worker costs in an hour."
)
@progress_option
@output_options
def run_command(
    manifest: str | None,
    out: str,
    stac_api: str | None,
    collection: tuple[str, ...],
    datetime_: str | None,
    query: tuple[str, ...],
    limit: int | None,
    vector_format: str,
    dry_run: bool,
    price_per_hour: float | None,
    progress: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Predict the scenes of a manifest into an archive.

    MANIFEST is a folder, a glob, a list (.txt, .csv with a column "scene") or STAC items (.json,
    .ndjson, .parquet); or --stac-api finds the scenes. Each scene gets a folder in OUTPUT. What was
    done is not done again; a scene that fails is put into quarantine, and the others are done. Exit
    code 3: done, with scenes in quarantine; 4: stopped by --max-hours or --max-bytes.
    """
    receiver = progress_printer(progress, -1 if quiet else verbose)
    searching = {"collection": collection, "datetime": datetime_, "query": query, "limit": limit}
    if (manifest is None) == (stac_api is None):
        raise UsageError("give a MANIFEST of scenes, or --stac-api to search for them")
    if price_per_hour is not None and not dry_run:
        raise UsageError("--price-per-hour is for --dry-run; give that, or leave it out")
    scenes: Any = manifest
    if stac_api is not None:
        from geoseg.archive.stac_search import search_items

        scenes = search_items(
            stac_api,
            collections=collection,
            bbox=options.pop("bbox"),
            datetime=datetime_,
            query=query,
            limit=limit,
            report=receiver,
        )
    elif wrong := [name for name, value in searching.items() if value]:
        raise UsageError(f"--{wrong[0]} is for --stac-api; give that, or leave it out")
    options["vector_suffix"] = f".{vector_format}"
    show = not quiet and progress != "json"
    if dry_run:
        for name in ("gpu", "job_timeout", "max_hours", "max_bytes", "split"):
            del options[name]
        _plan(scenes, out, receiver, show, price_per_hour=price_per_hour, **options)
    else:
        _run(scenes, out, receiver, show, **options)


def _run(scenes: Any, out: str, receiver: Progress, show: bool, **options: Any) -> None:
    from geoseg.archive.run import batch

    interrupts = click.get_current_context().obj
    if interrupts is not None:
        interrupts.cleaning = CLEANING
    done = batch(scenes, out, progress=receiver, **options)
    counts = dict(done.counts)
    receiver(
        {"event": "result", "archive": str(done.out), "counts": counts, "stopped": done.stopped}
    )
    if show:
        for state, count in counts.items():
            if count:
                click.echo(f"{state:<14}{count:>9}")
        if done.stopped:
            click.echo(f"stopped: {done.stopped}; the same command goes on")
        click.echo(done.out)
        if done.warned:
            are = "is" if done.warned == 1 else "are"
            maps = counted(done.warned, "map")
            click.echo(f"there {are} {maps} with warnings: see {done.out}/report.html")
        if counts["quarantined"]:
            click.echo(f"why scenes are in quarantine: geoseg batch status {done.out}")
    if done.stopped:
        sys.exit(STOPPED)
    if counts["quarantined"]:
        sys.exit(QUARANTINED)


def _plan(
    scenes: Any,
    out: str,
    receiver: Progress,
    show: bool,
    *,
    price_per_hour: float | None,
    **options: Any,
) -> None:
    from geoseg.archive.plan import plan_batch
    from geoseg.archive.plan_text import plan_text

    plan = plan_batch(scenes, out, price_per_hour=price_per_hour, progress=receiver, **options)
    receiver(cast(BatchDryRunEvent, {"event": "dry-run", **plan.as_json()}))
    if show:
        click.echo(plan_text(plan, price_per_hour))
    if plan.counts.get("refused") == plan.scenes:
        raise SceneError(
            f"every one of {counted(plan.scenes, 'scene')} is refused, the first one: "
            f"{plan.examples[0][1]}"
        )


@command.command("status")
@click.argument("out", type=click.Path())
@json_option
def status_command(out: str, as_json: bool) -> None:
    """Show how many scenes are in which state, and why those in quarantine are."""
    from geoseg.archive.ledger import Ledger
    from geoseg.archive.store import store_of

    with Ledger(store_of(out).ledger()) as ledger:
        counts = ledger.counts()
        kinds: dict[str, int] = {}
        for job in ledger.jobs("quarantined"):
            kinds[job.kind] = kinds.get(job.kind, 0) + 1
        runs = ledger.runs()
        if as_json:
            print_json({"counts": counts, "quarantined": kinds, "runs": runs})
            return
        for state, count in counts.items():
            click.echo(f"{state:<14}{count:>9}")
        if counts["running"] and not runs:
            click.echo("no run is at work: the next one takes up what was running")
        for kind, count in sorted(kinds.items()):
            click.echo(f"  {kind:<12}{count:>9}")
        for job in ledger.jobs("quarantined"):
            click.echo(f"{job.key}: {job.kind}: {job.reason}")


@command.command("retry")
@click.argument("out", type=click.Path())
@click.option("--kind", help="Only those that are in quarantine for this reason.")
@click.option("--key", multiple=True, help="Only this one; repeatable.")
def retry_command(out: str, kind: str | None, key: tuple[str, ...]) -> None:
    """Have scenes in quarantine done again by the next run."""
    from geoseg.archive.ledger import Ledger
    from geoseg.archive.store import store_of

    with Ledger(store_of(out).ledger()) as ledger:
        chosen = _chosen(ledger, kind, key)
        count = ledger.again(chosen, "it was taken out of quarantine")
        click.echo(f"{counted(count, 'scene')} will be done by the next run of geoseg batch")


@command.command("forget")
@click.argument("out", type=click.Path())
@click.option("--kind", help="Those that are in quarantine for this reason.")
@click.option("--key", multiple=True, help="This one; repeatable.")
def forget_command(out: str, kind: str | None, key: tuple[str, ...]) -> None:
    """Take scenes in quarantine off the archive's list."""
    from geoseg.archive.ledger import Ledger
    from geoseg.archive.store import store_of

    if kind is None and not key:
        raise UsageError("say which scenes to forget, with --kind or --key")
    with Ledger(store_of(out).ledger()) as ledger:
        count = ledger.forget(_chosen(ledger, kind, key))
        click.echo(f"{counted(count, 'scene')} taken off the list; geoseg batch report counts anew")


def _chosen(ledger: LedgerView, kind: str | None, keys: tuple[str, ...]) -> list[str]:
    """List the jobs in quarantine that are meant.

    Raises:
        UsageError: it is no kind, or no job in quarantine.
    """
    from geoseg.archive.faults import KINDS

    if kind is not None and kind not in KINDS:
        raise UsageError(
            f"--kind {kind} is no reason for quarantine; these are: {', '.join(KINDS)}"
        )
    for key in keys:
        job = ledger.job(key)
        if job is None or job.state != "quarantined":
            state = "not in the archive" if job is None else job.state
            raise UsageError(
                f"--key {key} is {state}; geoseg batch status lists those in quarantine"
            )
    return [
        job.key
        for job in ledger.jobs("quarantined")
        if (kind is None or job.kind == kind) and (not keys or job.key in keys)
    ]


@command.command("report")
@click.argument("out", type=click.Path())
@json_option
def report_command(out: str, as_json: bool) -> None:
    """Write the archive's collection, table of items and report anew."""
    from geoseg.archive.closing import close_archive
    from geoseg.archive.ledger import Ledger
    from geoseg.archive.store import store_of

    store = store_of(out)
    with Ledger(store.ledger()) as ledger:
        report = close_archive(store, ledger)
    if as_json:
        print_json(report)
    else:
        for name in ("report.json", "report.html", "collection.json", "items.parquet"):
            if store.has(name):
                click.echo(f"{out.rstrip('/')}/{name}")


@command.command("verify")
@click.argument("out", type=click.Path())
@json_option
def verify_command(out: str, as_json: bool) -> None:
    """Hash every file again, and compare it with the ledger and with its item."""
    from geoseg.archive.closing import certify
    from geoseg.archive.ledger import Ledger
    from geoseg.archive.store import store_of
    from geoseg.archive.verify import certificate_text

    store = store_of(out)
    with Ledger(store.ledger()) as ledger:
        certificate = certify(store, ledger)
    if as_json:
        print_json(certificate.as_json())
    else:
        click.echo(certificate_text(certificate))
    if not certificate.is_whole:
        sys.exit(1)
