"""Ten training steps of narrow ResNets by torchvision and PyTorch, for tests/it/training/resnet.rs.

torch 2.15, torchvision 0.29; run: python resnet_steps.py. The networks and images are small; arithmetic is f64 from f32 values. Weights
and images are of one rule on both sides (`hashed`). Written are the shapes of all tensors, the losses, of the first step's gradient of
each weight the norm and the sum of its elements times sin(1), sin(2), ... in PyTorch's order, the same two numbers of the running
statistics after the last step, and the logits of the network in evaluation mode then.
"""

import json
import math
import pathlib

import numpy as np
import torch
import torchvision
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

HERE = pathlib.Path(__file__).parent
WIDTH, BATCH, SIZE, CLASSES, STEPS = 4, 6, 64, 5, 10
RATES = {18: 0.02, 50: 0.0001}


def hashed(place, count):
    """Numbers from -1 to 1: an integer hash of place and offset, so that both sides have the same bits."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(place) * np.uint64(1_000_003)
    low = np.uint64(0xFFFFFFFF)
    x &= low
    x ^= x >> np.uint64(16)
    x = x * np.uint64(0x7FEB352D) & low
    x ^= x >> np.uint64(15)
    x = x * np.uint64(0x846CA68B) & low
    x ^= x >> np.uint64(16)
    return (x >> np.uint64(8)).astype(np.float64) / 2**23 - 1


class Narrow(ResNet):
    """torchvision's ResNet with another width of the first stage, after a 1x1 fusion convolution."""

    def __init__(self, block, layers):
        super().__init__(block, layers, num_classes=CLASSES)
        self.inplanes = WIDTH
        self.conv1 = torch.nn.Conv2d(3, WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(WIDTH)
        self.layer1 = self._make_layer(block, WIDTH, layers[0])
        self.layer2 = self._make_layer(block, 2 * WIDTH, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * WIDTH, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * WIDTH, layers[3], stride=2)
        self.fc = torch.nn.Linear(8 * WIDTH * block.expansion, CLASSES)


class Fused(torch.nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.fusion = torch.nn.Conv2d(3, 3, 1, bias=False)
        block, layers = {18: (BasicBlock, [2, 2, 2, 2]), 50: (Bottleneck, [3, 4, 6, 3])}[depth]
        self.resnet = Narrow(block, layers)

    def forward(self, x):
        return self.resnet(self.fusion(x))


def initial(name, place, shape):
    values = hashed(place, math.prod(shape))
    if name.endswith("running_var"):
        values = 1 + 0.5 * values
    elif name.endswith("running_mean") or name.endswith("bias"):
        values = 0.1 * values
    elif name.endswith("bn3.weight"):
        # A gain near 1 in all of fifty layers would make the gradient one of rounding.
        values = 0.2 + 0.1 * values
    elif len(shape) == 1:
        values = 0.7 + 0.3 * values
    elif name == "fusion.weight":
        values = 0.3 * values + np.eye(3).flatten()
    else:
        values = values * math.sqrt(6 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32).reshape(shape)).double()


def two(tensor):
    v = tensor.detach().flatten()
    return [v.norm().item(), (v * torch.sin(torch.arange(1, len(v) + 1, dtype=torch.float64))).sum().item()]


def train(depth):
    net = Fused(depth).double().train()
    state = {k: v for k, v in net.state_dict().items() if "num_batches_tracked" not in k}
    shapes = {}
    for place, name in enumerate(sorted(state)):
        shapes[name] = list(state[name].shape)
        state[name].copy_(initial(name, place, shapes[name]))
    images = [1.5 * hashed(1000 + i, BATCH * 3 * SIZE * SIZE).astype(np.float32) for i in range(2)]
    images = [torch.from_numpy(image.reshape(BATCH, 3, SIZE, SIZE)).double() for image in images]
    labels = [torch.arange(BATCH) % CLASSES, (torch.arange(BATCH) + 2) % CLASSES]
    rate = RATES[depth]
    optimizer = torch.optim.SGD(net.parameters(), rate, weight_decay=2e-4, momentum=0.9)
    losses, gradients = [], {}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / STEPS) ** 0.9
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images[step % 2]), labels[step % 2])
        loss.backward()
        if step == 0:
            gradients = {name: two(p.grad) for name, p in net.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    statistics = {name: two(v) for name, v in net.state_dict().items() if "running" in name}
    net.eval()
    with torch.no_grad():
        logits = net(images[0]).tolist()
    print(depth, losses, logits[0])
    golden = dict(losses=losses, logits=logits, shapes=shapes, gradients=gradients, statistics=statistics)
    golden["versions"] = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    rounded = json.loads(json.dumps(golden), parse_float=lambda text: float(f"{float(text):.9g}"))
    (HERE / f"resnet_{depth}.json").write_text(json.dumps(rounded))


if __name__ == "__main__":
    for depth in RATES:
        train(depth)
