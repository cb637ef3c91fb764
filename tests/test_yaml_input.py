"""YAML files that are no configuration, or an attack: one line each, at once."""

from __future__ import annotations

import pytest

from pidelta.errors import ConfigError
from pidelta.yaml_input import Section, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30)
)


class Model(Section):
    first: list[int]
    second: list[int] | None = None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"first: " + b"[" * 100_000, "nested too deeply"),
        (b"first: " + b"{a: " * 3000, "nested too deeply"),
        (BOMB.encode(), r"line \d+: .* found more than 100000 values"),
        (b"first: &a [1, *a]\n", "found a value that holds itself"),
        ("# Größe\nfirst: [1]\n".encode("latin-1"), "expected text in UTF-8, found the byte 0xf6 in line 1"),
        (b"first: 2024-13-45\n", "not a YAML file"),
        (b"first: [1]\nfirst: [2]\n", "expected each key once, found first twice"),
        (b"first: " + b"9" * 5000, "not a YAML file"),
        (b"first: [" + b"x, " * 5000 + b"x]", r"first\.0: input should be .* found 'x'"),
    ],
)
def test_one_line_that_names_the_file(tmp_path, content, message):
    path = tmp_path / "input.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path, Model)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_anchors_that_mean_well(tmp_path):
    path = tmp_path / "input.yaml"
    path.write_text("first: &numbers [1, 2]\nsecond: *numbers\n# wasserstoffbrücke\n", encoding="utf-8")
    assert read_yaml(path, Model).second == [1, 2]
