"""The site: the executed notebooks as static pages that work offline, with the overview as the first one.

Formulas become MathML, which browsers set by themselves, so that no page needs a script or a connection.
"""

import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from conslaw.paper import notebooks
from conslaw.paper.files import replace_file
from conslaw.paper.notebooks import notebook_names, title

__all__ = ["FIRST", "build"]

FIRST = "00_overview"
PAGE = Path(__file__).with_name("page")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)


def build(folder: Path) -> list[Path]:
    """Write one page for each notebook, and the overview once more as index.html.

    Args:
        folder: Where to; it is made where missing.

    Returns:
        The files written.

    Raises:
        ValueError: If a notebook has not been executed without an error, or a formula cannot be set.
        OSError: If the folder cannot be written.
    """
    names = notebook_names()
    pages = [{"name": name, "title": title(name)} for name in names]
    style = (PAGE / "style.css").read_text(encoding="utf-8") + HtmlFormatter(style="default").get_style_defs(
        ".highlight"
    )
    exporter = HTMLExporter(template_name=PAGE.name, extra_template_basedirs=[str(PAGE.parent)])
    written = []
    for name in names:
        notebook = nbformat.read(notebooks.NOTEBOOKS / f"{name}.ipynb", 4)
        _check_outputs(name, notebook)
        resources = {"name": name, "title": title(name), "pages": pages, "style": style}
        body, _ = exporter.from_notebook_node(_for_reading(notebook), resources=resources)
        for file in [f"{name}.html"] + ["index.html"] * (name == FIRST):
            replace_file(folder / file, body)
            written.append(folder / file)
    return written


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


def _for_reading(notebook: NotebookNode) -> NotebookNode:
    """Set formulas, and let links lead to pages."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _linked(FORMULA.sub(_set, cell.source))
            continue
        for output in cell.outputs:
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = _linked(output.data["text/markdown"])
    return notebook


def _linked(text: str) -> str:
    return text.replace(".ipynb)", ".html)")


def _set(formula: re.Match) -> str:
    """Turn one formula into MathML on a single line, which Markdown leaves alone."""
    source = formula[1] or formula[2]
    try:
        mathml = convert(source, display="block" if formula[1] else "inline")
    except Exception as error:
        raise ValueError(f"the formula {source!r} cannot be set: {error}") from error
    return " ".join(mathml.split())
