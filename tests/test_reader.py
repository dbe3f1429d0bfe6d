import math
import struct

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from geoseg.errors import BandError, SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from tests.helpers import make_raster

UTM = CRS.from_epsg(32633)
TEN = Affine(10, 0, 500000, 0, -10, 5000000)
HOLE = (3, 4)


def only(shape, *holes):
    """All True but the holes."""
    valid = np.ones(shape, dtype=bool)
    for hole in holes:
        valid[hole] = False
    return valid


def noise(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(1, 120, shape).astype(dtype)


def read(source, grid=None, **options):
    scene = open_scene(source)
    grid = grid or scene.grid
    with SceneReader(scene.bands, grid, **options) as reader:
        return reader.read(Window(0, 0, grid.height, grid.width))


def zoomed(source, factor):
    return open_scene(source).grid.zoom(factor, factor)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_pixels_come_back_as_they_are_in_the_files_dtype(tmp_path, dtype):
    values = noise((3, 9, 7), dtype)
    pixels, valid = read(make_raster(tmp_path / "s.tif", values))
    assert pixels.dtype == dtype
    np.testing.assert_array_equal(pixels, values)
    assert valid.all()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 255), ("int16", -9999), ("uint16", 65535), ("float32", -9999), ("float64", 0.1),
     ("float32", 0.1), ("float32", float(np.finfo("float32").min))],
)  # fmt: skip
def test_nodata_in_one_band_voids_the_pixel(tmp_path, dtype, nodata):
    values = noise((3, 9, 7), dtype)
    values[1][HOLE] = nodata
    pixels, valid = read(make_raster(tmp_path / "s.tif", values, nodata=nodata))
    np.testing.assert_array_equal(valid, only((9, 7), HOLE))
    np.testing.assert_array_equal(pixels[:, valid], values[:, valid])


@pytest.mark.parametrize("nodata", [math.nan, None, -9999, 0])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_measured_whatever_nodata_is(tmp_path, nodata, odd):
    values = noise((2, 9, 7), "float32")
    values[1][HOLE] = odd
    pixels, valid = read(make_raster(tmp_path / "s.tif", values, nodata=nodata))
    np.testing.assert_array_equal(valid, only((9, 7), HOLE))
    assert np.isfinite(pixels).all()


def test_nodata_0_voids_where_all_bands_are_0_and_not_where_one_is(tmp_path):
    values = noise((3, 9, 7))
    values[1, 0, 0] = 0
    values[:2, 1, 1] = 0
    values[:, 2, 2] = 0
    pixels, valid = read(make_raster(tmp_path / "s.tif", values, nodata=0))
    np.testing.assert_array_equal(valid, only((9, 7), (2, 2)))
    np.testing.assert_array_equal(pixels, values)


def test_nodata_0_holds_over_the_files_of_a_scene(tmp_path):
    first, second = noise((1, 9, 7)), noise((1, 9, 7), seed=1)
    first[0, 0, 0] = 0
    first[0, 2, 2] = second[0, 2, 2] = 0
    files = [
        make_raster(tmp_path / f"{name}.tif", values, nodata=0)
        for name, values in (("red", first), ("nir", second))
    ]
    np.testing.assert_array_equal(read(files)[1], only((9, 7), (2, 2)))


def test_0_is_a_number_where_nodata_is_another(tmp_path):
    values = np.zeros((2, 9, 7), dtype="uint16")
    assert read(make_raster(tmp_path / "s.tif", values, nodata=65535))[1].all()
    assert read(make_raster(tmp_path / "t.tif", values))[1].all()


@pytest.mark.parametrize("factor", [1, 0.5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("nodata", [None, 0, 200])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_alpha_voids_in_any_number_of_bands_dtype_and_nodata(
    tmp_path, factor, dtype, nodata, bands
):
    values = noise((bands, 9, 7), dtype)
    values[:, *HOLE] = 199
    alpha = np.where(only((9, 7), HOLE), 255, 0).astype("uint8")
    alpha[0, 0] = 1
    path = make_raster(tmp_path / "s.tif", values, alpha=alpha, nodata=nodata)
    pixels, valid = read(path, zoomed(path, factor))
    assert pixels.shape[0] == bands
    times = round(1 / factor)
    np.testing.assert_array_equal(valid, only((9, 7), HOLE).repeat(times, 0).repeat(times, 1))
    assert pixels[:, valid].max() < 121


@pytest.mark.parametrize("factor", [1, 0.5])
@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("nodata", [None, 0, 125])
def test_masks_inside_and_beside_the_file_void(tmp_path, factor, internal, dtype, nodata):
    values = noise((2, 9, 7), dtype)
    values[:, *HOLE] = 126
    mask = only((9, 7), HOLE)
    path = make_raster(tmp_path / "s.tif", values, mask=mask, internal_mask=internal, nodata=nodata)
    assert (tmp_path / "s.tif.msk").exists() != internal
    pixels, valid = read(path, zoomed(path, factor))
    times = round(1 / factor)
    np.testing.assert_array_equal(valid, mask.repeat(times, 0).repeat(times, 1))
    assert pixels[:, valid].max() < 121


def test_nodata_voids_although_a_mask_says_nothing_of_it(tmp_path):
    values = noise((2, 9, 7), "int16")
    values[0][HOLE] = -9999
    mask = only((9, 7), (0, 0))
    path = make_raster(tmp_path / "s.tif", values, mask=mask, nodata=-9999)
    np.testing.assert_array_equal(read(path)[1], only((9, 7), HOLE, (0, 0)))


@pytest.fixture
def two_nodata(tmp_path):
    """A VRT whose bands have -1, none and 7 for nodata; each band holds all three numbers."""
    values = noise((3, 9, 7), "int16") + 20
    for band in range(3):
        values[band, 2 * band, :3] = (-1, 5, 7)
    make_raster(tmp_path / "s.tif", values)
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{i}"><Description>{name}</Description>'
        f"{f'<NoDataValue>{nodata}</NoDataValue>' if nodata else ''}"
        f'<SimpleSource><SourceFilename relativeToVRT="1">s.tif</SourceFilename>'
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, name, nodata in ((1, "red", -1), (2, "green", None), (3, "blue", 7))
    )
    path = tmp_path / "s.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="7" rasterYSize="9"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    return path, only((9, 7), (0, 0), (4, 2))


@pytest.mark.parametrize("factor", [1, 0.5])
def test_each_band_has_its_own_nodata(two_nodata, factor):
    path, expected = two_nodata
    times = round(1 / factor)
    valid = read(path, zoomed(path, factor))[1]
    np.testing.assert_array_equal(valid, expected.repeat(times, 0).repeat(times, 1))


def test_src_nodata_stands_in_place_of_the_files(two_nodata):
    path, _ = two_nodata
    expected = only((9, 7), (0, 1), (2, 1), (4, 1))
    np.testing.assert_array_equal(read(path, src_nodata=5)[1], expected)
    assert read(path, src_nodata=-3)[1].all()
    assert read(path, src_nodata=math.nan)[1].all()
    assert read(path, zoomed(path, 0.5), src_nodata=math.nan)[1].all()


def test_src_nodata_0_needs_all_bands(tmp_path):
    values = noise((2, 9, 7))
    values[0, 0, 0] = 0
    values[:, 1, 1] = 0
    path = make_raster(tmp_path / "s.tif", values)
    assert read(path)[1].all()
    np.testing.assert_array_equal(read(path, src_nodata=0)[1], only((9, 7), (1, 1)))


def test_src_nodata_nan_frees_the_number_in_the_file(tmp_path):
    values = noise((1, 9, 7), "float32")
    values[0, 0, 0], values[0, 1, 1] = -9999, math.nan
    path = make_raster(tmp_path / "s.tif", values, nodata=-9999)
    np.testing.assert_array_equal(read(path)[1], only((9, 7), (0, 0), (1, 1)))
    np.testing.assert_array_equal(read(path, src_nodata=math.nan)[1], only((9, 7), (1, 1)))


def test_src_nodata_leaves_masks_and_alpha_in_force(tmp_path):
    values = noise((3, 9, 7))
    values[:, 0, 0] = 200
    mask = only((9, 7), HOLE)
    path = make_raster(tmp_path / "s.tif", values, mask=mask)
    np.testing.assert_array_equal(read(path, src_nodata=200)[1], only((9, 7), HOLE, (0, 0)))
    path = make_raster(tmp_path / "t.tif", values, alpha=mask.astype("uint8") * 255)
    np.testing.assert_array_equal(read(path, src_nodata=200)[1], only((9, 7), HOLE, (0, 0)))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("how", ["nodata", "nan", "mask", "msk", "alpha", "none"])
def test_one_band_agrees_with_rasterios_dataset_mask(tmp_path, dtype, how):
    if how == "nan" and dtype != "float32":
        pytest.skip("whole numbers have no NaN")
    values = noise((1, 40, 30), dtype)
    gaps = np.random.default_rng(1).random((40, 30)) < 0.3
    options = {}
    if how in ("nodata", "nan"):
        options["nodata"] = math.nan if how == "nan" else 3
        values[0, gaps] = options["nodata"]
    elif how in ("mask", "msk"):
        options = {"mask": ~gaps, "internal_mask": how == "mask"}
    elif how == "alpha":
        # GDAL has masks of alpha bands of these two dtypes only.
        dtype = "uint8" if dtype == "uint8" else "uint16"
        values = values.astype(dtype)
        options["alpha"] = np.where(gaps, 0, 255).astype("uint8")
    path = make_raster(tmp_path / "s.tif", values, **options)
    with rasterio.open(path) as dataset:
        expected = dataset.dataset_mask() != 0
    assert expected.all() == (how == "none")
    np.testing.assert_array_equal(read(path)[1], expected)


def test_windows_of_a_crop_are_windows_of_the_file(tmp_path):
    values = noise((2, 30, 40))
    values[0, 10, 12] = 0
    values[1, 10, 12] = 0
    scene = open_scene(make_raster(tmp_path / "s.tif", values, nodata=0))
    with SceneReader(scene.bands, scene.grid.crop(Window(5, 7, 20, 22))) as reader:
        assert reader.dtype == np.uint16
        pixels, valid = reader.read(Window(3, 2, 6, 9))
    np.testing.assert_array_equal(pixels, values[:, 8:14, 9:18])
    np.testing.assert_array_equal(valid, only((6, 9), (2, 3)))


def test_aoi_holds_by_pixel_centres_in_every_window(tmp_path):
    path = make_raster(tmp_path / "s.tif", noise((1, 10, 10)))
    scene = open_scene(path)
    # From 0.6 px: the centre of pixel 0 lies outside, that of pixel 1 inside.
    left, right, top, bottom = 500006, 500064, 4999994, 4999936
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    aoi = [{"type": "Polygon", "coordinates": [ring]}]
    expected = np.zeros((10, 10), dtype=bool)
    expected[1:6, 1:6] = True
    with SceneReader(scene.bands, scene.grid, aoi=aoi) as reader:
        np.testing.assert_array_equal(reader.read(Window(0, 0, 10, 10))[1], expected)
        rows = [reader.read(Window(r, 0, 1, 10))[1] for r in range(10)]
    np.testing.assert_array_equal(np.concatenate(rows), expected)


def bilinear(values, rows, cols):
    """Bilinear interpolation at pixel-centre coordinates, the edge pixel going on outside."""
    height, width = values.shape
    r = np.clip(rows, 0, height - 1)[:, None]
    c = np.clip(cols, 0, width - 1)[None]
    r0, c0 = np.floor(r).astype(int), np.floor(c).astype(int)
    r1, c1 = np.minimum(r0 + 1, height - 1), np.minimum(c0 + 1, width - 1)
    top = values[r0, c0] * (1 - (c - c0)) + values[r0, c1] * (c - c0)
    low = values[r1, c0] * (1 - (c - c0)) + values[r1, c1] * (c - c0)
    return top * (1 - (r - r0)) + low * (r - r0)


def two_grids(tmp_path, coarse, times, **options):
    """A fine band beside a coarse one over the same ground."""
    height, width = coarse.shape[1] * times, coarse.shape[2] * times
    fine = noise((1, height, width), seed=5)
    return [
        make_raster(tmp_path / "red.tif", fine),
        make_raster(
            tmp_path / "nir.tif", coarse, transform=TEN @ Affine.scale(times, times), **options
        ),
    ]


@pytest.mark.parametrize("times", [2, 3, 6])
def test_a_coarser_band_file_is_interpolated_bilinearly(tmp_path, times):
    coarse = noise((1, 12, 9))
    files = two_grids(tmp_path, coarse, times)
    pixels, valid = read(files)
    assert pixels.dtype == np.float32
    assert valid.all()
    rows, cols = ((np.arange(n * times) + 0.5) / times - 0.5 for n in (12, 9))
    expected = bilinear(coarse[0].astype(float), rows, cols)
    np.testing.assert_allclose(pixels[1], expected, atol=1e-3)
    with rasterio.open(files[0]) as dataset:
        np.testing.assert_array_equal(pixels[0], dataset.read(1))


def test_a_band_file_shifted_by_half_a_pixel_is_interpolated(tmp_path):
    a, b = noise((1, 8, 8)), noise((1, 9, 9), seed=3)
    files = [
        make_raster(tmp_path / "red.tif", a),
        make_raster(tmp_path / "nir.tif", b, transform=TEN @ Affine.translation(-0.5, -0.5)),
    ]
    pixels, valid = read(files)
    expected = bilinear(b[0].astype(float), np.arange(8) + 0.5, np.arange(8) + 0.5)
    np.testing.assert_allclose(pixels[1], expected, atol=1e-3)
    assert valid.all()


def test_a_shift_by_whole_pixels_is_no_resampling(tmp_path):
    a, b = noise((1, 8, 8)), noise((1, 12, 13), seed=3)
    files = [
        make_raster(tmp_path / "red.tif", a, transform=TEN @ Affine.translation(2, 3)),
        make_raster(tmp_path / "nir.tif", b),
    ]
    scene = open_scene(files)
    with SceneReader(scene.bands, scene.bands[0].grid) as reader:
        pixels, _ = reader.read(Window(0, 0, 8, 8))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels[1], b[0, 3:11, 2:10])


@pytest.mark.parametrize("times", [2, 5])
def test_a_finer_scene_is_averaged(tmp_path, times):
    values = noise((2, 10 * times, 7 * times), "uint16")
    path = make_raster(tmp_path / "s.tif", values)
    pixels, valid = read(path, zoomed(path, times))
    expected = values.reshape(2, 10, times, 7, times).mean(axis=(2, 4))
    np.testing.assert_allclose(pixels, expected, rtol=1e-5)
    assert valid.all()


def test_averages_are_of_measured_pixels_only(tmp_path):
    values = np.full((2, 8, 8), 100, dtype="int16")
    values[0, 2:4, 2] = -9999
    values[1, 4:6, 4:6] = -9999
    path = make_raster(tmp_path / "s.tif", values, nodata=-9999)
    pixels, valid = read(path, zoomed(path, 2))
    np.testing.assert_array_equal(valid, only((4, 4), (2, 2)))
    np.testing.assert_allclose(pixels[:, valid], 100)


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int16", -9999), ("uint16", 65535), ("float32", math.nan), ("float32", -9999)],
)
@pytest.mark.parametrize("factor", [0.5, 0.3, 1.5, 2])
def test_nodata_never_mixes_into_its_neighbours(tmp_path, bands, dtype, nodata, factor):
    values = np.full((bands, 16, 16), 100, dtype=dtype)
    values[0, 4:8, 5:9] = nodata
    values[0, 0, :] = nodata
    path = make_raster(tmp_path / "s.tif", values, nodata=nodata)
    pixels, valid = read(path, zoomed(path, factor))
    assert valid.any()
    assert not valid.all()
    assert np.isfinite(pixels).all()
    np.testing.assert_allclose(pixels[:, valid], 100, rtol=1e-6)


def test_fill_of_0_at_a_coarse_bands_edge_never_mixes_in(tmp_path):
    coarse = np.full((1, 8, 8), 100, dtype="uint16")
    coarse[0, :, :3] = 0
    files = two_grids(tmp_path, coarse, 2, nodata=0)
    pixels, _ = read(files)
    assert set(np.unique(pixels[1])) == {0, 100}


def test_resampled_pixels_do_not_depend_on_the_window(tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.scene.resampling.RESAMPLE_SIDE", 7)
    values = noise((2, 31, 29), "float32")
    values[0, 4:8, 5:9] = math.nan
    path = make_raster(tmp_path / "s.tif", values)
    scene = open_scene(path)
    for factor in (0.5, 0.7, 1.5, 3):
        grid = scene.grid.zoom(factor, factor)
        with SceneReader(scene.bands, grid) as reader:
            whole, valid = reader.read(Window(0, 0, grid.height, grid.width))
            for window in (Window(3, 2, 5, 6), Window(0, 0, 1, 1), Window(8, 1, 2, 8)):
                pixels, part = reader.read(window)
                np.testing.assert_array_equal(part, valid[window.rows, window.cols])
                np.testing.assert_allclose(
                    pixels[:, part], whole[:, window.rows, window.cols][:, part], rtol=1e-5
                )


def test_a_band_file_that_covers_only_part_is_refused(tmp_path):
    files = [
        make_raster(tmp_path / "red.tif", noise((1, 40, 40))),
        make_raster(tmp_path / "nir.tif", noise((1, 12, 20)), transform=TEN @ Affine.scale(2, 2)),
    ]
    with pytest.raises(BandError, match=r"nir.*covers only part"):
        read(files)
    scene = open_scene(files)
    part = scene.grid.crop(Window(0, 0, 24, 40))
    assert read(files, part)[1].all()


def test_grids_that_differ_without_crs_are_refused(tmp_path):
    files = [
        make_raster(tmp_path / "red.tif", noise((1, 8, 8)), crs=None),
        make_raster(
            tmp_path / "nir.tif", noise((1, 4, 4)), crs=None, transform=TEN @ Affine.scale(2, 2)
        ),
    ]
    with pytest.raises(SceneError, match="no CRS"):
        read(files)


def test_a_band_file_in_another_crs_lands_on_the_same_ground(tmp_path):
    # The value is the longitude, so that any misplacement shows.
    degrees = Affine(1e-4, 0, 14.98, 0, -1e-4, 45.18)
    columns = np.arange(600) + 0.5
    values = np.broadcast_to(14.98 + columns * 1e-4, (1, 600, 600)).astype("float64")
    path = make_raster(tmp_path / "nir.tif", values, crs="EPSG:4326", transform=degrees)
    grid = PixelGrid(40, 50, Affine(10, 0, 500500, 0, -10, 5000000), UTM)
    pixels, valid = read(path, grid)
    assert valid.all()
    centres = [grid.transform @ (c + 0.5, 20.5) for c in range(50)]
    longitude = rasterio.warp.transform(
        UTM, "EPSG:4326", [p[0] for p in centres], [p[1] for p in centres]
    )[0]
    # 0.125 px is what GDAL's approximation of the projection may cost.
    np.testing.assert_allclose(pixels[0, 20], longitude, atol=0.2e-4)


def test_ground_outside_a_band_file_in_another_crs_is_not_measured(tmp_path):
    degrees = Affine(1e-4, 0, 15.01, 0, -1e-4, 45.18)
    path = make_raster(
        tmp_path / "nir.tif", noise((1, 600, 600)), crs="EPSG:4326", transform=degrees
    )
    grid = PixelGrid(20, 200, Affine(10, 0, 500000, 0, -10, 5000000), UTM)
    _, valid = read(path, grid)
    # 0.01 degrees at 45 degrees north are 788 m.
    assert not valid[:, :75].any()
    assert valid[:, 85:].all()


def damaged(path, how):
    """Deflate blocks of 64 rows, the file cut at half or a block overwritten."""
    values = np.random.default_rng(0).integers(0, 60000, (1, 512, 64)).astype("uint16")
    options = {} if how != "mask" else {"mask": only((512, 64), HOLE)}
    make_raster(
        path, values, tiled=True, blockxsize=64, blockysize=64, compress="deflate", **options
    )
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2 : len(content) // 2 + 5000] = bytes(5000)
    path.write_bytes(bytes(content))
    return values


@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_a_damaged_block_is_an_error_that_names_file_and_rows(tmp_path, how):
    path = tmp_path / "s.tif"
    values = damaged(path, how)
    scene = open_scene(path)
    with SceneReader(scene.bands, scene.grid) as reader:
        if how == "overwritten":
            pixels, _ = reader.read(Window(0, 0, 64, 64))
            np.testing.assert_array_equal(pixels, values[:, :64])
        with pytest.raises(SceneError, match=r"s\.tif: rows 192 to 383 can't be read"):
            reader.read(Window(192, 0, 192, 64))


def test_a_damaged_mask_is_an_error_that_names_file_and_rows(tmp_path):
    path = tmp_path / "s.tif"
    gaps = np.random.default_rng(0).random((512, 64)) < 0.5
    values = noise((1, 512, 64))
    make_raster(path, values, mask=~gaps, internal_mask=False)
    beside = tmp_path / "s.tif.msk"
    beside.write_bytes(beside.read_bytes()[:-3000])
    scene = open_scene(path)
    with (
        SceneReader(scene.bands, scene.grid) as reader,
        pytest.raises(SceneError, match=r"s\.tif: rows 0 to 511 can't be read"),
    ):
        reader.read(Window(0, 0, 512, 64))


def test_a_file_that_went_away_is_an_error(tmp_path):
    path = make_raster(tmp_path / "s.tif", noise((1, 8, 8)))
    scene = open_scene(path)
    path.unlink()
    with pytest.raises(SceneError, match="no such file"):
        SceneReader(scene.bands, scene.grid)


@pytest.mark.parametrize(
    "transform",
    [Affine(10, 0, 500000, 0, 10, 4999000), TEN @ Affine.rotation(30)],
    ids=["south-up", "rotated"],
)
def test_unusual_transforms_are_read_and_resampled_in_place(tmp_path, transform):
    values = np.arange(12 * 10, dtype="uint16").reshape(1, 12, 10)
    path = make_raster(tmp_path / "s.tif", values, transform=transform)
    np.testing.assert_array_equal(read(path)[0], values)
    pixels, valid = read(path, zoomed(path, 0.5))
    rows, cols = ((np.arange(2 * n) + 0.5) / 2 - 0.5 for n in (12, 10))
    np.testing.assert_allclose(pixels[0], bilinear(values[0].astype(float), rows, cols), atol=1e-2)
    assert valid.all()


def test_bands_come_in_the_order_asked_for_from_files_of_mixed_dtype(tmp_path):
    make_raster(tmp_path / "red.tif", noise((1, 6, 5), "uint8"))
    make_raster(tmp_path / "nir.tif", noise((1, 6, 5), "float64", seed=1), nodata=-1.7e308)
    bands = open_scene(tmp_path).choose(("red", "nir"))
    with SceneReader(bands[::-1], bands[0].grid) as reader:
        pixels, _ = reader.read(Window(0, 0, 6, 5))
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[0], noise((1, 6, 5), seed=1)[0])
    np.testing.assert_array_equal(pixels[1], noise((1, 6, 5))[0])


def test_alpha_may_be_any_band(tmp_path):
    values = noise((3, 9, 7), "uint8")
    values[0] = np.where(only((9, 7), HOLE), 255, 0)
    path = make_raster(tmp_path / "s.tif", values)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.alpha, ColorInterp.gray, ColorInterp.undefined]
    pixels, valid = read(path)
    np.testing.assert_array_equal(pixels, values[1:])
    np.testing.assert_array_equal(valid, only((9, 7), HOLE))


def test_a_vrt_may_mix_dtypes(tmp_path):
    for name, dtype in (("a", "uint16"), ("b", "float32")):
        make_raster(tmp_path / f"{name}.tif", np.full((1, 2, 3), 7.5).astype(dtype))
    bands = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{i}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{name}.tif</SourceFilename></SimpleSource>'
        f"</VRTRasterBand>"
        for i, (name, dtype) in enumerate((("a", "UInt16"), ("b", "Float32")), start=1)
    )
    mixed = tmp_path / "mixed.vrt"
    mixed.write_text(f'<VRTDataset rasterXSize="3" rasterYSize="2">{bands}</VRTDataset>')
    scene = open_scene(mixed)
    with SceneReader(scene.bands, scene.grid) as reader:
        pixels, valid = reader.read(Window(0, 0, 2, 3))
    assert valid.all() and pixels.dtype == np.float32
    assert pixels[:, 0, 0].tolist() == [7.0, 7.5]


def test_a_band_file_whose_crs_has_no_place_on_earth_is_refused(tmp_path):
    files = [
        make_raster(tmp_path / "red.tif", np.ones((1, 4, 4), np.uint8)),
        make_raster(
            tmp_path / "nir.tif",
            np.ones((1, 4, 4), np.uint8),
            crs='LOCAL_CS["site",UNIT["metre",1]]',
        ),
    ]
    scene = open_scene(files)
    assert scene.bands[1].grid.gsd is None
    with pytest.raises(SceneError, match="can't be brought together"):
        SceneReader(scene.bands, scene.bands[0].grid)


def test_a_coarse_band_that_ends_half_a_pixel_short_leaves_no_gap(tmp_path):
    coarse = noise((1, 10, 10))
    files = [
        make_raster(tmp_path / "red.tif", noise((1, 21, 21), seed=1)),
        make_raster(tmp_path / "nir.tif", coarse, transform=TEN @ Affine.scale(2, 2)),
    ]
    scene = open_scene(files)
    with SceneReader(scene.choose(("red", "nir")), scene.grid) as reader:
        pixels, valid = reader.read(Window(0, 0, 21, 21))
    assert valid.all()
    assert pixels[1, -1, -1] == coarse[0, -1, -1]


@pytest.mark.parametrize("bands", [("red", "nir"), ("nir", "red"), ("swir1", "red", "nir")])
def test_pixels_go_where_they_are_wanted(tmp_path, bands):
    """Straight from the file where dtype and order allow it, else by way of an array."""
    random = np.random.default_rng(0)
    found = {}
    for names, dtype in ((("red", "nir"), "uint8"), (("swir1",), "uint16")):
        values = random.integers(1, 200, (len(names), 30, 40)).astype(dtype)
        file = make_raster(tmp_path / f"{dtype}.tif", values, descriptions=names)
        found |= {band.name: band for band in open_scene(file).bands}
    with SceneReader([found[b] for b in bands], found["red"].grid) as reader:
        window = Window(5, 3, 20, 31)
        expected, valid = reader.read(window)
        buffer = np.zeros((len(bands), 26, 37), reader.dtype)
        pixels, again = reader.read(window, buffer[:, 4:24, 2:33])
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(buffer[:, 4:24, 2:33], expected)
        np.testing.assert_array_equal(again, valid)
        assert (buffer[:, :4] == 0).all() and (buffer[:, :, 33:] == 0).all()


@pytest.mark.parametrize(
    "turned",
    [
        Affine(0, 10, 500000, 10, 0, 4999880),  # transposed: first and last corner are as before
        Affine(0, 10, 500000, -10, 0, 5000000),  # turned
        Affine(-10, 0, 500120, 0, -10, 5000000),  # mirrored
        Affine(10, 0, 500000, 0, 10, 4999880),  # south-up
    ],
)
def test_a_square_grid_that_is_turned_has_other_pixels(tmp_path, turned):
    # Over its diagonal, of all corners only two move.
    over_diagonal = turned.a == 0 and turned.d > 0
    plain = Affine(10, 0, 500000, 0, 10, 4999880) if over_diagonal else TEN
    values = np.arange(144, dtype=np.float32).reshape(1, 12, 12)
    one = make_raster(tmp_path / "red.tif", values, transform=plain)
    other = make_raster(tmp_path / "nir.tif", values, transform=turned)
    bands = open_scene([one, other]).bands
    grid = bands[0].grid
    # Where each pixel of the first grid lies in the second file.
    rows, cols = np.mgrid[:12, :12]
    x, y = ~bands[1].grid.transform @ grid.transform @ (cols + 0.5, rows + 0.5)
    expected = values[0, np.floor(y).astype(int), np.floor(x).astype(int)]
    with SceneReader(bands, grid) as reader:
        pixels, valid = reader.read(Window(0, 0, 12, 12))
    np.testing.assert_array_equal(pixels[0], values[0])
    inner = np.s_[1:-1, 1:-1]
    assert valid[inner].all()
    np.testing.assert_allclose(pixels[1][inner], expected[inner], atol=1e-3)
    assert not np.array_equal(pixels[1], values[0])


def with_compression(path, code):
    """The file, which now says that it is compressed in another way."""
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[4:8])[0]
    entries = struct.unpack("<H", data[start : start + 2])[0]
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] == 259:
            data[entry + 8 : entry + 10] = struct.pack("<H", code)
    path.write_bytes(data)
    return path


def virtual(path, source, side=64):
    rectangle = f'xOff="0" yOff="0" xSize="{side}" ySize="{side}"'
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><VRTRasterBand dataType="Byte" '
        f'band="1"><SimpleSource><SourceFilename relativeToVRT="1">{source}</SourceFilename>'
        f"<SourceBand>1</SourceBand><SrcRect {rectangle}/><DstRect {rectangle}/></SimpleSource>"
        f"</VRTRasterBand></VRTDataset>"
    )
    return path


def test_what_gdal_cannot_read_is_told_by_its_cause_and_the_advice_fits(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (1, 64, 64), dtype=np.uint8)

    def file(name):
        return make_raster(tmp_path / name, noise, compress="deflate")

    def why(path):
        with pytest.raises(SceneError) as error:
            scene = open_scene(path)
            with SceneReader(scene.bands, scene.grid) as reader:
                reader.read(Window(0, 0, 64, 64))
        message = str(error.value)
        assert "\n" not in message
        return message

    codec = why(with_compression(file("codec.tif"), 65000))
    assert "missing codec of code 65000" in codec and "gdal_translate" in codec
    behind = why(virtual(tmp_path / "behind.vrt", "codec.tif"))
    assert "missing codec of code 65000" in behind
    gone = why(virtual(tmp_path / "gone.vrt", "none.tif"))
    assert "none.tif: No such file or directory" in gone and "correct the path in gone.vrt" in gone
    for message in (codec, behind, gone):
        assert "fetch it again" not in message
    cut = file("cut.tif")
    cut.write_bytes(cut.read_bytes()[:-2000])
    message = why(cut)
    assert "Read error at scanline" in message and message.endswith("fetch it again")
    assert "in cut.tif: the file is damaged" in why(virtual(tmp_path / "cut.vrt", "cut.tif"))
