#!/usr/bin/env python3
"""Golden logits of 2D segmenters: torchvision's FCN and DeepLabV3, and DeepLabV3+ and PSPNet on torchvision's backbones.

torchvision has no DeepLabV3+ and no PSPNet: their heads are written here in plain PyTorch, after the papers, with names in torchvision's
manner. Weights are too large to ship, so both sides draw them by one rule: value j of a tensor is u = 2 h / 2^32 - 1, where h is a hash of
j and of the tensor's name, scaled by what the tensor is (see draw). Names and shapes are those of the state dicts, in shapes/.
Everything is computed in float64. Needs torch, torchvision, safetensors. Run: make.py
"""
import json
import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from safetensors.numpy import save_file
from torch import nn
from torchvision.models import resnet, segmentation
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP

CLASSES = 3
MASK = np.uint64(0xFFFFFFFF)


def scramble(h):
    """A bijection of 32-bit numbers whose outputs look random (the finaliser of MurmurHash3)."""
    h = h ^ (h >> np.uint64(16))
    h = h * np.uint64(0x85EBCA6B) & MASK
    h = h ^ (h >> np.uint64(13))
    h = h * np.uint64(0xC2B2AE35) & MASK
    return h ^ (h >> np.uint64(16))


def seed(name):
    """FNV-1a of the name."""
    h = 0x811C9DC5
    for byte in name.encode():
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return np.uint64(h)


def uniform(name, count):
    """In [-1, 1), exact in float64."""
    h = scramble(np.arange(count, dtype=np.uint64) ^ seed(name))
    return h.astype(np.float64) / 2**31 - 1


def draw(name, shape):
    u = uniform(name, math.prod(shape))
    if name.endswith("running_var"):
        values = 1 + 0.5 * u
    elif name.endswith("running_mean") or name.endswith("bias"):
        values = 0.1 * u
    elif len(shape) == 1:
        # The last norm of a block is damped, so that the sums of many blocks stay small.
        values = (0.3 if "bn3" in name else 1.0) + 0.2 * u
    else:
        values = u * math.sqrt(6 / math.prod(shape[1:]))
    return values.astype(np.float32).reshape(shape)


def conv_bn(ci, co, k):
    return [nn.Conv2d(ci, co, k, padding=k // 2, bias=False), nn.BatchNorm2d(co), nn.ReLU()]


class DeepLabV3Plus(nn.Module):
    def __init__(self):
        super().__init__()
        self.aspp = ASPP(2048, [6, 12, 18])
        self.low_level = nn.Sequential(*conv_bn(256, 48, 1))
        self.decoder = nn.Sequential(*conv_bn(304, 256, 3), *conv_bn(256, 256, 3), nn.Conv2d(256, CLASSES, 1))

    def forward(self, features):
        low, high = self.low_level(features["low"]), self.aspp(features["out"])
        high = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.decoder(torch.cat([high, low], 1))


class PspNet(nn.Module):
    def __init__(self):
        super().__init__()
        stages = [nn.Sequential(nn.AdaptiveAvgPool2d(bins), *conv_bn(2048, 512, 1)) for bins in (1, 2, 3, 6)]
        self.stages = nn.ModuleList(stages)
        self.project = nn.Sequential(*conv_bn(4096, 512, 3), nn.Dropout(0.1), nn.Conv2d(512, CLASSES, 1))

    def forward(self, features):
        x = features["out"]
        size = {"size": x.shape[2:], "mode": "bilinear", "align_corners": False}
        return self.project(torch.cat([x] + [F.interpolate(stage(x), **size) for stage in self.stages], 1))


class OnBackbone(nn.Module):
    def __init__(self, depth, dilated, head):
        super().__init__()
        full = getattr(resnet, f"resnet{depth}")(weights=None, replace_stride_with_dilation=dilated)
        self.backbone = IntermediateLayerGetter(full, {"layer1": "low", "layer4": "out"})
        self.classifier = head

    def forward(self, x):
        logits = self.classifier(self.backbone(x))
        return {"out": F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)}


def network(head, depth):
    options = {"weights": None, "weights_backbone": None, "num_classes": CLASSES}
    if head == "fcn":
        return getattr(segmentation, f"fcn_resnet{depth}")(**options, aux_loss=True)
    if head == "deeplabv3":
        return getattr(segmentation, f"deeplabv3_resnet{depth}")(**options, aux_loss=False)
    if head == "deeplabv3plus":
        return OnBackbone(depth, [False, False, True], DeepLabV3Plus())
    return OnBackbone(depth, [False, True, True], PspNet())


def write_shapes(file, state, prefixes):
    chosen = [name for name in state if name.startswith(prefixes)]
    lines = [f"{name} {'x'.join(map(str, state[name].shape))}\n" for name in chosen]
    with open(f"shapes/{file}.txt", "w") as out:
        out.writelines(lines)
    return lines


def main():
    logits, backbones = {}, {}
    for head in ["fcn", "deeplabv3", "deeplabv3plus", "pspnet"]:
        for depth, (h, w) in [(50, (33, 41)), (101, (65, 81))]:
            model = network(head, depth).double().eval()
            state = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
            lines = write_shapes(f"resnet{depth}", state, "backbone.")
            assert backbones.setdefault(depth, lines) == lines, "backbones differ in their names"
            lines = write_shapes(head, state, ("classifier.", "aux_classifier."))
            assert backbones.setdefault(head, lines) == lines, "heads differ in their names"
            for name, tensor in state.items():
                tensor.copy_(torch.from_numpy(draw(name, tuple(tensor.shape))).double())
            image = torch.from_numpy(uniform("image", 3 * h * w).reshape(1, 3, h, w).astype(np.float32))
            with torch.no_grad():
                y = model(image.double())["out"][0]
            assert y.shape == (CLASSES, h, w)
            # Every third row and fifth column of the larger images, which keeps the file small.
            y = y if depth == 50 else y[:, ::3, ::5].contiguous()
            logits[f"{head}_{depth}"] = y.float().numpy()
            spread = [(float(c.min()), float(c.max()), float(c.std())) for c in y]
            print(head, depth, spread, np.bincount(y.argmax(0).flatten().numpy(), minlength=CLASSES))
    save_file(logits, "logits.safetensors")
    with open("versions.json", "w") as out:
        json.dump({"torch": torch.__version__, "torchvision": torchvision.__version__}, out)
        out.write("\n")


if __name__ == "__main__":
    main()
