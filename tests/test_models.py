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
