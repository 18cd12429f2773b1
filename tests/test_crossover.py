"""The spectral formulas against explicit sums, exact quadratic dynamics, and published values."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from conslaw import (
    as_problem,
    dense_hessian,
    draw,
    gradient_descent,
    gradient_vector,
    loss_and_gradients,
    networks_at,
)
from conslaw.theory.crossover import (
    crossover_sum,
    geometric_sum,
    hessian_modes,
    kernel_modes,
    kernel_pairs,
    layer_signs,
    pair_sum,
    published_crossover_sum,
    spectrum,
)
from conslaw.theory.modes import data_modes, linear_modes, share_distance
from conslaw.theory.switching import (
    LayerSwitchObserver,
    SwitchObserver,
    first_preactivations,
    frozen_gate_sum,
    switched_share,
    with_gates,
)

SEEDS = [42, 137, 256]


@given(x=st.floats(-0.02, 2), steps=st.integers(1, 400))
@example(x=5e-324, steps=1)
def test_geometric_sum(x, steps):
    terms = [(1 - x) ** t for t in range(steps)]
    result = geometric_sum(torch.tensor([x], dtype=torch.float64), steps).item()
    assert result == pytest.approx(sum(terms), rel=1e-10, abs=1e-10)


@given(
    eigenvalue=st.floats(-1, 30).filter(lambda value: abs(value) > 1e-9),
    rate=st.floats(1e-4, 0.3),
    steps=st.integers(1, 300),
)
def test_crossover_formula_is_the_explicit_sum(eigenvalue, rate, steps):
    one = torch.ones(1, 1, dtype=torch.float64)
    result = crossover_sum(rate, eigenvalue * one, one, steps).item()
    if rate * eigenvalue >= 2:
        assert np.isnan(result)
    else:
        explicit = sum((1 - rate * eigenvalue) ** (2 * t) for t in range(steps))
        assert result == pytest.approx(explicit, rel=1e-9)


def test_limits_of_the_crossover_formula():
    def of_one_mode(eigenvalue, rate=0.01, steps=1000):
        values = torch.tensor([[eigenvalue]], dtype=torch.float64)
        return crossover_sum(rate, values, torch.ones_like(values), steps).item()

    assert of_one_mode(0.0) == 1000  # no curvature
    assert of_one_mode(1e-9) == pytest.approx(1000, rel=1e-6)  # unconverged: c T
    assert of_one_mode(5.0) == pytest.approx(1 / (0.05 * 1.95), rel=1e-12)  # converged: c / [ηλ (2 − ηλ)]
    assert of_one_mode(100.0) == 1.0  # solved in one step
    assert of_one_mode(-1.0) > 1e8  # grows
    assert np.isnan(of_one_mode(200.0))  # ηλ = 2: outside the domain
    two = torch.tensor([[1.0, 300.0]], dtype=torch.float64)
    assert crossover_sum(0.01, two, torch.tensor([[1.0, 0.0]]).double(), 10).isfinite().all()  # it has no weight


def pair_coefficients(gradient, vectors, signs):
    """c_jk = a_j a_k (v_jᵀ D v_k), by definition."""
    weighted = vectors * (gradient.unsqueeze(1) @ vectors)
    return weighted.mT @ (signs.unsqueeze(1) * weighted)


@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from([torch.float32, torch.float64]))
def test_spectrum(seed, size, dtype):
    generator = torch.Generator().manual_seed(seed)
    root, vectors = (torch.randn(size, columns, generator=generator, dtype=dtype) for columns in (size, 3))
    matrix, rounding = root + root.mT, 100 * size * torch.finfo(dtype).eps
    values, products = spectrum(matrix, vectors)
    assert values.dtype == products.dtype == dtype
    torch.testing.assert_close(values, torch.linalg.eigvalsh(matrix), rtol=0, atol=rounding * values.abs().max().item())
    for power in range(3):  # Σ_k λ_k^p (v_kᵀ x) (v_kᵀ y) = xᵀ H^p y
        form = products.mT @ (values.unsqueeze(1) ** power * products)
        expected = vectors.mT @ torch.linalg.matrix_power(matrix, power) @ vectors
        scale = rounding * (values.abs().max() ** power * vectors.square().sum()).item()
        torch.testing.assert_close(form, expected, rtol=0, atol=scale)


@given(st.integers(0, 10_000))
def test_pair_sum_is_exact_for_a_quadratic(seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(1, 6, 6, generator=generator, dtype=torch.float64)
    gradient = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    signs = torch.tensor([-1.0, -1, -1, -1, 1, 1], dtype=torch.float64)
    matrix = root @ root.mT + 0.01 * torch.eye(6)
    values, vectors = torch.linalg.eigh(matrix)
    rate, steps, total, current = 1.2 / values.max().item(), 50, 0.0, gradient
    for _ in range(steps):
        total += (signs * current**2).sum().item()
        current = current - rate * (matrix @ current.unsqueeze(2)).squeeze(2)
    pairs = pair_coefficients(gradient, vectors, signs)
    assert pairs.sum().item() == pytest.approx((signs * gradient**2).sum().item(), rel=1e-9, abs=1e-10)
    scale = (gradient**2).sum().item()
    assert pair_sum(rate, values, pairs, steps).item() == pytest.approx(total, rel=1e-9, abs=1e-9 * scale)
    assert pair_sum(2.1 / values.max().item(), values, pairs, steps).isnan().all()


def test_published_predictions():
    rates = [1e-4, 1e-3, 1e-2, 0.1, 0.3]
    published = {
        ("mse", "linear"): [
            [2120.28, 3304.58, 4622.66],
            None,
            [25.2550, 37.2488, 52.6350],
            [15.7403, 7.47817, 19.7921],
        ],
        ("cross_entropy", "relu"): [
            [2638.36, 2796.55, 2722.54],
            None,
            [50.4741, 52.4736, 45.6734],
            [6.02155, 6.09827, 5.43487],
            [2.79725, 41.6344, 530.783],
        ],
    }
    for (loss, activation), expected in published.items():
        problem = draw(SEEDS, loss=loss, activation=activation)
        values, projections, shares, coefficients = hessian_modes(problem)
        gradient, signs = gradient_vector(problem), layer_signs(problem)
        torch.testing.assert_close(projections.square().sum(1), gradient.square().sum(1), rtol=1e-11, atol=0)
        eigenvalues, vectors = torch.linalg.eigh(dense_hessian(problem).matrix)
        torch.testing.assert_close(values, eigenvalues, rtol=0, atol=1e-13 * values.max().item())
        imbalance = (signs * gradient**2).sum(1)
        pairs = pair_coefficients(gradient, vectors, signs)
        torch.testing.assert_close(shares, pairs.sum(2), rtol=0, atol=1e-11 * imbalance.max().item())
        torch.testing.assert_close(coefficients.sum(1), imbalance, rtol=1e-12, atol=0)
        predicted = published_crossover_sum(rates, values, coefficients, 2000)
        for row, numbers in zip(predicted, expected, strict=False):
            if numbers:
                # Beyond 2/λ_max one term ∝ 1/(ηλ − 2) decides, which magnifies the float32 rounding of λ.
                np.testing.assert_allclose(row, numbers, rtol=2e-3 if numbers[-1] == 530.783 else 2e-4)
        inside = torch.where(values >= 1e-12, coefficients, 0.0)
        torch.testing.assert_close(crossover_sum(rates[:3], values, inside, 2000), predicted[:3], rtol=1e-10, atol=0)


def test_kernel_prediction_is_within_6_percent():
    rates = [1e-3, 1e-2, 3e-2]
    for activation in ("linear", "relu"):
        problem = draw(SEEDS, loss="mse", activation=activation)
        predicted = pair_sum(rates, *kernel_pairs(problem), 1000)
        measured = gradient_descent(problem, rates, 1000).imbalance_sum[..., 0]
        assert (predicted / measured - 1).abs().max() < 0.06


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_kernel_pairs_are_those_of_the_gauss_newton_matrix(activation):
    problem = draw([1, 2], (4, 6, 3), samples=9, loss="mse", activation=activation)
    values, vectors = torch.linalg.eigh(dense_hessian(problem).gauss_newton)
    pairs = pair_coefficients(gradient_vector(problem), vectors, layer_signs(problem))
    of_kernel, kernel = kernel_pairs(problem)
    torch.testing.assert_close(of_kernel[:, -10:], values[:, -10:], rtol=1e-10, atol=0)
    torch.testing.assert_close(kernel.sum((1, 2)), pairs.sum((1, 2)), rtol=1e-10, atol=0)
    rates = [1e-3, 0.05]
    expected = pair_sum(rates, values, pairs, 100)
    torch.testing.assert_close(pair_sum(rates, of_kernel, kernel, 100), expected, rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match="squared error"):
        kernel_pairs(problem.under(loss="cross_entropy", activation="relu"))


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_kernel_energies_sum_to_the_squared_gradients_of_the_linearised_network(activation):
    problem = draw([1, 2], (4, 6, 3), samples=9, loss="mse", activation=activation)
    matrix, gradient = dense_hessian(problem).gauss_newton, gradient_vector(problem)
    modes, rate, steps = kernel_modes(problem), 0.05, 30
    total = torch.zeros(2, dtype=torch.float64)
    for _ in range(steps):  # g ← (I − ηH) g, as in a quadratic loss with this Hessian
        total += gradient.square().sum(1)
        gradient = gradient - rate * torch.einsum("mpq,mq->mp", matrix, gradient)
    predicted = crossover_sum(rate, modes.eigenvalues, modes.energies, steps)[0]
    torch.testing.assert_close(predicted, total, rtol=1e-10, atol=0)


def test_linear_modes():
    problem, rates = draw(SEEDS, loss="mse", activation="linear"), [1e-4, 1e-2, 0.1]
    for data in (problem, problem.reduced()):
        decay, coefficients = linear_modes(data)
        assert decay.shape == coefficients.shape == (3, 100)
        predicted = crossover_sum(rates, decay, coefficients, 2000)
        measured = gradient_descent(problem, rates, 2000).imbalance_sum
        error = (predicted.mean(1) / measured[..., 0].mean(1) - 1).numpy()
        np.testing.assert_allclose(error, [-0.042, -0.037, -0.029], atol=1e-3)  # as recomputed independently


def test_linear_modes_are_exact_for_one_input_and_aligned_weights():
    problem = draw([1], (1, 4, 1), samples=8, loss="mse", activation="linear")
    rates, coefficients = linear_modes(problem)
    gradients = loss_and_gradients(problem)[1]
    imbalance = gradients[1].square().sum() - gradients[0].square().sum()
    torch.testing.assert_close(coefficients.sum(), imbalance, rtol=1e-12, atol=0)
    moment, strength = problem.inputs.square().mean(), sum(w.square().sum() for w in problem.weights)
    torch.testing.assert_close(rates[0, 0], 2 * moment * strength, rtol=1e-12, atol=0)


def test_data_modes():
    problem = draw(SEEDS, loss="mse", activation="linear")
    modes = data_modes(problem)
    np.testing.assert_allclose(
        modes.eigenvalues[0, :6], [25.5075, 20.4491, 16.2769, 11.1379, 10.5982, 1.44717], rtol=1e-5
    )
    published = modes.published_coefficients / modes.published_coefficients.sum(1, keepdim=True)
    np.testing.assert_allclose(
        published.sort(descending=True).values[0, :5], [0.566227, 0.244847, 0.119614, 0.037387, 0.0318711], rtol=1e-5
    )
    right = modes.coefficients / modes.coefficients.sum(1, keepdim=True)
    np.testing.assert_allclose(right[0, :5], [0.801, 0.104, 0.025, 0.028, 0.036], atol=6e-4)
    gradients = loss_and_gradients(problem)[1]
    # With the right target the coefficients are the squared gradient of the effective map; ‖g_1‖² splits exactly.
    effective = problem.weights[1] @ problem.weights[0]
    residual = (effective @ problem.inputs - problem.targets) @ problem.inputs.mT * (2 / (200 * 5))
    torch.testing.assert_close(modes.coefficients.sum(1) * 4 / 25, residual.square().sum((1, 2)), rtol=1e-11, atol=0)
    second = (modes.first * 4 / 25 * modes.coefficients - modes.imbalance).sum(1)
    torch.testing.assert_close(second, gradients[0].square().sum((1, 2)), rtol=1e-11, atol=0)


def test_effective_map_of_relu_networks_is_the_mean_of_the_gated_ones():
    problem = draw([1], (3, 4, 2), samples=10)
    modes = data_modes(problem)
    gates = (first_preactivations(problem) > 0).double()[0]
    first, second = problem.weights[0][0], problem.weights[1][0]
    effective = sum(second @ torch.diag(gates[:, i]) @ first for i in range(10)) / 10
    inputs, targets = problem.inputs[0], problem.targets[0]
    error = (effective - targets @ inputs.T @ torch.linalg.inv(inputs @ inputs.T)).square().sum()
    torch.testing.assert_close(modes.error.sum(), error, rtol=1e-9, atol=0)


def test_frozen_gates():
    problem, rates = draw(SEEDS, loss="mse"), [1e-3, 0.1]
    measured = gradient_descent(problem, rates, 300).imbalance_sum[..., 0]
    predicted = frozen_gate_sum(problem, rates, 300)
    error = (predicted / measured - 1).abs()
    assert 1e-6 < error.max() < 0.03
    # Where every gate stays open nothing is frozen: all weights and inputs are positive, and the step is small.
    positive = replace(problem, weights=[w.abs() for w in problem.weights], inputs=problem.inputs.abs())
    measured = gradient_descent(positive, 1e-4, 20).imbalance_sum[..., 0]
    torch.testing.assert_close(frozen_gate_sum(positive, [1e-4], 20), measured, rtol=1e-10, atol=0)


def test_switches_are_counted():
    problem = draw([1, 2], (3, 6, 2), samples=12)
    seen = gradient_descent(problem, 0.5, 5, observe={"switches": SwitchObserver()}).observed["switches"][0]
    for network in range(2):
        before = None
        for time in range(6):
            weights = [p[:1, network] for p in gradient_descent(problem, 0.5, max(time, 1)).parameters]
            one = problem.select(torch.tensor([network]))
            preactivations = first_preactivations(one.with_parameters(weights) if time else one)
            gates = preactivations > 0
            assert seen[network, time, 2].item() == pytest.approx(preactivations.abs().min().item(), rel=1e-9)
            if before is None:
                assert seen[network, time, :2].isnan().all()
            else:
                changed = gates ^ before
                assert seen[network, time, 0].item() == pytest.approx(changed.double().mean().item())
                assert seen[network, time, 1] == changed.any(2).sum()
            before = gates
    assert (seen[:, 1:, 0] > 0).any()


def test_one_step_switches_what_the_observer_counts():
    problem = draw([1, 2], (3, 6, 2), samples=12)
    seen = gradient_descent(problem, 0.5, 3, observe={"switches": SwitchObserver()})
    after_two = gradient_descent(problem, 0.5, 2).networks()
    for networks, time in ((problem, 1), (after_two, 3)):
        assert switched_share(networks, 0.5).tolist() == seen.observed["switches"][0, :, time, 0].tolist()
    assert (switched_share(problem, 0.5) > 0).any()
    assert switched_share(problem, 1e-12).tolist() == [0, 0]


POSITIVE = st.lists(st.floats(0.01, 100), min_size=4, max_size=4).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(POSITIVE, POSITIVE, st.floats(0.01, 100))
def test_distance_of_shares(values, reference, factor):
    distance = share_distance(values, reference).item()
    assert 0 <= distance < 1
    assert distance == pytest.approx(share_distance(reference, factor * values).item(), rel=1e-9, abs=1e-12)
    assert share_distance(values, -factor * values).item() == pytest.approx(0, abs=1e-12)  # of any size and sign
    # The largest difference that any set of modes makes, which is how the total-variation distance is defined.
    shares = values / values.sum(), reference / reference.sum()
    subsets = [[i for i in range(4) if code >> i & 1] for code in range(16)]
    largest = max((shares[0][subset].sum() - shares[1][subset].sum()).item() for subset in subsets)
    assert distance == pytest.approx(largest, abs=1e-12)


def test_distance_of_disjoint_shares_and_of_a_batch():
    assert share_distance(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0], [1.0, 3.0]])).tolist() == [
        1,
        0.25,
    ]


def gates_of(problem, network):
    """The gates of every hidden layer of one network, by hand."""
    hidden, activations = [], problem.inputs[network]
    for weight in problem.weights[:-1]:
        activations = (weight[network] @ activations).clamp(min=0)
        hidden.append(activations > 0)
    return hidden


def test_switches_of_every_layer_are_counted():
    problem, times = draw([1, 2], (3, 6, 4, 2), samples=12, loss="mse"), [0, 3, 4, 9]
    run = gradient_descent(problem, 0.5, 9, observe={"switches": (LayerSwitchObserver(), times)})
    seen = run.observed["switches"][0]
    assert seen.shape == (2, 4, 2)
    assert seen[:, 0].isnan().all()
    for network in range(2):
        gates = [gates_of(state, network) for state in networks_at(problem, 0.5, times)]
        for look in range(1, 4):
            for layer, (now, before) in enumerate(zip(gates[look], gates[look - 1], strict=True)):
                assert seen[network, look, layer].item() == pytest.approx((now ^ before).double().mean().item())
    assert (seen[:, 1:] > 0).any(1).all()


def test_switches_of_the_first_layer_are_the_same_for_both_observers():
    problem = draw([1, 2, 3], (5, 8, 3), samples=20)
    observe = {"all": LayerSwitchObserver(), "first": SwitchObserver()}
    seen = gradient_descent(problem, 0.5, 20, observe=observe).observed
    torch.testing.assert_close(seen["all"][..., 0], seen["first"][..., 0], equal_nan=True)


def test_a_unit_that_crosses_zero_switches_all_its_samples():
    """One unit, one input x > 0, f = v w x: where w changes its sign every gate of it switches, and no other does."""
    problem = as_problem([[1.0], [2.0]], [[1.0], [1.0]], weights=[[[0.1], [1.0]], [[-10.0, 0.0]]], loss="mse")
    run = gradient_descent(problem, 0.05, 1, observe={"switches": LayerSwitchObserver()})
    assert run.parameters[0].flatten().tolist()[0] < 0
    assert run.observed["switches"][0, 0, 1].tolist() == [0.5]


def test_two_layers_only():
    with pytest.raises(ValueError, match="two weight matrices"):
        layer_signs(draw([1], (4, 3, 3, 2)))


def test_held_gates_are_those_given():
    problem = draw([1, 2], (6, 9, 3), loss="mse", samples=15)
    own = with_gates(problem, first_preactivations(problem) > 0)
    open_ = with_gates(problem, torch.ones(2, 9, 15, dtype=torch.bool))
    for held, same in ((own, problem), (open_, problem.under(activation="linear"))):
        (loss, gradients), (known, expected) = (loss_and_gradients(one) for one in (held, same))
        torch.testing.assert_close(loss, known)
        torch.testing.assert_close(gradients, expected)
    moved = problem.with_parameters([-problem.weights[0], problem.weights[1]])  # all gates switch, but are held
    torch.testing.assert_close(
        loss_and_gradients(with_gates(moved, first_preactivations(problem) > 0))[0],
        loss_and_gradients(problem.with_parameters([problem.weights[0], -problem.weights[1]]))[0],
    )
