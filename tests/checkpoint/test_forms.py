"""Checkpoints in the forms in which people have them, and none that is damaged or not data."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from sparsedet.checkpoint import SparseDetCheckpointer, torch_files
from sparsedet.checkpoint.state_dicts import named_tensors, read_checkpoint, unwrap
from sparsedet.errors import InputError


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "bn": nn.BatchNorm2d(4)})


def weights():
    torch.manual_seed(1)
    return Detector().state_dict()


def loaded(path):
    model = Detector()
    SparseDetCheckpointer(model, strict=True).load(str(path))
    return model.state_dict()


def assert_same(found, expected, **tolerance):
    assert list(found) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value.to(found[key].dtype), **tolerance)


def refused(path, message):
    with pytest.raises(InputError, match=message) as error:
        loaded(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("wrap", ["model", "state_dict", "model_state", "model_state_dict", "ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module._orig_mod."])
def test_names_of_others(tmp_path, wrap, prefix):
    state = {prefix + key: value for key, value in weights().items()}
    torch.save({wrap: state, "epoch": 3}, tmp_path / "a.pth")
    assert_same(loaded(tmp_path / "a.pth"), weights())


def test_wrapped_twice_a_compiled_part_and_what_is_no_tensor(tmp_path):
    state = {key.replace("bn.", "bn._orig_mod."): value for key, value in weights().items()}
    data = {"state_dict": {"model": {**state, "_extra": None}}, "args": {"lr": 0.1, (1, 2): "x"}}
    torch.save(data, tmp_path / "a.pth")
    assert_same(loaded(tmp_path / "a.pth"), weights())
    state["backbone.bn.weight"] = torch.ones(4)
    torch.save(state, tmp_path / "b.pth")
    refused(tmp_path / "b.pth", "two tensors have one name")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path, dtype):
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights().items()}
    torch.save(half, tmp_path / "a.pth")
    assert_same(loaded(tmp_path / "a.pth"), half, rtol=0, atol=0)


def test_integers_are_no_weights(tmp_path):
    state = {**weights(), "backbone.conv.bias": torch.ones(4, dtype=torch.int8)}
    torch.save(state, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "backbone.conv.bias is torch.int8; weights must be floating")


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({k: v.bfloat16() for k, v in weights().items()}, tmp_path / "a.safetensors")
    found = loaded(tmp_path / "a.safetensors")
    assert_same(found, {k: v.bfloat16() for k, v in weights().items()}, rtol=0, atol=0)
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(content[:-8])
    refused(tmp_path / "b.safetensors", "truncated")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_what_is_not_finite_in_float32_is_not_loaded(tmp_path, value):
    state = {key: value.double() for key, value in weights().items()}
    state["backbone.bn.running_var"][2] = value
    torch.save(state, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "backbone.bn.running_var has values that are not finite")


def test_what_is_not_finite_is_not_saved(tmp_path):
    model = Detector()
    model.backbone["conv"].bias.data[1] = float("nan")
    with pytest.raises(InputError, match=r"m.pth: not written: backbone.conv.bias has values"):
        SparseDetCheckpointer(model, str(tmp_path)).save("m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_every_changed_byte_of_the_weights_is_seen(tmp_path, new):
    path = tmp_path / "a.pth"
    torch.save(weights(), path, _use_new_zipfile_serialization=new)
    assert_same(loaded(path), weights())
    content = bytearray(path.read_bytes())
    place = content.find(weights()["backbone.conv.weight"].numpy().tobytes())
    assert place > 0
    if new:
        content[place + 5] ^= 1
        path.write_bytes(content)
        refused(path, r"Bad CRC-32 for file '\S+/data/\d'")
    path.write_bytes(content[: place + 40])
    refused(path, "truncated")


def rezipped(path, change=lambda name, data: data, kind=zipfile.ZIP_STORED):
    """The file with changed entries, and checksums that fit them."""
    with zipfile.ZipFile(path) as old:
        entries = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(path, "w", kind) as new:
        for name, data in entries:
            new.writestr(name, change(name, data))


def test_compressed_entries(tmp_path):
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "a.pth")
    rezipped(tmp_path / "a.pth", kind=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pth").stat().st_size < 5000
    refused(tmp_path / "a.pth", "it is compressed")


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(10**9), torch.zeros(8).as_strided((4, 4), (1, 1))],
    ids=["expanded", "overlapping"],
)
def test_shapes_larger_than_their_bytes(tmp_path, tensor):
    torch.save({"a": tensor}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", r"shape \(\d+.* is larger than what is stored")


def test_storages_of_another_size_than_is_named(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "a.pth")
    rezipped(tmp_path / "a.pth", lambda name, data: data[:8] if name.endswith("data/0") else data)
    refused(tmp_path / "a.pth", "0 has 8 bytes, where 400 are named")


def test_one_storage_under_very_many_names(tmp_path):
    shared = torch.zeros(100_000)
    torch.save({str(i): shared for i in range(3)}, tmp_path / "a.pth")
    assert len(named_tensors("a", read_checkpoint(str(tmp_path / "a.pth")))) == 3
    torch.save({str(i): shared[i:] for i in range(50)}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "its tensors are larger than the file")


@pytest.mark.parametrize(
    "value",
    [
        torch.empty(10**12, device="meta"),
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        bytearray(5),
        torch.nn.Linear,
    ],
    ids=["meta", "sparse", "quantized", "bytearray", "class"],
)
def test_what_is_not_a_plain_tensor(tmp_path, value):
    torch.save({"model": {"a": value, "b": torch.ones(1)}}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "not data|nothing|another architecture|not a checkpoint")


def test_names_that_are_not_text(tmp_path):
    torch.save({"model": {1: torch.ones(1)}}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "1, a tensor's name, is not text")


def test_torchscript(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(tmp_path / "a.pth"))
    refused(tmp_path / "a.pth", r"a TorchScript archive\); save the model's state_dict")


def test_an_old_torch_is_not_asked(tmp_path, monkeypatch):
    torch.save(weights(), tmp_path / "a.pth")
    monkeypatch.setattr(torch_files.torch, "__version__", "2.5.1+cpu")
    refused(tmp_path / "a.pth", "torch 2.5.1.cpu could run code that is in it; install torch >= 2")


# Pickles


def arrays():
    return {
        "c": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f2"),
        "empty": np.zeros((0, 4), np.int64),
        "none": np.array(2.5),
    }


@pytest.mark.parametrize("core", ["core", "_core"])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_numpy_1_and_2(tmp_path, protocol, core):
    content = pickle.dumps(OrderedDict(arrays(), same=None, scalar=np.float32(1.5)), protocol)
    old, new = f"numpy.{core}.".encode(), b"numpy._core."
    if core == "core":  # in the length of the text, too, where the protocol has it
        text = {b"\x8c": 1, b"X": 4}
        for module in (b"multiarray", b"numeric"):
            for kind, size in text.items():
                before, after = new + module, old + module
                content = content.replace(
                    kind + len(before).to_bytes(size, "little") + before,
                    kind + len(after).to_bytes(size, "little") + after,
                ).replace(b"c" + before + b"\n", b"c" + after + b"\n")
        if protocol > 3:  # its frame has become shorter
            content = content[:2] + content[11:]
        assert new not in content
    (tmp_path / "a.pkl").write_bytes(content)
    data = read_checkpoint(str(tmp_path / "a.pkl"))
    assert data["scalar"] == 1.5
    found = named_tensors("a", data)
    for key, value in arrays().items():
        np.testing.assert_array_equal(found[key].numpy(), value)


def test_python_2(tmp_path):
    """As Python 2.7 and NumPy 1.16 write {"a": array} in protocol 2, with bytes as texts."""
    values = np.array([[1.5, -200.25]], np.float32)
    data = values.tobytes()
    content = (
        b"\x80\x02}q\x01U\x01aq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq"
        b"\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02f4K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + struct.pack("B", len(data))
        + data
        + b"tbs."
    )
    (tmp_path / "a.pkl").write_bytes(content)
    assert pickle.loads(content, encoding="latin1")["a"].tolist() == values.tolist()
    found = named_tensors("a", read_checkpoint(str(tmp_path / "a.pkl")))
    assert found["a"].tolist() == values.tolist()


def test_tied_arrays(tmp_path):
    array = np.ones(3, np.float32)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": array, "b": array}, 2))
    found = named_tensors("a", read_checkpoint(str(tmp_path / "a.pkl")))
    assert found["a"].tolist() == found["b"].tolist() == [1, 1, 1]


def nested_keys():
    """A dict with a key whose hash takes for ever."""
    content = b"\x80\x02})q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    return content + b"h\x3cK\x01s."


BUILD = b"tb"
DTYPE = b"cnumpy\ndtype\nU\x02%sK\x00K\x01\x87R"
RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
BAD_PICKLES = {
    "objects in an array": b"\x80\x02}U\x01a" + RECONSTRUCT + b"(K\x01K\x01\x85" + DTYPE % b"O8",
    "a scalar of objects": b"\x80\x02}U\x01acnumpy._core.multiarray\nscalar\n" + DTYPE % b"O8",
    "fewer bytes than the shape": b"\x80\x02}U\x01a"
    + RECONSTRUCT
    + b"(K\x01J\xff\xff\xff\x7f\x85"
    + DTYPE % b"f4"
    + b"\x89U\x04abcdtbs.",
    "a huge memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "a huge length": b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00abc.",
    "a huge bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00abc.",
    "a key that takes for ever": nested_keys(),
    "a call": b"\x80\x02cos\nmkdir\nU\x04made\x85R.",
    "a class": b"\x80\x02}U\x01acos\nmkdir\ns.",
    "an extension": b"\x80\x02\x82\x01.",
    "nothing on the stack": b"\x80\x02s.",
    "text": b"\x80\x02X\x01\x00\x00\x00a.",
}


@pytest.mark.parametrize("content", BAD_PICKLES.values(), ids=BAD_PICKLES)
def test_pickles_that_are_not_data(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    refused(tmp_path / "a.pkl", "not a checkpoint")
    torch_file = io.BytesIO()
    with zipfile.ZipFile(torch_file, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/version", "3\n")
    (tmp_path / "a.pth").write_bytes(torch_file.getvalue())
    refused(tmp_path / "a.pth", "not a checkpoint")
    assert not (tmp_path / "made").exists()


def test_the_rest_of_a_checkpoint_is_kept():
    state, beside = unwrap({"state_dict": {"a": 1}, "epoch": 3, "model": "resnet"})
    assert (state, beside) == ({"a": 1}, {"epoch": 3, "model": "resnet"})
