"""The files that make the environment say the same, and the core works in the smallest of them."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
EXTRAS = "matplotlib pandas mlxtend sklearn jupyterlab papermill nbformat nbconvert ipykernel IPython click distributed"
EXTRAS += " torchvision transformers timm tensorboard"


def read(name):
    return (PROJECT / name).read_text(encoding="utf-8")


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def requirements(extra):
    """Names and bounds of what the project with this extra needs."""
    optional = project()["optional-dependencies"]
    listed = [*project()["dependencies"], *optional[extra]]
    needed = {}
    while listed:
        requirement = Requirement(listed.pop())
        if requirement.name == "conslaw":
            listed += [entry for other in requirement.extras for entry in optional[other]]
        else:
            needed[requirement.name] = requirement.specifier
    return needed


def pinned():
    """Versions that constraints.txt pins."""
    pairs = (line.split("==") for line in read("constraints.txt").split())
    return {canonicalize_name(name): version for name, version in pairs}


def python(code, folder):
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_conda_environment_equals_pyproject():
    entries = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert entries.pop() == {"pip": ["--editable ."]}
    conda = dict(re.fullmatch(r"([\w-]+)(.*)", entry).groups() for entry in entries)
    conda["torch"] = conda.pop("pytorch")
    assert conda.pop("pip") == ""
    assert conda.pop("python") == project()["requires-python"]
    assert conda == {name: str(specifier) for name, specifier in requirements("test").items()}


def test_test_environment_has_every_extra():
    for extra in ("notebooks", "cluster", "models"):
        assert requirements(extra).items() <= requirements("test").items()


def test_constraints_pin_what_is_required():
    assert pinned()["torch"] == "2.13.0"
    for extra in project()["optional-dependencies"]:
        for name, specifier in requirements(extra).items():
            assert pinned()[name] in specifier


def test_constraints_are_a_lock():
    """Whatever is installed for any extra needs nothing, on any Python that is tested, that has no version there."""
    versions, tested = pinned(), [line[-4:] for line in project()["classifiers"] if ":: 3." in line]
    listed = [Requirement(entry) for entry in project()["dependencies"]]
    listed += [Requirement(entry) for extra in project()["optional-dependencies"].values() for entry in extra]
    seen = set()
    while listed:
        requirement = listed.pop()
        name = canonicalize_name(requirement.name)
        if name == "conslaw" or (name, *requirement.extras) in seen:
            continue
        assert name in versions, f"constraints.txt lacks {requirement}"
        assert versions[name] in requirement.specifier, (
            f"constraints.txt has {name}=={versions[name]}, not {requirement}"
        )
        seen.add((name, *requirement.extras))
        try:
            further = map(Requirement, importlib.metadata.requires(name) or [])
        except importlib.metadata.PackageNotFoundError:  # of an extra that is not installed
            continue
        listed += [other for other in further if is_needed(other, requirement.extras, tested)]
    assert len(seen) > 100


def is_needed(requirement, extras, pythons):
    places = [{"extra": extra, "python_version": python} for extra in ("", *extras) for python in pythons]
    return requirement.marker is None or any(requirement.marker.evaluate(place) for place in places)


def test_versions_are_one():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == project()["version"]
    assert python("import conslaw; print(conslaw.__version__)", PROJECT).strip() == project()["version"]
    assert f"## {project()['version']} ({citation['date-released']})" in read("CHANGELOG.md")


def test_codemeta_equals_pyproject():
    metadata, package = json.loads(read("codemeta.json")), project()
    for field in ("name", "description", "version", "keywords"):
        assert metadata[field] == package[field]
    assert metadata["license"].endswith(f"/{package['license']}")
    assert metadata["runtimePlatform"].replace(" ", "") == f"Python{package['requires-python']}"
    assert metadata["referencePublication"] == package["urls"]["Paper"]
    assert metadata["softwareRequirements"] == [Requirement(entry).name for entry in package["dependencies"]]


def test_container_has_a_python_that_is_tested():
    container = json.loads(read(".devcontainer/devcontainer.json"))
    assert re.search(r"3\.\d+", container["image"])[0] in read(".github/workflows/tests.yml")
    assert container["postCreateCommand"] == "make env"


def test_pythons_are_those_tested():
    tested = re.findall(r'"(3\.\d+)"', read(".github/workflows/tests.yml"))
    named = [line.split(":: ")[-1] for line in project()["classifiers"] if ":: 3." in line]
    assert tested == named
    assert project()["requires-python"] == f">={named[0]}"


def test_pre_commit_has_the_pinned_ruff():
    (hooks,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert f"ruff=={hooks['rev'].removeprefix('v')}" in read("constraints.txt").split()


def test_import_beside_a_folder_of_that_name(tmp_path):
    (tmp_path / "conslaw").mkdir()  # as in the folder above a clone
    python("from conslaw import draw", tmp_path)


def test_core_needs_no_extra(tmp_path):
    code = f"""
import importlib, pkgutil, sys
import conslaw
for module in pkgutil.walk_packages(conslaw.__path__, "conslaw."):
    if not module.name.startswith("conslaw.paper"):
        importlib.import_module(module.name)
loaded = set({EXTRAS.split()}) & set(sys.modules)
assert not loaded, loaded
sys.modules.update(dict.fromkeys({EXTRAS.split()}))  # as if they were not installed
run = conslaw.gradient_descent(conslaw.draw([42]), [0.1], 2)
assert run.drift.isfinite().all()
try:
    conslaw.draw([42], (784, 4, 10), samples=500, dataset="mnist")
except ModuleNotFoundError as error:
    print(error)
from conslaw.__main__ import main
try:
    main()
except SystemExit as error:
    print(error.code)
"""
    lines = python(code, tmp_path).splitlines()
    assert len(lines) == 2
    assert all("pip install 'conslaw[notebooks]'" in line for line in lines)


FILES = [path for folder in ("conslaw", "tests", "benchmarks") for path in sorted((PROJECT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", [*FILES, PROJECT / "conftest.py"], ids=lambda path: str(path.relative_to(PROJECT)))
def test_text_files_are_utf_8(path):
    """Ruff holds it for `open`, not for methods of what it cannot tell to be a path."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            binary = any(isinstance(text, str) and re.fullmatch("[rwax]b|b[rwax]", text) for text in texts)
            opens = name in ("read_text", "write_text") or (name == "open" and not binary)
            assert "encoding" in named or not (opens or named.get("text") is True), f"{path}:{node.lineno}"
