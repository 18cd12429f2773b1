"""The Gram matrix tells of linear networks what their weights do."""

import pytest
import torch

from conslaw import draw, gradient_descent, sharpness
from conslaw.theory.gram import gram_networks


@pytest.mark.parametrize("scale", [0.01, 1.0])  # near the saddle at zero the Hessian is Q alone
@pytest.mark.parametrize("width", [3, 40])
def test_training_and_sharpness_are_those_of_the_weights(width, scale):
    drawn = draw([1, 2, 3], (6, width, 4), loss="mse", activation="linear", samples=30)
    problem = drawn.with_parameters([scale * weight for weight in drawn.weights])
    networks, rates = gram_networks(problem), torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)
    run = gradient_descent(problem, rates[None], 50)
    after = networks.after(rates, 50)
    torch.testing.assert_close(networks.conserved, run.conserved_quantity[0, :, 0, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.conserved, run.conserved_quantity[0, :, -1, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.gram, gram_networks(run.networks(0)).gram, rtol=1e-11, atol=1e-11)
    for now, of in ((networks, problem), (after, run.networks(0))):
        torch.testing.assert_close(now.sharpness(), sharpness(of, tolerance=1e-9).value, rtol=1e-8, atol=0)


def test_reduced_problems_have_the_same():
    problem = draw([1, 2], (6, 10, 4), loss="mse", activation="linear", samples=50)
    for one, other in zip(gram_networks(problem), gram_networks(problem.reduced()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"loss": "cross_entropy"}, {"widths": (6, 5, 5, 4)}])
def test_other_networks_are_refused(options):
    arguments = {"widths": (6, 10, 4), "loss": "mse", "activation": "linear"} | options
    with pytest.raises(ValueError, match="problem must"):
        gram_networks(draw([1], **arguments))
