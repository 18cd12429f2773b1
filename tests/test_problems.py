"""Problems: draws against published values and torch.nn.Linear, own arrays, and what no malformed problem gets past."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw import (
    Problem,
    SharpnessObserver,
    as_problem,
    conserved_quantity,
    dense_hessian,
    draw,
    gradient_descent,
    gradient_flow,
    gradient_imbalance,
    loss_and_gradients,
    networks_at,
)
from conslaw.conserved import squared_norms
from conslaw.data import MNIST_DIGITS, concentric_spheres, gaussian_mixture, held_out_mnist, mnist, xor
from conslaw.tensors import is_shared

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
    initial = gradient_imbalance(squared_norms(draw(seeds, widths, bias=bias).weights))
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
    problem = draw([7], order=order, bias=bias, dtype="float32")
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
    problem = draw([42, 137], (784, 32, 32, 32, 32, 10), dataset="mnist", samples=2000, loss="mse")
    run = gradient_descent(problem, 0.1, 1)
    published = [10.67173, 10.4489, 10.67259, 10.79205, 3.65756]  # after one step, seed 42
    np.testing.assert_allclose(run.squared_norms[0, 0, 1], published, rtol=1e-6)
    assert run.loss[0, 0, 1].item() == pytest.approx(0.100302, rel=5e-6)
    assert problem.targets[0].sum(1).tolist() == [191, 220, 198, 191, 214, 180, 200, 224, 172, 210]
    assert torch.equal(problem.inputs[0], problem.inputs[1])


@pytest.mark.parametrize("count", MNIST_DIGITS)
def test_every_count_of_digits_is_of_so_many_images(count):
    inputs, labels = mnist(torch.Generator(), count)
    assert inputs.shape == (count, 784)
    assert tuple(labels.bincount().tolist()) == MNIST_DIGITS[count]
    assert sum(MNIST_DIGITS[count]) == count
    assert 0 <= inputs.min() < inputs.max() == 1


def test_one_network_has_its_inputs_to_itself():
    problem = draw([42], (784, 8, 10), dataset="mnist", samples=500)
    spanned = problem.in_span_of_inputs()
    assert spanned.inputs.shape[1] < 500 + 1
    copies = spanned.select(torch.zeros(3, dtype=torch.long))
    assert is_shared(copies.inputs)
    runs = [gradient_descent(p, [0.1, 0.2], 5) for p in (problem, spanned)]
    torch.testing.assert_close(runs[0].drift, runs[1].drift, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", MNIST_DIGITS)
def test_held_out_images_are_all_others(n):
    (inputs, labels), (others, other_labels) = mnist(torch.Generator(), n), held_out_mnist(n)
    assert torch.cat([labels, other_labels]).bincount().tolist() == [500] * 10
    both = torch.cat([inputs, others]).unique(dim=0)
    assert len(both) == 5000  # all are different
    with pytest.raises(ValueError, match="n must be one of 500, 1000, 2000, got 7"):
        held_out_mnist(7)


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
        ({"seeds": "42"}, "seeds must be a list"),
        ({"seeds": [True]}, "seeds must be a list"),
        ({"seeds": [-1]}, r"from 0 to 2\*\*32 - 1"),
        ({"seeds": [7, 7 + 2**32]}, r"from 0 to 2\*\*32 - 1"),
        ({"data_seed": -1}, "data_seed must be"),
        ({"widths": "20"}, "widths"),
        ({"widths": 20}, "widths"),
        ({"widths": (20, 2.5, 5)}, "widths"),
        ({"dtype": "float16"}, "dtype must be float32 or float64, got float16"),
        ({"dtype": torch.bfloat16}, "dtype must be float32 or float64, got torch.bfloat16"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"samples": 1.5}, "samples must be an integer"),
        ({"dataset": ["gaussian"]}, "dataset must be one of"),
        ({"widths": (20, 0, 5)}, "widths"),
        ({"widths": (20,)}, "widths"),
        ({"dataset": "mnits"}, "dataset must be one of gaussian, xor, spheres, mnist"),
        ({"dataset": "xor"}, "2 inputs"),
        ({"dataset": "xor", "widths": (2, 8, 3)}, "2 inputs and 2 classes, got 2 inputs and 3 classes"),
        ({"dataset": "xor", "widths": (3, 8, 2)}, "2 inputs and 2 classes, got 3 inputs and 2 classes"),
        ({"dataset": "mnist", "widths": (784, 8, 10), "samples": 600}, "500, 1000, 2000 samples"),
        ({"dataset": "mnist", "widths": (783, 8, 10), "samples": 500}, "500, 1000, 2000 samples"),
        ({"dataset": "mnist", "widths": (784, 8, 9), "samples": 500}, "500, 1000, 2000 samples"),
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


def test_data_of_one_seed_for_all():
    own, shared = draw([42, 7], (20, 8, 5)), draw([3, 42, 7], (20, 8, 5), data_seed=42)
    assert is_shared(shared.inputs)
    for network in range(3):
        assert torch.equal(shared.inputs[network], own.inputs[0])
        assert torch.equal(shared.targets[network], own.targets[0])
    assert torch.equal(shared.weights[0][1:], own.weights[0])
    assert shared.origin == ("gaussian", (3, 42, 7), "weights_first", 42)


@pytest.mark.parametrize("order", ORDERS)
def test_torchs_defaults_change_nothing(order):
    expected = draw([42], order=order, bias=True)
    run = gradient_descent(draw([1, 2], (20, 8, 5)), [0.1, 0.2], 5, observe={"s": SharpnessObserver()})
    flow = gradient_flow(draw([1], (20, 8, 5)), 0.1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = draw([42], order=order, bias=True)
        same = gradient_descent(draw([1, 2], (20, 8, 5)), [0.1, 0.2], 5, observe={"s": SharpnessObserver()})
        flow_again = gradient_flow(draw([1], (20, 8, 5)), 0.1)
        linear = gradient_descent(draw([1], loss="mse", activation="linear"), 0.01, 3)
        networks_at(draw([1], (4, 3, 2)), 0.1, [0, 2])
        dense_hessian(draw([1], (4, 3, 2)))
        as_problem([[1.0, 2.0]], [1])
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for ours, theirs in zip(found.parameters, expected.parameters, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(found.inputs, expected.inputs)
    assert torch.equal(same.loss, run.loss)
    assert torch.equal(same.observed["s"], run.observed["s"])
    assert torch.equal(flow_again.loss, flow.loss)
    assert linear.drift.device.type == "cpu"


def test_a_problem_says_what_it_is_in_one_line():
    text = repr(draw(range(40), (20, 16, 8, 5), loss="mse", activation="tanh", bias=True, samples=50, dtype="float32"))
    assert text == (
        "Problem(40 × 20 → 16 → 8 → 5 with biases, tanh, mse, 50 samples of gaussian, seeds 0, 1, …, 39, float32, cpu)"
    )


def test_variations():
    problem = draw([1, 2])
    other = problem.under(loss="mse", activation=0.5)
    assert (other.loss, other.activation, other.entropy_weight) == ("mse", 0.5, 0.0)
    assert (problem.loss, problem.activation, problem.entropy_weight) == ("cross_entropy", "relu", 1.0)
    assert other.weights is problem.weights
    assert problem.under() is not problem
    assert problem.select([1, 1]).origin.seeds == (2, 2)
    assert len(problem.select([0])) == 1
    with pytest.raises(ValueError, match="linear networks under squared error"):
        problem.reduced()
    with pytest.raises(ValueError, match="loss must be one of"):
        problem.under(loss="hinge")
    with pytest.raises(ValueError, match="parameters must be 2 tensors, got 1"):
        problem.with_parameters(problem.weights[:1])
    with pytest.raises(ValueError, match=r"parameters\[0\] must have shape \(2, 64, 20\), got \(2, 64, 19\)"):
        problem.with_parameters([problem.weights[0][:, :, :19], problem.weights[1]])


# Own arrays.

X, LABELS = np.arange(12.0).reshape(4, 3) / 12, np.array([0, 2, 1, 2])


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor, lambda a: np.asarray(a).tolist()])
def test_arrays_as_people_have_them(convert):
    problem = as_problem(convert(X), convert(LABELS), hidden=[5, 6], seeds=[1, 2])
    assert problem.widths == (3, 5, 6, 3)
    assert problem.targets[0].T.tolist() == np.eye(3)[LABELS].tolist()
    assert is_shared(problem.inputs)
    torch.testing.assert_close(problem.inputs[1].T, torch.tensor(X))
    drawn = draw([1, 2], (3, 5, 6, 3), samples=4)
    for ours, theirs in zip(problem.weights, drawn.weights, strict=True):
        assert torch.equal(ours, theirs)
    same = as_problem(convert(X), convert(np.eye(3)[LABELS]), hidden=[5, 6], seeds=[1, 2])
    torch.testing.assert_close(loss_and_gradients(same)[0], loss_and_gradients(problem)[0])
    assert gradient_descent(problem, 0.1, 5).drift.isfinite().all()


def test_classes_are_those_of_the_last_weights():
    weights = [np.ones((5, 3)), np.ones((4, 5)), np.ones((7, 4))]
    assert as_problem(X, LABELS, weights=weights).widths == (3, 5, 4, 7)
    assert as_problem(X, [0, 0, 0, 0]).widths == (3, 64, 2)


def test_own_weights_and_data_of_each_network():
    weights = [np.ones((5, 3)), np.full((2, 2, 5), 0.1)]  # the first the same in both networks
    problem = as_problem(
        np.stack([X, 2 * X]), np.stack([LABELS % 2] * 2), weights=weights, biases=[np.zeros(5), [1, 2]]
    )
    assert len(problem) == 2
    assert problem.origin.seeds is None
    assert problem.biases[1].tolist() == [[1, 2], [1, 2]]
    torch.testing.assert_close(problem.inputs[1], 2 * problem.inputs[0])
    copy = as_problem(source := torch.tensor(X), LABELS)
    source += 1
    torch.testing.assert_close(copy.inputs[0].T, torch.tensor(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": X[0]}, r"inputs must have shape \(n, d\) or \(M, n, d\)"),
        ({"inputs": np.empty((0, 3))}, r"inputs must have shape"),
        ({"inputs": "data.csv"}, "inputs must be an array of numbers, got str"),
        ({"inputs": np.where(X > 0.5, np.nan, X)}, "inputs must be finite, got 5 values"),
        ({"targets": LABELS[:3]}, r"targets must have shape \(4,\) as integer labels or \(4, K\), got"),
        ({"targets": LABELS - 1}, "targets must be labels from 0 to 1, got -1 to 1"),
        ({"targets": np.eye(3)[LABELS][:3]}, r"targets must have shape \(4,\)"),
        ({"targets": np.eye(3)[LABELS] * 2}, "targets must be probabilities under cross-entropy"),
        ({"targets": ["cat", "dog", "cat", "cat"]}, "targets must be an array of numbers"),
        ({"weights": [np.ones((5, 3)), np.ones((3, 4))]}, r"weights\[1\] must have shape \(1, 3, 5\), got \(1, 3, 4\)"),
        ({"weights": [np.ones((5, 2)), np.ones((3, 5))]}, r"weights\[0\] must have shape \(1, 5, 3\), got \(1, 5, 2\)"),
        ({"weights": [np.ones(5)]}, r"weights must be \(out, in\) or \(M, out, in\)"),
        ({"weights": []}, "weights must be at least one tensor"),
        ({"weights": [np.ones((5, 3)), np.ones((2, 5))]}, "targets must be labels from 0 to 1, got 0 to 2"),
        ({"weights": [np.ones((2, 5, 3)), np.ones((3, 3, 5))]}, "agree in the number M of networks"),
        ({"biases": [np.ones(5)]}, "biases must come with weights"),
        ({"hidden": [0]}, "hidden must be positive integers"),
        ({"seeds": [1, 1]}, "seeds must be integers, each once"),
        ({"inputs": np.stack([X, X]), "targets": np.stack([LABELS, LABELS])}, "seeds must be 2"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
    ],
)
def test_own_arrays_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        as_problem(**{"inputs": X, "targets": LABELS, **change})


def problem_of(sizes=(1, 16, 3, 4, 10), **changes):
    """A problem of M, m, K, d, n, some of whose tensors are replaced."""
    networks, hidden, classes, dim, samples = sizes
    tensors = {
        "weights": (torch.ones(networks, hidden, dim).double(), torch.ones(networks, classes, hidden).double()),
        "biases": (),
        "inputs": torch.ones(networks, dim, samples).double(),
        "targets": torch.ones(networks, classes, samples).double() / classes,
    }
    return Problem(**{**tensors, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (torch.ones(1, 16, 4).double(), torch.ones(1, 3, 17).double())}, r"weights\[1\].*\(1, 3, 16\)"),
        ({"weights": (torch.ones(1, 16, 4).double(), torch.ones(1, 3, 200000).double())}, r"weights\[1\].*200000"),
        ({"targets": torch.ones(1, 1, 10).double()}, r"targets must have shape \(1, 3, 10\), got \(1, 1, 10\)"),
        ({"targets": torch.ones(1, 3, 5).double() / 3}, r"targets must have shape \(1, 3, 10\), got \(1, 3, 5\)"),
        ({"inputs": torch.ones(1, 2, 10).double()}, r"weights\[0\] must have shape \(1, 16, 2\), got \(1, 16, 4\)"),
        (
            {"inputs": torch.ones(1, 4, 10)},
            r"weights\[0\] must be torch.float32 on cpu, as inputs are",
        ),
        ({"inputs": torch.ones(1, 4, 10).half()}, "inputs must be float32 or float64, got torch.float16"),
        ({"inputs": torch.ones(1, 4, 10).double() / 0}, "inputs must be finite, got 40 values"),
        ({"inputs": np.ones((1, 4, 10))}, "inputs must be a tensor.*got ndarray"),
        ({"weights": ()}, "weights must be at least one tensor"),
        ({"biases": (torch.ones(1, 16).double(),)}, "biases must be none, or one for each of the 2 layers, got 1"),
        ({"biases": (torch.ones(1, 16).double(),) * 2}, r"biases\[1\] must have shape \(1, 3\), got \(1, 16\)"),
        ({"targets": torch.full((1, 3, 10), 2.0).double()}, "targets must be probabilities"),
        ({"loss": None}, "loss must be one of"),
        ({"activation": {}}, "activation must be one of"),
    ],
)
def test_a_malformed_problem_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        problem_of(**change)


def test_weights_that_require_grad_are_named():
    weights = [w.requires_grad_() for w in problem_of().weights]
    with pytest.raises(ValueError, match=r"weights\[0\] must not require grad"):
        problem_of(weights=weights)


SIZE = st.integers(0, 4)
DTYPES = st.sampled_from([torch.float64] * 4 + [torch.float32, torch.float16, torch.int64, torch.bool])


@st.composite
def any_tensor(draw_value, shape):
    """A tensor of nearly this shape, of any type, laid out in memory in any way."""
    shape = [draw_value(st.one_of(*[st.just(size)] * 8, SIZE)) for size in shape]
    tensor = torch.ones(shape, dtype=draw_value(DTYPES))
    layout = draw_value(st.sampled_from(["plain", "plain", "turned", "sliced", "expanded"]))
    if layout == "turned":
        tensor = tensor.mT.contiguous().mT
    elif layout == "sliced":
        tensor = torch.cat([tensor, tensor], -1)[..., ::2]
    elif layout == "expanded" and shape[0]:
        tensor = tensor[:1].expand(shape)
    return tensor


@settings(max_examples=400)
@given(st.data())
def test_no_malformed_problem_reaches_a_kernel(data):
    """Whatever the shapes, types and strides: a problem is refused by name, or it trains as its plain copy does."""
    networks, hidden, classes, dim, samples = (data.draw(st.integers(1, 3)) for _ in range(5))
    tensors = {
        "weights": [data.draw(any_tensor(s)) for s in ([networks, hidden, dim], [networks, classes, hidden])],
        "biases": [data.draw(any_tensor([networks, s])) for s in (hidden, classes)] if data.draw(st.booleans()) else [],
        "inputs": data.draw(any_tensor([networks, dim, samples])),
        "targets": data.draw(any_tensor([networks, classes, samples])),
    }
    refusal = None
    try:
        problem = Problem(**tensors, loss="mse")
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert refusal.split()[0].split("[")[0] in tensors
        return
    sizes = {*problem.inputs.shape, *(size for tensor in problem.parameters for size in tensor.shape)}
    assert 0 not in sizes
    plain = {name: [t.clone() for t in tensors[name]] for name in ("weights", "biases")}
    plain |= {name: tensors[name].clone() for name in ("inputs", "targets")}
    runs = [gradient_descent(p, 0.01, 3) for p in (problem, Problem(**plain, loss="mse"))]
    torch.testing.assert_close(runs[0].loss, runs[1].loss, rtol=1e-6, atol=0)
    for ours, theirs in zip(runs[0].parameters, runs[1].parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_change_of_data_is_checked_too():
    problem = draw([1, 2])
    fewer = {"inputs": problem.inputs[:, :, :50], "targets": problem.targets[:, :, :50]}
    assert replace(problem, **fewer, samples=None).samples == 50
    with pytest.raises(ValueError, match="samples must be 50, the number of columns of inputs, or None, got 200"):
        replace(problem, **fewer)
    with pytest.raises(ValueError, match="targets must have shape"):
        replace(problem, inputs=problem.inputs[:, :, :50])
    with pytest.raises(ValueError, match="origin must hold 1 seeds, got 2"):
        replace(problem.select([0]), origin=problem.origin)


def test_networks_are_selected_by_index_or_mask():
    problem = draw([1, 2, 3], (4, 3, 2), samples=5)
    assert problem.select([2, 0]).origin.seeds == (3, 1)
    assert problem.select([-1]).origin.seeds == (3,)
    assert problem.select(torch.tensor([True, False, True])).origin.seeds == (1, 3)
    for wrong in ([], [0.7, 1.2], torch.zeros(3, dtype=torch.bool), [True, False], [[0]], 1):
        with pytest.raises(ValueError, match="networks must be indices, or a mask of 3 networks"):
            problem.select(wrong)
    with pytest.raises(ValueError, match="networks must be from 0 to 2"):
        problem.select([3])


@pytest.mark.parametrize("data_seed", [None, 3])
def test_a_split_keeps_the_networks_and_parts_the_samples(data_seed):
    problem = draw([1, 2], (4, 3, 2), samples=30, loss="mse", data_seed=data_seed)
    train, test = problem.split(20)
    assert (train.samples, test.samples, train.origin) == (20, 10, problem.origin)
    assert is_shared(train.inputs) == is_shared(problem.inputs)
    for name in ("inputs", "targets"):
        parts = torch.cat([getattr(part, name) for part in (train, test)], 2)
        assert torch.equal(parts, getattr(problem, name))
    # The loss is a mean over samples and outputs: that of all is the mean of those of the parts.
    whole, first, rest = (loss_and_gradients(part)[0] for part in (problem, train, test))
    torch.testing.assert_close(whole, (20 * first + 10 * rest) / 30)
    ours = gradient_descent(train, 0.1, 5).loss
    arrays = [train.inputs.mT, train.targets.mT]
    own = as_problem(*arrays, weights=[w.clone() for w in train.weights], loss="mse")
    torch.testing.assert_close(ours, gradient_descent(own, 0.1, 5).loss)
    for wrong in (0, 30, 2.5, True, "20"):
        with pytest.raises(ValueError, match="samples must be an integer from 1 to 29, got"):
            problem.split(wrong)


def test_statistics_serve_linear_networks_under_squared_error_only():
    problem = draw([1, 2], (4, 3, 2), samples=30, loss="mse", activation="linear")
    reduced = problem.reduced()
    with pytest.raises(ValueError, match="problem must hold samples, not statistics"):
        reduced.split(20)
    again = replace(reduced, loss="mse")
    torch.testing.assert_close(loss_and_gradients(again)[0], loss_and_gradients(problem)[0])
    for change in ({"activation": "relu"}, {"loss": "cross_entropy"}):
        with pytest.raises(ValueError, match="a reduced problem holds sufficient statistics"):
            reduced.under(**change)
        with pytest.raises(ValueError, match="a reduced problem holds sufficient statistics"):
            replace(reduced, **change)


def test_a_change_of_coordinates_is_carried_along():
    problem = draw([1, 2], (12, 9, 4), samples=5, data_seed=3)
    inside = replace(problem.in_span_of_inputs(), loss="mse")
    assert inside.widths == (12, 9, 4)
    torch.testing.assert_close(conserved_quantity(inside), conserved_quantity(problem))
    with pytest.raises(ValueError, match=r"left_out must have shape \(2, 9, 9\)"):
        replace(problem, left_out=torch.zeros(1, 9, 9).double())


@pytest.mark.parametrize(
    "kind", ["float32", "float16", "int8", "uint16", "uint64", ">f8", "longdouble", "object", "bool"]
)
def test_numbers_of_any_kind(kind):
    values = (X > 0.5).astype(kind) if kind == "bool" else np.round(X * 12).astype(kind)
    problem = as_problem(values, LABELS)
    torch.testing.assert_close(problem.inputs[0].T, torch.tensor(values.astype(float)))
    assert as_problem(X[::-1, ::-1], LABELS.astype("uint16")[::-1]).samples == 4
    assert as_problem(np.asfortranarray(X), torch.tensor([0, 1, 1, 0], dtype=torch.uint8)).widths[-1] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": X + 1j}, "inputs must be an array of numbers.*real and dense"),
        ({"inputs": torch.tensor(X).to_sparse()}, "inputs must be an array of numbers.*real and dense"),
        ({"inputs": np.ma.masked_greater(X, 0.5)}, "inputs must be an array of numbers.*masked"),
        ({"targets": LABELS.astype(float)}, r"as integer labels or \(4, K\), got \(4,\) of float64"),
        ({"weights": [np.ones((3, 3))], "hidden": [9]}, "hidden, seeds and bias are of drawn networks"),
        ({"weights": [np.ones((3, 3))], "seeds": [5]}, "hidden, seeds and bias are of drawn networks"),
        ({"weights": [np.ones((3, 3))], "bias": True}, "hidden, seeds and bias are of drawn networks"),
    ],
)
def test_nothing_of_own_arrays_is_dropped_silently(change, message):
    with pytest.raises(ValueError, match=message):
        as_problem(**{"inputs": X, "targets": LABELS, **change})


def test_seeds_and_samples_as_arrays_and_whole_floats():
    assert draw(torch.tensor([1, 2]), (4, 3, 2), samples=5.0).origin.seeds == (1, 2)
    assert draw(np.array([1, 2]), (4, 3, 2), samples=5).samples == 5


def test_problems_travel():
    problem = draw([1, 2], (12, 9, 4), samples=5, data_seed=3).in_span_of_inputs()
    for twin in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert repr(twin) == repr(problem)
        torch.testing.assert_close(conserved_quantity(twin), conserved_quantity(problem))
