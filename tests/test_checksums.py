"""Checksums that are stored: what they are made of may not change, or files of before fit nothing."""

import hashlib
from types import SimpleNamespace

import pytest
import yaml

from pidelta.checksums import checksum, content_checksum
from pidelta.cli.configuration_digest import configuration_digest
from pidelta.config import load_config
from pidelta.delta.files import models_digest
from pidelta.workflow.learning.records import committee_digest


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "b", tmp_path / "a"]
    for path, content in zip(paths, (b"ab", b"c"), strict=True):
        path.write_bytes(content)
    return paths


def test_a_checksum_is_that_of_the_standard_whatever_the_files_are_called(files):
    """That of "abc" is the first example of FIPS 180-2."""
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checksum(*files) == published
    assert checksum(*reversed(files)) == sha256(b"cab")
    assert checksum(files[0].rename(files[0].with_name("z"))) == sha256(b"ab")


def test_the_digest_of_models_is_of_their_checksums_in_order(files):
    each = sorted(sha256(content) for content in (b"ab", b"c"))
    assert models_digest(files) == models_digest(files[::-1]) == sha256("".join(each).encode())[:12]


def test_what_a_round_samples_with_is_its_committee_and_the_models_after_it(files):
    first, second = files
    before = SimpleNamespace(committee=second, model_files=lambda: [first, second])
    assert committee_digest(before) == sha256(b"cabc")[:16]


def test_parameters_in_a_folder_count_with_their_names_and_notes_beside_them_do_not(tmp_path):
    folder, structure = tmp_path / "set", tmp_path / "water.xyz"
    folder.mkdir()
    structure.write_text("1\n\nO 0 0 0\n")
    (folder / "O-O.skf").write_text("two")
    (folder / "H-O.skf").write_text("one")
    path = tmp_path / "pidelta.yaml"
    content = {"structure": structure.name, "qm": {"atoms": "all", "dftb": {"parameters": folder.name}}}
    path.write_text(yaml.safe_dump(content))
    whole = configuration_digest(load_config(path))
    assert content_checksum(folder) == sha256(b"H-O.skfoneO-O.skftwo")
    assert content_checksum(structure) == sha256(structure.read_bytes())
    assert content_checksum(tmp_path / "none") == sha256(b"")

    (folder / "README").write_text("where the set is from")
    assert content_checksum(folder) == sha256(b"H-O.skfoneO-O.skftwo")
    assert configuration_digest(load_config(path)) == whole
    (folder / "O-O.skf").rename(folder / "O-H.skf")
    assert content_checksum(folder) == sha256(b"H-O.skfoneO-H.skftwo")
    assert configuration_digest(load_config(path)) != whole


def test_what_a_run_writes_is_no_part_of_its_configuration(tmp_path):
    """Uncertain structures are added to a file from call to call."""
    (tmp_path / "water.xyz").write_text("1\n\nO 0 0 0\n")
    (tmp_path / "delta.pt").write_text("a model")
    path = tmp_path / "pidelta.yaml"
    content = {
        "structure": "water.xyz",
        "qm": {"atoms": "all", "dftb": {"parameters": "builtin"}},
        "delta": {"models": ["delta.pt"], "save_uncertain": "uncertain.h5"},
    }
    path.write_text(yaml.safe_dump(content))
    before = configuration_digest(load_config(path))
    (tmp_path / "uncertain.h5").write_text("a structure")
    assert configuration_digest(load_config(path)) == before
    (tmp_path / "delta.pt").write_text("another model")
    assert configuration_digest(load_config(path)) != before
