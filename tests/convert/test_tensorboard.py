"""TensorBoard's event files: those that the real packages write, and small ones made here."""

import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from gittrack.convert.report import Report
from gittrack.convert.tensorboard import EventFolder, masked_crc
from gittrack.errors import NotFoundError
from gittrack.track.runs import Tracker
from gittrack.types import Run
from tests.convert.conftest import Cli, files_of, history
from tests.convert.stores import message, scalar, tensor, tf_record, varint

Take = Callable[..., Report]
SECONDS = 1_700_000_000.5
FILE = "events.out.tfevents.1700000000.host.1.0"


def write(folder: Path, *records: bytes, name: str = FILE) -> Path:
    """An event file, as a writer begins it."""
    folder.mkdir(parents=True, exist_ok=True)
    start = tf_record(message((1, SECONDS), (3, "brain.Event:2")))
    (folder / name).write_bytes(start + b"".join(records))
    return folder


def runs(tracker: Tracker) -> dict[str, Run]:
    """The runs by name."""
    return {run.info.run_name: run for run in tracker.search_runs()}


def session(**values: object) -> bytes:
    """Hyperparameters, as the plug-in keeps them."""
    pairs = b""
    for key, value in values.items():
        if isinstance(value, bool):
            told = message((4, int(value)))
        elif isinstance(value, float):
            told = message((2, value))
        else:
            told = message((3, str(value)))
        pairs += message((1, message((1, key), (2, told))))
    content = message((3, pairs + message((5, SECONDS))))
    about = message((1, message((1, "hparams"), (2, content))))
    return tf_record(message((1, SECONDS), (5, message((1, message((1, "_hparams_/session_start_info"), (9, about)))))))


def test_the_checksum_is_castagnolis() -> None:
    # RFC 3720, B.4, masked as TensorFlow does it
    def masked(crc: int) -> int:
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    assert masked_crc(bytes(32)) == masked(0x8A9136AA)
    assert masked_crc(b"\xff" * 32) == masked(0x62A8AB43)
    assert masked_crc(bytes(range(32))) == masked(0x46DD794E)


def test_scalars_texts_and_hyperparameters(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    text = message((1, 7), (2, message((2, message((1, 1))))), (8, "hello **world**"))
    double = message((1, 2), (2, b""), (4, struct.pack("<d", 0.25)))
    packed = message((1, 1), (5, struct.pack("<f", 0.75)))
    whole = message((1, 9), (10, varint(-3)))
    png = b"\x89PNG\r\n\x1a\n"
    image = message((1, 7), (2, message((2, message((1, 4))))), (8, b"1"), (8, b"2"), (8, png + b"a"), (8, png + b"b"))
    strange = message((1, 7), (8, b"1"), (8, b"2"), (8, b"<svg>"))
    sound = message((1, 7), (8, b"RIFF..."), (8, b"a label"))
    old = message((1, "old"), (4, message((1, 1), (4, b"\xff\xd8\xff..."))))
    histogram = message((1, "weights"), (5, message((1, 0.5))))
    write(
        tmp_path / "logs" / "train",
        scalar("loss", 0.5, 1, SECONDS + 1),
        scalar("loss", math.nan, 2, SECONDS + 2),
        scalar("loss", math.inf, 3, SECONDS + 3),
        tensor("acc", "scalars", double, 1, SECONDS + 1),
        tensor("acc", "", packed, 2, SECONDS + 2),
        tensor("count", "scalars", whole, 9, SECONDS + 2),
        tensor("note/text_summary", "text", text, 4, SECONDS + 2),
        tensor("picture", "images", image, 1, SECONDS + 2),
        tensor("svg", "images", strange, 1, SECONDS + 2),
        tensor("sound", "audio", sound, 1, SECONDS + 2),
        tensor("curve", "pr_curves", message((1, 1), (5, 0.5)), 1, SECONDS + 2),
        tf_record(message((1, SECONDS), (2, 3), (5, message((1, old)) + message((1, histogram))))),
        tf_record(message((1, SECONDS), (4, b"a graph"))),
        session(lr=0.1, depth=3.0, name="x", flag=True),
    )
    report = take(EventFolder(tmp_path / "logs", "logs"))
    assert (report.experiments, report.runs, report.points, report.files) == (1, 1, 6, 5)
    assert report.passed == {
        "graphs": 1, "histograms": 1, "images": 1, "values of the plug-in `pr_curves`": 1
    }  # fmt: skip
    run = runs(tracker)["train"]
    start = int(SECONDS * 1000)
    assert history(tracker, run.info.run_id, "loss") == [
        (1, start + 1000, "0.5"), (2, start + 2000, "nan"), (3, start + 3000, "inf"),
    ]  # fmt: skip
    assert [value for _, _, value in history(tracker, run.info.run_id, "acc")] == ["0.25", "0.75"]
    assert run.data.metrics["count"] == -3.0
    assert run.data.params == {"lr": "0.1", "depth": "3", "name": "x", "flag": "True"}
    assert files_of(tracker, run.info.run_id) == {
        "text/note/4.md": b"hello **world**",
        "images/picture/1-0.png": png + b"a", "images/picture/1-1.png": png + b"b",
        "images/old/3.jpg": b"\xff\xd8\xff...", "audio/sound/1.wav": b"RIFF...",
    }  # fmt: skip
    assert (run.info.start_time, run.info.end_time, run.info.status) == (start, start + 3000, "FINISHED")


def test_a_folder_below_a_run_is_nested_and_more_files_are_one_run(
    tmp_path: Path, take: Take, tracker: Tracker
) -> None:
    top = tmp_path / "logs"
    write(top, scalar("a", 1, 0, SECONDS))
    write(top, scalar("a", 2, 1, SECONDS + 1), name="events.out.tfevents.1700000009.host.1.0")
    write(top / "x" / "y", scalar("b", 1, 0, SECONDS))
    take(EventFolder(top, "e"))
    found = runs(tracker)
    assert len(history(tracker, found["logs"].info.run_id, "a")) == 2
    assert found["x/y"].data.tags["mlflow.parentRunId"] == found["logs"].info.run_id


def test_a_run_that_goes_on_gets_what_is_new(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    folder = write(tmp_path / "logs", scalar("a", 1, 0, SECONDS), scalar("a", 2, 1, SECONDS + 1))
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:-3])  # being written
    assert take(EventFolder(folder, "e")).points == 1
    assert take(EventFolder(folder, "e")).runs == 0
    (folder / FILE).write_bytes(whole)
    report = take(EventFolder(folder, "e"))
    assert (report.runs, report.points) == (1, 1)
    run = runs(tracker)["logs"]
    assert [step for step, _, _ in history(tracker, run.info.run_id, "a")] == [0, 1]
    assert run.data.summaries["a"].count == 2


@pytest.mark.parametrize("at", [0, 3, 9, 20, 30, -1])
def test_damage_ends_a_file_and_is_said(at: int, tmp_path: Path, take: Take, tracker: Tracker) -> None:
    second = bytearray(scalar("a", 2, 1, SECONDS + 1))
    second[at] ^= 0x40
    write(tmp_path / "logs", scalar("a", 1, 0, SECONDS), bytes(second), scalar("a", 3, 2, SECONDS + 2))
    report = take(EventFolder(tmp_path / "logs", "e"), problems=True)
    assert report.points == 1
    assert len(report.problems) == 1
    assert "damaged; what follows is left out" in report.problems[0]


def test_messages_that_lie_do_no_harm(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    huge = struct.pack("<Q", 1 << 62)
    for number, record in enumerate(
        [
            tf_record(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),  # a length beyond the end
            tf_record(b"\xff" * 11),  # a varint without end
            tf_record(message((5, 3))),  # a summary that is a number
            tf_record(b"\x0b\x0c"),  # a group
            huge + struct.pack("<I", masked_crc(huge)),
            tensor("a", "scalars", message((1, 1), (4, b"xx")), 0, SECONDS),
            tensor("a", "scalars", message((1, 99), (5, b"")), 0, SECONDS),
        ]
    ):
        write(tmp_path / "logs" / str(number), scalar("fine", 1, 0, SECONDS), record)
    report = take(EventFolder(tmp_path / "logs", "e"), problems=True)
    assert (report.runs, report.points, len(report.problems)) == (7, 7, 4)


def test_names_and_texts_stay_in_their_place(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    text = message((1, 7), (8, "x"))
    write(
        tmp_path / "logs",
        tensor("../../up/text_summary", "text", text, 0, SECONDS),
        scalar("../up", 1, 0, SECONDS),
        scalar("loss (train)", 1, 0, SECONDS),
    )
    (tmp_path / "logs" / "link").symlink_to(tmp_path)
    report = take(EventFolder(tmp_path / "logs", "e"), problems=True)
    assert (report.files, report.points, len(report.problems)) == (0, 0, 3)


def test_the_verb(tmp_path: Path, cli: Cli) -> None:
    write(tmp_path / "logs", scalar("a", 1, 0, SECONDS))
    told = cli("import", "tensorboard", tmp_path / "logs")
    assert (told.status, told.err) == (0, "imported 1 experiment, 1 run, 1 metric points\n")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NotFoundError):
        EventFolder(tmp_path / "nothing", "e")


# -- the real writers --------------------------------------------------------------------------------------------------


@pytest.mark.peer
def test_what_tensorboardx_writes(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    tensorboardx = pytest.importorskip("tensorboardX", reason="reads what tensorboardX writes")
    numpy = pytest.importorskip("numpy", reason="pictures are arrays")
    with tensorboardx.SummaryWriter(str(tmp_path / "logs" / "a")) as writer:
        for step in range(500):
            writer.add_scalar("loss", 1 / (step + 1), step, walltime=SECONDS + step)
        writer.add_text("note", "hello", 2)
        writer.add_hparams({"lr": 0.1, "depth": 3, "name": "x", "flag": True}, {"hp/acc": 0.5}, name="session")
        writer.add_histogram("weights", [1.0, 2.0, 3.0], 0)
        writer.add_image("picture", numpy.zeros((3, 4, 4), numpy.uint8), 1)
    report = take(EventFolder(tmp_path / "logs", "e"))
    assert (report.runs, report.points, report.files) == (2, 501, 2)
    assert report.passed == {"histograms": 1}
    found = runs(tracker)
    loss = list(tracker.metric_history(found["a"].info.run_id, "loss"))
    assert [one.step for one in loss] == list(range(500))
    assert loss[7].value == pytest.approx(1 / 8, rel=1e-6)
    assert loss[7].timestamp == int(SECONDS * 1000) + 7000
    assert found["a/session"].data.params == {"lr": "0.1", "depth": "3", "name": "x", "flag": "True"}
    assert found["a/session"].data.metrics == {"hp/acc": 0.5}
    files = files_of(tracker, found["a"].info.run_id)
    assert files.pop("text/note/2.md") == b"hello"
    (png,) = files.items()
    assert png[0] == "images/picture/1.png"
    assert png[1].startswith(b"\x89PNG")


@pytest.mark.peer
def test_what_torch_writes(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    pytest.importorskip("tensorboard", reason="reads what torch.utils.tensorboard writes")
    writers = pytest.importorskip("torch.utils.tensorboard", reason="reads what torch.utils.tensorboard writes")

    with writers.SummaryWriter(str(tmp_path / "logs" / "t")) as writer:
        writer.add_scalar("loss", 0.5, 1, walltime=SECONDS)
        writer.add_scalar("new", 0.25, 2, walltime=SECONDS, new_style=True)
        writer.add_text("note", "hello", 2)
        writer.add_hparams({"lr": 0.1, "on": False}, {"acc": 1.0}, run_name="hp")
    take(EventFolder(tmp_path / "logs", "e"))
    found = runs(tracker)
    assert found["t"].data.metrics == {"loss": 0.5, "new": 0.25}
    assert found["t/hp"].data.params == {"lr": "0.1", "on": "0"}  # torch writes a bool as a number
    assert files_of(tracker, found["t"].info.run_id) == {"text/note/2.md": b"hello"}


@pytest.mark.peer
def test_what_tensorboards_own_reader_reads(tmp_path: Path, take: Take, tracker: Tracker) -> None:
    """The files made here are such files: TensorBoard reads the same from them."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader", reason="compares with TensorBoard's own reader"
    )
    folder = write(tmp_path / "logs", scalar("loss", 0.5, 1, SECONDS), scalar("loss", 0.25, 2, SECONDS + 1))
    read = [
        (value.tag, event.step, event.wall_time)
        for event in loader.EventFileLoader(str(folder / FILE)).Load()
        for value in event.summary.value
    ]
    assert read == [("loss", 1, SECONDS), ("loss", 2, SECONDS + 1)]
    assert take(EventFolder(folder, "e")).points == 2
