"""The compiled kernel: a thread trains one network after another, whose activations stay in its core's cache.

Samples go through a network some at a time, in tiles, over which the gradient is summed. Products may be fused with
sums, and in sums over samples the order is free; infinite and missing values stay what they are. Other threads run
meanwhile. All is in one file, as numba's cache on disk does not see a change in another.
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

LOG2_E, LN_2 = 1 / math.log(2), (0.6931471803691238, 1.9082149292705877e-10)  # ln 2 as a sum, the first with 33 bits
HALVES = 0.5 ** np.arange(1076.0)
INVERSE_FACTORIALS = tuple(1 / math.factorial(i) for i in range(13, -1, -1))


def compiled(cached: bool) -> Callable:
    """Return `train`, compiled at its first call with each precision.

    Args:
        cached: Whether the machine code is kept on disk, and taken from there.

    Raises:
        RuntimeError: If it shall be kept and numba finds no place for it.
    """
    return njit(train, cache=cached, **REORDERED)


def train(
    parameters, rates, losses, squares, kept, inputs, targets, widths, tiles, places, updates, slope, weights_of_losses
):
    """Train networks one after another, in the same memory.

    Of each network, `inputs` and `targets` hold the tiles of samples one after another; there is one entry if all
    networks see the same samples. `tiles` tells where they end, and how many of the inputs are not all zero there, up
    to the last. Losses and squares are float64. The parameters at a step are `kept` at its place, if that is not −1.
    """
    rows = widths[1:].sum()
    memory = np.empty((2, rows * tiles[0, 0]), parameters.dtype)
    gradient = np.empty_like(parameters[0])
    for j in range(len(parameters)):
        x, y = inputs[min(j, len(inputs) - 1)], targets[min(j, len(targets) - 1)]
        parameter, rate = parameters[j], rates[j]
        for step in range(losses.shape[1]):
            if places[step] >= 0:
                kept[j, places[step]] = parameter
            gradient[:] = 0
            loss, first = 0.0, 0
            for end, ins in tiles:
                size = end - first
                samples = x[widths[0] * first : widths[0] * end].reshape(widths[0], size)[:ins]
                aims = y[widths[-1] * first : widths[-1] * end].reshape(widths[-1], size)
                activations = memory[0, : rows * size].reshape(rows, size)
                residuals = memory[1, : rows * size].reshape(rows, size)
                loss += _add_gradient(
                    parameter, samples, aims, widths, slope, weights_of_losses, activations, residuals, gradient
                )
                first = end
            losses[j, step] = loss
            last = 0
            for layer in range(len(widths) - 1):
                first, last = last, last + widths[layer + 1] * widths[layer]
                squares[j, step, 0, layer] = _square(gradient[first:last])
                squares[j, step, 1, layer] = _square(parameter[first:last])
            if step < updates:
                for p in range(len(parameter)):
                    parameter[p] -= rate * gradient[p]


@njit(**REORDERED)
def _square(vector):
    """Compute |v|² in float64."""
    total = 0.0
    for p in range(len(vector)):
        total += np.float64(vector[p]) * np.float64(vector[p])
    return total


@njit(**REORDERED)
def _add_gradient(parameter, inputs, targets, widths, slope, weights_of_losses, activations, residuals, gradient):
    """Add the gradient of some samples, return their loss: W_1 … W_L are one after another, as a_1 … f are."""
    depth, rows = len(widths) - 1, len(activations)
    before, row, at = inputs, 0, 0
    for layer in range(depth):
        outs, size = widths[layer + 1], widths[layer + 1] * widths[layer]
        after = activations[row : row + outs]
        _product(parameter[at : at + size].reshape(outs, widths[layer])[:, : len(before)], before, after)
        if layer < depth - 1:
            _activate(after, slope)
        before, row, at = after, row + outs, at + size

    residual = residuals[rows - widths[depth] :]
    loss = _loss(before, targets, weights_of_losses, residual)
    for layer in range(depth - 1, -1, -1):
        ins, outs = widths[layer], widths[layer + 1]
        row, at = row - outs, at - outs * ins
        before = activations[row - ins : row] if layer else inputs
        of_weight = gradient[at : at + outs * ins].reshape(outs, ins)[:, : len(before)]
        _add_product_with_transposed(residual, before, of_weight)
        if layer:
            of_layer_before = residuals[row - ins : row]
            _product(parameter[at : at + outs * ins].reshape(outs, ins)[:, : len(before)].T, residual, of_layer_before)
            _pass_back(of_layer_before, before, slope)
            residual = of_layer_before
    return loss


@njit(**FUSED)
def _product(a, b, out):
    """Compute A B, four rows and four terms at a time."""
    rows, terms, columns = len(a), len(b), b.shape[1]
    for i in range(0, rows - 3, 4):
        for k in range(terms % 4):
            p0, q0, r0, s0 = a[i, k], a[i + 1, k], a[i + 2, k], a[i + 3, k]
            if k == 0:
                for c in range(columns):
                    b0 = b[0, c]
                    out[i, c], out[i + 1, c], out[i + 2, c], out[i + 3, c] = p0 * b0, q0 * b0, r0 * b0, s0 * b0
            else:
                for c in range(columns):
                    b0 = b[k, c]
                    out[i, c] += p0 * b0
                    out[i + 1, c] += q0 * b0
                    out[i + 2, c] += r0 * b0
                    out[i + 3, c] += s0 * b0
        for k in range(terms % 4, terms, 4):
            p0, p1, p2, p3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            q0, q1, q2, q3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
            r0, r1, r2, r3 = a[i + 2, k], a[i + 2, k + 1], a[i + 2, k + 2], a[i + 2, k + 3]
            s0, s1, s2, s3 = a[i + 3, k], a[i + 3, k + 1], a[i + 3, k + 2], a[i + 3, k + 3]
            if k == 0:  # what was in `out` before is not to be added to
                for c in range(columns):
                    b0, b1, b2, b3 = b[0, c], b[1, c], b[2, c], b[3, c]
                    out[i, c] = p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3
                    out[i + 1, c] = q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3
                    out[i + 2, c] = r0 * b0 + r1 * b1 + r2 * b2 + r3 * b3
                    out[i + 3, c] = s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
            else:
                for c in range(columns):
                    b0, b1, b2, b3 = b[k, c], b[k + 1, c], b[k + 2, c], b[k + 3, c]
                    out[i, c] += p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3
                    out[i + 1, c] += q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3
                    out[i + 2, c] += r0 * b0 + r1 * b1 + r2 * b2 + r3 * b3
                    out[i + 3, c] += s0 * b0 + s1 * b1 + s2 * b2 + s3 * b3
    for i in range(rows // 4 * 4, rows):
        out[i] = 0
        for k in range(terms % 4):
            p0 = a[i, k]
            for c in range(columns):
                out[i, c] += p0 * b[k, c]
        for k in range(terms % 4, terms, 4):
            p0, p1, p2, p3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            for c in range(columns):
                out[i, c] += p0 * b[k, c] + p1 * b[k + 1, c] + p2 * b[k + 2, c] + p3 * b[k + 3, c]


@njit(**REORDERED)
def _add_product_with_transposed(a, b, out):
    """Add A Bᵀ, four rows and four columns at a time."""
    rows, columns, terms, zero = len(a), len(b), a.shape[1], a.dtype.type(0)
    for i in range(0, rows - 3, 4):
        for c in range(0, columns - 3, 4):
            p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = r0 = r1 = r2 = r3 = s0 = s1 = s2 = s3 = zero
            for k in range(terms):
                p, q, r, s = a[i, k], a[i + 1, k], a[i + 2, k], a[i + 3, k]
                b0, b1, b2, b3 = b[c, k], b[c + 1, k], b[c + 2, k], b[c + 3, k]
                p0, p1, p2, p3 = p0 + p * b0, p1 + p * b1, p2 + p * b2, p3 + p * b3
                q0, q1, q2, q3 = q0 + q * b0, q1 + q * b1, q2 + q * b2, q3 + q * b3
                r0, r1, r2, r3 = r0 + r * b0, r1 + r * b1, r2 + r * b2, r3 + r * b3
                s0, s1, s2, s3 = s0 + s * b0, s1 + s * b1, s2 + s * b2, s3 + s * b3
            _add_four(out[i], c, p0, p1, p2, p3)
            _add_four(out[i + 1], c, q0, q1, q2, q3)
            _add_four(out[i + 2], c, r0, r1, r2, r3)
            _add_four(out[i + 3], c, s0, s1, s2, s3)
        for c in range(columns // 4 * 4, columns):
            p = q = r = s = zero
            for k in range(terms):
                b0 = b[c, k]
                p, q, r, s = p + a[i, k] * b0, q + a[i + 1, k] * b0, r + a[i + 2, k] * b0, s + a[i + 3, k] * b0
            _add_four(out[:, c], i, p, q, r, s)
    for i in range(rows // 4 * 4, rows):
        for c in range(0, columns - 3, 4):
            p0 = p1 = p2 = p3 = zero
            for k in range(terms):
                p = a[i, k]
                p0, p1, p2, p3 = p0 + p * b[c, k], p1 + p * b[c + 1, k], p2 + p * b[c + 2, k], p3 + p * b[c + 3, k]
            _add_four(out[i], c, p0, p1, p2, p3)
        for c in range(columns // 4 * 4, columns):
            p = zero
            for k in range(terms):
                p += a[i, k] * b[c, k]
            out[i, c] += p


@njit(**FUSED)
def _add_four(vector, at, v0, v1, v2, v3):
    """Add four numbers to neighbouring entries."""
    vector[at] += v0
    vector[at + 1] += v1
    vector[at + 2] += v2
    vector[at + 3] += v3


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
def _loss(outputs, targets, weights_of_losses, residual):
    """Compute the part of the loss that some samples have, and ∂L/∂f.

    That is the sum of all squared errors, times the first weight, and of all cross-entropies, times the second.
    """
    classes, columns = outputs.shape
    of_squares, of_entropies = weights_of_losses
    loss = 0.0
    if of_entropies > 0:
        largest, total = outputs[0].copy(), np.zeros_like(outputs[0])
        for k in range(1, classes):
            for c in range(columns):
                largest[c] = outputs[k, c] if outputs[k, c] > largest[c] else largest[c]
        for k in range(classes):
            for c in range(columns):
                residual[k, c] = outputs[k, c] - largest[c]
                loss -= of_entropies * targets[k, c] * residual[k, c]
            _exponential(residual[k])
            for c in range(columns):
                total[c] += residual[k, c]
        product = 1.0
        for c in range(columns):  # Σ ln x = ln Π x takes fewer logarithms
            product *= total[c]
            if product > 1e200:
                loss += of_entropies * math.log(product)
                product = 1.0
        loss += of_entropies * math.log(product)
        for k in range(classes):
            for c in range(columns):
                residual[k, c] = of_entropies * (residual[k, c] / total[c] - targets[k, c])
    else:
        residual[:] = 0
    for k in range(classes if of_squares > 0 else 0):
        for c in range(columns):
            difference = outputs[k, c] - targets[k, c]
            loss += of_squares * difference * difference
            residual[k, c] += (of_squares + of_squares) * difference
    return loss


@njit(**FUSED)
def _exponential(x):
    """Overwrite x ≤ 0 by eˣ = 2⁻ⁱ eʳ with |r| ≤ ln 2 / 2, for many entries at once, which calls of math.exp are not."""
    for c in range(len(x)):
        z = np.float64(x[c])
        z = -745.0 if z < -745.0 else z  # e⁻⁷⁴⁵ is the smallest number above zero
        halvings = np.floor(0.5 - z * LOG2_E)
        r = (z + halvings * LN_2[0]) + halvings * LN_2[1]
        series = INVERSE_FACTORIALS[0]
        for inverse in INVERSE_FACTORIALS[1:]:
            series = series * r + inverse
        x[c] = series * HALVES[np.int64(halvings) if halvings >= 0 else 0]  # a missing value counts nothing
