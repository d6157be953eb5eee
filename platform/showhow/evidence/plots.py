"""Plots a result: validation accuracy against what was spent, a colour per arm. One PNG, and no global state.

Runs are all or nothing, so an arm's mean rises in steps as its seeds learn one after the other; the thin lines show
which. A run that ends because it has solved the task counts with its last accuracy afterwards.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from showhow.evidence.outcome import RunOutcome
from showhow.evidence.result import ArmRow, StudyResult
from showhow.evidence.settings import settings_in_words
from showhow.evidence.wording import share, with_control
from showhow.study.variants import EXPLANATION

SIZE_INCHES = (7.2, 4.3)
DOTS_PER_INCH = 200
TITLE_LETTERS = 74
MOST_ABREAST, MOST_PANELS = 3, 16  # more would be illegible
INK, FAINT = "#222222", "#8a8a8a"

# From light to dark with the length of the explanation, and of different hues: distinguishable in grey print and by
# colour-blind readers.
COLOURS = {"none": "#e69f00", "short": "#35a58c", "medium": "#2f6fc4", "long": "#4a1486"}
CONTROL_COLOURS = {"shuffled": "#7d7d7d", "filler": "#a8a8a8"}
OTHER_COLOURS = ("#c2477f", "#8c5a2b", "#5d7a1f")
# For arms that are not explanation levels: Okabe and Ito's colours for colour-blind readers (jfly.uni-koeln.de/color,
# 2008), without black and yellow; further arms repeat them, dashed.
ARM_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
ARM_CONTROLS = ("#6b6b6b", "#9a9a9a", "#c0c0c0")
CONTROL_DASHES = (5, 2)
MOST_LETTERS, ARM_LETTERS = 200, 105  # of the labels in a line of the legend: levels have short names
SPENT = {"examples": "training examples", "tokens": "tokens", "flops": "FLOPs"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Style:
    colour: str
    dashes: tuple[float, ...]


@dataclass(frozen=True)
class _Panel:
    """The axes for the arms in one setting; untitled where there is only one setting."""

    title: str
    rows: Sequence[ArmRow]


def accuracy_picture(outcomes: Sequence[RunOutcome], result: StudyResult, path: Path, question: str) -> Path:
    """Write the learning curves of each arm's best trial to `path` as a PNG of 1440 x 860 dots, with a panel for each
    setting; return `path`."""
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    panels = _panels(result)
    across = len(panels) if len(panels) <= MOST_ABREAST else math.ceil(math.sqrt(len(panels)))
    grid = figure.subplots(math.ceil(len(panels) / across), across, sharex=True, sharey=True, squeeze=False).flatten()
    styles = _styles(result)
    right = max((_draw_panel(axes, one, outcomes, styles) for axes, one in zip(grid, panels, strict=False)), default=1)
    for place, axes in enumerate(grid[: len(panels)]):
        _dress(axes, right, across, SPENT[result.unit])
        _draw_guessing(axes, result, is_labelled=place % across == across - 1)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _title(figure, grid[0], textwrap.fill(question, TITLE_LETTERS), is_alone=len(panels) == 1)
    _draw_legend(figure, grid, MOST_LETTERS if result.by == (EXPLANATION,) else ARM_LETTERS)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _panels(result: StudyResult) -> list[_Panel]:
    """Return a panel for each setting that has something to show, at most the first MOST_PANELS."""
    if not result.has_settings:
        return [_Panel("", result.compared)]
    titles = settings_in_words(result.settings)
    panels = [
        _Panel(title, result.within(setting).compared) for title, setting in zip(titles, result.settings, strict=True)
    ]
    return [panel for panel in panels if panel.rows][:MOST_PANELS] or [_Panel("", ())]


def _draw_panel(axes: Axes, panel: _Panel, outcomes: Sequence[RunOutcome], styles: dict[str, _Style]) -> float:
    """Draw the curves of a panel; return the most that a run spent."""
    right = 1.0
    for row in panel.rows:
        shown = (row.setting, row.arm, row.trial)
        runs = [run for run in outcomes if (run.setting, run.arm, run.trial) == shown and run.curve]
        if runs:
            in_order = sorted(runs, key=lambda run: run.seed)
            right = max(right, _draw_arm(axes, row, in_order, styles[row.arm], counts=not panel.title))
    if not axes.lines:
        axes.text(0.5, 0.5, "no run to show yet", transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_title(panel.title, fontsize=9.5, color=INK)
    return right


def _title(figure: Figure, first: Axes, question: str, is_alone: bool) -> None:
    if is_alone:
        first.set_title(question, fontsize=11, loc="left", color=INK, pad=10)
    else:
        figure.suptitle(question, fontsize=11, x=0.01, ha="left", color=INK)


def _styles(result: StudyResult) -> dict[str, _Style]:
    """Return each arm's style, the same in all panels; controls are grey and dashed."""
    rows = {row.arm: row for row in result.rows}
    if result.by == (EXPLANATION,):
        return dict(zip(rows, _level_styles(list(rows.values())), strict=True))
    controls = [arm for arm, row in rows.items() if row.is_control]
    others = [arm for arm in rows if arm not in controls]
    greys = {arm: _Style(ARM_CONTROLS[place % len(ARM_CONTROLS)], CONTROL_DASHES) for place, arm in enumerate(controls)}
    return greys | {
        arm: _Style(ARM_COLOURS[place % len(ARM_COLOURS)], () if place < len(ARM_COLOURS) else (7, 2, 1.5, 2))
        for place, arm in enumerate(others)
    }


def _level_styles(rows: Sequence[ArmRow]) -> list[_Style]:
    """Return each level's style: fixed for a level with a colour of its own, grey and dashed for a control."""
    styles, others = [], 0
    for row in rows:
        if row.is_control:
            styles.append(_Style(CONTROL_COLOURS.get(row.arm, FAINT), (5, 2) if row.arm == "shuffled" else (1.5, 1.5)))
        elif row.arm in COLOURS:
            styles.append(_Style(COLOURS[row.arm], ()))
        else:
            styles.append(_Style(OTHER_COLOURS[others % len(OTHER_COLOURS)], (7, 2, 1.5, 2)))
            others += 1
    return styles


def _draw_arm(axes: Axes, row: ArmRow, runs: Sequence[RunOutcome], style: _Style, counts: bool) -> float:
    """Draw a thin line per seed, a dot where one solved the task, a cross where one failed, and the thick mean."""
    counted = [run for run in runs if run.seed in row.seeds]
    for run in runs:
        seen, accuracy = np.array(run.curve, dtype=np.float64).T
        axes.plot(seen, accuracy, color=style.colour, alpha=0.45, linewidth=0.9, solid_joinstyle="round", zorder=3)
        if run.examples_until_solved is not None:
            axes.plot(
                seen[-1], accuracy[-1], "o", color=style.colour, markersize=5.5, markeredgecolor="white", zorder=6
            )
        elif run.status == "failed":
            axes.plot(seen[-1], accuracy[-1], "x", color=style.colour, markersize=5, zorder=6)
    if counted:
        label = with_control(row.arm, row.is_control)
        label += f": {row.solved} of {len(runs)} solved" if counts else ""
        seen, mean = mean_curve([run.curve for run in counted])
        (line,) = axes.plot(seen, mean, color=style.colour, linewidth=2.6, alpha=0.95, label=label, zorder=5)
        if style.dashes:
            line.set_dashes(style.dashes)
    return max(run.curve[-1][0] for run in runs)


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> tuple[Floats, Floats]:
    """Return (spent, mean accuracy) over runs, at all their points; a run keeps its last accuracy after its end.

    Between a run's points its accuracy is interpolated. The mean starts where the last of the runs has its first point.
    """
    points = [np.array(curve, dtype=np.float64).T for curve in curves]
    grid = np.unique(np.concatenate([seen for seen, _ in points]))
    grid = grid[grid >= max(seen[0] for seen, _ in points)]
    return grid, np.mean([np.interp(grid, seen, accuracy) for seen, accuracy in points], axis=0)


def _draw_guessing(axes: Axes, result: StudyResult, is_labelled: bool) -> None:
    """Draw the accuracy of guessing as dotted lines, labelled right of the axes, in one label where they are close."""
    marks = [(result.chance, f"chance {share(result.chance)}")]
    if result.baseline is not None and round(result.baseline, 2) != round(result.chance, 2):
        marks.append((result.baseline, f"commonest\nanswer {share(result.baseline)}"))
    for height, _ in marks:
        axes.axhline(height, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
    if not is_labelled:
        return
    heights = [height for height, _ in marks]
    if max(heights) - min(heights) < 0.12:
        marks = [(max(heights), "\n".join(text for _, text in reversed(marks)))]
    for height, text in marks:
        axes.annotate(
            text,
            (1.0, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )


def _draw_legend(figure: Figure, grid: Iterable[Axes], letters: int) -> None:
    """Draw the legend below the axes, where it hides no data; letters: the most in the labels of a line."""
    lines = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not lines:
        return
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside lower center",
        ncols=max(1, min(4 if len(lines) <= 4 else 3, letters // max(map(len, lines)))),
        frameon=False,
        fontsize=8.5,
        handlelength=2.2,
        columnspacing=1.4,
        title="thick: mean over seeds · thin: one seed · dot: solved, the run ends",
        title_fontsize=8.5,
    )


def _dress(axes: Axes, right: float, across: int, spent: str) -> None:
    axes.set_xlim(0, right * 1.02)
    axes.set_ylim(0, 1.04)
    axes.set_xlabel(spent, color=INK)
    axes.set_ylabel("validation accuracy", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(max(3, 7 // across), integer=True))
    written = ",.0f" if right < 1e6 else ".3g"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda amount, _: format(amount, written).replace("e+", "e")))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.label_outer()
