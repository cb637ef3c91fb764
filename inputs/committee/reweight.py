"""Averages of bond lengths on each member of a committee, by reweighting a run on their mean.

Run: python reweight.py members

It writes the bond lengths of uracil, a column each and a row a frame, to PREFIX.bonds, which
i-pi-committee-reweight reads. It prints the averages of every model by the cumulant expansion of first
order, which that program uses, and by full reweighting: Imbalzano et al., J. Chem. Phys. 154, 074102 (2021).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import units

BONDS = {"C2=O": (1, 2), "C4=O": (4, 5), "N1-H": (0, 8)}
TEMPERATURE = 300.0 * units.kB / units.Hartree


def bond_lengths(trajectory: Path) -> np.ndarray:
    """Lengths (frames, bonds) in angstrom."""
    frames = ase.io.read(trajectory, ":", format="xyz")
    pairs = np.array(list(BONDS.values()))
    vectors = np.array([frame.positions[pairs[:, 0]] - frame.positions[pairs[:, 1]] for frame in frames])
    return np.linalg.norm(vectors, axis=2)


def cumulant(values: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Averages (members,) of values (frames,): <a> - <a h> + <a> <h>, h = (E_k - mean E) / kT."""
    h = (energies - energies.mean(axis=1, keepdims=True)) / TEMPERATURE
    return values.mean() - values @ h / len(h) + values.mean() * h.mean(axis=0)


def reweighted(values: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Averages (members,) of values (frames,) by the weights exp(-h)."""
    weights = np.exp(-(energies - energies.mean(axis=1, keepdims=True)) / TEMPERATURE)
    return values @ weights / weights.sum(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Reweight bond lengths to each member of a committee.")
    parser.add_argument("prefix", type=Path, help="of the outputs of the run")
    prefix = str(parser.parse_args().prefix)
    lengths = bond_lengths(Path(f"{prefix}.pos_0.xyz"))
    energies = np.loadtxt(f"{prefix}.committee_pot_0")
    np.savetxt(f"{prefix}.bonds", lengths)
    print(
        "bond    mean / A   error of the models   each model, cumulant          each model, full reweighting"
    )
    for name, values in zip(BONDS, lengths.T, strict=True):
        first, full = cumulant(values, energies), reweighted(values, energies)
        members = "   ".join(" ".join(f"{value:.5f}" for value in each) for each in (first, full))
        print(f"{name:6}  {values.mean():.5f}    {first.std():.5f}               {members}")


if __name__ == "__main__":
    main()
