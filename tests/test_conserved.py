"""Conserved quantities: closed forms, how the laws hang together, and what a change of coordinates leaves out."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conslaw import (
    as_problem,
    conserved_quantity,
    draw,
    gradient_descent,
    gradient_imbalance,
    loss_and_gradients,
    matrix_laws,
    restore_unit_laws,
    unit_laws,
)
from conslaw.conserved import quadratic_laws, squared_parameter_norms


@pytest.mark.parametrize("bias", [False, True])
def test_laws_add_up(bias):
    problem = draw([1, 2], (20, 12, 9, 5), bias=bias)
    for pair, (units, matrix) in enumerate(zip(unit_laws(problem), matrix_laws(problem), strict=True)):
        torch.testing.assert_close(matrix.diagonal(dim1=1, dim2=2), units)
        torch.testing.assert_close(units.sum(1), conserved_quantity(problem)[:, pair])


def test_closed_form():
    weights = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]
    plain = as_problem([[1.0, 1.0]], [[0.0]], weights=weights, loss="mse")
    biased = as_problem([[1.0, 1.0]], [[0.0]], weights=weights, biases=[[1.0, 2.0], [7.0]], loss="mse")
    assert conserved_quantity(plain).item() == pytest.approx(61 - 30)
    assert conserved_quantity(biased).item() == pytest.approx(61 - 30 - 5)
    assert unit_laws(plain)[0].tolist() == [[25 - 5, 36 - 25]]
    assert unit_laws(biased)[0].tolist() == [[25 - 5 - 1, 36 - 25 - 4]]
    assert matrix_laws(plain)[0].tolist() == [[[20, 30 - 11], [30 - 11, 11]]]
    assert gradient_imbalance(torch.tensor([1.0, 4.0, 9.0, 0.5, 0.25, 0.125]), 3).tolist() == [2.5, 4.75]
    assert squared_parameter_norms(biased).tolist() == [pytest.approx([30, 61, 5, 49])]


EACH = ["unit", "layer", "entry"]


@given(st.integers(0, 1000), st.integers(2, 4), st.booleans(), st.sampled_from(["relu", "linear", "leaky_relu", 0.3]))
def test_every_law_is_orthogonal_to_the_gradient(seed, depth, bias, activation):
    """⟨Q w, g(w)⟩ = 0 for all w: that is what makes wᵀQw a law."""
    problem = draw([seed], (3, *[4] * (depth - 1), 2), samples=6, bias=bias, loss=0.5, activation=activation)
    gradients = loss_and_gradients(problem)[1]
    for each in EACH[: 3 if activation == "linear" else 2]:
        for family in quadratic_laws(problem, each):
            values = family(problem.parameters, gradients)
            torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-13)


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("bias", [False, True])
def test_change_of_a_law_in_any_step(each, bias):
    """C(w + d) − C(w) = 2⟨Qw, d⟩ + dᵀQd."""
    problem, other = (draw([seed], (3, 4, 4, 2), bias=bias) for seed in (1, 2))
    step = other.parameters
    moved = [w + d for w, d in zip(problem.parameters, step, strict=True)]
    for family in quadratic_laws(problem, each):
        change = 2 * family(problem.parameters, step) + family(step)
        torch.testing.assert_close(family(moved) - family(problem.parameters), change, rtol=1e-12, atol=1e-13)
        assert bool((family(moved).abs() <= family.size(moved)).all())


def test_only_the_three_kinds_of_laws():
    with pytest.raises(ValueError, match=r"each must be .* got 'neuron'"):
        quadratic_laws(draw([1]), "neuron")


@pytest.mark.parametrize("bias", [False, True])
def test_laws_in_the_coordinates_of_the_inputs_span(bias):
    problem = draw([1, 2], (12, 9, 4), samples=5, bias=bias)  # five samples span five of twelve dimensions
    problem = replace(problem, inputs=problem.inputs[:1].expand(2, -1, -1))
    inside = problem.in_span_of_inputs()
    assert inside.inputs.shape == (2, 5, 5)
    assert inside.widths == problem.widths == (12, 9, 4)
    for law in (unit_laws, matrix_laws):
        torch.testing.assert_close(law(inside)[0], law(problem)[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(conserved_quantity(inside), conserved_quantity(problem), rtol=1e-12, atol=0)
    runs = [gradient_descent(p, [0.02, 0.1], 50) for p in (problem, inside)]
    torch.testing.assert_close(runs[1].squared_norms, runs[0].squared_norms, rtol=1e-12, atol=0)
    torch.testing.assert_close(runs[1].drift, runs[0].drift, rtol=1e-9, atol=1e-13)
    end = conserved_quantity(runs[1].networks())
    torch.testing.assert_close(end, runs[1].corrected_conserved_quantity[-1, :, -1], rtol=1e-12, atol=0)
    torch.testing.assert_close(conserved_quantity(inside.select([1])), conserved_quantity(problem)[1:])
    if not bias:
        wanted = [law + 0.1 for law in unit_laws(problem)]
        whole, spanned = (restore_unit_laws(p, wanted) for p in (problem, inside))
        torch.testing.assert_close(unit_laws(spanned)[0], wanted[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(spanned.weights[1], whole.weights[1], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(loss_and_gradients(spanned)[0], loss_and_gradients(problem)[0], rtol=1e-11, atol=0)


@pytest.mark.parametrize("widths", [(20, 12, 5), (20, 12, 9, 5), (6, 5, 4, 3, 2)])
def test_restored_laws_and_the_same_function(widths):
    problem, others = draw([1, 2], widths), draw([3, 4], widths)
    restored = restore_unit_laws(problem, unit_laws(others))
    for ours, theirs in zip(unit_laws(restored), unit_laws(others), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss_and_gradients(restored)[0], loss_and_gradients(problem)[0], rtol=1e-12, atol=0)
    unchanged = restore_unit_laws(problem, unit_laws(problem)).weights
    for ours, theirs in zip(unchanged, problem.weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_a_unit_whose_law_cannot_be_restored():
    def networks(incoming, outgoing):
        return as_problem(torch.ones(1, 3), torch.ones(1, 4), weights=[incoming, outgoing], loss="mse")

    with pytest.raises(ValueError, match="in layer 1"):
        restore_unit_laws(networks(torch.zeros(2, 3), torch.ones(4, 2)), [torch.full((1, 2), -1.0)])
    dead = networks(torch.zeros(2, 3), torch.zeros(4, 2))
    assert torch.equal(restore_unit_laws(dead, [torch.zeros(1, 2)]).weights[0], dead.weights[0])


@pytest.mark.parametrize("kind", [{"bias": True}, {"activation": "tanh"}])
def test_networks_whose_laws_cannot_be_restored(kind):
    problem = draw([1], (4, 3, 2), samples=5, **kind)
    with pytest.raises(ValueError, match="no biases and a homogeneous activation"):
        restore_unit_laws(problem, unit_laws(problem))


def test_coordinates_of_the_span_touch_the_first_law_only():
    problem = draw([1, 2], (12, 9, 7, 4), samples=5, data_seed=3)
    inside = problem.in_span_of_inputs()
    for law in (unit_laws, matrix_laws):
        for ours, theirs in zip(law(inside), law(problem), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(conserved_quantity(inside), conserved_quantity(problem), rtol=1e-12, atol=1e-13)
    twice = inside.in_span_of_inputs()
    torch.testing.assert_close(conserved_quantity(twice), conserved_quantity(problem), rtol=1e-12, atol=1e-13)
    wanted = [law - 0.05 for law in unit_laws(problem)]
    for ours, value in zip(unit_laws(restore_unit_laws(inside, wanted)), wanted, strict=True):
        torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-11)
