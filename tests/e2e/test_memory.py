import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from geoseg.cards.card import Normalization
from tests.helpers import make_raster, tiny_model

SIDE = 20_000
VRT = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}">
  <SRS>EPSG:32633</SRS>
  <GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>
  <VRTRasterBand dataType="Byte" band="1">
    <Description>red</Description>
    <SimpleSource>
      <SourceFilename relativeToVRT="1">small.tif</SourceFilename>
      <SourceBand>1</SourceBand>
      <SrcRect xOff="0" yOff="0" xSize="{small}" ySize="{small}"/>
      <DstRect xOff="0" yOff="0" xSize="{side}" ySize="{side}"/>
    </SimpleSource>
  </VRTRasterBand>
</VRTDataset>
"""
RUN = """
import json, sys
import geoseg
result = geoseg.predict(sys.argv[1], sys.argv[2], model=sys.argv[3])
peak = result.report["peak_memory_bytes"]
print(json.dumps({"peak": peak, "valid": result.report["pixels"]["valid"]}))
"""


def predict_in_a_new_process(folder, side, small=50):
    values = np.random.default_rng(0).integers(0, 255, (1, small, small)).astype(np.uint8)
    make_raster(folder / "small.tif", values)
    (folder / "scene.vrt").write_text(VRT.format(side=side, small=small))
    normalization = Normalization("z-score", {"mean": (127.0,), "stddev": (40.0,)})
    if not (folder / "model").exists():
        tiny_model(
            folder / "model",
            ("red",),
            ("dark", "bright"),
            graph=False,  # so that torch counts, too
            normalization=normalization,
            size=512,
            overlap=64,
        )
    arguments = [folder / "scene.vrt", folder / f"out-{side}.tif", folder / "model"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.extra("torch")
@pytest.mark.slow
def test_a_scene_of_400_mpx_stays_under_1_7_gb(tmp_path):
    large = predict_in_a_new_process(tmp_path, SIDE)
    assert large["valid"] == SIDE * SIDE
    assert large["peak"] < 1.7e9
    with rasterio.open(tmp_path / f"out-{SIDE}.tif") as dataset:
        assert dataset.shape == (SIDE, SIDE)
        assert len(np.unique(dataset.read(1, out_shape=(500, 500)))) == 2
