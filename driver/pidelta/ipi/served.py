"""What the parameters or the name of a forcefield of an i-PI input ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pidelta.ipi.protocol import read_parameters
from pidelta.state import TERM_NAMES, parse_terms


@dataclass(frozen=True)
class Served:
    """What a forcefield is asked for.

    Attributes:
        terms: of the energy; None for all.
        member: the place, from 0, of the one delta model to use; None for the mean of all.
    """

    terms: frozenset[str] | None = None
    member: int | None = None


def served_by_socket(name: str, parameters: str) -> Served:
    """What an ffsocket serves by its parameters or its name.

    Args:
        name: of the ffsocket.
        parameters: the text of its ``<parameters>``, or nothing.

    Raises:
        ValueError: a parameter is unknown, no terms follow where they should, or the name only looks like
            terms.
    """
    given = served_in_parameters(parameters)
    return Served(terms_in_name(name), given.member) if given.terms is None else given


def served_in_parameters(text: str) -> Served:
    """What ``<parameters>`` or INIT ask for.

    Raises:
        ValueError: something is there that is not ``terms``, ``member`` or the batch size that i-PI adds.
    """
    parameters = read_parameters(text)
    unknown = sorted(set(parameters) - {"terms", "member", "batch_size"})
    if unknown:
        raise ValueError(f"<parameters>: expected terms: A+B or member: K, found {unknown[0]!r}")
    member = member_of(parameters)
    if "terms" not in parameters:
        return Served(None, member)
    try:
        return Served(parse_terms(parameters["terms"]), member)
    except ValueError as error:
        raise ValueError(f"<parameters>: terms: {error}") from None


def member_of(parameters: Mapping[str, str]) -> int | None:
    """The member that parameters ask for, None for all.

    Raises:
        ValueError: it is not the place of one.
    """
    text = parameters.get("member")
    if text is not None and not text.isdecimal():
        raise ValueError(f"<parameters>: member: expected the place of a delta model, from 0, found {text!r}")
    return None if text is None else int(text)


def terms_in_name(name: str) -> frozenset[str] | None:
    """The terms that the name of an ffsocket is made of, None for a name that has nothing of them.

    Raises:
        ValueError: it looks like terms and is not.
    """
    try:
        return parse_terms(name)
    except ValueError as error:
        if _looks_like_terms(name):
            raise ValueError(
                f"a name that looks like terms: {error}; for the whole energy choose another name"
            ) from None
        return None


def _looks_like_terms(name: str) -> bool:
    letters = _letters(name)
    words = {_letters(known) for term in TERM_NAMES for known in (term, term.partition(".")[2]) if known}
    chain = re.fullmatch(f"({'|'.join(words)})+", letters)
    near = any(len(word) > 2 and _one_error_apart(letters, word) for word in words)
    return "+" in name or chain is not None or near


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _one_error_apart(one: str, other: str) -> bool:
    """Whether inserting, leaving out, changing or swapping letters once makes one word of the other."""
    same = (a == b for a, b in zip(one, other, strict=False))
    start = next((k for k, equal in enumerate(same) if not equal), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    swapped = one[:2] == other[:2][::-1] and one[2:] == other[2:]
    return swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:]
