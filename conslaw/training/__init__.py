"""Training: gradient descent, other optimizers and gradient flow, and what is recorded of them."""
