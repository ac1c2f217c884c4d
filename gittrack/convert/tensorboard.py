"""TensorBoard's event files: scalars, hyperparameters, texts, images, audio of each folder that has some, as one run.

A file is a sequence of records (length, its masked CRC-32C, the bytes, theirs), each an ``Event`` message.  Histograms,
graphs and what else has no place among a run's facts are counted.  A record that is cut off ends a file, as it does
while the file is still being written.  Sources: ``tensorflow/core/lib/io/record_writer.h``,
``tensorflow/core/util/event.proto``, ``tensorflow/core/framework/{summary,tensor}.proto``,
``tensorboard/plugins/hparams/plugin_data.proto``.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from gittrack.convert.folders import names_below
from gittrack.convert.series import Series, milliseconds
from gittrack.convert.source import RunsOnly, SourceExperiment, SourceFile, SourceRun, derived_id
from gittrack.convert.wire import Message
from gittrack.errors import FormatError, NotFoundError
from gittrack.store import files

#: Bytes of a record that is looked at; nearly all are far smaller.
MAX_RECORD: Final = 64 << 20
#: Bytes of a record whose checksum is checked, which takes a second for 8 MB: pictures and sounds have their own.
CHECKED: Final = 1 << 20
#: Texts, and pictures and sounds, of a run that are kept.
MAX_TEXTS: Final = 10_000
MAX_MEDIA: Final = 10_000
_MARK: Final = ".tfevents."
_SESSION: Final = "_hparams_/session_"
_STATUS: Final = {1: "FINISHED", 2: "FAILED", 3: "RUNNING"}
#: TensorFlow's element types that a scalar can have: where its values are among a TensorProto's fields, how its raw
#: bytes are unpacked.
_FORMS: Final = {1: (5, "<f"), 2: (6, "<d"), 3: (7, "<i"), 9: (10, "<q"), 10: (11, "<?"), 19: (13, "<e")}
_STRING: Final = 7
#: What a picture or a sound begins with, and how its name ends.
_FORMATS: Final = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"RIFF", "wav"))
#: Fields of a ``Summary.Value`` of old that are media: what they are, and where in them the bytes are.
_OLD: Final = {4: ("images", 4), 6: ("audio", 4)}


def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_TABLE: Final = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset, as TensorFlow writes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The records of an event file that are small enough to be of interest, and where each begins.

    Raises:
        FormatError: A checksum does not fit.
    """
    end = os.fstat(file.fileno()).st_size
    while len(head := file.read(12)) == 12:
        size, crc = struct.unpack("<QI", head)
        if masked_crc(head[:8]) != crc:
            raise FormatError(f"the record at byte {file.tell() - 12} is damaged")
        if size > end - file.tell():
            return  # being written
        if size > MAX_RECORD:
            file.seek(size + 4, os.SEEK_CUR)
            continue
        data, tail = file.read(size), file.read(4)
        if len(tail) < 4:
            return
        if size <= CHECKED and masked_crc(data) != struct.unpack("<I", tail)[0]:
            raise FormatError(f"the record that ends at byte {file.tell()} is damaged")
        yield file.tell() - size - 4, data


class EventFolder(RunsOnly):
    """A folder with event files, in it or below.

    Args:
        folder: The folder.
        experiment: What the experiment is to be called.

    Raises:
        NotFoundError: There is none.
    """

    kind = "tensorboard"

    def __init__(self, folder: Path, experiment: str) -> None:
        super().__init__()
        self._top = folder
        self._experiment = experiment
        self._runs: dict[str, list[str]] = {}
        for name in names_below(folder):
            below, _, file = name.rpartition("/")
            if _MARK in file:
                self._runs.setdefault(below, []).append(file)
        if not self._runs:
            raise NotFoundError(f"`{folder}` has no event files of TensorBoard", hint="their names have `.tfevents.`")

    def experiments(self) -> Iterable[SourceExperiment]:
        """The one."""
        return [SourceExperiment(key=self._experiment, name=self._experiment)]

    def count(self, experiment: SourceExperiment) -> int:
        """How many folders have event files."""
        return len(self._runs)

    def _id(self, below: str) -> str:
        # The name of the first file has the time, the host and the process that wrote it.
        return derived_id(self.kind, below, min(self._runs[below]))

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """One for each folder, in order; a run below another one's folder is nested in it."""
        for below in sorted(self._runs):
            yield self._run(below)

    def _run(self, below: str) -> SourceRun:
        events = Events(self.passed)
        size = 0
        for name in sorted(self._runs[below]):
            path = self._top / below / name
            with os.fdopen(files.open_source(path), "rb") as file:
                size += os.fstat(file.fileno()).st_size
                try:
                    for at, data in records(file):
                        events.read(Message(data), Place(path, at, len(data)))
                except FormatError as error:
                    self.problems.append(f"`{path}`: {error.message}; what follows is left out")
        tags = {}
        above = below.rpartition("/")[0] if below else None
        while above is not None:
            if above in self._runs:
                tags["mlflow.parentRunId"] = self._id(above)
                break
            above = above.rpartition("/")[0] if above else None
        series = events.series
        return SourceRun(
            key=below or ".",
            run_id=self._id(below),
            state=f"{size} bytes",
            name=below or self._top.resolve().name,
            status=events.status,
            start_time=events.started or series.first,
            end_time=events.ended or series.last,
            params=events.params,
            tags=tags,
            metrics=lambda: series,
            files=events.files,
        )


class Place(NamedTuple):
    """Where a record is."""

    path: Path
    at: int
    size: int


class Events:
    """What the events of one run say.

    Args:
        passed: Counts what is not kept, by kind.
    """

    def __init__(self, passed: Counter[str]) -> None:
        self.passed = passed
        self.series = Series()
        self.params: dict[str, str] = {}
        self.status = "FINISHED"
        self.started = self.ended = 0
        self._texts: dict[str, str] = {}
        self._media: dict[str, tuple[Place, int, int]] = {}  #: name -> record, value in it, item in that
        self._plugins: dict[str, str] = {}  #: tag -> plugin: only a tag's first value says it

    def read(self, event: Message, place: Place) -> None:
        """Take one event in.  Raises FormatError."""
        if 4 in event or 9 in event:
            self.passed["graphs"] += 1
        when = milliseconds(event.double(1))
        self.series.seen(when)
        for number, value in enumerate(event.message(5).messages(1)):
            tag = value.text(1)
            plugin = value.message(9).message(1)
            self._plugins.setdefault(tag, plugin.text(1))
            if tag.startswith(_SESSION):
                self._hyperparameters(plugin.bytes(2))
            elif 2 in value:
                self.series.add(tag, value.float(2), event.int64(2), when)
            elif 5 in value or self._plugins[tag] == "histograms":
                self.passed["histograms"] += 1
            elif media := _media_of(value, self._plugins[tag]):
                kind, found = media
                self._pictures(kind, tag, event.int64(2), found, (place, number))
            elif 8 in value:
                self._tensor(tag, Message(value.bytes(8)), event.int64(2), when)

    def _pictures(self, kind: str, tag: str, step: int, found: list[bytes], where: tuple[Place, int]) -> None:
        for item, data in enumerate(found):
            ending = next((ending for magic, ending in _FORMATS if data.startswith(magic)), None)
            if ending is None or len(self._media) >= MAX_MEDIA:
                self.passed[kind] += 1
                continue
            which = f"-{item}" if len(found) > 1 else ""
            self._media[f"{kind}/{tag}/{step}{which}.{ending}"] = (*where, item)

    def _tensor(self, tag: str, tensor: Message, step: int, when: int) -> None:
        plugin = self._plugins[tag]
        kind = tensor.int64(1)
        if plugin == "text" and kind == _STRING and len(self._texts) < MAX_TEXTS:
            name = tag.removesuffix("/text_summary")
            self._texts[f"text/{name}/{step}.md"] = "\n\n".join(tensor.texts(8))
        elif plugin in ("scalars", "") and kind in _FORMS and all(size.int64(1) == 1 for size in _sizes(tensor)):
            value = _scalar(tensor, kind)
            if value is not None:
                self.series.add(tag, value, step, when)
        else:
            self.passed["texts" if plugin == "text" else f"values of the plug-in `{plugin:.40}`"] += 1

    def _hyperparameters(self, content: bytes) -> None:
        data = Message(content)
        if 3 in data:
            start = data.message(3)
            self.started = milliseconds(start.double(5))
            for pair in start.messages(1):
                self.params[pair.text(1)] = _plain(pair.message(2))
        if 4 in data:
            end = data.message(4)
            self.status = _STATUS.get(end.int64(1), self.status)
            self.ended = milliseconds(end.double(2))

    def files(self) -> Iterator[SourceFile]:
        """The texts, as ``text/<tag>/<step>.md``; pictures and sounds, as ``images/…png`` and ``audio/…wav``."""
        for path, text in self._texts.items():

            def write(target: Path, text: str = text) -> Path:
                target.write_text(text, encoding="utf-8")
                return target

            yield SourceFile(path, write)
        for path, (place, number, item) in self._media.items():
            yield SourceFile(path, partial(self._extract, place, number, item))

    def _extract(self, place: Place, number: int, item: int, target: Path) -> Path:
        with os.fdopen(files.open_source(place.path), "rb") as file:
            file.seek(place.at)
            value = Message(file.read(place.size)).message(5).messages(1)[number]
        media = _media_of(value, self._plugins[value.text(1)])
        if media is None:
            raise FormatError(f"`{place.path}` changed while it was read")
        target.write_bytes(media[1][item])
        return target


def _media_of(value: Message, plugin: str) -> tuple[str, list[bytes]] | None:
    """What the pictures or sounds of a value are, and their bytes; None if it has none.  Raises FormatError."""
    for field, (kind, within) in _OLD.items():
        if field in value:
            return kind, [value.message(field).bytes(within)]
    if plugin == "images":  # width, height, pictures
        return plugin, value.message(8).all_bytes(8)[2:]
    if plugin == "audio":  # sounds, each with a label behind it
        return plugin, value.message(8).all_bytes(8)[::2]
    return None


def _sizes(tensor: Message) -> list[Message]:
    return tensor.message(2).messages(2)


def _scalar(tensor: Message, kind: int) -> float | None:
    """The value of a tensor of one element; None if it has none."""
    number, form = _FORMS[kind]
    content = tensor.bytes(4)
    if content:
        return float(struct.unpack(form, content)[0]) if len(content) == struct.calcsize(form) else None
    if number not in tensor:
        return None
    found = tensor.last(number)
    if isinstance(found, bytes):  # packed: the values one behind the other
        if form in ("<f", "<d"):
            return float(struct.unpack(form, found)[0]) if len(found) == struct.calcsize(form) else None
        found = Message(b"\x08" + found).last(1)
        if not isinstance(found, int):
            return None
    if form in ("<f", "<d"):
        return float(struct.unpack(form, found.to_bytes(8, "little")[: struct.calcsize(form)])[0])
    if form == "<e":
        return float(struct.unpack(form, struct.pack("<H", found & 0xFFFF))[0])
    return float(found - (1 << 64) if found >= 1 << 63 else found)


def _plain(value: Message) -> str:
    """A ``google.protobuf.Value`` as text."""
    if 2 in value:
        number = value.double(2)
        return str(int(number)) if math.isfinite(number) and number.is_integer() and abs(number) < 1e15 else str(number)
    if 3 in value:
        return value.text(3)
    if 4 in value:
        return str(bool(value.int64(4)))
    if 6 in value:
        return json.dumps([_plain(item) for item in value.message(6).messages(1)])
    return "None"
