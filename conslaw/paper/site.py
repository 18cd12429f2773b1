"""The site: notebooks, ledger and the page to explore as static files that work offline, with the overview first.

Formulas become MathML, which browsers set by themselves, so that no page needs a connection, and the pages of the
notebooks no script.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from plotly.offline import get_plotlyjs
from pygments.formatters import HtmlFormatter
from pylatexenc.latex2text import LatexNodes2Text

from conslaw.paper import ledger, notebooks
from conslaw.paper.claims import KINDS, VERDICTS
from conslaw.paper.files import replace_file
from conslaw.paper.notebooks import notebook_names, title
from conslaw.paper.records import read_record, records_folder
from conslaw.paper.typeset import typeset

__all__ = ["EXTRA", "FIRST", "build"]

FIRST = "00_overview"
EXTRA = {
    "ledger": "The ledger: every claim and its verdict",
    "explore": "Explore: learning rates, widths, and the exponent of a window",
}
"""Pages that are no notebooks, and their titles."""
PAGE = Path(__file__).with_name("page")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"')


def build(folder: Path) -> list[Path]:
    """Write one page for each notebook and one for the ledger, and the overview once more as index.html.

    Args:
        folder: Where to; it is made where missing.

    Returns:
        The files written.

    Raises:
        ValueError: If a notebook has not been executed without an error, a formula cannot be set, or a figure is not
            described in the record.
        OSError: If the folder cannot be written.
    """
    names = notebook_names()
    pages = [{"name": name, "title": title(name)} for name in names]
    pages += [{"name": name, "title": title} for name, title in EXTRA.items()]
    shared = {"pages": pages, "style": _style()}
    exporter = HTMLExporter(template_name=PAGE.name, extra_template_basedirs=[str(PAGE.parent)])
    files = {"plotly.min.js": get_plotlyjs()}
    files |= {
        f"{name}.html": _page(name, content, shared) for name, content in (("ledger", _claims()), ("explore", _runs()))
    }
    for name in names:
        notebook = nbformat.read(notebooks.NOTEBOOKS / f"{name}.ipynb", 4)
        _check_outputs(name, notebook)
        resources = {"name": name, "title": title(name), **shared}
        body, _ = exporter.from_notebook_node(_for_reading(name, notebook), resources=resources)
        files[f"{name}.html"] = _finished(body)
    files["index.html"] = files[f"{FIRST}.html"]
    for file, text in files.items():
        replace_file(folder / file, text)
    return [folder / file for file in files]


def _style() -> str:
    """Return the style sheet, with the colours of code on light and on dark pages."""
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return f"{(PAGE / 'style.css').read_text(encoding='utf-8')}{light}\n@media (prefers-color-scheme: dark) {{{dark}}}"


def _page(name: str, content: Mapping[str, object], shared: Mapping[str, object]) -> str:
    """Write a page that is no notebook, with its script."""
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True)
    environment.filters["typeset"] = lambda text: Markup(typeset(str(escape(text))))
    # Content of <script> and <style>, where entities are none.
    script = Markup((PAGE / f"{name}.js").read_text(encoding="utf-8"))
    texts = {"title": EXTRA[name], "name": name, "pages": shared["pages"], "style": Markup(shared["style"])}
    return _coloured(environment.get_template(f"{name}.html.j2").render(**texts, script=script, **content))


def _claims() -> dict[str, object]:
    """Return what the ledger's page shows."""
    results = ledger.all_verdicts()
    claims = ledger.as_data(results)["claims"]
    filters = [
        ("verdict", "verdict", [verdict for verdict in VERDICTS if any(c["verdict"] == verdict for c in claims)]),
        ("kind", "kind of claim", list(KINDS)),
        ("notebook", "notebook", sorted({claim["notebook"] for claim in claims})),
    ]
    return {"score": ledger.score(results), "filters": filters, "claims": claims, "kinds": KINDS, "verdicts": VERDICTS}


def _runs() -> dict[str, object]:
    """Return the runs of 02_explore, with four digits, as the page to explore reads them.

    At the edge the drift is counted from where its prediction starts.
    """
    table = pd.read_csv(records_folder() / "02_explore.csv")
    table["measured"] = table.drift.where(table.predicted.notna())
    start = table.groupby(["loss", "width", "eta"]).measured.transform("first")
    table["measured"], table["predicted"] = table.measured - start, table.predicted - start

    def rows(values: pd.Series, group: pd.DataFrame) -> list[list[float | None]]:
        grid = values.to_numpy().reshape(group.eta.nunique(), -1)
        return [[float(f"{value:.4g}") if np.isfinite(value) else None for value in row] for row in grid]

    runs = [
        {"loss": loss, "width": width}
        | {name: rows(group[name], group) for name in ("drift", "imbalance", "sharpness", "measured", "predicted")}
        for (loss, width), group in table.groupby(["loss", "width"])
    ]
    axes = {"rates": table.eta, "times": table.time, "widths": table.width}
    data = {name: values.unique().tolist() for name, values in axes.items()} | {"runs": runs}
    return {"data": Markup(json.dumps(data))}


def _finished(body: str) -> str:
    """Add a table of contents below the title, colour the verdicts, and let keys reach what scrolls."""
    headings = HEADING.findall(body)
    entries = "".join(f'<li><a href="#{anchor}">{text}</a></li>' for anchor, text in headings)
    contents = f'<nav class="contents" aria-label="On this page"><ol>{entries}</ol></nav>' if headings else ""
    body = re.sub(r"(</h1>)", lambda match: match[1] + contents, body, count=1)
    for plain, accessible in (
        ("<pre>", '<pre tabindex="0">'),
        ('<div class="output_html', '<div tabindex="0" class="output_html'),
        ("<th></th>", "<td></td>"),  # the corner of a table of pandas heads nothing
    ):
        body = body.replace(plain, accessible)
    return _coloured(body)


def _coloured(page: str) -> str:
    """Mark the verdicts, which stand in bold letters, by a class."""
    return re.sub(
        f"<strong>({'|'.join(VERDICTS)})</strong>",
        lambda match: f'<strong class="verdict {match[1].replace(" ", "-")}">{match[1]}</strong>',
        page,
    )


def _check_outputs(name: str, notebook: NotebookNode) -> None:
    """Refuse a notebook of which a cell was not run, or raised an error."""
    again = f"make its outputs with `conslaw rebuild --force {name}`"
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise ValueError(f"cell {number} of notebook {name} was not run; {again}")
        for output in cell.outputs:
            if output.output_type == "error":
                raise ValueError(f"cell {number} of notebook {name} shows an error, {output.ename}; {again}")


def _for_reading(name: str, notebook: NotebookNode) -> NotebookNode:
    """Set formulas, let links lead to pages, and describe figures to those who cannot see them."""
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {}) and not output.metadata.get("image/png", {}).get("alt")
    ]
    has_record = (records_folder() / f"{name}.json").exists()  # 01_minimal is to need torch alone, and leaves none
    described = list(read_record(name).get("figures", {}).values()) if has_record else [""] * len(pictures)
    if pictures and len(described) != len(pictures):
        raise ValueError(
            f"notebook {name} shows {len(pictures)} figures, and its record describes {len(described)}; "
            f"make them anew with `conslaw rebuild --force {name}`"
        )
    for output, text in zip(pictures, described, strict=False):
        output.metadata["image/png"] = {"alt": LatexNodes2Text().latex_to_text(text) or title(name)}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _written(cell.source)
            continue
        for output in cell.outputs:
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = _written(output.data["text/markdown"])
    return notebook


def _written(text: str) -> str:
    """Set the formulas of a text in Markdown, and let its links lead to pages."""
    return FORMULA.sub(_set, text).replace(".ipynb)", ".html)").replace("../LEDGER.md)", "ledger.html)")


def _set(formula: re.Match) -> str:
    """Turn one formula into MathML on a single line, which Markdown leaves alone."""
    source = formula[1] or formula[2]
    try:
        mathml = convert(source, display="block" if formula[1] else "inline")
    except Exception as error:
        raise ValueError(f"the formula {source!r} cannot be set: {error}") from error
    return " ".join(mathml.split())
