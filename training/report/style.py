"""Style sheet of the pages: palette, type and paper, on light and dark screens and in print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...data import palette


def style_sheet() -> str:
    """The style sheet of every page, with the palette as variables; on paper it is always the light one."""
    light, dark = _colours(""), _colours("DARK_")
    scheme = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark; {dark} }} }}"
    return f":root {{ {light} }}\n{scheme}\n{Path(__file__).with_name('page.css').read_text(encoding='utf-8')}"


def _colours(prefix: str) -> str:
    def of(name: str) -> Any:
        return getattr(palette, prefix + name)

    names = {name.lower(): of(name) for name in ("TEXT", "FAINT", "RULE", "PAPER", "FOR", "AGAINST", "RIGHT", "WRONG")}
    names |= {f"c{k}": colour for k, colour in enumerate(of("SERIES"))}
    names["raised"] = blend(of("TEXT"), of("PAPER"), 0.035)
    for kind, colour in (("hit", of("SERIES")[0]), ("miss", of("SERIES")[1])):
        names |= {f"{kind}{k}": blend(colour, of("PAPER"), 0.1 + 0.08 * k) for k in range(6)}
    return " ".join(f"--{name}: {colour};" for name, colour in names.items())


def blend(colour: str, paper: str, share: float) -> str:
    """A colour laid over paper with an opacity of ``share``; ``#rrggbb`` all three."""
    mixed = (
        round(share * int(colour[at : at + 2], 16) + (1 - share) * int(paper[at : at + 2], 16)) for at in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)
