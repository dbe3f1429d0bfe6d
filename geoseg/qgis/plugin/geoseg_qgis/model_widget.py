"""The field for a model in the dialogs: the embedded ones in words, or a folder or .zip."""

from __future__ import annotations

import functools
from typing import Any

from processing.gui.wrappers import WidgetWrapper
from qgis.PyQt.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QToolButton, QWidget

from .geoseg_predict import QgsProcessingException, ask_json, enum, tr


@functools.lru_cache(maxsize=1)
def embedded_models() -> list[tuple[str, str]]:
    """List the embedded models: name, and bands and pixel sizes in words.

    Raises:
        QgsProcessingException: geoseg can't be asked.
        TimeoutError: it does not answer.
    """
    found = []
    for model in ask_json("models", "list", "--json"):
        low, high = model["gsd_range"]
        bands = ", ".join(model["bands"])
        found.append((model["name"], f"{model['name']}: {bands}; {low:g} to {high:g} m"))
    return found


class ModelWidget(WidgetWrapper):  # type: ignore[misc]
    """A list that takes any text, and buttons for what is on disk."""

    def createWidget(self) -> QWidget:
        """Make the widget."""
        self.box = QComboBox()
        self.box.setEditable(True)
        # Else the longest line would make the dialog wider than it is.
        adjusting = enum(QComboBox, "SizeAdjustPolicy", "AdjustToMinimumContentsLengthWithIcon")
        self.box.setSizeAdjustPolicy(adjusting)
        self.box.setMinimumContentsLength(16)
        self.box.addItem(tr("the embedded one that suits the scene"), "")
        try:
            for name, words in embedded_models():
                self.box.addItem(words, name)
        except (QgsProcessingException, TimeoutError, KeyError, TypeError) as error:
            # Running says it, too.
            self.box.setToolTip(str(error))
        folder, archive = QToolButton(), QToolButton()
        folder.setText(tr("Folder…"))
        archive.setText(tr(".zip…"))
        folder.clicked.connect(self._choose_folder)
        archive.clicked.connect(self._choose_archive)
        whole = QWidget()
        layout = QHBoxLayout(whole)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box, 1)
        layout.addWidget(folder)
        layout.addWidget(archive)
        return whole

    def _choose_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self.widget, tr("Model folder")))

    def _choose_archive(self) -> None:
        chosen = QFileDialog.getOpenFileName(self.widget, tr("Model"), "", tr("Models (*.zip)"))
        self._take(chosen[0])

    def _take(self, path: str) -> None:
        if path:
            self.box.setEditText(path)

    def setValue(self, value: Any) -> None:
        """Show a name or a path."""
        self.setComboValue(value or "", self.box)

    def value(self) -> str:
        """Give the name or path; empty for the one that suits."""
        return str(self.comboValue(combobox=self.box) or "")
