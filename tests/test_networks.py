"""Losses, forward and backward pass against torch's own functions, autograd and finite differences."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw import dense_hessian, draw, gradient_descent, loss_and_gradients, sharpness
from conslaw.activations import NAMED, activation_function
from conslaw.losses import loss_function

TORCH = {
    "relu": torch.relu,
    "linear": lambda z: z,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.1),
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "sigmoid": torch.sigmoid,
    0.0: lambda z: z,
    0.3: lambda z: 0.7 * z + 0.3 * torch.relu(z),
    1.0: torch.relu,
}


def reference_loss(parameters, problem, network):
    """Loss of one network, from torch.nn.functional."""
    depth = len(problem.weights)
    signal = problem.inputs[network].T
    for layer in range(depth):
        bias = parameters[depth + layer][network] if problem.biases else None
        signal = torch.nn.functional.linear(signal, parameters[layer][network], bias)
        signal = TORCH[problem.activation](signal) if layer < depth - 1 else signal
    targets = problem.targets[network].T
    error = torch.nn.functional.mse_loss(signal, targets)
    entropy = torch.nn.functional.cross_entropy(signal, targets.argmax(1))
    weight = {"mse": 0.0, "cross_entropy": 1.0}.get(problem.loss, problem.loss)
    return (1 - weight) * error + weight * entropy


@pytest.mark.parametrize("activation", list(TORCH))
@pytest.mark.parametrize(("widths", "bias"), [((4, 3), True), ((4, 6, 3), False), ((4, 6, 5, 7, 3), True)])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", 0.4])
def test_gradients_are_those_of_autograd(activation, widths, bias, loss):
    problem = draw([1, 2], widths, samples=15, bias=bias, loss=loss, activation=activation)
    value, gradients = loss_and_gradients(problem)
    parameters = [p.clone().requires_grad_() for p in problem.parameters]
    expected = torch.stack([reference_loss(parameters, problem, m) for m in range(2)])
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=1e-14)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected.sum(), parameters), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-14)


def test_gradients_are_those_of_finite_differences():
    problem = draw([3], (4, 6, 3), samples=15, bias=True, loss=0.5, activation="tanh")
    _, gradients = loss_and_gradients(problem)
    step = 1e-5
    for index, gradient in enumerate(gradients):
        for sign_position in range(min(4, gradient[0].numel())):
            values = []
            for sign in (1, -1):
                moved = [p.clone() for p in problem.parameters]
                moved[index][0].view(-1)[sign_position] += sign * step
                values.append(loss_and_gradients(problem.with_parameters(moved))[0].item())
            difference = (values[0] - values[1]) / (2 * step)
            assert gradient[0].flatten()[sign_position].item() == pytest.approx(difference, rel=1e-6, abs=1e-9)


@settings(max_examples=30)
@given(weight=st.floats(0, 1), seed=st.integers(0, 2**16))
def test_mixture_is_the_weighted_sum(weight, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    targets = torch.eye(3, dtype=torch.float64)[torch.randint(3, (2, 7), generator=generator)].mT
    mixed = loss_function(weight)(outputs, targets, 7)
    parts = loss_function("mse")(outputs, targets, 7), loss_function("cross_entropy")(outputs, targets, 7)
    for result, error, entropy in zip(mixed, *parts, strict=True):
        torch.testing.assert_close(result, (1 - weight) * error + weight * entropy)


@pytest.mark.parametrize("loss", ["hinge", -0.1, 1.5, None, {}, True, torch.tensor(0.5)])
def test_unknown_loss(loss):
    with pytest.raises(ValueError, match=r"loss must be one of mse, cross_entropy or a weight.*got"):
        loss_function(loss)


@pytest.mark.parametrize("activation", ["swish", -0.1, 2, None, {}, True, torch.tensor(0.5)])
def test_unknown_activation(activation):
    with pytest.raises(ValueError, match="activation must be one of relu, linear"):
        activation_function(activation)


def test_every_named_activation_is_tested():
    assert set(NAMED) <= set(TORCH)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_shared_inputs_change_nothing(bias, activation):
    one = draw([42, 137, 256], (20, 9, 7, 5), bias=bias, samples=30, activation=activation)
    shared = replace(one, inputs=one.inputs[:1].expand(3, -1, -1))
    own = replace(one, inputs=shared.inputs.contiguous())
    runs = [gradient_descent(problem, [0.05, 0.1], 70) for problem in (shared, own)]
    torch.testing.assert_close(runs[0].loss, runs[1].loss, rtol=1e-11, atol=0)
    for ours, theirs in zip(runs[0].parameters, runs[1].parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    for problem in (shared.select(torch.tensor([0, 2])), shared.to("float32")):
        assert problem.inputs.stride(0) == 0
    torch.testing.assert_close(sharpness(shared).value, sharpness(own).value)
    for ours, theirs in zip(dense_hessian(shared), dense_hessian(own), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def test_the_span_of_inputs_is_all_that_training_sees():
    problem = draw([1, 2], (12, 9, 4), samples=30)
    flat = problem.inputs[0].clone()
    flat[7:] = torch.randn(5, 7, dtype=flat.dtype) @ flat[:7]  # rank 7
    problem = replace(problem, inputs=flat.expand(2, -1, -1))
    inside = problem.in_span_of_inputs()
    assert inside.inputs.shape == (2, 7, 30)
    whole, spanned = (gradient_descent(p, [0.02, 0.1], 50) for p in (problem, inside))
    torch.testing.assert_close(spanned.loss, whole.loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(spanned.drift, whole.drift, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(spanned.imbalance_sum, whole.imbalance_sum, rtol=1e-10, atol=0)
    torch.testing.assert_close(sharpness(inside).value, sharpness(problem).value)
    with pytest.raises(ValueError, match="share their inputs"):
        draw([1, 2]).in_span_of_inputs()
