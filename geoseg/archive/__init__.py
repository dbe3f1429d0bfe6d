"""An archive: many scenes' maps in one folder, and what is known of them.

In go the folders that ``geoseg predict`` made, one a scene, and what the ledger of jobs says of
them; out come a STAC item beside each map (:mod:`~geoseg.archive.stac_item`, with the place of
:mod:`~geoseg.archive.footprint` and the time of :mod:`~geoseg.archive.acquired`), an item for each
model (``model_item.py``), a collection and a table of all items
(:mod:`~geoseg.archive.collection`, ``items_table.py``), a certificate that every file is what was
written (:mod:`~geoseg.archive.verify`), and a report with a page (:mod:`~geoseg.archive.summary`,
``summary_page.py``). Nothing here knows how jobs are shared out. Start with ``stac_item.py``.

For other rooms:

"""
