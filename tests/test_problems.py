"""Draws against published values, and against torch.nn.Linear with the global generator."""

import numpy as np
import pytest
import torch

from conslaw import conserved_quantity, draw, gradient_descent
from conslaw.data import concentric_spheres, gaussian_mixture, xor
from conslaw.problems import is_shared

SEEDS = [42, 137, 256, 512, 1024]
ORDERS = ("weights_first", "data_first")


def test_published_draws_of_seed_42():
    problem = draw([42])
    assert problem.weights[0].square().sum().item() == pytest.approx(21.602316, abs=1e-6)
    assert problem.weights[1].square().sum().item() == pytest.approx(1.5010, abs=5e-5)
    assert problem.inputs[0, 0, 0].item() == pytest.approx(-1.194890, abs=1e-6)


@pytest.mark.parametrize(
    ("widths", "bias", "seeds", "published"),
    [
        ((20, 64, 5), False, SEEDS, [[-20.101339], [-19.371710], [-19.393847], [-18.875115], [-20.496757]]),
        ((20, 64, 5), True, SEEDS, [[-20.137658], [-19.420142], [-19.361956], [-18.902024], [-20.471970]]),
        ((20, 32, 32, 32, 32, 5), False, [42], [[-0.474050, -0.0547237, 0.375271, -8.97437]]),
    ],
)
def test_published_conserved_quantities(widths, bias, seeds, published):
    initial = conserved_quantity(draw(seeds, widths, bias=bias).weights)
    torch.testing.assert_close(initial, torch.tensor(published, dtype=torch.float64), rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("order", ["weights_first", "data_first"])
def test_same_as_linear_layers_and_the_global_generator(bias, order):
    def mixture(count):
        centres = torch.randn(5, 20)
        centres = centres / centres.norm(dim=1, keepdim=True) * 2 * 20**0.5
        inputs = torch.cat([torch.randn(count // 5, 20) + centre for centre in centres])
        shuffle = torch.randperm(count)
        return inputs[shuffle], torch.arange(5).repeat_interleave(count // 5)[shuffle]

    def network():
        return [torch.nn.Linear(20, 64, bias=bias), torch.nn.Linear(64, 5, bias=bias)]

    torch.manual_seed(7)
    if order == "weights_first":
        layers, (inputs, labels) = network(), mixture(200)
    else:
        (inputs, labels), _, layers = mixture(200), mixture(50), network()
    problem = draw([7], order=order, bias=bias, dtype=torch.float32)
    torch.testing.assert_close(problem.inputs[0].T, inputs, rtol=1e-6, atol=1e-6)
    assert torch.equal(problem.targets[0].argmax(0), labels)
    for layer, weight in zip(layers, problem.weights, strict=True):
        assert torch.equal(weight[0], layer.weight)
    for layer, vector in zip(layers, problem.biases, strict=bias):
        assert torch.equal(vector[0], layer.bias)


def test_a_seed_gives_the_same_whatever_is_drawn_beside_it():
    alone, among = draw([137]), draw([42, 137])
    assert torch.equal(alone.inputs[0], among.inputs[1])
    assert torch.equal(alone.weights[0][0], among.weights[0][1])


def test_data_sets():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = gaussian_mixture(generator, 203)
    assert sorted(labels.bincount().tolist()) == [40, 40, 41, 41, 41]
    centres = torch.stack([inputs[labels == k].mean(0) for k in range(5)])
    torch.testing.assert_close(centres.norm(dim=1), torch.full((5,), 2 * 20**0.5), rtol=0.1, atol=0)
    inputs, labels = xor(generator, 500)
    assert torch.equal(labels == 1, inputs.prod(1) < 0)
    inputs, labels = concentric_spheres(generator, 200)
    for label, radius in enumerate((1.0, 2.0)):
        assert inputs[labels == label].norm(dim=1).mean().item() == pytest.approx(radius, abs=0.1)


def test_mnist():
    problem = draw([42, 137], (784, 32, 32, 32, 32, 10), dataset="mnist", samples=2000)
    run = gradient_descent(problem, 0.1, 1, loss="mse")
    published = [10.67173, 10.4489, 10.67259, 10.79205, 3.65756]  # after one step, seed 42
    np.testing.assert_allclose(run.squared_norms[0, 0, 1], published, rtol=1e-6)
    assert run.loss[0, 0, 1].item() == pytest.approx(0.100302, rel=5e-6)
    assert problem.targets[0].sum(1).tolist() == [191, 220, 198, 191, 214, 180, 200, 224, 172, 210]
    assert torch.equal(problem.inputs[0], problem.inputs[1])


def test_one_network_has_its_inputs_to_itself():
    problem = draw([42], (784, 8, 10), dataset="mnist", samples=500)
    spanned = problem.in_span_of_inputs()
    assert spanned.inputs.shape[1] < 500 + 1
    copies = spanned.select(torch.zeros(3, dtype=torch.long))
    assert is_shared(copies.inputs)
    runs = [gradient_descent(p, [0.1, 0.2], 5) for p in (problem, spanned)]
    torch.testing.assert_close(runs[0].drift, runs[1].drift, rtol=1e-8, atol=1e-12)


def test_mnist_before_the_weights():
    first, second = (draw([42], (784, 8, 10), dataset="mnist", samples=500, order=o) for o in ORDERS)
    assert torch.equal(first.weights[0], second.weights[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": 42}, "seeds must be a list"),
        ({"seeds": [1.5]}, "seeds must be a list"),
        ({"widths": (20, 0, 5)}, "widths"),
        ({"widths": (20,)}, "widths"),
        ({"dataset": "mnits"}, "dataset must be one of gaussian, xor, spheres, mnist"),
        ({"dataset": "xor"}, "2 inputs"),
        ({"dataset": "mnist"}, "500, 1000, 2000 samples"),
        ({"dataset": "spheres"}, "2 classes"),
        ({"samples": 0}, "samples"),
        ({"order": "random"}, "order"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(**{"seeds": [42], **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_without_cuda_is_an_error():
    with pytest.raises(ValueError, match="device 'cuda'"):
        draw([42], device="cuda")
