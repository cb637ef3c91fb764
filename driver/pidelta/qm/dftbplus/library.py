"""The DFTB+ library, through its Python module `dftbplus`, which calls it with ctypes."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pidelta.errors import SetupError
from pidelta.state import FloatArray

INSTALL = "conda install -c conda-forge dftbplus dftbplus-python"
BUILD = "built with WITH_API, BUILD_SHARED_LIBS and ENABLE_DYNAMIC_LOADING"
OLDEST_API = (0, 4)  # of DFTB+ 25.1

_NAMES = ("libdftbplus.so", "libdftbplus.dylib")
_SET_UP = (
    "import sys, dftbplus\n"
    "dftbplus.DftbPlus(libpath=sys.argv[1], hsdpath=sys.argv[2], logfile=sys.argv[3]).close()\n"
    "print('set up')"
)
# What waits for the end of this process; only a process that ends well writes to it before.
_WATCH = (
    "import sys\n"
    "if not sys.stdin.buffer.read():\n"
    "    from pidelta.qm.dftbplus.library import explain_end\n"
    "    explain_end(sys.argv[1])"
)
_LOG = "dftb+.log"
_LOGGED = 1000  # structures, after which the log starts anew


def load_library(given: Path | None) -> Path:
    """Find the library and load it.

    Args:
        given: the library file; None: the one installed with the Python module.

    Raises:
        SetupError: the module or the library is missing, or is not DFTB+ 25.1 or later.
    """
    try:
        module = importlib.import_module("dftbplus")
    except ImportError as error:
        raise SetupError(f"DFTB+ needs the Python module dftbplus: {INSTALL} ({_one_line(error)})") from None
    if not hasattr(module, "DftbPlus"):
        raise SetupError(
            f"{module.__file__}: expected the module of DFTB+ with a class DftbPlus, found none: {INSTALL}"
        )
    path = _find(Path(str(module.__file__)), given)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise SetupError(
            f"{path}: expected a library of DFTB+ {BUILD}, found one that cannot be loaded "
            f"({_one_line(error)}): {INSTALL}"
        ) from None
    _check_version(library, path)
    return path


def version(path: Path) -> str:
    """Return the version of the interface of a loaded library, such as ``0.4.0``."""
    numbers = [ctypes.c_int() for _ in range(3)]
    ctypes.CDLL(str(path)).dftbp_api(*(ctypes.byref(number) for number in numbers))
    return ".".join(str(number.value) for number in numbers)


def rehearse(library: Path, hsd: Path) -> None:
    """Let another process set DFTB+ up once: the library ends its process when it finds a mistake.

    Raises:
        SetupError: DFTB+ did not take the input; with its own message.
    """
    log = hsd.with_name("rehearsal.log")
    arguments = [sys.executable, "-c", _SET_UP, str(library), str(hsd), str(log)]
    ended = subprocess.run(arguments, env=_environment(), capture_output=True, text=True, check=False)
    if ended.returncode or not ended.stdout.endswith("set up\n"):  # stopping, it may return 0
        output = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        raise SetupError(f"DFTB+ stopped at its set-up: {_message(output) or _one_line(ended.stderr)}")


def watch(folder: Path) -> subprocess.Popen[bytes]:
    """Start what removes a private folder, and says why, should DFTB+ end this process.

    Write to its input and close it before a good end; the folder is then left to its owner.
    """
    arguments = [sys.executable, "-c", _WATCH, str(folder)]
    # In a session of its own, so that Ctrl-C does not reach it.
    return subprocess.Popen(arguments, env=_environment(), stdin=subprocess.PIPE, start_new_session=True)


def explain_end(folder: str) -> None:
    """Print what DFTB+ said before it ended the process, and remove the private folder."""
    log = Path(folder) / _LOG
    message = _message(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else ""
    if message:
        print(f"pidelta: DFTB+ stopped: {message}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """A child finds modules where this process did."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@dataclass(frozen=True)
class Solution:
    """What DFTB+ found for one structure; see `pidelta.qm.base.QMResult`.

    `residual` is the largest difference (in e) between the charges before and after the last SCC iteration.
    """

    energy: float
    gradient: FloatArray
    charges: FloatArray
    iterations: int
    residual: float


class Session:
    """DFTB+ set up for one molecule.

    The library has global variables and takes one set-up at a time in a process. So a session closes the one
    that was in use before, which is set up again when its turn comes.

    Args:
        library: the library file, loaded by `load_library`.
        hsd: an input that `rehearse` accepted.
    """

    _in_use: ClassVar[Session | None] = None

    def __init__(self, library: Path, hsd: Path) -> None:
        self._library = library
        self._hsd = hsd
        self._log = hsd.with_name(_LOG)
        self._solved = 0
        self._instance: Any = None
        self._potential = np.zeros(0)
        self._correction: FloatArray | None = None
        self._populations: list[FloatArray] = []

    def solve(self, positions: FloatArray, potential: FloatArray, correction: FloatArray | None) -> Solution:
        """Evaluate positions (n, 3) in a potential (n,) with a Coulomb correction (n, n) or None."""
        self._open()
        self._solved += 1
        if self._solved % _LOGGED == 0:
            os.truncate(self._log, 0)
        instance = self._instance
        self._potential, self._correction, self._populations = potential, correction, []
        instance.set_geometry(np.array(positions, dtype=np.float64, order="C"))
        energy = float(instance.get_energy())
        if correction is not None:
            # DFTB+ adds q K q, as if the potential K q did not depend on q.
            populations = self._populations[-1]
            energy -= 0.5 * float(populations @ correction @ populations)
        return Solution(
            energy=energy,
            gradient=instance.get_gradients(),
            charges=instance.get_gross_charges(),
            iterations=len(self._populations) // 2,
            residual=float(np.abs(self._populations[-1] - self._populations[-2]).max()),
        )

    def close(self) -> None:
        """Release the library; the next structure sets it up anew and starts from neutral atoms."""
        if self._instance is not None:
            self._instance.close()
            self._instance, Session._in_use = None, None

    def _open(self) -> None:
        if self._instance is not None:
            return
        if Session._in_use is not None:
            Session._in_use.close()
        module = importlib.import_module("dftbplus")
        self._instance = module.DftbPlus(
            libpath=str(self._library), hsdpath=str(self._hsd), logfile=str(self._log)
        )
        Session._in_use = self
        # Not `set_external_potential`, which in DFTB+ 25.1 leaves that of the second spin undefined.
        self._instance.register_ext_pot_generator(None, self._add_potential, _no_gradient)

    def _add_potential(self, _: object, populations: FloatArray, potential: FloatArray) -> None:
        """Called by DFTB+ before and after each diagonalisation with the electrons above neutral atoms.

        It takes the potential that an electron feels.
        """
        self._populations.append(populations.copy())
        potential[:] = -self._potential
        if self._correction is not None:
            potential += self._correction @ populations


def _no_gradient(_: object, __: FloatArray, gradient: FloatArray) -> None:
    """The potential is given at the positions; its derivative is for others to add."""
    gradient[:] = 0.0


def _find(module: Path, given: Path | None) -> Path:
    if given is not None:
        if not given.is_file():
            raise SetupError(f"{given}: expected the library of DFTB+, found no such file")
        return given
    for folder in module.resolve().parents:
        for name in _NAMES:
            for path in (folder / name, folder / "lib" / name):
                if path.is_file():
                    return path
    raise SetupError(
        f"{module}: expected the library of DFTB+ ({' or '.join(_NAMES)}, {BUILD}) in a folder above it, "
        f"found none: {INSTALL}, or name the library"
    )


def _check_version(library: ctypes.CDLL, path: Path) -> None:
    if not hasattr(library, "dftbp_register_ext_pot_generator"):
        raise SetupError(f"{path}: expected DFTB+ {BUILD}, found another library: {INSTALL}")
    found = version(path)
    if tuple(int(number) for number in found.split(".")[:2]) < OLDEST_API:
        oldest = ".".join(str(number) for number in OLDEST_API)
        raise SetupError(
            f"{path}: expected version {oldest} of the interface or later (DFTB+ 25.1), found {found}: "
            f"{INSTALL}"
        )


def _message(output: str) -> str:
    """What DFTB+ printed before it stopped, in one line."""
    blocks = re.split("WARNING!|ERROR!", output)[1:]
    # The last error can be that there was a warning.
    told = blocks[-2:] if blocks and "Code halting" in blocks[-1] else blocks[-1:]
    lines = [line.strip() for block in told for line in block.splitlines()]
    marked = [line.removeprefix("-> ").rstrip(".") for line in lines if line.startswith(("-> ", "Path: "))]
    return "; ".join(marked)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
