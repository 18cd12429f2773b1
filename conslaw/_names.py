"""The names of the package, which `conslaw` takes from here when one of them is first used."""

from conslaw.conserved import conserved_quantity, gradient_imbalance, matrix_laws, restore_unit_laws, unit_laws
from conslaw.drawing import as_problem, draw
from conslaw.eigenvalues import SharpnessObserver, lanczos, sharpness
from conslaw.hessian import dense_hessian, gradient_vector, hessian_vector_product
from conslaw.models.found import laws
from conslaw.models.tracking import track
from conslaw.networks import loss_and_gradients, network_outputs
from conslaw.problems import Problem
from conslaw.theory.power_laws import PowerLaw, fit_power_law
from conslaw.training.central_flow import central_flow
from conslaw.training.descent import gradient_descent, networks_at
from conslaw.training.flow import gradient_flow
from conslaw.training.optimizers import Adam, Momentum

__all__ = [
    "Adam",
    "Momentum",
    "PowerLaw",
    "Problem",
    "SharpnessObserver",
    "as_problem",
    "central_flow",
    "conserved_quantity",
    "dense_hessian",
    "draw",
    "fit_power_law",
    "gradient_descent",
    "gradient_flow",
    "gradient_imbalance",
    "gradient_vector",
    "hessian_vector_product",
    "lanczos",
    "laws",
    "loss_and_gradients",
    "matrix_laws",
    "network_outputs",
    "networks_at",
    "restore_unit_laws",
    "sharpness",
    "track",
    "unit_laws",
]
