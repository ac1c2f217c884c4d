"""Answers documents of MLflow's GraphQL: every root field is a REST route that is asked for the same caller.

``schema.graphql`` says what there is.  What a root field reads goes through the route's message, its permission and
its handler, so nobody learns here what REST would not tell him, and what he may not see is as if it were not there.
So do the experiment and the versions of a run.  What is wrong with a field is a text among the ``errors``, as MLflow
has it, and the field is null.  A value that is not there is what protocol buffers make of it: an empty text, a zero.
NaN, which JSON has not, is null.

What a document may cost is looked at before it is validated, since that costs something, too: tokens, root fields,
aliases, depth, selections; how much fields are compared with each other, the library limits.  Each root field counts
as a request of the caller's.  While it is answered, its values are counted, since a library that calls Python for every
one takes much longer than REST for the same.  Introspection is refused: no client of MLflow's needs it, and what tools
ask by it is deeper than any document that is answered.

Source: https://spec.graphql.org/October2021/ and MLflow 3's ``mlflow/server/graphql``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, cast

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLSchema,
    InlineFragmentNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    SelectionSetNode,
    build_schema,
    execute_sync,
    is_enum_type,
    is_list_type,
    parse,
    specified_rules,
    validate,
)

from gittrack.errors import GittrackError
from gittrack.server.hub.app import discreet, shown
from gittrack.server.hub.routes import Call

if TYPE_CHECKING:
    from gittrack.server.hub.guard import Guard

Json = dict[str, Any]

_MAX_TOKENS: Final = 10_000
_MAX_ROOT_FIELDS: Final = 10
_MAX_ALIASES: Final = 10  #: at one level
_MAX_DEPTH: Final = 10
_MAX_SELECTIONS: Final = 1000
_MAX_ERRORS: Final = 20  #: of validation
_MAX_VALUES: Final = 250_000  #: two seconds; MLflow's page asks for 200,000 where it draws a hundred runs
_VALUES_OF_A_ROUTE: Final = 1000  #: that asking one costs

#: The route that a field stands for; for those of a run, what is asked of it.
_ROUTES: Final = {
    "mlflowGetExperiment": ("GET", "{api}/mlflow/experiments/get"),
    "mlflowGetMetricHistoryBulkInterval": ("GET", "{api}/mlflow/metrics/get-history-bulk-interval"),
    "mlflowGetRun": ("GET", "{api}/mlflow/runs/get"),
    "mlflowListArtifacts": ("GET", "{api}/mlflow/artifacts/list"),
    "mlflowSearchModelVersions": ("GET", "{api}/mlflow/model-versions/search"),
    "mlflowSearchRuns": ("POST", "{api}/mlflow/runs/search"),
    "mlflowSearchDatasets": ("POST", "{api}/mlflow/experiments/search-datasets"),
}
_NOTHING: Final = {"String": "", "LongString": "0", "Boolean": False, "Float": 0.0, "ApiError": None}

_log = logging.getLogger("gittrack.server")


def answer(call: Call, text: str, variables: Mapping[str, Any] | None, operation: str | None) -> Json:
    """What a document asks for.

    Args:
        call: The request.
        text: The document.
        variables: Their values.
        operation: Which of its operations; None: the only one.

    Raises:
        TooManyRequestsError: It asks for more than the caller may ask now.
    """
    try:
        found = _executed(call, text, variables, operation)
    except GraphQLError as error:
        found = ExecutionResult(None, [error])
    except _AbandonedError:
        found = ExecutionResult(None, [GraphQLError(f"the answer has more than {_MAX_VALUES} values: ask for fewer")])
    return {"data": found.data, "errors": [shown(one.message) for one in found.errors] if found.errors else None}


def _executed(call: Call, text: str, variables: Mapping[str, Any] | None, operation: str | None) -> ExecutionResult:
    document = parse(text, no_location=True, max_lexical_tokens=_MAX_TOKENS)
    root_fields = _check_cost(document)
    rules = (*specified_rules, NoSchemaIntrospectionCustomRule)
    errors = validate(_schema(), document, rules, max_errors=_MAX_ERRORS)
    if errors:
        return ExecutionResult(None, errors)
    guard: Guard | None = call.request.scope.get("gittrack.guard")
    if guard is not None and root_fields > 1:  # the first was counted as the request
        guard.count(call.request.scope, root_fields - 1)
    return execute_sync(
        _schema(),
        document,
        context_value=_Asking(call),
        variable_values=None if variables is None else dict(variables),
        operation_name=operation,
        field_resolver=_value,
        middleware=(_counted,),
    )


@cache
def _schema() -> GraphQLSchema:
    schema = build_schema(files(__package__).joinpath("schema.graphql").read_text(encoding="utf-8"))
    for root in filter(None, (schema.query_type, schema.mutation_type)):
        for name, field in root.fields.items():
            field.resolve = _of_route if name in _ROUTES else _echo
    run = cast("GraphQLObjectType", schema.type_map["MlflowRunExtension"])
    run.fields["experiment"].resolve = _experiment
    run.fields["modelVersions"].resolve = _versions
    return schema


# --- what a document costs


def _check_cost(document: DocumentNode) -> int:
    """Refuse a document that costs too much to look at; how many root fields it has.  Raises GraphQLError.

    Fragments are counted where they are used, and by themselves, since validation looks at each of them, too.
    """
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}
    root_fields = 0
    for definition in document.definitions:
        if isinstance(definition, (OperationDefinitionNode, FragmentDefinitionNode)):
            counted = _Counted(fragments)
            first = counted.level(definition.selection_set, 1)
            if isinstance(definition, OperationDefinitionNode):
                root_fields += first
                _check_most("root fields", root_fields, _MAX_ROOT_FIELDS)
            _check_most("aliases", counted.aliases, _MAX_ALIASES)
    return root_fields


def _check_most(what: str, found: int, most: int) -> None:
    if found > most:
        raise GraphQLError(f"GraphQL queries should have at most {most} {what}, got {found} {what}")


class _Counted:
    """Counts what is selected below an operation or a fragment.

    Args:
        fragments: Those of the document.

    Attributes:
        aliases: The most at one level.
    """

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self.aliases = 0
        self._fragments = fragments
        self._selections = 0

    def level(self, selected: SelectionSetNode, depth: int) -> int:
        """Count a level and those below it; how many fields it has.  Raises GraphQLError."""
        if depth > _MAX_DEPTH:
            raise GraphQLError(f"Query exceeds maximum depth of {_MAX_DEPTH}")
        fields = list(self._fields(selected, set()))
        self.aliases = max(self.aliases, sum(one.alias is not None for one in fields))
        for one in fields:
            if one.selection_set is not None:
                self.level(one.selection_set, depth + 1)
        return len(fields)

    def _fields(self, selected: SelectionSetNode, seen: set[str]) -> Iterator[FieldNode]:
        """The fields of a level, those of its fragments, too."""
        waiting = [selected]
        while waiting:
            for one in waiting.pop().selections:
                self._selections += 1
                if self._selections > _MAX_SELECTIONS:
                    raise GraphQLError(f"Query exceeds maximum total selections of {_MAX_SELECTIONS}")
                if isinstance(one, FieldNode):
                    yield one
                elif isinstance(one, InlineFragmentNode):
                    waiting.append(one.selection_set)
                elif isinstance(one, FragmentSpreadNode) and one.name.value not in seen:
                    seen.add(one.name.value)
                    if one.name.value in self._fragments:
                        waiting.append(self._fragments[one.name.value].selection_set)


# --- how fields are answered


class _AbandonedError(BaseException):
    """It has too many values.  No Exception: the library would make every value that is left an error of its own."""


class _Asking:
    """One document that is being answered.

    Args:
        call: The request.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._left = _MAX_VALUES
        self._found: dict[tuple[str, str], Json] = {}

    def count(self, values: int) -> None:
        """Count values of the answer.  Raises _AbandonedError."""
        self._left -= values
        if self._left < 0:
            raise _AbandonedError

    def route(self, field: str, given: Mapping[str, Any]) -> Json:
        """What a field's route answers.  Raises GraphQLError, _AbandonedError."""
        self.count(_VALUES_OF_A_ROUTE)
        call, wanted = self._call, _ROUTES[field]
        route = next(one for one in call.hub.routes if (one.method, one.path) == wanted)
        try:
            values = {} if route.message is None else route.message.values(given)
            found: Json = route.answered(call._replace(values=values))
        except GittrackError as error:
            raise GraphQLError(shown(str(discreet(error, call.caller)))) from None
        except Exception:  # noqa: BLE001 - a bug of ours: said in the log, and to nobody outside
            _log.exception("%s of GraphQL failed, request %s", field, call.request.scope.get("gittrack.request", ""))
            raise GraphQLError("the server failed; its log says why") from None
        return found

    def once(self, field: str, name: str, value: str) -> Json:
        """The same, of a field that runs have in common: it is asked once for each value."""
        if (field, value) not in self._found:
            self._found[field, value] = self.route(field, {name: value})
        return self._found[field, value]


def _of_route(_: Any, info: GraphQLResolveInfo[Any], input: Mapping[str, Any] | None = None) -> Json:
    asking: _Asking = info.context
    return asking.route(info.field_name, {_snake(name): value for name, value in (input or {}).items()})


def _echo(_: Any, _info: GraphQLResolveInfo[Any], inputString: str | None = None) -> Json:  # noqa: N803 - the schema's name
    return {"output": inputString}


def _experiment(run: Json, info: GraphQLResolveInfo[Any]) -> Json:
    asking: _Asking = info.context
    found: Json = asking.once("mlflowGetExperiment", "experiment_id", run["info"]["experiment_id"])["experiment"]
    return found


def _versions(run: Json, info: GraphQLResolveInfo[Any]) -> list[Json]:
    asking: _Asking = info.context
    found = asking.once("mlflowSearchModelVersions", "filter", f"run_id = '{run['info']['run_id']}'")
    versions: list[Json] = found.get("model_versions", [])
    return versions


def _counted(answered: Callable[..., Any], source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    asking: _Asking = info.context
    asking.count(1)
    return answered(source, info, **arguments)


def _value(source: Json, info: GraphQLResolveInfo[Any]) -> Any:
    """A field of a route's JSON."""
    value = source.get(_snake(info.field_name))
    if value is None:
        return _nothing(info.return_type)
    name = getattr(info.return_type, "name", None)
    if name == "LongString":
        return str(value)
    return None if name == "Float" and value == "NaN" else value


@cache
def _nothing(kind: GraphQLOutputType) -> Any:
    """A value that is not there, as protocol buffers have it."""
    if is_list_type(kind):
        return ()
    if is_enum_type(kind):
        return next(iter(kind.values))
    return _NOTHING.get(getattr(kind, "name", ""), {})


@cache
def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)
