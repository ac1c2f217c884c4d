"""A tree and an order to SQL: the conditions and keys of a ``CompiledQuery``, which the index puts into statements.

Values go into parameters, never into the SQL, which is put together from the constants of ``entities`` and of this
module.  It may assume what ``tree`` says of trees, and of the index what ``Condition`` and ``Order`` say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gittrack.store.index import CompiledQuery, Condition, Order, exists, key_is
from gittrack.track.query.entities import ATTRIBUTE, DATASET, METRIC, NULLNESS, PARAM, RUNS, TAG, Entity
from gittrack.track.query.grammar import HasMetric, no_metric, parse_filter, parse_order
from gittrack.track.query.tree import Comparison, Field, Junction, Measured, Negation, Node, OrderKey


def compile_search(
    filter_string: str | None,
    order_by: Sequence[str] | None = None,
    entity: Entity = RUNS,
    has_metric: HasMetric = no_metric,
) -> CompiledQuery:
    """``parse_filter``, ``parse_order`` and ``compile_query`` in one; raises what they raise."""
    where = parse_filter(filter_string, entity, has_metric)
    return compile_query(where, parse_order(order_by, entity, has_metric), entity)


def compile_query(
    where: Node | None, order: Iterable[OrderKey], entity: Entity = RUNS, datasets: Sequence[Measured] = ()
) -> CompiledQuery:
    """A tree and an order as SQL for the index.

    Args:
        where: The tree.
        order: The order.
        entity: What is searched.
        datasets: If there are any, comparisons of metrics look at what was measured on one of these only.
    """
    parts: tuple[Node, ...]
    if where is None:
        parts = ()
    elif isinstance(where, Junction) and where.operator == "AND":
        parts = where.parts
    else:
        parts = (where,)
    return CompiledQuery(
        tuple(_condition(part, entity, f"c{number}p", datasets) for number, part in enumerate(parts)),
        tuple(sql for key in order for sql in _orders(key, entity)),
    )


def measured_on(datasets: Sequence[Measured], entity: Entity) -> Condition:
    """The condition that something was measured on one of these datasets."""
    writer = _Writer(entity, "m", datasets)
    return Condition(exists(entity.tables[METRIC], writer.of_datasets("x")), writer.params)


def _condition(node: Node, entity: Entity, prefix: str, datasets: Sequence[Measured]) -> Condition:
    writer = _Writer(entity, prefix, datasets)
    parts = node.parts if isinstance(node, Junction) and node.operator == "OR" else (node,)
    comparisons = [part for part in parts if isinstance(part, Comparison) and part.operator != "IS NULL"]
    places = {_place(part, entity) for part in comparisons}
    if len(comparisons) != len(parts) or len({table for table, _, _ in places}) > 1:
        return Condition(writer.sql(node), writer.params)
    # That one row or another meets its part is that one row meets one part or the other.
    row = "(" + " OR ".join(f"({writer.row(part)})" for part in comparisons) + ")"
    table, key, column = _place(comparisons[0], entity)
    sql = row.replace("x.", "r.") if table == entity.table else exists(table, row)
    if len({key for _, key, _ in places}) > 1:
        key = ""
    if len(places) > 1:
        column = ""
    return Condition(sql, writer.params, table, row, key, column, all(_indexed(part, entity) for part in comparisons))


def _orders(key: OrderKey, entity: Entity) -> Iterable[Order]:
    kind, name = key.field.kind, key.field.key
    if kind != ATTRIBUTE:
        among: dict[str, str] | None = None
        if kind in entity.several:
            said = zip(("dataset_name", "dataset_digest"), key.dataset or (), strict=False)
            among = {column: value for column, value in said if value is not None}
        return [Order(key.field.summary, key.ascending, entity.tables[kind], name, indexed=True, among=among)]
    attribute = entity.attributes[name]
    columns = attribute.order or (f"r.{attribute.column}",)
    return [Order(column, key.ascending, nullable=attribute.nullable, indexed=attribute.indexed) for column in columns]


def _place(node: Comparison, entity: Entity) -> tuple[str, str, str]:
    """Where the database has the value that a comparison looks at: table, key (or empty), column."""
    kind, key, summary = node.field
    if kind == ATTRIBUTE:
        attribute = entity.attributes[key]
        if attribute.tag:
            return entity.tables[TAG], attribute.tag, "value"
        return entity.table, "", attribute.column
    if kind == DATASET:
        return entity.tables[kind], "", key
    numeric = kind == PARAM and isinstance(node.value, (int, float))
    return entity.tables[kind], key, "number" if numeric else summary


class _Writer:
    """Writes SQL for a tree, with every value in ``params``, whose names start with ``prefix``."""

    def __init__(self, entity: Entity, prefix: str, datasets: Sequence[Measured] = ()) -> None:
        self.entity = entity
        self.prefix = prefix
        self.datasets = datasets
        self.params: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        name = f"{self.prefix}{len(self.params)}"
        self.params[name] = value
        return name

    def sql(self, node: Node) -> str:
        """A condition over the entity's row ``r``."""
        if isinstance(node, Junction):  # without needless parentheses: SQLite takes a hundred of anything open at most
            parts = ((self.sql(part), isinstance(part, Junction) and part.operator == "OR") for part in node.parts)
            return f" {node.operator} ".join(f"({sql})" if is_or else sql for sql, is_or in parts)
        if isinstance(node, Negation):
            inner = self.sql(node.part)
            return f"NOT ({inner})" if isinstance(node.part, Junction) else f"NOT {inner}"
        table, _, _ = _place(node, self.entity)
        if table == self.entity.table:
            return self.row(node, "r")
        found = exists(table, self.row(node))
        return f"NOT {found}" if node.operator == "IS NULL" else found

    def row(self, node: Comparison, alias: str = "x") -> str:
        """A condition over a row of the table where the value is, true also for what IS NULL asks the absence of."""
        table, key, column = _place(node, self.entity)
        column = f"{alias}.{column}"
        if table == self.entity.table:
            if node.operator in NULLNESS:
                return f"{column} {node.operator}"
            test = self.compare(column, node)
            return f"({column} IS NOT NULL AND {test})" if self.entity.attributes[node.field.key].nullable else test
        if not key:
            return self.compare(column, node)
        condition = key_is(self.bind(key))
        if self.datasets and node.field.kind == METRIC:
            condition += f" AND {self.of_datasets(alias)}"
        if node.operator in NULLNESS:
            return condition
        test = self.compare(column, node)
        if node.operator == "!=" and isinstance(node.value, (int, float)):
            test = f"({test} OR {column} IS NULL)"  # NULL is no number, and so different from every number
        return f"{condition} AND {test}"

    def of_datasets(self, alias: str) -> str:
        """A condition that a point was measured on one of the datasets."""
        parts = []
        for dataset in self.datasets:
            part = f"{alias}.dataset_name = :{self.bind(dataset.name)}"
            if dataset.digest is not None:
                part += f" AND {alias}.dataset_digest = :{self.bind(dataset.digest)}"
            parts.append(f"({part})")
        return f"({' OR '.join(parts)})"

    def compare(self, column: str, node: Comparison) -> str:
        if isinstance(node.value, tuple):
            marks = ", ".join(":" + self.bind(value) for value in node.value)
            return f"{column} {node.operator} ({marks})"
        if node.operator not in ("LIKE", "ILIKE"):
            return f"{column} {node.operator} :{self.bind(node.value)}"
        pattern = str(node.value).replace("~", "~~")  # databases differ in what escapes if it is not said
        if node.operator == "ILIKE":
            return f"fold_text({column}) LIKE :{self.bind(pattern.casefold())} ESCAPE '~'"
        test = f"{column} LIKE :{self.bind(pattern)} ESCAPE '~'"
        bounds = _prefix_bounds(str(node.value))
        if bounds is None:
            return test
        low, high = map(self.bind, bounds)
        return f"({column} >= :{low} AND {column} < :{high} AND {test})"


def _prefix_bounds(pattern: str) -> tuple[str, str] | None:
    """For a pattern that starts with plain text: bounds of what it can match, for an index to use."""
    prefix = re.split("[%_]", pattern, maxsplit=1)[0]
    if not prefix or prefix[-1] == "\U0010ffff":
        return None
    following = ord(prefix[-1]) + 1
    return prefix, prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def _indexed(node: Comparison, entity: Entity) -> bool:
    """Whether the database finds the rows of a comparison without walking over all rows of its key."""
    if node.operator in ("!=", "NOT IN", "IS NULL", "ILIKE"):
        return False
    if node.operator == "LIKE" and not _prefix_bounds(str(node.value)):
        return False
    if node.field.kind == ATTRIBUTE:
        attribute = entity.attributes[node.field.key]
        return attribute.indexed or bool(attribute.tag)
    return node.field != Field(DATASET, "context")
