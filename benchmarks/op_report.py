"""What was measured, for people: a table of each case, the goals, and a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from op_cases import LossCase, MatchingCase
from op_measurement import LOSS, MATCHING, Record
from op_peers import BOTH, COMPILED, COPY, DETKIT, FORWARD, TORCHVISION

COLUMNS = ("pass", "implementation", "ms", "quartiles", "/ detkit", "/ copy", "bytes / least", "extra MB")
MEMORY_ALLOWANCE = 64 << 10
"""Bytes that matching may take whatever the number of anchors."""
COLOURS = {DETKIT: "#c0392b", TORCHVISION: "#2c5f8a", COMPILED: "#7a9a3a", COPY: "#999999"}
MARKERS = {DETKIT: "o", TORCHVISION: "s", COMPILED: "^", COPY: "|"}


def table(records: Sequence[Record]) -> str:
    """The records of one case as an aligned table, the skipped ones below with their reasons."""
    rows: list[Sequence[str]] = [COLUMNS]
    for record in records:
        if record["median_ms"] is None:
            continue
        copies = find(records, record, implementation=COPY)
        ours = find(records, record, implementation=DETKIT)
        least = record["least_bytes"]
        moved = record["bytes_moved"]
        rows.append(
            (
                record["pass"],
                record["implementation"],
                _number(record["median_ms"], 3),
                " to ".join(_number(value, 3) for value in record["quartiles_ms"]),
                _number(_ratio(record, ours)),
                _number(_ratio(record, copies)),
                _number(moved / least if moved is not None and least else None),
                _number(None if record["extra_bytes"] is None else record["extra_bytes"] / 1e6),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [_aligned(row, widths) for row in rows] if len(rows) > 1 else []
    skipped = [record for record in records if record["median_ms"] is None]
    # One line for all passes.
    lines += dict.fromkeys(
        f"  {record['implementation']}  skipped: {record['skipped']}" for record in skipped
    )
    first = records[0]
    return "\n".join([f"{first['op']}  {first['case']}  {first['dtype']}  {first['device']}", *lines])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    words = [row[i].ljust(widths[i]) if i < 2 else row[i].rjust(widths[i]) for i in range(len(row))]
    return "  " + "  ".join(words).rstrip()


def _number(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:,.{digits}f}" if value < 1000 else f"{value:,.0f}"


def _ratio(record: Record | None, other: Record | None) -> float | None:
    """Time over time; None where one is missing."""
    if record is None or other is None or not record["median_ms"] or not other["median_ms"]:
        return None
    return record["median_ms"] / other["median_ms"]


def find(records: Iterable[Record], like: Record, **changes: Any) -> Record | None:
    """The measured record that has the op, dtype, case and pass of another, but for the changes."""
    wanted = {key: like[key] for key in ("op", "dtype", "case", "pass", "implementation")} | changes
    for record in records:
        if record["median_ms"] is not None and all(record[key] == value for key, value in wanted.items()):
            return record
    return None


@dataclass(frozen=True)
class Goal:
    """A ratio, time or size that the project set itself, and what was measured of it."""

    subject: str
    found: float | None
    limit: float
    unit: str
    at_least: bool = False

    def __str__(self) -> str:
        bound = f"goal: {'at least' if self.at_least else 'at most'} {self.limit:g}"
        if self.found is None:
            return f"not measured  {self.subject} ({bound} {self.unit})"
        met = self.found >= self.limit if self.at_least else self.found <= self.limit
        return f"{'met   ' if met else 'missed'}  {self.subject}: {_number(self.found)} {self.unit} ({bound})"


def goals(records: Sequence[Record], device: str) -> list[Goal]:
    """The goals for this kind of device, in the order of the records that they need."""
    return _cuda_goals(records) if device == "cuda" else _cpu_goals(records)


def _cpu_goals(records: Sequence[Record]) -> list[Goal]:
    fp32, bf16 = (_loss(LossCase(1, (640, 640), 80, dtype)) for dtype in ("fp32", "bf16"))
    hundred, thousands = (_matching(MatchingCase(1, (800, 1088), boxes)) for boxes in (100, 2000))
    loss, match = "loss fp32 76,725 x 80, forward and backward", "matching 163,206 anchors x 100 boxes"
    ours = find(records, hundred)
    extra = None if ours is None else ours["extra_bytes"]
    allowed = 2 * MatchingCase(1, (800, 1088), 100).anchors + MEMORY_ALLOWANCE
    faster = "times faster than torchvision"
    return [
        Goal(loss, _against(records, fp32, TORCHVISION), 20, faster, at_least=True),
        Goal(loss, _ratio(find(records, fp32), find(records, fp32, implementation=COPY)), 6, "times a copy"),
        Goal("loss bf16", _ratio(find(records, bf16), find(records, fp32)), 1, "times the time of fp32"),
        Goal(match, _against(records, hundred, TORCHVISION), 100, faster, at_least=True),
        Goal(f"{match}, memory beyond the result", extra, allowed, "bytes"),
        Goal("matching 2,000 boxes", _ratio(find(records, thousands), ours), 25, "times the time of 100"),
    ]


def _cuda_goals(records: Sequence[Record]) -> list[Goal]:
    loss = _loss(LossCase(8, (800, 1088), 80, "bf16"))
    match = _matching(MatchingCase(8, (800, 1088), 100))
    subject = "loss bf16 N=8 163,206 x 80, forward and backward"
    # A copy passes twice over the logits, the loss three times: forward it reads, backward it reads and writes.
    copies = _ratio(find(records, loss), find(records, loss, implementation=COPY))
    ours = find(records, match)
    return [
        Goal(subject, copies and copies / 1.5, 1.3, "times three passes at the bandwidth of a copy"),
        Goal(
            subject, _against(records, loss, TORCHVISION), 20, "times faster than torchvision", at_least=True
        ),
        Goal("matching N=8, 100 boxes each", ours and 1000 * ours["median_ms"], 60, "microseconds"),
    ]


def _loss(case: LossCase) -> Record:
    return {"op": LOSS, "dtype": case.dtype, "case": str(case), "pass": BOTH, "implementation": DETKIT}


def _matching(case: MatchingCase) -> Record:
    return {"op": MATCHING, "dtype": case.dtype, "case": str(case), "pass": FORWARD, "implementation": DETKIT}


def _against(records: Sequence[Record], like: Record, peer: str) -> float | None:
    """How many times faster ours is than a peer."""
    return _ratio(find(records, like, implementation=peer), find(records, like))


def draw(records: Sequence[Record], path: Path) -> None:
    """Write a PNG with the median time of every implementation on every case, on logarithmic axes."""
    from matplotlib.figure import Figure

    panels = [
        panel
        for op, dtype, passes in ((LOSS, "fp32", BOTH), (LOSS, "bf16", BOTH), (MATCHING, "fp32", FORWARD))
        if (panel := [r for r in records if (r["op"], r["dtype"], r["pass"]) == (op, dtype, passes)])
    ]
    tallest = max(len({record["case"] for record in panel}) for panel in panels)
    size = (6 * len(panels), 1.8 + 0.24 * max(tallest, 4))
    figure = Figure(figsize=size, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_panel(axes: Any, records: Sequence[Record]) -> None:
    """One op and type: a row for each case, a point for each implementation."""
    cases = sorted({record["case"] for record in records}, key=_by_size)
    axes.set_xscale("log")
    for name in dict.fromkeys(record["implementation"] for record in records):
        measured = [r for r in records if r["implementation"] == name and r["median_ms"] is not None]
        axes.scatter(
            [record["median_ms"] for record in measured],
            [cases.index(record["case"]) for record in measured],
            color=COLOURS[name],
            marker=MARKERS[name],
            s=60 if name == COPY else 30,
            label=name,
            zorder=3,
        )
        if name == TORCHVISION:
            _write_ratios(axes, records, measured, cases)
    first = records[0]
    axes.set_yticks(range(len(cases)), cases, fontsize=8)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_title(f"{first['op']}, {first['pass']}, {first['dtype']}, {first['device']}", fontsize=10)
    axes.set_xlabel("milliseconds (median)")
    axes.grid(color="0.9", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _by_size(case: str) -> tuple[int, ...]:
    """Sorts cases by anchors, then by classes or boxes, then by images."""
    images, *rest = (int(word.split("=")[1]) for word in case.split())
    return (*rest, images)


def _write_ratios(
    axes: Any, records: Sequence[Record], peers: Sequence[Record], cases: Sequence[str]
) -> None:
    """Beside each peer's point, how many times longer it takes than ours."""
    for peer in peers:
        ratio = _ratio(peer, find(records, peer, implementation=DETKIT))
        if ratio is not None:
            place = (peer["median_ms"], cases.index(peer["case"]))
            label = f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"
            axes.annotate(
                label, place, (6, 0), textcoords="offset points", va="center", fontsize=7, color="0.3"
            )
