"""A COCO file without a defect, and how to break it."""


def sound_tree() -> dict:
    """Two images of 100 x 50 (width x height), three boxes, two classes; nothing to report."""

    def annotation(number: int, image: int, category: int, box: list) -> dict:
        area = box[2] * box[3]
        return {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
        }

    return {
        "info": {"year": 2024},
        "images": [
            {"id": 5, "file_name": "a.png", "height": 50, "width": 100},
            {"id": 6, "file_name": "b.png", "height": 50, "width": 100},
        ],
        "annotations": [
            annotation(11, 5, 1, [10, 10, 20, 20]),
            annotation(12, 5, 2, [40, 5, 20, 30]),
            annotation(13, 6, 1, [0, 0, 100, 50]),
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def changed(section: str, row: int, **values) -> dict:
    """The sound file with some values of one item replaced; Ellipsis takes the key away."""
    tree = sound_tree()
    record = tree[section][row]
    record.update(values)
    for key in [key for key, value in values.items() if value is ...]:
        del record[key]
    return tree


def added(section: str, **values) -> dict:
    """The sound file with one item more, a copy of the first of its list but for ``values``."""
    tree = sound_tree()
    tree[section].append({**tree[section][0], **values})
    return tree
