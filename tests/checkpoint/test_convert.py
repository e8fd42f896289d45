"""Imported VGG weights compute what their own framework computes, and bad files are refused."""

import hashlib
import math
import runpy
import sys
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from sparsedet.checkpoint import PREPROCESSING, import_vgg
from sparsedet.checkpoint.preprocessing import PUBLISHED
from sparsedet.errors import InputError
from sparsedet.modeling import VGG

LETTERS = {11: "A", 13: "B", 16: "D", 19: "E"}
CONVERT = Path(__file__).parents[2] / "tools" / "convert_vgg.py"


@lru_cache
def torchvision_features(depth=11, batch_norm=False):
    """torchvision's own convolutional part, every parameter and statistic random; read only."""
    torch.manual_seed(0)
    features = make_layers(cfgs[LETTERS[depth]], batch_norm=batch_norm).eval()
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.bias, -0.1, 0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return features


def state_dict(features, prefix="features."):
    return {prefix + key: value for key, value in features.state_dict().items()}


def save(tmp_path, state, name="vgg.pth"):
    torch.save(state, tmp_path / name)
    return str(tmp_path / name)


def vgg_from(imported):
    with torch.device("meta"):  # no time for an initialisation that is replaced
        vgg = VGG(imported.depth, norm="BN" if imported.norm else "", out_features=["pool5"]).eval()
    convs = {k: v for k, v in imported.model.items() if k.startswith("conv")}
    result = vgg.load_state_dict(convs, strict=False, assign=True)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    return vgg


def assert_same_features(vgg, reference, size=32):
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(vgg(image)["pool5"], reference(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "depth, batch_norm", [(11, False), (11, True), (13, False), (16, True), (19, False)]
)
def test_torchvision(tmp_path, depth, batch_norm):
    features = torchvision_features(depth, batch_norm)
    imported = import_vgg(save(tmp_path, state_dict(features)), "torchvision")
    assert (imported.format, imported.depth, imported.norm) == ("PyTorch", depth, batch_norm)
    assert_same_features(vgg_from(imported), features)


def test_caffe_style_keys_in_any_order_and_half_precision(tmp_path):
    features = deepcopy(torchvision_features()).half()
    convs = [module for module in features if isinstance(module, nn.Conv2d)]
    names = [k.removesuffix(".weight") for k in VGG(11).state_dict() if k.endswith(".weight")]
    state = {}
    for name, conv in reversed(list(zip(names, convs))):
        state[f"module.{name}.weight"], state[f"module.{name}.bias"] = conv.weight, conv.bias
    imported = import_vgg(save(tmp_path, {"state_dict": state, "epoch": 3}), "caffe")
    assert imported.model["conv1_1.weight"].dtype == torch.float32
    assert_same_features(vgg_from(imported), features.float())


def test_fc6_and_fc7_of_a_pth(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsedet.checkpoint.vgg.FC_SHAPES", {"fc6": (16, 25088), "fc7": (16, 16)})
    weights = {1: torch.randn(16, 512 * 49), 4: torch.randn(16, 16)}
    state = state_dict(torchvision_features())
    for index, weight in weights.items():
        state[f"classifier.{index}.weight"] = weight
        state[f"classifier.{index}.bias"] = torch.arange(16.0)
    state["classifier.6.weight"], state["classifier.6.bias"] = torch.randn(5, 16), torch.zeros(5)
    imported = import_vgg(save(tmp_path, state), "torchvision")
    assert torch.equal(imported.model["fc6.weight"], weights[1])
    assert torch.equal(imported.model["fc7.weight"], weights[4])
    assert torch.equal(imported.model["fc7.bias"], torch.arange(16.0))
    assert imported.skipped == ["classifier.6.weight (5, 16)"]

    state["classifier.1.weight"] = torch.full((16, 25088), math.nan)
    imported = import_vgg(save(tmp_path, state), "torchvision")
    assert "fc6.weight" not in imported.model and len(imported.skipped) == 3


@pytest.mark.parametrize("layout", ["{0}/{0}_{1}_1:0", "model_weights/{0}/{0}/{2}:0", "keras3"])
def test_keras_layouts(tmp_path, layout):
    h5py = pytest.importorskip("h5py")
    features = torchvision_features()
    path = tmp_path / "vgg.h5"
    with h5py.File(path, "w") as file:
        stage, i, count = 1, 1, 0
        for module in features:
            if isinstance(module, nn.MaxPool2d):
                stage, i = stage + 1, 1
            if not isinstance(module, nn.Conv2d):
                continue
            name = f"block{stage}_conv{i}"
            if layout == "keras3":
                group = f"layers/conv2d{f'_{count}' if count else ''}/vars"
                keys = f"{group}/0", f"{group}/1"
            else:
                keys = layout.format(name, "W", "kernel"), layout.format(name, "b", "bias")
            file[keys[0]] = module.weight.detach().numpy().transpose(2, 3, 1, 0)
            file[keys[1]] = module.bias.detach().numpy()
            i, count = i + 1, count + 1
    imported = import_vgg(str(path), "caffe")
    assert (imported.format, imported.depth) == ("Keras", 11)
    assert_same_features(vgg_from(imported), features)


def test_keras_fc_order(tmp_path, monkeypatch):
    """fc1 sees features flattened as (height, width, channel); fc6 as (channel, height, width)."""
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr("sparsedet.checkpoint.vgg.FC_SHAPES", {"fc6": (16, 25088), "fc7": (16, 16)})
    path = tmp_path / "vgg.h5"
    rng = np.random.default_rng(0)
    kernels = [rng.standard_normal(shape, np.float32) for shape in [(25088, 16), (16, 16), (16, 7)]]
    with h5py.File(path, "w") as file:
        for name, tensor in state_dict(torchvision_features()).items():
            index, kind = name.split(".")[1:]
            array = tensor.numpy()
            key = f"conv_{index}/{'kernel' if kind == 'weight' else 'bias'}:0"
            file[key] = array.transpose(2, 3, 1, 0) if kind == "weight" else array
        for i, (name, kernel) in enumerate(zip(["fc1", "fc2", "predictions"], kernels)):
            file[f"{name}/{name}/kernel:0"] = kernel
            file[f"{name}/{name}/bias:0"] = np.full(kernel.shape[1], i, np.float32)
    imported = import_vgg(str(path), "caffe")

    pooled = rng.standard_normal((512, 7, 7), np.float32)
    fc6 = imported.model["fc6.weight"] @ torch.from_numpy(pooled.flatten())
    expected = pooled.transpose(1, 2, 0).flatten() @ kernels[0]
    np.testing.assert_allclose(fc6.numpy(), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(imported.model["fc7.weight"].numpy(), kernels[1].T)
    assert imported.model["fc7.bias"][0] == 1
    assert imported.skipped == ["predictions/predictions/kernel:0 (7, 16)"]


def onnx_vgg(path, features, add_bias=False, epsilon=1e-5, head=None):
    """Write torchvision's ``features`` as an ONNX graph that takes NHWC images, as Keras' do."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, x = [], [], "images"

    def add(op, inputs, **attributes):
        output = f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def store(array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), f"c{len(constants)}"))
        return constants[-1].name

    x = add("Transpose", [x], perm=[0, 3, 1, 2])
    for module in features:
        values = [value.detach().numpy() for value in module.state_dict().values()]
        if isinstance(module, nn.Conv2d):
            weight, bias = values
            if add_bias:
                x = add("Conv", [x, store(weight)], pads=[1] * 4)
                x = add("Add", [x, store(bias.reshape(1, -1, 1, 1))])
            else:
                x = add("Conv", [x, store(weight), store(bias)], pads=[1] * 4)
        elif isinstance(module, nn.BatchNorm2d):
            inputs = [x] + [store(value) for value in values[:4]]
            x = add("BatchNormalization", inputs, epsilon=epsilon)
        elif isinstance(module, nn.ReLU):
            x = add("Relu", [x])
        else:
            x = add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    feature_name = x
    if head is not None:
        x = add("Transpose", [x], perm=[0, 2, 3, 1])
        x = add("MatMul", [add("Flatten", [x]), store(head)])
    graph = helper.make_graph(
        nodes,
        "vgg",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(feature_name, TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("batch_norm, add_bias", [(False, False), (False, True), (True, True)])
def test_onnx_runtime_agrees(tmp_path, batch_norm, add_bias):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    head = np.zeros((512, 3), np.float32)
    features = torchvision_features(batch_norm=batch_norm)
    path = onnx_vgg(tmp_path / "vgg.onnx", features, add_bias, epsilon=1e-3, head=head)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    imported = import_vgg(path, "caffe")
    assert (imported.format, imported.depth, imported.norm) == ("ONNX", 11, batch_norm)
    assert len(imported.skipped) == 1 and "(3, 512)" in imported.skipped[0]

    def reference(image):
        return torch.from_numpy(session.run(None, {"images": image.permute(0, 2, 3, 1).numpy()})[0])

    assert_same_features(vgg_from(imported), reference)


def trained_like(gain, blue, depth=11):
    """A state dict whose layers have this gain, and whose first weighs channel ``blue`` less."""
    torch.manual_seed(0)
    state = deepcopy(state_dict(torchvision_features(depth)))
    for value in state.values():
        if value.ndim == 4:
            nn.init.normal_(value, std=gain / value[0].numel() ** 0.5)
    first = state["features.0.weight"]
    first /= first.square().mean(dim=(0, 2, 3), keepdim=True).sqrt()
    first[:, blue] *= 0.85
    return state


@pytest.mark.parametrize(
    "gain, blue, expected", [(0.63, 0, "caffe"), (0.63, 2, "caffe_rgb"), (1.17, 2, "torchvision")]
)
def test_preprocessing_is_inferred_from_weights(tmp_path, gain, blue, expected):
    path = save(tmp_path, trained_like(gain, blue))
    assert import_vgg(path).preprocessing == expected


@pytest.mark.parametrize("gain, blue", [(0.63, 1), (1.17, 0), (0.88, 2)])
def test_undecided_preprocessing_is_asked_for(tmp_path, monkeypatch, gain, blue):
    path = save(tmp_path, trained_like(gain, blue))
    with pytest.raises(InputError, match="vgg.pth.*--preprocessing"):
        import_vgg(path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    monkeypatch.setitem(PUBLISHED, digest[:8], "caffe_rgb")
    assert import_vgg(path).preprocessing == "caffe_rgb"


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert_vgg.py", *map(str, arguments)])
    runpy.run_path(str(CONVERT), run_name="__main__")


def test_tool_writes_weights_with_their_preprocessing(tmp_path, monkeypatch, capsys):
    source = save(tmp_path, trained_like(1.17, 2))
    output = tmp_path / "out.pth"
    run_tool(monkeypatch, source, output)
    checkpoint = torch.load(output, weights_only=True)
    assert checkpoint["preprocessing"] == PREPROCESSING["torchvision"]
    assert checkpoint["matching_heuristics"] is True
    assert set(checkpoint["model"]) == set(VGG(11).state_dict())
    printed = capsys.readouterr().out
    for text in ("VGG-11", "torchvision", "INPUT.FORMAT: RGB", "MODEL.PIXEL_STD: [58.395,"):
        assert text in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pth", "vgg.pth"]


def change(key, value):
    return lambda state: state.update({key: value})


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            change("features.3.weight", torch.zeros(128, 32, 3, 3)),
            r"features.3.weight.*conv2_1.*\(128, 64, 3, 3\).*\(128, 32, 3, 3\)",
        ),
        (change("features.3.bias", torch.zeros(64)), r"bias of features.3.*\(128,\).*\(64,\)"),
        (lambda state: state.pop("features.3.bias"), "features.3.weight.*bias is missing"),
        (lambda state: state.pop("features.3.weight"), "7 convolutions.*VGG-11 has 8"),
        (change("features.0.weight", torch.full((64, 3, 3, 3), math.nan)), "not finite"),
        (change("features.0.weight", torch.zeros(64, 3, 3, 3, dtype=torch.int8)), "int8"),
    ],
)
def test_wrong_tensors(tmp_path, spoil, message):
    state = state_dict(torchvision_features())
    spoil(state)
    path = save(tmp_path, state)
    with pytest.raises(InputError, match=f"^{path}: .*{message}"):
        import_vgg(path, "caffe")


def test_tool_ends_in_one_line_and_keeps_the_old_output(tmp_path, monkeypatch, capsys):
    path, output = save(tmp_path, {"features.0.weight": torch.zeros(2, 2)}), tmp_path / "out.pth"
    output.write_text("what was there before")
    for arguments, message in {
        (path, output): "vgg.pth: 0 convolutions",
        (path, tmp_path / "out.h5"): "out.h5: the checkpoint's name must end in .pth",
    }.items():
        with pytest.raises(SystemExit) as exit:
            run_tool(monkeypatch, *arguments)
        printed = capsys.readouterr().err
        assert exit.value.code == 1 and message in printed and printed.count("\n") == 1
    assert output.read_text() == "what was there before"


@pytest.mark.parametrize("name", ["vgg.pth", "vgg.h5", "vgg.onnx"])
def test_truncated_files(tmp_path, name):
    path = tmp_path / name
    if name == "vgg.pth":
        torch.save(state_dict(torchvision_features()), path)
    elif name == "vgg.h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["a/kernel"] = np.zeros((100, 100), np.float32)
    else:
        pytest.importorskip("onnx")
        onnx_vgg(path, torchvision_features())
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=f"{path}: .*truncated"):
        import_vgg(str(path))


def test_onnx_weights_in_files_beside_it(tmp_path):
    """PyTorch writes them so by default; a model may not name files elsewhere."""
    onnx = pytest.importorskip("onnx")
    features = torchvision_features()
    path = Path(onnx_vgg(tmp_path / "vgg.onnx", features))
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="vgg.data", size_threshold=0
    )
    assert_same_features(vgg_from(import_vgg(str(path), "caffe")), features)

    content = (tmp_path / "vgg.data").read_bytes()
    (tmp_path / "vgg.data").write_bytes(content[:1000])
    with pytest.raises(InputError, match="vgg.onnx: c0: vgg.data is truncated"):
        import_vgg(str(path), "caffe")
    (tmp_path / "secret").write_bytes(content)
    inside = tmp_path / "folder"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    for place in ("../secret", str(tmp_path / "secret"), "link", "none"):
        model = onnx.load(path, load_external_data=False)
        for weight in model.graph.initializer:
            weight.external_data[0].value = place
        onnx.save(model, inside / "vgg.onnx")
        with pytest.raises(InputError, match=f"vgg.onnx: weights in '{place}': must be a file in"):
            import_vgg(str(inside / "vgg.onnx"), "caffe")


def test_onnx_without_what_a_layer_needs(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = onnx_vgg(tmp_path / "vgg.onnx", torchvision_features(batch_norm=True))
    model = onnx.load(path)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.input[2] = "images"
    onnx.save(model, path)
    with pytest.raises(InputError, match="vgg.onnx: images, a weight, is not a stored constant"):
        import_vgg(path, "caffe")


def test_hdf5_that_reaches_outside_or_is_larger_than_its_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(400))
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (10, 10), "f4", external=[(str(tmp_path / "secret"), 0, 400)])
    with pytest.raises(InputError, match="a.h5: a is in another file"):
        import_vgg(path)
    with h5py.File(path, "w") as file:
        source = h5py.VirtualSource(str(tmp_path / "b.h5"), "b", (10, 10), "f4")
        layout = h5py.VirtualLayout((10, 10), "f4")
        layout[:] = source
        file.create_virtual_dataset("a", layout)
    with pytest.raises(InputError, match="a.h5: a is in another file"):
        import_vgg(path)
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "b")
    with pytest.raises(InputError, match="a.h5: 0 convolutions"):
        import_vgg(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (10**5, 10**5), "f4", chunks=True, fillvalue=0.5)
    with pytest.raises(InputError, match=r"a.h5: a of shape \(100000, 100000\) is larger than"):
        import_vgg(path)


def test_files_of_no_use(tmp_path):
    with pytest.raises(InputError, match="none.pth: cannot be read: No such file"):
        import_vgg(str(tmp_path / "none.pth"))
    text = tmp_path / "text.pth"
    text.write_text("hello")
    with pytest.raises(InputError, match="text.pth: neither"):
        import_vgg(str(text))
    with pytest.raises(InputError, match="holds a list"):
        import_vgg(save(tmp_path, [torch.zeros(1)]))
    with pytest.raises(InputError, match="tensors"):
        import_vgg(save(tmp_path, {"model": nn.Conv2d(3, 3, 3)}))  # a pickled module


def test_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "vgg.onnx").write_bytes(b"\x08\x08")
    with pytest.raises(InputError, match=r"needs onnx.*sparsedet\[train\]"):
        import_vgg(str(tmp_path / "vgg.onnx"))
