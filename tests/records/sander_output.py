"""What sander writes of a frame; for the scripts that compare with it."""

import numpy as np


def forces_of_sander(folder, step, n_atoms):
    """Energy and forces (N, 3) in kcal/mol and kcal/mol/angstrom, from columns of eight characters."""
    lines = (folder / f"frame-{step}.frc").read_text(encoding="utf-8").splitlines()[1:]
    values = [float(line[i : i + 8]) for line in lines for i in range(0, len(line.rstrip()), 8)]
    output = (folder / f"frame-{step}.out").read_text(encoding="utf-8").splitlines()
    energy = next(float(line.split("=")[-1]) for line in output if "EPtot" in line)
    return energy, np.array(values[: 3 * n_atoms]).reshape(-1, 3)
