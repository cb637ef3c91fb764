"""Build the inputs of this folder: uracil (GAFF) in 900 flexible SPC/Fw waters, equilibrated at 300 K.

Run it as ``python prepare.py`` with the extras ``openmm`` and ``label``; it takes some ten minutes and
writes ``uracil-water.top``, ``uracil-water.gro`` and ``init.pdb`` beside itself.

Sources: GAFF 1.8 (Wang, Wolf, Caldwell, Kollman, Case, J. Comput. Chem. 2004, 25, 1157), SPC/Fw (Wu, Tepper,
Voth, J. Chem. Phys. 2006, 124, 024503), Merz-Kollman charges (Besler, Merz, Kollman, J. Comput. Chem. 1990,
11, 431) at HF/6-31G*.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import openmm
import openmm.app as app
from openmm import unit
from pyscf import gto, scf

FOLDER = Path(__file__).parent
WATERS = 900
TEMPERATURE = 300 * unit.kelvin
SEED = 20211
KCAL = 4.184

# name, element, GAFF type, x and y in angstrom; planar, optimised at HF/6-31G*
URACIL = (
    ("N1", "N", "n", 0.926, -1.234),
    ("C2", "C", "c", 1.257, 0.099),
    ("O2", "O", "o", 2.387, 0.483),
    ("N3", "N", "n", 0.171, 0.934),
    ("C4", "C", "c", -1.175, 0.584),
    ("O4", "O", "o", -2.021, 1.425),
    ("C5", "C", "cc", -1.410, -0.860),
    ("C6", "C", "cd", -0.369, -1.687),
    ("H1", "H", "hn", 1.694, -1.867),
    ("H3", "H", "hn", 0.377, 1.911),
    ("H5", "H", "ha", -2.422, -1.209),
    ("H6", "H", "h4", -0.478, -2.755),
)
BONDED = "N1-C2 C2-O2 C2-N3 N3-C4 C4-O4 C4-C5 C5-C6 C6-N1 N1-H1 N3-H3 C5-H5 C6-H6"
MASSES = {"H": 1.008, "C": 12.011, "N": 14.007, "O": 15.999}
ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8}

# The part of gaff.dat that uracil needs, in its units: kcal/mol, angstrom, degree.
LENNARD_JONES = {  # Rmin/2, epsilon
    "n": (1.8240, 0.1700),
    "c": (1.9080, 0.0860),
    "o": (1.6612, 0.2100),
    "cc": (1.9080, 0.0860),
    "cd": (1.9080, 0.0860),
    "hn": (0.6000, 0.0157),
    "ha": (1.4590, 0.0150),
    "h4": (1.4090, 0.0150),
}
BONDS = {  # K, r0 of K (r - r0)^2
    "c-n": (427.6, 1.3789),
    "c-o": (637.7, 1.2183),
    "c-cc": (371.0, 1.4676),
    "cc-cd": (500.9, 1.3729),
    "cd-n": (425.1, 1.3807),
    "hn-n": (403.2, 1.0129),
    "cc-ha": (349.1, 1.0837),
    "cd-h4": (352.0, 1.0817),
}
ANGLES = {  # K, theta0 of K (theta - theta0)^2
    "n-c-n": (72.90, 113.56),
    "n-c-o": (74.22, 123.05),
    "c-n-c": (63.74, 127.08),
    "c-n-cd": (64.68, 123.27),
    "c-n-hn": (48.33, 117.55),
    "cd-n-hn": (47.92, 119.26),
    "cc-c-n": (69.07, 112.70),
    "cc-c-o": (69.14, 123.93),
    "c-cc-cd": (65.09, 121.35),
    "c-cc-ha": (46.92, 116.64),
    "cd-cc-ha": (48.54, 121.76),
    "cc-cd-n": (68.94, 121.33),
    "cc-cd-h4": (47.27, 128.48),
    "h4-cd-n": (50.81, 115.69),
}
TORSIONS = {  # by the central bond: barrier / number of paths, periodicity 2, phase 180
    "c-n": 10.0 / 4,
    "c-cc": 11.5 / 4,
    "cc-cd": 16.0 / 4,
    "cd-n": 6.6 / 4,
}
TORSION_HN_N_C_O = ((180.0, 2.5, 2), (0.0, 2.0, 1))  # replaces the general one for this sequence
IMPROPERS = (  # the third atom is the central one; 1.1 at C5 and C6 is the general value of parmchk
    ("C2", "C6", "N1", "H1", 1.1),
    ("C2", "C4", "N3", "H3", 1.1),
    ("N1", "N3", "C2", "O2", 10.5),
    ("C5", "N3", "C4", "O4", 10.5),
    ("C4", "C6", "C5", "H5", 1.1),
    ("C5", "N1", "C6", "H6", 1.1),
)

WATER = """\
[ moleculetype ]
; flexible SPC/Fw: Wu, Tepper, Voth, J. Chem. Phys. 2006, 124, 024503
SOL  2

[ atoms ]
;  nr  type  resnr  residue  atom  cgnr   charge     mass
    1    OW      1      SOL    OW     1  -0.8200  15.9990
    2    HW      1      SOL   HW1     1   0.4100   1.0080
    3    HW      1      SOL   HW2     1   0.4100   1.0080

[ bonds ]
    1    2  1  0.10120  {bond:.4f}
    1    3  1  0.10120  {bond:.4f}

[ angles ]
    2    1    3  1  113.240  {angle:.5f}
"""


def fit_charges() -> np.ndarray:
    """Fit charges, neutral and rounded to 1e-4 e, to the HF/6-31G* potential on Merz-Kollman shells."""
    positions = np.array([(x, y, 0.0) for *_, x, y in URACIL])
    elements = [element for _, element, *_ in URACIL]
    molecule = gto.M(atom=list(zip(elements, positions, strict=True)), basis="6-31g*", cart=True, verbose=0)
    density = scf.RHF(molecule).run().make_rdm1()

    radii = np.array([{"H": 1.2, "C": 1.5, "N": 1.5, "O": 1.4}[element] for element in elements])
    points = []
    for scale in (1.4, 1.6, 1.8, 2.0):
        for centre, radius in zip(positions, radii, strict=True):
            shell = centre + scale * radius * fibonacci_sphere(round(24 * np.pi * (scale * radius) ** 2))
            distances = np.linalg.norm(shell[:, None] - positions, axis=2)
            points.append(shell[(distances >= scale * radii - 1e-9).all(axis=1)])
    grid = np.concatenate(points) / 0.529177210903

    inverse = 1.0 / np.linalg.norm(grid[:, None] - molecule.atom_coords(), axis=2)
    potential = inverse @ molecule.atom_charges()
    for part in np.array_split(np.arange(len(grid)), 20):
        potential[part] -= np.einsum("gij,ji->g", molecule.intor("int1e_grids", grids=grid[part]), density)

    n = len(URACIL)  # normal equations, the total charge fixed by a Lagrange multiplier
    matrix = np.ones((n + 1, n + 1))
    matrix[:n, :n] = inverse.T @ inverse
    matrix[n, n] = 0.0
    charges = np.linalg.solve(matrix, np.append(inverse.T @ potential, 0.0))[:n].round(4)
    charges[1] -= charges.sum()  # what rounding left over goes to the carbon between the nitrogens
    error = np.sqrt(np.mean((inverse @ charges - potential) ** 2) / np.mean(potential**2))
    print(f"charges fitted to {len(grid)} points, relative error {error:.3f}")
    return charges


def fibonacci_sphere(count: int) -> np.ndarray:
    """Points spread evenly over the unit sphere, (count, 3)."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    azimuth = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), height], axis=1)


def write_topology(path: Path, charges: np.ndarray) -> None:
    """Write a self-contained GROMACS topology."""
    water = WATER.format(bond=1059.162 * KCAL * 100, angle=75.90 * KCAL)
    parts = (
        "; Uracil in flexible water, written by prepare.py.",
        "[ defaults ]\n; nbfunc  comb-rule  gen-pairs  fudgeLJ  fudgeQQ\n  1  2  yes  0.5  0.8333\n",
        atom_types(),
        uracil_topology(charges),
        water,
        "[ system ]\nuracil in water\n",
        f"[ molecules ]\nURA  1\nSOL  {WATERS}",
    )
    path.write_text("\n".join(parts) + "\n")


def atom_types() -> str:
    """GAFF types from Rmin/2, and SPC/Fw from sigma."""
    lines = ["[ atomtypes ]", "; name  at.num     mass  charge  ptype    sigma (nm)  epsilon (kJ/mol)"]
    row = "  {:<4s}  {:6d}  {:7.3f}  0.0000  A  {:12.8f}  {:12.8f}".format
    elements = {kind: element for _, element, kind, *_ in URACIL}
    for kind, (half_minimum, epsilon) in LENNARD_JONES.items():
        sigma = 0.1 * half_minimum * 2 ** (5 / 6)
        element = elements[kind]
        lines.append(row(kind, ATOMIC_NUMBERS[element], MASSES[element], sigma, epsilon * KCAL))
    lines.append(row("OW", 8, MASSES["O"], 0.3165492, 0.1554253 * KCAL))
    lines.append(row("HW", 1, MASSES["H"], 0.0, 0.0))
    return "\n".join(lines) + "\n"


def uracil_topology(charges: np.ndarray) -> str:
    """Enumerate bonds, angles, torsions and 1-4 pairs of uracil and look their GAFF parameters up."""
    names = [name for name, *_ in URACIL]
    kinds = [kind for _, _, kind, *_ in URACIL]
    bonds = [tuple(names.index(name) for name in bond.split("-")) for bond in BONDED.split()]
    neighbours = [[a + b - i for a, b in bonds if i in (a, b)] for i in range(len(names))]
    angles = [(i, j, k) for j in range(len(names)) for i, k in combinations(neighbours[j], 2)]
    torsions = [
        (i, j, k, m) for j, k in bonds for i in neighbours[j] for m in neighbours[k] if i != k and m != j
    ]
    near = {frozenset(pair) for pair in bonds} | {frozenset((i, k)) for i, _, k in angles}
    pairs = sorted({tuple(sorted((i, m))) for i, _, _, m in torsions if frozenset((i, m)) not in near})

    def parameters(table: dict, atoms: tuple[int, ...]):
        key = "-".join(kinds[i] for i in atoms)
        return table[key] if key in table else table["-".join(key.split("-")[::-1])]

    def row(atoms: tuple[int, ...], *values: object) -> str:
        comment = "-".join(kinds[i] for i in atoms)
        return " ".join([*(f"{i + 1:4d}" for i in atoms), " ", *map(str, values), f" ; {comment}"])

    lines = ["[ moleculetype ]\n; GAFF 1.8, charges fitted to the HF/6-31G* potential\nURA  3\n", "[ atoms ]"]
    lines.append(";  nr  type  resnr  residue  atom  cgnr   charge     mass")
    for i, (name, element, kind, *_) in enumerate(URACIL):
        mass = MASSES[element]
        lines.append(
            f"{i + 1:5d}  {kind:>4s}      1      URA  {name:>4s}     1  {charges[i]:7.4f}  {mass:7.4f}"
        )
    lines.append("\n[ bonds ]")
    for bond in bonds:
        stiffness, length = parameters(BONDS, bond)
        lines.append(row(bond, 1, f"{0.1 * length:.5f}", f"{200 * KCAL * stiffness:.3f}"))
    lines.append("\n[ pairs ]")
    lines += [row(pair, 1) for pair in pairs]
    lines.append("\n[ angles ]")
    for angle in angles:
        stiffness, theta = parameters(ANGLES, angle)
        lines.append(row(angle, 1, f"{theta:.3f}", f"{2 * KCAL * stiffness:.4f}"))
    lines.append("\n[ dihedrals ]")
    for torsion in torsions:
        series = ((180.0, parameters(TORSIONS, torsion[1:3]), 2),)
        if sorted((kinds[torsion[0]], kinds[torsion[3]])) == ["hn", "o"]:
            series = TORSION_HN_N_C_O
        lines += [row(torsion, 9, phase, f"{barrier * KCAL:.4f}", n) for phase, barrier, n in series]
    lines.append("\n[ dihedrals ]\n; impropers, the third atom is the central one")
    for *quadruple, barrier in IMPROPERS:
        improper = tuple(names.index(name) for name in quadruple)
        lines.append(row(improper, 4, 180.0, f"{barrier * KCAL:.4f}", 2))
    return "\n".join(lines) + "\n"


def lattice(edge: float, solute: tuple = URACIL, seed: int = SEED) -> np.ndarray:
    """Put a solute at the centre and waters in random orientation on a lattice around it; positions in nm."""
    rng = np.random.default_rng(seed)
    molecule = 0.1 * np.array([(x, y, 0.0) for *_, x, y in solute]) + edge / 2
    cells = int(np.ceil((1.15 * WATERS) ** (1 / 3)))
    sites = (np.stack(np.meshgrid(*[np.arange(cells)] * 3), axis=-1).reshape(-1, 3) + 0.5) * edge / cells
    free = sites[np.linalg.norm(sites[:, None] - molecule, axis=2).min(axis=1) > 0.30]
    oxygens = rng.permutation(free)[:WATERS]
    half = np.radians(113.24) / 2
    arms = 0.1012 * np.array([(np.cos(half), np.sin(half), 0.0), (np.cos(half), -np.sin(half), 0.0)])
    frames = np.linalg.qr(rng.normal(size=(WATERS, 3, 3)))[0]
    water = np.concatenate([np.zeros((1, 3)), arms]) @ frames + oxygens[:, None]
    return np.concatenate([molecule, water.reshape(-1, 3)])


def make_system(topology: Path, edge: float, flexible: bool) -> openmm.System:
    """The force field in a cubic box of this edge in nm, with bonds of H and water rigid or flexible."""
    top = app.GromacsTopFile(str(topology), periodicBoxVectors=np.eye(3) * edge * unit.nanometer)
    return top.createSystem(
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=None if flexible else app.HBonds,
        rigidWater=not flexible,
    )


def equilibrate(topology: Path, edge: float) -> tuple[np.ndarray, float]:
    """Equilibrate at 300 K and 1 bar; return whole molecules in nm, uracil at the centre, and the box edge.

    Rigid water takes 2 fs steps and finds the structure and density, flexible water then settles, and the
    last part runs at the mean box of the flexible one.
    """
    positions = lattice(edge)
    for flexible, pressure, femtoseconds, picoseconds in ((0, 1, 2.0, 60), (1, 1, 0.5, 10), (1, 0, 0.5, 4)):
        system = make_system(topology, edge, bool(flexible))
        if pressure:
            barostat = openmm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE, 25)
            barostat.setRandomNumberSeed(SEED)
            system.addForce(barostat)
        integrator = openmm.LangevinMiddleIntegrator(
            TEMPERATURE, 2 / unit.picosecond, femtoseconds * unit.femtosecond
        )
        integrator.setRandomNumberSeed(SEED)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
        context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 200)
        context.setVelocitiesToTemperature(TEMPERATURE, SEED)
        edges = []
        for _ in range(picoseconds):
            integrator.step(round(1000 / femtoseconds))
            state = context.getState(getEnergy=True, getPositions=True)
            edges.append(state.getPeriodicBoxVectors()[0][0].value_in_unit(unit.nanometer))
            energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
            print(
                f"{'flexible' if flexible else 'rigid'}  box {edges[-1]:.4f} nm  {energy:.0f} kJ/mol",
                flush=True,
            )
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        target = float(np.mean(edges[len(edges) // 2 :]).round(3))
        positions = rescale(positions, edges[-1], target)
        edge = target
    return positions, edge


def rescale(positions: np.ndarray, edge: float, target: float) -> np.ndarray:
    """Bring uracil to the centre and molecules into the box around it, and move them to a box `target`."""
    n = len(URACIL)
    positions = positions + edge / 2 - positions[:n].mean(axis=0)
    oxygens = positions[n::3]
    shift = np.floor(oxygens / edge) * edge + (oxygens % edge) * (1 - target / edge)
    return np.concatenate([positions[:n] + (target - edge) / 2, positions[n:] - np.repeat(shift, 3, axis=0)])


def write_structures(positions: np.ndarray, edge: float) -> None:
    """Write the same atoms as `.gro` for the force field and as the `.pdb` that i-PI starts from."""
    uracil = [(1, "URA", name, element) for name, element, *_ in URACIL]
    water = [
        (i + 2, "SOL", *atom) for i in range(WATERS) for atom in (("OW", "O"), ("HW1", "H"), ("HW2", "H"))
    ]
    gro = ["uracil in water, equilibrated at 300 K", f"{len(positions):5d}"]
    pdb = [f"CRYST1{10 * edge:9.3f}{10 * edge:9.3f}{10 * edge:9.3f}  90.00  90.00  90.00 P 1           1"]
    for i, ((residue, residue_name, name, element), point) in enumerate(
        zip(uracil + water, positions, strict=True)
    ):
        x, y, z = point
        gro.append(f"{residue:5d}{residue_name:<5s}{name:>5s}{i + 1:5d}{x:9.4f}{y:9.4f}{z:9.4f}")
        atom = f"ATOM  {i + 1:5d}  {element:<3s} {residue_name:3s}  {residue:4d}    "
        pdb.append(f"{atom}{10 * x:8.3f}{10 * y:8.3f}{10 * z:8.3f}  1.00  0.00          {element:>2s}")
    (FOLDER / "uracil-water.gro").write_text("\n".join([*gro, f"{edge:10.5f}" * 3]) + "\n")
    (FOLDER / "init.pdb").write_text("\n".join([*pdb, "END"]) + "\n")


def main() -> None:
    topology = FOLDER / "uracil-water.top"
    write_topology(topology, fit_charges())
    write_structures(*equilibrate(topology, edge=3.06))


if __name__ == "__main__":
    main()
