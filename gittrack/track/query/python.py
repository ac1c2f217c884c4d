"""A tree to a predicate, an order to a sort key: what SQL answers, said without SQL.

The oracle that tests hold the index against, and for a record that is at hand.  So it says the rules as plainly as it
can, shares none of the code of ``sql``, and may assume what ``tree`` says of trees and that records are whole.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cmp_to_key
from typing import Any, Final

from gittrack.store.index import CONTEXT_TAG, number_of
from gittrack.track.query.entities import ATTRIBUTE, DATASET, NULLNESS, PARAM, RUNS, TAG, Entity
from gittrack.track.query.tree import Comparison, Field, Junction, Measured, Negation, Node, OrderKey
from gittrack.types import Metric, MetricSummary, Run


def predicate(where: Node | None, entity: Entity = RUNS, datasets: Sequence[Measured] = ()) -> Callable[[Any], bool]:
    """A function that says whether a record matches; ``datasets`` as for ``sql.compile_query``."""
    return lambda record: where is None or _matches(where, record, entity, datasets)


def _matches(node: Node, record: Any, entity: Entity, datasets: Sequence[Measured] = ()) -> bool:
    if isinstance(node, Negation):
        return not _matches(node.part, record, entity, datasets)
    if isinstance(node, Junction):
        answers = (_matches(part, record, entity, datasets) for part in node.parts)
        return all(answers) if node.operator == "AND" else any(answers)
    if node.field.kind in entity.several:
        if node.field.kind == DATASET:
            values: list[Any] = list(_dataset_values(record, node.field.key))
        else:
            points = (point for point in record.metrics if point.key == node.field.key)
            values = [point.value for point in points if not datasets or any(_is_on(point, one) for one in datasets)]
        return any(_compare(value, node) for value in values) if values else node.operator == "IS NULL"
    value = filter_value(record, node.field, entity)
    if value is not None and node.field.kind == PARAM and isinstance(node.value, (int, float)):
        value = number_of(value)
        if value is None:
            return node.operator == "!="
    return _compare(value, node)


def filter_value(record: Any, field: Field, entity: Entity = RUNS) -> Any:
    """What a filter compares of a record; None if it has no such thing.  Not for datasets, of which there are many."""
    if field.kind != ATTRIBUTE:
        return _keyed_value(record, field, entity)
    attribute = entity.attributes[field.key]
    return entity.lookup(record, TAG, attribute.tag) if attribute.tag else attribute.read(record)


def _is_on(point: Metric, dataset: Measured) -> bool:
    """Whether a point was measured on a dataset; what is not said of the dataset does not matter."""
    return all(
        wanted in (None, has) for wanted, has in zip(dataset, (point.dataset_name, point.dataset_digest), strict=True)
    )


def _newest(record: Any, key: OrderKey) -> float | None:
    """Of the points of a metric the value of the last in time, then by step; of several runs, of the first by id."""
    found = [
        point
        for point in record.metrics
        if point.key == key.field.key and (key.dataset is None or _is_on(point, key.dataset))
    ]
    if not found:
        return None
    last = max((point.timestamp, point.step) for point in found)
    value: float = min((p for p in found if (p.timestamp, p.step) == last), key=lambda point: point.run_id or "").value
    return value


def _order_value(record: Any, key: OrderKey, entity: Entity) -> Any:
    field = key.field
    if field.kind in entity.several:
        return _newest(record, key)
    if field.kind != ATTRIBUTE:
        return _keyed_value(record, field, entity)
    attribute = entity.attributes[field.key]
    return (attribute.order_read or attribute.read)(record)


def _keyed_value(record: Any, field: Field, entity: Entity) -> Any:
    found = entity.lookup(record, field.kind, field.key)
    return getattr(found, field.summary) if isinstance(found, MetricSummary) else found


def _dataset_values(run: Run, key: str) -> Iterable[str]:
    for use in run.inputs.dataset_inputs:
        if key == "context":
            yield from (tag.value for tag in use.tags if tag.key == CONTEXT_TAG)
        else:
            yield getattr(use.dataset, key)


def like(text: str, pattern: str) -> bool:
    """Whether the whole text fits: ``%`` is any text, ``_`` any character, and there are no escapes."""
    pieces = [re.escape(piece).replace("_", ".") for piece in pattern.split("%")]
    pieces[0] = r"\A" + pieces[0]
    pieces[-1] += r"\Z"
    at = 0
    for piece in pieces:  # the leftmost place of each leaves the most for the rest
        found = re.compile(piece, re.DOTALL).search(text, at)
        if found is None:
            return False
        at = found.end()
    return True


_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "IN": lambda value, values: value in values,
    "NOT IN": lambda value, values: value not in values,
    "LIKE": like,
    "ILIKE": lambda value, pattern: like(value.casefold(), pattern.casefold()),
}


def _compare(value: Any, node: Comparison) -> bool:
    if node.operator in NULLNESS:
        return (value is None) == (node.operator == "IS NULL")
    return value is not None and _COMPARE[node.operator](value, node.value)


def _backwards(one: Any, other: Any) -> int:
    return int(one < other) - int(one > other)


_descending = cmp_to_key(_backwards)  #: wraps a value, which then sorts the other way round


def sort_key(order: Sequence[OrderKey], entity: Entity = RUNS) -> Callable[[Any], Any]:
    """A key for ``sorted``: numbers, then NaN, then what is missing, whichever the direction."""

    def rank(value: Any, ascending: bool) -> tuple[int, Any]:
        if value is None:
            return 2, 0
        if isinstance(value, float) and math.isnan(value):
            return 1, 0
        return 0, value if ascending else _descending(value)

    return lambda record: [rank(_order_value(record, part, entity), part.ascending) for part in order]
