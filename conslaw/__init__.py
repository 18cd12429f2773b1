"""The core of the companion to arXiv:2604.07405, "Conservation Law Breaking at the Edge of Stability"."""

from conslaw.conservation import conserved_quantity, gradient_imbalance, matrix_laws, squared_norms, unit_laws
from conslaw.descent import gradient_descent, loss_and_gradients
from conslaw.flow import gradient_flow
from conslaw.hessian import DenseHessian, dense_hessian, hessian_vector_product
from conslaw.lanczos import Eigenpairs, Sharpness, lanczos, sharpness
from conslaw.ledger import verdicts
from conslaw.plotting import use_style, with_spread
from conslaw.problems import Problem, draw
from conslaw.record import Record
from conslaw.scaling import (
    PowerLaw,
    bootstrap_exponent,
    fit_power_law,
    local_slopes,
    mean_of_survivors,
    seed_exponents,
)
from conslaw.tables import beside_published, run_table
from conslaw.trajectory import Trajectory

__all__ = [
    "PowerLaw",
    "Problem",
    "Record",
    "Sharpness",
    "Trajectory",
    "beside_published",
    "bootstrap_exponent",
    "conserved_quantity",
    "draw",
    "fit_power_law",
    "gradient_descent",
    "gradient_flow",
    "gradient_imbalance",
    "local_slopes",
    "loss_and_gradients",
    "matrix_laws",
    "mean_of_survivors",
    "run_table",
    "seed_exponents",
    "sharpness",
    "squared_norms",
    "unit_laws",
    "use_style",
    "verdicts",
    "with_spread",
]
