"""How a configuration becomes objects: each file once, each object when it is asked for."""

import pytest

from conftest import ROOT
from pidelta.config import load_config
from pidelta.errors import ConfigError
from pidelta.setup import Setup
from pidelta.setup import files as setup_files

URACIL_WATER = ROOT / "inputs" / "uracil-water"


@pytest.fixture
def reads(monkeypatch):
    """The files that a set-up has read, in order."""
    files = []

    def counting(function):
        def read(path, *arguments, **options):
            files.append(path.name)
            return function(path, *arguments, **options)

        return read

    structure = setup_files.structure
    monkeypatch.setattr(structure, "read_coordinates", counting(structure.read_coordinates))
    monkeypatch.setattr(structure, "read_structure", counting(structure.read_structure))
    monkeypatch.setattr(setup_files, "read_topology", counting(setup_files.read_topology))
    return files


def test_topology_and_structure_are_read_once(reads):
    setup = Setup(load_config(URACIL_WATER / "pidelta.yaml"))
    assert reads == []
    assert len(setup.qm_indices) == 12
    setup.evaluator(frozenset({"mm", "low"}))
    setup.evaluator(frozenset({"low"}))
    assert setup.topology is not None
    assert reads.count("uracil-water.top") == 1
    assert reads.count("uracil-water.gro") <= 2  # `read_coordinates` may call `read_structure`


def test_what_a_configuration_lacks_is_named(tmp_path):
    (tmp_path / "h.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.74\n")
    path = tmp_path / "p.yaml"
    path.write_text("structure: h.xyz\nqm: {atoms: all}\n")
    setup = Setup(load_config(path))
    for part in ("correction", "classical"):
        with pytest.raises(ConfigError, match=r"p\.yaml: missing key (delta|mm)"):
            getattr(setup, part)
    with pytest.raises(ConfigError, match="expected terms among low, found mm"):
        setup.evaluator(frozenset({"mm"}))
