"""Make Markdown of docstrings before mkdocstrings reads them: they have roles of Sphinx in them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Markdown(griffe.Extension):
    """Rewrite the docstring of each object that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            text = re.sub(r":(?:class|func|meth|mod|data|attr|exc):`~?", "`", obj.docstring.value)
            text = re.sub(r"`geoseg(?:\.\w+)*\.(\w+)`", r"`\1`", text.replace("``", "`"))
            # Google's section of code has the plural; in the singular it is a note.
            text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"  # doctest: \+SKIP$", "", text, flags=re.MULTILINE)
