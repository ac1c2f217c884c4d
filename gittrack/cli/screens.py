"""The screens of ``gittrack tui``: the runs, one of them, and several beside each other.

What is shown is what the other verbs print.  Reading happens in threads, so that a key is answered at once; what a run
says is text only, cleaned as everywhere, and never markup.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from gittrack.cli import common, output, plots, render, search, show, text
from gittrack.errors import GittrackError, QuerySyntaxError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gittrack.track.runs import Tracker
    from gittrack.types import Run

T = TypeVar("T")

MOST: Final = 500  #: runs in the table: the first of the order
_COMPARED: Final = 9  #: each is drawn with a digit
_REFRESH: Final = 2.0  #: seconds between two looks at what goes on
_CELL: Final = 36  #: columns of a cell
_MARK: Final = "●"
_EXAMPLE: Final = "/ metrics.accuracy > 0.9 and params.model = 'svc'"
_HELP: Final = """\
The runs
  j k ↑ ↓       move                 Enter    open the run
  /             filter: the language of `gittrack search`; Enter applies, Esc leaves
  s             sort by the next column (a click on a heading sorts by it)
  S             the other way round
  x             mark a run           c        compare those that are marked

A run, runs beside each other
  j k ↑ ↓       scroll               d        only what differs, or all
  Esc q         back

Everywhere
  r             look again now (it is done every two seconds anyway)
  ?             this help            q        back, and in the end out
"""


def _cell(value: str, style: str = "") -> Text:
    """A text for the screen, whatever is in it."""
    shown = text.clean(value)
    return Text(text.fit(shown, _CELL) if text.width(shown) > _CELL else shown, style=style)


def _lines(lines: Iterable[str]) -> Text:
    """Lines as the other verbs print them, styles included."""
    return Text.from_ansi("\n".join(map(output.styled, lines)))


class _Watching(Screen[None]):
    """A screen that reads what it shows anew every few seconds."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "look", "Look again", show=False),
        Binding("question_mark", "help", "Help"),
        Binding("q,escape", "back", "Back"),
    ]

    @property
    def view(self) -> View:
        """The application."""
        return cast("View", self.app)

    def on_mount(self) -> None:
        """Look, and go on looking."""
        self.set_interval(self.view.every, self._look_again)
        self.action_look()

    def _look_again(self) -> None:
        """Unless the last look has not come to its end: on a slow disk none ever would."""
        if self is self.app.screen and all(one.is_finished for one in self.workers if one.node is self):
            self.action_look()

    @work(exclusive=True)
    async def action_look(self) -> None:
        """Read what there is, and show it.  What cannot be read is said; what was there stays."""
        try:
            found = await asyncio.to_thread(self.reading())
        except GittrackError as error:
            found = error
        if not self.is_running:
            return
        if isinstance(found, GittrackError):
            self.say(found)
        else:
            await self.shown(found)

    def reading(self) -> Callable[[], Any]:
        """What reads, in a thread."""
        raise NotImplementedError

    async def shown(self, found: Any) -> None:
        """Show what was read."""
        raise NotImplementedError

    def say(self, error: GittrackError) -> None:
        """Say what went wrong."""
        self.notify(text.clean(error.message), severity="error", markup=False)

    def action_help(self) -> None:
        """List the keys."""
        self.app.push_screen(Help())

    def action_back(self) -> None:
        """Leave this screen."""
        self.app.pop_screen()


class Help(Screen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,escape,question_mark,enter", "app.pop_screen", "Back")]

    def compose(self) -> ComposeResult:
        """The text, and what leaves it."""
        yield VerticalScroll(Static(Text(_HELP)))
        yield Footer()


class Runs(_Watching):
    """The table of runs."""

    CSS = """
    #filter { border: none; height: 1; padding: 0 1; background: $surface; }
    #filter:focus { background: $boost; }
    #said { height: 1; padding: 0 1; color: $text-muted; }
    #said.bad { color: $error; height: auto; max-height: 4; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter"),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
        Binding("x", "mark", "Mark"),
        Binding("c", "compare", "Compare"),
        Binding("s", "sort", "Sort"),
        Binding("S", "turn", "Reverse", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []
        self.marked: list[str] = []
        self.keys: list[str] = []
        self.sort = "start_time"
        self.descending = True

    def compose(self) -> ComposeResult:
        """The filter, the table, and what is said of them."""
        yield Input(
            self.view.filter_string, placeholder="/ metrics.accuracy > 0.9 and params.model = 'svc'", id="filter"
        )
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Static(id="said", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begin in the table."""
        self.table.focus()
        super().on_mount()

    @property
    def table(self) -> DataTable[Text]:
        """The runs."""
        return self.query_one(DataTable)

    def reading(self) -> Callable[[], Any]:
        """The runs of the filter and the order, and whether there are more."""
        view = self.view
        order = [f"{_quoted(self.sort)} {'DESC' if self.descending else 'ASC'}"]
        return partial(
            view.read,
            lambda opened: opened.search_runs(
                view.experiment_ids, view.filter_string, max_results=MOST, order_by=order
            ),
        )

    async def shown(self, found: Any) -> None:
        """Fill the table, unless it shows the same already; the cursor stays on its run."""
        said = self.query_one("#said", Static)
        said.remove_class("bad")
        more = f", the first {MOST} are shown: filter for others" if found.token else ""
        marked = f"; {len(self.marked)} marked" if self.marked else ""
        said.update(f"{text.count(len(found), 'run')}{more}{marked}; by {self.sort}{' ↓' if self.descending else ' ↑'}")
        if list(found) != self.runs or not self.table.columns:
            at, self.runs = self._current(), list(found)
            self._fill(at)

    def say(self, error: GittrackError) -> None:
        """Say what is wrong with the filter, below the table."""
        where = f" (column {error.column})" if isinstance(error, QuerySyntaxError) else ""
        hint = f"; {error.hint}" if error.hint else ""
        said = self.query_one("#said", Static)
        said.add_class("bad")
        said.update(text.clean(f"{error.message}{where}{hint}"))

    def _fill(self, at: str | None) -> None:
        """The rows, and the cursor on a run if that is still there."""
        table, names = self.table, self.view.names
        table.clear(columns=True)
        self.keys = ["run_name", *search.columns_of(self.runs), "status", "start_time", "experiment"]
        table.add_column("", key="marked", width=1)
        for key in self.keys:
            table.add_column(_cell(search.title_of(key.removeprefix("run_"))), key=key)
        for run in self.runs:
            info = run.info
            facts = {
                "run_name": _cell(info.run_name),
                "status": _cell(info.status.lower(), render.status_style(info.status)),
                "start_time": _cell(text.date(info.start_time, iso=True)[:16].replace("T", " ")),
                "experiment": _cell(names.get(info.experiment_id, info.experiment_id)),
            }
            cells = [facts.get(key) or self._value(run, key) for key in self.keys]
            table.add_row(_cell(_MARK if info.run_id in self.marked else ""), *cells, key=info.run_id)
        ids = [run.info.run_id for run in self.runs]
        if at in ids:
            table.move_cursor(row=ids.index(at))

    def _value(self, run: Run, key: str) -> Text:
        cell = _cell(search.value_of(run, key))
        if key.startswith("metrics."):
            cell.justify = "right"
        return cell

    def _current(self) -> str | None:
        """The run under the cursor."""
        row = self.table.cursor_row
        return self.runs[row].info.run_id if 0 <= row < len(self.runs) and self.table.row_count else None

    # --- keys

    def action_filter(self) -> None:
        """Write a filter."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply the filter."""
        self.view.filter_string = event.value
        self.table.focus()
        self.action_look()

    def action_back(self) -> None:
        """Out of the filter, which is as it was; or out of the program."""
        box = self.query_one(Input)
        if box.has_focus:
            box.value = self.view.filter_string
            self.table.focus()
        else:
            self.app.exit()

    def action_down(self) -> None:
        """To the next run."""
        self.table.action_cursor_down()

    def action_up(self) -> None:
        """To the run before."""
        self.table.action_cursor_up()

    def action_mark(self) -> None:
        """Mark a run, or take its mark away."""
        at = self._current()
        if at is None:
            return
        if at in self.marked:
            self.marked.remove(at)
        else:
            self.marked.append(at)
        self.table.update_cell(at, "marked", _cell(_MARK if at in self.marked else ""))
        self.action_look()

    def action_compare(self) -> None:
        """The marked runs beside each other."""
        if 2 <= len(self.marked) <= _COMPARED:
            self.app.push_screen(Compare(self.marked))
        else:
            self.notify(f"mark 2 to {_COMPARED} runs with x first", severity="warning")

    def action_sort(self) -> None:
        """By the next column."""
        sortable = [key for key in self.keys if key != "experiment"]
        if sortable:
            self._by(sortable[(sortable.index(self.sort) + 1) % len(sortable) if self.sort in sortable else 0])

    def action_turn(self) -> None:
        """The other way round."""
        self.descending = not self.descending
        self.action_look()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """By the column whose heading was clicked; the other way round if it is that already."""
        key = str(event.column_key.value)
        if key == self.sort:
            self.action_turn()
        elif key in self.keys and key != "experiment":
            self._by(key)

    def _by(self, key: str) -> None:
        self.sort, self.descending = key, key.startswith("metrics.") or key == "start_time"
        self.action_look()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Open a run."""
        self.app.push_screen(One(str(event.row_key.value)))


def _quoted(key: str) -> str:
    """A key as queries take it, whatever is in its name."""
    kind, dot, name = key.partition(".")
    mark = '"' if "`" in name else "`"
    return f"{kind}.{mark}{name}{mark}" if dot else key


class _Reading(_Watching):
    """A screen that is read from top to bottom."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll('down')", "Down", show=False),
        Binding("k", "scroll('up')", "Up", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One text that scrolls."""
        yield VerticalScroll(Static(id="text"))
        yield Footer()

    def action_scroll(self, way: str) -> None:
        """A line up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=1 if way == "down" else -1, animate=False)

    @property
    def room(self) -> int:
        """Columns for a chart."""
        return max(30, min(self.size.width - 3, 120))


class One(_Reading):
    """One run: what `gittrack show` says, and its metrics drawn."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def reading(self) -> Callable[[], Any]:
        """The run, its files and its points."""

        def read(opened: Tracker) -> Any:
            run = opened.get_run(self.run_id)
            keys = [key for key, _ in render.metrics(run)]
            points = {key: plots.points_of(opened.metric_history(self.run_id, key)) for key in keys}
            return run, opened.repo.artifacts(self.run_id), points

        return partial(self.view.read, read)

    async def shown(self, found: Any) -> None:
        """All of it, the charts at the end."""
        run, artifacts, points = found
        lines = list(show.everything(run, self.view.names, artifacts))
        for key, curve in points.items():
            if plots.drawable(curve):
                lines += [output.style(key, "bold"), *plots.drawn([curve], self.room), ""]
        self.query_one("#text", Static).update(_lines(lines))


class Compare(_Reading):
    """Runs beside each other: what differs first, then the metrics that they have in common, drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("d", "different", "What differs")]

    def __init__(self, run_ids: Sequence[str]) -> None:
        super().__init__()
        self.run_ids = tuple(run_ids)
        self.only_different = False

    def reading(self) -> Callable[[], Any]:
        """The runs, and the points of every metric that two of them have."""

        def read(opened: Tracker) -> Any:
            runs = [opened.get_run(one) for one in self.run_ids]
            keys = sorted({key for run in runs for key, _ in render.metrics(run)})
            shared = [key for key in keys if sum(key in run.data.metrics for run in runs) > 1]
            curves = {
                key: [plots.points_of(opened.metric_history(run.info.run_id, key)) for run in runs] for key in shared
            }
            return runs, curves

        return partial(self.view.read, read)

    async def shown(self, found: Any) -> None:
        """Tables, then charts."""
        runs, curves = found
        lines = [
            f"{output.style(str(number), 'bold')}  {output.style(run.info.run_id[: common.SHORT], 'yellow')} "
            f"{run.info.run_name}  {render.status(run)}"
            for number, run in enumerate(runs, 1)
        ]
        for title, kind in (("Metrics", "metrics"), ("Parameters", "params")):
            lines += self._table(title, [getattr(run.data, kind) for run in runs])
        for key, drawn in curves.items():
            if any(map(plots.drawable, drawn)):
                lines += ["", output.style(key, "bold"), *plots.drawn(drawn, self.room)]
        self.query_one("#text", Static).update(_lines(lines))

    def _table(self, title: str, tables: Sequence[Mapping[str, Any]]) -> list[str]:
        rows = []
        for key in sorted({key for table in tables for key in table}):
            values = [table.get(key) for table in tables]
            shown = ["–" if one is None else one if isinstance(one, str) else text.number(one) for one in values]
            differs = any(one != values[0] for one in values)
            if differs or not self.only_different:
                rows.append((not differs, ["≠" if differs else "", *(_cell(one).plain for one in (key, *shown))]))
        if not rows:
            return []
        body = [row for _, row in sorted(rows)]
        headers = ["", "", *(str(number) for number in range(1, len(tables) + 1))]
        return ["", output.style(title, "bold"), *output.table(headers, body, cut=False)]

    def action_different(self) -> None:
        """Only what differs, or all."""
        self.only_different = not self.only_different
        self.action_look()


class View(App[None]):
    """The program.

    Args:
        tracker: The runs.
        filter_string: Which of them, to begin with.
        experiment_ids: Of which experiments; None for all.
        every: Seconds between two looks.
    """

    TITLE = "gittrack"
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        tracker: Tracker,
        *,
        filter_string: str = "",
        experiment_ids: list[str] | None = None,
        every: float = _REFRESH,
    ) -> None:
        super().__init__()
        self.tracker = tracker
        self.filter_string = filter_string
        self.experiment_ids = experiment_ids
        self.every = every
        self.names: dict[str, str] = {}

    def on_mount(self) -> None:
        """Begin with the runs."""
        self.push_screen(Runs())

    def read(self, what: Callable[[Tracker], T]) -> T:
        """What the store says; in a thread."""
        self.tracker.repo.refresh()
        self.names = common.experiment_names(self.tracker)
        return what(self.tracker)
