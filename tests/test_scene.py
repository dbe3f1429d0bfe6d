import collections
import os

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from geoseg.core.gdal import block_cache, gdal_options
from geoseg.errors import BandError, SceneError
from geoseg.geo.window import Window
from geoseg.scene.bands import bands_of
from geoseg.scene.opening import open_scene
from geoseg.scene.reader import SceneReader
from geoseg.scene.sources import LOCAL
from tests.helpers import make_raster

TEN = Affine(10, 0, 500000, 0, -10, 5000000)
RGBN = ("red", "green", "blue", "nir")
SAFE = "S2A_MSIL2A_20220223T032739_N0400_R018_T48QUE_20220223T070011.SAFE"


def numbers(bands, size=12, dtype="uint16"):
    """Band i holds the number i everywhere."""
    return np.arange(1, bands + 1, dtype=dtype)[:, None, None].repeat(size, 1).repeat(size, 2)


def names(scene):
    return [band.name for band in scene.bands]


def chosen(scene, wanted, spec=None):
    """Labels of the chosen bands."""
    return [band.label for band in scene.choose(wanted, spec)]


def write_jp2(path, value, gsd, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="JP2OpenJPEG",
        height=size,
        width=size,
        count=1,
        dtype="uint16",
        crs="EPSG:32648",
        transform=Affine(gsd, 0, 300000, 0, -gsd, 2400000),
        QUALITY="100",
        REVERSIBLE="YES",
    ) as dataset:
        dataset.write(np.full((1, size, size), value, dtype="uint16"))


@pytest.fixture
def stack(tmp_path):
    """One file, four bands without names."""
    return open_scene(make_raster(tmp_path / "stack.tif", numbers(4)))


@pytest.fixture
def named(tmp_path):
    """One file, four bands with names."""
    return open_scene(make_raster(tmp_path / "named.tif", numbers(4), descriptions=RGBN))


def test_a_file_tells_its_bands(tmp_path):
    path = make_raster(
        tmp_path / "s.tif",
        numbers(2, dtype="int16"),
        descriptions=["red", None],
        nodata=-9,
        scales=[0.5, 1.0],
        offsets=[2.0, 0.0],
        tags={"made": "here"},
    )
    scene = open_scene(path)
    red, other = scene.bands
    assert scene.name == "s"
    assert scene.paths == (str(path),)
    assert scene.tags["made"] == "here"
    assert (red.name, red.label, red.index, red.dtype, red.nodata) == ("red", "red", 1, "int16", -9)
    assert (red.scale, red.offset, other.scale, other.offset) == (0.5, 2.0, None, None)
    assert (other.name, other.label) == (None, "#2")
    assert (scene.grid.height, scene.grid.width, scene.grid.transform) == (12, 12, TEN)


@pytest.mark.parametrize(
    "descriptions",
    [
        RGBN,
        ("Red", "GREEN", "Blue", "Near Infrared"),
        ("red", "green", "blue", "nir1"),
    ],
)
def test_descriptions_name_bands(tmp_path, descriptions):
    scene = open_scene(make_raster(tmp_path / "s.tif", numbers(4), descriptions=descriptions))
    assert names(scene) == list(RGBN)


@pytest.mark.parametrize(
    ("stem", "b4", "b5"),
    [
        ("S2A_MSIL2A_20220223T032739_N0400_R018_T48QUE_20220223T070011", "red", "rededge1"),
        ("LE07_L2SP_193024_20000407_20200822_02_T1", "nir", "swir1"),
        ("LC08_L2SP_193024_20200407_20200822_02_T1", "red", "nir"),
        ("scene", None, None),
    ],
)
def test_the_same_code_is_another_band_on_another_sensor(tmp_path, stem, b4, b5):
    path = make_raster(tmp_path / f"{stem}.tif", numbers(2), descriptions=["B4", "SR_B5"])
    assert names(open_scene(path)) == [b4, b5]


def test_a_tag_tells_the_sensor(tmp_path):
    path = make_raster(
        tmp_path / "s.tif", numbers(1), descriptions=["B4"], tags={"SPACECRAFT_ID": "LANDSAT_7"}
    )
    assert names(open_scene(path)) == ["nir"]


def test_colours_name_bands_only_where_all_three_are_there(tmp_path):
    path = make_raster(tmp_path / "s.tif", numbers(4, dtype="uint8"), photometric="RGB")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [
            ColorInterp.blue,
            ColorInterp.green,
            ColorInterp.red,
            ColorInterp.undefined,
        ]
    assert names(open_scene(path)) == ["blue", "green", "red", None]
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, *[ColorInterp.undefined] * 3]
    assert names(open_scene(path)) == [None] * 4


def test_a_description_is_worth_more_than_a_colour(tmp_path):
    path = make_raster(
        tmp_path / "s.tif",
        numbers(3, dtype="uint8"),
        photometric="RGB",
        descriptions=["nir", "red", "green"],
    )
    assert names(open_scene(path)) == ["nir", "red", "green"]


def test_alpha_is_no_band(tmp_path):
    alpha = np.full((12, 12), 255, dtype="uint8")
    path = make_raster(tmp_path / "s.tif", numbers(3, dtype="uint8"), alpha=alpha)
    assert len(open_scene(path).bands) == 3
    path = make_raster(tmp_path / "red.tif", numbers(1, dtype="uint8"), alpha=alpha)
    assert names(open_scene(path)) == ["red"]


def test_a_one_band_files_name_names_its_band(tmp_path):
    path = make_raster(tmp_path / "nir.tif", numbers(1))
    assert names(open_scene(path)) == ["nir"]


def test_a_list_is_one_scene_in_its_order(tmp_path):
    files = [make_raster(tmp_path / f"{n}.tif", numbers(1)) for n in ("nir", "red")]
    scene = open_scene(files)
    assert names(scene) == ["nir", "red"]
    assert scene.name == "nir"
    assert chosen(scene, ("red", "nir")) == ["red", "nir"]


def test_an_empty_list_is_refused():
    with pytest.raises(SceneError, match="no file given"):
        open_scene([])


def test_a_folder_is_its_one_band_files_and_says_what_it_leaves_out(tmp_path):
    folder = tmp_path / "scene"
    folder.mkdir()
    for name in ("B02", "B8A", "readme_picture"):
        make_raster(folder / f"{name}.tif", numbers(1))
    make_raster(folder / "._B02.tif", numbers(1))
    (folder / "B03.txt").write_text("no raster")
    scene = open_scene(folder)
    assert scene.name == "scene"
    assert names(scene) == ["blue", "nir08"]
    assert scene.ignored == ("readme_picture.tif: not named after a band",)


def test_a_folders_file_with_several_unnamed_bands_is_left_out_and_said(tmp_path):
    make_raster(tmp_path / "red.tif", numbers(1))
    make_raster(tmp_path / "blue.tif", numbers(3))
    scene = open_scene(tmp_path)
    assert names(scene) == ["red"]
    assert scene.ignored == ("blue.tif: 3 bands without names",)


@pytest.mark.parametrize("held", [(), ("picture", "other")])
def test_a_folder_without_band_files_is_refused(tmp_path, held):
    for name in held:
        make_raster(tmp_path / f"{name}.tif", numbers(1))
    with pytest.raises(SceneError, match=f"holds {len(held)} raster files and none is named"):
        open_scene(tmp_path)


def test_the_finest_file_of_a_band_is_taken(tmp_path):
    prefix = "T48QUE_20220223T032739"
    for gsd, codes in ((10, ("B02",)), (20, ("B02", "B8A", "B11")), (60, ("B02", "B8A", "B09"))):
        for code in codes:
            make_raster(
                tmp_path / f"{prefix}_{code}_{gsd}m.tif",
                numbers(1, 120 // gsd),
                transform=TEN @ Affine.scale(gsd / 10),
            )
    scene = open_scene(tmp_path)
    found = {band.name: band.grid.transform.a for band in scene.bands}
    assert found == {"blue": 10, "nir08": 20, "swir1": 20, "watervapor": 60}
    assert sorted(scene.ignored) == [
        f"{prefix}_B02_20m: blue is there at a finer pixel size",
        f"{prefix}_B02_60m: blue is there at a finer pixel size",
        f"{prefix}_B8A_60m: nir08 is there at a finer pixel size",
    ]
    assert (scene.grid.height, scene.grid.width) == (12, 12)


def test_two_files_of_one_band_and_pixel_size_are_refused(tmp_path):
    for name in ("red", "red_2"):
        make_raster(tmp_path / f"{name}.tif", numbers(1), descriptions=["red"])
    with pytest.raises(BandError, match="both red at the same pixel size"):
        open_scene([tmp_path / "red.tif", tmp_path / "red_2.tif"])


def test_a_safe_folder_is_a_scene(tmp_path):
    images = tmp_path / SAFE / "GRANULE" / "L2A_T48QUE_A034861_20220223T033630" / "IMG_DATA"
    prefix = "T48QUE_20220223T032739"
    for code, gsd, value in (
        ("B02", 10, 1102), ("B04", 10, 1104), ("B08", 10, 1108), ("TCI", 10, 7),
        ("B02", 20, 9), ("B8A", 20, 1181), ("B11", 20, 1111), ("SCL", 20, 4),
        ("B01", 60, 1101), ("B8A", 60, 9),
    ):  # fmt: skip
        write_jp2(images / f"R{gsd}m" / f"{prefix}_{code}_{gsd}m.jp2", value, gsd, 1200 // gsd)
    scene = open_scene(tmp_path / SAFE)
    assert scene.name == SAFE.removesuffix(".SAFE")
    assert scene.sensor.name == "Sentinel-2"
    assert SAFE in scene.texts
    wanted = ("blue", "red", "nir", "nir08", "swir1", "coastal")
    assert set(names(scene)) == set(wanted)
    assert sum("not named after a band" in reason for reason in scene.ignored) == 1
    assert scene.clouds.source == f"{prefix}_SCL_20m.jp2"
    assert {band.nodata for band in scene.bands} == {0}  # by the product's specification
    with SceneReader(scene.choose(wanted), scene.grid) as reader:
        pixels, valid = reader.read(Window(50, 50, 20, 20))
    assert valid.all()
    assert (pixels.min(axis=(1, 2)) == pixels.max(axis=(1, 2))).all()
    assert pixels[:, 0, 0].tolist() == [1102, 1104, 1108, 1181, 1111, 1101]


def test_names_choose_bands_in_the_models_order(named):
    assert chosen(named, ("nir", "red")) == ["nir", "red"]


def test_missing_bands_are_named_with_what_there_is(named):
    with pytest.raises(BandError, match=r"band swir1, swir2 not found among red, green, blue, nir"):
        named.choose(("red", "swir1", "swir2"))


@pytest.mark.parametrize(("held", "wanted"), [("nir", "nir08"), ("nir08", "nir")])
def test_the_other_near_infrared_stands_in(tmp_path, held, wanted):
    path = make_raster(tmp_path / "s.tif", numbers(2), descriptions=["red", held])
    assert chosen(open_scene(path), ("red", wanted)) == ["red", held]


def test_a_band_never_serves_twice(tmp_path):
    path = make_raster(tmp_path / "s.tif", numbers(2), descriptions=["red", "nir"])
    with pytest.raises(BandError, match="band nir08 not found"):
        open_scene(path).choose(("red", "nir", "nir08"))


def test_the_band_itself_comes_before_its_stand_in(tmp_path):
    path = make_raster(tmp_path / "s.tif", numbers(2), descriptions=["nir08", "nir"])
    assert chosen(open_scene(path), ("nir",)) == ["nir"]
    assert chosen(open_scene(path), ("nir08",)) == ["nir08"]


def test_two_bands_of_one_name_are_not_chosen_between(tmp_path):
    path = make_raster(tmp_path / "s.tif", numbers(3), descriptions=["red", "red", "nir"])
    scene = open_scene(path)
    with pytest.raises(BandError, match="red and red are all red"):
        scene.choose(("red", "nir"))
    assert [b.index for b in scene.choose(("red", "nir"), "2,3")] == [2, 3]


@pytest.mark.parametrize(("bands", "wanted"), [(13, RGBN), (4, RGBN), (10, ("red", "nir"))])
def test_unnamed_bands_are_never_guessed(tmp_path, bands, wanted):
    scene = open_scene(make_raster(tmp_path / "eurosat.tif", numbers(bands)))
    assert names(scene) == [None] * bands
    with pytest.raises(BandError, match=rf"its {bands} bands carry no names.*--band-names"):
        scene.choose(wanted)


def test_too_few_unnamed_bands_are_said(stack):
    with pytest.raises(BandError, match="not found among 4 bands without names"):
        stack.choose((*RGBN, "swir1"))


def test_spec_by_numbers_is_in_the_models_order(stack, named):
    for scene in (stack, named):
        assert [b.index for b in scene.choose(("red", "nir"), "3, 1")] == [3, 1]


def test_names_of_all_bands_say_what_an_unnamed_scenes_bands_are(stack):
    scene = stack.with_names("blue, green,red,nir")
    assert names(scene) == ["blue", "green", "red", "nir"] and scene.notes == ()
    assert chosen(scene, ("red", "nir")) == ["#3", "#4"]
    assert chosen(scene, ("red", "nir"), "nir,red") == ["#3", "#4"]
    assert names(stack.with_names("-,Green,near infrared,-")) == [None, "green", "nir", None]
    assert stack.with_names(None) is stack


def test_what_the_user_calls_bands_otherwise_than_the_file_is_noted(named):
    scene = named.with_names("red,green,nir,blue")
    assert scene.notes == (
        "the scene's blue is taken as nir, as --band-names says",
        "the scene's nir is taken as blue, as --band-names says",
    )
    assert chosen(scene, ("blue", "nir")) == ["nir", "blue"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("red,nir", "gives 2 names and stack has 4 bands without names: give one a band"),
        ("red,green,blue,purple", "'purple' is no band name; known are coastal, blue"),
        ("-1,2,3,4", "'-1' is no band name"),
        ("B2,B3,B4,B8", "'B2' is no band name"),
        ("", "gives 0 names"),
    ],
)
def test_wrong_names_of_all_bands_are_refused_in_words(stack, spec, words):
    with pytest.raises(BandError) as caught:
        stack.with_names(spec)
    assert "--band-names" in str(caught.value) and words in str(caught.value)


def test_spec_by_labels_codes_and_names(tmp_path):
    scene = open_scene(
        make_raster(
            tmp_path / f"{SAFE[:-5]}.tif", numbers(3), descriptions=["B02", "Band eight", "B04"]
        )
    )
    for spec in ("B04,B02", "B4,B2", "red,blue", "b4,Blue", "B2,B4", "blue,red"):
        assert chosen(scene, ("red", "blue"), spec) == ["B04", "B02"]
    with pytest.raises(BandError, match="band nir not found among Band eight, red"):
        scene.choose(("nir", "red"), "Band eight,B04")


def test_labels_that_name_nothing_choose_no_band_but_one_that_a_model_calls_so(tmp_path):
    path = make_raster(tmp_path / "s.tif", numbers(3), descriptions=["one", "two", "three"])
    scene = open_scene(path)
    with pytest.raises(BandError, match="are called is not understood: three, one"):
        scene.choose(("red", "nir"), "three,one")
    for spec in (None, "one,three", "three,one"):
        assert chosen(scene, ("three", "one"), spec) == ["three", "one"]
    assert chosen(scene, ("red", "nir"), "3,1") == ["three", "one"]


@pytest.mark.parametrize(
    ("which", "spec", "words"),
    [
        ("stack", "5,1", "names band 5; stack has bands 1 to 4"),
        ("stack", "0,1", "names band 0"),
        ("stack", "1,2,3", "gives 3 bands; the model needs 2: red, nir (numbers in this order"),
        ("stack", "red,nir", "stack has no band 'red'; it has 4 bands without names: give"),
        ("stack", "", "gives 0"),
        ("stack", "-1,2", "no band '-1'"),
        ("stack", "1.0,2", "no band '1.0'"),
        ("stack", "²,1", "no band '²'"),
        ("named", "red,red", "are all red"),
        ("named", "red,blue", "band nir not found among red, blue"),
        ("named", "red,swir1", "named has no band 'swir1'; it has red, green, blue, nir"),
        ("named", "red", "gives 1 band; the model needs 2"),
        ("named", "red,nir,blue", "gives 3 bands"),
        ("named", " , ", "gives 0 bands"),
    ],
)
def test_wrong_specs_are_refused_in_words(request, which, spec, words):
    scene = request.getfixturevalue(which)
    with pytest.raises(BandError) as caught:
        scene.choose(("red", "nir"), spec)
    assert words in str(caught.value)
    assert "--bands" in str(caught.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(SceneError, match=r"nothing\.tif: no such file"):
        open_scene(tmp_path / "nothing.tif")


@pytest.mark.parametrize("content", [b"", b"text", b"II*\0"], ids=["empty", "text", "header"])
def test_what_is_no_raster_is_said(tmp_path, content):
    path = tmp_path / "s.tif"
    path.write_bytes(content)
    with pytest.raises(SceneError, match=r"s\.tif is not a raster"):
        open_scene(path)


def test_a_container_names_its_subdatasets(tmp_path):
    container = tmp_path / "s.gpkg"
    for table in ("one", "two"):
        with rasterio.open(
            container,
            "w",
            driver="GPKG",
            height=12,
            width=12,
            count=1,
            dtype="uint8",
            crs="EPSG:32633",
            transform=TEN,
            RASTER_TABLE=table,
            APPEND_SUBDATASET="YES",
        ) as dataset:
            dataset.write(numbers(1, dtype="uint8"))
    with pytest.raises(SceneError, match=r"no bands of its own; give one of its 2 subdatasets"):
        open_scene(container)


def test_ground_control_points_only_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "s.tif"
    points = [GroundControlPoint(r, c, 15 + c, 45 - r) for r, c in ((0, 0), (0, 12), (12, 0))]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=12,
        width=12,
        count=1,
        dtype="uint16",
        gcps=points,
        crs="EPSG:4326",
    ) as dataset:
        dataset.write(numbers(1))
    with pytest.raises(SceneError, match=r"ground control points.*gdalwarp s\.tif"):
        open_scene(path)


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers_are_refused(tmp_path, dtype):
    path = tmp_path / "s.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=4,
        width=4,
        count=1,
        dtype=dtype,
        crs="EPSG:32633",
        transform=TEN,
    ):
        pass
    with pytest.raises(SceneError, match="band 1 is complex"):
        open_scene(path)


def test_a_scene_without_crs_or_transform_opens(tmp_path):
    path = make_raster(tmp_path / "s.tif", numbers(1), crs=None, transform=Affine.identity())
    scene = open_scene(path)
    assert scene.grid.crs is None
    assert scene.grid.gsd is None


def test_a_trailing_slash_and_the_current_folder_are_no_names(tmp_path, monkeypatch):
    make_raster(tmp_path / "red.tif", numbers(1))
    monkeypatch.chdir(tmp_path)
    assert open_scene(".").name == tmp_path.name
    assert open_scene(f"{tmp_path}/").name == tmp_path.name


def test_only_remote_sources_change_gdals_network_settings():
    with gdal_options("https://example.com/a.tif"):
        assert rasterio.env.getenv()["GDAL_HTTP_LOW_SPEED_TIME"]
    with gdal_options("a.tif"):
        assert "GDAL_HTTP_LOW_SPEED_TIME" not in rasterio.env.getenv()
    with block_cache(123456):
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == 123456


def test_what_the_user_has_set_for_a_network_stays(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "3")
    with rasterio.Env(GDAL_HTTP_MAX_RETRY="7"), gdal_options("https://example.com/a.tif"):
        options = rasterio.env.getenv()
    assert "GDAL_HTTP_LOW_SPEED_TIME" not in options and options["GDAL_HTTP_MAX_RETRY"] == "7"
    assert options["GDAL_HTTP_CONNECTTIMEOUT"]


def test_bands_are_looked_at_in_time_that_grows_with_their_number(tmp_path):
    """Counted, since a clock tells little on a busy machine."""
    asked: collections.Counter[str] = collections.Counter()

    class Counting:
        def __init__(self, dataset):
            self._dataset = dataset

        def __getattr__(self, name):
            asked[name] += 1
            return getattr(self._dataset, name)

    path = make_raster(tmp_path / "s.tif", numbers(50))
    with rasterio.open(path) as dataset:
        bands = bands_of(Counting(dataset), str(path), LOCAL)
    assert len(bands) == 50
    assert (
        asked.pop("tags") <= 2 * 50 + 3
    )  # a band's own, which takes no longer where there are more
    assert max(asked.values()) <= 2


@pytest.mark.parametrize(
    ("crs", "transform", "gsd"),
    [
        ("EPSG:32633", TEN, (10, 10)),
        ("EPSG:4326", Affine(1e-4, 0, 15, 0, -1e-4, 60), (5.58, 11.14)),
        ("EPSG:3857", Affine(10, 0, 1669792, 0, -10, 8399738), (5.0, 5.0)),
        ("EPSG:2263", Affine(10, 0, 987000, 0, -10, 200000), (3.048, 3.048)),
    ],
)
def test_gsd_is_in_metres_whatever_the_crs(tmp_path, crs, transform, gsd):
    path = make_raster(tmp_path / "s.tif", numbers(1), crs=crs, transform=transform)
    assert open_scene(path).grid.gsd == pytest.approx(gsd, rel=5e-3)


def test_a_folder_called_after_a_sensor_is_no_evidence(tmp_path):
    folder = tmp_path / "sentinel2_project" / "x"
    folder.mkdir(parents=True)
    path = make_raster(folder / "stack.tif", numbers(2), descriptions=["red", "nir"])
    assert open_scene(path).sensor is None
    tagged = make_raster(
        folder / "S2A_MSIL2A_20200101T000000_stack.tif",
        numbers(2),
        descriptions=["red", "nir"],
        tags={"SPACECRAFT_ID": "LANDSAT_8"},
    )
    assert open_scene(tagged).sensor.name == "Landsat 8-9"


def test_the_finest_band_is_found_across_crss(tmp_path):
    files = [
        make_raster(tmp_path / "red.tif", numbers(1)),
        make_raster(
            tmp_path / "nir.tif",
            numbers(1),
            crs="EPSG:4326",
            transform=Affine(2e-4, 0, 15, 0, -2e-4, 45.2),
        ),
    ]
    assert open_scene(files).grid.crs.to_epsg() == 32633


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(SceneError, match="is a pipe or a device; give a file"):
        open_scene(tmp_path / "pipe.tif")


def test_a_name_that_is_no_text_is_refused_in_words(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.tif")
    path.write_bytes(b"")
    with pytest.raises(SceneError, match=r"udcff\.tif: the name is not UTF-8") as error:
        open_scene(path)
    str(error.value).encode()


@pytest.mark.parametrize(
    "transform", [(0, 0, 5e5, 0, 0, 5e6), (10, 0, 5e5, 10, 0, 5e6), (float("nan"), 0, 1, 0, -1, 1)]
)
def test_pixels_without_a_size_are_refused(tmp_path, transform):
    path = make_raster(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8))
    a, b, c, d, e, f = transform
    text = (
        f'<VRTDataset rasterXSize="4" rasterYSize="4">'
        f"<GeoTransform>{c}, {a}, {b}, {f}, {d}, {e}</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">'
        f"{path.name}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "a.vrt").write_text(text)
    with pytest.raises(SceneError, match="pixels have no size on the ground"):
        open_scene(tmp_path / "a.vrt")
