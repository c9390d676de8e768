#!/usr/bin/env python3
"""Small checkpoints as torch.save writes them, and the values that are in them. Needs torch, numpy. Run: make.py

golden.json: for each file the tensors' shapes and values. hostile_*.pth are archives whose pickles no reader should trust.
"""
import argparse
import collections
import json
import os
import pathlib
import pickle
import zipfile

import numpy as np
import torch

torch.manual_seed(7)
GOLDEN = {}


def values(state):
    return {name: [list(t.shape), t.detach().double().flatten().tolist()] for name, t in state.items()}


def save(name, checkpoint, state, **options):
    torch.save(checkpoint, f"{name}.pth", **options)
    GOLDEN[name] = values(state)


class Small(torch.nn.Module):
    """A module whose state dict has parameters, buffers, a count of batches and `_metadata`."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(2, 3, (3, 1), bias=False)
        self.bn1 = torch.nn.BatchNorm2d(3)

    def state(self):
        self.bn1.running_mean.normal_()
        self.bn1.num_batches_tracked.fill_(17)
        return self.state_dict()


state = Small().state()
save("plain", state, state)
save("protocol_4", state, state, pickle_protocol=4)
save("wrapped", {f"module._orig_mod.{k}": v for k, v in state.items()}, state)

# What nnU-Net v2 keeps beside the weights of `checkpoint_final.pth`, and some of what others do.
optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], momentum=0.99)
optimiser.param_groups[0]["params"][0].grad = torch.ones(3)
optimiser.step()


def nnunet(weights):
    return {
        "network_weights": weights,
        "optimizer_state": optimiser.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
        "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "lrs": [0.01], "dice_per_class": [np.arange(2.0)]},
        "_best_ema": np.float64(0.75),
        "current_epoch": 1000,
        "init_args": {"plans": {"spacing": [3.0, 1.5, 1.5], "big": 1 << 100, "none": None}, "fold": 0,
                      "device": torch.device("cuda", 0), "unpack_dataset": True},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b"), dtype=torch.float16, size=torch.Size([1, 2])),
        "sets": [{1, 2}, frozenset("a"), b"bytes", bytearray(b"array"), collections.defaultdict(list, a=[1])],
    }


save("nnunet", nnunet(state), state)


def golden_unet():
    """../unet/weights.safetensors as nnU-Net's own file: modules registered twice share their tensors."""
    data = pathlib.Path("../unet/weights.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    weights = collections.OrderedDict()
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__" and not name.startswith("decoder.encoder."):
            first, end = entry["data_offsets"]
            values = torch.frombuffer(bytearray(data[start + first : start + end]), dtype=torch.float32)
            weights[name] = values.view(entry["shape"])
    for name, value in list(weights.items()):
        if name.startswith("encoder."):
            weights[f"decoder.{name}"] = value
    weights._metadata = {"": {"version": 1}}
    torch.save(nnunet(weights), "../unet/checkpoint_final.pth")


golden_unet()
save("only_member", {"epoch": 3, "generator": state, "loss": 0.5}, state)

base = torch.arange(24, dtype=torch.float32)
kinds = {
    "half": torch.tensor([1.5, -2.0, 65504.0]).half(),
    "bfloat16": torch.tensor([1.5, -2.0, 3e38]).bfloat16(),
    "double": torch.tensor([0.1, -1e-30], dtype=torch.float64),
    "long": torch.tensor([-3, 1 << 40]),
    "int": torch.tensor([-3, 5], dtype=torch.int32),
    "short": torch.tensor([-3, 5], dtype=torch.int16),
    "char": torch.tensor([-3, 5], dtype=torch.int8),
    "byte": torch.tensor([3, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
    # Views of one storage: an offset, transposed, every other column, repeated, channels last.
    "whole": base,
    "offset": base[5:11].view(2, 3),
    "transposed": base.view(4, 6).t(),
    "columns": base.view(2, 3, 4)[:, 1:, ::2],
    "repeated": base[7:9].view(2, 1).expand(2, 3),
    "channels_last": torch.arange(24.0).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
}
save("kinds", kinds, kinds)
torch.save(state, "legacy.pth", _use_new_zipfile_serialization=False)


class Call:
    """Pickles to `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def archive(name, program, storage=bytes(16), elements=4):
    with zipfile.ZipFile(f"{name}.pth", "w", zipfile.ZIP_STORED) as out:
        for path, content in (("a/data.pkl", program), ("a/byteorder", b"little"), ("a/data/0", storage)):
            out.writestr(zipfile.ZipInfo(path), content)


def rebuilt(offset, shape, strides, elements):
    """A state dict of one float32 tensor 'w', as an opcode stream: protocol 2, no memo."""
    integer = lambda i: b"\x8a\x08" + i.to_bytes(8, "little", signed=True)
    sizes = lambda t: b"(" + b"".join(map(integer, t)) + b"t"
    text = lambda s: b"X" + len(s).to_bytes(4, "little") + s.encode()
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(elements) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(offset) + sizes(shape) + sizes(strides)
    return b"\x80\x02}" + text("w") + tensor + b"\x89}tRs."


# `builtins.print` as a stand-in for whatever an attacker would run, beside the textbook's os.system.
archive("hostile_system", pickle.dumps({"state_dict": Call(os.system, "touch pwned")}, 2))
archive("hostile_print", pickle.dumps({"w": Call(print, "run")}, 2))
archive("hostile_protocol_4", pickle.dumps({"w": Call(os.system, "touch pwned")}, 4))
archive("hostile_cycle", b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.")
for name, arguments in {
    "beyond": (2, (3,), (1,), 4),
    "elements": (0, (4,), (1,), 1 << 40),
    "shape": (0, (1 << 40, 1 << 40), (0, 0), 4),
    "repeats": (0, (1 << 40,), (0,), 4),
    "strides": (0, (2, 2), (1 << 62, 1 << 62), 4),
    "negative": (-1, (2,), (1,), 4),
    "axes": (0, (2, 2), (1,), 4),
}.items():
    archive(f"hostile_{name}", rebuilt(*arguments))
with open("golden.json", "w") as out:
    json.dump({"torch": torch.__version__, "files": GOLDEN}, out, indent=1)
print({p.name: p.stat().st_size for p in sorted(pathlib.Path().glob("*.pth"))})
