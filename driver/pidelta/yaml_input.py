"""YAML files into validated models, and what is wrong with them in one line."""

from __future__ import annotations

import os
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from pidelta.errors import ConfigError
from pidelta.units import parse_quantity

Length = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "length"))]
Angle = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "angle"))]
Temperature = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "temperature"))]
Energy = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "energy"))]
Time = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "time"))]
Gradient = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "gradient"))]
Stiffness = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "stiffness"))]


Integer = Annotated[int, Field(strict=True)]
"""Not `true`, not 1.5 and not text, which pydantic would take as well where they look like integers."""


def _join(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(os.path.normpath(folder / path))


FilePath = Annotated[Path, AfterValidator(_join)]
"""A path in a file: from the folder of that file, unless it is absolute."""


class Section(BaseModel):
    """A part of a YAML file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)

_MOST_VALUES = 100_000


_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")


class _Loader(yaml.SafeLoader):
    """The safe loader, but without what YAML quietly makes of a slip.

    The last of two keys of one name would count; 010 would be 8, and 1:30 90.
    """

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        self._refuse_unusual(node)
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value:
            self._refuse_unusual(node)
        return float(super().construct_yaml_float(node))

    def _refuse_unusual(self, node: yaml.ScalarNode) -> None:
        if not _DECIMAL.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(
                problem=f"expected a number in decimal digits, such as 10, found {node.value}",
                problem_mark=node.start_mark,
            )

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


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


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
        raise ConfigError(f"{path}: expected keys and values, found {_kind(content)}")
    try:
        return model.model_validate(content, context={"folder": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, content)}") from None


def _kind(content: object) -> str:
    return "an empty file" if content is None else "a list" if isinstance(content, list) else "text alone"


def _bad_byte(error: UnicodeDecodeError) -> str:
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"the byte {error.object[error.start]:#04x} in line {line}"


def choose_by(key: str, default: str) -> Discriminator:
    """Choose one section of a union by the value of a key; each is marked `Tag("key: value")`."""

    def tag(section: Any) -> str:
        given = section.get(key, default) if isinstance(section, dict) else getattr(section, key, default)
        return f"{key}: {given}"

    return Discriminator(tag)


def describe(error: ValidationError, content: Any = None) -> str:
    """Say in one line what is wrong first, with the content of a file where sections are chosen by a key."""
    located = [(*_locate(problem, content), problem) for problem in error.errors()]
    # The branches of a union have a problem each with one value: the one that got farthest says most.
    first = located[0][0]
    same = (each for each in located if each[0][: len(first)] == first)
    keys, choice, problem = max(same, key=lambda each: len(each[0]))
    kind, found = problem["type"], _written(keys, content, problem["input"])
    chosen = f" with {choice}" if choice else ""
    if kind in ("extra_forbidden", "missing"):
        return f"{'missing' if kind == 'missing' else 'unknown'} key {'.'.join(keys)}{chosen}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "union_tag_invalid":
        key, _, value = problem["ctx"]["tag"].partition(": ")
        keys.append(key)
        known = problem["ctx"]["expected_tags"].replace(f"{key}: ", "").replace("'", "")
        message = f"expected one of {known}, found {value}"
    elif kind == "model_type":
        message = f"expected keys and values, found {reprlib.repr(found)}"
    elif kind != "value_error":
        only = chosen if kind == "literal_error" and " or " not in message else ""
        message = f"{message[0].lower()}{message[1:]}{only}, found {reprlib.repr(found)}"
    return f"{'.'.join(keys)}: {message}" if keys else message


def _written(keys: list[str], content: Any, found: Any) -> Any:
    """The value as the file has it, such as a length with its unit, in place of what it was read as."""
    for key in keys:
        if isinstance(content, dict) and key in content:
            content = content[key]
        elif isinstance(content, list) and key.isdigit():
            content = content[int(key)]
        else:
            return found
    return content if isinstance(content, str | int | float) else found


def _locate(problem: ErrorDetails, content: Any) -> tuple[list[str], str]:
    """The keys and indices of a problem, and which section of a union of `choose_by` they are in.

    Pydantic also names the branch of a union that it tried, which is not in the content.
    """
    location = problem["loc"]
    if content is None:
        return [str(part) for part in location], ""
    keys, choice = [], ""
    for place, part in enumerate(location):
        is_inside = part in content if isinstance(content, dict) else isinstance(content, list)
        if is_inside and (isinstance(content, dict) or isinstance(part, int)):
            keys.append(str(part))
            content = content[part]
        elif ": " in str(part):
            choice = str(part)
        elif problem["type"] == "missing" and place == len(location) - 1:
            keys.append(str(part))
    return keys, choice
