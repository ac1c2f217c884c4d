"""Filters and orders: MLflow's language and more, read into a tree that becomes SQL, a Python predicate or a sort key.

    metrics.acc > 0.9 AND (params.model = 'resnet' OR NOT tags.stage LIKE 'draft%')

As in MLflow: ``metrics. params. tags. attributes. datasets.`` and, for attributes, no prefix; keys quoted by ``"`` or a
backtick; text quoted by ``'`` or ``"``, without escapes; ``= != < <= > >= LIKE ILIKE IN NOT IN IS NULL IS NOT NULL``;
``!=`` and ``NOT IN`` do not match what lacks the key; NaN meets ``!=`` only.

Beyond it: ``OR``, ``NOT``, parentheses; ``params.lr > 0.01`` (no quotes) compares as numbers, and a parameter that is
no number meets ``!=`` only; ``IN`` for params, tags and every text attribute; ``metrics.loss.min``, ``.max`` and
``.last``; ``attributes.commit``, ``.branch`` and ``.dirty`` of the code.  ``NOT`` turns true to false and false to
true: ``NOT metrics.acc > 0.9`` also matches a run without ``acc``.

``metrics.loss.min``: if any run has a metric of that whole name, it is meant, as in MLflow; otherwise the least value
of ``loss``.  ``metrics."loss.min"`` is always the first, ``metrics."loss".min`` always the second.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Union

from gittrack.errors import InvalidValueError, QuerySyntaxError
from gittrack.store.index import CONTEXT_TAG, CompiledQuery, Condition, Order, exists, key_is, number_of
from gittrack.types import Experiment, MetricSummary, Run

MAX_LENGTH: Final = 262_144  #: characters of a filter
MAX_DEPTH: Final = 50  #: parentheses and NOTs inside each other
MAX_LEVELS: Final = 24  #: ANDs, ORs and NOTs inside each other, where parentheses make a difference
MAX_COMPARISONS: Final = 200  #: of a filter
MAX_PATTERN: Final = 5_000  #: characters of a pattern for LIKE
MAX_VALUES: Final = 10_000  #: in all lists of a filter together
MAX_ORDER: Final = 30  #: keys of an order

METRIC: Final = "metric"
PARAM: Final = "param"
TAG: Final = "tag"
ATTRIBUTE: Final = "attribute"
DATASET: Final = "dataset"

_RUN_NAME: Final = "mlflow.runName"
_SUMMARIES: Final = {"min": "minimum", "max": "maximum", "last": "value"}
_ORDERED: Final = ("=", "!=", "<", "<=", ">", ">=")
_TEXTUAL: Final = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
_NULLNESS: Final = ("IS NULL", "IS NOT NULL")

# ---------------------------------------------------------------- what can be asked of what


class Attribute(NamedTuple):
    """A fixed field of an entity.

    Attributes:
        column: Its name in the entity's table.
        read: The same of the Python record.
        number: It is an integer; otherwise text.
        nullable: It can be missing.
        indexed: The database finds rows by it quickly.
        operators: The comparisons it takes.
        tag: If not empty, a filter looks at this tag instead (and an order does not), as MLflow does it.
        order: SQL over the entity's row ``r`` by which it is ordered; empty: by ``column``.
        order_read: The same of the Python record.
    """

    column: str
    read: Callable[[Any], Any]
    number: bool = False
    nullable: bool = False
    indexed: bool = False
    operators: tuple[str, ...] = _TEXTUAL
    tag: str = ""
    order: tuple[str, ...] = ()
    order_read: Callable[[Any], Any] | None = None


class Entity(NamedTuple):
    """A kind of thing that can be searched.

    Attributes:
        name: What a message calls one of them.
        table: Its SQL table.
        tables: SQL table for each kind of key it has beside attributes.
        prefixes: The word before the dot, and the kind it stands for.
        attributes: By name.
        aliases: Other names of attributes.
        default_order: Used if no order is given.
        last_order: Appended to any order that does not have these keys already; the last one is unique.
        lookup: Of a record, kind and key: the value (of a metric its summary), or None.
    """

    name: str
    table: str
    tables: Mapping[str, str]
    prefixes: Mapping[str, str]
    attributes: Mapping[str, Attribute]
    aliases: Mapping[str, str]
    default_order: tuple[str, ...]
    last_order: tuple[str, ...]
    lookup: Callable[[Any, str, str], Any]


def _info(name: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.info, name)


def _code(name: str) -> Callable[[Run], Any]:
    return lambda run: None if run.code.get(name) is None else str(run.code[name])


def _dirty(run: Run) -> str | None:
    dirty = run.code.get("dirty")
    return None if dirty is None else str(bool(dirty)).lower()


def _of_run(run: Run, kind: str, key: str) -> MetricSummary | str | None:
    if kind != METRIC:
        return (run.data.params if kind == PARAM else run.data.tags).get(key)
    value = run.data.metrics.get(key)
    return None if value is None else run.data.summaries.get(key, MetricSummary(value, 0, 0, value, value, 1))


def _of_experiment(experiment: Experiment, _kind: str, key: str) -> str | None:
    return experiment.tags.get(key)


RUNS: Final = Entity(
    name="run",
    table="runs",
    tables={METRIC: "metrics", PARAM: "params", TAG: "tags", DATASET: "inputs"},
    prefixes={
        **dict.fromkeys(("metrics", "metric"), METRIC),
        **dict.fromkeys(("params", "param", "parameters", "parameter"), PARAM),
        **dict.fromkeys(("tags", "tag"), TAG),
        **dict.fromkeys(("attributes", "attribute", "attr", "run"), ATTRIBUTE),
        **dict.fromkeys(("datasets", "dataset"), DATASET),
    },
    attributes={
        "run_id": Attribute("run_id", _info("run_id"), indexed=True),
        "run_name": Attribute("run_name", _info("run_name"), tag=_RUN_NAME),
        "status": Attribute("status", _info("status"), indexed=True),
        "user_id": Attribute("user_id", _info("user_id")),
        "artifact_uri": Attribute("artifact_uri", _info("artifact_uri")),
        "start_time": Attribute("start_time", _info("start_time"), number=True, indexed=True, operators=_ORDERED),
        "end_time": Attribute("end_time", _info("end_time"), number=True, nullable=True, operators=_ORDERED),
        "commit": Attribute("code_commit", _code("commit"), nullable=True, indexed=True),
        "branch": Attribute("code_branch", _code("branch"), nullable=True),
        "dirty": Attribute("code_dirty", _dirty, nullable=True),
    },
    aliases={
        **dict.fromkeys(("created", "Created"), "start_time"),
        **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
    },
    default_order=(),
    last_order=("start_time DESC", "run_id ASC"),
    lookup=_of_run,
)

EXPERIMENTS: Final = Entity(
    name="experiment",
    table="experiments",
    tables={TAG: "experiment_tags"},
    prefixes={
        **dict.fromkeys(("tags", "tag"), TAG),
        **dict.fromkeys(("attributes", "attribute", "attr"), ATTRIBUTE),
    },
    attributes={
        "name": Attribute("name", operator.attrgetter("name")),
        "experiment_id": Attribute(
            "experiment_id",
            operator.attrgetter("experiment_id"),
            operators=("=", "!=", "IN", "NOT IN"),
            order=("LENGTH(r.experiment_id)", "r.experiment_id"),  # as the numbers they are
            order_read=lambda experiment: (len(experiment.experiment_id), experiment.experiment_id),
        ),
        "creation_time": Attribute(
            "creation_time", operator.attrgetter("creation_time"), number=True, nullable=True, operators=_ORDERED
        ),
        "last_update_time": Attribute(
            "last_update_time",
            operator.attrgetter("last_update_time"),
            number=True,
            nullable=True,
            operators=_ORDERED,
        ),
    },
    aliases={},
    default_order=("creation_time DESC", "experiment_id ASC"),
    last_order=("experiment_id DESC",),
    lookup=_of_experiment,
)

_DATASET_KEYS = ("name", "digest", "context")

# ---------------------------------------------------------------- the tree


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


class Comparison(NamedTuple):
    """``field operator value``; ``value`` is text, a number, a tuple of texts, or None for IS [NOT] NULL."""

    field: Field
    operator: str
    value: str | int | float | tuple[str, ...] | None


class Junction(NamedTuple):
    """All (``AND``) or any (``OR``) of two or more parts."""

    operator: str
    parts: tuple[Node, ...]


class Negation(NamedTuple):
    """What ``part`` does not match."""

    part: Node


Node = Union[Comparison, Junction, Negation]  # noqa: UP007 — `|` of a recursive type is not for Python 3.10


class OrderKey(NamedTuple):
    """One key of an order."""

    field: Field
    ascending: bool


HasMetric = Callable[[str], bool]


def _no_metric(_key: str) -> bool:
    return False


# ---------------------------------------------------------------- reading

_WORD = re.compile(r"[^\W\d]\w*")
_BARE_KEY = re.compile(r"[\w./:@-]+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_SIGNS = re.compile(r"[<>=!~&|*%^]+")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
_AFTER_NUMBER = re.compile(r"[\w.]")

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


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, entity: Entity, has_metric: HasMetric) -> None:
        self.text = text
        self.entity = entity
        self.has_metric = has_metric
        self.at = 0
        self.comparisons = 0
        self.listed = 0
        if len(text) > MAX_LENGTH:
            # Only the start is shown: the message would be as long as the text.
            raise QuerySyntaxError(
                f"{len(text)} characters, at most {MAX_LENGTH}",
                text=text[:40] + "…",
                column=1,
                hint="ask for less at once",
            )
        bad = _NO_TEXT.search(text)
        if bad is not None:
            raise self.error("not a character: a NUL or half of one (a lone surrogate)", at=bad.start())

    def error(self, message: str, hint: str | None = None, at: int | None = None) -> QuerySyntaxError:
        column = (self.at if at is None else at) + 1
        return QuerySyntaxError(message, text=self.text, column=column, hint=hint)

    # -- pieces

    def match(self, pattern: re.Pattern[str]) -> str:
        """What ``pattern`` matches here, after spaces; empty if nothing."""
        self.space()
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found.group()

    def space(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        self.space()
        return self.text[self.at : self.at + 1]

    def keyword(self, *words: str) -> bool:
        """True if these words come next; then they are read."""
        start = self.at
        for word in words:
            if self.match(_WORD).upper() != word:
                self.at = start
                return False
        return True

    def describe(self) -> str:
        """What comes next, for a message."""
        character = self.peek()
        if not character:
            return "the end"
        word = _BARE_KEY.match(self.text, self.at) or _SIGNS.match(self.text, self.at)
        return f"`{word.group() if word else character:.40}`"

    def quoted(self, marks: str) -> str | None:
        """The inside of a quoted text that starts here with one of ``marks``; None if none does."""
        mark = self.peek()
        if not mark or mark not in marks:
            return None
        end = self.text.find(mark, self.at + 1)
        if end < 0:
            raise self.error(f"no closing {mark}")
        inside = self.text[self.at + 1 : end]
        self.at = end + 1
        after = self.text[self.at : self.at + 1]
        if after == mark or (inside.endswith("\\") and (after.isalnum() or after == "_")):
            raise self.error(
                "more text right after a closing quote", "there are no escapes: quote with the other of ' and \""
            )
        return inside

    # -- grammar

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
        signs = _SIGNS.match(self.text, self.at)
        hint = _SIGN_HINTS.get(signs.group(), None) if signs else None
        return self.error(f"expected AND, OR or the end, found {self.describe()}", hint=hint)

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
        sign = self.operator()
        if sign in _NULLNESS:
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
            prefix = self.match(_WORD)
        if not prefix:
            raise self.no_field()
        if prefix.upper() in _KEYWORDS and not self.text.startswith(("`", '"', "."), start):
            raise self.error(f"expected a condition, found `{prefix}`", at=start)
        if self.text[self.at : self.at + 1] != ".":
            return self.attribute(prefix, start)
        kind = self.entity.prefixes.get(prefix)
        if kind is None:
            hint = _nearest(prefix, self.entity.prefixes) or "one of " + _listed(self.entity.prefixes)
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
            key = self.match(_BARE_KEY)
        if not key:
            raise self.error(f"a name is missing after the dot, found {self.describe()}", at=start)
        if kind == ATTRIBUTE:
            return self.attribute(key, start)
        if kind == DATASET and key not in _DATASET_KEYS:
            raise self.error(f"datasets have no `{key:.40}`", hint="one of " + _listed(_DATASET_KEYS), at=start)
        return self.metric(key, exact) if kind == METRIC else Field(kind, key)

    def metric(self, key: str, exact: bool) -> Field:
        if exact:
            if self.text[self.at : self.at + 1] != ".":
                return Field(METRIC, key)
            self.at += 1
            start, suffix = self.at, self.match(_WORD)
            if suffix not in _SUMMARIES:
                raise self.error(f"a metric has no `{suffix:.40}`", hint="one of " + _listed(_SUMMARIES), at=start)
            return Field(METRIC, key, _SUMMARIES[suffix])
        base, _, suffix = key.rpartition(".")
        if base and suffix in _SUMMARIES and not self.has_metric(key):
            return Field(METRIC, base, _SUMMARIES[suffix])
        return Field(METRIC, key)

    def attribute(self, name: str, start: int) -> Field:
        known = self.entity.attributes
        canonical = self.entity.aliases.get(name, name)
        if canonical in known:
            return Field(ATTRIBUTE, canonical)
        others = [prefix for prefix in ("metrics", "params", "tags") if prefix in self.entity.prefixes]
        hint = _nearest(name, known) or (
            f"write {', '.join(f'{prefix}.{name:.40}' for prefix in others)}, or one of {_listed(known)}"
        )
        raise self.error(f"a {self.entity.name} has no attribute `{name:.40}`", hint=hint, at=start)

    # -- operators and values

    def operator(self) -> str:
        start = self.at
        signs = self.match(_SIGNS)
        if signs:
            if signs not in _ORDERED:
                raise self.error(f"unknown operator `{signs:.20}`", hint=_SIGN_HINTS.get(signs), at=start)
            return signs
        for words in (("IS", "NOT", "NULL"), ("IS", "NULL"), ("NOT", "IN"), ("IN",), ("LIKE",), ("ILIKE",)):
            if self.keyword(*words):
                return " ".join(words)
        self.space()
        start = self.at
        if self.keyword("NOT", "LIKE") or self.keyword("NOT", "ILIKE"):
            raise self.error("NOT goes before the key", hint="write NOT key LIKE 'pattern'", at=start)
        word = self.match(_WORD).upper()
        self.at = start
        raise self.error(
            f"expected an operator, found {self.describe()}",
            hint=_WORD_HINTS.get(word, "one of " + _listed((*_ORDERED, "LIKE", "ILIKE", "IN", "NOT IN", *_NULLNESS))),
        )

    def value(self) -> str | int | float:
        text = self.quoted("'\"")
        if text is not None:
            return text
        start = self.at
        number = self.match(_NUMBER)
        if number and not _AFTER_NUMBER.match(self.text, self.at):
            if not _INTEGER.fullmatch(number):
                return float(number)
            # A longer one is beyond every integer that can be stored; int() would take quadratic time for it.
            whole = int(number) if len(number) < 20 else 1 << 64
            return whole if -(1 << 63) <= whole < 1 << 63 else float(number)
        self.at = start
        word = _BARE_KEY.match(self.text, self.at)
        hint = f"quote it: '{word.group():.40}'" if word else None
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
            self.space()
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
            allowed: Collection[str] = _ORDERED
        elif left.kind == ATTRIBUTE:
            allowed = self.entity.attributes[left.key].operators
        else:
            allowed = _TEXTUAL
        if sign not in allowed:
            hint = "one of " + _listed(allowed)
            if left.kind == PARAM and not number and sign in _ORDERED:
                hint = "to compare as numbers write the number without quotes"
            raise self.error(f"`{sign}` does not go with {_described(left)}", hint=hint, at=at)

    def check_value(self, left: Field, value: str | float, at: int) -> None:
        number = isinstance(value, (int, float))
        wants_number = left.kind == METRIC or (left.kind == ATTRIBUTE and self.entity.attributes[left.key].number)
        if wants_number and not number:
            hint = "write it without quotes" if number_of(str(value)) is not None else None
            raise self.error(f"{_described(left)} is a number, not text", hint=hint, at=at)
        if number and not wants_number and left.kind != PARAM:
            end = self.at
            raise self.error(f"{_described(left)} is text", hint=f"quote it: '{self.text[at:end]:.40}'", at=at)
        if left == Field(ATTRIBUTE, "experiment_id") and not _INTEGER.fullmatch(str(value)):
            raise self.error(f"invalid experiment id `{value!s:.40}`", hint="a decimal number", at=at)


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


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _nearest(word: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # only for a message

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else None


def parse_filter(text: str | None, entity: Entity = RUNS, has_metric: HasMetric = _no_metric) -> Node | None:
    """The tree of a filter; None if it is empty and matches everything.

    Args:
        text: The filter.
        entity: What is searched.
        has_metric: Whether any run has a metric of a name; decides what ``metrics.loss.min`` means.

    Raises:
        QuerySyntaxError: It cannot be read, or is beyond the limits of this module.
    """
    if not text:
        return None
    if not isinstance(text, str):
        raise InvalidValueError(f"a filter is text, not {type(text).__name__}")
    return _Reader(text, entity, has_metric).read_filter()


def parse_order(
    order_by: Sequence[str] | None, entity: Entity = RUNS, has_metric: HasMetric = _no_metric
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


def _order_key(text: str, entity: Entity, has_metric: HasMetric) -> OrderKey:
    if not isinstance(text, str):
        raise InvalidValueError(f"a key of an order is text, not {type(text).__name__}")
    reader = _Reader(text, entity, has_metric)
    start = len(text) - len(text.lstrip())
    key = reader.field()
    if key.kind == DATASET:
        raise reader.error("runs cannot be ordered by their datasets", at=start)
    ascending = not reader.keyword("DESC")
    if ascending:
        reader.keyword("ASC")
    if reader.peek():
        hint = "give each key as a text of its own" if reader.peek() == "," else None
        raise reader.error(f"expected ASC, DESC or the end, found {reader.describe()}", hint=hint)
    return OrderKey(key, ascending)


# ---------------------------------------------------------------- SQL


class _Place(NamedTuple):
    table: str
    key: str
    column: str


def _place(node: Comparison, entity: Entity) -> _Place:
    """Where the database has the value that a comparison looks at."""
    kind, key, summary = node.field
    if kind == ATTRIBUTE:
        attribute = entity.attributes[key]
        if attribute.tag:
            return _Place(entity.tables[TAG], attribute.tag, "value")
        return _Place(entity.table, "", attribute.column)
    if kind == DATASET:
        return _Place(entity.tables[kind], "", key)
    numeric = kind == PARAM and isinstance(node.value, (int, float))
    return _Place(entity.tables[kind], key, "number" if numeric else summary)


class _Writer:
    """Writes SQL for a tree, with every value in ``params``, whose names start with ``prefix``."""

    def __init__(self, entity: Entity, prefix: str) -> None:
        self.entity = entity
        self.prefix = prefix
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
        table = _place(node, self.entity).table
        if table == self.entity.table:
            return self.row(node, "r")
        found = exists(table, self.row(node))
        return f"NOT {found}" if node.operator == "IS NULL" else found

    def row(self, node: Comparison, alias: str = "x") -> str:
        """A condition over a row of the table where the value is, true also for what IS NULL asks the absence of."""
        table, key, column = _place(node, self.entity)
        column = f"{alias}.{column}"
        if table == self.entity.table:
            if node.operator in _NULLNESS:
                return f"{column} {node.operator}"
            test = self.compare(column, node)
            return f"({column} IS NOT NULL AND {test})" if self.entity.attributes[node.field.key].nullable else test
        if not key:
            return self.compare(column, node)
        condition = key_is(self.bind(key))
        if node.operator in _NULLNESS:
            return condition
        test = self.compare(column, node)
        if node.operator == "!=" and isinstance(node.value, (int, float)):
            test = f"({test} OR {column} IS NULL)"  # NULL is no number, and so different from every number
        return f"{condition} AND {test}"

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
        bounds = _prefix_bounds(node)
        if bounds is None:
            return test
        low, high = map(self.bind, bounds)
        return f"({column} >= :{low} AND {column} < :{high} AND {test})"


def _prefix_bounds(node: Comparison) -> tuple[str, str] | None:
    """For LIKE with a pattern that starts with plain text: bounds of what can match, for an index to use."""
    if node.operator != "LIKE":
        return None
    prefix = re.split("[%_]", str(node.value), maxsplit=1)[0]
    if not prefix or prefix[-1] == "\U0010ffff":
        return None
    following = ord(prefix[-1]) + 1
    return prefix, prefix[:-1] + chr(0xE000 if following == 0xD800 else following)


def _indexed(node: Comparison, entity: Entity) -> bool:
    """Whether the database finds the rows of a comparison without walking over all rows of its key."""
    if node.operator in ("!=", "NOT IN", "IS NULL", "ILIKE") or (node.operator == "LIKE" and not _prefix_bounds(node)):
        return False
    if node.field.kind == ATTRIBUTE:
        attribute = entity.attributes[node.field.key]
        return attribute.indexed or bool(attribute.tag)
    return node.field != Field(DATASET, "context")


def _condition(node: Node, entity: Entity, prefix: str) -> Condition:
    writer = _Writer(entity, prefix)
    parts = node.parts if isinstance(node, Junction) and node.operator == "OR" else (node,)
    comparisons = [part for part in parts if isinstance(part, Comparison) and part.operator != "IS NULL"]
    places = {_place(part, entity) for part in comparisons}
    if len(comparisons) != len(parts) or len({place.table for place in places}) > 1:
        return Condition(writer.sql(node), writer.params)
    # That one row or another meets its part is that one row meets one part or the other.
    row = "(" + " OR ".join(f"({writer.row(part)})" for part in comparisons) + ")"
    table, key, column = next(iter(places))
    if len(places) > 1:
        key, column = key if len({place.key for place in places}) == 1 else "", ""
    sql = row.replace("x.", "r.") if table == entity.table else exists(table, row)
    return Condition(sql, writer.params, table, row, key, column, all(_indexed(part, entity) for part in comparisons))


def _orders(key: OrderKey, entity: Entity) -> Iterable[Order]:
    kind, name = key.field.kind, key.field.key
    if kind != ATTRIBUTE:
        return [Order(key.field.summary, key.ascending, entity.tables[kind], name, indexed=True)]
    attribute = entity.attributes[name]
    columns = attribute.order or (f"r.{attribute.column}",)
    return [Order(column, key.ascending, nullable=attribute.nullable, indexed=attribute.indexed) for column in columns]


def compile_query(where: Node | None, order: Iterable[OrderKey], entity: Entity = RUNS) -> CompiledQuery:
    """A tree and an order as SQL for the index."""
    parts: tuple[Node, ...] = () if where is None else (where,)
    if isinstance(where, Junction) and where.operator == "AND":
        parts = where.parts
    return CompiledQuery(
        tuple(_condition(part, entity, f"c{number}p") for number, part in enumerate(parts)),
        tuple(sql for key in order for sql in _orders(key, entity)),
    )


def compile_search(
    filter_string: str | None,
    order_by: Sequence[str] | None = None,
    entity: Entity = RUNS,
    has_metric: HasMetric = _no_metric,
) -> CompiledQuery:
    """``parse_filter``, ``parse_order`` and ``compile_query`` in one; raises what they raise."""
    where = parse_filter(filter_string, entity, has_metric)
    return compile_query(where, parse_order(order_by, entity, has_metric), entity)


# ---------------------------------------------------------------- Python


def predicate(where: Node | None, entity: Entity = RUNS) -> Callable[[Any], bool]:
    """A function that says whether a record matches: what SQL answers, said without SQL."""
    return lambda record: where is None or _matches(where, record, entity)


def _matches(node: Node, record: Any, entity: Entity) -> bool:
    if isinstance(node, Negation):
        return not _matches(node.part, record, entity)
    if isinstance(node, Junction):
        return (all if node.operator == "AND" else any)(_matches(part, record, entity) for part in node.parts)
    if node.field.kind == DATASET:
        return any(_compare(value, node) for value in _dataset_values(record, node.field.key))
    value = _value(record, node.field, entity, for_order=False)
    if value is not None and node.field.kind == PARAM and isinstance(node.value, (int, float)):
        value = number_of(value)
        if value is None:
            return node.operator == "!="
    return _compare(value, node)


def _value(record: Any, left: Field, entity: Entity, *, for_order: bool) -> Any:
    if left.kind != ATTRIBUTE:
        found = entity.lookup(record, left.kind, left.key)
        return getattr(found, left.summary) if isinstance(found, MetricSummary) else found
    attribute = entity.attributes[left.key]
    if attribute.tag and not for_order:
        return entity.lookup(record, TAG, attribute.tag)
    return ((for_order and attribute.order_read) or attribute.read)(record)


def _dataset_values(run: Run, key: str) -> Iterable[str]:
    for use in run.inputs.dataset_inputs:
        if key == "context":
            yield from (tag.value for tag in use.tags if tag.key == CONTEXT_TAG)
        else:
            yield getattr(use.dataset, key)


def _like(text: str, pattern: str) -> bool:
    """``%`` is any text, ``_`` any character, no escapes."""
    pieces = pattern.split("%")
    first, last = re.compile(_fixed(pieces[0])), re.compile(_fixed(pieces[-1]))
    if len(pieces) == 1:
        return first.fullmatch(text) is not None
    if first.match(text) is None:
        return False
    at = len(pieces[0])
    for piece in pieces[1:-1]:  # the leftmost place of each leaves the most for the rest
        found = re.compile(_fixed(piece)).search(text, at)
        if found is None:
            return False
        at = found.end()
    end = len(text) - len(pieces[-1])
    return end >= at and last.match(text, end) is not None


def _fixed(piece: str) -> str:
    return "(?s:" + re.escape(piece).replace("_", ".") + ")"


_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "IN": lambda value, values: value in values,
    "NOT IN": lambda value, values: value not in values,
    "LIKE": _like,
    "ILIKE": lambda value, pattern: _like(value.casefold(), pattern.casefold()),
}


def _compare(value: Any, node: Comparison) -> bool:
    if node.operator in _NULLNESS:
        return (value is None) == (node.operator == "IS NULL")
    return value is not None and _COMPARE[node.operator](value, node.value)


class _Descending:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(other.value == self.value)

    __hash__ = None  # type: ignore[assignment]


def sort_key(order: Sequence[OrderKey], entity: Entity = RUNS) -> Callable[[Any], Any]:
    """A key for ``sorted``: numbers, then NaN, then what is missing, whichever the direction."""

    def key(record: Any) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = []
        for part in order:
            value = _value(record, part.field, entity, for_order=True)
            if value is None:
                found.append((2, 0))
            elif isinstance(value, float) and math.isnan(value):
                found.append((1, 0))
            else:
                found.append((0, value if part.ascending else _Descending(value)))
        return found

    return key


# ---------------------------------------------------------------- pages


def page_token(offset: int) -> str:
    """The token for the page that starts at ``offset``, as MLflow writes it."""
    import base64

    return base64.b64encode(b'{"offset": %d}' % offset).decode()


def page_offset(token: str | bytes | None) -> int:
    """Where the page of a token starts; 0 without one.

    Raises:
        InvalidValueError: It is no token.
    """
    if not token:
        return 0
    import base64
    import json

    try:
        found = json.loads(base64.b64decode(token))
        offset = int(found["offset"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise _bad_token(token) from error
    if not 0 < offset < 1 << 63:
        raise _bad_token(token)
    return offset


def _bad_token(token: str | bytes) -> InvalidValueError:
    return InvalidValueError(f"invalid page token `{token!s:.40}`", hint="use the token of the page before, unchanged")
