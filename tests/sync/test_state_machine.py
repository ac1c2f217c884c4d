"""Random work in several clones of one remote, in any order: in the end all agree, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gittrack.errors import ConflictError, NotFoundError
from gittrack.store import layout
from gittrack.store.rewrite import fold, purge
from gittrack.sync.bundle import bundle, unbundle
from gittrack.sync.select import Selection
from gittrack.types import ViewType
from tests.conftest import Sandbox, run_git
from tests.sync.conftest import Desk, Killed, assert_clean, dying

#: As for the fault tests: minutes instead of seconds, and other examples each time.
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
#: Seconds after which the full form makes no more examples, and the seed that it begins with.
SECONDS = float(os.environ.get("GITTRACK_FAULTS_SECONDS", "900"))
SEED = int(os.environ.get("GITTRACK_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CLONES = st.integers(0, 3)
PICK = st.integers(0, 99)


class Sharing(RuleBasedStateMachine):
    """2 to 4 clones; what each operation acknowledged is remembered, and looked for in the end."""

    hub: Path  #: a bare repository with a commit; each example has a copy

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gittrack-sharing-"))
        self.desks: list[Desk] = []
        self.runs: dict[str, dict[str, str]] = {}  #: run id to the tags that were set
        self.purged: set[str] = set()
        self.versions: dict[str, int] = {}  #: manifest to how often it was registered
        self.carried: list[Path] = []
        self.made = 0

    @initialize(count=st.integers(2, 4), models=st.integers(0, 2), shared=st.booleans(), atomic=st.booleans())
    def clone(self, count: int, models: int, shared: bool, atomic: bool) -> None:
        """Everybody has a run to begin with, some the same version of a model, and some have heard of each other."""
        shutil.copytree(self.hub, self.folder / "hub.git")
        run_git(self.folder / "hub.git", "config", "receive.advertiseAtomic", str(atomic).lower())
        for number in range(count):
            folder = self.folder / f"clone{number}"
            shutil.copytree(self.hub.parent / "clone", folder, symlinks=True)
            run_git(folder, "remote", "set-url", "origin", f"file://{self.folder}/hub.git")
            self.desks.append(Desk(Sandbox(folder, "ordinary")))
            self.log(number, "Default")
        for number in range(models):
            self.register(number)
        for desk in self.desks * 2 if shared else []:
            desk.push(files=False)
            desk.pull()

    def desk(self, number: int) -> Desk:
        return self.desks[number % len(self.desks)]

    def known(self, desk: Desk, pick: int) -> str | None:
        runs = sorted(set(desk.names()) - self.purged)
        return runs[pick % len(runs)] if runs else None

    @rule(at=CLONES, experiment=st.sampled_from(["Default", "churn"]))
    def log(self, at: int, experiment: str) -> None:
        self.made += 1
        self.runs[self.desk(at).run(f"run {self.made}", experiment=experiment)] = {}

    @rule(at=CLONES, pick=PICK)
    def amend(self, at: int, pick: int) -> None:
        desk = self.desk(at)
        run_id = self.known(desk, pick)
        if run_id is not None:
            self.made += 1
            desk.tracker.writer(run_id).set_tags({f"tag{self.made}": str(self.made)})
            desk.close()
            self.runs[run_id][f"tag{self.made}"] = str(self.made)

    @rule(at=CLONES)
    def register(self, at: int) -> None:
        self.made += 1
        desk = self.desk(at)
        number = desk.model(extra=str(self.made).encode())
        version = desk.registry.get_version("iris", number)
        self.runs[str(version.run_id)] = {}
        self.versions[version.manifest] = 1

    @rule(at=CLONES, pick=PICK, stage=st.sampled_from(["Staging", "Production"]))
    def promote(self, at: int, pick: int, stage: str) -> None:
        desk = self.desk(at)
        numbers = [one.version for model in desk.registry.search_models() for one in desk.registry.versions(model.name)]
        if numbers:
            try:
                desk.registry.promote("iris", numbers[pick % len(numbers)], stage, archive_existing=True)
            except ConflictError as error:
                assert "iris" in error.message  # noqa: PT017 - it may be raised, and then says what about

    @rule(at=CLONES, pick=PICK)
    def delete(self, at: int, pick: int) -> None:
        desk = self.desk(at)
        run_id = self.known(desk, pick)
        if run_id is not None:
            desk.tracker.delete_run(run_id)
            desk.tracker.flush()

    @rule(at=CLONES, pick=PICK)
    def forget(self, at: int, pick: int) -> None:
        desk = self.desk(at)
        deleted = [run.info.run_id for run in desk.tracker.search_runs(view=ViewType.DELETED_ONLY)]
        tagged = {
            str(one.run_id) for model in desk.registry.search_models() for one in desk.registry.versions(model.name)
        }
        free = sorted(set(deleted) - tagged)
        if free:
            purge(desk.repo, free[pick % len(free)])
            self.purged.add(free[pick % len(free)])

    @rule(at=CLONES)
    def push(self, at: int) -> None:
        self.desk(at).push(files=False)

    @rule(at=CLONES)
    def pull(self, at: int) -> None:
        assert self.desk(at).pull().refused == {}

    @rule(at=CLONES)
    def fetch(self, at: int) -> None:
        assert self.desk(at).pull(take_over=False).refused == {}

    @rule(at=CLONES, pick=PICK, push=st.booleans())
    def share_some(self, at: int, pick: int, push: bool) -> None:
        """Less than everything: a run, an experiment, a model."""
        desk = self.desk(at)
        run_id = sorted(self.runs)[pick % len(self.runs)] if self.runs else "none"
        experiment = layout.experiment_id_of("churn")
        some = [Selection(runs=frozenset([run_id])), Selection(experiments=frozenset([experiment])),
                Selection(models=frozenset(["iris"]))][pick % 3]  # fmt: skip
        if push:
            desk.push(files=False, select=some)
        else:
            desk.pull(select=some)

    @rule(at=CLONES, push=st.booleans(), last=st.integers(0, 5))
    def die(self, at: int, push: bool, last: int) -> None:
        """A push or a pull that is killed when it wants to move refs of the clone once more than so often."""
        desk = self.desk(at)
        desk.registry  # noqa: B018 - makes the store
        with dying(last), suppress(Killed):
            desk.push(files=False) if push else desk.pull()
        desk.close()

    @rule(at=CLONES, to=CLONES, pick=PICK, since=st.booleans(), some=st.booleans(), last=st.integers(0, 6))
    def carry(self, at: int, to: int, pick: int, since: bool, some: bool, last: int) -> None:
        """Runs in a file from clone to clone; versions have their numbers from the remote."""
        run_id = sorted(self.runs)[pick % len(self.runs)]
        known = frozenset([layout.DEFAULT_EXPERIMENT_ID, layout.experiment_id_of("churn")])
        select = Selection(runs=frozenset([run_id])) if some else Selection(experiments=known)
        file = self.folder / f"{len(self.carried)}.bundle"
        try:
            bundle(self.desk(at).registry, file, select=select,
                   since=[self.carried[pick % len(self.carried)]] if since and self.carried else [])  # fmt: skip
        except NotFoundError as error:
            assert "nothing" in error.message  # noqa: PT017 - it may be raised, and then says why
            return
        self.carried.append(file)
        desk = self.desk(to)
        desk.registry  # noqa: B018 - makes the store
        if last < 5:
            with dying(last), suppress(Killed, NotFoundError):
                unbundle(desk.registry, file)
            desk.close()
        try:
            assert unbundle(desk.registry, file).refused == {}
        except NotFoundError as error:
            assert since
            assert "builds on" in error.message  # noqa: PT017
        else:
            assert unbundle(desk.registry, file).published.runs == set()

    @rule(at=CLONES, pick=PICK, alias=st.sampled_from(["champion", "challenger"]))
    def name(self, at: int, pick: int, alias: str) -> None:
        desk = self.desk(at)
        numbers = [one.version for model in desk.registry.search_models() for one in desk.registry.versions(model.name)]
        if numbers:
            try:
                desk.registry.set_alias("iris", alias, numbers[pick % len(numbers)])
            except ConflictError as error:
                assert "iris" in error.message  # noqa: PT017 - as above

    @rule(at=CLONES, pick=PICK)
    def settle(self, at: int, pick: int) -> None:
        """Somebody says what a conflict is to end with."""
        desk = self.desk(at)
        for model in desk.registry.search_models():
            numbers = [one.version for one in desk.registry.versions(model.name)]
            for about in model.conflicts[:1]:
                if numbers and not about.startswith("v"):
                    desk.registry.settle(model.name, about, numbers[pick % len(numbers)])

    @rule(at=CLONES)
    def fold(self, at: int) -> None:
        """The ledgers of all others are taken in, though they are not gone."""
        fold(self.desk(at).repo, older_than_s=-60)

    @rule(at=CLONES, pick=PICK)
    def bring_back(self, at: int, pick: int) -> None:
        desk = self.desk(at)
        deleted = sorted(run.info.run_id for run in desk.tracker.search_runs(view=ViewType.DELETED_ONLY))
        if deleted:
            desk.tracker.restore_run(deleted[pick % len(deleted)])
            desk.tracker.flush()

    @precondition(lambda self: self.desks)
    @rule(at=CLONES)
    def restart(self, at: int) -> None:
        self.desk(at).close()

    def teardown(self) -> None:
        try:
            if self.desks:
                self.converge()
        finally:
            for desk in self.desks:
                desk.close()
            shutil.rmtree(self.folder)

    def converge(self) -> None:
        """Everybody shares until nobody has anything to say, and then all have the same."""
        for _ in range(6):
            moved = [desk.pull().wanted or desk.push(files=False).ledgers for desk in self.desks]
            moved += [desk.push(files=False).ledgers + desk.push(files=False).tags for desk in self.desks]
            if not any(moved):
                break
        else:
            raise AssertionError("there is always something to share")
        first = self.desks[0]
        told = [self.told(desk) for desk in self.desks]
        for other in told[1:]:
            assert other == told[0]
        alive = {run.info.run_id: run for run in first.tracker.search_runs(view=ViewType.ALL)}
        assert set(alive) == set(self.runs) - self.purged
        for run_id, run in alive.items():
            assert self.runs[run_id].items() <= run.data.tags.items(), "an edit is lost"
        if self.versions:
            versions = first.registry.versions("iris")
            assert [one.version for one in versions] == [str(number) for number in range(1, len(self.versions) + 1)]
            assert sorted(one.manifest for one in versions) == sorted(self.versions)
            tags = run_git(self.folder / "hub.git", "tag", "--list", "models/iris/v*").split()
            assert len(tags) == len(self.versions), "each number has one owner"
        assert_clean(self.folder / "hub.git")

    def told(self, desk: Desk) -> tuple[object, ...]:
        """All that a clone knows."""
        desk.close()
        runs = [
            repr(run) for run in sorted(desk.tracker.search_runs(view=ViewType.ALL), key=lambda run: run.info.run_id)
        ]
        models = [(model.name, model.conflicts, model.aliases) for model in desk.registry.search_models()]
        stages = [desk.stages(model.name) for model in desk.registry.search_models()]
        tags = dict(desk.refs("refs/tags/models").items())
        return runs, models, stages, tags, desk.registry.catalog.problems()


@pytest.mark.timeout(7200 if FULL else 300)
def test_all_clones_agree_in_the_end(tmp_path: Path) -> None:
    """4 examples of 12 steps; the full form has 100 of 30, in rounds, as far as its time goes."""
    run_git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    run_git(tmp_path, "clone", "--quiet", "hub.git", "clone")
    clone = Sandbox(tmp_path / "clone", "ordinary")
    clone.commit("first", train_py="print('train')\n")
    clone.git("push", "--quiet", "origin", "main")
    Sharing.hub = tmp_path / "hub.git"
    if not FULL:
        play(4, 12)
        return
    end = time.monotonic() + SECONDS
    for number in range(SEED, SEED + 20):
        play(5, 30, number)
        if time.monotonic() > end:
            break


def play(examples: int, steps: int, number: int | None = None) -> None:
    """Some examples; the same ones each time unless they have a seed."""
    run_state_machine_as_test(
        Sharing if number is None else seed(number)(Sharing),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=number is None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
        _min_steps=steps,  # else many examples end before they began
    )
