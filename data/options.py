"""Checks the values of dataclass fields against their declared types, since an annotation alone checks nothing."""

import ast
import dataclasses
import math
import types
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

TRUE, FALSE, NOTHING = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none",)


def expected(annotation: Any) -> str:
    """In words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(expected(a) for a in arguments)
    if origin is tuple:
        return f"{len(arguments)} numbers with a + between them, as 0.9+0.98" if ... not in arguments else "a list"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "none"}.get(
        annotation, getattr(annotation, "__name__", str(annotation))
    )


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of the declared type. An int is accepted as a float; NaN and infinity are not."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(fits(value, a) for a in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if ... in arguments:
            return all(fits(v, arguments[0]) for v in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def check_types(made: T) -> T:
    """Return a dataclass if its fields hold what they declare. Raises ValueError for the first that does not."""
    for name, annotation in get_type_hints(type(made)).items():
        if name in {f.name for f in dataclasses.fields(cast(Any, made))} and not fits(getattr(made, name), annotation):
            found = getattr(made, name)
            raise ValueError(f"{name} is {found!r}; it must be {expected(annotation)}.")
    return made


def convert(text: str, annotation: Any, name: str) -> Any:
    """The value that a word on the command line stands for. Raises ValueError with what was expected."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    candidates: list[Any] = []
    for kind in arguments if origin in (Union, types.UnionType) else (annotation,):
        if get_origin(kind) is Literal:
            candidates += [choice for choice in get_args(kind) if str(choice) == text]
        elif kind is bool:
            candidates += [True] * (text.lower() in TRUE) + [False] * (text.lower() in FALSE)
        elif kind is type(None):
            candidates += [None] * (text.lower() in NOTHING)
        elif kind is str:
            candidates.append(text)
        elif get_origin(kind) is tuple:
            parts = text.strip("()").replace(",", "+").split("+")
            candidates.append(tuple(map(_number, parts)))
        elif kind in (int, float):
            number = _number(text)
            candidates += [] if number is None else [number]
    for value in candidates:
        if fits(value, annotation):
            return value
    raise ValueError(f"{name}={text} is not understood; {name} must be {expected(annotation)}.")


def _number(text: str) -> Any:
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
