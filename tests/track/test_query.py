"""Filters and orders: what they mean, and that SQL and Python agree on it."""

import base64
import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cmp_to_key, partial

import pytest
from hypothesis import given, settings, strategies as st

from gittrack.errors import InvalidValueError, QuerySyntaxError
from gittrack.store.index import Index, RunModels, number_of
from gittrack.track import query
from gittrack.track.query import (
    EXPERIMENTS,
    LOGGED_MODELS,
    RUNS,
    Comparison,
    Entity,
    Field,
    Junction,
    Measured,
    Negation,
    bound_offset,
    bound_token,
    compile_query,
    compile_search,
    page_offset,
    page_token,
    parse_filter,
    parse_model_order,
    parse_order,
)
from gittrack.track.query.python import like, predicate, sort_key
from gittrack.types import Experiment, LoggedModel, MetricSummary, Run, RunData, RunInfo, ViewType
from tests.track import records

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
NAN = math.nan


def make(run_id: str, **given: object) -> Run:
    """A run with these fields, metrics (numbers), params (``p_``), tags (``t_``)."""
    info = {
        "experiment_id": "0", "user_id": "ana", "status": "FINISHED", "start_time": 0, "end_time": None,
        "lifecycle_stage": "active", "artifact_uri": "", "run_name": "",
    }  # fmt: skip
    data: dict[str, dict[str, object]] = {"m": {}, "p": {}, "t": {}}
    for name, value in given.items():
        if name in info:
            info[name] = value
        else:
            kind, _, key = name.partition("_")
            data[kind][key] = value
    return Run(RunInfo(run_id=run_id, **info), RunData(data["m"], data["p"], data["t"]))  # type: ignore[arg-type]


@pytest.fixture
def index(empty_index: Callable[[], Index]) -> Index:
    """An empty index, of every kind one after the other."""
    return empty_index()


def found(index: Index, text: str, *order: str, experiments: list[str] | None = None, limit: int = 100) -> str:
    """Ids of the runs found, without spaces between."""
    compiled = compile_search(text, order, has_metric=index.has_metric)
    return "".join(index.search_run_ids(compiled, experiments, limit=limit))


# ---------------------------------------------------------------- meaning


def test_not_equal_wants_the_key_and_not_turns_everything_round(index: Index) -> None:
    index.put_runs([make("a", m_acc=1.0), make("b", m_acc=0.0), make("c")])
    assert found(index, "metrics.acc != 1") == "b"
    assert found(index, "NOT metrics.acc = 1") == "bc"
    assert found(index, "metrics.acc IS NULL") == "c"
    assert found(index, "NOT (metrics.acc = 1 OR metrics.acc = 0)") == "c"


def test_nan_meets_not_equal_only(index: Index) -> None:
    index.put_runs([make("a", m_x=NAN), make("b", m_x=0.0), make("c", m_x=math.inf)])
    for sign in ("=", "<", "<=", ">", ">="):
        assert "a" not in found(index, f"metrics.x {sign} 0")
    assert found(index, "metrics.x != 0") == "ac"
    assert found(index, "metrics.x > 1e308") == "c"


def test_metrics_are_ordered_numbers_nan_missing_in_both_directions(index: Index) -> None:
    index.put_runs(
        [make("a"), make("b", m_x=NAN), make("c", m_x=-math.inf), make("d", m_x=math.inf), make("e", m_x=1.0)]
    )
    assert found(index, "", "metrics.x") == "cedba"
    assert found(index, "", "metrics.x DESC") == "decba"


def test_runs_come_newest_first_and_then_by_id(index: Index) -> None:
    index.put_runs([make("b", start_time=1), make("a", start_time=1), make("c", start_time=2)])
    assert found(index, "") == "cab"
    assert found(index, "", "start_time ASC") == "abc"
    assert found(index, "", "created") == "abc"
    assert found(index, "", "status") == "cab"


def test_params_are_ordered_as_text_and_missing_ones_come_last(index: Index) -> None:
    index.put_runs([make("a", p_x="10"), make("b", p_x="9"), make("c"), make("d", p_x="")])
    assert found(index, "", "params.x") == "dabc"
    assert found(index, "", "params.x DESC") == "badc"


def test_quotes_decide_between_text_and_number(index: Index) -> None:
    index.put_runs([make("a", p_lr="0.10"), make("b", p_lr="1e-1"), make("c", p_lr="9"), make("d", p_lr="auto")])
    assert found(index, "params.lr = 0.1") == "ab"
    assert found(index, "params.lr = '0.10'") == "a"
    assert found(index, "params.lr > 0.5") == "c"
    assert found(index, "params.lr != 9") == "abd"
    assert found(index, "params.lr < 1e999") == "abc"


def test_like_minds_the_case_and_ilike_does_not_in_any_script(index: Index) -> None:
    index.put_runs([make("a", p_x="Straße"), make("b", p_x="STRASSE"), make("c", p_x="ÉCOLE"), make("d", p_x="a%b~c")])
    assert found(index, "params.x LIKE 'Stra%'") == "a"
    assert found(index, "params.x ILIKE 'straSSe'") == "ab"
    assert found(index, "params.x ILIKE 'é____'") == "c"
    assert found(index, "params.x LIKE 'é____'") == ""
    assert found(index, "params.x LIKE 'a_b~c'") == "d"


def test_run_name_is_looked_for_in_its_tag(index: Index) -> None:
    index.put_runs([make("a", run_name="x", **{"t_mlflow.runName": "y"})])
    for name in ("run_name", "attributes.run_name", '"Run name"', "attributes.`Run Name`", "run.`run name`"):
        assert found(index, f"{name} = 'y'") == "a"
        assert found(index, f"{name} = 'x'") == ""


def test_summaries_of_metrics_and_metrics_of_such_names(index: Index) -> None:
    loss = MetricSummary(2.0, 0, 0, 1.0, 3.0, 3)
    plain = make("a")
    index.put_runs([Run(plain.info, RunData({"loss": 2.0}, {}, {}, {"loss": loss}))])
    assert (
        found(index, "metrics.loss.min = 1 AND metrics.loss.max = 3 AND metrics.loss.last = 2 AND metrics.loss = 2")
        == "a"
    )
    index.put_runs([make("b", **{"m_loss.min": 7.0})])
    assert found(index, "metrics.loss.min = 7") == "b"  # now as in MLflow
    assert found(index, "metrics.loss.min = 1") == ""
    assert found(index, 'metrics."loss.min" = 7') == "b"
    assert found(index, 'metrics."loss".min = 1') == "a"
    assert found(index, 'metrics."loss.max" = 3') == ""
    assert found(index, "", 'metrics."loss".min DESC') == "ab"


def test_precedence_and_trailing_and(index: Index) -> None:
    index.put_runs([make("a", p_x="1"), make("b", p_y="1"), make("c", p_y="1", p_z="1")])
    assert found(index, "params.x = '1' OR params.y = '1' AND params.z = '1'") == "ac"
    assert found(index, "(params.x = '1' OR params.y = '1') AND params.z = '1'") == "c"
    assert found(index, "NOT params.x = '1' AND params.y = '1'") == "bc"
    assert found(index, "params.y = '1' and ") == "bc"
    assert found(index, "   ") == "abc"


def test_the_tree() -> None:
    tree = parse_filter('metric.a>1 AnD (not tag.`b c` like "x\'y" or params.d in (\'1\', "2",))')
    assert tree == Junction(
        "AND",
        (
            Comparison(Field("metric", "a"), ">", 1),
            Junction(
                "OR",
                (
                    Negation(Comparison(Field("tag", "b c"), "LIKE", "x'y")),
                    Comparison(Field("param", "d"), "IN", ("1", "2")),
                ),
            ),
        ),
    )
    assert parse_filter("") is None
    assert parse_filter(None) is None


@pytest.mark.parametrize(
    ("literal", "value"),
    [("5", 5), ("-5", -5), ("+5", 5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("1E-3", 0.001), ("9" * 30, 1e30)],
)
def test_numbers(literal: str, value: float) -> None:
    tree = parse_filter(f"metrics.a = {literal}")
    assert isinstance(tree, Comparison)
    assert tree.value == value
    assert type(tree.value) is type(value)


@pytest.mark.parametrize(
    "key", ["a", "a.b.c", "train/loss", "val-acc", "k:1", "größe", "1st", "mlflow.source.git.commit"]
)
def test_keys_that_need_no_quotes(key: str) -> None:
    assert parse_filter(f"tags.{key}='x'") == Comparison(Field("tag", key), "=", "x")


# ---------------------------------------------------------------- errors

ERRORS = [
    ("metrics.acc => 0.9", 13, "use `>=`"),
    ("metrics.acc == 0.9", 13, "use `=`"),
    ("metrics.acc <> 0.9", 13, "use `!=`"),
    ("metrics.acc =< 0.9", 13, "use `<=`"),
    ("metrics.acc 0.9", 13, "one of ="),
    ("metrics.acc >", 14, "for example 0.9 or 'text'"),
    ("metrics.acc =~ 3", 13, "one of =, !=, <, <=, >, >=, IS NULL, IS NOT NULL"),
    ("metrics.acc % 3", 13, "one of =, !=, <, <=, >, >=, IS NULL, IS NOT NULL"),
    ("metrics.acc", 12, "one of =, !=, <, <=, >, >=, IS NULL, IS NOT NULL"),
    ("params.x ^ 'a'", 10, "one of =, !=, <, <=, >, >=, LIKE, ILIKE, IN, NOT IN, IS NULL, IS NOT NULL"),
    ("tags.x =~ 'a'", 8, "use `LIKE`"),
    ("tags.x @ 'a'", 8, "one of =, !=, LIKE, ILIKE, IN, NOT IN, IS NULL, IS NOT NULL"),
    ("run_id % 'a'", 8, "one of =, !=, LIKE, ILIKE, IN, NOT IN"),
    ("datasets.name % 'a'", 15, "one of =, !=, LIKE, ILIKE, IN, NOT IN"),
    ("metrics.acc > '0.9'", 15, "without quotes"),
    ("metrics.acc > abc", 15, "quote it: 'abc'"),
    ("metrics.acc > 1.2.3", 15, "quote it: '1.2.3'"),
    ("metrics.acc LIKE 'x'", 13, "one of ="),
    ("metrics.acc IN ('1')", 13, "one of ="),
    ("metrics. acc > 1", 9, None),
    ("metrics.", 9, None),
    ("metric > 1", 1, "metrics.metric"),
    ("metrics.'acc' > 1", 9, None),
    ("params.model = resnet", 16, "quote it: 'resnet'"),
    ("params.lr > '0.1'", 11, "without quotes"),
    ("params.x = 'a' & params.y = 'b'", 16, "use `AND`"),
    ("params.x = 'a' || params.y = 'b'", 16, "use `OR`"),
    ("params.x = 'a' params.y = 'b'", 16, "join conditions with AND or OR"),
    ("params.x = 'a'; DROP TABLE runs", 15, "join conditions with AND"),
    ("params.x = 'a", 12, None),
    ("params.x = 'it''s'", 16, "no escapes"),
    ("params.x = 'it\\'s'", 17, "no escapes"),
    ("params.x = `a`", 12, "quote text"),
    ("params.x IN 'a'", 13, "IN ('a', 'b')"),
    ("params.x IN ()", 14, "IN ('a', 'b')"),
    ("params.x IN ('a' 'b')", 18, None),
    ("params.x IN ('a'", 13, None),
    ("params.x IN (1)", 14, "IN ('a', 'b')"),
    ("params.x = ('a')", 12, "IN and NOT IN"),
    ("params.x NOT LIKE 'a'", 10, "NOT key LIKE"),
    ("params.x RLIKE 'a'", 10, "use `LIKE`"),
    ("params.x BETWEEN 1 AND 2", 10, "key >= low AND key <= high"),
    ("params.x is 'a'", 10, "IS NULL"),
    ("tags.x = 1", 10, "quote it: '1'"),
    ("tag.x > 'a'", 7, "one of ="),
    ("parms.x = 'a'", 1, "did you mean `params`?"),
    ("foo.x = 'a'", 1, "one of metrics"),
    ("acc > 0.9", 1, "metrics.acc"),
    ("statuss = 'FINISHED'", 1, "did you mean `status`?"),
    ("attributes.statuss = 'FINISHED'", 12, "did you mean `status`?"),
    ("status = FINISHED", 10, "quote it: 'FINISHED'"),
    ("status > 'FINISHED'", 8, "one of ="),
    ("status IS NULL", 8, None),
    ("start_time > 'yesterday'", 14, None),
    ("start_time LIKE '1%'", 12, None),
    ("datasets.foo = 'a'", 10, "one of name"),
    ("datasets.name IS NULL", 15, None),
    ("0.9 < metrics.acc", 4, "write the key first"),
    ("'a' = params.x", 1, "write the key first"),
    ("(metrics.a > 1", 1, None),
    ("metrics.a > 1)", 14, None),
    ("metrics.a > 1 AND", None, None),
    ("metrics.a > 1 AND AND metrics.b > 1", 19, None),
    ("AND metrics.a > 1", 1, None),
    ("metrics.a > 1 OR", 17, None),
    ("(metrics.a > 1 AND )", 20, None),
    ("NOT", 4, None),
    ("()", 2, None),
    ("metrics.a > 1 \ud800", 15, None),
    ("params.a = '\x00'", 13, None),
    ("__class__ = 'a'", 1, None),
    ("params.__class__.__init__ > {0}", 29, None),
    ("' OR 1=1--", 1, None),
    ('metrics."a".mean > 1', 13, "one of min"),
]


@pytest.mark.parametrize(("text", "column", "hint"), ERRORS)
def test_errors_say_where_and_what_to_do(text: str, column: int | None, hint: str | None) -> None:
    if column is None:
        parse_filter(text)
        return
    with pytest.raises(QuerySyntaxError) as caught:
        parse_filter(text)
    assert caught.value.column == column
    assert caught.value.text == text
    if hint:
        assert hint in (caught.value.hint or "")


def test_an_error_in_a_long_filter_is_no_long_message() -> None:
    text = f"run_id IN ({', '.join(repr(f'run{n}') for n in range(2000))}) and nope.x = 1"
    with pytest.raises(QuerySyntaxError, match="`nope`") as caught:
        parse_filter(text)
    assert len(str(caught.value)) < 500
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("experiment_id = 'x'", 17),
        ("experiment_id LIKE '1%'", 15),
        ("metrics.a > 1", 1),
        ("name > 'a'", 6),
        ("run.name = 'a'", 1),
        ("creation_time = '1'", 17),
    ],
)
def test_experiments_have_other_fields(text: str, column: int) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse_filter(text, EXPERIMENTS)
    assert caught.value.column == column


@pytest.mark.parametrize(
    "order",
    ["", "metrics.a DSC", "metrics.a DESC, metrics.b", "metrics.a; DROP TABLE runs", "datasets.name", "nope", "1",
     "metrics.a b", "(SELECT 1)", "metrics.a DESC NULLS LAST", "status DESC --"],
)  # fmt: skip
def test_orders_that_cannot_be_read(order: str) -> None:
    with pytest.raises(QuerySyntaxError):
        parse_order([order])


def test_orders_that_make_no_sense() -> None:
    for twice in (["metrics.a", "metrics.a DESC"], ["created", "start_time"], ["tags.x", "tag.`x`"]):
        with pytest.raises(InvalidValueError, match="twice"):
            parse_order(twice)
    with pytest.raises(InvalidValueError, match="list"):
        parse_order("metrics.a")
    with pytest.raises(InvalidValueError, match="the order is a list of texts, got int"):
        parse_order(-1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="at most"):
        parse_order([f"metrics.m{n}" for n in range(100)])
    with pytest.raises(InvalidValueError):
        parse_order([1])  # type: ignore[list-item]
    with pytest.raises(InvalidValueError):
        parse_filter(1)  # type: ignore[arg-type]


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "metrics.a > 1" + ")" * 10_000,
        "NOT " * 10_000 + "metrics.a > 1",
        "(metrics.a > 1 OR metrics.b > 1 AND " * 13 + "metrics.a > 1" + ")" * 13,
        "metrics.a > 1 AND " * 1_000 + "metrics.a > 1",
        "params.a = '" + "x" * 1_000_000 + "'",
        " " * 1_000_000,
        "run_id IN (" + "'a'," * 20_000 + "'b')",
        "params.a LIKE '" + "%_" * 5_000 + "'",
        "metrics.a > " + "9" * 200_000 + "x",
        "(" * 100_000,
        "'" * 200_001,
    ],
)
def test_too_much_is_refused_quickly(text: str) -> None:
    start = time.process_time()
    with pytest.raises(QuerySyntaxError):
        parse_filter(text)
    assert time.process_time() - start < 1


def test_what_is_just_within_the_limits_runs(index: Index) -> None:
    index.put_runs([make("a", m_a=2.0, p_a="x" * 6000), make("b")])
    assert found(index, " AND ".join(["metrics.a > 1"] * query.MAX_COMPARISONS)) == "a"
    assert found(index, " OR ".join(["metrics.a > 1"] * query.MAX_COMPARISONS)) == "a"
    assert found(index, " OR ".join(["metrics.a > 1", "params.a = 'y'"] * (query.MAX_COMPARISONS // 2))) == "a"
    nested = "(" * query.MAX_DEPTH + "metrics.a > 1" + ")" * query.MAX_DEPTH
    assert found(index, nested) == "a"
    for opening, levels in (
        ("NOT (metrics.a > 1 OR NOT metrics.b > 1 AND ", 3),
        ("(metrics.a > 1 OR metrics.b > 1 AND ", 2),
    ):
        deepest = max(
            n for n in range(20) if opening.count("(") * n <= query.MAX_DEPTH and levels * n < query.MAX_LEVELS
        )
        assert set(found(index, opening * deepest + "params.a LIKE 'y%'" + ")" * deepest)) <= {"a", "b"}
    assert found(index, f"run_id IN ({', '.join(map(repr, map(str, range(query.MAX_VALUES - 1))))}, 'b')") == "b"
    assert found(index, "", *[f"metrics.m{n}" for n in range(query.MAX_ORDER)]) == "ab"


def test_hostile_patterns_take_little_time(index: Index) -> None:
    index.put_runs([make(f"r{n}", p_a="a" * 6000) for n in range(20)])
    start = time.process_time()
    for pattern in ("%a" * 2000 + "b", "%_" * 2000 + "b", "%" * 4000 + "b", "%a%a%a%a%a%a%a%a%a%a%b%"):
        for word in ("LIKE", "ILIKE"):
            assert found(index, f"params.a {word} '{pattern}'") == ""
    assert time.process_time() - start < 5


def column_at_fault(read: Callable[[], object]) -> int | None:
    """Where ``read`` finds a mistake; None if it finds none.  Any other failure goes through."""
    try:
        read()
    except QuerySyntaxError as error:
        return error.column
    return None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metric.acc > 1", "unknown prefix `metric`"),
        ("attribute.name = 'a'", "unknown prefix `attribute`"),
        ('metrics."loss".min > 1', "a metric has no `min`"),
        ("datasets.name = 'a'", "unknown prefix"),
        ("user_id = 'a'", "a logged model has no attribute `user_id`"),
        ("creation_time LIKE 'a'", "does not go with"),
    ],
)
def test_what_logged_models_do_not_have(text: str, says: str) -> None:
    with pytest.raises(QuerySyntaxError, match=says):
        parse_filter(text, LOGGED_MODELS)


@pytest.mark.parametrize(
    "order",
    [
        "name",
        ["name"],
        [{}],
        [{"field_name": 1}],
        [{"field_name": "nothing"}],
        [{"field_name": "params.lr"}],
        [{"field_name": "name", "ascending": "no"}],
        [{"field_name": "metrics.a", "dataset_name": 1}],
        [{"field_name": f"metrics.{n}"} for n in range(31)],
    ],
)
def test_orders_of_logged_models_that_make_no_sense(order: object) -> None:
    with pytest.raises(InvalidValueError):
        parse_model_order(order)  # type: ignore[arg-type]


def test_a_page_of_logged_models_belongs_to_its_search() -> None:
    asked: dict[str, object] = {"experiment_ids": ["0"], "filter_string": None, "order_by": [{"field_name": "name"}]}
    token = bound_token(7, asked)
    assert bound_offset(token, asked) == 7
    assert bound_offset(token, {**asked, "filter_string": ""}) == 7
    assert bound_offset(None, asked) == 0
    for other in ({"experiment_ids": ["1"]}, {"filter_string": "name = 'a'"}, {"order_by": None}):
        with pytest.raises(InvalidValueError, match=next(iter(other))):
            bound_offset(token, {**asked, **other})
    for bad in ("rubbish", page_token(0), base64.b64encode(b"[]").decode()):
        with pytest.raises(InvalidValueError, match="invalid page token"):
            bound_offset(bad, asked)


@given(st.text(max_size=60) | st.text(alphabet="metrics.pa()'\"`<>=!;, \t\n10eANDORNTILKUS%_-", max_size=60))
@settings(max_examples=500)
def test_any_text_is_read_or_refused(text: str) -> None:
    for entity in (RUNS, EXPERIMENTS, LOGGED_MODELS):
        assert 1 <= (column_at_fault(partial(parse_filter, text, entity)) or 1) <= len(text) + 1
        assert 1 <= (column_at_fault(partial(parse_order, [text], entity)) or 1) <= len(text) + 1


@given(records.filters(records.run_comparisons), st.data())
@settings(max_examples=300)
def test_damaged_filters_are_read_or_refused(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 5)))
    damaged = text[:at] + data.draw(st.text(alphabet="()'\"`<>=!;, .AND\x00\ud800", max_size=3)) + text[end:]
    assert 1 <= (column_at_fault(partial(parse_filter, damaged)) or 1) <= len(damaged) + 1


# ---------------------------------------------------------------- SQL and Python


def expected(items: list, text: str, order: list[str], entity: Entity, has_metric: query.HasMetric) -> list:  # type: ignore[type-arg]
    """What Python answers."""
    where = predicate(parse_filter(text, entity, has_metric), entity)
    return sorted(filter(where, items), key=sort_key(parse_order(order, entity, has_metric), entity))


@given(
    records.many_runs(),
    st.lists(st.tuples(records.filters(records.run_comparisons), records.run_orders), min_size=1, max_size=6),
    st.none() | st.lists(st.sampled_from(("0", "7", "12", "13", "\ud800")), max_size=3),
    st.sampled_from((ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)),
    st.integers(0, 9),
    st.integers(0, 9),
)
@settings(max_examples=120 if FULL else 40)
def test_sql_and_python_find_the_same_runs(
    empty_index: Callable[[], Index],
    runs: list[Run],
    questions: list[tuple[str, list[str]]],
    experiments: list[str] | None,
    view: int,
    limit: int,
    offset: int,
) -> None:
    index = empty_index()
    index.put_runs(runs)
    visible = [
        run
        for run in runs
        if run.info.lifecycle_stage in ViewType.stages(view)
        and (experiments is None or run.info.experiment_id in experiments)
    ]
    for text, order in questions:
        try:
            compiled = compile_search(text, order, has_metric=index.has_metric)
        except QuerySyntaxError:
            raise
        except InvalidValueError:
            continue  # the order has a key twice
        wanted = [run.info.run_id for run in expected(visible, text, order, RUNS, index.has_metric)]
        assert index.search_run_ids(compiled, experiments, view, 100) == wanted
        assert index.search_run_ids(compiled, experiments, view, limit, offset) == wanted[offset : offset + limit]
        assert index.count_runs(compiled, experiments, view) == len(wanted)


@given(
    records.many_experiments(),
    st.lists(
        st.tuples(records.filters(records.experiment_comparisons), records.experiment_orders), min_size=1, max_size=6
    ),
    st.sampled_from((ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)),
    st.integers(0, 9),
    st.integers(0, 9),
)
@settings(max_examples=100 if FULL else 40)
def test_sql_and_python_find_the_same_experiments(
    empty_index: Callable[[], Index],
    experiments: list[Experiment],
    questions: list[tuple[str, list[str]]],
    view: int,
    limit: int,
    offset: int,
) -> None:
    index = empty_index()
    index.put_experiments(experiments)
    visible = [e for e in experiments if e.lifecycle_stage in ViewType.stages(view)]
    for text, order in questions:
        try:
            compiled = compile_search(text, order, EXPERIMENTS)
        except QuerySyntaxError:
            raise
        except InvalidValueError:
            continue  # the order has a key twice
        wanted = expected(visible, text, order, EXPERIMENTS, lambda _: False)
        assert index.search_experiments(compiled, view, 100) == wanted
        assert index.search_experiments(compiled, view, limit, offset) == wanted[offset : offset + limit]


@given(
    records.many_logged_models(),
    st.lists(
        st.tuples(records.filters(records.model_comparisons), records.model_orders(), records.datasets),
        min_size=1,
        max_size=6,
    ),
    st.none() | st.lists(st.sampled_from(("0", "7", "12", "13", "\ud800")), max_size=3),
    st.sampled_from((ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)),
    st.integers(0, 9),
    st.integers(0, 9),
)
@settings(max_examples=80 if FULL else 30)
def test_sql_and_python_find_the_same_logged_models(
    empty_index: Callable[[], Index],
    models: list[LoggedModel],
    questions: list[tuple[str, list[dict[str, object]], list[Measured]]],
    experiments: list[str] | None,
    view: int,
    limit: int,
    offset: int,
) -> None:
    index = empty_index()
    about = {}
    for run_id in ("r1", "r2", "r3"):
        kept = [model for model in models if model.run_id == run_id]
        points = [point for model in models for point in model.metrics if point.run_id == run_id]
        about[run_id] = RunModels(kept, points)
    index.put_runs([make(run_id) for run_id in about], about)
    visible = [
        model
        for model in models
        if model.lifecycle_stage in ViewType.stages(view)
        and (experiments is None or model.experiment_id in experiments)
    ]
    for model in models:
        assert repr(index.get_logged_model(model.model_id)) == repr(model)  # as text, since NaN equals nothing
    for text, order_by, datasets in questions:
        where, order = parse_filter(text, LOGGED_MODELS), parse_model_order(order_by)
        compiled = compile_query(where, order, LOGGED_MODELS, datasets)
        found = filter(predicate(where, LOGGED_MODELS, datasets), visible)
        wanted = [model.model_id for model in sorted(found, key=sort_key(order, LOGGED_MODELS))]
        assert [m.model_id for m in index.search_logged_models(compiled, experiments, view, 100)] == wanted
        some = index.search_logged_models(compiled, experiments, view, limit, offset)
        assert [m.model_id for m in some] == wanted[offset : offset + limit]


def test_wherever_a_search_starts_it_finds_the_same(index: Index) -> None:
    """Enough runs for every way to begin: at a rare condition, at a pattern, or walking in order."""
    scopes, offsets = (3, (0, 40, 2950, 5390)) if type(index) is Index else (1, (0, 2950))  # PostgreSQL takes longer
    runs = [
        make(
            f"r{n:05}",
            start_time=n * 7919 % 6000,
            experiment_id=str(n % 3),
            p_common=str(n % 2),
            p_rare=str(n % 1000),
            p_name=f"{'needle' if n % 500 == 0 else 'hay'}{n}",
            **({"m_x": NAN if n % 50 == 0 else (n * 7907 % 6000) / 6000} if n % 10 else {}),
        )
        for n in range(6000)
    ]
    index.put_runs(runs)
    orders: tuple[list[str], ...] = (
        [], ["metrics.x"], ["metrics.x DESC", "params.rare"], ["params.common DESC"], ["status"],
    )  # fmt: skip
    ordered = [sorted(runs, key=sort_key(parse_order(order))) for order in orders]
    begun = set()
    for text in (
        "",
        "params.common = '1'",
        "params.rare = '7'",
        "params.rare = '7' OR params.rare = '8'",
        "params.name LIKE '%needle%' AND params.common = '0'",
        "params.name ILIKE '%HAY%'",
        "metrics.x > 0.5 AND params.common = '1'",
        "metrics.x > 0.999",
        "metrics.x != 0.5",
        "metrics.x IS NOT NULL AND NOT params.common = '1'",
        "params.rare > 990 AND params.common = 1",
        "run_id IN ('r00001', 'r00700') OR run_id LIKE 'r0123%'",
    ):
        meant = {run.info.run_id for run in filter(predicate(parse_filter(text)), runs)}
        for order, every in zip(orders, ordered, strict=True):
            compiled = compile_search(text, order)
            for experiments in (None, ["1"], ["0", "2"])[:scopes]:
                within = [run for run in every if not experiments or run.info.experiment_id in experiments]
                wanted = [run.info.run_id for run in within if run.info.run_id in meant]
                for offset in offsets:
                    assert index.search_run_ids(compiled, experiments, 1, 50, offset) == wanted[offset : offset + 50]
                with index._reading():
                    scope = index._scope(experiments) or ()
                    start = index._start((*scope, *compiled.conditions), compiled.order[0], 50)
                begun.add(start.table if start else None)
    assert begun == {None, "params", "metrics", "runs"}


def slow_like(text: str, pattern: str) -> bool:
    """LIKE by trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(slow_like(text[at:], pattern[1:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and slow_like(text[1:], pattern[1:])


@given(st.text("ab\n%_~", max_size=8), st.text("ab%_~\n", max_size=8))
@settings(max_examples=500)
def test_like_is_what_it_is_said_to_be(text: str, pattern: str) -> None:
    assert like(text, pattern) == slow_like(text, pattern)


@given(st.lists(st.sampled_from((*records.FLOATS, None)), max_size=8), st.booleans())
def test_the_sort_key_is_the_rule(values: list[float | None], ascending: bool) -> None:
    def compare(one: Run, other: Run) -> int:
        def rank(value: float | None) -> int:
            return 2 if value is None else int(value != value)

        a, b = one.data.metrics.get("x"), other.data.metrics.get("x")
        if rank(a) or rank(b):
            return rank(a) - rank(b)
        assert a is not None
        assert b is not None
        return ((a > b) - (a < b)) * (1 if ascending else -1)

    runs = [make(f"{n:03}", **({} if value is None else {"m_x": value})) for n, value in enumerate(values)]
    key = sort_key(parse_order([f"metrics.x {'ASC' if ascending else 'DESC'}"]))
    assert sorted(runs, key=key) == sorted(runs, key=cmp_to_key(compare))


@given(st.floats(allow_nan=False) | st.integers())
def test_every_number_that_python_writes_is_a_number(value: float) -> None:
    assert number_of(str(value)) == float(value)
    assert number_of(f" {value} ") == float(value)


@pytest.mark.parametrize(
    "text", ["", "nan", "-nan", "1_0", "0x10", "٣", "1e", "e1", ".", "--1", "1 2", "infinit", "1f"]
)
def test_what_is_no_number(text: str) -> None:
    assert number_of(text) is None


def test_values_are_bound_and_never_written_into_sql() -> None:
    evil = "x'; DROP TABLE runs; --"
    compiled = compile_query(
        parse_filter(
            f'metrics."{evil}" > 1 AND params.`{evil}` = "{evil}" AND run_name LIKE "{evil}%" AND user_id IN ("{evil}")'
        ),
        parse_order([f'metrics."{evil}" DESC', f"tags.`{evil}`"]),
    )
    for condition in compiled.conditions:
        assert "DROP" not in condition.sql + condition.row
        assert re.fullmatch(r"[\w\s.,:()=<>!~'1-9]*", condition.sql)
    assert all("DROP" not in key.column for key in compiled.order)


# ---------------------------------------------------------------- pages


def test_page_tokens_are_mlflows() -> None:
    assert page_offset(page_token(50)) == 50
    assert json.loads(base64.b64decode(page_token(7))) == {"offset": 7}
    assert page_offset(None) == 0
    assert page_offset("") == 0
    assert page_offset(base64.b64encode(b'{"offset": "12"}')) == 12


@pytest.mark.parametrize(
    "inside",
    [
        *(
            b"",
            b"x",
            b"{}",
            b"[]",
            b"5",
            b"[" * 100_000,
            b"\xff",
            b'{"offset": 0}',
            b'{"offset": -1}',
            b'{"offset": "x"}',
        ),
        *(b'{"offset": null}', b'{"offset": [1]}', b'{"offset": 1e400}', b'{"offset": 9223372036854775808}'),
    ],
)
def test_other_page_tokens_are_refused(inside: bytes) -> None:
    token = base64.b64encode(inside).decode() or "!"
    with pytest.raises(InvalidValueError):
        page_offset(token)


@given(st.text(min_size=1))
def test_any_page_token_is_read_or_refused(token: str) -> None:
    with suppress(InvalidValueError):
        assert page_offset(token) > 0
