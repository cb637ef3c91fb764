"""GAFF2 topologies by AmberTools, which is called as a program: antechamber, parmchk2 and tleap.

GAFF2: He, Man, Yang, Lee, Wang, J. Chem. Phys. 153, 114502 (2020); AM1-BCC charges: Jakalian, Jack, Bayly,
J. Comput. Chem. 23, 1623 (2002).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.output_files import replacing
from pidelta.workflow.preparing.molecules import Molecule

_PROGRAMS = ("antechamber", "parmchk2", "tleap")
_AM1 = "qm_theory='AM1', grms_tol=0.0005, scfconv=1.d-10, ndiis_attempts=700"
_LEAP = """source leaprc.gaff2
loadAmberParams molecule.frcmod
molecule = loadMol2 molecule.mol2
saveAmberParm molecule leap.prmtop leap.rst7
quit
"""


@dataclass(frozen=True)
class AmberTools:
    """Where the programs are."""

    programs: Path

    def run(self, folder: Path, program: str, *arguments: str, writes: str) -> None:
        """Run a program in a folder; its output goes to PROGRAM.log.

        Raises:
            SetupError: it fails, or does not write the file that it should.
        """
        home = {"AMBERHOME": str(self.programs.parent)} if "AMBERHOME" not in os.environ else {}
        path = os.pathsep.join([str(self.programs), os.environ.get("PATH", os.defpath)])
        log = folder / f"{program}.log"
        (folder / writes).unlink(missing_ok=True)
        with log.open("w", encoding="utf-8") as output:
            code = subprocess.run(
                [str(self.programs / program), *arguments],
                cwd=folder,
                env={**os.environ, **home, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        if code != 0 or not (folder / writes).is_file():
            raise SetupError(
                f"{log}: {program} of AmberTools made no {writes} (exit code {code}): {_last_words(log)}; "
                "--force-field generic does without it where the molecule is quantum mechanical, "
                "--topology takes one from elsewhere"
            )


def find_amber_tools(given: Path | None) -> AmberTools | None:
    """Where AmberTools is: as given, else $AMBERHOME, else on PATH; None where it is nowhere.

    Args:
        given: its folder, or the folder `bin` in it.

    Raises:
        SetupError: it is not where it was said to be.
    """
    if given is not None:
        for folder in (given / "bin", given):
            if _has_programs(folder):
                return AmberTools(folder.resolve())
        raise SetupError(f"{given}: expected AmberTools ({', '.join(_PROGRAMS)}), found none")
    home = os.environ.get("AMBERHOME")
    if home and _has_programs(Path(home) / "bin"):
        return AmberTools((Path(home) / "bin").resolve())
    found = shutil.which(_PROGRAMS[0])
    if found is not None and _has_programs(Path(found).parent):
        return AmberTools(Path(found).parent.absolute())
    return None


def make_topology(tools: AmberTools, molecule: Molecule, folder: Path, *, relaxed: bool) -> Path:
    """Make a GAFF2 topology of a molecule with AM1-BCC charges, in a folder of its own.

    What is there from an earlier call is taken as it is.

    Args:
        tools: where AmberTools is.
        molecule: of paired electrons.
        folder: for all files; made where there is none.
        relaxed: whether AM1 relaxes the geometry for the charges, as the method has it; without, they are
            those of the geometry as it is, in a fraction of the time.

    Returns:
        The .prmtop, its atoms in the order of the molecule.

    Raises:
        SetupError: a program fails.
    """
    topology = folder / "molecule.prmtop"
    if topology.is_file():
        return topology
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("molecule.mol", molecule.mol_block), ("leap.in", _LEAP)):
        with replacing(folder / name) as stream:
            stream.write(text)
    tools.run(
        folder,
        "antechamber",
        *("-i", "molecule.mol", "-fi", "mdl", "-o", "molecule.mol2", "-fo", "mol2", "-at", "gaff2"),
        *("-c", "bcc", "-nc", str(molecule.charge), "-rn", "MOL", "-pf", "y"),
        *("-ek", _AM1 if relaxed else f"{_AM1}, maxcyc=0"),
        writes="molecule.mol2",
    )
    tools.run(
        folder,
        "parmchk2",
        *("-i", "molecule.mol2", "-f", "mol2", "-o", "molecule.frcmod", "-s", "gaff2"),
        writes="molecule.frcmod",
    )
    tools.run(folder, "tleap", "-f", "leap.in", writes="leap.prmtop")
    return (folder / "leap.prmtop").rename(topology)  # whole, if it is there


def guessed_parameters(topology: Path) -> int:
    """How many parameters of a topology of `make_topology` parmchk2 could only guess."""
    lines = topology.with_name("molecule.frcmod").read_text(encoding="utf-8").splitlines()
    return sum("ATTN" in line for line in lines)


def _has_programs(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()] or lines
    return next((line for line in telling if line), "it said nothing")
