"""The page and chosen runs as a folder of files, which any web server can hand out: the same page, and no server.

What the page asks of a server is asked here once for each run, of the same handlers, and written down; the page puts
several runs together, and draws curves, itself (`gittrack/ui/src/lib/site`).  Files are named after what is in them,
never after what a run calls something, so that a browser that kept an old one does not mix it with new ones; only
`index.html` and `data/index.json` are asked for each time.  The same runs give the same bytes.

Nothing is in it that is not a fact of a chosen run: of what a handler says of other runs (the lineage) and of what it
says of all (the keys there are, the tags of experiments), the others' part is left out here.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import os
import secrets
import shutil
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import orjson

from gittrack.errors import AlreadyExistsError, GittrackError, InvalidValueError, TooLargeError
from gittrack.server.hub import website
from gittrack.server.hub.guard import CSP
from gittrack.server.hub.local import LocalApi
from gittrack.store import files
from gittrack.store.index import COLUMN_KINDS
from gittrack.track.runs import Tracker
from gittrack.types import Artifact, MetricHistory

#: That one filter can name.
MOST_RUNS: Final = 10_000
_API: Final = "/ajax-api/2.0"
_FORMAT: Final = 1
_DATA: Final = "data"
_INDEX: Final = "index.json"
_FILES: Final = "files"
_PAGE: Final = "page"
_DOCUMENT: Final = "index.html"
#: Some hosts leave out what looks like a hidden file, unless this is there.
_AS_IT_IS: Final = ".nojekyll"
_ALL: Final = frozenset((_DOCUMENT, _PAGE, _DATA, _FILES, _AS_IT_IS))
_BLOCK: Final = 1 << 19  #: bytes of curves that are fetched together, before they are compressed
#: Endings that a host may give a name to: none of what it then says is a document, a script or a style.
_MEDIA: Final = frozenset(
    f".{one}"
    for one in "png jpg jpeg gif webp avif bmp ico wav mp3 ogg oga opus flac m4a aac mp4 webm ogv m4v mov".split()
)
#: Directives that count in a header only.
_HEADER_ONLY: Final = ("frame-ancestors",)
_UNSERVED: Final = (
    '<p class="unserved">This page has to come from a web server, which can be any: '
    "<code>python -m http.server</code> in its folder, then http://localhost:8000.</p>"
)

Json = dict[str, Any]


@dataclass
class Report:
    """What was written.

    Attributes:
        runs: How many.
        files: How many files the folder has.
        size: Their bytes.
        too_large: Files of runs that are named and not there, since they are larger than was wanted.
        absent: Likewise, since their bytes are not in this clone.
    """

    runs: int = 0
    files: int = 0
    size: int = 0
    too_large: int = 0
    absent: int = 0


@dataclass
class Options:
    """What to write of the runs.

    Attributes:
        max_artifact: Bytes of the largest file that is copied; 0: none is.
        code: With what of a run's code was not committed.
    """

    max_artifact: int = 25 << 20
    code: bool = True


def check_target(target: Path) -> None:
    """Refuse a folder that somebody keeps something else in.  Raises AlreadyExistsError, InvalidValueError."""
    if not target.name:
        raise InvalidValueError(f"`{target}` is no place for a new folder")
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise AlreadyExistsError(f"`{target}` is no folder", hint="name another one")
    others = sorted({one.name for one in target.iterdir()} - _ALL)
    if others or (any(target.iterdir()) and not (target / _DATA / _INDEX).is_file()):
        what = f": `{others[0]}` is in it" if others else ""
        raise AlreadyExistsError(
            f"`{target}` is no site that was exported before{what}", hint="name a new folder, or an empty one"
        )


def export(
    tracker: Tracker,
    run_ids: Sequence[str],
    target: Path,
    options: Options,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Write a site of some runs; it is in its place when it is whole.  An older one there is replaced.

    Args:
        tracker: Where the runs are.
        run_ids: The runs, in any order.
        target: The folder.
        options: What to write of them.
        progress: Told how many runs are done, and of how many.

    Raises:
        AlreadyExistsError: Something else is there.
        InvalidValueError: There is no run, or the folder is no place for one.
        TooLargeError: There are too many runs.
        NotFoundError: A run is gone; this installation has no page.
        CorruptError: A file of a run is not what it was.
        ReadOnlyError, StorageError: It cannot be written.
    """
    if not run_ids:
        raise InvalidValueError("there is no such run", hint="`gittrack log` lists the runs")
    if len(run_ids) > MOST_RUNS:
        raise TooLargeError(f"a site has at most {MOST_RUNS:,} runs, not {len(run_ids):,}", hint="`--filter` chooses")
    check_target(target)
    target = target.resolve()
    files.make_dirs(target.parent, durable=False)
    work = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        site = _Site(tracker, work, options)
        site.page()
        site.runs(run_ids, progress)
        check_target(target)
        _put(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return site.report


def _put(work: Path, target: Path) -> None:
    """Put a folder in the place of another one."""
    old = target.with_name(f"{work.name}.old")
    with files.reporting(target):
        if target.exists():
            target.rename(old)
            try:
                work.rename(target)
            except OSError:
                old.rename(target)
                raise
            shutil.rmtree(old)
        else:
            work.rename(target)


@dataclass
class _Site:
    """A site that is being written."""

    tracker: Tracker
    folder: Path
    options: Options
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self._api = LocalApi(self.tracker)
        for name in ("", _DATA, _FILES):
            files.make_dirs(self.folder / name, durable=False)

    def _ask(self, route: str, /, **said: Any) -> Json:
        return self._api.ask("GET", f"{_API}/gittrack/{route}", said)

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        if path.exists():  # named by its content: it is the same
            return
        files.make_dirs(path.parent, durable=False)
        with files.reporting(path):
            path.write_bytes(data)
        self._count(len(data))

    def _count(self, size: int) -> None:
        self.report.files += 1
        self.report.size += size

    def _keep(self, data: bytes, ending: str) -> str:
        """Write a part of the data; its name."""
        name = f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.{ending}"
        self._write(f"{_DATA}/{name}", data)
        return name

    # --- the page

    def page(self) -> None:
        """Write the page, with its addresses below wherever the folder will be."""
        for name, data in website.contents().items():
            if name == _DOCUMENT:
                self._write(name, _moved(data))
            else:
                self._write(f"{_PAGE}/{name}", data)
        self._write(_AS_IT_IS, b"")

    # --- the runs

    def runs(self, run_ids: Sequence[str], progress: Callable[[int, int], None]) -> None:
        """Write the runs, and what there is of all of them."""
        chosen = frozenset(run_ids)
        written: dict[str, Json] = {}
        keys: dict[str, set[str]] = {kind: set() for kind in COLUMN_KINDS}
        experiments: dict[str, str] = {}
        for done, run_id in enumerate(sorted(chosen), 1):
            said = self._ask("runs/compare", run_ids=[run_id])
            if said["absent"]:
                self._api.hub.run(run_id)  # says that it is not there
            about = said["runs"][0]
            experiments[about["experiment_id"]] = about["experiment_name"]
            for kind, known in keys.items():
                known.update(said[kind])
            values = {"values": said, **self._curves(run_id, sorted(said["metrics"]))}
            rest = {
                "environment": self._ask("runs/environment", run_ids=[run_id]),
                "files": self._files(run_id),
                "lineage": _only(self._ask("runs/lineage", run_id=run_id), chosen),
                "code": self._code(run_id),
            }
            written[run_id] = {name: self._keep(_json(of), "json") for name, of in (("values", values), ("rest", rest))}
            progress(done, len(chosen))
        self.report.runs = len(chosen)
        index = {
            "format": _FORMAT,
            "experiments": self._experiments(experiments),
            "columns": self._columns(sorted(chosen), experiments, keys),
            "runs": written,
        }
        self._write(f"{_DATA}/{_INDEX}", _json(index))

    def _experiments(self, names: dict[str, str]) -> list[Json]:
        """Their tags are not said: views that somebody saved name what other runs have."""
        found = [self._api.hub.experiment(one) for one in names]
        return [
            {"experiment_id": one.experiment_id, "name": one.name, "lifecycle_stage": one.lifecycle_stage}
            for one in sorted(found, key=lambda one: one.name)
        ]

    def _columns(self, run_ids: Sequence[str], experiment_ids: Iterable[str], keys: dict[str, set[str]]) -> Json:
        """The table, with all columns: filters ask for any."""
        listed = ", ".join(f"'{one}'" for one in run_ids)
        said = self._ask(
            "runs/columns",
            experiment_ids=list(experiment_ids),
            filter=f"attributes.run_id IN ({listed})",
            run_view_type="ALL",
            max_results=len(run_ids),
            **{kind: sorted(known) for kind, known in keys.items()},
        )
        return said | {"keys": {kind: sorted(known) for kind, known in keys.items()}}

    def _curves(self, run_id: str, keys: Sequence[str]) -> Json:
        """Every point of every metric: in which block, where in it (in numbers of 64 bits), and how many there are."""
        blocks: list[str] = []
        where: dict[str, tuple[int, int, int]] = {}
        block = bytearray()
        for key in keys:
            history = self.tracker.metric_history(run_id, key)
            where[key] = (len(blocks), len(block) // 8, len(history))
            block += _packed(history)
            if len(block) >= _BLOCK:
                blocks.append(self._keep(gzip.compress(block, 6, mtime=0), "bin"))
                block.clear()
        if block:
            blocks.append(self._keep(gzip.compress(block, 6, mtime=0), "bin"))
        return {"blocks": blocks, "where": where}

    def _code(self, run_id: str) -> Json:
        """What was not committed, file by file."""
        if not self.options.code:
            return {"trouble": "The code of the runs is not in this copy."}
        try:
            said = self._ask("runs/code/changes", run_id=run_id)
        except GittrackError as error:
            return {"trouble": error.message}
        return {"changes": said, "diffs": {one["path"]: self._diff(run_id, one) for one in said["files"]}}

    def _diff(self, run_id: str, change: Json) -> Json:
        try:
            asked = {name: change[name] for name in ("path", "old_path") if name in change}
            return self._ask("runs/code/diff", run_id=run_id, **asked)
        except GittrackError as error:
            return {"trouble": error.message}

    # --- the files of runs

    def _files(self, run_id: str) -> Json:
        said = self._ask("runs/files", run_ids=[run_id])
        for path, column in said["files"].items():
            about = column[0]
            name = self._copied(Artifact(path, about["digest"], about["size"]))
            if name is not None:
                about["at"] = name
        return said

    def _copied(self, artifact: Artifact) -> str | None:
        """The name of a copy; None if there is none."""
        if artifact.size > self.options.max_artifact or not self.options.max_artifact:
            self.report.too_large += 1
            return None
        ending = Path(artifact.path).suffix.lower()
        name = f"{_FILES}/{artifact.digest}{ending if ending in _MEDIA else '.bin'}"
        path = self.folder / name
        if path.exists():
            return name
        objects = self.tracker.repo.objects
        if not objects.has(artifact.digest, artifact.size):
            self.report.absent += 1
            return None
        objects.copy_out(artifact.digest, path)
        self._count(artifact.size)
        return name


def _json(said: Any) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def _only(lineage: Json, chosen: frozenset[str]) -> Json:
    """A lineage without what it says of runs that were not chosen."""
    said = {name: value for name, value in lineage.items() if name not in ("parent", "repeats")}
    for name in ("parent", "repeats"):
        if name in lineage and lineage[name]["run_id"] in chosen:
            said[name] = lineage[name]
    for name in ("children", "repeated_by", "models_read", "models"):
        said[name] = [one for one in lineage[name] if one["run_id"] in chosen]
    return said


def _packed(history: MetricHistory) -> bytes:
    """Steps, times and values as 64-bit floats, little-endian; of the first two how much each is above the one before.

    What counts evenly is packed to next to nothing.
    """
    columns: list[Iterable[float]] = [_rises(history.steps), _rises(history.timestamps), history.values]
    return b"".join(struct.pack(f"<{len(history)}d", *column) for column in columns)


def _rises(column: array[int]) -> list[int]:
    return [*column[:1], *(after - before for before, after in pairwise(column))]


def _moved(document: bytes) -> bytes:
    """The document for any address: it says that there is no server, and what a server would say in headers."""
    kept = [one for one in CSP.decode().split("; ") if not one.startswith(_HEADER_ONLY)]
    policy = f'<meta http-equiv="content-security-policy" content="{html.escape("; ".join(kept), quote=False)}" />'
    metas = ('<meta name="referrer" content="no-referrer" />', '<meta name="gittrack-site" />')
    head = "".join(f"\n    {one}" for one in (policy, *metas))
    start, app = '<meta charset="utf-8" />', '<div id="app">'
    text = document.decode().replace(f'"{website.AT}', f'"./{_PAGE}/')
    if text.count(start) != 1 or text.count(app) != 1:
        raise GittrackError("the page of this installation is not as it was built")
    return text.replace(start, start + head).replace(app, app + _UNSERVED).encode()
