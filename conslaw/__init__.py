"""The core of the companion to arXiv:2604.07405, "Conservation Law Breaking at the Edge of Stability"."""

from conslaw.eigenvalues import Eigenpairs, Sharpness, SharpnessObserver, lanczos, sharpness
from conslaw.hessian import DenseHessian, dense_hessian, gradient_vector, hessian_vector_product
from conslaw.laws import (
    conserved_quantity,
    gradient_imbalance,
    matrix_laws,
    restore_unit_laws,
    squared_norms,
    unit_laws,
)
from conslaw.paper.ledger import verdicts
from conslaw.paper.plotting import ticks_at, use_style, with_spread
from conslaw.paper.ranking import null_correlations, ranked, ranked_correlation
from conslaw.paper.records import Record
from conslaw.paper.tables import beside_published, run_table
from conslaw.problems import Problem, draw
from conslaw.theory.compression import correct_probability, margin_kernel, softmax_sharpness
from conslaw.theory.crossover import (
    HessianModes,
    crossover_sum,
    hessian_modes,
    layer_signs,
    pair_coefficients,
    pair_sum,
    projection_coefficients,
    published_crossover_sum,
)
from conslaw.theory.modes import DataModes, data_modes, linear_modes
from conslaw.theory.power_laws import (
    PowerLaw,
    bootstrap_exponent,
    fit_power_law,
    local_slopes,
    log_correlation,
    mean_of_survivors,
    seed_exponents,
)
from conslaw.theory.switching import SwitchObserver, first_preactivations, frozen_gate_sum
from conslaw.training._batched import loss_and_gradients
from conslaw.training.descent import gradient_descent, networks_at
from conslaw.training.flow import gradient_flow
from conslaw.training.optimizers import Adam, Momentum
from conslaw.training.trajectory import Trajectory

__all__ = [
    "Adam",
    "DataModes",
    "DenseHessian",
    "Eigenpairs",
    "HessianModes",
    "Momentum",
    "PowerLaw",
    "Problem",
    "Record",
    "Sharpness",
    "SharpnessObserver",
    "SwitchObserver",
    "Trajectory",
    "beside_published",
    "bootstrap_exponent",
    "conserved_quantity",
    "correct_probability",
    "crossover_sum",
    "data_modes",
    "dense_hessian",
    "draw",
    "first_preactivations",
    "fit_power_law",
    "frozen_gate_sum",
    "gradient_descent",
    "gradient_flow",
    "gradient_imbalance",
    "gradient_vector",
    "hessian_modes",
    "hessian_vector_product",
    "lanczos",
    "layer_signs",
    "linear_modes",
    "local_slopes",
    "log_correlation",
    "loss_and_gradients",
    "margin_kernel",
    "matrix_laws",
    "mean_of_survivors",
    "networks_at",
    "null_correlations",
    "pair_coefficients",
    "pair_sum",
    "projection_coefficients",
    "published_crossover_sum",
    "ranked",
    "ranked_correlation",
    "restore_unit_laws",
    "run_table",
    "seed_exponents",
    "sharpness",
    "softmax_sharpness",
    "squared_norms",
    "ticks_at",
    "unit_laws",
    "use_style",
    "verdicts",
    "with_spread",
]
