"""What notebooks show of runs, lists of runs, models and versions: tables that nothing in a record can leave."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import gittrack
from gittrack import cards
from gittrack.types import (
    ModelVersion,
    PagedList,
    RegisteredModel,
    Run,
    RunData,
    RunInfo,
)

ATTACK = "</td></table><script>attacked()</script><img src=x onerror='attacked()'>\"&"
TAGS = {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}
SVG = [("width", "60"), ("height", "14"), ("viewbox", "0 0 60 14"), ("aria-hidden", "true")]


class Reader(HTMLParser):
    """Reads HTML that has only these tags, each closed where it was opened, and no attributes but those of lines."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.lines: list[list[list[float]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "svg":
            assert attrs == SVG
        elif tag == "path":
            (name, line), *rest = attrs
            assert (name, rest) == ("d", [("fill", "none"), ("stroke", "currentColor")])
            assert line is not None
            assert re.fullmatch(r"([ML]\d+\.\d \d+\.\d)+", line)
            self.lines.append([[float(one) for one in point.split()] for point in re.split("[ML]", line)[1:]])
        else:
            assert tag in TAGS
            assert attrs == []
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def read(shown: Run | PagedList[Run] | ModelVersion | RegisteredModel) -> Reader:
    html = shown._repr_html_()
    assert html is not None
    return Reader(html)


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PagedList[Run]:
    monkeypatch.chdir(tmp_path)
    gittrack.set_tracking_uri(tmp_path.as_uri())
    for number in range(2):
        with gittrack.start_run(run_name=f"run-{number}"):
            gittrack.log_params({"lr": 10.0**-number, "epochs": 3})
            gittrack.log_metric("epoch", 3)
            for step in range(3):
                gittrack.log_metric("loss", 1 / (step + 1 + number), step=step)
    return gittrack.MlflowClient().search_runs(["0"], order_by=["attributes.start_time ASC"])


def test_a_run(found: PagedList[Run]) -> None:
    shown = read(found[0])
    assert ["loss", "0.333333", "0.333333", "1", "2"] in shown.rows
    assert ["lr", "1.0"] in shown.rows
    assert ["Status", "FINISHED"] in shown.rows
    assert "run-0" in shown.texts
    assert repr(found[0]).startswith("Run(")  # as it was


def test_a_metric_is_a_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gittrack.set_tracking_uri(tmp_path.as_uri())
    gaps = [math.nan, 1.0, math.inf, 2.0, 1.7e308, -1.7e308]
    with gittrack.start_run() as run:
        for step in range(3000):
            gittrack.log_metric("loss", 100.0 if step == 1234 else 1 / (step + 1), step=step)
        for step, value in enumerate(gaps):
            gittrack.log_metric("odd", value, step=step)
        gittrack.log_metrics({"once": 1.0, "never": math.nan})
        for step in range(4):
            gittrack.log_metric("same", 7.0, step=step)
    found = gittrack.MlflowClient().get_run(run.info.run_id)
    loss, odd, same = read(found).lines
    assert len(loss) <= 48
    top = min(loss, key=lambda point: point[1])
    assert (top[1], round(top[0] / 60, 1)) == (1.0, 0.4)  # the peak is there, where it was
    assert len(odd) == 4
    assert {y for _, y in same} == {7.0}
    assert all(0 <= x <= 60 and 0 <= y <= 14 for line in (loss, odd, same) for x, y in line)
    assert len(read(PagedList([found])).lines) == 3
    monkeypatch.setattr(cards, "_MOST_POINTS", 100)
    assert len(read(found).lines) == 2  # there are too many points to read for a picture
    unknown = Run(RunInfo("f" * 32, "0", "ana", "FINISHED", 0, 1, "active", "", "run"), found.data)
    assert read(unknown).lines == []


def test_runs_beside_each_other(found: PagedList[Run]) -> None:
    shown = read(found)
    assert shown.rows[0] == ["Run", "Id", "Status", "Started", "loss", "lr", "epoch"]  # what differs first
    assert [(row[0], row[4], row[5]) for row in shown.rows[1:]] == [
        ("run-0", "0.333333", "1.0"),
        ("run-1", "0.25", "0.1"),
    ]
    assert PagedList[Run]()._repr_html_() is None
    assert PagedList(["text"])._repr_html_() is None


def test_models(found: PagedList[Run]) -> None:
    one = ModelVersion("iris", "3", 0, 0, "the best", None, "Production", "runs:/r", "r" * 32, aliases=["champion"])
    assert {("Stage", "Production"), ("Aliases", "@champion"), ("Description", "the best")} <= set(
        map(tuple, read(one).rows)
    )
    model = RegisteredModel("iris", 0, 0, aliases={"champion": "3"}, latest_versions=[one])
    assert ["v3", "Production", "r" * 8] in read(model).rows


def test_texts_of_others_are_text() -> None:
    info = RunInfo("1" * 32, "0", ATTACK, "FINISHED", 10**18, None, "active", "", ATTACK)
    values = {ATTACK: math.nan, "inf": math.inf}
    run = Run(info, RunData(values, {ATTACK: ATTACK, "long": "x" * 10_000}, {}), code={"commit": ATTACK})
    version = ModelVersion(ATTACK, "1", -(10**18), 0, ATTACK, ATTACK, ATTACK, ATTACK, ATTACK, tags={ATTACK: ATTACK})
    shown = read(run)
    assert [ATTACK, "nan", "", "", ""] in shown.rows
    assert [ATTACK, ATTACK] in shown.rows
    assert max(len(cell) for row in shown.rows for cell in row) == 300
    for other in (
        PagedList([run, run]),
        version,
        RegisteredModel(ATTACK, 0, 0, ATTACK, {}, {ATTACK: ATTACK}, [version]),
    ):
        assert ATTACK in "".join(read(other).texts)


def test_many_are_cut_and_it_is_said() -> None:
    info = RunInfo("1" * 32, "0", "ana", "FINISHED", 0, 1, "active", "", "run")
    run = Run(info, RunData({f"m{number:03}": 0.5 for number in range(100)}, {}, {}))
    assert "50 more are not shown." in read(run).texts
    shown = read(PagedList([run] * 60))
    assert {"10 more are not shown.", "80 more columns are not shown."} <= set(shown.texts)
    assert len(shown.rows) == 51
