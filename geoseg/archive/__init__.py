"""An archive: many scenes' maps in one place, and what is known of them: ``geoseg batch``.

In goes a manifest (:mod:`~geoseg.archive.manifest`, ``stac_items.py``, ``stac_search.py``). A scene
is a job with a key (``sources.py``), and the ledger (:mod:`~geoseg.archive.ledger`), which
coordinators alone open, says in which state it is. :mod:`~geoseg.archive.run` is the straight
line::

    manifest -> ledger -> coordinator -> workers -> maps, items -> collection, report

The coordinator (:mod:`~geoseg.archive.coordinator`) claims jobs and enters what came of them; Dask
(``cluster.py``) carries them to workers (:mod:`~geoseg.archive.worker`), which predict a scene into
its folder, or blocks of a large one (``splitting.py``); ``faults.py`` says which errors may pass.
The files are in a folder or in a bucket (``store.py``, ``bucket.py``); whether scenes in buckets
can be read at all is seen before the first job (``reachable.py``). Out come a STAC item beside each
map (``stac_item.py``, with the place of ``footprint.py`` and the time of ``acquired.py``), an item
for each model (``model_item.py``), a collection and a table of all items (``collection.py``,
``items_table.py``), a report with a page (``summary.py``, ``summary_page.py``), and on request a
certificate that every file is what was written (``verify.py``).

Before all that ``plan.py`` says what a run would do: scenes are compared with the ledger, and by
their stamps (``stamps.py``) with what they were, and opened (``plan_rows.py``); a few are probed
(``probes.py``, ``estimates.py``); out come a table and its GeoJSON (``plan_files.py``). What is
asked of all jobs is in ``asked.py``. Start with ``run.py``.

For other rooms:
    closing: certify, close_archive
    faults: KINDS
    ledger: Ledger
    ledger_view: LedgerView
    plan: plan_batch
    plan_text: plan_text
    run: batch
    stac_search: search_items
    store: store_of
    verify: certificate_text
"""
