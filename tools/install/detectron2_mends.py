"""What detectron2 v0.6 needs so that it works without a compiler and beside current libraries."""

from __future__ import annotations

COMPILED = '''\
"""``_C`` is detectron2's compiled extension or, where it was not built, a stand-in saying so."""

try:
    from detectron2 import _C
except ImportError:

    class _NotCompiled:
        def __getattr__(self, name):
            raise ImportError(
                f"{name} needs detectron2's compiled extension, which is not installed: "
                "build detectron2 from source (see its INSTALL.md)"
            )

    _C = _NotCompiled()
'''

# (reason, [(file, old text, new text), ...]). Every occurrence of the old text is replaced, and
# it must be there; None as old text adds the file.
MENDS = [
    (
        "NumPy 1.24 removed its aliases of Python's own types",
        [
            ("detectron2/data/build.py", "dtype=np.int", "dtype=int"),
            ("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)"),
            ("detectron2/evaluation/pascal_voc_evaluation.py", "(np.bool)", "(bool)"),
            ("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)"),
            ("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.float)", "dtype=float)"),
            ("detectron2/evaluation/sem_seg_evaluation.py", "(np.float)", "(float)"),
            ("detectron2/structures/masks.py", "(np.bool)", "(bool)"),
            ("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)"),
            ("detectron2/utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)"),
            ("detectron2/utils/visualizer.py", "(np.bool)", "(bool)"),
        ],
    ),
    (
        "NumPy 2: copy=False now raises where a copy is needed, as it is for a PIL image",
        [("detectron2/layers/mask_ops.py", "np.array(mask, copy=False)", "np.asarray(mask)")],
    ),
    (
        "Pillow 10 removed LINEAR, the old name of BILINEAR",
        [("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR")],
    ),
    (
        "setuptools 82 removed pkg_resources; the configs are plain files beside the module",
        [
            ("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", ""),
            (
                "detectron2/model_zoo/model_zoo.py",
                "pkg_resources.resource_filename(\n"
                '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
                "    )",
                'os.path.join(os.path.dirname(__file__), "configs", config_path)',
            ),
        ],
    ),
    (
        "the compiled extension is not there: its users import, and say so when they need it",
        [
            ("detectron2/utils/compiled.py", None, COMPILED),
            *(
                (file, "from detectron2 import _C", "from detectron2.utils.compiled import _C")
                for file in (
                    "detectron2/evaluation/fast_eval_api.py",
                    "detectron2/layers/deform_conv.py",
                    "detectron2/layers/roi_align_rotated.py",
                    "detectron2/layers/rotated_boxes.py",
                )
            ),
            (
                "detectron2/layers/nms.py",
                "    return torch.ops.detectron2.nms_rotated(",
                '    if not hasattr(torch.ops.detectron2, "nms_rotated"):\n'
                "        from detectron2.utils.compiled import _C\n\n"
                "        return _C.nms_rotated  # raises, saying what is missing\n"
                "    return torch.ops.detectron2.nms_rotated(",
            ),
        ],
    ),
    (
        "COCO evaluation falls back to pycocotools without the extension, as in detectron2's main",
        [
            (
                "detectron2/evaluation/coco_evaluation.py",
                "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
                "",
            ),
            (
                "detectron2/evaluation/coco_evaluation.py",
                "from detectron2.utils.file_io import PathManager\n",
                "from detectron2.utils.file_io import PathManager\n\n"
                "try:\n"
                "    from detectron2 import _C  # noqa: F401\n"
                "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
                "except ImportError:\n"
                "    COCOeval_opt = COCOeval\n",
            ),
            (
                "detectron2/evaluation/coco_evaluation.py",
                "self._use_fast_impl = use_fast_impl\n",
                "self._use_fast_impl = use_fast_impl and COCOeval_opt is not COCOeval\n",
            ),
        ],
    ),
    (
        "several processes on the CPU: Gloo without a GPU, as in detectron2's main",
        [
            (
                "detectron2/engine/launch.py",
                "    assert torch.cuda.is_available(), "
                '"cuda is not available. Please check your installation."\n',
                "    has_gpu = torch.cuda.is_available()\n"
                "    if has_gpu:\n"
                "        assert num_gpus_per_machine <= torch.cuda.device_count()\n",
            ),
            (
                "detectron2/engine/launch.py",
                'backend="NCCL"',
                'backend="NCCL" if has_gpu else "GLOO"',
            ),
            (
                "detectron2/engine/launch.py",
                "    assert num_gpus_per_machine <= torch.cuda.device_count()\n"
                "    torch.cuda.set_device(local_rank)\n",
                "    if has_gpu:\n        torch.cuda.set_device(local_rank)\n",
            ),
            (
                "detectron2/engine/launch.py",
                "    comm.synchronize()\n\n    main_func(*args)\n",
                # Gloo's threads must be gone when the process ends, or they may abort it.
                "    comm.synchronize()\n\n    main_func(*args)\n"
                "    comm.synchronize()\n    dist.destroy_process_group()\n",
            ),
            (
                "detectron2/engine/defaults.py",
                '    if "device_ids" not in kwargs:\n',
                '    if "device_ids" not in kwargs and next(model.parameters()).is_cuda:\n',
            ),
        ],
    ),
    (
        "PyTorch 2 warns of typed storages; the bytes gathered between processes need none",
        [
            (
                "detectron2/utils/comm.py",
                "    storage = torch.ByteStorage.from_buffer(buffer)\n"
                "    tensor = torch.ByteTensor(storage).to(device=device)\n",
                "    tensor = torch.frombuffer(bytearray(buffer), dtype=torch.uint8).to(device)\n",
            ),
        ],
    ),
    (
        "PyTorch 2 no longer brings Caffe2: the other exports and FLOP counting import without it",
        [
            (
                "detectron2/export/__init__.py",
                "from .api import *\n",
                "try:\n    from .api import *\nexcept ImportError:\n    pass\n",
            ),
        ],
    ),
    (
        "PyTorch 1.10 warns unless meshgrid is told its order",
        [
            (
                "detectron2/modeling/anchor_generator.py",
                "torch.meshgrid(shifts_y, shifts_x)",
                'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
            ),
        ],
    ),
    (
        "Python 3.11 draws no sample of a set: another image where one cannot be used",
        [
            (
                "detectron2/data/common.py",
                "self._rng.sample(self._fallback_candidates, k=1)",
                "self._rng.sample(list(self._fallback_candidates), k=1)",
            ),
        ],
    ),
    (
        "PyTorch 2 derives its schedulers from LRScheduler: checkpoints would lack their state",
        [
            (
                "detectron2/engine/hooks.py",
                "torch.optim.lr_scheduler._LRScheduler",
                "torch.optim.lr_scheduler.LRScheduler",
            ),
        ],
    ),
    (
        "PyTorch 1.9 refuses 32 groups of one channel, which RetinaNet's and FCOS' head asks for",
        [
            (
                "detectron2/modeling/meta_arch/retinanet.py",
                "get_norm(norm, 1)",
                "get_norm(norm, 32)",
            ),
        ],
    ),
]
