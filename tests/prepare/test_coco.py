"""COCO's files: polygons, run lengths, panoptic PNGs, crowds, stuff, licences."""

import json

import numpy as np
import pytest
from oracles.case_folders import block_mask, save
from oracles.drawn_clips import frame

from magiccolor_jax.data import rle
from magiccolor_jax.data.pictures import CaseError
from magiccolor_jax.prepare.coco import Folders, coco_units
from magiccolor_jax.prepare.credits import Credits
from magiccolor_jax.segment.objects import ObjectConfig

SHAPE = (96, 160)
LEFT = block_mask(SHAPE, 20, 10, 59, 49) > 0
RIGHT = block_mask(SHAPE, 10, 90, 79, 149) > 0
CONFIG, ORIGIN = ObjectConfig(min_area=0.01), Credits({"author": "A"}, {})


def polygon(top, left, bottom, right):
    """Of the pixels' outer corners, ends included, as COCO counts."""
    return [left, top, right + 1, top, right + 1, bottom + 1, left, bottom + 1]


def plain(mask):
    """Run lengths as a crowd has them: a list."""
    flat = mask.T.ravel().astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    return {"size": list(mask.shape), "counts": np.diff(np.array([0, *ends, flat.size])).tolist()}


def packed(mask):
    found = rle.encode(mask)
    assert isinstance(found["counts"], bytes)
    return {"size": found["size"], "counts": found["counts"].decode()}


def annotation(number, segmentation, **more):
    row = {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0}
    return row | {"segmentation": segmentation} | more


def write(folder, annotations, **more):
    """A data set of one picture, and another without annotations."""
    save(folder / "val/a.png", frame([]))
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 160, "height": 96, **more.pop("image", {})},
            {"id": 8, "file_name": "b.png", "width": 1, "height": 1},
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    path = folder / "annotations/instances_val.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content | more))
    return path


def masks_of(path, folders=None):
    (unit,) = coco_units(path, folders or Folders(), CONFIG, ORIGIN)
    (still,) = unit.read().stills
    assert still.picture.shape == (*SHAPE, 3) and still.name == unit.name == "a"
    return [mask > 0 for mask in still.masks or ()]


@pytest.mark.parametrize("form", ["polygon", "runs", "string"])
def test_segmentations(tmp_path, form):
    forms = {
        "polygon": ([polygon(20, 10, 59, 49)], [polygon(10, 90, 79, 149)]),
        "runs": (plain(LEFT), plain(RIGHT)),
        "string": (packed(LEFT), packed(RIGHT)),
    }
    left, right = forms[form]
    found = masks_of(write(tmp_path, [annotation(1, left), annotation(2, right)]))
    assert len(found) == 2  # the larger one first, as everywhere
    for mask, truth in zip(found, (RIGHT, LEFT), strict=True):
        differ = mask != truth
        assert differ.sum() <= (0 if form != "polygon" else 2 * (40 + 60 + 70))
        assert not (truth & ~mask).any()


def test_several_polygons_are_one_instance(tmp_path):
    rows = [annotation(1, [polygon(20, 10, 59, 49), polygon(10, 90, 79, 149)])]
    (found,) = masks_of(write(tmp_path, rows))
    assert (found & LEFT).any() and (found & RIGHT).any()


def test_a_thing_inside_of_another_is_one(tmp_path):
    inner = block_mask(SHAPE, 30, 20, 49, 39) > 0
    found = masks_of(write(tmp_path, [annotation(1, packed(inner)), annotation(2, packed(LEFT))]))
    np.testing.assert_array_equal(found, [LEFT, inner])


def test_two_corners_have_no_inside(tmp_path):
    (found,) = masks_of(
        write(tmp_path, [annotation(1, [[], [99, 9, 150, 80], polygon(20, 10, 59, 49)])])
    )
    assert not found[:, 60:].any() and (found & LEFT).any()


@pytest.mark.parametrize("size", [(320, 192), (96, 160)], ids=["scaled", "turned"])
def test_pictures_of_another_size_than_was_annotated(tmp_path, size):
    image = dict(zip(("width", "height"), size, strict=True))
    path = write(tmp_path, [annotation(1, [polygon(20, 10, 59, 49)])], image=image)
    with pytest.raises(CaseError, match=rf"expected {size[0]} x {size[1]}, got 160 x 96; give the"):
        masks_of(path)


def test_crowds_specks_and_unknown_categories_are_left_out(tmp_path):
    rows = [
        annotation(1, packed(LEFT)),
        annotation(2, plain(RIGHT), iscrowd=1),
        annotation(3, [polygon(2, 2, 5, 5)]),
        annotation(4, packed(RIGHT), category_id=9),
        annotation(5, []),
    ]
    (found,) = masks_of(write(tmp_path, rows))
    np.testing.assert_array_equal(found, LEFT)


@pytest.mark.parametrize("given", [False, True])
def test_panoptic(tmp_path, given):
    ids = np.zeros((*SHAPE, 3), np.uint8)
    ids[LEFT], ids[RIGHT] = (1, 2, 3), (4, 0, 0)
    segments = [
        {"id": 1 + 256 * (2 + 256 * 3), "category_id": 1},
        {"id": 4, "category_id": 2},
        {"id": 0, "category_id": 3, "iscrowd": 0},
    ]
    categories = [{"id": 1, "isthing": 1}, {"id": 2, "isthing": 1}, {"id": 3, "isthing": 0}]
    rows = [{"image_id": 7, "file_name": "a.png", "segments_info": segments}]
    path = write(tmp_path, rows, categories=categories)
    folder = tmp_path / "pngs" if given else path.with_suffix("")
    save(folder / "a.png", ids)
    found = masks_of(path, Folders(tmp_path / "val", folder) if given else None)
    np.testing.assert_array_equal(found, [RIGHT, LEFT])


def test_a_licence_of_each_picture(tmp_path):
    licences = [
        {"id": 1, "url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "name": "A-NC-SA"},
        {"id": 2, "url": "http://flickr.com/commons/usage/", "name": "No known restrictions"},
    ]
    for number, expected in ((1, "CC-BY-NC-SA-2.0"), (2, "LicenseRef-No-known-restrictions")):
        image = {"license": number, "flickr_url": "http://farm.example/1.jpg"}
        path = write(tmp_path, [annotation(1, packed(LEFT))], licenses=licences, image=image)
        (unit,) = coco_units(path, Folders(), CONFIG, ORIGIN)
        assert unit.provenance == ("http://farm.example/1.jpg", "A", expected, "")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 5], "counts": [25]}, "run lengths of"),
        ({"size": [96, 160], "counts": "x"}, "its string is COCO's|its string is whole"),
        ([[1, 2, 3]], "annotation 1: a segmentation is COCO's"),
        ("none", "annotation 1: a segmentation is COCO's"),
        ([[float("nan")] * 6], "annotation 1: a segmentation .* got corners that are no places"),
        ([[1e12, 0, 1e12, 9, 0, 9]], "annotation 1: a segmentation .* got corners that are no"),
        ([polygon(2, 2, 5, 5)], "an annotated picture has instances: expected a thing of 1.00%"),
    ],
)
def test_bad_annotations(tmp_path, segmentation, message):
    (unit,) = coco_units(write(tmp_path, [annotation(1, segmentation)]), Folders(), CONFIG, ORIGIN)
    with pytest.raises(CaseError, match=message):
        unit.read()


@pytest.mark.parametrize(
    "more",
    [
        {"category_id": []},
        {"segments_info": []},
        {"segments_info": [{"category_id": 1}], "file_name": "a.png"},
    ],
)
def test_annotations_without_their_fields(tmp_path, more):
    path = write(tmp_path, [annotation(1, [polygon(20, 10, 59, 49)], **more)])
    save(path.with_suffix("") / "a.png", frame([]))
    (unit,) = coco_units(path, Folders(), CONFIG, ORIGIN)
    with pytest.raises(CaseError, match="image 7: annotations have COCO's fields: expected cat"):
        unit.read()


def test_ids_that_do_not_tell_pictures(tmp_path):
    path = write(tmp_path, [annotation(1, packed(LEFT), image_id=9)])
    with pytest.raises(ValueError, match="got 2 pictures, and annotations of none of them"):
        coco_units(path, Folders(), CONFIG, ORIGIN)
    path = write(tmp_path, [annotation(1, packed(LEFT), image_id=8)], image={"id": 8})
    with pytest.raises(ValueError, match="got several pictures with the id 8"):
        coco_units(path, Folders(), CONFIG, ORIGIN)


def test_a_byte_order_mark_is_none_of_the_text(tmp_path):
    path = write(tmp_path, [annotation(1, packed(LEFT))])
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(masks_of(path)) == 1


@pytest.mark.parametrize("content", ["[", "[]", '{"images": []}', '{"images": [{}]}'])
def test_bad_files(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json: expected COCO's JSON, with images"):
        coco_units(tmp_path / "x.json", Folders(), CONFIG, ORIGIN)


@pytest.mark.parametrize("number", [[1], {"id": 1}])
def test_a_license_that_is_no_id(tmp_path, number):
    path = write(tmp_path, [annotation(1, packed(LEFT))], image={"license": number})
    with pytest.raises(ValueError, match=r"expected COCO's JSON.* got .*image 7 has the license"):
        coco_units(path, Folders(), CONFIG, ORIGIN)


def test_pictures_that_are_nowhere(tmp_path):
    path = write(tmp_path, [annotation(1, packed(LEFT))])
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="are nowhere beside it: .* give --images FOLDER"):
        coco_units(path, Folders(), CONFIG, ORIGIN)
    (unit,) = coco_units(path, Folders(tmp_path / "elsewhere"), CONFIG, ORIGIN)
    assert len(unit.read().stills) == 1
