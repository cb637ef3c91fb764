"""Free energy along the transfer coordinate, from the biased runs ``classical.xml`` and ``quantum.xml``.

    python free_energy.py

Each snapshot counts with exp(w / k_B T), which takes the bias w away: w acts on the centroid of the ring
polymer, so that the weight needs nothing else. The free energy of the beads, -k_B T ln p, is what nuclei in
quantum statistics have at delta; that of the centroid is the one of quantum transition-state theory. The
molecule is symmetric, so delta and -delta are counted together. Errors are those of a jackknife over blocks
of the runs. The script writes ``free-energy.json`` and ``free-energy.svg`` beside itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bias import gaussian, transfer_coordinate
from matplotlib.axes import Axes

from pidelta.analysis.plots import new_figure
from pidelta.analysis.run_files import RunFiles
from pidelta.ipi.outputs import read_outputs
from pidelta.ipi.protocol import read_parameters
from pidelta.ipi.xml_input import read_xml
from pidelta.state import FloatArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

FOLDER = Path(__file__).parent
BLOCKS = 10
SETTLING = 0.05
EDGES = np.linspace(0.0, 1.2, 21)  # of |delta| in angstrom
MIDDLES = 0.5 * (EDGES[1:] + EDGES[:-1])


@dataclass(frozen=True)
class Samples:
    """What a run says of the coordinate.

    Attributes:
        beads, centroid: delta in bohr, (n, P) and (n,).
        log_weights: (n,) what undoes the bias.
        temperature: k_B T in hartree.
    """

    beads: FloatArray
    centroid: FloatArray
    log_weights: FloatArray
    temperature: float

    @property
    def crossings(self) -> int:
        """How often the centroid goes from one oxygen, at least 0.3 angstrom nearer, to the other."""
        side = np.sign(self.centroid[np.abs(self.centroid) * BOHR_IN_ANGSTROM > 0.3])
        return int(np.count_nonzero(np.diff(side)))


@dataclass(frozen=True)
class Profile:
    """A free energy in kcal/mol in the bins, zero at its minimum, nan in empty ones; its barrier; errors."""

    values: FloatArray
    errors: FloatArray
    barrier: float
    barrier_error: float


def read_run(path: Path) -> Samples:
    """The samples of one run, without its beginning."""
    system = read_outputs(path).systems[0]
    parameters = read_parameters(read_xml(path).findtext("ffdirect/parameters", ""))
    atoms = np.array([int(parameters[name]) for name in ("first", "hydrogen", "second")])
    frames = RunFiles(system).frames("positions")
    if frames is None or system.temperature is None:
        raise SystemExit(f"{path}: expected positions and a temperature, found none")
    positions = np.array([snapshot.values for snapshot in frames.stream(atoms)])
    positions = positions[int(SETTLING * len(positions)) :]
    centroid = transfer_coordinate(positions.mean(axis=1), 0, 1, 2)
    bias = gaussian(centroid, float(parameters["height"]), float(parameters["width"]))
    delta = transfer_coordinate(positions, 0, 1, 2)
    return Samples(delta, centroid, bias / system.temperature, system.temperature)


def free_energy(delta: FloatArray, samples: Samples) -> Profile:
    """The profile along |delta| (n, P) in bohr, with jackknife errors."""
    weights = np.exp(samples.log_weights - samples.log_weights.max())
    blocks = np.array_split(np.arange(len(delta)), BLOCKS)
    counts = np.array([_histogram(delta[block], weights[block]) for block in blocks])
    values = _profile(counts.sum(axis=0), samples.temperature)
    left_out = np.array([_profile(counts.sum(axis=0) - one, samples.temperature) for one in counts])
    spread = np.sqrt((BLOCKS - 1) * left_out.var(axis=0))
    return Profile(values, spread, float(values[0]), float(spread[0]))


def _histogram(delta: FloatArray, weights: FloatArray) -> FloatArray:
    repeated = np.broadcast_to(weights[:, None], delta.shape)
    counts, _ = np.histogram(np.abs(delta) * BOHR_IN_ANGSTROM, bins=EDGES, weights=repeated)
    return np.asarray(counts)


def _profile(counts: FloatArray, temperature: float) -> FloatArray:
    values = -temperature * HARTREE_IN_KCAL_PER_MOL * np.log(np.where(counts > 0.0, counts, np.nan))
    return np.asarray(values - np.nanmin(values))


def main() -> None:
    """Print the barriers and write the table and the picture."""
    classical, quantum = read_run(FOLDER / "classical.xml"), read_run(FOLDER / "quantum.xml")
    profiles = {
        "classical": free_energy(classical.beads, classical),
        "quantum, beads": free_energy(quantum.beads, quantum),
        "quantum, centroid": free_energy(quantum.centroid[:, None], quantum),
    }
    print(f"crossings: {classical.crossings} classical, {quantum.crossings} quantum")
    figure = new_figure(5.0, 3.6)
    axes = figure.subplots()
    for name, profile in profiles.items():
        print(f"{name}: barrier {profile.barrier:.2f} ± {profile.barrier_error:.2f} kcal/mol")
        draw(axes, name, profile)
    axes.set(
        xlabel="d(O1-H) - d(O2-H) / Å", ylabel="free energy / kcal/mol", xlim=(-1.0, 1.0), ylim=(-0.3, 9.0)
    )
    axes.legend(frameon=False)
    figure.savefig(FOLDER / "free-energy.svg")
    content = {
        name: {
            "barrier": [round(p.barrier, 3), round(p.barrier_error, 3)],
            "delta": MIDDLES.round(3).tolist(),
            "free energy": [round(v, 3) if np.isfinite(v) else None for v in p.values],
            "error": [round(v, 3) if np.isfinite(v) else None for v in p.errors],
        }
        for name, p in profiles.items()
    }
    (FOLDER / "free-energy.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def draw(axes: Axes, name: str, profile: Profile) -> None:
    """One profile on both sides, with a band of one standard error."""
    delta = np.concatenate([-MIDDLES[::-1], MIDDLES])
    values, errors = (np.concatenate([v[::-1], v]) for v in (profile.values, profile.errors))
    line = axes.plot(delta, values, label=name)[0]
    axes.fill_between(delta, values - errors, values + errors, color=line.get_color(), alpha=0.25, lw=0)


if __name__ == "__main__":
    main()
