"""geoseg in QGIS: a plugin that brings algorithms to Processing, and how it gets there.

The folder ``plugin`` has the plugin as QGIS loads it, made of the standard library and QGIS
alone; it runs the ``geoseg`` command in geoseg's own environment and follows its events, so nothing
of it is imported here. ``profiles`` finds the user's profiles and edits their settings, and
``installing`` copies the plugin there, removes it, or packs it. Start with ``installing.py``; of
the plugin, with ``plugin/geoseg_qgis/geoseg_predict.py``.

For other rooms:
    installing: install, plugin_version, remove, status, write_zip
"""
