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
    "quadratic",
    "conserved",
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
    "third_derivative",
    "eigenspace",
    "theory.complementarity",
    "training._edge",
    "training.central_flow",
    "training.rod_flow",
    "theory.crossover",
    "theory.modes",
    "theory.switching",
    "theory.gram",
    "theory.compression",
    "theory.intervals",
    "theory.power_laws",
    "theory.decay",
    "theory.euler",
    "theory.grids",
    "models.objective",
    "models.exponents",
    "models.labels",
    "models.walk",
    "models.rules.moves",
    "models.rules.entries",
    "models.rules.products",
    "models.rules.convolutions",
    "models.rules.norms",
    "models.scaling",
    "models.families",
    "models.proposals",
    "models.verification",
    "models.constants",
    "models.found",
    "models.completeness",
    "models.run",
    "models.tracking",
    "models.curvature",
    "models.examples",
    "_names",
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


def loaded_by(code):
    """Names of the modules that a fresh process has loaded after running code."""
    code += "\nimport sys; print('', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    return set(run.stdout.splitlines()[-1].split())


OF_THE_PAPER = {"pandas", "matplotlib", "IPython", "mlxtend", "papermill", "nbformat"}
OF_TRAINING = {"torch", "numpy", "scipy"}


def test_import_loads_what_training_needs_and_no_more():
    loaded = loaded_by("from conslaw import draw")
    assert loaded >= OF_TRAINING
    assert not loaded & {*OF_THE_PAPER, "numba", "sklearn"}
    assert not [name for name in loaded if name.startswith("conslaw.paper")]


WRONG = ["rebuild nothing", "rebuild 01_minimal -p nothing 1", "rebuild 01_minimal -p steps none"]


@pytest.mark.parametrize("command", ["--help", "--version", "list", *WRONG])
def test_a_command_that_computes_nothing_loads_nothing_for_it(command):
    loaded = loaded_by(
        f"""
import sys
from conslaw.__main__ import main
sys.argv = ["conslaw", *{command.split()}]
try:
    main()
except SystemExit as end:
    assert end.code == {int(command in WRONG)}"""
    )
    assert "conslaw.paper.commands" in loaded
    assert not loaded & {*OF_THE_PAPER, *OF_TRAINING, "numba"}


@pytest.mark.parametrize("use", ["draw", "conserved.unit_laws", "theory.power_laws.PowerLaw"])
def test_names_and_modules_are_there_at_their_first_use(use):
    assert "conslaw.drawing" in loaded_by(f"import conslaw; conslaw.{use}")


def test_names_are_listed_before_their_first_use():
    code = "import conslaw; assert {*dir(conslaw)} > {*conslaw.__all__, '__version__'}; from conslaw import *; draw"
    assert "conslaw.drawing" in loaded_by(code)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'conslaw' has no attribute 'nothing'"):
        _ = conslaw.nothing


def test_few_names_at_the_top_and_none_hides_a_module():
    assert len(conslaw.__all__) <= 26
    assert conslaw.__all__ == sorted(conslaw.__all__)
    assert not modules().intersection(conslaw.__all__)
    assert all(callable(getattr(conslaw, name)) for name in conslaw.__all__)
