"""The page of the errors of delta models: Markdown with pictures, and JSON with all numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pidelta.analysis.model_errors import METHOD_TITLES, FrameErrors, ModelErrors, Share
from pidelta.analysis.model_pictures import draw_parity, draw_shares, draw_spread
from pidelta.analysis.pages import DATA, PAGE, table_row, write_text
from pidelta.delta.calibration import NOTHING_COMPARED, Reliability, verdict
from pidelta.units import HARTREE_IN_KCAL_PER_MOL

_PARITY, _SHARES, _SPREAD = "parity.png", "errors.png", "spread.png"
_WORST = 10
_ABOUT = (
    "kcal/mol, kcal/mol/angstrom; errors are method less reference, energies less their mean error; pairs "
    "under errors are MAE and RMSE, under spread of energies and forces, all others of the low level alone "
    "and with the models"
)


def write_model_page(
    errors: ModelErrors, folder: Path, title: str, facts: Sequence[tuple[str, str]], notes: Sequence[str] = ()
) -> None:
    """Write ``report.md``, ``report.json`` and pictures into a folder, which exists.

    Args:
        errors: of the models.
        folder: where to write.
        title: of the page.
        facts: names and values: which models, methods and frames.
        notes: lines on what was passed over, or how to read the numbers.
    """
    draw_parity(errors, folder / _PARITY)
    draw_shares(errors, folder / _SHARES)
    lines = [f"# {title}", "", *_table(["", ""], [list(fact) for fact in facts]), ""]
    lines += [*(f"- {note}" for note in notes), *([""] if notes else [])]
    lines += ["## Errors", "", "MAE (RMSE). Energies less each method's mean error.", ""]
    lines += [*_summary(errors), "", f"![methods against the reference]({_PARITY})", ""]
    if errors.trajectories:
        lines += ["## By trajectory", "", *_trajectories(errors), ""]
    lines += [
        "## Where the gradients err",
        "",
        *_shares(errors),
        f"![errors by element and distance]({_SHARES})",
    ]
    lines += ["", "## Worst frames", "", *_worst(errors), "", "## Beyond the training", "", *_outside(errors)]
    if errors.reliability is not None:
        spread = errors.reliability.calibration.energy * errors.reliability.energy_spread
        unit = HARTREE_IN_KCAL_PER_MOL
        draw_spread(unit * spread, unit * errors.reliability.energy_errors, folder / _SPREAD)
        lines += ["", "## Is the spread true?", "", _trust(errors.reliability), ""]
        lines += [f"![errors against spread]({_SPREAD})"]
    write_text(folder / DATA, json.dumps(_json(errors, title, facts, notes), indent=1) + "\n")
    write_text(folder / PAGE, "\n".join(lines) + "\n")  # the last: where it is, all is


def _summary(errors: ModelErrors) -> list[str]:
    head = ["", "energy / kcal/mol", "QM gradient / kcal/mol/Å", "MM gradient / kcal/mol/Å", "MM within 5 Å"]
    rows = []
    for method, name in METHOD_TITLES.items():
        rows.append([name, *(_pair(*pair) for pair in asdict(errors.summary[method]).values())])
    return _table(head, rows)


def _trajectories(errors: ModelErrors) -> list[str]:
    head = ["", "frames", "shift", "energy / kcal/mol", "QM gradient / kcal/mol/Å", "MM gradient"]
    rows = []
    for each in errors.trajectories:
        for method, title in METHOD_TITLES.items():
            own = each.summary[method]
            pairs = (_pair(*pair) for pair in (own.energy, own.qm_gradient, own.mm_gradient))
            shift = f"{each.shift[method]:+.3g}"
            rows.append([f"{_escaped(each.name)}, {title}", str(each.frames), shift, *pairs])
    return [
        "Energies less the mean error of their trajectory; shift: that mean less the one of all frames.",
        "",
        *_table(head, rows),
    ]


def _shares(errors: ModelErrors) -> list[str]:
    lines: list[str] = []
    for head, shares in (
        ("QM element", errors.qm_elements),
        ("Å from the nearest QM atom", errors.mm_distances),
        ("MM element", errors.mm_elements),
    ):
        rows = [[share.name, str(share.atoms), *_cells(share)] for share in shares]
        lines += [*_table([head, "atoms in all frames", *METHOD_TITLES.values()], rows), ""]
    return lines


def _cells(share: Share) -> list[str]:
    return [_pair(mae, rmse) for mae, rmse in zip(share.mae, share.rmse, strict=True)]


def _pair(mae: float, rmse: float) -> str:
    return f"{mae:.3g} ({rmse:.3g})"


def _worst(errors: ModelErrors) -> list[str]:
    head = ["frame", "file", "source", "energy / kcal/mol", "QM gradient / kcal/mol/Å", "MM gradient"]
    rows = []
    for frame in errors.worst(_WORST):
        new, old = (
            [f"{frame.energy[k]:+.3g}", f"{frame.qm_gradient[k]:.3g}", f"{frame.mm_gradient[k]:.3g}"]
            for k in (1, 0)
        )
        rows.append([*_place(frame), *(f"{a} ({b})" for a, b in zip(new, old, strict=True))])
    return [
        "By the largest of the three errors, each relative to its RMS over all frames: with the models (low "
        "level alone), of gradients the RMS over components. Frames count from 0 in their file.",
        "",
        *_table(head, rows),
    ]


def _place(frame: FrameErrors) -> list[str]:
    return [str(frame.number), frame.file, _escaped(frame.source)]


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def _outside(errors: ModelErrors) -> list[str]:
    known = [frame for frame in errors.frames if frame.extrapolation is not None]
    if not known:
        return ["The models do not know the descriptor ranges of their training: this was not looked at."]
    beyond = sorted((f for f in known if f.outside), key=lambda f: -max(f.extrapolation or ()))
    atoms = sum(len(frame.extrapolation or ()) for frame in known)
    count = sum(len(frame.outside) for frame in beyond)
    lines = [
        f"{count} of {atoms} QM atoms, in {len(beyond)} of {len(known)} frames, lie beyond the descriptor "
        "ranges of the training (`delta_extrapolation` above 1); the farthest of all is at "
        f"{max(max(frame.extrapolation or ()) for frame in known):.2f}."
    ]
    if not beyond:
        return lines
    rows = []
    for frame in beyond[:_WORST]:
        listed = ", ".join(f"{atom} ({(frame.extrapolation or ())[atom]:.2f})" for atom in frame.outside)
        rows.append([*_place(frame), listed])
    if len(beyond) > _WORST:
        lines[0] += f" The farthest {_WORST}:"
    return [*lines, "", *_table(["frame", "file", "source", "QM atoms, from 0 (distance)"], rows)]


def _trust(found: Reliability) -> str:
    if not found.compared:
        return NOTHING_COMPARED
    energy, force = found.calibration.energy, found.calibration.force
    return (
        f"The spread of the models, times {energy:.3g} for energies and {force:.3g} for forces, has the mean "
        f"square of the errors on these frames. {verdict(found.judgement, found.inside())}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [table_row(head), table_row(["---"] * len(head)), *(table_row(row) for row in rows)]


def _json(
    errors: ModelErrors, title: str, facts: Sequence[tuple[str, str]], notes: Sequence[str]
) -> dict[str, Any]:
    found = errors.reliability
    return {
        "title": title,
        "facts": dict(facts),
        "notes": list(notes),
        "units": _ABOUT,
        "errors": {name: asdict(summary) for name, summary in errors.summary.items()},
        "trajectories": [asdict(each) for each in errors.trajectories],
        "qm_gradient_by_element": [asdict(share) for share in errors.qm_elements],
        "mm_gradient_by_distance": [asdict(share) for share in errors.mm_distances],
        "mm_gradient_by_element": [asdict(share) for share in errors.mm_elements],
        "frames": [asdict(frame) | {"outside": frame.outside} for frame in errors.frames],
        "worst": [[frame.file, frame.number] for frame in errors.worst(_WORST)],
        "spread": None
        if found is None
        else {
            "calibration": asdict(found.calibration) if found.compared else None,
            "energies_inside": found.inside(),
            "forces_inside": found.forces_inside(),
            "judgement": None if found.judgement is None else asdict(found.judgement),
        },
    }
