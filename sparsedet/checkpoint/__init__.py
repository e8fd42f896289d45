"""Other people's weights in, and a checkpointer that refuses the wrong ones."""

from .checkpointer import SparseDetCheckpointer
from .preprocessing import PREPROCESSING
from .vgg import ImportedVGG, import_vgg

__all__ = ["ImportedVGG", "PREPROCESSING", "SparseDetCheckpointer", "import_vgg"]
