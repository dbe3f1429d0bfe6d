"""What a scene is, from files to numbers that a model takes.

In go paths or addresses; out come bands whose sensor, meaning and place are known, and a reader of
windows of them. :mod:`~geoseg.scene.opening` makes a :class:`~geoseg.scene.scene.Scene` of what the
user names: ``folders.py`` finds what of a folder or an archive (``containers.py``) is a scene, with
:mod:`~geoseg.scene.products`, which also read the producers' metadata; of a STAC item ``item.py``
says what it holds, ``assets.py`` which of its files are bands, ``item_scene.py`` opens these;
``tiles.py`` joins tiles of one scene (``vrt.py`` writes virtual rasters), ``variables.py`` finds
the bands of a netCDF file or a Zarr folder (``zarr.py``). :mod:`~geoseg.scene.sensors` recognises
sensors by names and tags, ``spelling.py`` reads what programs call a band, ``alpha.py`` tells
whether one is a mask, ``naming.py`` says what bands are called and why, ``place.py`` whether
coordinates are those of the CRS. :mod:`~geoseg.scene.radiometry` turns stored numbers into
reflectance, and :mod:`~geoseg.scene.reader` reads, with :mod:`~geoseg.scene.resampling` where bands
differ. Every raster is opened by :mod:`~geoseg.scene.files` alone: ``sources.py`` decides what may
be opened and what it may point to, ``file_kinds.py`` what a file is, ``pointers.py`` what virtual
rasters and sidecars name, ``hdf5.py`` whether a netCDF-4 leads elsewhere, ``declared.py`` refuses
sizes that are absurd, ``file_blocks.py`` says what a file is decoded by, ``vector_sources.py``
looks at vector files. Before the work :mod:`~geoseg.scene.survey` takes one look at the whole scene
(``sampling.py`` reads, ``block_layout.py`` knows what it costs), by which all is decided that
depends on numbers: ``undeclared.py`` finds numbers that are nodata although no tag says so,
``dark_edges.py`` asks about black along the edge. What a scene's cloud layer leaves out stands in
:mod:`~geoseg.scene.clouds`, and is read by ``cloud_reader.py``. Start with ``opening.py``.

For other rooms:
    assets: is_raster, sensor_of
    bands: bands_of, stem_of
    by_numbers: Asked, Decided, Taken, decide_by_numbers
    cloud_reader: CloudReader
    clouds: CLOUDS, CLOUD_BUFFER, CLOUD_MODEL, CloudRule, MOST_BUFFER, Numbers, rule_of
    declared: pixel_limit, pixels_allowed
    file_blocks: TALL_ROWS, number_bytes
    files: add_files, files_behind, opened
    fill: fill_nearest
    folders: is_product_archive
    item: Asset, AssetBand, Item, MAX_BYTES, address_of, is_item, parse_item, read_item
    item_beside: names_files
    item_scene: APPLIED, BASELINES
    opening: PRODUCT_FOLDER, RASTER_SUFFIXES, Source, open_scene
    place: check_place
    pointers: RefusedError, vrt_pointers
    products: layout_of
    radiometry: Radiometry, TELL, convention, find_radiometry
    reader: SceneReader, pixel_dtype
    resampling: Ranges, shared_ground, taken
    scene: CloudLayer, FoundClouds, Scene
    scene_band: SceneBand, finest_grid
    sensors: SENSORS, STAND_INS, Sensor, band_code, band_name, common_name, detect_sensor
    sources: LOCAL, Rules, SCHEME, is_remote, lies_in, open_raster
    survey: Survey
    undeclared: Fill
    vector_sources: check_vector, holds_shapes
    vrt: Source, VRT_TYPES, virtual_raster
    zarr: folders_of, is_zarr
"""
