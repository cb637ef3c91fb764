"""The style of all pictures."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pidelta.output_files import replacing

_BLUE, _ORANGE, _GREEN, _GREY = "#2f6db3", "#d8702a", "#3a8f5c", "#5a5a5a"
COLOURS = (_BLUE, _ORANGE, _GREEN, "#8a5aa8")
DPI = 160


def new_figure(width: float, height: float, *, finds_margins: bool = True) -> Figure:
    """Return a figure that belongs to no window and no global state.

    Args:
        width, height: in inches.
        finds_margins: whether it makes room for all labels, which takes as long as drawing them.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08) if finds_margins else None
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def tidy(axis: Axes) -> None:
    """Give an axis the style of all pictures."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.tick_params(labelsize=9)


FORMATS = (".png", ".pdf", ".svg")


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a picture, whole or not at all; its name ends in its format, PNG where it does not say.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path, "wb") as stream:
        figure.savefig(stream, format=path.suffix.removeprefix(".") or "png", dpi=dpi)
