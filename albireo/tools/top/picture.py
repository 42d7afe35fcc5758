"""A frame of ``albireo top`` as a picture, for ``--picture``."""

from __future__ import annotations

import io
import re

from rich.console import Console

from albireo.tools.top.collector import View
from albireo.tools.top.screen import Screen

COLUMNS = 110


def svg(view: View) -> str:
    """An SVG that loads nothing from elsewhere: the web fonts that rich refers to are left out."""
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True)
    console.print(Screen(view))
    picture = console.export_svg(title="albireo top")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
