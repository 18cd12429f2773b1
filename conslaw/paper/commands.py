"""The command line: conslaw list, rebuild, ledger, agreement, site, sweep."""

import ast
from concurrent.futures import BrokenExecutor
from pathlib import Path
from tempfile import NamedTemporaryFile

import click
import torch

from conslaw.paper import agreement, ledger, records
from conslaw.paper.rebuild import notebook_names, rebuild, title
from conslaw.paper.sweep import cluster, sweep

__all__ = ["main"]

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.5, 1.0)  # of figure 1b


def parse(value: str) -> object:
    """Read a Python literal; anything else is a string."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


@click.group()
def main() -> None:
    """Rebuild the figures of arXiv:2604.07405 and judge its claims."""


@main.command("list")
def list_notebooks() -> None:
    """List the notebooks and their parameters."""
    import papermill  # here, as it takes a second that the other commands need not wait

    try:
        names = notebook_names()
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for name in names:
        click.echo(f"{name}: {title(name)}")
        for key, parameter in papermill.inspect_notebook(str(records.NOTEBOOKS / f"{name}.ipynb")).items():
            click.echo(f"    {key} = {parameter['default']}  # {parameter['help']}")


@main.command("rebuild")
@click.argument("names", nargs=-1)
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="KEY VALUE", help="Set a parameter (repeatable).")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Device of the computation.")
@click.option("--jobs", type=click.IntRange(1), help="Notebooks run at once.")
@click.option("--force", is_flag=True, help="Run also what is up to date.")
def rebuild_notebooks(names, parameters, device, jobs, force) -> None:
    """Run notebooks, all by default, and write their figures and numbers."""
    values = {key: parse(value) for key, value in parameters}
    if device:
        values["device"] = device
    if str(values.get("device")).startswith("cuda") and not torch.cuda.is_available():
        raise click.ClickException("device 'cuda' was asked for, but torch finds no CUDA device here")
    try:
        outcomes = rebuild(names, values, jobs=jobs, force=force)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for outcome in outcomes:
        seconds = f" in {outcome.seconds:.0f} s" if outcome.seconds else ""
        click.echo(f"{outcome.name}: {outcome.status}{seconds}{': ' * bool(outcome.error)}{outcome.error}")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise SystemExit(1)
    if not values and records.figures_folder().resolve() == records.PROJECT / "figures":  # the README is about these
        try:
            ledger.write_table()
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error


@main.command("ledger")
def update_ledger() -> None:
    """Write the verdicts on all claims into the README."""
    try:
        ledger.write_table()
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(ledger.table())


@main.command("sweep")
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seeds", type=click.IntRange(1), default=100, help="Number of seeds: 0, 1, 2, …")
@click.option("--rate", "rates", type=float, multiple=True, default=RATES, help="A learning rate (repeatable).")
@click.option("--steps", type=click.IntRange(1), default=2000)
@click.option("--width", type=click.IntRange(1), default=64, help="Hidden units of the networks, 20 → width → 5.")
@click.option("--loss", default="cross_entropy", help="A name, or the weight of cross-entropy in a mixture.")
@click.option("--activation", default="relu", help="A name, or the weight of ReLU in a mixture.")
@click.option("--piece", type=click.IntRange(1), default=10, help="Seeds that are trained together.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask.distributed cluster; default: one process per core.")
def sweep_seeds(output, seeds, rates, steps, width, loss, activation, piece, scheduler) -> None:
    """Train the networks of many seeds and write one row per run to the CSV file OUTPUT."""
    networks = {"widths": (20, width, 5), "loss": parse(loss), "activation": parse(activation)}
    try:
        with NamedTemporaryFile(dir=output.resolve().parent):  # a folder that cannot be written is found out now
            pass
        with cluster(scheduler) as client:
            executor = client.get_executor() if client else None
            runs = sweep(range(seeds), rates, steps, networks=networks, executor=executor, piece=piece, progress="sweep")
        records.replace_file(output.resolve(), runs.to_csv(index=False))
    except (ValueError, OSError, ModuleNotFoundError, BrokenExecutor) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(runs)} runs in {output}")


@main.command("site")
@click.option(
    "--output", type=click.Path(path_type=Path), default=records.PROJECT / "site", help="Folder; default: site/."
)
def build_site(output: Path) -> None:
    """Render the executed notebooks to static pages that work offline."""
    from conslaw.paper.site import build  # here, as it loads nbconvert

    try:
        pages = build(output)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(pages)} pages; open {output / 'index.html'}")


@main.command("agreement")
def show_agreement() -> None:
    """Compare every published per-seed number with ours."""
    try:
        table = agreement.comparisons()
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(agreement.report(table).to_string(float_format="{:.1e}".format, na_rep=""))
    resolved = table[table.resolved]
    click.echo(
        f"{len(table)} numbers; {len(resolved)} are resolved: median deviation {resolved.relative_error.median():.1e}, "
        f"worst {resolved.relative_error.max():.1e}"
    )


if __name__ == "__main__":
    main()
