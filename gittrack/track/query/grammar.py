"""A text to a tree, or to the keys of an order: the grammar, and what goes with what.

A parser by hand, one method for each rule, that refuses what is too much before it costs anything.  It may assume
nothing of a text; a tree that it returns keeps what ``tree`` promises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from gittrack.errors import InvalidValueError, QuerySyntaxError, shown
from gittrack.store.index import number_of
from gittrack.track.query.entities import (
    ATTRIBUTE,
    DATASET,
    DATASET_KEYS,
    LOGGED_MODELS,
    METRIC,
    NULLNESS,
    ORDERED,
    PARAM,
    RUNS,
    TAG,
    TEXTUAL,
    Entity,
)
from gittrack.track.query.reader import BARE_KEY, SIGNS, WORD, Reader
from gittrack.track.query.tree import Comparison, Field, Junction, Measured, Negation, Node, OrderKey

MAX_DEPTH: Final = 50  #: parentheses and NOTs inside each other
MAX_LEVELS: Final = 24  #: ANDs, ORs and NOTs inside each other, where parentheses make a difference
MAX_COMPARISONS: Final = 200  #: of a filter
MAX_PATTERN: Final = 5_000  #: characters of a pattern for LIKE
MAX_VALUES: Final = 10_000  #: in all lists of a filter together
MAX_ORDER: Final = 30  #: keys of an order

HasMetric = Callable[[str], bool]  #: whether any run has a metric of this name

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = "[+-]?[0-9]+"

_SIGN_HINTS: Final = {
    "==": "use `=`",
    "===": "use `=`",
    "=>": "use `>=`",
    "=<": "use `<=`",
    "<>": "use `!=`",
    "=!": "use `!=`",
    "!": "use `NOT`",
    "!==": "use `!=`",
    "~": "use `LIKE` with `%` and `_`; there are no regular expressions",
    "=~": "use `LIKE` with `%` and `_`; there are no regular expressions",
    "&": "use `AND`",
    "&&": "use `AND`",
    "|": "use `OR`",
    "||": "use `OR`",
}
_WORD_HINTS: Final = {
    "BETWEEN": "write `key >= low AND key <= high`",
    "RLIKE": "use `LIKE` with `%` and `_`; there are no regular expressions",
    "REGEXP": "use `LIKE` with `%` and `_`; there are no regular expressions",
    "CONTAINS": "use `LIKE '%text%'`",
    "EQUALS": "use `=`",
}
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE"})


def no_metric(_key: str) -> bool:
    """No run has any metric."""
    return False


def parse_filter(text: str | None, entity: Entity = RUNS, has_metric: HasMetric = no_metric) -> Node | None:
    """The tree of a filter; None if it is empty and matches everything.

    Args:
        text: The filter.
        entity: What is searched.
        has_metric: Decides what ``metrics.loss.min`` means.

    Raises:
        QuerySyntaxError: It cannot be read, or is beyond the limits of this module.
    """
    if not text:
        return None
    if not isinstance(text, str):
        raise InvalidValueError(f"a filter is text, not {type(text).__name__}")
    return _Parser(text, entity, has_metric).read_filter()


def parse_order(
    order_by: Sequence[str] | None, entity: Entity = RUNS, has_metric: HasMetric = no_metric
) -> tuple[OrderKey, ...]:
    """The keys of an order, made total by the entity's own last keys.

    Args:
        order_by: Texts such as ``metrics.acc DESC``; None or empty for the default.
        entity: What is searched.
        has_metric: As for ``parse_filter``.

    Raises:
        QuerySyntaxError: A text cannot be read.
        InvalidValueError: A key is there twice, or there are too many.
    """
    if isinstance(order_by, str):
        raise InvalidValueError("the order is a list of texts, not one text", hint=f"[{order_by!r:.80}]")
    if not isinstance(order_by, (Sequence, type(None))):
        raise InvalidValueError(f"the order is a list of texts, got {type(order_by).__name__}")
    if order_by and len(order_by) > MAX_ORDER:
        raise InvalidValueError(f"{len(order_by)} keys in an order, at most {MAX_ORDER}")
    keys: dict[Field, OrderKey] = {}
    for text in order_by or entity.default_order:
        key = _order_key(text, entity, has_metric)
        if key.field in keys:
            raise InvalidValueError(f"`{text:.80}` is in the order twice")
        keys[key.field] = key
    for text in entity.last_order:
        key = _order_key(text, entity, has_metric)
        keys.setdefault(key.field, key)
    return tuple(keys.values())


def parse_model_order(order_by: Sequence[Mapping[str, Any]] | None) -> tuple[OrderKey, ...]:
    """The keys of an order of logged models, which MLflow writes as dicts, made total.

    Args:
        order_by: Dicts of ``field_name`` (an attribute, or ``metrics.<name>``), ``ascending`` (True if not given) and,
            for a metric, ``dataset_name`` and ``dataset_digest``; None or empty for the newest first.

    Raises:
        InvalidValueError: Something else, or too much of it.
    """
    if isinstance(order_by, (str, bytes)) or not isinstance(order_by, (Sequence, type(None))):
        raise InvalidValueError(f"the order is a list of dicts, got {type(order_by).__name__}")
    if order_by and len(order_by) > MAX_ORDER:
        raise InvalidValueError(f"{len(order_by)} keys in an order, at most {MAX_ORDER}")
    keys: dict[tuple[Field, Measured | None], OrderKey] = {}
    for told in order_by or ():
        key = _model_order_key(told)
        keys.setdefault((key.field, key.dataset), key)  # the same again decides nothing
    for text in LOGGED_MODELS.last_order:
        key = _order_key(text, LOGGED_MODELS, no_metric)
        keys.setdefault((key.field, None), key)
    return tuple(keys.values())


def _model_order_key(told: Mapping[str, Any]) -> OrderKey:
    name = told.get("field_name") if isinstance(told, Mapping) else None
    if not isinstance(name, str):
        raise InvalidValueError("a key of an order of logged models is a dict with `field_name`")
    ascending = told.get("ascending", True)
    dataset = Measured(told.get("dataset_name") or None, told.get("dataset_digest") or None)
    if not isinstance(ascending, (bool, type(None))) or not all(isinstance(one, (str, type(None))) for one in dataset):
        raise InvalidValueError(
            f"order by `{shown(name)}`: `ascending` is true or false, `dataset_name` and `dataset_digest` are text"
        )
    kind, dot, key = name.partition(".")
    if dot and kind != "metrics":
        raise InvalidValueError(
            f"logged models cannot be ordered by `{shown(name)}`", hint="metrics.<name>, or an attribute without prefix"
        )
    if dot:
        return OrderKey(Field(METRIC, key), ascending is not False, dataset)
    canonical = LOGGED_MODELS.aliases.get(name, name)
    if canonical not in LOGGED_MODELS.attributes:
        raise InvalidValueError(
            f"logged models cannot be ordered by `{shown(name)}`", hint=_one_of(LOGGED_MODELS.attributes)
        )
    return OrderKey(Field(ATTRIBUTE, canonical), ascending is not False)


def _order_key(text: str, entity: Entity, has_metric: HasMetric) -> OrderKey:
    if not isinstance(text, str):
        raise InvalidValueError(f"a key of an order is text, not {type(text).__name__}")
    parser = _Parser(text, entity, has_metric)
    parser.space()
    start = parser.at
    key = parser.field()
    if key.kind == DATASET:
        raise parser.error("runs cannot be ordered by their datasets", at=start)
    ascending = not parser.keyword("DESC")
    if ascending:
        parser.keyword("ASC")
    if parser.peek():
        hint = "give each key as a text of its own" if parser.peek() == "," else None
        raise parser.error(f"expected ASC, DESC or the end, found {parser.describe()}", hint=hint)
    return OrderKey(key, ascending)


class _Parser(Reader):
    """Reads one filter, or one key of an order."""

    def __init__(self, text: str, entity: Entity, has_metric: HasMetric) -> None:
        super().__init__(text)
        self.entity = entity
        self.has_metric = has_metric
        self.comparisons = 0
        self.listed = 0

    # -- conditions

    def read_filter(self) -> Node | None:
        if not self.peek():
            return None
        node = self.disjunction(0)
        if self.peek():
            raise self.unexpected()
        if _levels(node) > MAX_LEVELS:
            raise self.error(f"more than {MAX_LEVELS} levels of AND, OR and NOT", at=0)
        return node

    def unexpected(self) -> QuerySyntaxError:
        character = self.peek()
        if character == ";":
            return self.error("`;`: one filter at a time", hint="join conditions with AND")
        if character == ")":
            return self.error("no parenthesis is open here")
        signs = SIGNS.match(self.text, self.at)
        hint = _SIGN_HINTS.get(signs.group()) if signs else None
        return self.error(
            f"expected AND, OR or the end, found {self.describe()}", hint=hint or "join conditions with AND or OR"
        )

    def disjunction(self, depth: int) -> Node:
        parts = [self.conjunction(depth)]
        while self.keyword("OR"):
            parts.append(self.conjunction(depth))
        return _join("OR", parts)

    def conjunction(self, depth: int) -> Node:
        parts = [self.factor(depth)]
        while self.keyword("AND"):
            if not self.peek() and depth == 0:
                break  # MLflow takes a trailing AND
            parts.append(self.factor(depth))
        return _join("AND", parts)

    def factor(self, depth: int) -> Node:
        self.space()
        if depth > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep")
        if self.keyword("NOT"):
            return Negation(self.factor(depth + 1))
        if self.peek() == "(":
            opened = self.at
            self.at += 1
            node = self.disjunction(depth + 1)
            if self.peek() != ")":
                if self.peek():
                    raise self.error(f"expected AND, OR or `)`, found {self.describe()}")
                raise self.error("this parenthesis is never closed", at=opened)
            self.at += 1
            return node
        return self.comparison()

    def comparison(self) -> Comparison:
        self.comparisons += 1
        if self.comparisons > MAX_COMPARISONS:
            raise self.error(f"more than {MAX_COMPARISONS} comparisons", hint="use IN for lists of values")
        left = self.field()
        self.space()
        place = self.at
        sign = self.operator(left)
        if sign in NULLNESS:
            self.check_nullness(left, sign, place)
            return Comparison(left, sign, None)
        if sign in ("IN", "NOT IN"):
            self.check_operator(left, sign, None, place)
            return Comparison(left, sign, self.values_in(left))
        self.space()
        value_at = self.at
        value = self.value()
        self.check_operator(left, sign, value, place)
        self.check_value(left, value, value_at)
        if "LIKE" in sign and len(str(value)) > MAX_PATTERN:
            raise self.error(f"a pattern of more than {MAX_PATTERN} characters", at=value_at)
        return Comparison(left, sign, value)

    # -- fields

    def field(self) -> Field:
        self.space()
        start = self.at
        prefix = self.quoted('`"')
        if prefix is None:
            if self.peek() == "'":
                raise self.error("a text where a key should be", hint="write the key first: params.model = 'text'")
            prefix = self.match(WORD)
        if not prefix:
            raise self.no_field()
        if prefix.upper() in _KEYWORDS and not self.text.startswith(("`", '"', "."), start):
            raise self.error(f"expected a condition, found `{prefix}`", at=start)
        if self.here() != ".":
            return self.attribute(prefix, start)
        kind = self.entity.prefixes.get(prefix)
        if kind is None:
            hint = _nearest(prefix, self.entity.prefixes) or _one_of(self.entity.prefixes)
            raise self.error(f"unknown prefix `{prefix:.40}`", hint=hint, at=start)
        self.at += 1
        return self.key(kind)

    def no_field(self) -> QuerySyntaxError:
        if self.match(_NUMBER):
            return self.error("a number where a key should be", hint="write the key first: metrics.acc > 0.9")
        return self.error(
            f"expected a condition, found {self.describe()}",
            hint="for example metrics.acc > 0.9 or status = 'FINISHED'",
        )

    def key(self, kind: str) -> Field:
        """What is after the dot."""
        start = self.at
        if self.text[start : start + 1].isspace():
            raise self.error("a space after the dot")
        key = self.quoted('`"')
        exact = key is not None
        if key is None:
            key = self.match(BARE_KEY)
        if not key:
            raise self.error(f"a name is missing after the dot, found {self.describe()}", at=start)
        if kind == ATTRIBUTE:
            return self.attribute(key, start)
        if kind == DATASET and key not in DATASET_KEYS:
            raise self.error(f"datasets have no `{key:.40}`", hint=_one_of(DATASET_KEYS), at=start)
        return self.metric(key, exact) if kind == METRIC else Field(kind, key)

    def metric(self, key: str, exact: bool) -> Field:
        if exact:
            if self.here() != ".":
                return Field(METRIC, key)
            self.at += 1
            start, suffix = self.at, self.match(WORD)
            known = self.entity.summaries
            if suffix not in known:
                hint = _one_of(known) if known else "quote all of its name"
                raise self.error(f"a metric has no `{suffix:.40}`", hint=hint, at=start)
            return Field(METRIC, key, known[suffix])
        base, _, suffix = key.rpartition(".")
        if base and suffix in self.entity.summaries and not self.has_metric(key):
            return Field(METRIC, base, self.entity.summaries[suffix])
        return Field(METRIC, key)

    def attribute(self, name: str, start: int) -> Field:
        known = self.entity.attributes
        canonical = self.entity.aliases.get(name, name)
        if canonical in known:
            return Field(ATTRIBUTE, canonical)
        others = [prefix for prefix in ("metrics", "params", "tags") if prefix in self.entity.prefixes]
        hint = _nearest(name, known) or (
            f"write {', '.join(f'{prefix}.{name:.40}' for prefix in others)}, or {_one_of(known)}"
        )
        raise self.error(f"a {self.entity.name} has no attribute `{name:.40}`", hint=hint, at=start)

    # -- operators and values

    def operators(self, left: Field) -> tuple[str, ...]:
        """All that go with a field."""
        known = self.entity.attributes
        nullness = NULLNESS if left.kind != DATASET and (left.kind != ATTRIBUTE or known[left.key].nullable) else ()
        if left.kind == ATTRIBUTE:
            return (*known[left.key].operators, *nullness)
        ordered = ORDERED if left.kind in (METRIC, PARAM) else ()
        textual = TEXTUAL if left.kind != METRIC else ()
        return tuple(dict.fromkeys((*ordered, *textual, *nullness)))

    def operator(self, left: Field) -> str:
        start = self.at
        known = self.operators(left)
        signs = self.match(SIGNS)
        if signs:
            if signs not in ORDERED:
                hint = _SIGN_HINTS.get(signs)
                fits = hint is not None and ("LIKE" not in hint or "LIKE" in known)
                raise self.error(f"unknown operator `{signs:.20}`", hint=hint if fits else _one_of(known), at=start)
            return signs
        for words in (("IS", "NOT", "NULL"), ("IS", "NULL"), ("NOT", "IN"), ("IN",), ("LIKE",), ("ILIKE",)):
            if self.keyword(*words):
                return " ".join(words)
        if self.keyword("NOT", "LIKE") or self.keyword("NOT", "ILIKE"):
            raise self.error("NOT goes before the key", hint="write NOT key LIKE 'pattern'", at=start)
        word = self.match(WORD).upper()
        self.at = start
        raise self.error(
            f"expected an operator, found {self.describe()}",
            hint=_WORD_HINTS.get(word, _one_of(known)),
        )

    def value(self) -> str | int | float:
        text = self.quoted("'\"")
        if text is not None:
            return text
        start = self.at
        number = self.match(_NUMBER)
        after = self.here()
        if number and not (after.isalnum() or after in ("_", ".")):
            if not re.fullmatch(_INTEGER, number):
                return float(number)
            # A longer one is beyond every integer that can be stored; int() would take quadratic time for it.
            whole = int(number) if len(number) < 20 else 1 << 64
            return whole if -(1 << 63) <= whole < 1 << 63 else float(number)
        self.at = start
        word = BARE_KEY.match(self.text, self.at)
        hint = f"quote it: '{word.group():.40}'" if word else "for example 0.9 or 'text'"
        if self.peek() == "(":
            hint = "lists go with IN and NOT IN"
        if self.peek() == "`":
            hint = "quote text with ' or \""
        raise self.error(f"expected a number or quoted text, found {self.describe()}", hint=hint)

    def values_in(self, left: Field) -> tuple[str, ...]:
        if self.peek() != "(":
            raise self.error(f"expected a list, found {self.describe()}", hint="for example IN ('a', 'b')")
        opened = self.at
        self.at += 1
        values: list[str] = []
        while True:
            if self.peek() == ")" and values:
                break
            start = self.at
            value = self.quoted("'\"")
            if value is None:
                raise self.error(f"expected quoted text, found {self.describe()}", hint="for example IN ('a', 'b')")
            self.check_value(left, value, start)
            values.append(value)
            self.listed += 1
            if self.listed > MAX_VALUES:
                raise self.error(f"more than {MAX_VALUES} values in lists")
            if self.peek() == ",":
                self.at += 1
            elif self.peek() != ")":
                if not self.peek():
                    raise self.error("this list is never closed", at=opened)
                raise self.error(f"expected `,` or `)`, found {self.describe()}")
        self.at += 1
        return tuple(values)

    # -- what goes with what

    def check_nullness(self, left: Field, sign: str, at: int) -> None:
        known = self.entity.attributes
        if left.kind == DATASET or (left.kind == ATTRIBUTE and not known[left.key].nullable):
            raise self.error(f"{sign} is for params, tags, metrics and attributes that can be missing", at=at)

    def check_operator(self, left: Field, sign: str, value: str | float | None, at: int) -> None:
        number = isinstance(value, (int, float))
        if left.kind == METRIC or (left.kind == PARAM and number):
            allowed: tuple[str, ...] = ORDERED
        elif left.kind == ATTRIBUTE:
            allowed = self.entity.attributes[left.key].operators
        else:
            allowed = TEXTUAL
        if sign not in allowed:
            hint = _one_of(allowed)
            if left.kind == PARAM and not number and sign in ORDERED:
                hint = "to compare as numbers write the number without quotes"
            raise self.error(f"`{sign}` does not go with {_described(left)}", hint=hint, at=at)

    def check_value(self, left: Field, value: str | float, at: int) -> None:
        wants_number = left.kind == METRIC or (left.kind == ATTRIBUTE and self.entity.attributes[left.key].number)
        if isinstance(value, str):
            if wants_number:
                hint = "write it without quotes" if number_of(value) is not None else None
                raise self.error(f"{_described(left)} is a number, not text", hint=hint, at=at)
            if left == Field(ATTRIBUTE, "experiment_id") and not re.fullmatch(_INTEGER, value):
                raise self.error(f"invalid experiment id `{value:.40}`", hint="a decimal number", at=at)
        elif not wants_number and left.kind != PARAM:
            raise self.error(f"{_described(left)} is text", hint=f"quote it: '{self.text[at : self.at]:.40}'", at=at)


def _join(sign: str, parts: list[Node]) -> Node:
    """All or any of ``parts``; parts of the same kind are dissolved: ``a AND (b AND c)`` is ``a AND b AND c``."""
    flat: list[Node] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Junction) and part.operator == sign else (part,))
    return flat[0] if len(flat) == 1 else Junction(sign, tuple(flat))


def _levels(node: Node) -> int:
    if isinstance(node, Comparison):
        return 0
    return 1 + (_levels(node.part) if isinstance(node, Negation) else max(map(_levels, node.parts)))


def _described(left: Field) -> str:
    return {METRIC: "a metric", PARAM: "a param", TAG: "a tag", DATASET: "a dataset's field"}.get(
        left.kind, f"`{left.key}`"
    )


def _one_of(words: Iterable[str]) -> str:
    return "one of " + ", ".join(words)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # only for a message

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else None
