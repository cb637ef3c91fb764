"""pidelta: QM/MM forces at DFT accuracy for i-PI, from DFTB, a delta neural network and a force field."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pidelta.calculator import Calculator

    __version__: str

__all__ = ["Calculator"]


def __getattr__(name: str) -> object:
    # The calculator brings torch and numba along, which `pidelta --help` and the protocol do not need.
    if name == "__version__":
        from importlib.metadata import version

        return version("pidelta")
    if name == "Calculator":
        from pidelta.calculator import Calculator

        return Calculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
