import copy
import io
import itertools
import json
import math
import zipfile
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

import geoseg.cards.files
from geoseg.cards.card import (
    ACTIVATIONS,
    CARD_NAME,
    GRAPH_NAME,
    INT8_NAME,
    NORMALIZATION_PARAMETERS,
    QUANTITIES,
    WEIGHTS_NAME,
    ChipBorder,
    ModelCard,
    Normalization,
)
from geoseg.cards.files import read_model, write_card
from geoseg.cards.legend import ClassInfo
from geoseg.cards.stac import MLM_SCHEMA, from_mlm, to_mlm
from geoseg.errors import GeosegError, ModelError
from geoseg.networks import load_network
from geoseg.scene.sensors import BAND_NAMES
from tests.helpers import tiny_model

CARD = ModelCard(
    name="a-model",
    description="made for a test",
    network="linear",
    bands=("red", "nir"),
    classes=(ClassInfo(0, "water", "#419BDF"), ClassInfo(7, "trees", "#397D49")),
    gsd=10.0,
    gsd_range=(5.0, 20.0),
)

BORDER = ChipBorder(8, "some ground", 2, 1, (0.2, 0.1), (0.5, 0.25), (0.25, 0.0))

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
words = st.text(max_size=12)


@st.composite
def normalizations(draw, bands):
    kind = draw(st.sampled_from(sorted(NORMALIZATION_PARAMETERS)))
    parameters = {}
    for key in NORMALIZATION_PARAMETERS[kind]:
        numbers = positive if key in ("stddev", "spread") else finite
        parameters[key] = tuple(draw(numbers) for _ in range(bands))
    if kind == "min-max":
        parameters["maximum"] = tuple(v + draw(st.floats(1, 9)) for v in parameters["minimum"])
    low = draw(finite)
    clip = draw(st.sampled_from([None, (low, low + 1)]))
    return Normalization(kind, parameters, clip)


@st.composite
def borders(draw):
    size = draw(st.integers(2, 40))
    distances = st.one_of(st.none(), st.integers(0, size // 2))
    exact = draw(distances)
    length = size // 2 if exact is None else exact
    curves = [
        tuple(draw(st.lists(st.floats(0, 1), min_size=length, max_size=length))) for _ in range(3)
    ]
    return ChipBorder(size, draw(words), exact, draw(distances), *curves)


@st.composite
def cards(draw):
    bands = tuple(draw(st.lists(st.sampled_from(BAND_NAMES), min_size=1, max_size=6, unique=True)))
    ids = draw(st.lists(st.integers(0, 254), min_size=1, max_size=5, unique=True))
    colors = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06X}")
    gsd = draw(st.floats(0.05, 1000))
    size = draw(st.integers(1, 2048))
    low = draw(finite)
    activation = draw(st.sampled_from(ACTIVATIONS))
    return ModelCard(
        name=draw(st.from_regex(r"[a-z][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)),
        description=draw(words),
        network=draw(st.sampled_from(["small_unet", "linear"])),
        bands=bands,
        classes=tuple(ClassInfo(i, draw(words) or "a b", draw(colors)) for i in ids),
        gsd=gsd,
        gsd_range=(gsd * draw(st.floats(0.1, 1)), gsd * draw(st.floats(1, 10))),
        network_options=draw(st.dictionaries(st.just("width"), st.integers(1, 64))),
        quantity=draw(st.sampled_from(QUANTITIES)),
        normalization=draw(normalizations(len(bands))),
        activation=activation,
        temperature=draw(positive) if activation == "softmax" else 1.0,
        clouds=draw(st.sampled_from((None, (), ()))),
        size=size,
        overlap=draw(st.integers(0, size - 1)),
        margin=draw(st.integers(0, 64)),
        multiple=draw(st.integers(1, 32)),
        plausible={bands[0]: (low, low + 1)},
        license=draw(st.sampled_from(["Apache-2.0", "other"])),
        provenance=draw(words),
        scores=draw(st.dictionaries(words, finite, max_size=3)),
        border=draw(st.one_of(st.none(), borders())),
        extra={"mlm:batch_size_suggestion": draw(st.integers(1, 64))},
    )


@given(cards())
def test_a_card_survives_json(card):
    assert from_mlm(json.loads(json.dumps(to_mlm(card), allow_nan=False))) == card


@given(card=cards())
@settings(max_examples=20)
def test_a_written_card_is_read_back(card, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / WEIGHTS_NAME).write_bytes(b"weights")
    assert write_card(card, folder) == folder / CARD_NAME
    found = read_model(folder)
    assert (found.card, found.weights, found.path) == (card, b"weights", folder)


def test_other_peoples_mlm_properties_are_kept():
    item = to_mlm(CARD)
    item["properties"] |= {"mlm:memory_size": 5, "file:size": 7, "my:geoseg:note": "kept"}
    again = from_mlm(item)
    assert again.extra == {"mlm:memory_size": 5, "file:size": 7, "my:geoseg:note": "kept"}
    assert from_mlm(to_mlm(again)) == again


def mlm_validator(shared):
    folder = shared / "reference" / "operations" / "validators" / "schemas"
    if not (folder / "mlm.json").is_file():
        pytest.skip("needs the MLM schema in ../shared, which is not part of the repository")
    schemas = []
    for path in folder.glob("*.json"):
        schema = json.loads(path.read_text())
        name, _, version = path.stem.partition("-")
        if version:
            schema["$id"] = f"https://stac-extensions.github.io/{name}/{version}/schema.json"
        schemas.append(schema)
    registry = Registry().with_resources(
        (s["$id"].rstrip("#"), Resource.from_contents(s, default_specification=DRAFT7))
        for s in schemas
    )
    (mlm,) = (s for s in schemas if s["$id"].rstrip("#") == MLM_SCHEMA)
    return jsonschema.Draft7Validator(mlm, registry=registry)


def test_cards_keep_the_mlm_schema(shared):
    validator = mlm_validator(shared)

    @given(cards())
    @settings(max_examples=30)
    def keeps(card):
        validator.validate(json.loads(json.dumps(to_mlm(card))))

    keeps()
    broken = to_mlm(CARD)
    del broken["properties"]["mlm:input"][0]["input"]["dim_order"]
    assert list(validator.iter_errors(broken)), "the schema finds nothing"


def test_a_card_says_what_mlm_asks_in_mlms_words():
    scaled = replace(
        CARD,
        normalization=Normalization("z-score", {"mean": (0.1, 0.2), "stddev": (1.0, 2.0)}),
    )
    item = to_mlm(scaled)
    p = item["properties"]
    assert item["assets"]["weights"]["href"] == WEIGHTS_NAME
    assert [band["name"] for band in p["mlm:input"][0]["bands"]] == ["red", "nir"]
    assert p["mlm:input"][0]["value_scaling"] == [
        {"type": "z-score", "mean": 0.1, "stddev": 1.0},
        {"type": "z-score", "mean": 0.2, "stddev": 2.0},
    ]
    classes = p["mlm:output"][0]["classification:classes"]
    assert [(c["value"], c["name"], c["color_hint"]) for c in classes] == [
        (0, "water", "419BDF"),
        (7, "trees", "397D49"),
    ]


def test_a_class_name_of_several_words_is_kept_beside_stacs_one_word():
    card = replace(CARD, classes=(ClassInfo(0, "crops & grass", "#419BDF"),))
    (entry,) = to_mlm(card)["properties"]["mlm:output"][0]["classification:classes"]
    assert (entry["name"], entry["title"]) == ("crops___grass", "crops & grass")
    del entry["title"]
    item = to_mlm(card)
    item["properties"]["mlm:output"][0]["classification:classes"] = [entry]
    assert from_mlm(item).classes[0].name == "crops___grass"


Z = Normalization("z-score", {"mean": (0.0, 0.0), "stddev": (1.0, 1.0)})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "Big Name"}, "name"),
        ({"name": "../up"}, "name"),
        ({"name": ""}, "name"),
        ({"bands": ()}, "bands"),
        ({"bands": ("red", "red")}, "bands"),
        ({"classes": ()}, "classes"),
        ({"classes": (ClassInfo(1, "a", "#000000"), ClassInfo(1, "b", "#000000"))}, "classes"),
        ({"classes": (ClassInfo(255, "a", "#000000"),)}, "classes"),
        ({"classes": (ClassInfo(-1, "a", "#000000"),)}, "classes"),
        ({"classes": (ClassInfo(0, "a", "red"),)}, "classes"),
        ({"classes": (ClassInfo(0, "", "#000000"),)}, "classes"),
        ({"classes": (ClassInfo(0, "a", "#00000"),)}, "classes"),
        ({"gsd": 0.0}, "gsd"),
        ({"gsd": math.nan}, "gsd"),
        ({"gsd_range": (11.0, 20.0)}, "gsd_range"),
        ({"gsd_range": (0.0, 20.0)}, "gsd_range"),
        ({"gsd_range": (5.0, math.inf)}, "gsd_range"),
        ({"gsd_range": (5.0, 9.0)}, "gsd_range"),
        ({"quantity": "radiance"}, "quantity"),
        ({"activation": "relu"}, "activation"),
        ({"temperature": 0.0}, "temperature"),
        ({"clouds": ("fog",)}, "geoseg:clouds"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"normalization": Normalization("magic")}, "normalization"),
        ({"normalization": Normalization("z-score")}, "normalization.mean"),
        ({"normalization": replace(Z, parameters={**Z.parameters, "mean": (1.0,)})}, "mean"),
        ({"normalization": replace(Z, parameters={**Z.parameters, "stddev": (1, 0)})}, "stddev"),
        (
            {"normalization": replace(Z, parameters={**Z.parameters, "mean": (1, math.nan)})},
            "normalization.mean",
        ),
        (
            {"normalization": Normalization("min-max", {"minimum": (0, 1), "maximum": (1, 1)})},
            "normalization.maximum",
        ),
        ({"normalization": replace(Z, clip=(1.0, 0.0))}, "clip"),
        ({"normalization": replace(Z, clip=(0.0, math.inf))}, "clip"),
        ({"size": 0}, "size"),
        ({"size": 32, "overlap": 32}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"margin": -1}, "margin"),
        ({"multiple": 0}, "multiple"),
        ({"border": replace(BORDER, size=0)}, "geoseg:border.size"),
        ({"border": replace(BORDER, exact=5)}, "geoseg:border.exact"),
        ({"border": replace(BORDER, enough=-1)}, "geoseg:border.enough"),
        ({"border": replace(BORDER, exact=None)}, "geoseg:border.mean"),
        ({"border": replace(BORDER, largest=(0.5,))}, "geoseg:border.largest"),
        ({"border": replace(BORDER, largest=(0.5, math.inf))}, "geoseg:border.largest"),
        ({"border": replace(BORDER, flips=(1.5, 0.0))}, "geoseg:border.flips"),
        ({"plausible": {"blue": (0, 1)}}, "plausible"),
        ({"plausible": {"red": (1, 0)}}, "plausible"),
        ({"network_options": {"in_channels": 3}}, "network_options"),
        ({"extra": {"geoseg:gsd": 5}}, "extra"),
        ({"extra": {"mlm:name": "other"}}, "extra"),
    ],
)
def test_each_rule_when_broken_is_an_error_that_names_the_key(changes, key):
    with pytest.raises(ModelError) as caught:
        replace(CARD, **changes)
    message = str(caught.value)
    assert key in message
    assert "it must be" in message


MEASURED = replace(CARD, border=BORDER)


def keys(item):
    return [key for key in item["properties"] if key.startswith("geoseg:")]


@pytest.mark.parametrize("key", ["mlm:name", "mlm:input", "mlm:output", *keys(to_mlm(MEASURED))])
@pytest.mark.parametrize(
    "garbage",
    ["absent", None, "x", -1, 0.5, [], {}, [[]], [{}], True, math.nan, math.inf, {"x": "y"}],
    ids=str,
)
def test_garbage_in_any_key_is_never_more_than_a_model_error(key, garbage):
    item = copy.deepcopy(to_mlm(MEASURED))
    if garbage == "absent":
        del item["properties"][key]
    else:
        item["properties"][key] = garbage
    try:
        to_mlm(from_mlm(item))
    except ModelError as error:
        assert key.removeprefix("geoseg:").removeprefix("mlm:")[:4] in str(error)


@pytest.mark.parametrize(
    "key",
    ["mlm:name", "mlm:input", "mlm:output", "geoseg:network", "geoseg:gsd", "geoseg:gsd_range",
     "geoseg:quantity", "geoseg:normalization", "geoseg:activation", "geoseg:size",
     "geoseg:overlap"],
)  # fmt: skip
def test_a_key_without_a_default_must_be_there(key):
    item = to_mlm(CARD)
    del item["properties"][key]
    with pytest.raises(ModelError, match=key):
        from_mlm(item)


@pytest.mark.parametrize("item", [{}, {"properties": None}, {"properties": []}])
def test_json_that_is_no_card_is_a_model_error(item):
    with pytest.raises(ModelError, match="card"):
        from_mlm(item)


@pytest.mark.parametrize(
    "network",
    ["os.system", "torch.nn.Linear", "geoseg.networks.linear.Linear", "../linear", "linear:Linear",
     "__import__('os').system('false')", ""],
)  # fmt: skip
def test_a_card_cannot_name_an_import_path(tmp_path, network):
    folder = tiny_model(tmp_path / "tiny", ["red"], ["a", "b"])
    item = json.loads((folder / CARD_NAME).read_text())
    item["properties"]["geoseg:network"] = item["properties"]["mlm:architecture"] = network
    (folder / CARD_NAME).write_text(json.dumps(item))
    with pytest.raises(ModelError, match="network"):
        load_network(read_model(folder))


def zipped(path, names, card=CARD):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            content = json.dumps(to_mlm(card)) if name.endswith(".json") else "weights"
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("prefix", ["", "a-model/"])
def test_a_zip_is_read_at_its_top_and_in_one_folder(tmp_path, prefix):
    path = zipped(
        tmp_path / "m.zip", [prefix + CARD_NAME, prefix + WEIGHTS_NAME, prefix + "README.md"]
    )
    found = read_model(path)
    assert (found.card, found.weights, found.path) == (CARD, b"weights", path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a/model.json", "b/model.json", "a/weights.safetensors"], "2 files named model.json"),
        (["model.json", "a/model.json", "weights.safetensors"], "2 files named model.json"),
        (["model.json"], "0 files named weights.safetensors"),
        (["weights.safetensors"], "0 files named model.json"),
        (["a/b/model.json", "a/b/weights.safetensors"], "at its top or in one folder"),
        (["a/model.json", "b/weights.safetensors"], "two folders"),
    ],
)
def test_a_zip_of_another_shape_is_refused(tmp_path, names, words):
    with pytest.raises(ModelError, match=words):
        read_model(zipped(tmp_path / "m.zip", names))


def test_a_damaged_zip_is_a_model_error(tmp_path):
    path = zipped(tmp_path / "m.zip", [CARD_NAME, WEIGHTS_NAME])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"weights", b"garbage", 3))
    with pytest.raises(ModelError):
        read_model(path)


@pytest.mark.parametrize("missing", [CARD_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(tmp_path, missing):
    folder = tiny_model(tmp_path / "tiny", ["red"], ["a", "b"])
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=f"tiny has no {missing}"):
        read_model(folder)


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"\x80\x04weights")
    for name in ("m.pt", "nothing"):
        with pytest.raises(ModelError, match="is not a model"):
            read_model(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '"x"', "\xff", "[" * 100_000], ids=lambda t: t[:4]
)
def test_a_card_that_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / CARD_NAME).write_text(text, encoding="latin-1")
    (tmp_path / WEIGHTS_NAME).write_bytes(b"")
    with pytest.raises(ModelError, match="JSON"):
        read_model(tmp_path)


def test_a_huge_card_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(geoseg.cards.files, "MAX_CARD_BYTES", 500)
    folder = tiny_model(tmp_path / "tiny", ["red"], ["a", "b"])
    assert (folder / CARD_NAME).stat().st_size > 500
    with pytest.raises(ModelError, match="at most 500"):
        read_model(folder)
    with pytest.raises(ModelError, match="larger than 500"):
        read_model(zipped(tmp_path / "m.zip", [CARD_NAME, WEIGHTS_NAME]))


def test_a_zip_that_lies_about_its_size_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(geoseg.cards.files, "MAX_CARD_BYTES", 500_000)
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD_NAME, " " * 1_000_000 + json.dumps(to_mlm(CARD)))
        archive.writestr(WEIGHTS_NAME, "weights")
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(CARD_NAME).file_size
    content = path.read_bytes().replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_model(path)


def test_the_digest_changes_with_card_and_weights(tmp_path):
    folder = tiny_model(tmp_path / "tiny", ["red"], ["a", "b"])
    digests = [read_model(folder).sha256, read_model(folder).sha256]
    weights = bytearray((folder / WEIGHTS_NAME).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(bytes(weights))
    digests.append(read_model(folder).sha256)
    write_card(replace(read_model(folder).card, gsd=11.0), folder)
    digests.append(read_model(folder).sha256)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_temperature_of_one_leaves_the_cards_bytes():
    assert "geoseg:temperature" not in to_mlm(CARD)["properties"]
    warm = replace(CARD, temperature=2.5)
    assert to_mlm(warm)["properties"]["geoseg:temperature"] == 2.5
    assert geoseg.cards.files.card_text(
        replace(warm, temperature=1.0)
    ) == geoseg.cards.files.card_text(CARD)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_only_softmax_has_a_temperature(activation):
    with pytest.raises(ModelError, match=r"geoseg:temperature is 2.0; .*only softmax"):
        replace(CARD, activation=activation, temperature=2.0)


def test_scores_are_added_to_a_copy():
    scored = replace(CARD, scores={"f1": 0.5}).with_scores(accuracy=0.9)
    assert scored.scores == {"f1": 0.5, "accuracy": 0.9}
    assert CARD.scores == {}


def test_reading_a_card_unpickles_nothing(tmp_path):
    # A zip of pickled weights under the right name is bytes, and refused when it is loaded.
    import pickle

    class Fires:
        def __reduce__(self):
            return (print, ("fired",))

    folder = tiny_model(tmp_path / "tiny", ["red"], ["a", "b"])
    buffer = io.BytesIO()
    pickle.dump(Fires(), buffer)
    (folder / WEIGHTS_NAME).write_bytes(buffer.getvalue())
    with pytest.raises(GeosegError):
        load_network(read_model(folder))


def test_the_digest_covers_every_file_that_a_map_may_depend_on(tmp_path):
    """With and without graphs, empty ones and swapped ones; a zip's is its folder's."""
    folder = tiny_model(tmp_path / "tiny", ["red"], ["a", "b"])
    (folder / "notes.txt").write_text("nobody reads them")
    digests = []
    graphs = [None, b"", b"one", b"other"]
    for graph, int8 in itertools.product(graphs, graphs):
        for name, content in ((GRAPH_NAME, graph), (INT8_NAME, int8)):
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_bytes(content)
        digests.append(read_model(folder).sha256)
        archive = tmp_path / "model.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.iterdir(), reverse=True):
                file.write(path, f"model/{path.name}")
        assert read_model(archive).sha256 == digests[-1]
    assert len(set(digests)) == len(graphs) ** 2


def test_a_card_says_which_classes_are_clouds_or_that_none_is():
    assert "geoseg:clouds" not in to_mlm(CARD)["properties"]
    names = tuple(c.name for c in CARD.classes)
    for clouds in ((), names[:1]):
        item = to_mlm(replace(CARD, clouds=clouds))
        assert item["properties"]["geoseg:clouds"] == list(clouds)
        assert from_mlm(item).clouds == clouds
    with pytest.raises(ModelError, match="geoseg:clouds"):
        replace(CARD, clouds=names)
    item["properties"]["geoseg:clouds"] = names[0]
    with pytest.raises(ModelError, match="geoseg:clouds of the model card"):
        from_mlm(item)
