"""Which test holds each fault that the public reported, by its number.

The numbers are those of the list by which they were tried: S what Sentinel-2's numbers mean,
N nodata, U units, B bands, G the ground, V polygons, D what takes too long, K what is no ground.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NUMBERS, NAMES = "test_faults_numbers.py", "test_band_names.py"

TESTS = {
    "S1": (NUMBERS, "test_s1_loose_bands_without_a_baseline_are_refused_with_both_commands"),
    "S2": (NUMBERS, "test_s2_a_renamed_product_has_its_offset_from_its_metadata"),
    "S3": (NUMBERS, "test_s3_a_zipped_product_gives_the_map_of_the_folder"),
    "S4": (NUMBERS, "test_s4_a_product_of_tiff_files_is_read"),
    "S5": (NUMBERS, "test_s5_the_advice_for_floats_with_the_offset_left_in_gives_the_right_map"),
    "N1": ("test_fill.py", "test_zeros_along_the_edge_are_asked_about_and_the_advice_works"),
    "N2": ("test_fill.py", "test_what_no_ground_has_is_nodata_as_if_a_tag_said_so"),
    "N3": ("test_pictures.py", "test_a_near_black_collar_is_noticed_and_the_advice_works"),
    "N4": ("test_vectorize.py", "test_255_is_a_class_unless_a_tag_says_otherwise"),
    "U1": (
        NUMBERS,
        "test_u1_floats_of_whole_numbers_are_refused_and_the_advice_gives_the_right_map",
    ),
    "U2": (NUMBERS, "test_u2_landsat_of_earth_engine_is_read_or_refused_with_its_own_numbers"),
    "U3": ("test_pictures.py", "test_other_depths_are_refused_and_the_advice_gives_the_8_bit_map"),
    "B1": (NAMES, "test_names_in_any_order_give_the_same_map"),
    "B2": (NAMES, "test_gdals_sentinel_2_names_give_the_map_of_the_plain_names"),
    "B3": (NAMES, "test_near_infrared_that_is_marked_as_alpha_is_a_band"),
    "B4": (NAMES, "test_tiles_of_one_scene_are_one_map"),
    "B5": (NAMES, "test_a_netcdf_files_variables_are_its_bands"),
    "G1": ("properties/test_anchor_laws.py", "test_a_bbox_is_cut_out_of_the_scenes_map"),
    "G2": ("test_place.py", "test_a_crs_that_contradicts_the_coordinates_is_said_before_any_work"),
    "G3": ("test_place.py", "test_a_crs_that_contradicts_the_coordinates_is_said_before_any_work"),
    "G4": ("test_place.py", "test_small_pixels_keep_the_memory_limit"),
    "V1": ("test_layers.py", "test_a_layer_is_added_and_the_others_stay"),
    "V2": ("test_vectorize.py", "test_whole_numbers_that_are_written_as_floats_are_ids"),
    "V3": ("test_wording.py", "test_areas_are_written_in_the_unit_that_fits"),
    "D1": ("test_scale.py", "test_a_dry_run_of_a_huge_sparse_scene_looks_at_what_is_there"),
    "D2": ("test_file_blocks.py", "test_each_block_is_decoded_once"),
    "K1": ("test_cloudy.py", "test_a_cloudy_scene_is_said_with_what_to_do"),
    "K2": ("test_preflight.py", "test_an_orthophoto_of_5_m_is_warned_of"),
}


@pytest.mark.parametrize("row", sorted(TESTS))
def test_each_fault_has_its_test(row: str) -> None:
    file, name = TESTS[row]
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
