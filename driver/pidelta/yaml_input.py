"""YAML files into validated models, and what is wrong with them in one line."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from pidelta.errors import ConfigError
from pidelta.units import parse_quantity

Length = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "length"))]
Angle = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "angle"))]
Temperature = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "temperature"))]
Energy = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "energy"))]


class Section(BaseModel):
    """A part of a YAML file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)

_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader, but a key that stands twice is an error: YAML would quietly take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        scalars = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key in scalars:
            if key.value in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"expected each key once, found {key.value} twice", problem_mark=key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def get_single_node(self) -> yaml.Node | None:
        """The document, unless its aliases multiply into more than any input has."""
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node with its aliases written out; `known` counts of nodes by id, 0 while counting one."""
    if id(node) not in known:
        known[id(node)] = 0
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_count_values(child, known) for child in children)
    count = known[id(node)]
    if count == 0 or count > _MOST_VALUES:
        problem = "a value that holds itself" if count == 0 else f"more than {_MOST_VALUES} values"
        raise yaml.constructor.ConstructorError(
            problem=f"expected a plain input, found {problem}", problem_mark=node.start_mark
        )
    return count


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read and validate a YAML file.

    Args:
        path: the file.
        model: what it must be.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong; the
            message names the file and the key.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(f"{path}: line {line}: not a YAML file ({error.problem})") from None
    except RecursionError:
        raise ConfigError(f"{path}: not a YAML file for pidelta (nested too deeply)") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8, found {_bad_byte(error)}") from None
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from None


def _bad_byte(error: UnicodeDecodeError) -> str:
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"the byte {error.object[error.start]:#04x} in line {line}"


def describe(error: ValidationError) -> str:
    """Say in one line what is wrong first."""
    problem = error.errors()[0]
    # Pydantic names the branch of a union it tried; only keys and indices mean something to the user.
    location = ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {location}"
    if problem["type"] == "missing":
        return f"missing key {location}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, found {reprlib.repr(problem['input'])}"
    return f"{location}: {message}" if location else message


def _is_branch(part: Any) -> bool:
    names = {"str", "int", "float", "path", "literal", "list", "dict"}
    if not isinstance(part, str):
        return False
    return "[" in part or part.startswith("function-") or part.endswith("Config") or part in names
