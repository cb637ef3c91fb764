"""The level of theory of DFT labels, and whether it suits a molecule."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from ase.data import chemical_symbols

from pidelta.errors import MissingExtraError, SettingError, SetupError
from pidelta.qm.composite import COMPOSITES, Composite, Counterpoise, load_counterpoise, plain
from pidelta.qm.dispersion import (
    PUBLISHED_DAMPING,
    TITLES,
    Damping,
    Dispersion,
    DispersionMethod,
    load_package,
)
from pidelta.qm.functionals import check_basis, checked_functional, default_grid, has_exchange
from pidelta.state import IntArray

_HEAVIEST = 36


@dataclass(frozen=True)
class ReferenceSettings:
    """The level of theory of the labels: Kohn-Sham DFT with density fitting.

    Gradients leave out that the grid moves with the atoms. With B3LYP/def2-SVP for a distorted uracil in
    point charges that is 5e-5 hartree/bohr at most, for level 2 as for level 3. With r2SCAN it is 1e-3 on
    heavy atoms for level 2, and 2e-4 on oxygen of water for levels 3 and 4.

    Attributes:
        xc: a GGA or hybrid functional as PySCF names it. ``B3LYP`` is the one of Stephens et al., J. Phys.
            Chem. 1994, 98, 11623 as most programs have it, with VWN(RPA) correlation; ``B3LYP5`` has VWN5.
            Or ``r2SCAN-3c``, which has a basis, D4 and a counterpoise correction of its own.
        basis: orbital basis as PySCF names it, by default def2-SVP.
        auxiliary_basis: fitting basis as PySCF names it; by default def2-universal-jkfit of Coulomb and
            exchange (Weigend, J. Comput. Chem. 2008, 29, 167), and for functionals without exact exchange the
            smaller def2-universal-jfit (PCCP 2006, 8, 1057).
        grid_level: PySCF's level of the integration grid, 0 to 9; by default 3 for r2SCAN and what is made of
            it, and 2 for other functionals. SCAN has no default: even on level 6 gradients are 1e-3 off.
        convergence: SCF threshold of the energy in hartree; that of the orbital gradient is its square root.
        max_iterations: SCF iterations before giving up.
        dispersion: ``d3bj`` adds D3(BJ) with the published parameters of the functional, two-body terms only,
            and ``d4`` D4 with three-body terms. In functionals with VV10, as ``wB97M_V``, D3(BJ) replaces it.
            By default ``none``.
        unrestricted: whether both spins have orbitals of their own, as radicals need.
    """

    xc: str = "B3LYP"
    basis: str | None = None
    auxiliary_basis: str | None = None
    grid_level: int | None = None
    convergence: float = 1e-8
    max_iterations: int = 100
    dispersion: Literal["none", "d3bj", "d4"] | None = None
    unrestricted: bool = False

    @property
    def composite(self) -> Composite | None:
        """The composite method that `xc` names, if it does.

        Raises:
            SettingError: another basis or dispersion than its own is asked for.
        """
        found = COMPOSITES.get(plain(self.xc))
        if found is None:
            return None
        if self.basis is not None and plain(self.basis) != plain(found.basis):
            raise SettingError("basis", f"expected {found.basis}, that of {found.name}, found {self.basis!r}")
        if self.dispersion not in (None, found.dispersion):
            raise SettingError(
                "dispersion", f"expected {found.dispersion}, that of {found.name}, found {self.dispersion}"
            )
        return found

    @property
    def functional(self) -> str:
        """`xc`, or the functional of the composite method."""
        return self.xc if self.composite is None else self.composite.functional

    @property
    def orbital_basis(self) -> str:
        """`basis`, or that of the composite method, or the default."""
        return self.composite.basis if self.composite is not None else self.basis or "def2-SVP"

    @property
    def dispersion_method(self) -> DispersionMethod | None:
        """`dispersion`, or that of the composite method, if there is any."""
        if self.composite is not None:
            return self.composite.dispersion
        return None if self.dispersion == "none" else self.dispersion

    @property
    def damping(self) -> Damping | None:
        """Parameters of the dispersion, if there is any.

        Raises:
            SettingError: there is none for the functional.
        """
        method = self.dispersion_method
        if self.composite is not None:
            return self.composite.damping
        if method is None:
            return None
        published = PUBLISHED_DAMPING[method]
        if self.xc.lower() not in published:
            title = TITLES[method]
            raise SettingError("dispersion", f"found no published {title} parameters for {self.xc}")
        return published[self.xc.lower()]

    @property
    def fitting_basis(self) -> str:
        """`auxiliary_basis`, or the one that the functional needs.

        Raises:
            MissingExtraError: PySCF is not installed.
            SettingError: PySCF does not know the functional.
        """
        if self.auxiliary_basis is not None:
            return self.auxiliary_basis
        return "def2-universal-jkfit" if has_exchange(self.functional) else "def2-universal-jfit"

    @property
    def grid(self) -> int:
        """`grid_level`, or the one that the functional needs.

        Raises:
            MissingExtraError: PySCF is not installed.
            SettingError: PySCF does not know the functional, or it has no default.
        """
        return default_grid(self.functional) if self.grid_level is None else self.grid_level

    @property
    def method(self) -> str:
        """The level of theory, as labels store it; which version of PySCF computes it is no part of it.

        Raises:
            MissingExtraError: PySCF, or the package of the dispersion, is not installed.
            SettingError: PySCF does not know the functional, or there is no such dispersion for it.
        """
        xc = f"{self.xc} (VWN-RPA)" if self.xc.upper() == "B3LYP" else self.xc
        if self.dispersion_method is not None and self.damping is not None:
            load_package(self.dispersion_method)
            xc += f"-{TITLES[self.dispersion_method]}"
        if self.composite is not None:
            load_counterpoise()
            xc = self.composite.name
        orbitals = "UKS" if self.unrestricted else "RKS"
        return (
            f"{orbitals} {xc}/{self.orbital_basis}, density fitting {self.fitting_basis}, "
            f"grid level {self.grid} at rest, SCF {self.convergence:g} hartree"
        )

    @property
    def program(self) -> str:
        """The program and its version, as labels store it.

        Raises:
            MissingExtraError: PySCF is not installed.
        """
        try:
            return f"PySCF {version('pyscf')}"
        except PackageNotFoundError:
            raise MissingExtraError("pyscf", "label", "a DFT label") from None

    def corrections(self, numbers: IntArray, charge: int = 0) -> list[Dispersion | Counterpoise]:
        """What is added to the Kohn-Sham energy: functions of the geometry of the QM atoms.

        Args:
            numbers: (n,) atomic numbers.
            charge: total charge in e.

        Raises:
            MissingExtraError: a package is not installed.
            SettingError: there is no such dispersion for the functional.
            SetupError: an element has no dispersion.
        """
        method, damping, composite = self.dispersion_method, self.damping, self.composite
        if method is None or damping is None:
            return []
        if composite is None:
            return [Dispersion(numbers, method, damping, charge)]
        dispersion = Dispersion(numbers, method, damping, charge, composite.charge_scaling)
        return [dispersion, Counterpoise(numbers, composite.counterpoise)]


def check_level(settings: ReferenceSettings, numbers: IntArray, charge: int, multiplicity: int) -> None:
    """See that a level of theory is known and suits a molecule, before any work.

    Args:
        settings: the level of theory.
        numbers: (n,) atomic numbers.
        charge: total charge in e.
        multiplicity: 2S + 1.

    Raises:
        MissingExtraError: PySCF, or the package of the dispersion, is not installed.
        SettingError: PySCF does not know the functional or a basis, there is no such dispersion for it, or
            the orbitals are restricted and the molecule is not closed-shell.
        SetupError: the multiplicity does not fit the electrons, or an element has no dispersion or is beyond
            Kr.
    """
    _ = settings.method
    check_electrons(settings, numbers, charge, multiplicity)
    checked_functional(settings.functional, settings.dispersion_method)
    check_basis("basis", settings.orbital_basis, numbers)
    check_basis("auxiliary_basis", settings.fitting_basis, numbers)
    settings.corrections(numbers, charge)


def check_electrons(settings: ReferenceSettings, numbers: IntArray, charge: int, multiplicity: int) -> None:
    """See that there are orbitals for these electrons, and none that need an effective core potential."""
    electrons, unpaired = int(numbers.sum()) - charge, multiplicity - 1
    found = f"found {electrons} electrons and multiplicity {multiplicity}"
    if electrons < unpaired or (electrons - unpaired) % 2:
        raise SetupError(f"expected a multiplicity that fits the electrons, {found}")
    if not settings.unrestricted and unpaired:
        raise SettingError("unrestricted", f"expected where electrons are unpaired, {found} without it")
    if numbers.max() > _HEAVIEST:
        raise SetupError(
            "a DFT label expects elements up to Kr, which need no effective core potential, found "
            f"{chemical_symbols[numbers.max()]}"
        )
