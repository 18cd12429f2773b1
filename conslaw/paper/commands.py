"""The command line: conslaw list, rebuild, ledger, agreement, site, sweep, provenance."""

import ast
import functools
import json
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

import click

from conslaw.paper import notebooks

__all__ = ["main"]

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.5, 1.0)  # of figure 1b


def parse(value: str) -> object:
    """Read a Python literal; anything else is a string."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def reports_errors(command):
    """Let a command end with the message of an error that says what to do, and end in order when it is told to."""

    @functools.wraps(command)
    def wrapper(*arguments, **options):
        try:
            with _signals_end():
                return command(*arguments, **options)
        except BrokenPipeError:  # of `conslaw list | head`, which click ends quietly
            raise
        except (ValueError, OSError, ModuleNotFoundError, BrokenExecutor) as error:
            raise click.ClickException(str(error)) from error

    return wrapper


@contextmanager
def _signals_end() -> Iterator[None]:
    """Leave by an exception at the signals that end a process, so that other processes are ended too."""
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [number for number in signals if signal.getsignal(number) == signal.SIG_DFL]  # nohup ignores one
    for number in handled:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def note_skipped() -> None:
    """Say which files are no notebooks of this project."""
    for name, problem in notebooks.skipped().items():
        click.echo(f"{name}: skipped, as {problem}", err=True)


def write_verdicts() -> str:
    """Bring all places up to date where verdicts stand, and return the score."""
    from conslaw.paper import cards, ledger

    score = ledger.write_ledger()
    cards.write_cards(ledger.all_verdicts())
    return score


@click.group()
@click.version_option(package_name="conslaw")
def main() -> None:
    """Rebuild the figures of arXiv:2604.07405 and judge its claims."""


@main.command("list")
@reports_errors
def list_notebooks() -> None:
    """List the notebooks and their parameters."""
    for name in notebooks.notebook_names():
        click.echo(f"{name}: {notebooks.title(name)}")
        for key, parameter in notebooks.read_parameters(name).items():
            click.echo(f"    {key}: {parameter.kind} = {parameter.text}  # {parameter.comment}")
    note_skipped()


@main.command("rebuild")
@click.argument("names", nargs=-1)
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="KEY VALUE", help="Set a parameter (repeatable).")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Device of the computation.")
@click.option("--jobs", type=click.IntRange(1), help="Notebooks run at once.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
@reports_errors
def rebuild_notebooks(names, parameters, device, jobs, force) -> None:
    """Run notebooks, all by default, and write their figures and numbers."""
    from conslaw.paper.comparison import Comparison
    from conslaw.paper.rebuild import rebuild
    from conslaw.paper.records import figures_folder

    values = {key: parse(value) for key, value in parameters}
    if device:
        values["device"] = device
    note_skipped()
    outcomes = rebuild(names, values, jobs=jobs, force=force)
    for outcome in outcomes:
        seconds = f" in {outcome.seconds:.0f} s" if outcome.seconds else ""
        where = f", as before: {outcome.folder} is unchanged" if outcome.kept else f": see {outcome.folder}"
        detail = f": {outcome.error}" if outcome.error else where if outcome.folder else ""
        click.echo(f"{outcome.name}: {outcome.status}{seconds}{detail}")
    if comparisons := [outcome.comparison for outcome in outcomes if outcome.comparison]:
        click.echo(str(sum(comparisons, Comparison())))
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)
    if not values and figures_folder().resolve() == notebooks.PROJECT / "figures":  # the README is about these
        write_verdicts()


@main.command("ledger")
@reports_errors
def update_ledger() -> None:
    """Write the verdicts on all claims into LEDGER.md, claims.json and the notebooks, and the score into the README."""
    notebooks.notebook_names()  # without a clone there is no README either
    click.echo(write_verdicts())


@main.command("sweep")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(1), default=100, help="Number of seeds: 0, 1, 2, …")
@click.option("--rate", "rates", type=float, multiple=True, default=RATES, help="A learning rate (repeatable).")
@click.option("--steps", type=click.IntRange(1), default=2000)
@click.option("--width", type=click.IntRange(1), default=64, help="Hidden units of the networks, 20 → width → 5.")
@click.option("--loss", default="cross_entropy", help="A name, or the weight of cross-entropy in a mixture.")
@click.option("--activation", default="relu", help="A name, or the weight of ReLU in a mixture.")
@click.option("--piece", type=click.IntRange(1), default=2, help="Seeds that are trained together.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask.distributed cluster; default: one process per core.")
@reports_errors
def sweep_seeds(output, seeds, rates, steps, width, loss, activation, piece, scheduler) -> None:
    """Train the networks of many seeds and write one row per run to the CSV file OUTPUT."""
    from conslaw.activations import activation_function
    from conslaw.losses import cross_entropy_weight
    from conslaw.paper.files import check_writable, replace_file
    from conslaw.paper.sweep import cluster, sweep

    networks = {"widths": (20, width, 5), "loss": parse(loss), "activation": parse(activation)}
    cross_entropy_weight(networks["loss"]), activation_function(networks["activation"])
    check_writable(output)
    with cluster(scheduler) as client:
        executor = client.get_executor() if client else None
        runs = sweep(range(seeds), rates, steps, networks=networks, executor=executor, piece=piece, progress="sweep")
    replace_file(output, runs.to_csv(index=False))
    click.echo(f"{len(runs)} runs in {output}")


@main.command("site")
@click.option(
    "--output", type=click.Path(path_type=Path), default=notebooks.PROJECT / "site", help="Folder; default: site/."
)
@reports_errors
def build_site(output: Path) -> None:
    """Render the executed notebooks to static pages that work offline."""
    from conslaw.paper.site import build

    note_skipped()
    pages = build(output)
    click.echo(f"{len(pages)} pages; open {output / 'index.html'}")


@main.command("agreement")
@reports_errors
def show_agreement() -> None:
    """Compare every published per-seed number with ours."""
    from conslaw.paper import agreement

    table = agreement.comparisons()
    click.echo(agreement.report(table).to_string(float_format="{:.1e}".format, na_rep=""))
    resolved = table[table.resolved]
    click.echo(
        f"{len(table)} numbers; {len(resolved)} are resolved: median deviation {resolved.relative_error.median():.1e}, "
        f"worst {resolved.relative_error.max():.1e}"
    )


@main.command("provenance")
def show_provenance() -> None:
    """Print versions and machine, for reports of numbers that differ."""
    from conslaw.paper.provenance import provenance

    click.echo(json.dumps(provenance(), indent=1, ensure_ascii=False))
