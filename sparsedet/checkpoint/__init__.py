"""Other people's weights in, and a checkpointer that refuses the wrong ones."""

from .checkpointer import SparseDetCheckpointer
from .class_names import model_class_names, stored_class_names
from .preprocessing import PREPROCESSING
from .vgg import ImportedVGG, import_vgg

__all__ = [
    "ImportedVGG",
    "PREPROCESSING",
    "SparseDetCheckpointer",
    "import_vgg",
    "model_class_names",
    "stored_class_names",
]
