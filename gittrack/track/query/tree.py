"""What a filter and an order mean: the tree that ``grammar`` makes and ``sql`` and ``python`` walk.

Whoever walks a tree may assume that ``grammar`` checked it: operators go with their fields, values with their
operators, and the tree is no deeper than its limits.
"""

# Annotations are evaluated here and in `entities`: of a NamedTuple that is quicker than to compile each from its text.

from typing import NamedTuple, Union


class Field(NamedTuple):
    """The left side of a comparison, or the key of an order.

    Attributes:
        kind: METRIC, PARAM, TAG, ATTRIBUTE or DATASET.
        key: Name of the metric, param or tag; canonical name of an attribute; ``name``, ``digest`` or ``context``.
        summary: For a metric: ``value`` (its last), ``minimum`` or ``maximum``.
    """

    kind: str
    key: str
    summary: str = "value"


class Measured(NamedTuple):
    """Which points of logged models count: those of a dataset of this name, and of this digest if there is one."""

    name: str | None = None
    digest: str | None = None


class Comparison(NamedTuple):
    """``field operator value``; ``value`` is text, a number, a tuple of texts, or None for IS [NOT] NULL."""

    field: Field
    operator: str
    value: str | int | float | tuple[str, ...] | None


class Junction(NamedTuple):
    """All (``AND``) or any (``OR``) of two or more parts, none of which is a junction of the same operator."""

    operator: str
    parts: tuple["Node", ...]


class Negation(NamedTuple):
    """What ``part`` does not match."""

    part: "Node"


Node = Union[Comparison, Junction, Negation]  # noqa: UP007 — `|` of a recursive type is not for Python 3.10


class OrderKey(NamedTuple):
    """One key of an order.

    Attributes:
        dataset: Of a metric of which there are several values: only those of this dataset count.
    """

    field: Field
    ascending: bool
    dataset: "Measured | None" = None
