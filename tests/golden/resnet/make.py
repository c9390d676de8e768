#!/usr/bin/env python3
"""Golden logits of torchvision's ResNet-18, -50 and -101 behind a 1x1 fusion convolution.

The weights are too large to ship, so both sides draw them from one rule: tensor number i in name order holds
scale * sin(0.37 * j + i) at offset j, with running_var = 1 + 0.5 * sin^2. Needs torch, torchvision. Run: make.py
"""
import json
import math

import numpy as np
import torch
import torchvision


class Fused(torch.nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.fusion = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.resnet = getattr(torchvision.models, f"resnet{depth}")(num_classes=5)

    def forward(self, x):
        return self.resnet(self.fusion(x))


def golden(depth, images):
    model = Fused(depth).double().eval()
    state = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    shapes = {}
    for i, name in enumerate(sorted(state)):
        shape = list(state[name].shape)
        shapes[name] = shape
        count = math.prod(shape)
        # The angle is reduced in integers first: both sides then take the sine of the same small number.
        wave = np.sin(0.001 * ((37 * np.arange(count, dtype=np.int64) + 101 * i) % 6283))
        if name.endswith("running_var"):
            values = 1 + 0.5 * wave**2
        elif name.endswith("running_mean") or name.endswith("bias"):
            values = 0.1 * wave
        elif len(shape) == 1:
            values = 0.6 + 0.2 * wave
        else:
            values = wave * math.sqrt(2 / math.prod(shape[1:]))
        state[name].copy_(torch.from_numpy(values.astype(np.float32).reshape(shape)).double())
    x = np.sin(0.001 * (53 * np.arange(images * 3 * 64 * 64, dtype=np.int64) % 6283)).astype(np.float32)
    with torch.no_grad():
        y = model(torch.from_numpy(x.reshape(images, 3, 64, 64)).double())
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    with open(f"golden_{depth}.json", "w") as out:
        json.dump({"versions": versions, "shapes": shapes, "logits": y.tolist()}, out, indent=1)
    print(depth, y, y.max() - y.min())


golden(18, 2)
golden(50, 2)
golden(101, 10)
