"""Make Markdown of docstrings before mkdocstrings reads them: they have roles of Sphinx in them."""

from __future__ import annotations

import re
from typing import Any

import griffe

#: Name -> where the manual explains it, seen from the Python reference. The page is always named,
#: since mkdocstrings renames anchors without one.
PLACES = {
    "ChipBorder": "card.html#chipborder",
    "EvaluateOptions": "python.html#options-of-evaluate",
    "PolygonOptions": "python.html#options-of-vectorize",
    "PredictOptions": "python.html#options-of-predict-and-dry_run",
    "SampleOptions": "python.html#options-of-sample",
    "TrainConfig": "recipe.html#keys",
    "TrainOptions": "python.html#options-of-train",
    "events": "events.html",
}


class Markdown(griffe.Extension):
    """Rewrite the docstring of each object that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one."""
        if obj.docstring is not None:
            text = re.sub(r":(?:class|func|meth|mod|data|attr|exc):`~?", "`", obj.docstring.value)
            text = re.sub(r"`geoseg(?:\.\w+)*\.(\w+)`", r"`\1`", text.replace("``", "`"))
            for name, place in PLACES.items():
                text = text.replace(f"`{name}`", f"[`{name}`]({place})")
            # Google's section of code has the plural; in the singular it is a note.
            text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"  # doctest: \+SKIP$", "", text, flags=re.MULTILINE)
