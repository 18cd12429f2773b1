"""The core of the companion to arXiv:2604.07405, "Conservation Law Breaking at the Edge of Stability".

A `Problem` holds networks, their data and loss; it is drawn by `draw` or made of one's own arrays by `as_problem`, and
every function takes from it what it is. What serves a single question is imported from its module: `conslaw.theory`
has the spectral theory, `conslaw.paper` the records, claims and figures of the paper.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

__version__ = version("conslaw")

if TYPE_CHECKING:
    from conslaw._names import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        """Import all names at the first use of one: torch takes a second, and the command line starts without it."""
        names = import_module("conslaw._names")
        globals().update({key: getattr(names, key) for key in ("__all__", *names.__all__)})
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]

    def __dir__() -> list[str]:
        """List the names, also before the first use."""
        __getattr__("__all__")
        return sorted(globals())
