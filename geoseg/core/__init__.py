"""What has nothing to do with images: files, locks, threads, compiled kernels, GDAL's settings.

Every room above takes from here, and nothing here knows of scenes or models. Most is about how runs
begin and end: :mod:`~geoseg.core.staging` has outputs appear whole or not at all, and refuses to go
on with what a run of other options left, :mod:`~geoseg.core.workfolder` keeps what a stopped run
has finished, :mod:`~geoseg.core.ownership` says which files geoseg made and may replace,
:mod:`~geoseg.core.workers` stops what takes long. :mod:`~geoseg.core.machine` knows memory and
cores, :mod:`~geoseg.core.importing` what each extra brings. Start with ``staging.py``.

For other rooms:
    cache: Cache, cache_folder
    download: download
    failures: NoRoomError, explained_failures
    files: NAME_BYTES, replace_file, sync_file, write_whole
    folders: cache_folder
    gdal: GDAL_ERRORS, Refused, TILED, block_cache, explain_open_error, explain_read_error,
        first_line, gdal_options, over_network, retried
    heap: pop, push
    importing: IMPORTING, import_openvino, missing, package_version, reported, require
    jit: kernel, warm_up
    jsontext: builtin_fields, json_text, nodata_value
    locking: BusyError, Lock
    machine: available_cores, available_memory, machine, machine_mark, peak_memory, release_memory,
        resident_memory
    names: full_address, public_name, scrub
    ours: SHORT_NAMES, STYLE, is_our_layer, is_ours
    ownership: PLAN_COLUMNS, PLAN_MARK, QML_MARK, TABLE_HEAD, holds_statistics_alone, is_ours,
        significant_text
    pages: page_text, share_bar, shown, table
    prefetch: prefetch
    s3: Bucket, S3Error, s3_parts
    staging: Staging, check_closed
    wording: area, counted, percent
    workers: Stop, StoppedError, Workers, stoppable
    workfolder: WorkFolder, claim_folder, leave_folder, work_folder_of
    write_errors: explain_write_error
"""
