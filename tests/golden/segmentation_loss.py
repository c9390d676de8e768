"""Golden values of segmentation_loss and cross_entropy from nnU-Net's own loss and PyTorch's autograd, on the CPU. nnU-Net adds up its
Dice in f32 whatever the type of the logits; the rest is f64.

python tests/golden/segmentation_loss.py > tests/golden/segmentation_loss.txt
A line a case: batch, background, smooth (or `cross_entropy - -`), n, c, d, h, w, loss, d loss / d logits in PyTorch's order.
Logits and labels are made by `logits` and `labels` below and in compute/tests/it/segmentation_loss.rs.
"""

from importlib.metadata import version

import torch
import torch.nn.functional as F
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1

SHAPES = [(2, 3, 2, 3, 5), (1, 2, 3, 3, 3), (3, 4, 1, 2, 4)]


def logits(shape):
    """From -4 to 4 in steps of 1 / 128, without a random generator."""
    n = torch.Size(shape).numel()
    values = [(i * 7919 + i // 5 * 101) % 1024 / 128 - 4 for i in range(n)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape).requires_grad_()


def labels(shape):
    n, c, d, h, w = shape
    return torch.tensor([(i * 31 + i // 7) % c for i in range(n * d * h * w)]).reshape(n, 1, d, h, w)


def line(name, shape, loss, z):
    (gradient,) = torch.autograd.grad(loss, z)
    print(*name, *shape, loss.item(), *gradient.flatten().tolist())


def main():
    print(f"# torch {torch.__version__}, nnunetv2 {version('nnunetv2')}")
    for shape in SHAPES:
        for batch in (False, True):
            for background in (False, True):
                for smooth in (1e-5, 1.0):
                    dice = {"batch_dice": batch, "smooth": smooth, "do_bg": background, "ddp": False}
                    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
                    assert loss.dc.apply_nonlin is softmax_helper_dim1
                    z = logits(shape)
                    line((int(batch), int(background), smooth), shape, loss(z, labels(shape)), z)
        z = logits(shape)
        line(("cross_entropy", "-", "-"), shape, F.cross_entropy(z, labels(shape)[:, 0]), z)


if __name__ == "__main__":
    main()
