"""Quarantine: whether what a remote sent is what gittrack writes.  Nothing that fails here ever counts.

git has looked at the objects (``fetch.fsckObjects``); what it lets pass and what only gittrack can know is looked at
here: shapes, names, modes, sizes, limits, that a run is the one its ledger says, that a ledger keeps alive what it
lists, that a tag's model is the one it vouches for.  Objects are read level by level, many at a time and by size first:
no object of a hostile pack is ever unpacked that could not be one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import CorruptError, FormatError, GittrackError, InvalidValueError, NotFoundError
from gittrack.registry import documents, events, names
from gittrack.registry.events import AliasTag, StageTag, VersionTag
from gittrack.store import codec, layout, ledger
from gittrack.store.experiments import ExperimentState
from gittrack.store.record import RunState
from gittrack.sync.transport import chunks
from gittrack.types import ObjectId, check_run_id

if TYPE_CHECKING:
    from gittrack.registry.catalog import Catalog
    from gittrack.store.git import GitStore, Header
    from gittrack.store.repo import Repo

#: Greatest sizes of what is read, in bytes.
MAX_COMMIT: Final = 4 << 20  # the parents of a group of 500 runs are 24 kB
MAX_TREE: Final = 32 << 20
MAX_RECORD: Final = codec.MAX_SIZE
MAX_SEGMENT: Final = codec.MAX_SEGMENT
#: Revisions that one remote can make us look at in one go.
MAX_REVISIONS: Final = 2_000_000
#: Commits of one ledger, or of the code that it begins at.
MAX_CHAIN: Final = 5_000_000
#: Run commits that are looked at together.
GROUP: Final = 1000
#: Artifacts of one run, and folders inside each other.
MAX_ARTIFACTS: Final = 1_000_000
MAX_DEPTH: Final = 128
#: Lamport counters beyond that nobody has reached by editing; they would leave no room for the next edit.
MAX_COUNTER: Final = 1 << 48
#: Characters of a file's name in the code.
MAX_NAME: Final = 1024

_FOLDER: Final = 0o040000
_FILE: Final = 0o100644
_LINK: Final = 0o160000
_CODE_MODES: Final = frozenset({_FOLDER, _FILE, 0o100755, 0o120000, _LINK})
_SEGMENT = re.compile(r"[0-9]{6,10}")
_LEDGER_FILE = re.compile(r"[a-z][a-z0-9-]{0,30}\.msgpack")
#: The entries of a folder, by the bytes of an id in it.
_ENTRIES: Final = {size: re.compile(rb"([0-7]+) ([^\0]*)\0(.{%d})" % size, re.DOTALL) for size in (20, 32)}
_HEADER = re.compile(rb"tree ([0-9a-f]+)\n((?:parent [0-9a-f]+\n)*)")

Entry = tuple[str, int, ObjectId]


class Wanted(NamedTuple):
    """A run commit that somebody lists.

    Attributes:
        commit: Its id.
        run_id: The run that it must be.
        experiment_id: The experiment that it must be in; None: any.
    """

    commit: ObjectId
    run_id: str
    experiment_id: str | None


@dataclass
class Verdict:
    """What came of looking at everything.

    Attributes:
        good: Refs (by their names here) that may count, and where they are.
        bad: Refs that may not, and why.
    """

    good: dict[str, ObjectId]
    bad: dict[str, str]


class Quarantine:
    """Looks at what was fetched.

    Args:
        repo: The clone.
        catalog: Its models.
    """

    def __init__(self, repo: Repo, catalog: Catalog) -> None:
        self._git = repo.git
        self._catalog = catalog
        self._reader = _Reader(repo.git)
        self._runs: dict[ObjectId, str | GittrackError] = {}  #: looked at: its run id, or what is wrong with it
        self._code: set[ObjectId] = set()  #: folders of code that were looked at

    def judge(self, fetched: Mapping[str, ObjectId], known: Mapping[str, ObjectId]) -> Verdict:
        """Look at refs and all that is new behind them.

        Args:
            fetched: What a remote has for refs of these names.
            known: What was looked at before for the same names, if anything.
        """
        with self._git.reading():
            return self._judge(fetched, known)

    def _judge(self, fetched: Mapping[str, ObjectId], known: Mapping[str, ObjectId]) -> Verdict:
        verdict = Verdict({}, {})
        wanted: dict[str, list[Wanted]] = {}
        for ref, oid in fetched.items():
            try:
                wanted[ref] = list(self._listed(ref, oid, known.get(ref)))
            except (CorruptError, NotFoundError, InvalidValueError) as error:
                verdict.bad[ref] = error.message
        self._look_at({one.commit for runs in wanted.values() for one in runs})
        for ref, runs in wanted.items():
            try:
                for one in runs:
                    self._require(one)
                if ref.startswith(layout.TAG_PREFIX):
                    self._check_content(fetched[ref])
                verdict.good[ref] = fetched[ref]
            except (CorruptError, NotFoundError, InvalidValueError) as error:
                verdict.bad[ref] = error.message
        return verdict

    def _listed(self, ref: str, oid: ObjectId, known: ObjectId | None) -> Iterator[Wanted]:
        parsed = layout.parse_ledger_ref(ref)
        if parsed is not None:
            yield from self._ledger(parsed[0], oid, known)
        elif ref.startswith(layout.TAG_PREFIX):
            yield self._tag(ref, oid, known)
        else:
            self._documents(oid, known)

    # -- ledgers -----------------------------------------------------------------------------------------------------

    def _ledger(self, experiment_id: str, oid: ObjectId, known: ObjectId | None) -> Iterator[Wanted]:
        """The runs that a ledger has got since ``known``."""
        self._check_table(oid, known)
        self._check_files(experiment_id, oid)
        at: ObjectId | None = oid
        steps, ahead = 0, 4
        while at is not None and at != known:
            if steps == ahead:  # most ledgers end before: they are made of few, large commits
                self._read_ahead(at, known, 4 * steps)
                ahead += 4 * steps
            if steps > MAX_CHAIN:
                raise FormatError(f"a history of more than {MAX_CHAIN:,} commits")
            steps += 1
            parents = self._reader.commit(at).parents
            before = parents[0] if parents and self._is_ledger(parents[0]) else None
            added = dict(self._added(before, at))
            extra = set(parents) - {before}
            if lost := set(added.values()) - extra:
                raise FormatError(f"it lists run commit `{min(lost)[:10]}` and does not keep it alive")
            more = extra - set(added.values())
            if more and not more <= self._listed_in(at):
                raise FormatError(f"ledger commit `{at[:10]}` has a parent that is none of its runs")
            for run_id, commit in added.items():
                yield Wanted(commit, run_id, experiment_id)
            at = before

    def _read_ahead(self, oid: ObjectId, known: ObjectId | None, count: int) -> None:
        """Read a ledger's next commits and their tables, many at a time; behind its first one comes code."""
        spec = f"{oid}\n" + ("" if known is None else f"^{known}\n")
        said = self._git.program.run("rev-list", "--first-parent", f"-n{count}", "--stdin", input=spec.encode())
        commits = self._reader.commits(map(ObjectId, said.decode().split()))
        roots = self._reader.trees(info.tree for info in commits.values())
        self._reader.trees(
            entry
            for tree in roots.values()
            if len(tree) < 2000 and all(name != layout.FOLDER for name, _, _ in tree)
            for name, mode, entry in tree
            if mode == _FOLDER and len(name) <= 2
        )

    def _added(self, before: ObjectId | None, at: ObjectId) -> Iterator[tuple[str, ObjectId]]:
        """(run id, commit) of what one ledger commit lists otherwise than the one before it."""
        old = {} if before is None else {name: oid for name, mode, oid in self._root(before) if mode == _FOLDER}
        for folder, mode, tree in self._root(at):
            if mode != _FOLDER or old.get(folder) == tree:
                continue
            was = {} if folder not in old else {name: oid for name, _, oid in self._reader.tree(old[folder])}
            for name, link, oid in self._reader.tree(tree):
                if link == _LINK and was.get(name) != oid:
                    yield ledger.join(folder, name), oid

    def _listed_in(self, commit: ObjectId) -> set[ObjectId]:
        """The run commits in a ledger's table."""
        folders = [tree for _, mode, tree in self._root(commit) if mode == _FOLDER]
        return {oid for entries in self._reader.trees(folders).values() for _, _, oid in entries}

    def _root(self, commit: ObjectId) -> list[Entry]:
        return self._reader.tree(self._reader.commit(commit).tree)

    def _is_ledger(self, oid: ObjectId) -> bool:
        return not any(name == layout.FOLDER for name, _, _ in self._root(oid))

    def _check_table(self, oid: ObjectId, known: ObjectId | None) -> None:
        """The shape of a ledger's tree; folders that ``known`` has too were looked at before."""
        seen = {} if known is None else {name: entry for name, _, entry in self._root(known)}
        folders: dict[str, ObjectId] = {}
        for name, mode, entry in self._root(oid):
            if mode == _FILE and _LEDGER_FILE.fullmatch(name):
                continue
            if mode != _FOLDER or not re.fullmatch(r"[A-Za-z0-9][\w-]|_", name, re.ASCII):
                raise FormatError(f"a ledger has the entry `{name!r:.80}` of mode {mode:o}")
            if seen.get(name) != entry:
                folders[name] = entry
        self._reader.load(folders.values(), "tree", MAX_TREE)
        for folder, tree in folders.items():
            for name, mode, _ in self._reader.tree(tree):
                if mode != _LINK:
                    raise FormatError(f"a ledger has the entry `{folder}/{name!r:.80}` of mode {mode:o}")
                ledger.join(folder, name)

    def _check_files(self, experiment_id: str, oid: ObjectId) -> None:
        files = {name: entry for name, mode, entry in self._root(oid) if mode == _FILE}
        self._reader.load(files.values(), "blob", MAX_RECORD)
        if layout.EXPERIMENT_FILE in files:
            state = ExperimentState.decode(experiment_id, self._reader.blob(files[layout.EXPERIMENT_FILE]))
            _check_counters(field.counter for field in state.fields.values())
        if layout.TOMBSTONES in files:
            layout.check_tombstones(codec.unpack(self._reader.blob(files[layout.TOMBSTONES])))
        if layout.FOLDED in files:
            layout.check_folded(codec.unpack(self._reader.blob(files[layout.FOLDED])))

    # -- runs --------------------------------------------------------------------------------------------------------

    def _require(self, wanted: Wanted) -> None:
        """Raise what is wrong with a run commit, or that it is another run than was said."""
        found = self._runs[wanted.commit]
        if isinstance(found, GittrackError):
            raise FormatError(f"run `{wanted.run_id:.64}` at `{wanted.commit[:10]}`: {found.message}")
        run_id, _, experiment_id = found.partition("\0")
        if run_id != wanted.run_id or wanted.experiment_id not in (None, experiment_id):
            raise FormatError(
                f"commit `{wanted.commit[:10]}` says it is run `{run_id:.64}` of experiment {experiment_id:.20}, it is"
                f" listed as run `{wanted.run_id:.64}` of {wanted.experiment_id}"
            )

    def _look_at(self, commits: Iterable[ObjectId]) -> None:
        """Look at run commits and their earlier revisions, all of them level by level."""
        todo = [oid for oid in dict.fromkeys(commits) if oid not in self._runs]
        required = set(todo)
        while todo:
            if len(self._runs) > MAX_REVISIONS:
                raise FormatError("the runs have no end of revisions")
            earlier: dict[ObjectId, None] = {}
            for chunk in chunks(todo, GROUP):
                earlier |= dict.fromkeys(self._look_at_group(chunk, required))
                self._reader.forget()
            todo = [oid for oid in earlier if oid not in self._runs]
            required = set()

    def _look_at_group(self, group: list[ObjectId], required: Collection[ObjectId]) -> set[ObjectId]:
        """Look at commits; those in ``required`` must be runs, others may be code.  Returns the parents of runs."""
        found = self._reader.commits(group)
        for oid in group:
            if oid not in found:
                self._runs[oid] = FormatError("it is no commit, or is missing")
        trees = self._reader.trees(info.tree for info in found.values())
        runs: dict[ObjectId, ObjectId] = {}
        for oid, info in found.items():
            folder = [
                entry for name, mode, entry in trees.get(info.tree, ()) if (name, mode) == (layout.FOLDER, _FOLDER)
            ]
            if folder:
                runs[oid] = folder[0]
            else:
                self._runs[oid] = FormatError("it is no run commit")  # or the code where a run begins
        self._check_runs(runs)
        self._check_code({found[oid].tree: oid for oid in runs})
        return {parent for oid in runs for parent in found[oid].parents}

    def _check_runs(self, runs: Mapping[ObjectId, ObjectId]) -> None:
        """Look at the ``.gittrack`` folders of run commits."""
        folders = self._reader.trees(runs.values())
        inside: dict[ObjectId, dict[str, ObjectId]] = {}
        for oid, folder in runs.items():
            try:
                inside[oid] = _entries(folders.get(folder))
            except CorruptError as error:
                self._runs[oid] = error
        self._reader.blobs((one[layout.RECORD] for one in inside.values()), MAX_RECORD)
        metrics = self._reader.trees(one[layout.METRICS] for one in inside.values() if layout.METRICS in one)
        segments = self._git.headers(entry for tree in metrics.values() for _, _, entry in tree)
        for oid, one in inside.items():
            try:
                self._runs[oid] = self._check_run(oid, one, metrics.get(one.get(layout.METRICS, oid), []), segments)
            except (CorruptError, NotFoundError, InvalidValueError) as error:
                self._runs[oid] = error
        self._check_artifacts({oid: one[layout.ARTIFACTS] for oid, one in inside.items() if layout.ARTIFACTS in one})

    def _check_run(
        self,
        oid: ObjectId,
        inside: Mapping[str, ObjectId],
        metrics: Iterable[Entry],
        segments: Mapping[ObjectId, Header],
    ) -> str:
        """The run and the experiment that a commit says it is."""
        state = RunState.decode(self._reader.blob(inside[layout.RECORD]), base=oid)
        check_run_id(state.run_id)
        _check_counters(field.counter for field in state.fields.values())
        there: set[str] = set()
        for name, mode, entry in metrics:
            _, kind, size = segments.get(entry, (entry, "", 0))
            if mode != _FILE or not _SEGMENT.fullmatch(name) or kind != "blob" or size > MAX_SEGMENT:
                raise FormatError(f"it has metrics `{name!r:.40}` of mode {mode:o} and {size} bytes")
            there.add(name)
        if missing := [name for name in state.segments if name not in there]:
            raise FormatError(f"its metric segment `{missing[0]!r:.40}` is missing")
        return f"{state.run_id}\0{state.experiment_id}"

    def _check_artifacts(self, runs: Mapping[ObjectId, ObjectId]) -> None:
        """Look at the folders of artifacts of runs: every file is a pointer, and there is an end of them."""
        level: dict[ObjectId, None] = dict.fromkeys(runs.values())
        inside: dict[ObjectId, list[Entry]] = {}
        for _ in range(MAX_DEPTH):
            inside |= self._reader.trees(level)
            below = (entry for tree in level for _, mode, entry in inside.get(tree, ()) if mode == _FOLDER)
            level = dict.fromkeys(entry for entry in below if entry not in inside)
            if not level:
                break
        pointers = {entry: name for tree in inside.values() for name, mode, entry in tree if mode == _FILE}
        self._reader.blobs(pointers, layout.MAX_POINTER)
        bad = set()
        for entry, name in pointers.items():
            try:
                layout.parse_pointer(name, self._reader.blob(entry))
            except (CorruptError, NotFoundError):
                bad.add(entry)
        counts: dict[ObjectId, int] = {}
        for oid, top in runs.items():
            try:
                self._count(top, inside, bad, counts, 0)
            except FormatError as error:
                self._runs[oid] = error

    def _count(
        self,
        tree: ObjectId,
        inside: Mapping[ObjectId, list[Entry]],
        bad: Collection[ObjectId],
        counts: dict[ObjectId, int],
        depth: int,
    ) -> int:
        """How many artifacts there are in a folder.  Raises FormatError for one that cannot be."""
        if tree in counts:
            return counts[tree]
        if tree not in inside or depth >= MAX_DEPTH:
            raise FormatError("a folder of its artifacts is missing, or too deep")
        total = 0
        for name, mode, entry in inside[tree]:
            layout.check_part(name)
            check_printable(name)
            if mode == _FOLDER:
                total += self._count(entry, inside, bad, counts, depth + 1)
            elif mode != _FILE or entry in bad:
                raise FormatError(f"artifact `{name!r:.80}` of mode {mode:o} is no git-lfs pointer")
            else:
                total += 1
        if total > MAX_ARTIFACTS:
            raise FormatError(f"it has more than {MAX_ARTIFACTS:,} artifacts")
        counts[tree] = total
        return total

    def _check_code(self, roots: Mapping[ObjectId, ObjectId]) -> None:
        """Look at the names in the code of runs (by their trees): what git lets pass must not leave a folder either.

        Symbolic links and submodules are code like any other.  Nothing is checked out of a run but by git itself.
        """
        level = {tree: {oid} for tree, oid in roots.items()}
        while level:
            found = self._reader.trees(tree for tree in level if tree not in self._code)
            below: dict[ObjectId, set[ObjectId]] = {}
            for tree, owners in level.items():
                if tree in self._code:
                    continue
                self._code.add(tree)
                for name, mode, entry in found.get(tree, ()):  # what a partial clone lacks is code that it trusts
                    if name == layout.FOLDER and tree in roots:
                        continue
                    try:
                        _check_code_name(name, mode)
                    except FormatError as error:
                        self._runs |= dict.fromkeys(owners, error)
                        self._code.discard(tree)
                    if mode == _FOLDER:
                        below.setdefault(entry, set()).update(owners)
            level = below

    # -- tags and documents ------------------------------------------------------------------------------------------

    def _tag(self, ref: str, oid: ObjectId, known: ObjectId | None) -> Wanted:
        if known is not None and known != oid:
            raise FormatError("the tag was another one before; tags are never moved")
        self._reader.load([oid], "tag", 1 << 20)
        event = events.parse(oid, self._git.read_tag(oid))
        if f"refs/tags/{event.tag}" != ref:
            raise FormatError(f"the tag says that it is `{event.tag}`")
        run_id = event.run_id if isinstance(event, (VersionTag, StageTag, AliasTag)) else ""
        self._reader.load([event.target], "commit", MAX_COMMIT)
        if not run_id:  # the alias is gone: any run of the model keeps the event's place
            self._look_at([event.target])
            found = self._runs[event.target]
            run_id = found.partition("\0")[0] if isinstance(found, str) else "?"
        return Wanted(event.target, run_id, None)

    def _check_content(self, oid: ObjectId) -> None:
        event = events.parse(oid, self._git.read_tag(oid))
        if isinstance(event, VersionTag):
            digest = self._catalog.manifest_at(event.target, event.path).digest
            if digest != event.manifest:
                raise CorruptError("its files are not those that the tag vouches for")

    def _documents(self, oid: ObjectId, known: ObjectId | None) -> None:
        at: ObjectId | None = oid
        steps = 0
        while at is not None and at != known:
            commit = self._reader.commit(at)
            if len(commit.parents) > 1:
                raise FormatError("the history of the documents branches")
            self._reader.tree(commit.tree)
            documents.blobs(self._git, at)
            at = commit.parents[0] if commit.parents else None
            steps += 1
            if steps > MAX_REVISIONS:
                raise FormatError("the documents' history has no end")
        before = {} if known is None else documents.blobs(self._git, known)
        news = {key: blob for key, blob in documents.blobs(self._git, oid).items() if before.get(key) != blob}
        self._reader.load(news.values(), "blob", MAX_RECORD)
        for key, blob in news.items():
            if not names.is_key(key):
                raise FormatError(f"`{key!r:.80}` is no model")
            document = documents.Document.decode(key, self._reader.blob(blob))
            _check_counters(field.counter for field in document.fields.values())
            _check_counters(counter for counter, _, _ in document.log)


# ----------------------------------------------------------------------------------------------------------------------


class _Commit(NamedTuple):
    tree: ObjectId
    parents: tuple[ObjectId, ...]


class _Reader:
    """Reads objects after looking at their kinds and sizes; remembers what is small and asked for again."""

    def __init__(self, git: GitStore) -> None:
        self._git = git
        self._commits: dict[ObjectId, _Commit] = {}
        self._trees: dict[ObjectId, list[Entry]] = {}
        self._blobs: dict[ObjectId, bytes] = {}

    def load(self, oids: Iterable[ObjectId], kind: str, limit: int) -> None:
        """Read objects that must be there, of this kind and size.  Raises FormatError, NotFoundError."""
        asked = self._unread(oids, kind)
        headers = self._git.headers(asked)
        for oid in asked:
            if oid not in headers:
                raise NotFoundError(f"git object `{oid[:10]}` is missing")
            _, found, size = headers[oid]
            if found != kind:
                raise FormatError(f"git object `{oid[:10]}` is a {found}, not a {kind}")
            if size > limit:
                raise FormatError(f"git object `{oid[:10]}` has {size:,} bytes, more than {limit:,}")
        self._keep(headers.values())

    def _unread(self, oids: Iterable[ObjectId], kind: str) -> list[ObjectId]:
        read: Container[ObjectId] = self._trees if kind == "tree" else self._commits if kind == "commit" else ()
        return [oid for oid in dict.fromkeys(oids) if oid not in read]

    def _keep(self, headers: Iterable[Header]) -> None:
        for (oid, kind, _), data in self._git.contents(headers):
            if kind == "blob":
                self._blobs[oid] = data
            elif kind == "tree":
                self._trees[oid] = parse_tree(data, len(oid) // 2)
            elif kind == "commit":
                match = _HEADER.match(data)
                if match is None:
                    raise FormatError(f"git object `{oid[:10]}` is no readable commit")
                parents = match[2].decode().replace("parent ", "").split()
                self._commits[oid] = _Commit(ObjectId(match[1].decode()), tuple(map(ObjectId, parents)))

    def _small(self, oids: Iterable[ObjectId], kind: str, limit: int) -> None:
        """Read those that are there, of this kind, and small enough."""
        headers = self._git.headers(self._unread(oids, kind))
        self._keep(header for header in headers.values() if header.kind == kind and header.size <= limit)

    def commits(self, oids: Iterable[ObjectId]) -> dict[ObjectId, _Commit]:
        """Those of these objects that are commits."""
        asked = list(oids)
        self._small(asked, "commit", MAX_COMMIT)
        return {oid: self._commits[oid] for oid in asked if oid in self._commits}

    def trees(self, oids: Iterable[ObjectId]) -> dict[ObjectId, list[Entry]]:
        """Those of these objects that are folders."""
        asked = list(oids)
        self._small(asked, "tree", MAX_TREE)
        return {oid: self._trees[oid] for oid in asked if oid in self._trees}

    def commit(self, oid: ObjectId) -> _Commit:
        """A commit.  Raises FormatError, NotFoundError."""
        if oid not in self._commits:
            self.load([oid], "commit", MAX_COMMIT)
        return self._commits[oid]

    def tree(self, oid: ObjectId) -> list[Entry]:
        """A folder.  Raises FormatError, NotFoundError."""
        if oid not in self._trees:
            self.load([oid], "tree", MAX_TREE)
        return self._trees[oid]

    def blobs(self, oids: Iterable[ObjectId], limit: int) -> None:
        """Read those of these objects that are blobs and small enough, for ``blob``."""
        self._small(oids, "blob", limit)

    def forget(self) -> None:
        """Let go of what was read, but commits."""
        self._trees.clear()
        self._blobs.clear()

    def blob(self, oid: ObjectId) -> bytes:
        """A blob that was read.  Raises NotFoundError."""
        if oid not in self._blobs:
            raise NotFoundError(f"git object `{oid[:10]}` is missing, or too large")
        return self._blobs[oid]


def parse_tree(data: bytes, size: int) -> list[Entry]:
    """The (name, mode, id) of a folder's entries.  Raises FormatError."""
    found = _ENTRIES[size].findall(data)
    if sum([len(mode) + len(name) + 2 + size for mode, name, _ in found]) != len(data):
        raise FormatError("a folder cannot be read")
    return [(name.decode("utf-8", "surrogateescape"), int(mode, 8), ObjectId(oid.hex())) for mode, name, oid in found]


def _entries(listed: list[Entry] | None) -> dict[str, ObjectId]:
    """The entries of a run's ``.gittrack`` by name.  Raises FormatError."""
    if listed is None:
        raise FormatError("its folder is missing or too large")
    expected = {layout.RECORD: _FILE, layout.METRICS: _FOLDER, layout.ARTIFACTS: _FOLDER}
    for name, mode, _ in listed:
        if expected.get(name) != mode:
            raise FormatError(
                f"its `{layout.FOLDER}` has the entry `{name!r:.80}` of mode {mode:o}", hint="update gittrack"
            )
    found = {name: oid for name, _, oid in listed}
    if layout.RECORD not in found:
        raise FormatError("it has no record")
    return found


def check_printable(name: str) -> None:
    """Refuse names that could command a terminal or look like others.  Raises FormatError."""
    if len(name) > MAX_NAME or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise FormatError(f"a name of {len(name)} characters, or with control characters: `{name!r:.80}`")


def _check_code_name(name: str, mode: int) -> None:
    if mode not in _CODE_MODES:
        raise FormatError(f"its code has `{name!r:.80}` of mode {mode:o}")
    check_printable(name)
    parts = re.split(r"[\\/]", name)
    if any(part in ("", ".", "..") or part.lower().rstrip(" .") in (".git", "git~1") for part in parts):
        raise FormatError(f"its code has a file `{name!r:.80}`")


def _check_counters(counters: Iterable[int]) -> None:
    if any(not 0 <= counter <= MAX_COUNTER for counter in counters):
        raise FormatError(f"a counter is beyond {MAX_COUNTER}")
