"""Small models of every kind of block, for tests and notebooks: too small to be of use, complete in what they have."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

__all__ = ["GPT", "Llama", "cnn", "mlp"]


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, bias: bool = True) -> nn.Sequential:
    """Linear layers with an activation between them.

    >>> mlp(5, 7, 3)(torch.zeros(2, 5)).shape
    torch.Size([2, 3])
    """
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def cnn(*channels: int, classes: int = 3, side: int = 8, norm: type[nn.Module] | None = None) -> nn.Sequential:
    """Convolutions 3 × 3 with ReLU, max-pooling and average-pooling in turn, then a linear layer of what is left.

    Args:
        *channels: Of the images and of each convolution.
        classes: Number of outputs.
        side: Of the images, in pixels.
        norm: Between a convolution and its ReLU, such as `nn.BatchNorm2d`.

    >>> cnn(1, 4, 5)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 3])
    """
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm is None)]
        layers += [norm(outputs)] if norm else []
        layers += [nn.ReLU(), nn.AvgPool2d(2) if number % 2 else nn.MaxPool2d(2)]
        side //= 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side**2, classes))


class _Attention(nn.Module):
    """Causal attention with grouped queries, and rotary positions where asked for."""

    def __init__(self, width: int, heads: int, groups: int, size: int, *, bias: bool, rotary: bool):
        super().__init__()
        self.heads, self.groups, self.size, self.rotary = heads, groups, size, rotary
        self.query = nn.Linear(width, heads * size, bias=bias)
        self.key, self.value = (nn.Linear(width, groups * size, bias=bias) for _ in range(2))
        self.out = nn.Linear(heads * size, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.size)).transpose(-2, -3) for layer in (self.query, self.key, self.value)
        )
        if self.rotary:
            query, key = (self.rotated(y) for y in (query, key))
        key, value = (y.repeat_interleave(self.heads // self.groups, -3) for y in (key, value))
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(-2, -3).flatten(-2))

    def rotated(self, y: Tensor) -> Tensor:
        """Rotate entries j and j + size/2 by an angle that grows with the position."""
        half = self.size // 2
        angles = torch.arange(y.shape[-2], dtype=y.dtype)[:, None] / 10.0 ** torch.arange(half, dtype=y.dtype)
        cosine, sine = (function(angles).repeat(1, 2) for function in (torch.cos, torch.sin))
        return y * cosine + torch.cat([-y[..., half:], y[..., :half]], -1) * sine


class GPT(nn.Module):
    """Pre-norm transformer with LayerNorm, learned positions, biases and a GELU network, like GPT-2."""

    def __init__(self, vocabulary: int = 11, width: int = 8, heads: int = 2, blocks: int = 1, *, eps: float = 1e-5):
        """Draw the weights.

        Args:
            vocabulary: Number of tokens.
            width: Of the residual stream.
            heads: Of attention.
            blocks: How many.
            eps: Of every norm.
        """
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.attention = nn.ModuleList(
            _Attention(width, heads, heads, width // heads, bias=True, rotary=False) for _ in range(blocks)
        )
        self.network = nn.ModuleList(mlp(width, 2 * width, width, activation=nn.GELU) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps) for _ in range(2 * blocks + 1))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits (…, vocabulary) from tokens (…)."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[-1]]
        for attention, network, (first, second) in zip(
            self.attention, self.network, zip(self.norms[:-1:2], self.norms[1::2], strict=True), strict=True
        ):
            x = x + attention(first(x))
            x = x + network(second(x))
        return self.head(self.norms[-1](x))


class _Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Llama(nn.Module):
    """Pre-norm transformer with RMSNorm, SwiGLU, rotary positions and grouped queries, without biases, like Llama."""

    def __init__(
        self,
        vocabulary: int = 11,
        width: int = 8,
        heads: int = 2,
        groups: int = 1,
        hidden: int = 6,
        *,
        tied: bool = False,
        eps: float = 1e-6,
    ):
        """Draw the weights.

        Args:
            vocabulary: Number of tokens.
            width: Of the residual stream.
            heads: Of queries.
            groups: Heads of keys and values.
            hidden: Units of the gated network.
            tied: Whether the embedding is the head's weight too.
            eps: Of every norm.
        """
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.attention = _Attention(width, heads, groups, width // heads, bias=False, rotary=True)
        self.network = _Gated(width, hidden)
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps) for _ in range(3))
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits (…, vocabulary) from tokens (…)."""
        x = self.tokens(tokens)
        x = x + self.attention(self.norms[0](x))
        x = x + self.network(self.norms[1](x))
        return self.head(self.norms[2](x))
