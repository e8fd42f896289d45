"""``sparsedet data``: data sets put in place and checked."""

from ..main import choose

COMMANDS = {
    "voc": "Pascal VOC, or any folder like it",
    "coco": "COCO, or any json like it",
    "shapes": "draw the demo set",
}


def main() -> None:
    """Choose one."""
    choose("sparsedet data", __name__, COMMANDS)
