"""Laws of any torch model: counts by hand and by a black box, laws that are none, foreign code, bad input."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from conslaw.models.completeness import count_diagonal_laws, diagonal_rank
from conslaw.models.examples import GPT, Llama, cnn, mlp
from conslaw.models.exponents import Exponents
from conslaw.models.families import KINDS
from conslaw.models.found import laws
from conslaw.models.labels import Axis
from conslaw.models.objective import Objective
from conslaw.quadratic import QuadraticLaws, Term, columns, rows

TINY = 1e-30  # ε of a norm that is none, and which torch allows


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sequences(logits, targets):
    return cross_entropy(logits.flatten(0, -2), targets.flatten())


TOKENS = torch.randint(11, (6, 16), generator=torch.Generator().manual_seed(0))
TOKENS[0, :11] = torch.arange(11)
VECTORS = (draw(40, 5), torch.arange(40) % 3)
IMAGES = (draw(20, 1, 8, 8), torch.arange(20) % 3)
TEXT = (TOKENS, TOKENS.roll(1))


def norm2d(channels):
    return nn.BatchNorm2d(channels, eps=TINY)


class Skip(nn.Module):
    """x + f(x)."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return x + self.inside(x)


class Squared(nn.Module):
    """relu(x)², of degree two."""

    def forward(self, x):
        return torch.relu(x) ** 2


class Clipped(nn.ReLU6):
    """min(max(x, 0), 6) where it matters."""

    def forward(self, x):
        return super().forward(10 * x)


class Dense(nn.Module):
    """Channels of two layers side by side."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(7, 3, 8)

    def forward(self, x):
        first = torch.relu(self.first(x))
        return self.last(torch.cat([first, torch.relu(self.second(first))], 1)).flatten(1)


class Attention(nn.Module):
    """Torch's own attention, in which queries, keys and values share one parameter."""

    def __init__(self):
        super().__init__()
        self.tokens, self.attention = nn.Embedding(11, 6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 11)

    def forward(self, tokens):
        x = self.tokens(tokens)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


class Shared(nn.Module):
    """One linear layer used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.relu(self.inner(torch.relu(self.inner(torch.relu(self.first(x)))))))


def text(*layers):
    return nn.Sequential(nn.Embedding(11, 6), *layers)


ZOO = {
    # name: (model, batch, loss, diagonal laws counted by hand)
    "ReLU": (lambda: mlp(5, 7, 6, 3), VECTORS, cross_entropy, 7 + 6),
    "leaky ReLU": (lambda: mlp(5, 7, 6, 3, activation=nn.LeakyReLU), VECTORS, cross_entropy, 13),
    "linear": (lambda: mlp(5, 7, 6, 3, activation=nn.Identity), VECTORS, cross_entropy, 13),
    "squared ReLU": (lambda: mlp(5, 7, 3, activation=Squared), VECTORS, cross_entropy, 7),
    "PReLU": (lambda: mlp(5, 7, 3, activation=nn.PReLU), VECTORS, cross_entropy, 7),
    "GELU": (lambda: mlp(5, 7, 6, 3, activation=nn.GELU), VECTORS, cross_entropy, 0),
    "SiLU": (lambda: mlp(5, 7, 3, activation=nn.SiLU), VECTORS, cross_entropy, 0),
    "tanh": (lambda: mlp(5, 7, 3, activation=nn.Tanh), VECTORS, cross_entropy, 0),
    "sigmoid": (lambda: mlp(5, 7, 3, activation=nn.Sigmoid), VECTORS, cross_entropy, 0),
    "ReLU6": (lambda: mlp(5, 7, 3, activation=Clipped), VECTORS, cross_entropy, 0),
    "skip": (lambda: nn.Sequential(Skip(mlp(5, 7, 5)), mlp(5, 4, 3)), VECTORS, cross_entropy, 7 + 4),
    "skip, trained stream": (
        lambda: nn.Sequential(nn.Linear(5, 6), Skip(mlp(6, 7, 6)), nn.ReLU(), nn.Linear(6, 3)),
        VECTORS,
        cross_entropy,
        7 + 6,  # of every channel of the stream one, across the block
    ),
    "shared": (Shared, VECTORS, cross_entropy, 4),
    "CNN": (lambda: cnn(1, 4, 5), IMAGES, cross_entropy, 4 + 5),
    "CNN with BatchNorm": (lambda: cnn(1, 4, 5, norm=norm2d), IMAGES, cross_entropy, 2 * 9),
    "Conv1d": (
        lambda: nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(124, 3)),
        (IMAGES[0].flatten(2), IMAGES[1]),
        cross_entropy,
        4,
    ),
    "Conv3d": (
        lambda: nn.Sequential(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(3, 3)),
        (draw(20, 1, 3, 3, 3), IMAGES[1]),
        cross_entropy,
        3,
    ),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
        ),
        IMAGES,
        cross_entropy,
        4 + 6,
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
        ),
        IMAGES,
        cross_entropy,
        4 + 8,
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
        ),
        IMAGES,
        cross_entropy,
        4 + 2,
    ),
    "concatenated": (Dense, IMAGES, cross_entropy, 3 + 4),
    "GroupNorm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4, eps=TINY), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        ),
        IMAGES,
        cross_entropy,
        2 + 4,  # of the weights of each group, and of each channel's gain
    ),
    "BatchNorm1d": (
        lambda: nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, eps=TINY), nn.GELU(), nn.Linear(7, 3)),
        VECTORS,
        cross_entropy,
        7,
    ),
    "GPT": (lambda: GPT(eps=TINY), TEXT, sequences, 41),
    "Llama": (lambda: Llama(eps=TINY), TEXT, sequences, 37),
    "Llama, tied": (lambda: Llama(eps=TINY, tied=True), TEXT, sequences, 29),
    "MultiheadAttention": (Attention, TEXT, sequences, 4 * 6),  # embedding, two of the heads, and output with the head
    "post-norm": (
        lambda: text(nn.TransformerEncoderLayer(6, 2, 5, dropout=0.0, batch_first=True), nn.Linear(6, 11)),
        TEXT,
        sequences,
        6 + 6 + 5 + 6,  # heads, ReLU units, the last norm's gains and what reads them
    ),
}


def made(name):
    torch.manual_seed(0)
    model, batch, loss, count = ZOO[name]
    return model(), batch, loss, count


@pytest.mark.parametrize("name", ZOO)
def test_all_laws_are_found(name):
    model, batch, loss, count = made(name)
    found = laws(model, batch, loss)
    counted = count_diagonal_laws(model, batch, loss)
    assert counted.count == count
    assert counted.largest_null < 1e-12 < 1e-9 < counted.smallest_other
    assert diagonal_rank(found) == count
    assert all(residuals.max() < 1e-10 for residuals in found.residuals)


def test_kinds_of_laws():
    kinds = [law.kind for law in laws(*made("GPT")[:3])]
    width = 8
    assert {kind: kinds.count(kind) for kind in KINDS} == {
        "unit": 0,
        "channel": 0,
        "matrix": 0,
        "head": 2 + 2,  # of the two heads one for queries and keys, one for values and outputs
        "norm": 3 * width,
        "stream": 1,
        # tokens, positions and columns of what writes to the stream; biases there; the bias of keys; the head's columns
        "constant": 11 + 16 + width + 2 * width + 2 + width + width,
    }
    kinds = [law.kind for law in laws(*made("Llama")[:3])]
    assert {kind: kinds.count(kind) for kind in ("head", "unit", "norm", "stream")} == {
        "head": 2 + 1,  # two rotated pairs of queries and keys, and one matrix of values and outputs
        "unit": 6,
        "norm": 24,
        "stream": 1,
    }


def test_laws_are_those_of_the_paper():
    """The form found for a network of linear layers is the one that `quadratic_laws` writes down."""
    from conslaw import draw as drawn
    from conslaw.conserved import quadratic_laws

    problem = drawn([1], (5, 7, 6, 3), bias=True)
    model = mlp(5, 7, 6, 3)
    state = [p[0].clone() for p in problem.parameters]
    names = ["0.weight", "2.weight", "4.weight", "0.bias", "2.bias", "4.bias"]
    model.double().load_state_dict(dict(zip(names, state, strict=True)))
    found = laws(model, VECTORS, cross_entropy)
    for family, known in zip(found.families[:2], quadratic_laws(problem), strict=True):
        torch.testing.assert_close(family.form(dict(model.named_parameters())), known(problem.parameters)[0])


def test_queries_and_keys_need_the_column_of_the_bias():
    """Q̃Q̃ᵀ − K̃K̃ᵀ is a law with Q̃ = [W b], and none without b."""
    torch.manual_seed(0)
    model = GPT(eps=TINY)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.5)
    key, query = "attention.0.key.", "attention.0.query."
    heads = lambda p: p.view(2, 4, -1)  # noqa: E731
    wrong = QuadraticLaws((Term(f"{key}weight", heads, 1), Term(f"{query}weight", heads, -1)), pairs=True)
    right = QuadraticLaws((*wrong.terms, Term(f"{key}bias", heads, 1), Term(f"{query}bias", heads, -1)), pairs=True)
    without, with_bias = (laws(model, TEXT, sequences, groups=[form]) for form in (wrong, right))
    assert len(with_bias) == len(without) + 2
    (rejected,) = (entry for entry in without.rejected if entry.reason == "its terms do not cancel")
    assert rejected.residual > 1e-3


def reasons(found):
    return {entry.reason for entry in found.rejected}


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        (nn.GELU, "GELU is not homogeneous"),
        (lambda: nn.GELU("tanh"), "GELU is not homogeneous"),
        (nn.SiLU, "SiLU is not homogeneous"),
        (nn.Tanh, "tanh is not homogeneous"),
        (nn.Sigmoid, "sigmoid is not homogeneous"),
        (nn.ELU, "ELU, SELU or CELU is not homogeneous"),
        (nn.Softplus, "softplus is not homogeneous"),
        (nn.Mish, "Mish is not homogeneous"),
        (nn.Hardswish, "hard swish is not homogeneous"),
        (nn.ReLU6, "ReLU6 or hardtanh is not homogeneous"),
        (lambda: nn.Threshold(0.1, 0.0), "a threshold is not homogeneous"),
        (lambda: nn.Dropout(0.5), None),
    ],
)
def test_why_units_have_no_law(activation, reason):
    found = laws(mlp(5, 7, 3, activation=activation), VECTORS, cross_entropy)
    assert [(entry.where, entry.count, entry.reason) for entry in found.rejected] == [("0[0]", 7, reason)] * bool(
        reason
    )
    assert {law.kind for law in found} == ({"constant"} if reason else {"constant", "unit"})


def test_dropout_keeps_units_apart():
    """A mask keeps the law of every unit, and breaks the entries of the matrix between them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Linear(7, 3))
    kinds = [[law.kind for law in laws(model.train(mode), VECTORS, cross_entropy)] for mode in (False, True)]
    assert [kind.count("matrix") for kind in kinds] == [1, 0]
    assert [kind.count("unit") for kind in kinds] == [0, 7]


def test_epsilon_of_a_norm():
    torch.manual_seed(0)
    model = cnn(1, 4, 5, norm=nn.BatchNorm2d)
    strict, lenient = (laws(model, IMAGES, cross_entropy, tolerance=tolerance) for tolerance in (1e-8, 1e-3))
    assert reasons(strict) == {"only but for ε = 1e-05 of BatchNorm"}
    assert all(1e-7 < entry.residual < 1e-4 for entry in strict.rejected)
    assert (diagonal_rank(strict), diagonal_rank(lenient)) == (9, 18)
    model.eval()
    evaluated = laws(model, IMAGES, cross_entropy)
    assert reasons(evaluated) == {"BatchNorm in eval mode subtracts a constant mean"}
    assert diagonal_rank(evaluated) == 9


def test_convolution_before_batchnorm_has_a_constant_bias():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    constants = {law.formula for law in laws(model, IMAGES, cross_entropy) if law.kind == "constant"}
    assert constants >= {f"0.bias[{channel}]" for channel in range(4)} | {"Σ 4.bias"}


def test_frozen_and_unused_parameters():
    model = mlp(5, 7, 6, 3)
    model[0].weight.requires_grad_(False)
    model.extra = nn.Parameter(torch.ones(2))
    model.forward = lambda x: nn.Sequential(*list(model)[:5])(x)
    found = laws(model, VECTORS, cross_entropy)
    known = {entry.where: entry.reason for entry in found.rejected if entry.kind == "parameter"}
    assert known == {
        "extra": "the loss does not depend on it",
        "0.weight": "it is frozen, and has no law of its own",
    }
    assert not [law for law in found if "0.bias" in law.formula]
    assert diagonal_rank(found) == 6
    assert diagonal_rank(found) == count_diagonal_laws(model, VECTORS, cross_entropy).count


def test_model_is_left_as_it_is():
    torch.manual_seed(0)
    model = cnn(1, 4, 5, norm=nn.BatchNorm2d)
    before, mode = copy.deepcopy(model.state_dict()), model.training
    random = torch.get_rng_state()
    laws(model, IMAGES, cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training is mode
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    assert torch.get_default_dtype() == torch.float32


def test_wrapped_models():
    model = mlp(5, 7, 3)
    plain = [law.formula for law in laws(model, VECTORS, cross_entropy)]
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        assert [law.formula for law in laws(wrapped, VECTORS, cross_entropy)] == plain


def test_low_precision_of_the_model_does_not_matter():
    class Casting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = mlp(5, 7, 3)

        def forward(self, x):
            return self.inside(x.to(torch.float32)).float().half()

    assert max(law.residual for law in laws(Casting(), VECTORS, cross_entropy)) < 1e-12


def test_data_dependent_branches():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = mlp(5, 7, 3)

        def forward(self, x):
            return self.inside(x) if x.sum().item() < 1e9 else x

    assert diagonal_rank(laws(Branching(), VECTORS, cross_entropy)) == 7


class Foreign(torch.autograd.Function):
    """An operation of somebody's own, which is none of torch's."""

    @staticmethod
    def forward(context, x):
        """2 x, by way of numpy."""
        return torch.from_numpy(2 * x.detach().numpy())

    @staticmethod
    def backward(context, gradient):
        """Of 2 x."""
        return 2 * gradient


class WithForeign(nn.Module):
    """A linear network whose layers are joined by it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(Foreign.apply(self.first(x)))


JOINED = QuadraticLaws(
    (Term("last.weight", columns, 1), Term("first.weight", rows, -1), Term("first.bias", lambda b: b[:, None], -1))
)


def test_what_tracing_does_not_see_is_not_believed():
    found = laws(WithForeign(), VECTORS, cross_entropy, groups=[JOINED])
    assert "its terms do not cancel" in reasons(found)
    assert [law.kind for law in found].count("unit") == 4
    assert max(law.residual for law in found) < 1e-12


def test_what_cannot_be_traced_says_so(monkeypatch):
    monkeypatch.setattr(Objective, "graph", lambda self: 1 / 0)
    found = laws(mlp(5, 7, 3), VECTORS, cross_entropy)
    assert {law.kind for law in found} == {"constant"}
    assert reasons(found) == {"not traced (ZeroDivisionError: division by zero); pass groups="}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([Term("middle", rows, 1)], "groups name parameters that model does not train: middle"),
        ([Term("first.weight", rows, 1), Term("last.weight", rows, -1)], r"must all have shape \(laws, k\)"),
    ],
)
def test_wrong_groups(terms, message):
    with pytest.raises(ValueError, match=message):
        laws(WithForeign(), VECTORS, cross_entropy, groups=[QuadraticLaws(tuple(terms))])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"model": mlp(5, 7, 3).to("meta")}, ValueError, "0.weight of model is on the meta device"),
        ({"model": nn.LazyLinear(3)}, ValueError, "weight of model is not initialised; run the model once"),
        ({"model": nn.ReLU()}, ValueError, "model must have parameters that require a gradient, got none"),
        ({"batch": VECTORS[0]}, ValueError, "batch must be a pair .*, got Tensor with loss_fn given"),
        ({"loss_fn": None}, ValueError, "batch must be a pair .*, got tuple with loss_fn None"),
        ({"loss_fn": lambda o, t: o}, ValueError, r"the loss must be a scalar tensor, got \(40, 3\)"),
        ({"loss_fn": lambda o, t: 1.0}, ValueError, "the loss must be a scalar tensor, got float"),
        ({"loss_fn": lambda o, t: o.detach().sum()}, ValueError, "the loss must depend on the parameters"),
        ({"batch": (VECTORS[0] / 0, VECTORS[1])}, ValueError, "the loss is not finite on this batch"),
        ({"tolerance": 2.0}, ValueError, "tolerance must be between 0 and 1, got 2.0"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"model": mlp(5, 7, 3), "batch": VECTORS, "loss_fn": cross_entropy} | change
    with pytest.raises(error, match=message):
        laws(arguments.pop("model"), arguments.pop("batch"), arguments.pop("loss_fn"), **arguments)


def test_table_and_text():
    found = laws(*made("CNN")[:3])
    assert list(found.table.columns) == ["where", "kind", "formula", "residual"]
    assert len(found.table) == len(found) == len(list(found))
    assert found[0] == next(iter(found))
    assert found[1:3] == list(found)[1:3]
    assert str(found).splitlines()[2].split()[:3] == ["4", "channel", "0[0]"]
    assert "GELU is not homogeneous" in str(laws(*made("GELU")[:3]))


def test_too_large_for_the_black_box():
    with pytest.raises(ValueError, match="at most 2000 rows and columns, got 3000"):
        count_diagonal_laws(nn.Linear(1000, 1000), VECTORS, cross_entropy)


@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=5, max_size=5), max_size=5))
@settings(max_examples=50)
def test_exponents_solve_linear_equations(matrix):
    """The number of free unknowns is the nullity, and every solution solves all equations."""
    exponents = Exponents()
    unknowns = exponents.new(5).tolist()
    for row in matrix:
        exponents.require({u: c for u, c in zip(unknowns, row, strict=True) if c})
    solved = torch.zeros(5, 5, dtype=torch.float64)
    for place, unknown in enumerate(unknowns):
        for free, value in exponents.solution(unknown).items():
            solved[place, free - 1] = float(value)
    rank = torch.linalg.matrix_rank(torch.tensor(matrix, dtype=torch.float64)).item() if matrix else 0
    assert torch.linalg.matrix_rank(solved).item() == 5 - rank
    if matrix:
        assert (torch.tensor(matrix, dtype=torch.float64) @ solved).abs().max() < 1e-12


def test_axes_are_slices():
    x = torch.arange(24.0).view(4, 2, 3)
    assert torch.equal(Axis(0)(x), x.flatten(1))
    assert torch.equal(Axis(1)(x)[1], x[:, 1].flatten())
    assert torch.equal(Axis(1, groups=2)(x)[3], x[2:, 1].flatten())
    assert torch.equal(Axis(0, across=True)(x)[4], x[:, 1, 1])
    assert Axis(0)(torch.tensor(2.0)).tolist() == [[2.0]]


def test_squared_error_too():
    found = laws(mlp(5, 7, 3), (VECTORS[0], draw(40, 3)), mse_loss)
    assert [law.kind for law in found] == ["unit"] * 7
