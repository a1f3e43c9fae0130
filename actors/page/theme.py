"""How the page looks: one palette in two themes, and the small script that needs no server. Both are part of every page."""

from pathlib import Path
from typing import Final

from nicegui import app, ui

STATIC: Final = Path(__file__).parent / "static"
FAVICON: Final = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='7' fill='#12161d'/>"
    "<path d='M6 21l6-7 5 4 9-10' fill='none' stroke='#3cc2b0' stroke-width='3' stroke-linecap='round' stroke-linejoin='round'/></svg>"
)
PARTS: Final = ("price", "basis", "funding", "fees", "slippage", "interest", "adjustments")
"""What equity is made of, in the order in which it is drawn; each has its colour, `--part-…`, in page.css."""


def wear() -> None:
    """Give every page its looks. Written into the page itself, so that nothing is ever seen undressed."""
    style = (STATIC / "page.css").read_text(encoding="utf-8")
    script = (STATIC / "page.js").read_text(encoding="utf-8")
    ui.add_head_html('<meta name="theme-color" content="#0c0f14">', shared=True)
    ui.add_head_html(f"<style>{style}</style>", shared=True)
    ui.add_head_html(f"<script>{script}</script>", shared=True)
    app.colors(
        primary="#1f66d6",
        dark="#12161d",
        dark_page="#0c0f14",
        negative="#e5484d",
        positive="#0a7d6e",
        warning="#876100",
    )
