"""Keys: views by number or by letter, the filter, the kill switch (which asks), and what the keys do. See `static/keys.js`."""

from pathlib import Path

from nicegui import ui

_STATIC = Path(__file__).parent / "static"


def install() -> None:
    """Give the page that is being built its keys, and its operator's looks."""
    ui.add_head_html(f"<script>{(_STATIC / 'keys.js').read_text(encoding='utf-8')}</script>")
    ui.add_head_html(f"<style>{(_STATIC / 'operator.css').read_text(encoding='utf-8')}</style>")
