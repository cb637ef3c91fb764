"""Free energy along the distance of the sulfonium's methyl carbon to N3 of cytosine, by umbrella sampling.

    python umbrella.py run FOLDER dftb     the windows one after the other; goes on where it was stopped
    python umbrella.py run FOLDER delta    the same with the delta models, each from the end of DFTB's window
    python umbrella.py cut FOLDER delta    frames of each window, FOLDER/delta/frames.h5, to label
    pidelta label FOLDER/delta/frames.h5 --xc PBE --dispersion d3bj
    pidelta label FOLDER/delta/frames.h5 --low sampling.yaml
    python umbrella.py page FOLDER         umbrella.md, .json and .png beside this script

Hydrogen atoms weigh 4 Da, so that the quantum mechanical terms, of which none is split, last 2 fs: the free
energy of classical atoms knows no masses. In vacuum SAM is a zwitterion whose SCC does not converge: terms
such as low.vacuum of their own are not for it.

A window has a spring k on the distance d. At its mean the free energy has the slope k (d0 - <d>) (Kaestner
and Thiel, J. Chem. Phys. 123, 144104 (2005)). 2 k_B T / d is added, which takes away that a larger distance
has a larger sphere. The sum, the slope of the potential of mean force, is integrated by the trapezoidal rule.
Errors are those of the means; what the rule itself misses between the windows is not in them.

The slope of a method's free energy is also the mean slope of its energy when cytosine moves away as a whole.
So labels of frames say in two ways what the potential of mean force by DFT would be. By slopes: less the mean
difference of that slope in the same frames; that DFT would see other frames is neglected. By energies: less
the mean difference of energies in a window, the first order of Zwanzig (J. Chem. Phys. 22, 1420 (1954));
whatever windows differ in besides the distance counts, too. Where windows are long and differences small both
are the same. Errors of such means come from the spread within windows, pooled over all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from ipi.utils.units import Elements

from pidelta.analysis.ipi_output import read_properties
from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy
from pidelta.analysis.statistics import Mean, mean_with_error
from pidelta.data.frames import LabelledFrame
from pidelta.data.labelled import read_labelled
from pidelta.delta.committee import Committee
from pidelta.delta.files import models_digest
from pidelta.delta.loading import load_correction
from pidelta.ipi.trajectories import read_names, read_trajectory
from pidelta.state import FloatArray
from pidelta.units import BOHR_IN_ANGSTROM, DALTON_IN_ELECTRON_MASS, HARTREE_IN_KCAL_PER_MOL

FOLDER = Path(__file__).parent
METHODS = {"dftb": "DFTB", "delta": "DFTB + delta"}
CARBON, NITROGEN = 0, 52  # atoms from 0
CYTOSINE = slice(50, 63)
# Angstrom. The box starts at 5.5: the windows go inward from there, and then outward.
DISTANCES = (5.4, 4.8, 4.3, 3.8, 3.4, 3.1, 6.0, 6.6)
OUTWARD = 6.0  # starts where the first window ended
STIFFNESS = 15.0  # kcal/mol/angstrom^2
TIME_STEP = 4e-3  # ps, of the smooth terms
HYDROGEN = 4.0  # Da
LENGTH, SETTLING = 6.0, 1.0  # ps
KT = 300.0 * 1.987204259e-3  # kcal/mol
FRAMES = 4  # of each window, to label
ABOUT = (
    f"Windows of {LENGTH:g} ps at 300 K, DFTB's one after the other, those of the models each from the end "
    f"of DFTB's at that distance, the first {SETTLING:g} ps of each left out; "
    f"springs of {STIFFNESS:g} kcal/mol/Å². Errors are from blocks: what is slower than a window, as turns "
    "of the molecules, is not in them. What DFT makes of it, from differences in labelled frames, is as good "
    "as its two ways agree. Made by `umbrella.py`, which explains how."
)
SLOPE, ENERGY = 0, 1
FORCE = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
_WINDOW = re.compile(r"/(\d\.\d)/umbrella")


@dataclass(frozen=True)
class Window:
    """What a window says.

    Attributes:
        distance: where the spring is at rest, in angstrom.
        mean: the mean distance in angstrom.
    """

    distance: float
    mean: Mean

    @property
    def slope(self) -> Mean:
        """Of the potential of mean force at the mean distance, in kcal/mol/angstrom."""
        slope = STIFFNESS * (self.distance - self.mean.value) + 2.0 * KT / self.mean.value
        return Mean(slope, STIFFNESS * self.mean.error)


def run(folder: Path, method: str, distances: list[float]) -> None:
    """Run the windows that are missing, or go on with the one that was stopped."""
    if method == "delta":
        refuse_other_models(folder / method / "models")
    for distance in distances or DISTANCES:
        place = folder / method / f"{distance:.1f}"
        place.mkdir(parents=True, exist_ok=True)
        if (place / "done").exists():
            continue
        before = start_of(folder, method, distance)
        if before is not None and not (before / "done").exists():
            raise SystemExit(f"{place}: expected the window {before}, from whose end it starts, found none")
        start = (
            f"<file mode='pdb'> {FOLDER / 'init.pdb'} </file> {masses()}"
            "<velocities mode='thermal' units='kelvin'> 300 </velocities>"
            if before is None
            else f"<file mode='chk'> {before / 'RESTART'} </file>"
        )
        text = Template((FOLDER / "umbrella.xml").read_text(encoding="utf-8")).substitute(
            name=f"sam-cytosine-{method}-{distance:.1f}",
            steps=round(LENGTH / TIME_STEP),
            seed=30201 + DISTANCES.index(distance),
            quantum="low+delta" if method == "delta" else "low",
            restraint=FOLDER / "restraint.py",
            first=CARBON,
            second=NITROGEN,
            distance=distance / BOHR_IN_ANGSTROM,
            stiffness=STIFFNESS / HARTREE_IN_KCAL_PER_MOL * BOHR_IN_ANGSTROM**2,
            start=start,
        )
        (place / "input.xml").write_text(text, encoding="utf-8")
        again = ["--restart"] if (place / "RESTART").exists() else []
        terms = "mm+low+delta" if method == "delta" else "mm+low"
        command = [sys.executable, "-m", "pidelta", "run", str(place / "input.xml"), *again]
        command += ["--config", str(FOLDER / "pidelta.yaml"), "--terms", terms, "--clients", "1"]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{place}: the run has not ended; the same command goes on with it")
        (place / "done").touch()


def start_of(folder: Path, method: str, distance: float) -> Path | None:
    """The window at whose end another starts, or None for the equilibrated box.

    DFTB's go inward and outward from the box. Models start where DFTB was at the same distance, if it was
    there: how the molecules are turned, which no window averages, is then not what the two differ by.
    """
    cheaper = folder / "dftb" / f"{distance:.1f}"
    if method == "delta" and (cheaper / "done").exists():
        return cheaper
    number = DISTANCES.index(distance)
    if number == 0:
        return None
    return folder / method / f"{DISTANCES[0 if distance == OUTWARD else number - 1]:.1f}"


def refuse_other_models(path: Path) -> None:
    """See that all windows of a folder are by the same models, whose digest a file keeps."""
    digest = models_digest(shipped())
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != digest:
        raise SystemExit(f"{path}: expected the models {digest}, found windows by others: take a new folder")
    path.write_text(digest, encoding="utf-8")


def shipped() -> list[Path]:
    """The models beside this script."""
    return sorted(FOLDER.glob("delta-*.pt"))


def masses() -> str:
    """The element of the input with the masses of all atoms."""
    names = read_names(FOLDER / "init.pdb", "pdb")
    values = [HYDROGEN if name == "H" else Elements.mass(name) / DALTON_IN_ELECTRON_MASS for name in names]
    listed = ", ".join(f"{value:.4f}" for value in values)
    return f"<masses mode='manual' units='dalton'> [{listed}] </masses>"


def cut(folder: Path, method: str) -> None:
    """Frames to label, evenly spaced in the settled part of each window."""
    for distance in DISTANCES:
        (path,) = (folder / method / f"{distance:.1f}").glob("umbrella.pos_*.xyz")
        count = sum(1 for _ in read_trajectory(path))
        first = round(SETTLING / LENGTH * count)
        for place in range(FRAMES):
            skip = first + (place + 1) * (count - first) // FRAMES - 1
            command = [sys.executable, "-m", "pidelta", "sample", str(FOLDER / "sampling.yaml"), str(path)]
            command += ["--skip", str(skip), "--limit", "1", "--output"]
            subprocess.run([*command, str(folder / method / "frames.h5")], check=True)


def windows(folder: Path) -> list[Window]:
    """Those of a method that have run, by distance."""
    found = []
    for distance in sorted(DISTANCES):
        path = folder / f"{distance:.1f}" / "umbrella.out"
        if not (path.parent / "done").exists():
            continue
        columns = read_properties(path).columns
        vectors = columns[f"atom_x(atom={NITROGEN})"] - columns[f"atom_x(atom={CARBON})"]
        distances = np.linalg.norm(vectors, axis=1) * BOHR_IN_ANGSTROM
        mean = mean_with_error(distances[round(SETTLING / TIME_STEP) :])
        if np.isnan(mean.error):
            raise SystemExit(f"{path}: expected more than {SETTLING} ps of steps, found too few for an error")
        found.append(Window(distance, mean))
    return found


def potential(places: FloatArray, slopes: list[Mean]) -> tuple[FloatArray, FloatArray]:
    """The potential of mean force at distances, zero at the farthest, and its errors, in kcal/mol."""
    means = np.array([slope.value for slope in slopes])
    variances = np.array([slope.error for slope in slopes]) ** 2
    steps = np.diff(places)
    values = np.append(-np.cumsum((0.5 * steps * (means[1:] + means[:-1]))[::-1])[::-1], 0.0)
    errors = np.zeros_like(values)
    for k in range(len(values)):
        # of the trapezoidal rule from k to the end
        weights = np.zeros(len(values))
        weights[k:-1] += 0.5 * steps[k:]
        weights[k + 1 :] += 0.5 * steps[k:]
        errors[k] = np.sqrt(weights**2 @ variances)
    return values, errors


def difference_from_dft(item: LabelledFrame, committee: Committee) -> FloatArray:
    """How far a frame is from DFT, (2, 2) by DFTB and by DFTB + delta.

    Returns:
        Of each the slope of the energy when cytosine moves away, in kcal/mol/angstrom, and the energy in
        kcal/mol.
    """
    vector = item.frame.positions[NITROGEN] - item.frame.positions[CARBON]
    direction = vector / np.linalg.norm(vector)
    delta = committee.evaluate(item.frame.region)

    def of(energy: float, gradient: FloatArray) -> FloatArray:
        along = FORCE * (gradient - item.reference.gradient)[CYTOSINE].sum(axis=0) @ direction
        return np.array([along, HARTREE_IN_KCAL_PER_MOL * (energy - item.reference.energy)])

    low = item.low
    return np.array(
        [
            of(low.energy, low.gradient),
            of(low.energy + delta.energy[0], low.gradient + delta.gradient.positions[0]),
        ]
    )


@dataclass(frozen=True)
class Profile:
    """What a method says of the windows, and what DFT says of that.

    Attributes:
        method: its name in METHODS.
        found: its windows by distance.
        away: by window, (n, 2, 2) its labelled frames less DFT: see `difference_from_dft`.
    """

    method: str
    found: list[Window]
    away: dict[float, FloatArray]

    @property
    def places(self) -> FloatArray:
        return np.array([window.mean.value for window in self.found])

    def potential(self) -> tuple[FloatArray, FloatArray]:
        """Of mean force, and its errors, in kcal/mol."""
        return potential(self.places, [window.slope for window in self.found])

    def dft(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        """The same by DFT, in two ways; none where a window has no labelled frames."""
        if list(self.away) != [window.distance for window in self.found]:
            return {}
        column = list(METHODS).index(self.method)
        slopes, energies = (window_means(self.away, column, kind) for kind in (SLOPE, ENERGY))
        values, errors = self.potential()
        shift = np.array([energy.value for energy in energies])
        spread = np.array([energy.error for energy in energies])
        spread = np.append(np.hypot(spread[:-1], spread[-1]), 0.0)
        corrected = [less(window.slope, mean) for window, mean in zip(self.found, slopes, strict=True)]
        return {
            "by slopes": potential(self.places, corrected),
            "by energies": (values - shift + shift[-1], np.hypot(errors, spread)),
        }


def page(folder: Path) -> None:
    """Write the page, its numbers and its picture."""
    profiles = []
    for method in METHODS:
        found, frames = windows(folder / method), folder / method / "frames.h5"
        if len(found) > 1:
            profiles.append(Profile(method, found, away_from_dft(frames) if frames.exists() else {}))
    draw(profiles)
    numbers = {profile.method: _numbers(profile) for profile in profiles}
    (FOLDER / "umbrella.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    lines = ["# Methyl carbon of SAM to N3 of cytosine", "", ABOUT, ""]
    for profile in profiles:
        lines += _table(profile)
    for profile in profiles:
        lines += _against_dft(profile) if profile.away else []
    text = "\n".join(lines)
    (FOLDER / "umbrella.md").write_text(text, encoding="utf-8")
    print(text)


def draw(profiles: list[Profile]) -> None:
    """The picture: what each method says, and what DFT makes of it."""
    figure = new_figure(7.0, 4.0)
    axis = figure.subplots()
    for colour, profile in zip(COLOURS, profiles, strict=False):
        axis.errorbar(
            profile.places,
            *profile.potential(),
            color=colour,
            marker="o",
            capsize=3,
            label=METHODS[profile.method],
        )
        for (way, dft), marker in zip(profile.dft().items(), "s^", strict=False):
            look = {"color": "0.4", "marker": marker, "linestyle": "--", "capsize": 3}
            label = f"DFT {way}, in frames of {METHODS[profile.method]}"
            axis.errorbar(profile.places, *dft, label=label, **look)
    axis.axhline(0.0, color="0.6", linewidth=0.8)
    axis.set_xlabel("distance of the methyl carbon to N3 / Å", fontsize=9)
    axis.set_ylabel("potential of mean force / kcal/mol", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    figure.savefig(FOLDER / "umbrella.png", dpi=DPI)


def _numbers(profile: Profile) -> list[dict[str, float]]:
    columns = {
        "spring": [window.distance for window in profile.found],
        "mean": [window.mean.value for window in profile.found],
        "slope": [window.slope.value for window in profile.found],
        "slope_error": [window.slope.error for window in profile.found],
    }
    columns |= dict(zip(("potential", "potential_error"), profile.potential(), strict=True))
    for way, dft in profile.dft().items():
        name = f"dft_{way.replace(' ', '_')}"
        columns |= dict(zip((name, f"{name}_error"), dft, strict=True))
    rounded = ([round(float(value), 4) for value in row] for row in zip(*columns.values(), strict=True))
    return [dict(zip(columns, row, strict=True)) for row in rounded]


def _table(profile: Profile) -> list[str]:
    columns = {
        "distance / Å": [f"{place:.2f}" for place in profile.places],
        "slope / kcal/mol/Å": [window.slope.shown(".2f") for window in profile.found],
        "potential of mean force / kcal/mol": _shown(*profile.potential()),
    }
    columns |= {f"DFT {way}": _shown(*dft) for way, dft in profile.dft().items()}
    return [
        f"{METHODS[profile.method]}:",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join(row)} |" for row in zip(*columns.values(), strict=True)),
        "",
    ]


def _shown(values: FloatArray, errors: FloatArray) -> list[str]:
    return [f"{value:.2f} ± {error:.2g}" for value, error in zip(values, errors, strict=True)]


def away_from_dft(path: Path) -> dict[float, FloatArray]:
    """By window, in order, (n, 2, 2) its labelled frames less DFT: see `difference_from_dft`."""
    committee = Committee([load_correction(model) for model in shipped()])
    found: dict[float, list[FloatArray]] = {}
    for item in read_labelled([path]).frames:
        match = _WINDOW.search(item.frame.source)
        if match is None:
            raise SystemExit(f"{path}: expected frames of windows, found {item.frame.source!r}")
        found.setdefault(float(match[1]), []).append(difference_from_dft(item, committee))
    return {distance: np.array(values) for distance, values in sorted(found.items())}


def window_means(away: dict[float, FloatArray], method: int, kind: int) -> list[Mean]:
    """Of each window; the spread of its few frames is taken to be that of all windows."""
    columns = [values[:, method, kind] for values in away.values()]
    freedom = sum(len(column) - 1 for column in columns)
    squares = sum(np.sum((column - column.mean()) ** 2) for column in columns)
    spread = np.sqrt(squares / freedom) if freedom else np.nan
    return [Mean(float(column.mean()), float(spread / np.sqrt(len(column)))) for column in columns]


def less(one: Mean, other: Mean) -> Mean:
    """The difference of two that do not know of each other."""
    return Mean(one.value - other.value, float(np.hypot(one.error, other.error)))


def _against_dft(profile: Profile) -> list[str]:
    """How far the labelled frames of a method's windows are from DFT."""
    away = profile.away
    energy = [window_means(away, k, ENERGY) for k in range(len(METHODS))]
    lines = [
        f"Less DFT, in {sum(map(len, away.values()))} frames of windows by "
        f"{METHODS[profile.method]}: the slope of the energy when cytosine moves away, in kcal/mol/Å, mean "
        "and range, and the energy in kcal/mol, mean less that of the last window; models "
        f"{models_digest(shipped())}:",
        "",
        "| spring at / Å | frames | "
        + " | ".join(f"{kind}, {title}" for kind in ("slope", "energy") for title in METHODS.values())
        + " |",
        "|" + "---|" * (2 * len(METHODS) + 2),
    ]
    for place, (distance, values) in enumerate(away.items()):
        slopes = values[:, :, SLOPE].T
        cells = [f"{own.mean():.2f} ({own.min():.1f} to {own.max():.1f})" for own in slopes]
        cells += [f"{means[place].value - means[-1].value:.1f}" for means in energy]
        lines.append(f"| {distance:g} | {len(values)} | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("run", "cut", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("method", choices=METHODS, nargs="?", default="dftb")
    parser.add_argument("--windows", type=float, choices=DISTANCES, nargs="*", default=[], metavar="DISTANCE")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.task == "run":
        run(folder, arguments.method, arguments.windows)
    elif arguments.task == "cut":
        cut(folder, arguments.method)
    else:
        page(folder)


if __name__ == "__main__":
    main()
