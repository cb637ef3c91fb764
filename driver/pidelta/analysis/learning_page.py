"""The page of `pidelta learn`: errors against labels, sources of frames, spread against errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pidelta.analysis.model_pictures import draw_spread
from pidelta.analysis.pages import table_row, write_text
from pidelta.analysis.plots import COLOURS, new_figure, save, tidy
from pidelta.delta.calibration import verdict
from pidelta.workflow.learning.rounds import Round, RoundResult, Selection, read_selection

PAGE = "page.md"
_CURVE, _MAPS, _SPREAD = "errors.png", "frames.png", "spread.png"
_GREY = "#8a8a8a"
_ERRORS = ("energy", "qm_gradient", "mm_gradient")
_TITLES = ("energy / kcal/mol", "QM gradient / kcal/mol/Å", "MM gradient / kcal/mol/Å")


def write_learning_page(root: Path, results: Sequence[RoundResult], command: str) -> None:
    """Write ``page.md`` and its pictures for the rounds that are complete, at least one.

    Args:
        root: the folder of all rounds.
        results: of the rounds.
        command: that made them, for the page.
    """
    selections = [read_selection(Round(root, result.number).selection) for result in results]
    draw_errors(results, root / _CURVE)
    _draw_maps(selections, root / _MAPS)
    last = results[-1]
    draw_spread(np.array(last.energy_spread), np.array(last.energy_errors), root / _SPREAD)
    lines = [
        "# Learning a delta model, round by round",
        "",
        f"    {command}",
        "",
        f"{last.frames} labelled frames to train on, {last.test_frames} to test on that no training saw; "
        f"{last.seconds / 3600.0:.2f} hours. The models of the last round: "
        f"`delta: {Round(root, last.number).committee.relative_to(root)}` in a configuration uses them.",
        "",
        "## Errors on the test frames",
        "",
        "MAE (RMSE) of all test frames so far, and for the models that drove the sampling on the frames they "
        "led to. Energies after taking off each method's mean error.",
        "",
        *_error_table(results),
        "",
        f"![errors against labelled frames]({_CURVE})",
        "",
        "## Where frames came from",
        "",
        *_source_table(results, selections),
        "",
        f"![candidates and picked frames]({_MAPS})",
        "",
        "Each point is a candidate, in the plane in which those of its round vary most; blue: picked.",
        "",
        "## Is the spread true?",
        "",
        f"The spread of the models is multiplied by {last.calibration[0]:.2f} for energies and "
        f"{last.calibration[1]:.2f} for forces, so that its mean square is that of the errors on the test "
        f"frames. {verdict(last.judgement, last.inside)}",
        "",
        f"![errors against spread]({_SPREAD})",
    ]
    notes = [
        f"- round {result.number}: {note}"
        for result, selection in zip(results, selections, strict=True)
        for note in selection.notes
    ]
    if notes:
        lines += ["", "## What went wrong", "", *notes]
    write_text(root / PAGE, "\n".join(lines) + "\n")


def _error_table(results: Sequence[RoundResult]) -> list[str]:
    head = ["round", "frames", "test frames", "hours", *_TITLES, "the models before, on their frames: energy"]
    lines = [table_row([*head, "QM gradient"]), table_row(["---"] * (len(head) + 1))]
    low = [_pair(getattr(results[-1].low, name)) for name in _ERRORS]
    lines.append(table_row(["low level alone", "", str(results[-1].test_frames), "", *low, "", ""]))
    for result in results:
        before = ["", ""]
        if result.before is not None:
            before = [_pair(result.before.energy), _pair(result.before.qm_gradient)]
        errors = [_pair(getattr(result.corrected, name)) for name in _ERRORS]
        hours = f"{result.seconds / 3600.0:.2f}"
        counts = [str(result.number), str(result.frames), str(result.test_frames), hours]
        lines.append(table_row([*counts, *errors, *before]))
    return lines


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3g} ({pair[1]:.3g})"


def _source_table(results: Sequence[RoundResult], selections: Sequence[Selection]) -> list[str]:
    names = sorted({name for selection in selections for name in selection.sampled})
    lines = [table_row(["round", *names, "collided"]), table_row(["---"] * (len(names) + 2))]
    for result, selection in zip(results, selections, strict=True):
        cells = [f"{selection.picked.get(name, 0)} of {selection.sampled.get(name, 0)}" for name in names]
        lines.append(table_row([str(result.number), *cells, str(selection.collided)]))
    return lines


def draw_errors(results: Sequence[RoundResult], path: Path) -> None:
    """Draw the errors against the number of labelled frames, on a logarithmic scale."""
    figure = new_figure(9.6, 3.2)
    frames = [result.frames for result in results]
    for axis, name, title in zip(figure.subplots(1, 3), _ERRORS, _TITLES, strict=True):
        axis.semilogx(frames, [getattr(r.corrected, name)[0] for r in results], "o-", color=COLOURS[0])
        axis.axhline(getattr(results[-1].low, name)[0], color=_GREY, linestyle="--", linewidth=1.0)
        led = [getattr(result.before, name)[0] for result in results[1:] if result.before is not None]
        axis.plot(frames[: len(led)], led, "x", color=COLOURS[1])
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel("labelled frames", fontsize=9)
        axis.set_xticks(frames, [str(count) for count in frames])
        axis.minorticks_off()
        axis.set_ylim(bottom=0.0)
        tidy(axis)
    figure.axes[0].set_ylabel("MAE", fontsize=9)
    figure.legend(
        ["all test frames", "low level alone", "frames that the models led to"],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    save(figure, path)


def _draw_maps(selections: Sequence[Selection], path: Path) -> None:
    shown = list(enumerate(selections))[-6:]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(3.2 * columns, 2.8 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (number, selection) in zip(axes, shown, strict=False):
        _draw_map(axis, number, selection)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    save(figure, path)


def _draw_map(axis: Axes, number: int, selection: Selection) -> None:
    points = np.array(selection.plane)
    picked = points[selection.places]
    axis.scatter(points[:, 0], points[:, 1], s=6, color=_GREY, alpha=0.4, linewidths=0.0)
    axis.scatter(picked[:, 0], picked[:, 1], s=14, color=COLOURS[0])
    axis.set_title(f"round {number}", loc="left", fontsize=9)
    axis.set_xlabel("first component", fontsize=8)
    axis.set_ylabel("second", fontsize=8)
    tidy(axis)
    axis.tick_params(labelsize=8)
