"""The files that make the environment say the same."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from conslaw.paper.records import PROJECT


def requirements():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    listed = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["test"]])
    return project["requires-python"], {requirement.name: requirement.specifier for requirement in listed}


def test_conda_environment_equals_pyproject():
    python, required = requirements()
    entries = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    (of_pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    assert of_pip[0] == "--editable ."
    listed = [entry for entry in entries if isinstance(entry, str)] + of_pip[1:]
    conda = dict(re.fullmatch(r"([\w-]+)(.*)", entry).groups() for entry in listed)
    conda["torch"] = conda.pop("pytorch")
    assert conda.pop("pip") == ""
    assert conda.pop("python") == python
    assert conda == {name: str(specifier) for name, specifier in required.items()}


def test_constraints_pin_what_is_required():
    _, required = requirements()
    pinned = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().split())
    pinned = {name.lower(): version for name, version in pinned.items()}
    assert pinned["torch"] == "2.13.0"
    for name, specifier in required.items():
        assert pinned[name] in specifier
