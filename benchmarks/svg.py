"""Just enough SVG for a chart: marks, text, a logarithmic scale, and a page that follows the reader's light or dark."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = (1, 2, 5)
FEW_DECADES = 2.2
# Blue, orange and grey keep apart for every kind of colour vision, and differ in shape besides.
STYLE = """
svg { --page: #ffffff; --ink: #1c2330; --soft: #5b6472; --grid: #e1e5ea;
      --grouped: #0b62c4; --plain: #c2530a; --noop: #737b87; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  svg { --page: #12161d; --ink: #e8ecf2; --soft: #a3acba; --grid: #2b323d;
        --grouped: #64b0ff; --plain: #ff9d52; --noop: #98a1ae; }
}
.page { fill: var(--page); }
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
.head { font-size: 20px; font-weight: 650; }
.panel { font-size: 15px; font-weight: 600; }
.soft { fill: var(--soft); font-size: 12px; }
.value { font-size: 12px; font-weight: 600; font-variant-numeric: tabular-nums;
         stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; paint-order: stroke; }
.grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.spread { stroke-width: 2; }
.grouped { fill: var(--grouped); } .plain { fill: var(--plain); } .noop { fill: var(--noop); }
.line.grouped, .spread.grouped { fill: none; stroke: var(--grouped); }
.line.plain, .spread.plain { fill: none; stroke: var(--plain); }
.line.noop, .spread.noop { fill: none; stroke: var(--noop); }
.line.noop { stroke-dasharray: 5 5; }
"""


@dataclass(frozen=True, slots=True)
class LogScale:
    """Maps values to pixels so that equal factors are equal distances."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> LogScale:
        """Make a scale with room for all values; `start` is the pixel of the least."""
        least = min(values)
        return cls(least / 1.6, max(*values, least * 8) * 1.6, start, end)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        share = log10(value / self.low) / log10(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values inside the scale: powers of ten, and steps between them where those are few."""
        steps = STEPS if log10(self.high / self.low) < FEW_DECADES else STEPS[:1]
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        values = [step * 10.0**decade for decade in decades for step in steps]
        return [value for value in values if self.low <= value <= self.high]


def text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    """Write one line of text; `anchor` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Draw a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Draw a line through points."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" class="line {kind}"/>'


def bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Draw a bar."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" class="{kind}"/>'


def mark(x: float, y: float, kind: str) -> str:
    """Draw a point in the shape of its series: grouped is round, plain square, anything else a triangle."""
    if kind == "grouped":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="{kind}"/>'
    if kind == "plain":
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" class="{kind}"/>'
    return f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 10h-11z" class="{kind}"/>'


def page(width: int, height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """Put a picture together, with a title and a description for those who can't see it."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )
