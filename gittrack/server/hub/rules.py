"""What a caller may see of a project's refs, and which moves of refs are allowed at all.

git's settings cannot say this: ``receive.denyDeletes`` and ``receive.denyNonFastForwards`` are about branches only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from gittrack.errors import (
    ConflictError,
    GittrackError,
    PermissionDeniedError,
    PushRefusedError,
)
from gittrack.registry import documents, events, names
from gittrack.registry.catalog import Catalog
from gittrack.registry.events import Event, VersionTag
from gittrack.server.hub.projects import Project
from gittrack.server.hub.roles import Caller, Role
from gittrack.store import layout
from gittrack.store.experiments import ExperimentState
from gittrack.store.refs import check_name
from gittrack.store.repo import Repo
from gittrack.sync import order, publish
from gittrack.sync.quarantine import Quarantine
from gittrack.types import ObjectId

#: Refs of the server's own that nobody else has to do with.
PRIVATE: Final = (
    "refs/gittrack/live", "refs/gittrack/remotes", "refs/gittrack/incoming", "refs/stash", "refs/bisect",
    "refs/worktree", "refs/rewritten", "refs/replace",
)  # fmt: skip
_HEADS: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"
_MOVED_HEADS: Final = "refs/heads/gittrack/"
#: Where `gittrack remote check` makes a ref and removes it again.
_PROBES: Final = ("refs/runs/check/", "refs/tags/models/check/")
_EMPTY_TREES: Final = frozenset((
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
))  # fmt: skip

_ATTEMPTS: Final = 16  #: ids that an experiment's name can have led to, because others had been renamed


class Update(NamedTuple):
    """One move that somebody asks for.

    Attributes:
        ref: The ref's full name.
        old: Where it is, as he knows it; None: it does not exist.
        new: Where it shall be; None: it shall be gone.
    """

    ref: str
    old: ObjectId | None
    new: ObjectId | None


def has_anything(caller: Caller, role: Role) -> bool:
    """True if there is something that the caller may do what takes ``role`` with."""
    return any(grant.role is not None and grant.role >= role for grant in caller.grants)


def may_code(caller: Caller, role: Role) -> bool:
    """True if the caller may read, or push, branches and tags of code: who may do so with the runs of every experiment.

    That single experiments are denied to him takes nothing of the code away.
    """
    about = [grant for grant in caller.grants if grant.experiments == "*"]
    return all(grant.role is not None for grant in about) and any(
        grant.role is not None and grant.role >= role for grant in about
    )


class Sight:
    """What a caller may see of a project.

    Args:
        project: The project.
        caller: Who asks.

    Attributes:
        whole: He may see everything.
    """

    def __init__(self, project: Project, caller: Caller) -> None:
        self.caller = caller
        self.whole = caller.may(Role.READER)
        self._repo = project.repo
        self._experiments: Mapping[str, str] | None = None
        self._models: Mapping[str, str] | None = None

    def experiment(self, experiment_id: str) -> str | None:
        """The name of an experiment; None if there is none."""
        if self._experiments is None:
            self._repo.refresh()
            known = self._repo.index.get_experiments(None)
            self._experiments = {one.experiment_id: one.name for one in known}
        return self._experiments.get(experiment_id)

    def model(self, key: str) -> str:
        """The name of a model, from its part of refs."""
        return self._known_models().get(key) or names.first_name(key)

    def knows_model(self, key: str) -> bool:
        """True if there is such a model."""
        return key in self._known_models()

    def _known_models(self) -> Mapping[str, str]:
        if self._models is None:
            catalog = Catalog(self._repo)
            catalog.refresh()
            self._models = {one.key: one.name for one in catalog.models()}
        return self._models

    def sees(self, ref: str) -> bool:
        """True if he may see a ref."""
        if any(ref == one or ref.startswith(f"{one}/") for one in PRIVATE):
            return False
        if self.whole:
            return True
        caller, parsed = self.caller, layout.parse_ledger_ref(ref)
        if parsed is not None:
            if parsed[0] == layout.TREE_EXPERIMENT_ID:  # it is of no experiment
                return False
            return caller.may(Role.READER, experiment=self.experiment(parsed[0]) or parsed[0])
        if ref.startswith(layout.TAG_PREFIX):
            return caller.may(Role.READER, model=self.model(ref.split("/")[3]))
        return not ref.startswith(layout.DOCUMENT_PREFIX) and may_code(caller, Role.READER)

    def hidden(self) -> Iterator[str]:
        """Values of git's ``transfer.hideRefs``, in order, that hide what he may not see; the last that fits counts."""
        yield from PRIVATE
        if self.whole:
            return
        refs = self._repo.git.refs("refs/")
        if not may_code(self.caller, Role.READER):
            yield from ("HEAD", "refs/heads", "refs/notes", "refs/tags", "!refs/tags/models")
        yield layout.DOCUMENT_PREFIX.rstrip("/")
        for top, part in ((layout.LEDGER_PREFIX, 2), (layout.TAG_PREFIX, 3)):
            shown: dict[str, bool] = {}
            for ref in refs:
                if ref.startswith(top):
                    shown.setdefault("/".join(ref.split("/")[: part + 1]), self.sees(ref))
            secret = [ref for ref, open_ in shown.items() if not open_]
            if len(secret) * 2 <= len(shown):
                yield from secret
            else:
                yield top.rstrip("/")
                yield from (f"!{ref}" for ref, open_ in shown.items() if open_)


@dataclass(frozen=True)
class Rules:
    """What may be pushed to a project.

    Attributes:
        project: The project.
        sight: What the one who pushes may see.
        view: The project with what he has sent.
        code: Branches and tags of code may be pushed.
    """

    project: Project
    sight: Sight
    view: Repo
    code: bool = True

    def check(self, updates: Iterable[Update]) -> dict[str, GittrackError]:
        """The refs that may not be moved, and why."""
        refused: dict[str, GittrackError] = {}
        judged: dict[str, Update] = {}
        removed: list[Update] = []
        for update in updates:
            try:
                kind = self._look(update)
            except GittrackError as error:
                refused[update.ref] = error
                continue
            if kind == "ours":
                judged[update.ref] = update
            elif kind == "folded":
                removed.append(update)
        self._judge(judged, refused)
        self._check_folded(removed, {ref: one for ref, one in judged.items() if ref not in refused}, refused)
        return refused

    def _look(self, update: Update) -> str:
        """What needs only the names, before anything is read: who he is and where the ref is."""
        ref, old, new = update
        check_name(ref)
        repo = self.project.repo
        now = repo.git.ref(ref)
        if now is not None and not self.sight.sees(ref):
            raise PushRefusedError("this is no ref that can be pushed here", hint=_ALLOWED)
        if now != old and old is None:
            raise ConflictError("there is another one of that name", hint="fetch (`gittrack pull`) and push again")
        if now != old:
            raise ConflictError("it is somewhere else by now", hint="fetch (`gittrack pull`) and push again")
        if ref.startswith(_PROBES):
            return self._probe(update)
        if (parsed := layout.parse_ledger_ref(ref)) is not None:
            self._own(parsed[1])
            name = self.sight.experiment(parsed[0])
            if name is not None:  # else what comes says how it is called
                self.require(Role.WRITER, experiment=name)
            return "ours" if new is not None else "folded"
        if ref.startswith(layout.DOCUMENT_PREFIX) and layout.is_writer(ref[len(layout.DOCUMENT_PREFIX) :]):
            self._own(ref[len(layout.DOCUMENT_PREFIX) :])
            if new is None:
                raise PushRefusedError("documents of the registry are never removed", hint="they are edited instead")
            return "ours"
        if ref.startswith(layout.TAG_PREFIX):
            return self._look_at_tag(update)
        return self._look_at_code(update)

    def require(self, role: Role, *, experiment: str | None = None, model: str | None = None) -> None:
        """Refuse who may not do this with an experiment or a model.  Raises PermissionDeniedError."""
        if not self.sight.caller.may(role, experiment=experiment, model=model):
            what = f"model `{model}`" if experiment is None else f"experiment `{experiment}`"
            raise PermissionDeniedError(
                f"this takes the role of a {role.name.lower()} for {what}",
                hint="ask an administrator of this server for it",
            )

    def _own(self, writer: str) -> None:
        if writer == self.project.repo.writer:
            raise PushRefusedError(
                "only the server itself writes here", hint="push what you have under your own writer"
            )

    def _probe(self, update: Update) -> str:
        if update.new is not None:
            commit = self.view.git.read_commit(update.new)
            if commit.parents or commit.tree not in _EMPTY_TREES or update.old is not None:
                raise PushRefusedError("only an empty commit can be tried here", hint="`gittrack remote check` does it")
        if not has_anything(self.sight.caller, Role.WRITER):
            raise PermissionDeniedError("this takes the role of a writer", hint="ask an administrator of this server")
        return "free"

    def _look_at_tag(self, update: Update) -> str:
        ref, old, new = update
        name = names.parse_tag(ref[len(_TAGS) :])
        if old is not None or new is None:
            raise PushRefusedError(
                "versions, stages and aliases are made and never moved or removed",
                hint="`gittrack models` changes them",
            )
        mine = names.folded(name.key)
        taken = (
            one[len(layout.TAG_PREFIX) :].partition("/")[0] for one in self.project.repo.git.refs(layout.TAG_PREFIX)
        )
        if twin := next((key for key in taken if key != name.key and names.folded(key) == mine), None):
            raise PushRefusedError(
                f"the model differs from `{names.first_name(twin)}` only by upper and lower case",
                hint="give it another name",
            )
        self.require(Role.WRITER, model=self.sight.model(name.key))
        return "ours"

    def _look_at_code(self, update: Update) -> str:
        ref, old, new = update
        if not ref.startswith((_HEADS, _TAGS)) or ref.startswith(_MOVED_HEADS):
            raise PushRefusedError("this is no ref that can be pushed here", hint=_ALLOWED)
        if not self.code:
            raise PushRefusedError("this server takes runs and models only", hint="push code to where it is kept")
        if not may_code(self.sight.caller, Role.WRITER):
            raise PermissionDeniedError(
                "branches and tags of code take the role of a writer for every experiment",
                hint="ask an administrator of this server for it",
            )
        if ref.startswith(_TAGS):
            if old is not None:
                raise PushRefusedError("tags are made and never moved or removed", hint="make another one")
            return "code"
        if new is None:
            raise PushRefusedError("branches are not removed by a push", hint="remove it in the repository itself")
        if ref in _checked_out(self.project.repo):
            raise PushRefusedError("the branch is checked out on the server", hint="push to another branch")
        found = self.view.git.headers([new]).get(new)
        if found is None or found.kind != "commit":
            raise PushRefusedError("a branch is at a commit", hint="push a commit to it")
        if old is not None and not _is_behind(self.view, old, new):
            raise PushRefusedError("this is no fast-forward", hint="fetch, and merge or rebase, before you push again")
        return "code"

    # -- what is inside ----------------------------------------------------------------------------------------------

    def _judge(self, judged: Mapping[str, Update], refused: dict[str, GittrackError]) -> None:
        """Look at what came, as a pull does, and then at what it changes."""
        fetched = {ref: one.new for ref, one in judged.items() if one.new is not None}
        known = {ref: one.old for ref, one in judged.items() if one.old is not None}
        if not fetched:
            return
        verdict = Quarantine(self.view, Catalog(self.view)).judge(fetched, known)
        for ref, why in verdict.bad.items():
            refused[ref] = PushRefusedError(why, hint="`gittrack fsck` looks for what is wrong in your clone")
        for ref in verdict.good:
            try:
                self._change(ref, judged[ref].old, verdict.good[ref])
            except GittrackError as error:
                refused[ref] = error

    def _change(self, ref: str, old: ObjectId | None, new: ObjectId) -> None:
        if ref.startswith(layout.TAG_PREFIX):
            self._tag(events.parse(new, self.view.git.read_tag(new)))
            return
        if old is not None and order.compare(self.view, ref, old, new) not in (order.BEHIND, order.SAME):
            raise PushRefusedError(
                "something that is here would be lost", hint="`gittrack pull`, then push again; only purged runs may go"
            )
        parsed = layout.parse_ledger_ref(ref)
        if parsed is None:
            self._documents(old, new)
        else:
            self._ledger(parsed[0], old, new)

    def _tag(self, event: Event) -> None:
        model = self.sight.model(event.key)
        self.require(Role.WRITER if isinstance(event, VersionTag) else Role.MAINTAINER, model=model)

    def _documents(self, old: ObjectId | None, new: ObjectId) -> None:
        git = self.view.git
        before = {} if old is None else documents.blobs(git, old)
        for key, blob in documents.blobs(git, new).items():
            if before.get(key) == blob:
                continue
            model = self.sight.model(key)
            self.require(Role.WRITER, model=model)
            was = documents.read(git, key, [before[key]] if key in before else [])
            now = documents.read(git, key, [blob])
            if self.sight.knows_model(key) and any(
                was.value(field) != now.value(field)
                for field in now.fields
                if field == "name" or field.split(".")[-1] == "lifecycle"
            ):
                self.require(Role.MAINTAINER, model=model)
            if name := now.value("name"):  # or a model could take another one's name away
                self.require(Role.WRITER, model=name)

    def _ledger(self, experiment_id: str, old: ObjectId | None, new: ObjectId) -> None:
        ours = experiment_id == layout.TREE_EXPERIMENT_ID
        if not ours and self.view.git.ledger_lookup(new, layout.TREE_RUN_ID) is not None:
            raise PushRefusedError(f"no run of an experiment can be called `{layout.TREE_RUN_ID}`")
        known = self.sight.experiment(experiment_id)
        data = self.view.git.ledger_blob(new, layout.EXPERIMENT_FILE)
        said = None if data is None else ExperimentState.decode(experiment_id, data).value("name")
        for name in {known, said} - {None} or {experiment_id}:
            self.require(Role.WRITER, experiment=name)
        usual = {layout.experiment_id_of(said or "", attempt) for attempt in range(_ATTEMPTS)}
        if known is None and experiment_id not in usual and not self.sight.caller.may(Role.WRITER):
            raise PermissionDeniedError(
                f"the experiment has another id than one called `{said}` would get",
                hint="somebody who may write to every experiment has to push it first",
            )
        stones = self.view.tombstones({"": new}, strict=True)
        before = frozenset[str]() if old is None else self.view.tombstones({"": old}, strict=True)
        if stones - before - self.project.repo.tombstones():
            self.require(Role.MAINTAINER, experiment=known or said or experiment_id)

    def _check_folded(
        self, removed: list[Update], moved: Mapping[str, Update], refused: dict[str, GittrackError]
    ) -> None:
        """A ledger may go once another one has all it had."""
        if not removed:
            return
        after = self.project.repo.ledgers() | {ref: one.new for ref, one in moved.items() if one.new is not None}
        folded = publish.folded(self.view, after)
        for update in removed:
            if folded.get(update.ref) != update.old:
                refused[update.ref] = PushRefusedError(
                    "ledgers are not removed", hint="`gittrack gc --fold` moves what is in them into another one first"
                )


_ALLOWED: Final = "runs, registry tags, branches and tags are; `gittrack help server` tells more"


def _checked_out(repo: Repo) -> frozenset[str]:
    """The branches that work trees of the repository are at."""
    if repo.paths.private:
        return frozenset()
    said = repo.git.program.run("worktree", "list", "--porcelain").decode("utf-8", "surrogateescape").splitlines()
    bare = "bare" in said
    found = {line.removeprefix("branch ") for line in said if line.startswith("branch ")}
    return frozenset() if bare and not found else frozenset(found)


def _is_behind(repo: Repo, old: ObjectId, new: ObjectId) -> bool:
    found = repo.git.program.call("merge-base", "--is-ancestor", old, new)
    return found.status == 0


def view_of(repo: Repo, folder: Path) -> Repo:
    """A repository with what is in the git folder ``folder``, which borrows the objects of ``repo``."""
    paths = replace(repo.paths, git_dir=folder, common_dir=folder, work_tree=None)
    return Repo(paths, read_only=True)
