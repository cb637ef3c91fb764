"""Which level of theory for the labels? Cost and errors of some on a few frames, beside a large-basis hybrid.

``python levels.py FRAMES.h5`` computes what ``levels.json`` lacks and writes ``levels.md``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from pidelta.data.store import FrameStore
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

FOLDER = Path(__file__).parent
FRAMES = (0, 1, 2, 5)
JFIT = "def2-universal-jfit"  # is enough without exact exchange
GRID = 2  # as for all, where it is 3 by default
BEST = "wB97M-D3(BJ)/def2-TZVPPD"
LEVELS = {
    "PBE-D3(BJ)/def2-SVP": ReferenceSettings("PBE", auxiliary_basis=JFIT, dispersion="d3bj"),
    "r2SCAN-D4/def2-SVP": ReferenceSettings("r2SCAN", None, JFIT, GRID, dispersion="d4"),
    "B3LYP-D3(BJ)/def2-SVP": ReferenceSettings("B3LYP", dispersion="d3bj"),
    "PBE0-D3(BJ)/def2-SVP": ReferenceSettings("PBE0", dispersion="d3bj"),
    "wB97X-D3(BJ)/def2-SVP": ReferenceSettings("wB97X_V", dispersion="d3bj"),
    BEST: ReferenceSettings("wB97M_V", "def2-TZVPPD", dispersion="d3bj"),
    "r2SCAN-3c": ReferenceSettings("r2SCAN-3c", None, JFIT, GRID),
    "r2SCAN-D4/def2-TZVP": ReferenceSettings("r2SCAN", "def2-TZVP", JFIT, GRID, dispersion="d4"),
    "B3LYP-D3(BJ)/def2-TZVP": ReferenceSettings("B3LYP", "def2-TZVP", dispersion="d3bj"),
    "PBE0-D3(BJ)/def2-TZVP": ReferenceSettings("PBE0", "def2-TZVP", dispersion="d3bj"),
}

FINDINGS = """
- The basis decides: with def2-SVP no functional comes within 5 kcal/mol/Å of the reference, with def2-TZVP
  all do, at three times the cost.
- r2SCAN-3c, with a basis of its own, lies between in energy and QM gradient, and is as near as def2-TZVP in
  dipole and gradient on charges, at about twice the cost of def2-SVP: its seconds are of a later day, when
  r2SCAN-D4/def2-SVP took 7 for the first frame, not 9.
- r2SCAN is noisy on this grid, level 2 at rest: up to 1e-3 hartree/bohr on heavy atoms, 0.3 kcal/mol/Å in the
  mean, ten times as much as the others by the net force. Level 3 costs a tenth more; the first frame of
  r2SCAN-3c comes from 3.99 to 3.88 kcal/mol/Å. `pidelta label` takes level 3 for r2SCAN by default.
- With either basis B3LYP is the nearest in the QM gradient, and no dearer than the others.
- The labels of this study are B3LYP-D3(BJ)/def2-SVP: 10 s instead of 30 s a frame. The study asks how well
  models learn, which a better level would not change. For results to publish take `--basis def2-TZVP`, whose
  errors are a fifth to two fifths of these.
"""


def compute(frames: Path, found: dict[str, dict]) -> None:
    """Label each frame at each level, and keep what came out in the file of results."""
    with FrameStore(frames) as store:
        chosen = {str(index): store.frame(index) for index in FRAMES}
    for index, frame in chosen.items():
        for name, settings in LEVELS.items():
            if index in found.setdefault(name, {}):
                continue
            start = time.process_time()
            label = label_frame(frame, settings)
            found[name][index] = {
                "seconds": round(time.process_time() - start, 1),
                "energy": label.energy,
                "gradient": label.gradient.round(6).tolist(),
                "site_gradient": label.site_gradient.round(6).tolist(),
                "dipole": label.properties["dipole"].round(5).tolist(),
            }
            print(f"frame {index}, {name}: {found[name][index]['seconds']} s", flush=True)
            (FOLDER / "levels.json").write_text(json.dumps(found), encoding="utf-8")


def write_page(found: dict[str, dict]) -> None:
    """The table, over the frames that a level and the best one share."""
    best = found.get(BEST, {})
    lines = [
        "# Which level of theory for the labels?",
        "",
        f"Uracil in the point charges of {len(best)} frames of `uracil/train.h5`, beside {BEST}, a level",
        "like that of the SPICE set (Eastman et al., Sci. Data 10, 11 (2023)). Energies are less their mean;",
        "near charges are those with a gradient above 1e-3 hartree/bohr. Seconds are CPU time beside",
        "other work. `python levels.py uracil/train.h5`",
        "",
        "| level | seconds a frame | energy, MAE / kcal/mol | QM gradient, MAE / kcal/mol/Å |"
        " dipole, MAE / D | gradient on near charges, MAE / kcal/mol/Å |",
        "|---|---|---|---|---|---|",
    ]
    unit = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
    for name, rows in found.items():
        shared = [index for index in rows if index in best]
        if not shared:
            continue
        seconds = np.mean([rows[index]["seconds"] for index in shared])

        def difference(what: str, shared: list[str] = shared, rows: dict = rows) -> list[np.ndarray]:
            return [np.array(rows[index][what]) - np.array(best[index][what]) for index in shared]

        energies = np.array(difference("energy")) * HARTREE_IN_KCAL_PER_MOL
        strongest = [np.abs(np.array(best[index]["site_gradient"])).max(axis=1) > 1e-3 for index in shared]
        near = np.concatenate(
            [change[mask] for change, mask in zip(difference("site_gradient"), strongest, strict=True)]
        )
        cells = (
            f"{seconds:.0f}",
            f"{np.abs(energies - energies.mean()).mean():.2f}",
            f"{np.abs(difference('gradient')).mean() * unit:.2f}",
            f"{np.abs(difference('dipole')).mean() * 2.541746:.3f}",
            f"{np.abs(near).mean() * unit:.3f}",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (FOLDER / "levels.md").write_text("\n".join(lines) + "\n" + FINDINGS, encoding="utf-8")


def main() -> None:
    path = FOLDER / "levels.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if len(sys.argv) > 1:
        compute(Path(sys.argv[1]), found)
    write_page({name: found[name] for name in LEVELS if name in found})


if __name__ == "__main__":
    main()
