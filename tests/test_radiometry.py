import math

import pytest

from geoseg.errors import RadiometryError, UsageError
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from tests.helpers import make_raster
from tests.test_scene import numbers

S2 = "S2A_MSIL2A_20220223T032739_{}_R018_T48QUE_20220223T070011"
L2 = "LC08_L2SP_193024_20200407_20200822_02_T1"
L1 = "LC08_L1TP_193024_20200407_20200822_02_T1"


def radiometry(folder, stem="scene", dtype="uint16", quantity="reflectance", **options):
    user = {key: options.pop(key) for key in ("scale", "offset") if key in options}
    scene = open_scene(make_raster(folder / f"{stem}.tif", numbers(2, dtype=dtype), **options))
    return find_radiometry(scene, scene.bands, quantity, **user)


@pytest.mark.parametrize(
    ("user", "gain", "bias"),
    [
        ({"scale": 0.5}, 0.5, 0.0),
        ({"scale": 1e-4, "offset": 0.2}, 1e-4, 0.2),
        ({"scale": 1.0, "offset": 0.0}, 1.0, 0.0),
    ],
)
@pytest.mark.parametrize("stem", ["scene", S2.format("N0400"), L2, L1])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("quantity", ["reflectance", "number"])
def test_the_user_comes_first(tmp_path, user, gain, bias, stem, dtype, quantity):
    found = radiometry(tmp_path, stem, dtype, quantity, scales=(3, 3), offsets=(4, 4), **user)
    assert (found.gain, found.bias) == ((gain,) * 2, (bias,) * 2)
    assert "--scale" in found.source


@pytest.mark.parametrize(
    "user",
    [{"scale": 0.0}, {"scale": math.nan}, {"scale": math.inf}, {"scale": 1, "offset": math.nan}],
)
def test_a_users_number_that_makes_no_sense_is_refused(tmp_path, user):
    with pytest.raises(UsageError, match="finite, and scale not 0"):
        radiometry(tmp_path, **user)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_model_of_numbers_takes_them_as_they_are(tmp_path, dtype):
    found = radiometry(tmp_path, S2.format("N0400"), dtype, "number", scales=(3, 3))
    assert (found.gain, found.bias) == ((1.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("stem", ["scene", S2.format("N0400")])
def test_tags_come_before_dtype_and_sensor_band_by_band(tmp_path, dtype, stem):
    found = radiometry(tmp_path, stem, dtype, scales=(1e-3, 2e-3), offsets=(0.0, -0.5))
    assert (found.gain, found.bias) == ((1e-3, 2e-3), (0.0, -0.5))
    assert "tags" in found.source


def test_an_offset_tag_alone_is_enough(tmp_path):
    found = radiometry(tmp_path, offsets=(-5.0, -5.0))
    assert (found.gain, found.bias) == ((1.0, 1.0), (-5.0, -5.0))


def test_tags_of_some_bands_only_are_refused(tmp_path):
    with pytest.raises(RadiometryError, match=r"units differ.*--scale"):
        radiometry(tmp_path, scales=(1e-4, 1.0))


@pytest.mark.parametrize("tags", [{"scales": (0.0, 0.0)}, {"offsets": (math.nan, math.nan)}])
def test_tags_that_make_no_sense_are_refused(tmp_path, tags):
    with pytest.raises(RadiometryError, match=r"can't be meant.*--scale"):
        radiometry(tmp_path, **tags)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stem", ["scene", S2.format("N0400"), L1])
def test_fractions_are_reflectance_before_the_sensors_convention(tmp_path, dtype, stem):
    found = radiometry(tmp_path, stem, dtype)
    assert (found.gain, found.bias) == ((1.0, 1.0), (0.0, 0.0))
    assert "floating-point" in found.source


def test_fractions_beside_whole_numbers_are_refused(tmp_path):
    files = [
        make_raster(tmp_path / "red.tif", numbers(1, dtype="float32")),
        make_raster(tmp_path / "nir.tif", numbers(1)),
    ]
    scene = open_scene(files)
    with pytest.raises(RadiometryError, match=r"nir is uint16.*units differ"):
        find_radiometry(scene, scene.bands, "reflectance")


@pytest.mark.parametrize(
    ("stem", "gain", "bias", "words"),
    [
        (S2.format("N0209"), 1e-4, 0.0, "N0209 adds nothing"),
        (S2.format("N0301"), 1e-4, 0.0, "N0301 adds nothing"),
        (S2.format("N0400"), 1e-4, -0.1, "N0400 adds 1000"),
        (S2.format("N0511"), 1e-4, -0.1, "N0511 adds 1000"),
        (L2, 2.75e-5, -0.2, "Landsat"),
        (L2.replace("LC08", "LC09"), 2.75e-5, -0.2, "Landsat"),
        (L2.replace("LC08", "LE07"), 2.75e-5, -0.2, "Landsat"),
        (L2.replace("LC08", "LT05"), 2.75e-5, -0.2, "Landsat"),
        ("HLS.L30.T33UVU.2020100T100559.v2.0.stack", 1e-4, 0.0, "HLS"),
        ("HLS.S30.T33UVU.2022100T100559.v2.0.stack", 1e-4, 0.0, "HLS"),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_the_sensors_convention(tmp_path, stem, gain, bias, words, dtype):
    found = radiometry(tmp_path, stem, dtype)
    assert (found.gain, found.bias) == ((gain,) * 2, (bias,) * 2)
    assert words in found.source


def test_the_baseline_may_stand_in_the_folders_name(tmp_path):
    folder = tmp_path / f"{S2.format('N0400')}.SAFE" / "GRANULE" / "L2A_T48QUE" / "IMG_DATA"
    for part in ("R10m", "R20m"):
        (folder / part).mkdir(parents=True)
        assert radiometry(folder / part, "T48QUE_20220223T032739_B02").bias == (-0.1, -0.1)


@pytest.mark.parametrize("key", ["RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"])
def test_an_offset_tag_of_sentinel2_comes_before_the_name(tmp_path, key):
    found = radiometry(tmp_path, S2.format("N0209"), tags={key: "-1000"})
    assert found.bias == (-0.1, -0.1)
    assert key in found.source


@pytest.mark.parametrize(
    ("stem", "dtype", "words"),
    [
        ("scene", "uint8", "is 8-bit"),
        (S2.format("N0400"), "uint8", "is 8-bit"),
        ("scene", "uint16", "unit is unknown"),
        ("scene", "int32", "unit is unknown"),
        (L1, "uint16", "REFLECTANCE_MULT"),
        (L1.replace("LC08", "LE07"), "int16", "REFLECTANCE_MULT"),
        (L1.replace("LC08", "LM05"), "uint16", "no reflectance"),
    ],
)
def test_what_is_unknown_is_refused_with_what_to_do(tmp_path, stem, dtype, words):
    with pytest.raises(RadiometryError) as caught:
        radiometry(tmp_path, stem, dtype)
    message = str(caught.value)
    assert words in message
    assert stem in message
    assert "--scale" in message
    assert "--offset" in message
    assert "--scale 0.0001" in message


@pytest.mark.parametrize(
    "stem",
    [
        S2.format("N9999"),
        S2.format("N9999").replace("2022", "2020"),
        "T48QUE_20230223T032739_B02",
        "T48QUE_20160223T032739_B02",
        "S2B_52SFA_20220601_0_L2A_B02",
        "S2B_52SFA_20190601_0_L2A_B02",
        "sentinel-2_stack",
    ],
)
def test_a_sentinel2_scene_without_a_baseline_is_refused_whatever_its_date(tmp_path, stem):
    wanted = "offset of 1000.*--scale 0.0001 --offset -0.1 if .*else --scale 0.0001 --offset 0"
    with pytest.raises(RadiometryError, match=wanted):
        radiometry(tmp_path, stem)


@pytest.mark.parametrize(
    ("stem", "dtype", "accepted"),
    [
        ("LC08_044034_20200318", "uint16", True),
        ("LE07_044034_20000318", "uint16", True),
        ("LC08_044034_20200318", "int16", False),
        ("LC08_044034_20200318", "uint32", False),
        (L1, "uint16", False),
    ],
)
def test_earth_engines_names_of_landsat_bands_tell_the_level(tmp_path, stem, dtype, accepted):
    """Unless someone has changed the numbers' type, or the file is called level 1."""
    values = numbers(2, dtype=dtype)
    named = make_raster(tmp_path / f"{stem}.tif", values, descriptions=["SR_B3", "SR_B4"])
    scene = open_scene(named)
    if accepted:
        found = find_radiometry(scene, scene.bands, "reflectance")
        assert (found.gain, found.bias) == ((2.75e-5,) * 2, (-0.2,) * 2)
        assert "SR_B3" in found.source
        return
    with pytest.raises(RadiometryError, match=r"--scale") as caught:
        find_radiometry(scene, scene.bands, "reflectance")
    assert ("--scale 0.0000275 --offset -0.2" in str(caught.value)) == (stem != L1)


def test_an_offset_alone_says_nothing_of_whole_numbers(tmp_path):
    with pytest.raises(UsageError, match="give --scale too"):
        radiometry(tmp_path, offset=-0.1)
    assert radiometry(tmp_path, dtype="float32", offset=-0.1).bias == (-0.1, -0.1)
