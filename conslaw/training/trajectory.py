"""What is recorded of networks in training."""

from dataclasses import dataclass, field

from torch import Tensor

from conslaw.conserved import gradient_imbalance
from conslaw.problems import Problem
from conslaw.training.optimizers import Optimizer

__all__ = ["Trajectory"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """R learning rates × M networks at the recorded times, of which the first is 0 and the last is T.

    Entry t holds values at the weights after t updates, before update t + 1. A parameter is W_1 … W_L or, where there
    are biases, also b_1 … b_L; there are P of them. Norms are squared Frobenius norms, float64. A network that
    diverged holds NaN from the step `diverged_at` on, and in every sum over steps. Tensors are on the CPU.
    """

    problem: Problem
    """The M initial networks and their data."""
    learning_rates: Tensor
    """η, shape (R, M), float64."""
    times: Tensor
    """Recorded times, shape (τ,): steps of gradient descent, or the time of gradient flow, in which a step is η
    long."""
    parameters: tuple[Tensor, ...]
    """Final W_1 … W_L, each (R, M, out, in), and b_1 … b_L, each (R, M, out)."""
    loss: Tensor
    """Shape (R, M, τ), float64."""
    squared_norms: Tensor
    """‖W_l‖² and ‖b_l‖², shape (R, M, τ, P)."""
    squared_gradient_norms: Tensor
    """‖∂L/∂W_l‖² and ‖∂L/∂b_l‖², shape (R, M, τ, P)."""
    squared_gradient_sums: Tensor
    """Sums over every step t < T of the squared gradient norms, whatever is recorded, shape (R, M, P)."""
    squared_step_sums: Tensor
    """Sums of the squared norms ‖u‖² of the optimizer's directions, W ← W − η u, shape (R, M, P); for gradient descent
    the same as `squared_gradient_sums`."""
    alignment_sums: Tensor
    """Sums of ⟨W, u⟩ at the weights before the step, shape (R, M, P); NaN for gradient descent, where their difference
    between layers is zero."""
    loss_before_last_update: Tensor
    """Loss at step T − 1, which the paper calls final, shape (R, M)."""
    diverged_at: Tensor
    """First step at which the loss or a squared gradient norm was not finite, or larger than float32 can hold, whatever
    the precision; −1 for none, shape (R, M), int64."""
    optimizer: str | Optimizer = "gd"
    """What made the steps: "gd", "momentum", "adam" or an `Optimizer`; "flow" where there are none."""
    observed: dict[str, Tensor] = field(default_factory=dict)
    """What each observable returned, shape (R, M, τ, …), or at its own times instead of the recorded ones."""

    @property
    def dead(self) -> Tensor:
        """Which runs end without a gradient and with a loss, as those whose units are all off, shape (R, M), bool.

        A network that blows up, not far enough to count as diverged, may end so: its drift is that of the blow-up.
        """
        return (self.squared_gradient_norms[:, :, -1] == 0).all(2) & (self.loss[:, :, -1] > 0)

    def networks(self, rate: int = -1) -> Problem:
        """Return the M trained networks with their data, on the problem's device.

        Args:
            rate: Index of the learning rate.
        """
        return self.problem.with_parameters([p[rate].to(self.problem.inputs) for p in self.parameters])

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.problem.weights)

    @property
    def conserved_quantity(self) -> Tensor:
        """C_l = ‖W_{l+1}‖² − ‖W_l‖², without biases as in the paper, shape (R, M, τ, L − 1)."""
        return gradient_imbalance(self.squared_norms[..., : self.depth])

    @property
    def corrected_conserved_quantity(self) -> Tensor:
        """C_l − ‖b_l‖², which gradient flow conserves with biases too, shape (R, M, τ, L − 1)."""
        return gradient_imbalance(self.squared_norms, self.depth)

    @property
    def drift(self) -> Tensor:
        """Signed C_l(T) − C_l(0), shape (R, M, L − 1)."""
        return self.conserved_quantity[:, :, -1] - self.conserved_quantity[:, :, 0]

    @property
    def corrected_drift(self) -> Tensor:
        """Signed change of C_l − ‖b_l‖², shape (R, M, L − 1)."""
        return self.corrected_conserved_quantity[:, :, -1] - self.corrected_conserved_quantity[:, :, 0]

    @property
    def gradient_imbalance(self) -> Tensor:
        """δ_l(t) = ‖g_{l+1}‖² − ‖g_l‖², shape (R, M, τ, L − 1)."""
        return gradient_imbalance(self.squared_gradient_norms[..., : self.depth])

    @property
    def imbalance_sum(self) -> Tensor:
        """S_l = Σ_{t<T} δ_l(t), shape (R, M, L − 1); the drift of gradient descent is exactly η² S_l (Theorem 2)."""
        return gradient_imbalance(self.squared_gradient_sums[..., : self.depth])

    @property
    def energy_ratio(self) -> Tensor:
        """η Σ_{t<T} ‖∇L‖² / (L(0) − L(T)), shape (R, M).

        1 in gradient flow, where what the steps spend is what the loss loses; above 1 where steps overshoot.
        """
        return self.learning_rates * self.squared_gradient_sums.sum(2) / (self.loss[:, :, 0] - self.loss[:, :, -1])

    @property
    def step_part(self) -> Tensor:
        """η² Σ_{t<T} (‖u_{l+1}‖² − ‖u_l‖²), shape (R, M, L − 1): all of the drift of gradient descent."""
        return self.learning_rates.unsqueeze(2) ** 2 * gradient_imbalance(self.squared_step_sums[..., : self.depth])

    @property
    def cross_part(self) -> Tensor:
        """−2 η Σ_{t<T} (⟨W_{l+1}, u_{l+1}⟩ − ⟨W_l, u_l⟩), shape (R, M, L − 1).

        The drift is exactly this and `step_part` together, with any optimizer.
        """
        return -2 * self.learning_rates.unsqueeze(2) * gradient_imbalance(self.alignment_sums[..., : self.depth])

    @property
    def corrected_imbalance_sum(self) -> Tensor:
        """Σ_{t<T} (δ_l − ‖∂L/∂b_l‖²), shape (R, M, L − 1); the corrected drift is exactly η² times this."""
        return gradient_imbalance(self.squared_gradient_sums, self.depth)
