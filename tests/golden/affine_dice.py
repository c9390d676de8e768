"""Golden values of affine_dice from PyTorch's autograd: affine_grid, grid_sample, soft Dice, in f64 on the CPU.

python tests/golden/affine_dice.py > tests/golden/affine_dice.txt
A line a case: align_corners, border, smooth, 12 values of theta, loss, 12 values of d loss / d theta.
The masks are made by `label` below and in tests/it/affine_dice.rs.
"""

import torch
import torch.nn.functional as F

FIXED, MOVING = (6, 9, 7), (8, 5, 10)


def label(z, y, x, salt):
    """Labels 0 to 3 without a random generator."""
    return (z * 7 + y * 13 + x * 29 + z * x * 3 + y * z * 5 + salt) % 11 % 4


def mask(shape, salt):
    d, h, w = shape
    return torch.tensor([[[label(z, y, x, salt) for x in range(w)] for y in range(h)] for z in range(d)])


def channels(labels):
    return torch.stack([labels == 2, (labels == 1) | (labels == 2)]).double()[None]


def main():
    print(f"# torch {torch.__version__}")
    # Digits that keep every coordinate off whole numbers, where gradients jump.
    thetas = [
        [[1.0213, 0.0317, -0.0119, 0.0533], [-0.0427, 0.9731, 0.0229, -0.0371], [0.0131, -0.0213, 1.0517, 0.0719]],
        [[0.1091, -0.9137, 0.0533, 0.4129], [0.8171, 0.2113, -0.1091, -0.3119], [-0.2039, 0.1117, -1.3127, 0.1571]],
        [[0.5213, 0.0171, 0.0113, 0.9173], [0.0137, 1.7191, 0.1327, 0.0179], [0.3137, 0.0233, 2.1391, -0.6173]],
    ]
    g = channels(mask(FIXED, 1))
    moving = channels(mask(MOVING, 4))
    for values in thetas:
        for align_corners in (True, False):
            for padding in ("border", "zeros"):
                for smooth in (1.0, 1e-5):
                    theta = torch.tensor([values], dtype=torch.float64, requires_grad=True)
                    grid = F.affine_grid(theta, (1, 2, *FIXED), align_corners=align_corners)
                    size = torch.tensor([MOVING[2], MOVING[1], MOVING[0]])
                    at = (grid + 1) / 2 * (size - 1) if align_corners else ((grid + 1) * size - 1) / 2
                    assert (at - at.round()).abs().min() > 2e-5
                    p = F.grid_sample(moving, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)
                    dice = (2 * (p * g).sum((2, 3, 4)) + smooth) / (p.sum((2, 3, 4)) + g.sum((2, 3, 4)) + smooth)
                    loss = -dice.mean()
                    loss.backward()
                    row = [int(align_corners), int(padding == "border"), smooth, *theta.detach().flatten().tolist()]
                    print(*row, loss.item(), *theta.grad.flatten().tolist())


main()
