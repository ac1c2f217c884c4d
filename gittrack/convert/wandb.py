"""Offline runs of Weights & Biases: ``wandb/offline-run-*/run-*.wandb``.

A file is LevelDB's log format (blocks of 32 KiB; records of CRC-32, length and kind, split where a block ends) behind a
header of seven bytes, and each record is a ``Record`` message.  Of those the configuration, history, summary, system
statistics, the run itself and its end are read.  Sources: ``wandb/proto/wandb_internal.proto`` and the transaction log
of wandb 0.31, https://github.com/google/leveldb/blob/main/doc/log_format.md.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from gittrack.convert.folders import files_below, subfolders
from gittrack.convert.series import Series, milliseconds
from gittrack.convert.source import RunsOnly, SourceExperiment, SourceFile, SourceRun, derived_id
from gittrack.convert.wire import Message
from gittrack.errors import FormatError, NotFoundError
from gittrack.store import files

HEADER: Final = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
BLOCK: Final = 32_768
#: Bytes of a record; larger ones are passed over.
MAX_RECORD: Final = 64 << 20
MAX_DEPTH: Final = 8
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SPELLED: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
#: Ends the key that tells the type of what is no plain value.
_TYPE: Final = "._type"
_FOLDER: Final = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-.+")


def records(file: BinaryIO) -> Iterator[bytes]:
    """The records of a ``.wandb`` file; one that is cut off ends it, as while it is being written.

    Raises:
        FormatError: Another kind of file, or a damaged one.
    """
    if file.read(len(HEADER)) != HEADER:
        raise FormatError("it is no file of wandb, or of a version that is not known here")
    parts: list[bytes] = []
    size = 0
    while True:
        left = BLOCK - file.tell() % BLOCK
        if left < 7:
            file.seek(left, os.SEEK_CUR)
        head = file.read(7)
        if len(head) < 7:
            return
        crc, length, kind = struct.unpack("<IHB", head)
        data = file.read(length)
        if len(data) < length or head == bytes(7):
            return
        if zlib.crc32(data, zlib.crc32(head[6:])) != crc or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            raise FormatError(f"the record that ends at byte {file.tell()} is damaged")
        if kind in (_FULL, _FIRST):
            parts, size = [], 0
        size += length
        if size <= MAX_RECORD:
            parts.append(data)
        if kind in (_FULL, _LAST) and size <= MAX_RECORD:
            yield b"".join(parts)


class OfflineRuns(RunsOnly):
    """Runs that wandb kept on disk.

    Args:
        folder: A folder ``wandb``, one that has it, or that of a single run.
        experiment: What the experiment is to be called; the runs' projects if not given.

    Raises:
        NotFoundError: There are none.
    """

    kind = "wandb"

    def __init__(self, folder: Path, experiment: str | None = None) -> None:
        super().__init__()
        places = [folder, *(folder / below / name for below in ("", "wandb") for name in subfolders(folder / below))]
        logs = [
            path
            for place in places
            if place == folder or _FOLDER.fullmatch(place.name)
            for path in sorted(place.glob("*.wandb"))
        ]
        if not logs:
            raise NotFoundError(
                f"`{folder}` has no runs of wandb", hint="they are in `wandb/offline-run-*/run-*.wandb`"
            )
        self._runs: dict[tuple[str, str, str], Log] = {}
        for path in logs:
            log = Log()
            with os.fdopen(files.open_source(path), "rb") as file:
                log.size += os.fstat(file.fileno()).st_size
                try:
                    for data in records(file):
                        log.read(Message(data))
                except FormatError as error:
                    self.problems.append(f"`{path}`: {error.message}; what follows is left out")
            if not log.run_id:
                self.problems.append(f"`{path}`: it does not say which run it is")
                continue
            log.folders.append(path.parent / "files")
            key = (log.entity, experiment or log.project, log.run_id)
            if key in self._runs:  # it was resumed
                self._runs[key].extend(log)
            else:
                self._runs[key] = log

    def experiments(self) -> Iterable[SourceExperiment]:
        """The projects."""
        names = sorted({project for _, project, _ in self._runs})
        return [SourceExperiment(key=name, name=name) for name in names]

    def count(self, experiment: SourceExperiment) -> int:
        """How many runs it has."""
        return sum(project == experiment.name for _, project, _ in self._runs)

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, oldest first."""
        for (entity, project, run_id), log in sorted(self._runs.items(), key=lambda item: item[1].started):
            if project == experiment.name:
                for key in sorted(log.strange):
                    self.problems.append(f"run `{run_id}`: `{key:.80}` has values that are no numbers")
                for path in sorted(log.lost()):
                    self.problems.append(f"run `{run_id}`: its file `{path:.200}` is not there")
                self.passed += log.passed
                yield log.to_run(derived_id(self.kind, entity, log.project, run_id))


class Log:
    """What the records of one run say."""

    def __init__(self) -> None:
        self.entity = self.run_id = ""
        self.project = "uncategorized"
        self.size = 0
        self.started = 0
        self.folders: list[Path] = []
        self.strange: set[str] = set()
        self.passed: Counter[str] = Counter()
        self._media: set[str] = set()  #: files that pictures, tables and the like of the history are in
        self._name = ""
        self._user = ""
        self._tags: dict[str, str] = {}
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        self._series = Series()
        self._statistics = 0
        self._last_step = 0
        self._exit: int | None = None

    def extend(self, later: Log) -> None:
        """Take in what a file says that goes on with the same run."""
        self.size += later.size
        self.folders += later.folders
        self.strange |= later.strange
        self.passed += later.passed
        self._media |= later._media
        self._tags |= later._tags
        self._config |= later._config
        self._summary |= later._summary
        self._exit = later._exit
        self._last_step = max(self._last_step, later._last_step)
        for key, value, timestamp, step, *_ in later._series:
            self._series.add(key, value, step, timestamp)

    def read(self, record: Message) -> None:
        """Take one record in.  Raises FormatError."""
        if 2 in record:
            self._history(record.message(2))
        elif 3 in record:
            self._take(self._summary, record.message(3))
        elif 5 in record:
            self._take(self._config, record.message(5))
        elif 7 in record:
            self._system(record.message(7))
        elif 17 in record:
            self._run(record.message(17))
        elif 18 in record:
            self._exit = record.message(18).int64(1)
        elif 26 in record:
            self._environment(record.message(26))

    def _run(self, run: Message) -> None:
        self.run_id, self.entity = run.text(1), run.text(2)
        self.project = run.text(3) or self.project
        self._name = run.text(8) or self._name
        start = run.message(17)
        self.started = start.int64(1) * 1000 + start.int64(2) // 1_000_000 or self.started
        self._take(self._config, run.message(4))
        self._take(self._summary, run.message(5))
        git = run.message(21)
        said = {
            "wandb.group": run.text(6),
            "wandb.job_type": run.text(7),
            "wandb.tags": ",".join(run.texts(10)),
            "wandb.sweep": run.text(12),
            "mlflow.note.content": run.text(9),
            "mlflow.source.git.repoURL": git.text(1),
            "mlflow.source.git.commit": git.text(2),
        }
        self._tags |= {key: value for key, value in said.items() if value}

    def _environment(self, environment: Message) -> None:
        git = environment.message(9)
        said = {
            "mlflow.user": environment.text(13),
            "mlflow.source.name": environment.text(6),
            "mlflow.source.git.repoURL": git.text(1),
            "mlflow.source.git.commit": git.text(2),
        }
        self._user = environment.text(13) or self._user
        self._tags = {key: value for key, value in said.items() if value} | self._tags

    def _take(self, facts: dict[str, Any], record: Message) -> None:
        """Updates and removals of a configuration or a summary."""
        for item in record.messages(1):
            facts[_key(item)] = _value(item)
        for item in record.messages(2):
            facts.pop(_key(item), None)

    def _history(self, history: Message) -> None:
        row = {_key(item): _value(item) for item in history.messages(1)}
        step = history.message(2).int64(1) if 2 in history else row.get("_step", 0)
        step = step if isinstance(step, int) else 0
        seconds = row.get("_timestamp")
        when = milliseconds(seconds) if isinstance(seconds, (int, float)) else self._series.last
        self._last_step = max(self._last_step, step)
        self._series.seen(when)
        plain, media = _apart(row)
        for one in media:
            self._medium(one)
        for key, value in plain.items():
            if key not in ("_step", "_timestamp", "_runtime", "_wandb"):
                self._point(key, value, step, when)

    def _point(self, key: str, value: Any, step: int, when: int) -> None:
        for name, number in _flat(key, value):
            spelled = _SPELLED.get(number) if isinstance(number, str) else number
            if isinstance(spelled, (int, float)):
                self._series.add(name, _float(spelled), step, when)
            elif isinstance(spelled, dict) and "_type" in spelled:
                self._medium(spelled)
            else:
                self.strange.add(name)

    def _medium(self, value: dict[str, Any]) -> None:
        """A picture, a table, a sound: the history names its file; a histogram is there as a whole."""
        several = value.get("filenames")
        names = [value.get("path"), *(several if isinstance(several, list) else ())]
        found = [name for name in names if isinstance(name, str)]
        self._media.update(found)
        if not found:
            self.passed[f"values of type `{value['_type']!s:.40}`"] += 1

    def lost(self) -> set[str]:
        """Files that the history names and that are in none of the folders."""
        return {name for name in self._media if not any((folder / name).is_file() for folder in self.folders)}

    def _system(self, statistics: Message) -> None:
        stamp = statistics.message(2)
        when = stamp.int64(1) * 1000 + stamp.int64(2) // 1_000_000
        for item in statistics.messages(3):
            for name, value in _flat(f"system/{_key(item)}", _value(item)):
                if isinstance(value, (int, float)):
                    self._series.add(name, _float(value), self._statistics, when)
        self._statistics += 1

    def to_run(self, run_id: str) -> SourceRun:
        """The run."""
        end = self._series.last or self.started
        for key, value in _apart(self._summary)[0].items():  # what was only said in the end
            for name, number in _flat(key, value):
                if isinstance(number, (int, float)) and name not in self._series and not name.startswith("_"):
                    self._series.add(name, _float(number), self._last_step, end)
        params = {
            name: value if isinstance(value, str) else json.dumps(value)
            for key, given in self._config.items()
            if key != "_wandb"
            for name, value in _flat(key, given)
        }
        series = self._series
        return SourceRun(
            key=self.run_id,
            run_id=run_id,
            state=f"{self.size} bytes",
            name=self._name or self.run_id,
            user_id=self._user or self.entity,
            status="KILLED" if self._exit is None else "FAILED" if self._exit else "FINISHED",
            start_time=self.started or series.first,
            end_time=end,
            params=params,
            tags=self._tags,
            metrics=lambda: series,
            files=self._files,
        )

    def _files(self) -> Iterator[SourceFile]:
        seen: set[str] = set()
        for folder in reversed(self.folders):  # of a file that is there twice, the later one
            for file in files_below(folder):
                if file.path not in seen:
                    seen.add(file.path)
                    yield file


def _key(item: Message) -> str:
    return item.text(1) or ".".join(item.texts(2))


def _value(item: Message) -> Any:
    """What an item says; None for what is no JSON."""
    try:
        return json.loads(item.bytes(16))
    except (ValueError, RecursionError):
        return None


def _apart(facts: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Facts that stand for themselves, and pictures, tables and the like, of which each fact has a key of its own."""
    media: dict[str, dict[str, Any]] = {key[: -len(_TYPE)]: {} for key in facts if key.endswith(_TYPE)}
    plain = {}
    for key, value in facts.items():
        name = next((name for name in _heads(key) if name in media), None)
        if name is None:
            plain[key] = value
        else:
            media[name][key[len(name) + 1 :]] = value
    return plain, list(media.values())


def _heads(key: str) -> Iterator[str]:
    """``a`` and ``a.b`` of ``a.b.c``."""
    at = key.find(".")
    while at >= 0:
        yield key[:at]
        at = key.find(".", at + 1)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _flat(key: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """A nested mapping as one with dots; what has a type of wandb's own (a table, an image) stays whole."""
    if isinstance(value, dict) and value and "_type" not in value and depth < MAX_DEPTH:
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner, depth + 1)
    else:
        yield key, value
