"""MLflow's GraphQL: the REST routes under other names, for whoever may ask those, at a cost that is limited."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gittrack.server.hub import graphql_documents
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.graphql_documents import _MAX_TOKENS, _ROUTES, _schema, _snake
from gittrack.server.hub.messages import Message
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.throttle import Rates
from tests.conftest import Sandbox
from tests.server.conftest import Answer
from tests.server.team import Team, serving

EXPERIMENT = "query Q($of: MlflowGetExperimentInput!) {mlflowGetExperiment(input: $of) {experiment {name}}}"


@pytest.fixture
def team(git_repo: Sandbox) -> Iterator[Team]:
    with serving(git_repo.path) as found:
        yield found


def asked(team: Team, query: Any, token: str | None = None, **more: Any) -> Answer:
    return team.ask("POST", "/graphql", {"query": query, **more}, token)


def data(team: Team, query: str, token: str | None = None, **more: Any) -> Any:
    found = asked(team, query, token, **more).ok
    assert found["errors"] is None, found
    return found["data"]


def errors(team: Team, query: str, **more: Any) -> list[str]:
    found = asked(team, query, **more).ok
    assert found["data"] is None, found
    said: list[str] = found["errors"]
    assert said
    assert all(type(one) is str for one in said)
    return said


# --- what is answered


def test_a_run_with_what_belongs_to_it(team: Team) -> None:
    things = team.things()
    query = """
        query Page($of: MlflowGetRunInput!) @component(name: "page") {
          mlflowGetRun(input: $of) {
            apiError { code message helpUrl }
            run {
              __typename
              info { runId status startTime endTime lifecycleStage }
              data { metrics { key value step } params { key value } tags { key value } }
              inputs { datasetInputs { dataset { name } } }
              outputs { modelOutputs { modelId } }
              experiment { experimentId name ... on MlflowExperiment { workspace } }
              modelVersions { ...Version }
            }
          }
        }
        fragment Version on MlflowModelVersion {
          name version status source description creationTimestamp aliases deploymentJobState { jobId jobState }
        }
    """
    answered = data(team, query, variables={"of": {"runId": things["run_id"]}}, operationName="Page")
    told = team.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={things['run_id']}").ok["run"]
    run = answered["mlflowGetRun"]["run"]
    assert answered["mlflowGetRun"]["apiError"] is None
    assert run["__typename"] == "MlflowRunExtension"
    assert run["info"] == {
        "runId": things["run_id"], "status": "RUNNING", "startTime": str(told["info"]["start_time"]), "endTime": "0",
        "lifecycleStage": "active",
    }  # fmt: skip
    assert run["data"]["metrics"] == [{"key": "k", "value": 1.0, "step": "0"}]
    assert run["data"]["params"] == [{"key": "k", "value": "1"}]
    assert run["data"]["tags"] == told["data"]["tags"]
    assert run["inputs"] == {"datasetInputs": []}
    assert run["outputs"] == {"modelOutputs": []}
    assert run["experiment"] == {"experimentId": things["experiment_id"], "name": "mine", "workspace": ""}
    (version,) = run["modelVersions"]
    assert version.pop("creationTimestamp").isdecimal()
    assert version == {
        "name": "mine", "version": "1", "status": "READY", "source": f"runs:/{things['run_id']}/m", "description": "",
        "aliases": ["best"],
        "deploymentJobState": {"jobId": "", "jobState": "DEPLOYMENT_JOB_CONNECTION_STATE_UNSPECIFIED"},
    }  # fmt: skip


def test_every_search(team: Team) -> None:
    things = team.things()
    run, experiment = things["run_id"], things["experiment_id"]
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "x"}
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    assert team.post("runs/log-inputs", {"run_id": run, "datasets": [{"dataset": dataset, "tags": tags}]}).ok == {}
    for step in range(3):
        facts = {"run_id": run, "key": "loss", "value": step / 2, "timestamp": 5, "step": step}
        assert team.post("runs/log-metric", facts).ok == {}
    found = data(team, f"""{{
        points: mlflowGetMetricHistoryBulkInterval(input: {{
          runIds: ["{run}"], metricKey: "loss", startStep: 1, endStep: 9
        }}) {{ metrics {{ key value step timestamp runId }} }}
        top: mlflowListArtifacts(input: {{ runUuid: "{run}" }}) {{ rootUri files {{ path isDir fileSize }} }}
        below: mlflowListArtifacts(input: {{ runId: "{run}", path: "m" }}) {{ files {{ path isDir fileSize }} }}
        mlflowSearchModelVersions(input: {{ filter: "name = 'mine'", maxResults: 1 }}) {{
          modelVersions {{ name tags {{ key }} }} nextPageToken
        }}
        mlflowSearchRuns(input: {{
          experimentIds: ["{experiment}"], filter: "params.k = '1'", runViewType: ACTIVE_ONLY, maxResults: 5
        }}) {{ runs {{ info {{ runId }} experiment {{ name }} modelVersions {{ version }} }} nextPageToken }}
        test(inputString: "abc") {{ output }}
    }}""")  # fmt: skip
    assert found["points"]["metrics"] == [
        {"key": "loss", "value": step / 2, "step": str(step), "timestamp": "5", "runId": run} for step in (1, 2)
    ]
    assert found["top"]["rootUri"] == f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    assert {"path": "m", "isDir": True, "fileSize": "0"} in found["top"]["files"]
    assert found["below"]["files"] == [{"path": "m/MLmodel", "isDir": False, "fileSize": "11"}]
    assert found["mlflowSearchModelVersions"] == {
        "modelVersions": [{"name": "mine", "tags": []}], "nextPageToken": ""
    }  # fmt: skip
    runs = [{"info": {"runId": run}, "experiment": {"name": "mine"}, "modelVersions": [{"version": "1"}]}]
    assert found["mlflowSearchRuns"] == {"runs": runs, "nextPageToken": ""}
    assert found["test"] == {"output": "abc"}
    changed = data(team, f"""mutation {{
        mlflowSearchRuns(input: {{ experimentIds: ["{experiment}"] }}) {{ runs {{ info {{ runId }} }} }}
        mlflowSearchDatasets(input: {{ experimentIds: ["{experiment}"] }}) {{
          datasetSummaries {{ experimentId name digest context }}
        }}
        testMutation(inputString: "abc") {{ output }}
    }}""")  # fmt: skip
    assert changed["mlflowSearchRuns"]["runs"] == [{"info": {"runId": run}}]
    assert changed["mlflowSearchDatasets"]["datasetSummaries"] == [
        {"experimentId": experiment, "name": "d", "digest": "1", "context": "training"}
    ]
    assert changed["testMutation"] == {"output": "abc"}


def test_numbers_that_json_has_not(team: Team) -> None:
    run = team.things()["run_id"]
    for key, value in (("nan", "NaN"), ("inf", "Infinity"), ("minus", "-Infinity")):
        facts = {"run_id": run, "key": key, "value": value, "timestamp": 1}
        assert team.post("runs/log-metric", facts).ok == {}
    found = data(team, f"""{{
        mlflowGetRun(input: {{ runId: "{run}" }}) {{ run {{ data {{ metrics {{ key value }} }} }} }}
        mlflowGetMetricHistoryBulkInterval(input: {{ runIds: ["{run}"], metricKey: "nan" }}) {{
          metrics {{ key value }}
        }}
    }}""")  # fmt: skip
    values = {one["key"]: one["value"] for one in found["mlflowGetRun"]["run"]["data"]["metrics"]}
    assert values == {"k": 1.0, "nan": None, "inf": sys.float_info.max, "minus": -sys.float_info.max}
    assert found["mlflowGetMetricHistoryBulkInterval"]["metrics"] == [{"key": "nan", "value": None}]


def test_what_fails_is_null_and_the_rest_is_answered(team: Team) -> None:
    things = team.things()
    found = asked(team, f"""{{
        none: mlflowGetRun(input: {{ runId: "none" }}) {{ run {{ info {{ runId }} }} }}
        one: mlflowGetRun(input: {{ runId: "{things["run_id"]}" }}) {{ run {{ info {{ runId }} }} }}
        nothing: mlflowGetRun {{ run {{ info {{ runId }} }} }}
        many: mlflowSearchRuns(input: {{ experimentIds: [], maxResults: 50001 }}) {{ nextPageToken }}
        text: mlflowSearchModelVersions(input: {{ maxResults: {{ a: 1 }} }}) {{ nextPageToken }}
        null: mlflowSearchRuns(input: {{ experimentIds: [null] }}) {{ nextPageToken }}
    }}""").ok  # fmt: skip
    assert found["data"] == {
        "none": None, "one": {"run": {"info": {"runId": things["run_id"]}}}, "nothing": None, "many": None,
        "text": None, "null": None,
    }  # fmt: skip
    said = found["errors"]
    assert said[0] == "Run with id=none not found"
    assert "Missing value for required parameter 'run_id'" in said[1]
    assert "Invalid value 50001 for parameter 'max_results'" in said[2]
    assert "Invalid value {\"a\":1} for parameter 'max_results'" in said[3]
    assert "for parameter 'experiment_ids'" in said[4]
    assert len(said) == 5


def test_a_bug_shows_nothing(team: Team, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    things = team.things()

    def broken(*_: Any) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(team.app.hub, "experiment", broken)
    with caplog.at_level(logging.ERROR, "gittrack.server"):
        found = asked(team, EXPERIMENT, variables={"of": {"experimentId": things["experiment_id"]}}).ok
    assert found == {"data": {"mlflowGetExperiment": None}, "errors": ["the server failed; its log says why"]}
    assert "a secret" in caplog.text


# --- who may


def test_what_one_may_not_see_is_as_if_it_were_not_there(team: Team) -> None:
    mine, hidden = team.things("mine"), team.things("secret")
    assert team.post("model-versions/create", {"name": "secret", "source": mine["source"]}).ok
    somebody = team.token(Grant(Role.READER, "mine*", "mine*"))
    never = {name: "".join({"0": "1", "1": "2", "e": "f"}.get(one, one) for one in value)
             for name, value in hidden.items()}  # fmt: skip
    fields = {
        "experiment_id": 'mlflowGetExperiment(input: {experimentId: "?"}) {experiment {name}}',
        "run_id": 'mlflowGetRun(input: {runId: "?"}) {run {info {runName} experiment {name} modelVersions {name}}}',
        "run_uuid": 'mlflowListArtifacts(input: {runId: "?"}) {rootUri files {path}}',
        "run_ids": f'mlflowGetMetricHistoryBulkInterval(input: {{runIds: ["{mine["run_id"]}", "?"], metricKey: "k"}}) '
        "{metrics {value}}",
        "experiment_ids": f'mlflowSearchRuns(input: {{experimentIds: ["{mine["experiment_id"]}", "?"]}}) '
        "{runs {info {runId} modelVersions {name}}}",
        "name": "mlflowSearchModelVersions(input: {filter: \"name = '?'\"}) {modelVersions {name} nextPageToken}",
    }
    for name, field in fields.items():
        answers = [asked(team, f"{{ {field.replace('?', one[name])} }}", somebody) for one in (hidden, never)]
        told = [
            answer.body.replace(one[name].encode(), b"?") for answer, one in zip(answers, (hidden, never), strict=True)
        ]
        assert told[0] == told[1], name
        assert b"secret" not in told[0], name
        assert b"secret" in asked(team, f"{{ {field.replace('?', hidden[name])} }}").body or "runName" not in field
    search = (
        f'mlflowSearchDatasets(input: {{experimentIds: ["{hidden["experiment_id"]}"]}}) {{datasetSummaries {{name}}}}'
    )
    assert data(team, f"mutation {{ {search} }}", somebody) == {"mlflowSearchDatasets": {"datasetSummaries": []}}
    run = f'{{mlflowGetRun(input: {{runId: "{mine["run_id"]}"}}) {{run {{modelVersions {{name}}}}}}}}'
    assert data(team, run, somebody)["mlflowGetRun"]["run"]["modelVersions"] == [{"name": "mine"}]
    assert len(data(team, run)["mlflowGetRun"]["run"]["modelVersions"]) == 2


def test_it_takes_credentials_and_json_by_post(team: Team) -> None:
    assert asked(team, '{ test(inputString: "x") { output } }', "").status == 401
    assert team.ask("GET", "/graphql?query={test{output}}").status == 405
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert team.ask("POST", "/graphql", b"query={test{output}}", headers=form).status == 400
    other = {"content-type": "application/graphql"}
    assert team.ask("POST", "/graphql", b"{test{output}}", headers=other).status == 400
    foreign = {"origin": "https://evil.example"}
    assert team.ask("POST", "/graphql", {"query": "{test{output}}"}, headers=foreign).status == 403


def test_every_root_field_is_a_request(team: Team) -> None:
    team.server.guard._rates = Rates(1, clock=lambda: 0.0)  # ten at once
    query = "{" + " ".join(f'a{at}: test(inputString: "x") {{ output }}' for at in range(6)) + "}"
    assert len(data(team, query)) == 6
    assert asked(team, query).status == 429


# --- what is no document


BODIES = (
    b"", b"{", b"[]", b"null", b"5", b"{}", b'{"query": null}', b'{"query": ""}', b'{"query": 5}',
    b'{"query": ["{test{output}}"]}',
    b'[{"query": "{test{output}}"}]', b'{"query": "{test{output}}", "variables": []}',
    b'{"query": "{test{output}}", "variables": "{}"}', b'{"query": "{test{output}}", "operationName": 1}',
    b'{"query": "' + b"#" * 100_001 + b'"}', b'{"query": "{test{output}}", "variables": ' + b'{"a":' * 5000,
    b"\xff\xfe", b'{"query": "\xed\xa0\x80"}',
)  # fmt: skip


def test_bodies_that_are_none(team: Team) -> None:
    for body in BODIES:
        answer = team.ask("POST", "/graphql", body)
        assert answer.status == 400, (body, answer)
        assert answer.json["error_code"] == "INVALID_PARAMETER_VALUE"


#: What is sent, with what else, and what is said in every version of the library.
WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("{", {}, "Syntax Error"),
    ("hello", {}, "Syntax Error"),
    ("{ mlflowDeleteRun { run } }", {}, "Cannot query field 'mlflowDeleteRun' on type 'Query'"),
    ("{ mlflowGetRun { run { commit } } }", {}, "Cannot query field 'commit'"),
    ("{ mlflowGetRun { run } }", {}, "must have a selection of subfields"),
    ("{ mlflowGetRun(input: {name: 1}) { run { info { runId } } } }", {}, "MlflowGetRunInput"),
    ("{ mlflowGetRun(input: {runId: 1}) { run { info { runId } } } }", {}, "String cannot represent a non string"),
    ("{ mlflowSearchRuns(input: {runViewType: SOME}) { nextPageToken } }", {}, "does not exist in"),
    ("{ mlflowSearchRuns(input: {maxResults: 2147483648}) { nextPageToken } }", {}, "Int cannot represent"),
    ("{ test(inputString: $x) { output } }", {}, "Variable '$x' is not defined"),
    (EXPERIMENT, {}, "Variable '$of'"),
    (EXPERIMENT, {"variables": {"of": {"experimentId": 5}}}, "String cannot represent a non string"),
    (EXPERIMENT, {"variables": {"of": {"experimentId": "1", "more": 1}}}, "'more'"),
    (EXPERIMENT, {"operationName": "P"}, "Unknown operation named 'P'"),
    ("query A { test { output } } query B { test { output } }", {}, "Must provide operation name"),
    ("subscription { test { output } }", {}, "subscription"),
    ("type Query { a: String }", {}, "not executable"),
    ("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", {}, "Cannot spread fragment"),
    ("{ __schema { types { name } } }", {}, "introspection"),
    ('{ __type(name: "Query") { name } }', {}, "introspection"),
)  # fmt: skip


def test_documents_that_are_none(team: Team) -> None:
    for query, more, said in WRONG:
        assert said in errors(team, query, **more)[0], query


# --- what costs too much


def nested(times: int, inner: str = "key") -> str:
    return "a {" * times + inner + "}" * times


DEEP = "{ mlflowGetRun { run {" + nested(10) + "} } }"
SPREAD = " ".join(f"...F{at}" for at in range(4))
PARTS = " ".join(
    f"fragment F{at} on MlflowRunInfo {{ {' '.join(f'a{at}{one}: runId' for one in range(3))} }}" for at in range(4)
)
WIDE = "{ mlflowGetRun { run { info { " + "runId " * 1000 + "} } } }"


COSTLY = (
    ("{" + "test { output } " * 11 + "}", "at most 10 root fields"),
    ("".join(f"query Q{at} {{ a: test {{ output }} b: test {{ output }} }} " for at in range(6)), "10 root fields"),
    ("{ ...R ...R } fragment R on Query {" + "test { output } " * 11 + "}", "10 root fields"),
    ("{ mlflowGetRun { run { info {" + " ".join(f"a{at}: runId" for at in range(11)) + "} } } }", "at most 10 aliases"),
    ("{ mlflowGetRun { run { info {" + SPREAD + "} } } } " + PARTS, "at most 10 aliases"),
    (DEEP, "exceeds maximum depth of 10"),
    ("{ mlflowGetRun { run { ...R } } } fragment R on MlflowRunExtension { experiment { ...R } }", "depth of 10"),
    (WIDE, "exceeds maximum total selections of 1000"),
    ("{ test { output } } fragment R on MlflowRunInfo { " + "runId " * 1001 + "}", "total selections of 1000"),
    ("{ test { output } } " + "fragment R on Test { output } " * (_MAX_TOKENS // 7), "more than 10000"),
    ("{a" * 4000, "nested too deeply"),
    ('{ test(inputString: ' + "[" * 5000, "nested too deeply"),
    ("query ($a: " + "[" * 5000, "nested too deeply"),
    ("query ($a: String = " + "{a:" * 3000, "nested too deeply"),
)  # fmt: skip


def test_documents_that_cost_too_much(team: Team) -> None:
    for query, said in COSTLY:
        assert said in errors(team, query)[0], query


def test_answers_that_cost_too_much(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    run = team.things()["run_id"]
    monkeypatch.setattr(graphql_documents, "_MAX_VALUES", 3000)
    one = f'mlflowGetRun(input: {{runId: "{run}"}}) {{run {{info {{runId}}}}}}'
    data(team, f"{{ {one} }}")
    assert errors(team, f"{{ a: {one} b: {one} c: {one} }}") == ["the answer has more than 3000 values: ask for fewer"]
    for step in range(1500):
        team.app.hub.writer(run).log_metric("loss", 1.0, step)
    points = f'mlflowGetMetricHistoryBulkInterval(input: {{runIds: ["{run}"], metricKey: "loss"}})'
    assert "more than 3000 values" in errors(team, f"{{ {points} {{ metrics {{ step value }} }} }}")[0]
    assert (
        "more than 3000 values"
        in errors(team, f"{{ {points} {{ a: metrics {{ __typename }} b: metrics {{ __typename }} }} }}")[0]
    )


def test_a_run_is_asked_for_its_versions_once(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    things = team.things()
    searched: list[Any] = []
    search = team.app.hub.client.search_model_versions

    def counted(*given: Any) -> Any:
        searched.append(given)
        return search(*given)

    monkeypatch.setattr(team.app.hub.client, "search_model_versions", counted)
    one = f'mlflowGetRun(input: {{runId: "{things["run_id"]}"}}) {{run {{modelVersions {{name}}}}}}'
    found = data(team, f"{{ a: {one} b: {one} }}")
    assert [found[at]["run"]["modelVersions"] for at in "ab"] == [[{"name": "mine"}]] * 2
    assert len(searched) == 1


# --- the schema


def _fields(message: Message, kind: Any, missing: set[str], more: set[str]) -> None:
    while hasattr(kind, "of_type"):
        kind = kind.of_type
    named = {_snake(name): field for name, field in kind.fields.items()}
    missing |= {f"{kind.name}.{name}" for name in message.fields if name not in named}
    more |= {f"{kind.name}.{name}" for name in named if name not in message.fields}
    for name, field in message.fields.items():
        if field.of is not None and name in named:
            _fields(field.of, named[name].type, missing, more)


def test_the_schema_is_that_of_the_routes() -> None:
    routes = {(one.method, one.path): one for one in ROUTES}
    schema = _schema()
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    unread, missing, more = set(), set[str](), set[str]()
    for name, wanted in _ROUTES.items():
        route = routes[wanted]
        assert route.message is not None
        assert isinstance(route.answer, Message)
        field = schema.query_type.fields.get(name) or schema.mutation_type.fields[name]
        known = {*route.message.fields, *(one.alias for one in route.message.fields.values())}
        unread |= {f"{name}.{one}" for one in map(_snake, field.args["input"].type.fields) if one not in known}
        _fields(route.answer, field.type, missing, more)
    assert unread == set()
    # What REST says of a point that MLflow's type for many runs has not; what no route of ours has.
    assert missing == {f"MlflowMetricWithRunId.{one}" for one in ("model_id", "dataset_name", "dataset_digest")}
    assert {one for one in more if not one.endswith(".api_error")} == {
        "MlflowExperiment.effective_trace_archival_retention", "MlflowExperiment.workspace",
        "MlflowRunExtension.experiment", "MlflowRunExtension.model_versions",
        "MlflowListArtifactsResponse.next_page_token",
        "MlflowModelVersion.model_params", "MlflowModelVersion.model_metrics",
        "MlflowModelVersion.deployment_job_state",
    }  # fmt: skip


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_the_schema_is_mlflows() -> None:
    pytest.importorskip("mlflow", reason="compares with the real MLflow, which is not installed here")
    from mlflow.server.graphql.graphql_schema_extensions import schema

    def told(found: Any) -> dict[str, Any]:
        return {
            name: sorted(kind.values) if hasattr(kind, "values")
            else {field: (str(one.type), {arg: str(of.type) for arg, of in getattr(one, "args", {}).items()})
                  for field, one in kind.fields.items()} if hasattr(kind, "fields") else None
            for name, kind in found.type_map.items() if not name.startswith("__")
        }  # fmt: skip

    theirs, ours = told(schema.graphql_schema), told(_schema())
    assert {name: ours.get(name) for name in theirs} == theirs


def test_the_library_is_imported_when_it_is_needed() -> None:
    code = "import sys, gittrack.server.hub.start; print('graphql' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_it_is_described(team: Team) -> None:
    described = team.ask("GET", "/api/2.0/gittrack/openapi.json").ok["paths"]["/graphql"]["post"]
    assert described["x-permission"] == "reader"
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["query"]
    assert schema["properties"]["variables"] == {"anyOf": [{"type": "object"}, {"type": "null"}]}
    answer = described["responses"]["200"]["content"]["application/json"]["schema"]
    assert json.dumps(answer["properties"]["data"]) == '{"anyOf": [{"type": "object"}, {"type": "null"}]}'
