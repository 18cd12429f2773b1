"""On torch's meta device tensors have shapes and no values: what runs there touches no other device and waits for none.

It is what can be checked of a GPU's path where there is none.
"""

import pytest
import torch

from conslaw import draw, hessian_vector_product, loss_and_gradients, network_outputs
from conslaw.conserved import conserved_quantity, matrix_laws, unit_laws
from conslaw.hessian import dense_hessian, gradient_vector
from conslaw.theory.compression import correct_probability
from conslaw.theory.crossover import crossover_sum, layer_signs, projection_coefficients
from conslaw.theory.switching import first_preactivations
from conslaw.training._batched import BatchedSteps
from conslaw.training.optimizers import Adam, Momentum


def problem(**options):
    shape = options.pop("widths", (6, 7, 5, 3))
    return draw([1, 2], shape, samples=9, device="meta", **options)


KINDS = [
    {"loss": "mse", "activation": "linear"},
    {"loss": "mse", "activation": "relu"},
    {"loss": "cross_entropy", "activation": "tanh", "bias": True},
    {"loss": 0.4, "activation": 0.3, "bias": True},
]


def on_meta(*tensors):
    return all(tensor.device.type == "meta" for tensor in tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    networks = problem(**kind)
    loss, gradients = loss_and_gradients(networks)
    assert loss.shape == (2,)
    assert [g.shape for g in gradients] == [p.shape for p in networks.parameters]
    assert on_meta(loss, *gradients, network_outputs(networks), first_preactivations(networks))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", [None, Momentum(), Adam()])
def test_steps(kind, optimizer):
    steps = BatchedSteps(problem(**kind), torch.tensor([0.1, 0.2], dtype=torch.float64), optimizer)
    recorded = steps.advance(range(10, 14), 3, {11, 12})
    parameters = len(steps.networks.parameters)
    assert recorded.losses.shape == (4, 2)
    assert recorded.squared_gradient_norms.shape == (4, 2, parameters)
    assert recorded.squared_norms.shape == (2, 2, parameters)
    assert on_meta(*recorded[:3])
    if optimizer:
        assert recorded.squared_step_norms.shape == recorded.alignments.shape == (3, 2, parameters)
    steps.keep(torch.tensor([1]))
    assert steps.advance(range(14, 15), 0, set()).losses.shape == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gauss_newton", [False, True])
def test_hessian_products(kind, gauss_newton):
    networks = problem(**kind)
    vector = gradient_vector(networks)
    product = hessian_vector_product(networks, gauss_newton=gauss_newton)
    assert on_meta(product(vector), product(vector))
    assert product(vector).shape == vector.shape


@pytest.mark.parametrize("kind", KINDS)
def test_dense_hessian(kind):
    networks = problem(**kind)
    size = gradient_vector(networks).shape[1]
    assert dense_hessian(networks).matrix.shape == (2, size, size)


def test_laws_and_theory():
    networks = problem(bias=True)
    assert conserved_quantity(networks).shape == (2, 2)
    assert on_meta(conserved_quantity(networks), *unit_laws(networks), *matrix_laws(networks))
    two = problem(widths=(6, 7, 3))
    gradient, signs = gradient_vector(two), layer_signs(two)
    coefficients = projection_coefficients(gradient, (signs * gradient**2).sum(1))
    assert crossover_sum([0.1, 0.2], gradient, coefficients, 10).shape == (2, 2)
    assert on_meta(signs, coefficients, correct_probability(two))


def test_changes_of_a_problem():
    networks = problem(loss="mse", activation="linear")
    assert on_meta(networks.select([0]).inputs, networks.to("float32").weights[0], networks.under(loss=0.5).targets)
