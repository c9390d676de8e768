"""Ten training steps of tiny networks by PyTorch 2.15, dynamic-network-architectures 0.4.4 and nnU-Net v2.8.1's losses, in f64.

    python steps.py     writes plain.safetensors and residual.safetensors beside itself

Each file has the weights at the start (nnU-Net's names), two batches (image.I; labels.I.H for head H, the full resolution first)
that the steps take in turns, the loss and the norm of the gradients of every step, and of the first step's gradient of each weight the
norm and the sum of its elements times sin(1), sin(2), ... in PyTorch's order.
"""

import pathlib

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from safetensors.numpy import save_file
from torch import nn
from torch.nn.functional import interpolate

HERE = pathlib.Path(__file__).parent
CLASSES, STEPS, SIZE = 3, 10, (8, 8, 12)
CLIP = 0.75


def network(kind):
    common = dict(
        input_channels=2,
        n_stages=4,
        features_per_stage=[4, 6, 8, 8],
        conv_op=nn.Conv3d,
        kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 1]],
        num_classes=CLASSES,
        n_conv_per_stage_decoder=[1, 2, 1],
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    if kind == "plain":
        return PlainConvUNet(n_conv_per_stage=[2, 1, 2, 2], **common)
    return ResidualEncoderUNet(n_blocks_per_stage=[1, 2, 1, 2], **common)


def own(name):
    """Whether a tensor is not another one's second name."""
    return ".all_modules." not in name and not name.startswith("decoder.encoder.")


def train(kind, batch_dice, seed):
    torch.manual_seed(seed)
    net = network(kind).double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "norm" in name or name.endswith("bias"):
                p.copy_((1.0 if name.endswith("norm.weight") else 0.0) + 0.2 * torch.randn(p.shape))
            p.copy_(p.float())
    arrays = {n: p.detach().float().numpy().copy() for n, p in net.state_dict().items() if own(n)}
    scales = [[1, 1, 1], [1, 2, 2], [2, 4, 4]]
    batches = []
    for i in range(2):
        image = torch.randn(2, 2, *SIZE).float()
        smooth = interpolate(torch.randn(2, CLASSES, 2, 2, 3), SIZE, mode="trilinear")
        labels = smooth.argmax(1, keepdim=True).float()
        image[:, :1] += labels
        heads = [interpolate(labels, [s // f for s, f in zip(SIZE, scale)], mode="nearest-exact") for scale in scales]
        arrays[f"image.{i}"] = image.numpy().copy()
        for h, head in enumerate(heads):
            arrays[f"labels.{i}.{h}"] = head.numpy().copy()
        batches.append((image.double(), heads))
    loss = DC_and_CE_loss(
        {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        weight_ce=1,
        weight_dice=1,
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    weights = np.array([1 / 2**i for i in range(len(scales))])
    weights[-1] = 0
    loss = DeepSupervisionWrapper(loss, weights / weights.sum())
    optimizer = torch.optim.SGD(net.parameters(), 0.01, weight_decay=3e-2, momentum=0.99, nesterov=True)
    losses, norms = [], []
    for step in range(STEPS):
        image, heads = batches[step % 2]
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / STEPS) ** 0.9
        optimizer.zero_grad()
        value = loss(net(image), heads)
        value.backward()
        if step == 0:
            for name, p in net.named_parameters():
                if own(name) and p.grad is not None:
                    g = p.grad.flatten()
                    slope = (g * torch.sin(torch.arange(1, len(g) + 1, dtype=torch.float64))).sum()
                    arrays[f"gradient.{name}"] = np.array([g.norm().item(), slope.item()], np.float32)
        norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)))
        optimizer.step()
        losses.append(value.item())
    print(kind, losses, norms)
    arrays["losses"] = np.array(losses, np.float32)
    arrays["norms"] = np.array(norms, np.float32)
    save_file(arrays, HERE / f"{kind}.safetensors")


if __name__ == "__main__":
    train("plain", False, 3)
    train("residual", True, 4)
