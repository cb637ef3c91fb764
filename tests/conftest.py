"""What all tests share: the reference material beside the checkout, one thread, and the command line."""

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A shell that starts the tests in the background ignores Ctrl-C for them; what they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared"
ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(config, items):
    """Leave out what needs the published Slater-Koster sets where they do not lie beside the checkout."""
    if (SHARED / "slako").is_dir():
        return
    left_out = [item for item in items if item.get_closest_marker("published_sets")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def run(monkeypatch):
    """Run `pidelta` with arguments; the exit code."""
    from pidelta.cli.main import main

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["pidelta", *(str(argument) for argument in arguments)])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0
        return 0

    return run_command


@pytest.fixture
def script(monkeypatch):
    """Import a script of a folder of inputs by its name; nothing of it stays imported."""
    known = set(sys.modules)

    def import_script(folder, name):
        monkeypatch.syspath_prepend(ROOT / "inputs" / folder)
        return importlib.import_module(name)

    yield import_script
    for name in set(sys.modules) - known:
        path = getattr(sys.modules[name], "__file__", None)
        if path is not None and Path(path).is_relative_to(ROOT / "inputs"):
            del sys.modules[name]


@pytest.fixture
def fail(run, capsys):
    """Run `pidelta` with arguments; the line on standard error that it ends with."""

    def fail_command(*arguments):
        """The one line on standard error."""
        assert run(*arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    return fail_command


@pytest.fixture(scope="session")
def charmm(tmp_path_factory):
    """Folder of protein.psf, protein.rtf and protein.prm of a small protein, and positions in bohr."""
    from mm_files import write_charmm

    folder = tmp_path_factory.mktemp("charmm")
    return folder, write_charmm(folder)


@pytest.fixture(scope="session")
def chamber(charmm):
    """The file of `charmm` with its parameters in AMBER form, a prmtop file."""
    from mm_files import write_chamber

    return write_chamber(charmm[0])
