"""The machinery of the paper: records, published numbers, claims, figures, rebuild, site, command line.

It knows the notebooks and the core; the core knows nothing of it.
"""
