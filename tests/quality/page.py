"""The page of the quality report: Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dft import SETTINGS
from measure import Measurement, summary
from molecules import Molecules
from nve import DURATION, TEMPERATURE, TIME_STEP
from reference import Reference

# Of each row of the summary: its unit, the decimals, and what is asked of the third-order set.
ROWS: dict[str, tuple[str, int, str]] = {
    "gradient, neutral molecules": ("eV/Å", 3, "≤ 0.17"),
    "gradient, ions": ("eV/Å", 3, "≤ 0.17"),
    "gradient, S and Cl": ("eV/Å", 3, "≤ 0.17"),
    "energy, neutral molecules": ("kcal/mol", 2, ""),
    "energy, ions": ("kcal/mol", 2, ""),
    "bonds, neutral molecules": ("Å", 4, "≤ 0.006"),
    "bonds, ions": ("Å", 4, "≤ 0.006"),
    "bonds, S and Cl": ("Å", 4, "≤ 0.006"),
    "angles": ("°", 2, ""),
    "dipole, magnitude": ("D", 2, ""),
    "dipole, vector": ("D", 2, ""),
    "charges": ("e", 3, ""),
    "isomers and conformers": ("kcal/mol", 2, ""),
    "water dimer, binding": ("kcal/mol", 2, "within 0.3"),
    "water dimer, O-O": ("Å", 3, "within 0.05"),
    "angles at N, N-methylacetamide": ("°", 1, "> 358"),
    "angles at N, formamide": ("°", 1, "> 358"),
    "malonaldehyde barrier": ("kcal/mol", 2, ""),
    "proton transfer at 2.5 Å": ("kcal/mol", 2, ""),
    "proton transfer at 2.7 Å": ("kcal/mol", 2, ""),
    "frequencies, benzene": ("%", 1, "≤ 5"),
    "frequencies, uracil": ("%", 1, "≤ 5"),
}
_SIGNED = ("water dimer, binding", "water dimer, O-O", "malonaldehyde barrier")

_INTRODUCTION = """# Quality of the built-in Slater-Koster set

The built-in parameters are compared with {dft} without dispersion (water dimer and anions:
{diffuse}). The molecules are not in their training list; that has the neutral forms of most of the ions,
and it has the water dimer and H5O2+, though at other geometries. One number of the fit, the regularisation of
the repulsives, was chosen with the bonds of methyl nitrite in view. All methods run in pidelta's own DFTB
engine{published}.

`python tests/quality/report.py` makes this page, from the DFT data in [reference.json](reference.json), made
by `python tests/quality/reference.py`, and from dynamics whose results it keeps in [nve.json](nve.json). The
molecules are listed in [molecules.yaml](molecules.yaml).
"""

_SUMMARY = """
## Summary

Mean absolute errors, except: signed errors of the water dimer and of the barrier of malonaldehyde, sums of
angles (360° is planar; DFT: {planarity}), relative RMS of frequencies.
The target is for the third-order set, whose gradients should also be better than those of mio and 3ob.

{table}

- gradient, energy: {neutral} neutral molecules of H, C, N, O, {ions} ions and {others} molecules with S or Cl
  (mio has no Cl: those with S alone, also below), for each of them geometries from force-field
  dynamics at {temperature} ({frames} in number); gradient over all components, each molecule with the same
  weight; energies without their mean error of the molecule.
- bonds, angles: the minimum of the method against the DFT minimum, of {minima} of these molecules.
- dipoles (neutral molecules) and charges: Mulliken charges of DFTB at the DFT minimum, against the DFT dipole
  and DFT charges in intrinsic atomic orbitals (Knizia, JCTC 2013, 9, 4834).
- proton transfer: error of the barrier.
"""


def write(
    measurements: Sequence[Measurement], molecules: Molecules, reference: Reference, dynamics: dict[str, dict]
) -> str:
    """The whole page."""
    settings = molecules.settings
    parts = [
        _INTRODUCTION.format(
            dft=f"{SETTINGS.xc}/{SETTINGS.basis}",
            diffuse=settings["diffuse_basis"],
            published="; the published sets mio-1-1 and 3ob-3-1 stand beside it"
            if len(measurements) > 2
            else "",
        ),
        _summary(measurements, molecules, reference),
        _gradients(measurements, molecules),
        _bonds(measurements, molecules),
        _polarity(measurements, molecules),
        _differences(measurements),
        _dimer(measurements),
        _proton_transfer(measurements),
        _frequencies(measurements),
        _dynamics(dynamics, measurements[0].method),
    ]
    return "\n".join(part.strip() + "\n" for part in parts if part)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _summary(measurements: Sequence[Measurement], molecules: Molecules, reference: Reference) -> str:
    columns = [summary(measurement, molecules) for measurement in measurements]
    rows = []
    for name, (unit, digits, target) in ROWS.items():
        if name not in columns[0]:
            continue
        sign = "+" if name in _SIGNED else ""
        figures = [f"{column[name]:{sign}.{digits}f}" for column in columns]
        rows.append([f"{name} / {unit}", *figures, target])
    first = measurements[0]
    dynamics = molecules.settings["dynamics"]
    counts = {len(reference.keys(f"frame/{name}")) for name in first.gradient_errors}
    return _SUMMARY.format(
        table=table(["", *(m.method for m in measurements), "target"], rows),
        planarity=", ".join(f"{name} {dft:.1f}°" for name, (dft, _) in sorted(first.planarity.items())),
        frames=" or ".join(map(str, sorted(counts))),
        neutral=len(set(first.gradient_errors) & set(molecules.neutral)),
        ions=len(set(first.gradient_errors) & set(molecules.ions)),
        others=len(set(first.gradient_errors) & set(molecules.sulfur_chlorine)),
        minima=len(first.bonds),
        temperature=dynamics["temperature"],
    )


def _gradients(measurements: Sequence[Measurement], molecules: Molecules) -> str:
    rows = []
    for name, molecule in molecules.sampled.items():
        if name not in measurements[0].gradient_errors:
            continue
        figures = [
            f"{m.gradient_errors[name]:.3f}" if name in m.gradient_errors else "-" for m in measurements
        ]
        energies = [f"{m.energy_errors[name]:.2f}" if name in m.energy_errors else "-" for m in measurements]
        rows.append([name, f"`{molecule.smiles}`", *map(" ; ".join, zip(figures, energies, strict=True))])
    return f"""
## Gradients and relative energies

Mean absolute errors: gradient in eV/Å ; relative energy in kcal/mol.

![Gradients](pictures/gradients.png)

{table(["molecule", "SMILES", *(m.method for m in measurements)], rows)}
"""


def _bonds(measurements: Sequence[Measurement], molecules: Molecules) -> str:
    rows = []
    for name in molecules.sampled:
        if name in measurements[0].bonds:
            figures = []
            for m in measurements:
                if name not in m.bonds:
                    figures.append("-")
                    continue
                bonds, angles = np.abs(m.bonds[name].errors), np.abs(m.angles[name].errors)
                figures.append(f"{bonds.mean():.4f} ; {bonds.max():.3f} ; {angles.mean():.1f}")
            rows.append([name, *figures])
    by_kind = []
    for kind in measurements[0].bond_kinds:
        errors = [m.bond_errors(kind) for m in measurements]
        figures = [f"{e.mean():+.4f} ; {np.abs(e).mean():.4f}" if len(e) else "-" for e in errors]
        by_kind.append([kind, str(len(errors[0])), *figures])
    header = [m.method for m in measurements]
    return f"""
## Bond lengths and angles of minima

Errors of bond lengths by element, in Å: mean ; mean absolute. In the picture, each point is a bond, lines are
means, and crosses at the edge are bonds beyond it.

![Bonds](pictures/bonds.png)

{table(["bond", "number", *header], by_kind)}

Mean absolute error of bonds in Å ; largest error of a bond in Å ; mean absolute error of angles in degrees.

{table(["molecule", *header], rows)}
"""


def _polarity(measurements: Sequence[Measurement], molecules: Molecules) -> str:
    first = measurements[0]
    rows = []
    for name in molecules.sampled:
        if name not in first.charge_errors:
            continue
        dft = f"{first.dipoles[name][0]:.2f}" if name in first.dipoles else "-"
        figures = []
        for m in measurements:
            dipole = f"{m.dipoles[name][1]:.2f} ; {m.dipoles[name][2]:.2f}" if name in m.dipoles else "- ; -"
            charges = f"{m.charge_errors[name]:.3f}" if name in m.charge_errors else "-"
            figures.append(f"{dipole} ; {charges}")
        rows.append([name, dft, *figures])
    if not rows:
        return ""
    return f"""
## Dipoles and charges

At the DFT minima. Dipole in debye ; length of the difference of the dipole vectors in debye ; mean absolute
difference of the charges in e.

{table(["molecule", "DFT dipole", *(m.method for m in measurements)], rows)}
"""


def _differences(measurements: Sequence[Measurement]) -> str:
    rows = [
        [
            f"{first} → {second}",
            f"{dft:+.2f}",
            *(f"{m.differences[first, second][1]:+.2f}" for m in measurements),
        ]
        for (first, second), (dft, _) in measurements[0].differences.items()
    ]
    if not rows:
        return ""
    return f"""
## Isomers and conformers

Energy of the second minimum less that of the first, in kcal/mol, each method at its own minima.

{table(["", "DFT", *(m.method for m in measurements)], rows)}
"""


def _dimer(measurements: Sequence[Measurement]) -> str:
    rows = []
    for name, key, form in (("energy / (kcal/mol)", "energy", ".2f"), ("O-O / Å", "separation", ".3f")):
        dft = measurements[0].dimer_minimum[key][0]
        rows.append([name, f"{dft:{form}}", *(f"{m.dimer_minimum[key][1]:{form}}" for m in measurements)])
    return f"""
## Water dimer

Minimum: energy against two relaxed molecules, without counterpoise correction. Curve: the molecules rigid, as
in the DFT minimum, moved along the line of the oxygens.

{table(["minimum", "DFT", *(m.method for m in measurements)], rows)}

![Water dimer](pictures/water-dimer.png)
"""


def _proton_transfer(measurements: Sequence[Measurement]) -> str:
    first = measurements[0]
    rows = []
    if first.barrier:
        rows.append(
            ["malonaldehyde", f"{first.barrier[0]:.2f}", *(f"{m.barrier[1]:.2f}" for m in measurements)]
        )
    for separation, profile in sorted(first.zundel.items()):
        heights = [
            p[0] - p.min() for p in (profile.reference, *(m.zundel[separation].found for m in measurements))
        ]
        rows.append([f"H5O2+, O-O {separation} Å", *(f"{height:.2f}" for height in heights)])
    return f"""
## Proton transfer

Barriers in kcal/mol. Malonaldehyde: the stationary point that a symmetry exchanging the oxygens leaves alone,
against the minimum. H5O2+: all atoms but the shared proton are fixed, symmetric; 0 means that the proton is
lowest in the middle, and the lowest of the points in the picture stands for the minimum.

{table(["", "DFT", *(m.method for m in measurements)], rows)}

![Proton transfer](pictures/proton-transfer.png)
"""


def _frequencies(measurements: Sequence[Measurement]) -> str:
    names = sorted(measurements[0].vibrations)
    if not names:
        return ""
    rows = []
    for name in names:
        figures = []
        for m in measurements:
            errors = 100.0 * m.vibrations[name].relative_errors
            figures.append(
                f"{100.0 * m.vibrations[name].rms:.1f} ; {errors.mean():+.1f} ; {np.abs(errors).max():.1f}"
            )
        rows.append([name, *figures])
    return f"""
## Harmonic frequencies

Each method at its own minimum, modes paired in the order of their wavenumber, those above 100 cm⁻¹. Relative
errors in %: RMS ; mean ; largest.

{table(["molecule", *(m.method for m in measurements)], rows)}

![Frequencies](pictures/frequencies.png)
"""


def _dynamics(results: dict[str, dict], method: str) -> str:
    if not results:
        return ""
    rows = [
        [name, f"{r['drift']:+.1e}", f"{r['fluctuation']:.1e}", f"{r['temperature']:.0f}"]
        for name, r in results.items()
    ]
    return f"""
## Energy conservation

{method}, velocity Verlet for {DURATION:g} ps with steps of {TIME_STEP} fs from the minimum, aimed at
{TEMPERATURE:g} K (`python tests/quality/report.py --nve`). Drift: slope of the total energy; fluctuation: its
standard deviation about that line.

{table(["molecule", "drift / (meV/atom/ps)", "fluctuation / (meV/atom)", "mean temperature / K"], rows)}
"""
