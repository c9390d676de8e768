"""Golden values of registration: the paper's loop with PyTorch's autograd and Adam, in f64 on the CPU.

python tests/golden/registration.py > tests/golden/registration.txt
A line a case: align_corners, lowest loss of 80 iterations, 12 values of theta there.
The masks are made by `mask` below and in tests/it/registration.rs.
"""

import torch
import torch.nn.functional as F

SHAPE = (14, 16, 19)
ITERATIONS = 80


def mask(centre, radii):
    """Kidney (1) in an ellipsoid, tumour (2) in a ball at its upper end; (z, y, x) voxels."""
    d, h, w = SHAPE
    out = torch.zeros(SHAPE)
    for z in range(d):
        for y in range(h):
            for x in range(w):
                at = [p - c for p, c in zip((z, y, x), centre)]
                if sum((a / r) ** 2 for a, r in zip(at, radii)) <= 1:
                    out[z, y, x] = 1
                if sum((a - o) ** 2 for a, o in zip(at, (1.7, 2.2, -1.3))) <= 6.1:
                    out[z, y, x] = 2
    return out


def channels(labels):
    return torch.stack([labels == 2, labels > 0]).double()[None]


def centre(labels, align_corners):
    """Normalised (x, y, z)."""
    at = torch.nonzero(labels).double().mean(0)
    size = torch.tensor(SHAPE).double()
    at = 2 * at / (size - 1) - 1 if align_corners else (2 * at + 1) / size - 1
    return at.flip(0)


def main():
    print(f"# torch {torch.__version__}")
    fixed, moving = mask((6.3, 7.4, 8.8), (3.2, 4.4, 6.1)), mask((7.1, 6.2, 10.3), (3.9, 4.0, 5.3))
    g, m = channels(fixed), channels(moving)
    for align_corners in (True, False):
        theta = torch.zeros(1, 3, 4, dtype=torch.float64)
        theta[0, :, :3] = torch.eye(3)
        theta[0, :, 3] = centre(moving, align_corners) - centre(fixed, align_corners)
        theta.requires_grad_()
        adam = torch.optim.Adam([theta], lr=0.01)
        best = None
        for _ in range(ITERATIONS):
            grid = F.affine_grid(theta, (1, 2, *SHAPE), align_corners=align_corners)
            p = F.grid_sample(m, grid, mode="bilinear", padding_mode="border", align_corners=align_corners)
            dice = (2 * (p * g).sum((2, 3, 4)) + 1) / (p.sum((2, 3, 4)) + g.sum((2, 3, 4)) + 1)
            loss = -dice.mean()
            if best is None or loss.item() < best[0]:
                best = (loss.item(), *theta.detach().flatten().tolist())
            adam.zero_grad()
            loss.backward()
            adam.step()
        print(int(align_corners), *best)


main()
