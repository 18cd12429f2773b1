"""The compiled kernel: a thread trains one network after another, whose activations stay in its core's cache.

Products may be fused with sums, and in sums over samples the order is free; infinite and missing values stay what they
are. Other threads run meanwhile.
"""

import math
from collections.abc import Callable

import numpy as np
from numba import njit

__all__ = ["compiled", "train"]

FUSED, REORDERED = (
    {"nogil": True, "error_model": "numpy", "fastmath": flags}
    for flags in ({"contract"}, {"contract", "reassoc", "nsz"})
)


def compiled(cached: bool) -> Callable:
    """Return `train`, compiled at its first call.

    Args:
        cached: Whether the machine code is kept on disk, and taken from there.

    Raises:
        RuntimeError: If it shall be kept and numba finds no place for it.
    """
    return njit(train, cache=cached, **REORDERED)


def train(parameters, inputs, targets, rates, losses, squares, widths, updates, slope, entropy_weight, samples):
    """Train networks one after another, in the same memory."""
    shape = (widths[1:].sum(), inputs.shape[2])
    activations, residuals = np.empty(shape), np.empty(shape)
    gradient = np.empty_like(parameters[0])
    for j in range(len(parameters)):
        x, y, parameter, rate = inputs[j], targets[j], parameters[j], rates[j]
        for step in range(losses.shape[1]):
            losses[j, step] = _loss_and_gradient(
                parameter, x, y, widths, slope, entropy_weight, samples, activations, residuals, gradient
            )
            end = 0
            for layer in range(len(widths) - 1):
                start, end = end, end + widths[layer + 1] * widths[layer]
                of_gradient = of_weight = 0.0
                for p in range(start, end):
                    of_gradient += gradient[p] * gradient[p]
                    of_weight += parameter[p] * parameter[p]
                squares[j, step, 0, layer], squares[j, step, 1, layer] = of_gradient, of_weight
            if step < updates:
                for p in range(len(parameter)):
                    parameter[p] -= rate * gradient[p]


@njit(**REORDERED)
def _loss_and_gradient(
    parameter, inputs, targets, widths, slope, entropy_weight, samples, activations, residuals, gradient
):
    """Compute both, the latter into `gradient`: W_1 … W_L are one after another there, as a_1 … f in `activations`."""
    depth, rows = len(widths) - 1, len(activations)
    before, row, at = inputs, 0, 0
    for layer in range(depth):
        outs, size = widths[layer + 1], widths[layer + 1] * widths[layer]
        after = activations[row : row + outs]
        _product(parameter[at : at + size].reshape(outs, widths[layer]), before, after)
        if layer < depth - 1:
            _activate(after, slope)
        before, row, at = after, row + outs, at + size

    residual = residuals[rows - widths[depth] :]
    loss = _loss(before, targets, samples, entropy_weight, residual)
    for layer in range(depth - 1, -1, -1):
        ins, outs = widths[layer], widths[layer + 1]
        row, at = row - outs, at - outs * ins
        weight = parameter[at : at + outs * ins].reshape(outs, ins)
        before = activations[row - ins : row] if layer else inputs
        _product_with_transposed(residual, before, gradient[at : at + outs * ins].reshape(outs, ins))
        if layer:
            of_layer_before = residuals[row - ins : row]
            _product(weight.T, residual, of_layer_before)
            _pass_back(of_layer_before, before, slope)
            residual = of_layer_before
    return loss


@njit(**FUSED)
def _product(a, b, out):
    """Compute A B, two rows and four terms at a time; of an odd number of rows the last but one twice."""
    rows, terms, columns = len(a), len(b), b.shape[1]
    for first in range(0, rows, 2):
        i = max(0, min(first, rows - 2))
        j = min(i + 1, rows - 1)
        rest = terms % 4
        if rest == 0:  # the first four, which need no zeros to be added to
            rest = 4
            p0, p1, p2, p3 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
            q0, q1, q2, q3 = a[j, 0], a[j, 1], a[j, 2], a[j, 3]
            for c in range(columns):
                b0, b1, b2, b3 = b[0, c], b[1, c], b[2, c], b[3, c]
                p = p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3
                q = q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3
                out[i, c], out[j, c] = p, q
        else:
            for c in range(columns):
                out[i, c], out[j, c] = a[i, 0] * b[0, c], a[j, 0] * b[0, c]
            for k in range(1, rest):
                p0, q0 = a[i, k], a[j, k]
                for c in range(columns):
                    p, q = out[i, c] + p0 * b[k, c], out[j, c] + q0 * b[k, c]
                    out[i, c], out[j, c] = p, q
        for k in range(rest, terms, 4):
            p0, p1, p2, p3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            q0, q1, q2, q3 = a[j, k], a[j, k + 1], a[j, k + 2], a[j, k + 3]
            for c in range(columns):
                b0, b1, b2, b3 = b[k, c], b[k + 1, c], b[k + 2, c], b[k + 3, c]
                p = out[i, c] + p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3
                q = out[j, c] + q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3
                out[i, c], out[j, c] = p, q


@njit(**REORDERED)
def _product_with_transposed(a, b, out):
    """Compute A Bᵀ, two rows and four columns at a time; of an odd number of rows the last but one twice."""
    rows, columns, terms = len(a), len(b), a.shape[1]
    for first in range(0, rows, 2):
        i = max(0, min(first, rows - 2))
        j = min(i + 1, rows - 1)
        c = 0
        while c + 4 <= columns:
            p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = 0.0
            for k in range(terms):
                p, q = a[i, k], a[j, k]
                b0, b1, b2, b3 = b[c, k], b[c + 1, k], b[c + 2, k], b[c + 3, k]
                p0, p1, p2, p3 = p0 + p * b0, p1 + p * b1, p2 + p * b2, p3 + p * b3
                q0, q1, q2, q3 = q0 + q * b0, q1 + q * b1, q2 + q * b2, q3 + q * b3
            out[i, c], out[i, c + 1], out[i, c + 2], out[i, c + 3] = p0, p1, p2, p3
            out[j, c], out[j, c + 1], out[j, c + 2], out[j, c + 3] = q0, q1, q2, q3
            c += 4
        while c < columns:
            p0 = q0 = 0.0
            for k in range(terms):
                p0, q0 = p0 + a[i, k] * b[c, k], q0 + a[j, k] * b[c, k]
            out[i, c], out[j, c] = p0, q0
            c += 1


@njit(**FUSED)
def _activate(z, slope):
    """Overwrite z by σ(z) = z σ'(z)."""
    for i in range(len(z)):
        for c in range(z.shape[1]):
            z[i, c] = z[i, c] if z[i, c] > 0 else slope * z[i, c]


@njit(**FUSED)
def _pass_back(residual, activation, slope):
    """Overwrite ∂L/∂σ(z) by ∂L/∂z, where σ(z) > 0 tells σ'(z)."""
    for i in range(len(residual)):
        for c in range(residual.shape[1]):
            residual[i, c] = residual[i, c] if activation[i, c] > 0 else slope * residual[i, c]


@njit(**FUSED)
def _loss(outputs, targets, samples, entropy_weight, residual):
    """Compute the loss, (1 − w)·squared error + w·cross-entropy, and ∂L/∂f."""
    classes, columns = outputs.shape
    loss = 0.0
    for c in range(columns if entropy_weight > 0 else 0):
        largest, total = outputs[0, c], 0.0
        for k in range(1, classes):
            largest = max(largest, outputs[k, c])
        for k in range(classes):
            residual[k, c] = math.exp(outputs[k, c] - largest)
            total += residual[k, c]
        weight = entropy_weight / samples
        scale = weight / total
        for k in range(classes):
            loss -= weight * targets[k, c] * (outputs[k, c] - largest)
            residual[k, c] = scale * residual[k, c] - weight * targets[k, c]
        loss += weight * math.log(total)
    scale = (1 - entropy_weight) / (samples * classes)
    for k in range(classes if entropy_weight < 1 else 0):
        for c in range(columns):
            difference = outputs[k, c] - targets[k, c]
            loss += scale * difference * difference
            residual[k, c] = 2 * scale * difference + (residual[k, c] if entropy_weight > 0 else 0.0)
    return loss
