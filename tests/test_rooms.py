"""The order of the modules: each imports only from above it, the core nothing of the paper's machinery."""

import ast
import subprocess
import sys

import pytest

import conslaw
from conslaw.paper.notebooks import PROJECT

CORE = [
    "losses",
    "activations",
    "tensors",
    "problems",
    "data",
    "drawing",
    "progress",
    "networks",
    "laws",
    "training.optimizers",
    "training.trajectory",
    "training._steps",
    "training._batched",
    "training._kernel",
    "training._compiled",
    "training._chunk",
    "training.descent",
    "training.flow",
    "hessian",
    "eigenvalues",
    "theory.crossover",
    "theory.modes",
    "theory.switching",
    "theory.compression",
    "theory.power_laws",
    "theory.grids",
]
PACKAGE = PROJECT / "conslaw"


def modules():
    """Names of all modules, without those of packages."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return {".".join(path.parts) for path in paths if path.name != "__init__"}


def imported(module):
    """Modules of the package that a module names in its imports, wherever they stand."""
    found = set()
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "conslaw":
            room = node.module.removeprefix("conslaw").removeprefix(".")
            inside = {".".join(filter(None, (room, alias.name))) for alias in node.names}
            found |= (inside & modules()) or {room}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("conslaw.") for alias in node.names if alias.name.startswith("conslaw")}
    return found


def test_every_module_has_its_place():
    assert {name for name in modules() if not name.startswith("paper.")} == {*CORE, "__main__"}


@pytest.mark.parametrize("module", CORE)
def test_core_imports_only_from_above(module):
    assert imported(module) <= set(CORE[: CORE.index(module)])


def test_no_module_imports_in_a_circle():
    done, waiting = {"__init__", ""}, {name for name in modules() if name.startswith("paper.")}
    done |= set(CORE)
    while ready := {name for name in waiting if imported(name) <= done}:
        done, waiting = done | ready, waiting - ready
    assert not waiting


def test_import_loads_what_training_needs_and_no_more():
    code = "import sys, conslaw; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    unwanted = {"pandas", "matplotlib", "numba", "IPython", "sklearn", "mlxtend", "papermill", "nbformat"}
    assert not unwanted.intersection(loaded)
    assert not [name for name in loaded if name.startswith("conslaw.paper")]


def test_few_names_at_the_top_and_none_hides_a_module():
    assert len(conslaw.__all__) <= 25
    assert conslaw.__all__ == sorted(conslaw.__all__)
    assert not modules().intersection(conslaw.__all__)
    assert all(callable(getattr(conslaw, name)) for name in conslaw.__all__)
