"""The spectral theory of the drift, and what else the paper says of trained networks."""
