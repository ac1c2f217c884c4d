"""Who may do what, for every route there is: the application itself says which, so none can be left out (Z1, Z2, Z4).

Each route is asked for something that works if one may.  What is answered must follow from the permission that the
route declares, and whoever may not, or asks a route that is said to read, leaves everything as it was.
"""

import re
import time
from collections.abc import Iterator

import pytest

from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.routes import Permission, Route
from tests.conftest import Sandbox
from tests.server.asking import is_public, prepare, request, stored
from tests.server.team import Team, serving

DENIED = (Grant(Role.ADMIN, "*", "*"), Grant(None, "mine*", "mine*"))
ELSEWHERE = (Grant(Role.ADMIN, "other*", "other*"),)
#: More than every route asks for with some experiment or model shows nothing more.
HIGHEST = max(one.permission.role or Role.READER for one in ROUTES if one.permission.about is not None)
#: Routes of git and git-lfs decide project by project and ref by ref, which `test_git` and `test_lfs` show.
FOREIGN = "/git/"
#: Routes about tokens of one's own, which only users have: `test_settings` shows that.
OWN = "{api}/gittrack/settings/own/"


@pytest.fixture
def team(git_repo: Sandbox) -> Iterator[Team]:
    with serving(git_repo.path) as found:
        yield found


def is_mlflows(route: Route) -> bool:
    return "/mlflow/" in route.path or route.path.endswith("/artifacts/{path:path}")


def asked(team: Team) -> list[Route]:
    """The routes that need somebody, those that take away last."""
    routes = [one for one in team.routes if not is_public(one)]
    return sorted(routes, key=lambda one: (one.permission.role or 0, one.method == "DELETE", "delete" in one.path))


def test_who_shows_no_credentials_gets_nowhere(team: Team) -> None:
    things = team.things()
    before = stored(team)
    for route in team.routes:
        answer = request(route, things).of(team, "")
        assert is_public(route) or answer.status == 401, (route.method, route.path, answer)
    assert stored(team) == before


@pytest.mark.parametrize("grants", [(), ELSEWHERE, DENIED], ids=["none", "elsewhere", "denied"])
def test_who_may_nothing_with_it(team: Team, grants: tuple[Grant, ...]) -> None:
    """It is as if it were not there, and nothing is changed."""
    things = team.things()
    somebody = team.token(*grants)
    before = stored(team)
    for route in asked(team):
        answer = request(route, things).of(team, somebody)
        where = (route.method, route.path, answer)
        if route.permission.about is not None:
            assert answer.status == 404, where
        elif route.path.startswith(OWN):
            assert answer.status in (200, 400, 404), where
        elif not route.path.startswith(FOREIGN):
            assert answer.status == (200 if route.permission.role == Role.READER else 403), where
            assert b'"mine' not in answer.body, where
        elif not grants:
            assert answer.status in (400, 403, 404), where
        assert stored(team) == before, where


@pytest.mark.parametrize("role", [one for one in Role if one <= HIGHEST])
def test_everybody_gets_as_far_as_his_role(team: Team, role: Role) -> None:
    """And what he may works, or the refusals would show nothing."""
    somebody = team.token(Grant(role, "mine*", "mine*"))
    things = team.things()
    before = stored(team)
    for number, route in enumerate(asked(team)):
        needed = route.permission.role
        assert needed is not None
        if route.path.startswith(FOREIGN) and needed <= role:
            continue
        if Role.MAINTAINER <= needed <= role:
            things = team.things(f"mine{number}")  # the last one took it away
        things["new_name"] = f"mine too {number}"
        if needed <= role:
            prepare(team, route, things)
            before = stored(team)
        answer = request(route, things).of(team, somebody)
        where = (route.method, route.path, answer)
        if needed <= role and not is_mlflows(route):  # it takes more than its fields to ask these for something
            assert answer.status in (200, 400, 404, 409, 415), where
        else:
            assert answer.status == (200 if needed <= role else 403), where
        if Role.READER < needed <= role:
            before = stored(team)
        assert stored(team) == before, (route.method, route.path, "changes something for who may not")


def test_a_route_that_only_says_that_it_reads_is_found(team: Team) -> None:
    """What the test above is for: a handler that writes under a reader's permission does not go unnoticed."""
    things = team.things()
    before = stored(team)
    writing = next(one for one in team.routes if one.path.endswith("/runs/set-tag"))
    wrong = Route(writing.method, writing.path, Permission(Role.READER, writing.permission.about), writing.handler,
                  writing.message)  # fmt: skip
    for table in (team.app._table._plain,):
        table.update({(wrong.method, path): wrong for path in wrong.paths()})
    answer = request(wrong, {**things, "value": "2"}).of(team, team.token(Grant(Role.READER, "mine*", "mine*")))
    assert answer.status == 200
    assert stored(team) != before


# --- Z2


#: Fields that name something, and what somebody could put there that is not his.
NAMING = ("experiment_id", "experiment_ids", "run_id", "run_ids", "name", "experiment_name", "new_name", "model_id",
          "path", "source", "source_run_id", "base_run_id", "metric_key", "into", "upload", "upload_id")  # fmt: skip


def test_what_one_may_not_see_is_as_if_it_were_not_there(team: Team) -> None:
    """For every field of every route: a hidden thing and one that never was are answered with the same bytes."""
    mine, hidden = team.things("mine"), team.things("secret")
    never = {name: _never(hidden[name]) for name in hidden}
    for one in (mine, hidden, never):
        one["source_run_id"] = one["base_run_id"] = one["run_id"]
    hidden["source"], never["source"] = f"runs:/{hidden['run_id']}/m", f"runs:/{never['run_id']}/m"
    hidden["path"] = f"{hidden['experiment_id']}/{hidden['run_id']}/artifacts/m/MLmodel"
    never["path"] = f"{never['experiment_id']}/{never['run_id']}/artifacts/m/MLmodel"
    hidden["new_name"], never["new_name"] = "secret", "sfcrft"
    somebody = team.token(Grant(Role.MAINTAINER, "mine*", "mine*"))
    before = stored(team)
    compared = 0
    for route in asked(team):
        if route.path.startswith(FOREIGN):
            continue
        fields = set(route.message.fields) if route.message is not None else set(re.findall(r"{(\w+)", route.path))
        for field in sorted(fields & set(NAMING)):
            if (field, "/journals" in route.path) == ("run_id", True):
                continue  # ids of runs that are to be made are the clients' own: 128 random bits
            many = route.message is not None and route.message.fields[field].many
            answers = []
            for one in (hidden, never):
                value = one[field] if field != "path" or "{path" in route.path else "m/none"
                sent = request(route, mine, **{field: [value] if many else value})
                answer = sent.of(team, somebody)
                body = answer.body.replace(one[field].encode(), b"?")
                answers.append(
                    (answer.status, re.sub(rb"[0-9a-f]{13,}|\"version\":\"[0-9]+", b"?", body))
                )  # ids, times
            assert answers[0] == answers[1], (route.method, route.path, field)
            compared += 1
        after = stored(team)
        for kind, found in before.items():
            for name, value in found.items():
                if "secret" in name or "secret" in value or hidden["run_id"] in name:
                    assert after[kind].get(name) == value, (route.path, kind)
    assert compared > 60


def _never(text: str) -> str:
    """Another name of the same form."""
    return "".join({"0": "1", "1": "2", "e": "f"}.get(one, one) if one.isalnum() else one for one in text)


def test_pages_do_not_tell_how_much_is_hidden(team: Team) -> None:
    """Nor does asking for few at a time, with a filter that fits the hidden ones."""
    team.things("mine")
    for number in range(2):
        team.things(f"secret{number}")
    somebody = team.token(Grant(Role.READER, "mine*", "mine*"))
    for path, method, what in [
        ("experiments/search", "POST", "experiments"),
        ("registered-models/search", "GET", "registered_models"),
        ("model-versions/search", "GET", "model_versions"),
    ]:
        for where in ("name LIKE 'secret%'", "name LIKE '%e%'", "name = 'mine'"):
            if method == "POST":
                answer = team.post(path, {"max_results": 1, "filter": where}, somebody)
            else:
                asked = f"/api/2.0/mlflow/{path}?max_results=1&filter={where.replace(' ', '+').replace('%', '%25')}"
                answer = team.ask("GET", asked, token=somebody)
            found = answer.ok
            assert "next_page_token" not in found, (path, where)
            assert [one["name"] for one in found.get(what, [])] == ([] if "secret" in where else ["mine"])


def test_a_version_of_a_hidden_model_cannot_be_copied(team: Team) -> None:
    team.things("mine")
    hidden = team.things("secret")
    somebody = team.token(Grant(Role.WRITER, "mine*", "mine*"))
    for source in (
        "models:/secret/1", "models:///secret/1", "models:secret/1", "models:/secret@best", "models:/secret/latest",
        f"models:/{hidden['model_id']}", f"models:///{hidden['model_id']}", f"models:{hidden['model_id']}",
        f"runs:/{hidden['run_id']}/m", f"runs:///{hidden['run_id']}/m",
        f"mlflow-artifacts:/{hidden['experiment_id']}/{hidden['run_id']}/artifacts/m",
    ):  # fmt: skip
        answer = team.post("model-versions/create", {"name": "mine", "source": source}, somebody)
        assert answer.status in (400, 404), (source, answer)
        allowed = team.post("model-versions/create", {"name": "mine", "source": source})
        assert allowed.status in (200, 400), (source, allowed)
    versions = team.ask("GET", "/api/2.0/mlflow/model-versions/search?filter=name='mine'", token=somebody).ok
    assert len(versions["model_versions"]) > 1  # those of the administrator


def test_an_experiment_is_not_renamed_into_what_is_of_others(team: Team) -> None:
    mine, _ = team.things("mine"), team.things("secret")
    somebody = team.token(Grant(Role.WRITER, "mine*", "mine*"))
    for name in ("secret", "unknown"):
        facts = {"experiment_id": mine["experiment_id"], "new_name": name}
        assert team.post("experiments/update", facts, somebody).status == 404
    facts = {"experiment_id": mine["experiment_id"], "new_name": "mine too"}
    assert team.post("experiments/update", facts, somebody).ok == {}


def test_finding_out_takes_as_long_as_if_nothing_were_there(team: Team) -> None:
    team.things("mine")
    hidden = team.things("secret")
    somebody = team.token(Grant(Role.READER, "mine*", "mine*"))

    def seconds(run_id: str) -> float:
        start = time.perf_counter()
        assert team.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}", token=somebody).status == 404
        return time.perf_counter() - start

    # Turn about, and the shortest: what else the machine does makes some of them longer.
    never = _never(hidden["run_id"])
    took = [(seconds(hidden["run_id"]), seconds(never)) for _ in range(30)]
    there, never_there = map(min, zip(*took, strict=True))
    assert abs(there - never_there) < 0.01, (there, never_there)
