"""The parameters of notebooks: what each may be, checked before a kernel starts and again by the first cell of a run.

Types are the annotations of a notebook's cell of parameters, entries of lists are like those of the default. Numbers
are positive unless a name says otherwise below; lists of numbers ascend.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from conslaw.paper.notebooks import Parameter, read_parameters

__all__ = ["changed", "check", "label"]

LONGEST_LABEL = 120


class Range(NamedTuple):
    """Which numbers are meant."""

    words: str
    holds: Callable[[float], bool]


def _one_of(*names: str) -> Range:
    return Range(f"one of {', '.join(names)}", lambda value: value in names)


POSITIVE = Range("above 0", lambda number: number > 0)
TEXT = Range("text", lambda value: True)
STEPS = Range("of at least 0", lambda number: number >= 0)
SHARES = Range("from 0 to 1", lambda number: 0 <= number <= 1)
SEEDS = Range("from 0 to 2**32 - 1", lambda number: 0 <= number < 2**32)


def _images() -> Range:
    """Say which numbers of images there are; a function, as torch comes with the answer and the others need none."""
    from conslaw.data import MNIST_DIGITS

    return Range(f"of {', '.join(map(str, MNIST_DIGITS))}", lambda number: number in MNIST_DIGITS)


SEED_LISTS = ("seeds", "few_seeds", "more_seeds", "new_seeds", "control_seeds", "edge_seeds", "fresh_seeds")
# By the name of a parameter; that of one notebook's goes before.
RANGES: dict[str, Range | Callable[[], Range]] = {
    **dict.fromkeys(("seed", "data_seed", *SEED_LISTS), SEEDS),
    **dict.fromkeys(("checkpoints", "prediction_times", "stored", "window"), STEPS),
    **dict.fromkeys(("mixtures", "loss_mixtures", "activation_mixtures"), SHARES),
    **dict.fromkeys(("images", "e04_edge_of_stability.samples"), _images),
    "activations": _one_of("relu", "linear", "leaky_relu", "tanh", "gelu", "sigmoid"),
    **dict.fromkeys(("conserved", "low_exponents"), Range("of any size", lambda number: True)),
    "depths": Range("of at least 2", lambda number: number >= 2),
    "device": _one_of("cpu", "cuda"),
    "dtype": _one_of("float64", "float32"),
    "factor": Range("of at least 0 and below 1", lambda number: 0 <= number < 1),
}
UNORDERED = {*SEED_LISTS, "hidden", "edge_widths", "activations", "classes", "rates"}
REPEATED = {"hidden", "edge_widths", "classes", "rates"}
PAIRS = {"window", "common_window"}
# Fewest entries: three for a power law or a correlation.
LEAST = {
    **dict.fromkeys(
        (
            "learning_rates",
            "coupling_rates",
            "coupling_relative",
            "relative_rates",
            "beyond_rates",
            "scales",
            "scaled_rates",
        ),
        3,
    ),
    # The largest learning rate is left out in one of these notebooks' fits.
    "fig3c_loss_and_width.learning_rates": 4,
    "fig4a_width_scaling.learning_rates": 4,
    "fig4b_width_dimension.learning_rates": 4,
    **dict.fromkeys(("fig4a_width_scaling.widths", "fig4c_switch_rate.widths", "t09_mean_field.widths"), 3),
    # Two slopes of the drift take three learning rates, an exponent of width three widths.
    **dict.fromkeys(("edge_held.below", "edge_held.widths"), 3),
    **dict.fromkeys(("low_exponents", "inner_products"), 3),
    **dict.fromkeys(("edge_widths", "prediction_times", "stored", "e04_edge_of_stability.learning_rates"), 2),
    "exponent.widths": 2,
    **dict.fromkeys(("01_minimal.learning_rates", "fig2c_mode_coefficients_relu.learning_rates"), 1),
}

KINDS = {"int": int, "float": float, "str": str}
NOUNS = {int: ("an integer", "integers"), float: ("a number", "numbers"), str: ("", "names, each")}


def check(notebook: str, values: Mapping[str, object]) -> dict[str, object]:
    """Check values of parameters.

    Args:
        notebook: Name of the notebook.
        values: Some of its parameters.

    Returns:
        The values: a tuple as a list, and whole numbers as floats where floats are meant.

    Raises:
        ValueError: If there is no such parameter, or a value is not what it takes; the message names it.
    """
    known = read_parameters(notebook)
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ValueError(f"notebook {notebook!r} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    checked = {name: _check(notebook, name, known[name], values[name]) for name in values}
    if values.get("device", "cpu") != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise ValueError("device 'cuda' was asked for, but torch finds no CUDA device here; use 'cpu'")
    every = {name: checked.get(name, parameter.default) for name, parameter in known.items()}
    if set(every.get("more_seeds", ())) & set(every.get("seeds", ())):
        raise ValueError(f"more_seeds of {notebook} takes other seeds than seeds, got {every['more_seeds']}")
    if not set(every.get("few_seeds", ())) <= set(every.get("seeds", ())):
        raise ValueError(f"few_seeds of {notebook} takes some of seeds, {every['seeds']}, got {every['few_seeds']}")
    return checked


def changed(notebook: str, values: Mapping[str, object]) -> dict[str, object]:
    """Return those `check`ed values that are not the defaults: what makes a run a variant, in the notebook's order."""
    defaults = {name: parameter.default for name, parameter in read_parameters(notebook).items()}
    return {name: values[name] for name in defaults if name in values and values[name] != defaults[name]}


def label(values: Mapping[str, object]) -> str:
    """Name a variant by its values, as a folder may be called: width=128,seeds=[42,137]; long ones by a hash."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", "="))[1:-1].replace('"', "")
    if len(text) <= LONGEST_LABEL and re.fullmatch(r"[\w.,=+\[\]-]+", text):
        return text
    return f"{','.join(values)[: LONGEST_LABEL // 2]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _check(notebook: str, name: str, parameter: Parameter, value: object) -> object:
    """Check one value."""

    def of_table(table: Mapping, default):
        return table.get(f"{notebook}.{name}", table.get(name, default))

    kind = KINDS.get(parameter.kind) or _kind_of_entries(parameter.default)
    range_ = of_table(RANGES, TEXT if kind is str else POSITIVE)
    range_ = range_() if callable(range_) else range_
    if parameter.kind in KINDS:
        if _fits(value, kind, range_):
            return kind(value)
        wanted = f"{NOUNS[kind][0]} {range_.words}".strip()
        raise ValueError(f"{name} of {notebook} takes {wanted}, got {value!r}")

    least, ordered, different = of_table(LEAST, 1), name not in UNORDERED and kind is not str, name not in REPEATED
    entries = list(value) if isinstance(value, list | tuple) else []
    if (
        (len(entries) == 2 if name in PAIRS else len(entries) >= least)
        and all(_fits(entry, kind, range_) for entry in entries)
        and (not different or len(set(entries)) == len(entries))
        and (not ordered or entries == sorted(entries))
    ):
        return [kind(entry) for entry in entries]
    count = "2" if name in PAIRS else f"at least {least}"
    order = "ascending " if ordered else "different " if different else ""
    wanted = f"a list of {count} {order}{NOUNS[kind][1]} {range_.words}"
    raise ValueError(f"{name} of {notebook} takes {wanted}, got {value!r}")


def _kind_of_entries(default: list) -> type:
    """Tell the kind that all entries of a list have, where some floats may be written as integers."""
    kinds = {type(entry) for entry in default}
    return next(kind for kind in (str, float, int) if kind in kinds)


def _fits(value: object, kind: type, range_: Range) -> bool:
    """Tell whether a value is of a kind, where an integer is a number and a truth value neither, and in its range."""
    if isinstance(value, bool) or not isinstance(value, int | float if kind is float else kind):
        return False
    return (kind is str or math.isfinite(value)) and range_.holds(value)
