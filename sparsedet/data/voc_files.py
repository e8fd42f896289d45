"""Where the files of a VOC-style folder are.

With lists, as Pascal VOC's:    ROOT/ImageSets/Main/SPLIT.txt, one ID a line
In parts, as Roboflow exports:  ROOT/SPLIT/, each a folder of its own
Otherwise all XML files are one split, of which a Share may be taken.

ID.xml and the images lie in one folder, or in two (Annotations and JPEGImages, annotations and
images, or any two). The image is the one that the XML names, or ID with any image suffix.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

from ..errors import InputError
from .shares import Share
from .voc_images import Entry, is_image

ANNOTATION_FOLDERS = ("annotations",)
IMAGE_FOLDERS = ("jpegimages", "images")
USUAL_SPLITS = ("train", "val", "trainval", "test")


def has_lists(root: str, split: str | Share | None) -> bool:
    """Whether the split is one of those that ImageSets lists."""
    return isinstance(split, str) and os.path.isdir(os.path.join(root, "ImageSets", "Main"))


def find_entries(root: str, split: str | Share | None) -> list[Entry]:
    """The annotation files of a split, in the order of its list or of their names.

    Raises:
        InputError: there is no such folder or split, or it lists nothing.
    """
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such folder")
    if has_lists(root, split):
        xml_folder, images = _layout(root)[0]
        ids = _read_ids(os.path.join(root, "ImageSets", "Main", f"{split}.txt"))
        return [Entry(i, os.path.join(xml_folder, f"{i}.xml"), images) for i in ids]
    if isinstance(split, str):
        part = os.path.join(root, split)
        if os.path.isdir(part):
            return find_all(part)
        splits = ", ".join(find_splits(root)) or "none: leave split out, or give {train: 0.8}"
        raise InputError(f"{root}: no split {split} in it, by list or folder; it has {splits}")
    entries = find_all(root)
    if isinstance(split, Share):
        taken = split.take([entry.image_id for entry in entries], root)
        return [entry for entry in entries if entry.image_id in taken]
    splits = find_splits(root)
    if splits:
        raise InputError(f"{root}: has the splits {', '.join(splits)}; name one by split")
    return entries


def find_splits(root: str) -> list[str]:
    """The names of the lists or parts that a folder has; [] where it is one whole."""
    lists = os.path.join(root, "ImageSets", "Main")
    if os.path.isdir(lists):
        names = [name.removesuffix(".txt") for name in os.listdir(lists) if name.endswith(".txt")]
        # The official lists of one class are not splits.
        return sorted(name for name in names if name in USUAL_SPLITS) or sorted(names)
    folders = [xml_folder for xml_folder, _ in _layout(root)]
    return sorted(map(os.path.basename, folders)) if len(folders) > 1 else []


def find_all(root: str) -> list[Entry]:
    """The annotation files of all splits that lie in a folder."""
    entries = []
    folders = _layout(root)
    for xml_folder, images in folders:
        part = "" if len(folders) == 1 else os.path.relpath(xml_folder, root) + "/"
        for name in sorted(filter(_is_xml, os.listdir(xml_folder))):
            path = os.path.join(xml_folder, name)
            entries.append(Entry(part + os.path.splitext(name)[0], path, images))
    return entries


def _layout(root: str) -> list[tuple[str, str]]:
    """The folders of XML files, each with the folder of its images."""
    xml_folders = _folders_of(root, _is_xml, ANNOTATION_FOLDERS)
    if not xml_folders:
        raise InputError(
            f"{root}: no Annotations folder and no XML files, so it is not a VOC-style dataset"
        )
    if len(xml_folders) > 1:
        return [(folder, folder) for folder in xml_folders]
    if _has(xml_folders[0], is_image):
        return [(xml_folders[0], xml_folders[0])]
    image_folders = _folders_of(root, is_image, IMAGE_FOLDERS)
    if not image_folders:
        raise InputError(f"{root}: no images in it, nor in its folders")
    if len(image_folders) > 1:
        names = ", ".join(map(os.path.basename, image_folders))
        raise InputError(f"{root}: images are in {names}; call the right one images")
    return [(xml_folders[0], image_folders[0])]


def _folders_of(root: str, wanted: Callable[[str], bool], usual: Sequence[str]) -> list[str]:
    """The folder that has such files: of a usual name, the root itself, or else all within it."""
    inner = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    for folder in inner:
        if os.path.basename(folder).lower() in usual and _has(folder, wanted):
            return [folder]
    return [root] if _has(root, wanted) else [folder for folder in inner if _has(folder, wanted)]


def _has(folder: str, wanted: Callable[[str], bool]) -> bool:
    return any(map(wanted, os.listdir(folder)))


def xml_files(root: str) -> list[str]:
    """All XML files below a folder."""
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if _is_xml(name)
    ]


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml") and not name.startswith(".")  # ._ID.xml are macOS's


def _read_ids(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            ids = [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such split file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of image IDs: {error}") from None
    if not ids:
        raise InputError(f"{path}: lists no image")
    image_id, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: lists {image_id!r} {times} times; keep one")
    return ids
