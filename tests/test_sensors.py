import pytest

from geoseg.scene.sensors import (
    BAND_NAMES,
    SENSORS,
    STAND_INS,
    band_code,
    band_name,
    common_name,
    detect_sensor,
    sentinel2_offset,
)

SENTINEL2_L1C = "S2B_MSIL1C_20200223T032739_N0209_R018_T48QUE_20200223T070011.SAFE"


def sensor(name):
    return next(s for s in SENSORS if s.name == name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("red", "red"),
        ("Red", "red"),
        ("NIR", "nir"),
        ("Near Infrared", "nir"),
        ("near-infrared", "nir"),
        ("nir08", "nir08"),
        ("swir16", "swir1"),
        ("SWIR_22", "swir2"),
        ("rededge071", "rededge1"),
        ("coastal aerosol", "coastal"),
        ("lwir11", "thermal1"),
        ("B4", None),
        ("reddish", None),
        ("", None),
        ("255", None),
    ],
)
def test_plain_words_name_bands(text, name):
    assert common_name(text) == name


def test_every_band_name_names_itself():
    assert [common_name(name) for name in BAND_NAMES] == list(BAND_NAMES)


def test_every_sensors_bands_are_known_names():
    for s in SENSORS:
        assert set(s.codes.values()) <= set(BAND_NAMES)
        assert len(set(s.codes.values())) == len(s.codes), "two codes of one name"


def test_stand_ins_are_known_names_and_never_the_band_itself():
    for name, others in STAND_INS.items():
        assert {name, *others} <= set(BAND_NAMES)
        assert name not in others


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("B4", "4"),
        ("B04", "4"),
        ("b04", "4"),
        ("B8A", "8A"),
        ("B8a", "8A"),
        ("SR_B5", "5"),
        ("T48QUE_20200223T032739_B02_10m", "2"),
        ("LC08_L2SP_193024_20200407_20200822_02_T1_SR_B4", "4"),
        ("LC08_L1TP_193024_20200407_20200822_02_T1_B10", "10"),
        ("HLS.S30.T33UVU.2020100T100559.v2.0.B8A", "8A"),
        ("red", None),
        ("QA_PIXEL", None),
        ("T48QUE_20200223T032739_TCI", None),
        ("AB4", None),
        ("B4_old_copy", None),
        ("B123", None),
    ],
)
def test_codes_stand_at_the_end(text, code):
    assert band_code(text) == code


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (SENTINEL2_L1C, "Sentinel-2"),
        (SENTINEL2_L1C.replace("S2B_MSIL1C", "S2C_MSIL2A"), "Sentinel-2"),
        ("T48QUE_20200223T032739_B02.jp2", "Sentinel-2"),
        ("sentinel-2a", "Sentinel-2"),
        ("S2B_52SFA_20220601_0_L2A", "Sentinel-2"),
        ("S2B_T52SFA_20220601T021550_L2A", "Sentinel-2"),
        ("SENTINEL2A_20200623-105900-123_L2A_T31TCJ_C_V2-2_FRE_B2.tif", "MAJA Sentinel-2"),
        ("20200615_150123_1032_3B_AnalyticMS_SR_clip.tif", "PlanetScope surface reflectance"),
        ("20210615_150123_22_2414_3B_AnalyticMS_SR_8b.tif", "PlanetScope surface reflectance"),
        ("20200615_150123_1032_3B_AnalyticMS.tif", "PlanetScope"),
        ("LC08_L2SP_193024_20200407_20200822_02_T1", "Landsat 8-9 level 2"),
        ("LC09_L2SP_193024_20220407_20220822_02_T1", "Landsat 8-9 level 2"),
        ("LE07_L2SP_193024_20000407_20200822_02_T1", "Landsat 4-7 level 2"),
        ("LT05_L2SP_193024_19900407_20200822_02_T1", "Landsat 4-7 level 2"),
        ("LC08_L1TP_193024_20200407_20200822_02_T1", "Landsat 8-9"),
        ("LE07_L1TP_193024_20000407_20200822_02_T1", "Landsat 4-7"),
        ("LT04_L1TP_193024_19870407_20200822_02_T1", "Landsat 4-7"),
        ("LM01_L1TP_207024_19730407_20200822_02_T2", "Landsat MSS"),
        ("LM05_L1TP_207024_19850407_20200822_02_T2", "Landsat MSS"),
        ("LANDSAT_8", "Landsat 8-9"),
        ("LANDSAT_7", "Landsat 4-7"),
        ("HLS.L30.T33UVU.2020100T100559.v2.0.B05.tif", "HLS Landsat (L30)"),
        ("HLS.S30.T33UVU.2020100T100559.v2.0.B8A.tif", "HLS Sentinel-2 (S30)"),
    ],
)
def test_sensors_are_told_by_product_names(text, name):
    assert detect_sensor([text.lower()]) is sensor(name)


@pytest.mark.parametrize(
    "text",
    [
        "scene.tif",
        "drone_2020",
        "home",
        "landsat_80s",
        "sentinel-20",
        "T1",
        "SLC07_X",
        "mylc08_stack",
    ],
)
def test_other_names_tell_no_sensor(text):
    assert detect_sensor([text]) is None


def test_codes_of_sentinel2_alone_tell_it():
    assert detect_sensor([], ["2", "8A"]) is sensor("Sentinel-2")
    assert detect_sensor([], ["2", "12"]) is sensor("Sentinel-2")
    assert detect_sensor([], ["2", "3", "4", "8"]) is None
    assert detect_sensor(["LC08_L1TP_x"], ["12"]) is sensor("Landsat 8-9")


def test_bands_numbered_through_tell_nothing():
    assert detect_sensor([], [str(i) for i in range(1, 14)]) is None
    assert detect_sensor([], ["8A", "99"]) is None


def test_the_files_own_name_counts_before_its_folders():
    assert detect_sensor(["LE07_L1TP_x_B4.TIF", "sentinel-2"]) is sensor("Landsat 4-7")


def test_the_multispectral_scanners_codes_are_not_guessed():
    assert band_name("B4", sensor("Landsat MSS")) is None


@pytest.mark.parametrize(
    ("name", "b4"),
    [
        ("Sentinel-2", "red"),
        ("Landsat 4-7", "nir"),
        ("Landsat 4-7 level 2", "nir"),
        ("Landsat 8-9", "red"),
        ("HLS Landsat (L30)", "red"),
        ("HLS Sentinel-2 (S30)", "red"),
    ],
)
def test_one_code_means_what_the_sensor_says(name, b4):
    assert band_name("B4", sensor(name)) == b4
    assert band_name("B04", sensor(name)) == b4


def test_a_code_means_nothing_without_a_sensor():
    assert band_name("B4", None) is None
    assert band_name("red", None) == "red"
    assert band_name("B8A", sensor("Landsat 8-9")) is None


@pytest.mark.parametrize("key", ["RADIO_ADD_OFFSET", "BOA_ADD_OFFSET", "BOA_ADD_OFFSET_BAND_1"])
def test_the_offset_tag_comes_before_the_folders_name(key):
    texts = [SENTINEL2_L1C.replace("N0209", "N0510")]
    assert sentinel2_offset(texts, {key: "-1000"}) == (-0.1, f"tag {key}")
    assert sentinel2_offset(texts, {key: "0"})[0] == 0
    assert sentinel2_offset([SENTINEL2_L1C], {key: "-1000.0"})[0] == -0.1
    assert sentinel2_offset(texts, {key: "unknown"})[0] == -0.1


@pytest.mark.parametrize(
    ("baseline", "offset"),
    [("N0209", 0), ("N0301", 0), ("N0399", 0), ("N0400", -0.1), ("N0511", -0.1)],
)
def test_baseline_0400_and_later_add_1000(baseline, offset):
    found, why = sentinel2_offset([SENTINEL2_L1C.replace("N0209", baseline)], {})
    assert found == offset
    assert baseline in why


@pytest.mark.parametrize(
    "text",
    [
        "T48QUE_20200223T032739_B02.jp2",
        "T48QUE_20230223T032739_B02.jp2",
        SENTINEL2_L1C.replace("N0209", "N9999"),
    ],
)
def test_a_date_is_no_evidence_of_a_baseline(text):
    """Nor is a baseline of another chain than ESA's."""
    assert sentinel2_offset([text], {"PROCESSING_BASELINE": "99.99"})[0] is None
    assert sentinel2_offset([text], {}) == (None, "no processing baseline found")


@pytest.mark.parametrize(
    ("tags", "offset"),
    [
        ({"PROCESSING_BASELINE": "05.09"}, -0.1),
        ({"PROCESSING_BASELINE": "02.14"}, 0),
        ({"PRODUCT_URI": SENTINEL2_L1C.replace("N0209", "N0400")}, -0.1),
        ({"PRODUCT_URI": SENTINEL2_L1C, "BOA_ADD_OFFSET": "-1000"}, -0.1),
    ],
)
def test_tags_that_programs_take_over_from_a_product_tell_its_baseline(tags, offset):
    assert sentinel2_offset(["stack.tif"], tags)[0] == offset
