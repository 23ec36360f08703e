"""The plots of docs/performance.md, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

pyplot.switch_backend("svg")
pyplot.rcParams.update({"svg.hashsalt": "bench", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})

SIZE = (6, 3.4)
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def lines(path: Path, title: str, x: str, y: str, series: Series, *, log_x: bool = True, log_y: bool = False) -> None:
    """A line for each series."""
    figure, axes = pyplot.subplots(figsize=SIZE)
    for name, (xs, ys) in series.items():
        axes.plot(xs, ys, marker="o", markersize=3, label=name)
    _finish(path, figure, axes, title, x, y, log_x, log_y)


def cdf(path: Path, title: str, x: str, series: Mapping[str, Sequence[float]]) -> None:
    """The share of the values at or below each."""
    figure, axes = pyplot.subplots(figsize=SIZE)
    for name, values in series.items():
        ordered = sorted(values)
        steps = ordered[:: max(1, len(ordered) // 300)]
        axes.plot(steps, [(n + 1) / len(steps) for n in range(len(steps))], label=name)
    _finish(path, figure, axes, title, x, "share", True, False)


def _finish(path: Path, figure: Figure, axes: Axes, title: str, x: str, y: str, log_x: bool, log_y: bool) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
