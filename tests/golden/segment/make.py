"""Golden segmentation: nnU-Net v2's inference, restated with NumPy, SciPy, scikit-image and PyTorch, on two small images.

Uses the network of ../unet. Writes, for each case, the image (i16), the labels (u8) and the foreground probabilities (f16) on
the image's own voxels; and the weights and positions of tiles.

Run with PyTorch 2.8.0 (CPU), SciPy 1.17, scikit-image 0.26, safetensors 0.8: `python make.py` in this folder.
"""

import json
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import resize

sys.path.insert(0, "../unet")
from make import PATCH, UNet  # noqa: E402

SPACING = [3.0, 1.5, 1.5]
CLIP, MEAN, SD = (-40.0, 347.0), 112.75457, 97.87436
# Spacing and shape (z, y, x), mirroring: thick slices, resampled plane by plane; nearly isotropic voxels, smaller than a tile
# along z; anisotropic along y, at the target's own size along x.
CASES = {
    "thick": ([5.0, 0.8, 0.8], (6, 21, 26), False),
    "isotropic": ([2.0, 1.1, 1.3], (5, 17, 15), True),
    "coronal": ([1.2, 6.0, 1.5], (14, 5, 16), False),
}


def separate_axis(current, new):
    for spacing in (current, new):
        if max(spacing) / min(spacing) > 3:
            axes = [a for a in range(3) if spacing[a] == max(spacing)]
            return axes[0] if len(axes) == 1 else None
    return None


def resample(data, new_shape, axis, order):
    """resample_data_or_seg_to_shape of one channel, order_z 0."""
    if tuple(data.shape) == tuple(new_shape):
        return data
    data = data.astype(np.float64)
    options = {"order": order, "mode": "edge", "anti_aliasing": False}
    if axis is None:
        return resize(data, new_shape, **options).astype(np.float32)
    plane = [s for a, s in enumerate(new_shape) if a != axis]
    slices = [resize(np.take(data, i, axis), plane, **options) for i in range(data.shape[axis])]
    stacked = np.stack(slices, axis)
    if data.shape[axis] == new_shape[axis]:
        return stacked.astype(np.float32)
    grid = np.mgrid[tuple(slice(0, n) for n in new_shape)]
    places = [s / n * (g + 0.5) - 0.5 for s, n, g in zip(stacked.shape, new_shape, grid)]
    return map_coordinates(stacked, np.array(places), order=0, mode="nearest").astype(np.float32)


def positions(size, patch, step):
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    apart = (size - patch) / (count - 1) if count > 1 else 0
    return [int(np.round(apart * i)) for i in range(count)]


def gaussian(patch):
    one = np.zeros(patch)
    one[tuple(p // 2 for p in patch)] = 1
    weights = torch.from_numpy(gaussian_filter(one, [p / 8 for p in patch], 0, mode="constant", cval=0))
    weights /= weights.max() / 10
    weights = weights.half()
    weights[weights == 0] = weights[weights != 0].min()
    return weights


def predict(net, data, mirror):
    size = data.shape
    padded = [max(s, p) for s, p in zip(size, PATCH)]
    before = [(n - s) // 2 for n, s in zip(padded, size)]
    data = np.pad(data, [(b, n - s - b) for b, n, s in zip(before, padded, size)])
    x = torch.from_numpy(data)[None, None]
    weights = gaussian(PATCH).float()
    total, sums = torch.zeros(padded), torch.zeros([3, *padded])
    copies = [[a for a in range(3) if bits >> a & 1] for bits in range(8 if mirror else 1)]
    places = [positions(n, p, 0.5) for n, p in zip(padded, PATCH)]
    for z in places[0]:
        for y in places[1]:
            for c in places[2]:
                tile = (slice(z, z + PATCH[0]), slice(y, y + PATCH[1]), slice(c, c + PATCH[2]))
                logits = 0
                for axes in copies:
                    dims = [a + 2 for a in axes]
                    logits = logits + torch.flip(net(torch.flip(x[(..., *tile)], dims)), dims)
                sums[(slice(None), *tile)] += weights * logits[0] / len(copies)
                total[tile] += weights
    inside = tuple(slice(b, b + s) for b, s in zip(before, size))
    return (sums / total)[(slice(None), *inside)].numpy()


def segment(net, image, spacing, mirror):
    filled = np.argwhere(image != 0)
    low, high = filled.min(0), filled.max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high))
    data = image[box].astype(np.float32)
    data = (np.clip(data, *CLIP) - np.float32(MEAN)) / np.float32(max(SD, 1e-8))
    cropped = data.shape
    shape = [int(round(a / b * n)) for a, b, n in zip(spacing, SPACING, cropped)]
    data = resample(data, shape, separate_axis(spacing, SPACING), 3)
    logits = predict(net, data, mirror)
    axis = separate_axis(SPACING, spacing)
    logits = np.stack([resample(c, cropped, axis, 1) for c in logits])
    shares = torch.softmax(torch.from_numpy(logits), 0).numpy()
    labels, probabilities = np.zeros(image.shape, np.uint8), np.zeros((2, *image.shape), np.float16)
    labels[box] = logits.argmax(0)
    probabilities[(slice(None), *box)] = shares[1:]
    return labels, probabilities


def image(shape, seed):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), [0.7, 1.5, 1.5])
    values = (smooth / smooth.std() * 150 + 100).round().astype(np.int16)
    values[values == 0] = 1
    # A border of zeros that is cut off, not the same on both sides, and a hole that is not.
    values[:, :2], values[:, -1:], values[..., :1] = 0, 0, 0
    values[2, 3, 4:7] = 0
    return values


def main():
    net = UNet().eval()
    net.load_state_dict(load_file("../unet/weights.safetensors"), strict=False)
    with torch.no_grad():
        for number, (name, (spacing, shape, mirror)) in enumerate(CASES.items()):
            values = image(shape, number)
            labels, probabilities = segment(net, values, spacing, mirror)
            np.save(f"{name}_image.npy", values)
            np.save(f"{name}_labels.npy", labels)
            np.save(f"{name}_probabilities.npy", probabilities)
            print(name, np.bincount(labels.ravel(), minlength=3))
    cases = [(16, 4, 0.5), (17, 4, 0.5), (97, 32, 0.5), (97, 32, 0.3), (160, 160, 0.5), (333, 80, 0.5), (341, 160, 0.7)]
    cases += [(9, 4, 1.0), (12, 7, 0.25), (129, 127, 0.5)]
    with open("positions.json", "w") as file:
        json.dump([{"size": s, "patch": p, "step": t, "positions": positions(s, p, t)} for s, p, t in cases], file)
        file.write("\n")
    for patch in ([5, 8, 12], [1, 7, 16], [64, 2, 3]):
        np.save("gaussian_" + "x".join(map(str, patch)) + ".npy", gaussian(patch).numpy())


if __name__ == "__main__":
    main()
