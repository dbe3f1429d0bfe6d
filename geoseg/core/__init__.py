"""What has nothing to do with images: files, locks, threads, compiled kernels, GDAL's settings.

Every room above takes from here, and nothing here knows of scenes or models. Most is about ends:
:mod:`~geoseg.core.staging` has outputs appear whole or not at all, :mod:`~geoseg.core.workfolder`
keeps what a stopped run has finished, :mod:`~geoseg.core.ownership` says which files geoseg made
and may replace, :mod:`~geoseg.core.workers` stops what takes long. :mod:`~geoseg.core.machine`
knows memory and cores, :mod:`~geoseg.core.importing` what each extra brings. Start with
``staging.py``.
"""
