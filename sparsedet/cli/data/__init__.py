"""``sparsedet data``: data sets put in place, checked, looked at, converted and mended."""

from ..main import choose

COMMANDS = {
    "voc": "put the official Pascal VOC in place",
    "coco": "put the official COCO in place",
    "shapes": "draw the demo set",
    "check": "say what is missing or broken in data sets",
    "show": "draw a contact sheet of boxes",
    "convert": "write data sets anew as VOC, COCO or YOLO",
    "fix": "write a mended copy",
}


def main() -> None:
    """Choose one."""
    choose("sparsedet data", __name__, COMMANDS)
