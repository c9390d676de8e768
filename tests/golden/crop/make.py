#!/usr/bin/env python3
"""Writes golden.json: the classifier's crops by NumPy and PyTorch, straight from the description of the method.

    pip install numpy torch && python3 make.py

The axial slice with the largest tumour area (the first of equal ones), the tight rectangle round the tumour on it grown by a
margin inside the slice, intensities clipped and normalised, resized by bilinear interpolation without align_corners.
"""
import json
import pathlib

import numpy as np
import torch

rng = np.random.default_rng(9)
CLIP, MEAN, SD, SIZE = (-40.0, 347.0), 112.75457, 97.87436, 32


def crop(image, mask, margin):
    areas = (mask == 2).sum(axis=(1, 2))
    z = int(np.argmax(areas))
    rows, columns = np.nonzero(mask[z] == 2)
    r0, r1 = max(rows.min() - margin, 0), min(rows.max() + margin, mask.shape[1] - 1)
    c0, c1 = max(columns.min() - margin, 0), min(columns.max() + margin, mask.shape[2] - 1)
    patch = (np.clip(image[z, r0:r1 + 1, c0:c1 + 1].astype(np.float64), *CLIP) - MEAN) / SD
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(patch)[None, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return {"slice": z, "rows": [int(r0), int(r1)], "columns": [int(c0), int(c1)], "area": int(areas[z]),
            "pixels": resized[0, 0].ravel().tolist()}


def case(shape, radius, margin, two=False):
    z, y, x = np.indices(shape)
    centre = [rng.uniform(0.3, 0.7) * n for n in shape]
    far = ((z - centre[0]) / 2) ** 2 + (y - centre[1]) ** 2 + ((x - centre[2]) / 1.4) ** 2
    mask = np.where(far < radius**2, 2, np.where(far < (1.8 * radius) ** 2, 1, 0)).astype(np.uint8)
    if two:
        mask[0, :2, :3] = 2
    image = rng.integers(-200, 500, shape).astype(np.int16)
    return {"shape": shape, "image": image.ravel().tolist(), "mask": mask.ravel().tolist(), "margin": margin, **crop(image, mask, margin)}


cases = [case((6, 20, 24), 4.5, 0), case((6, 20, 24), 4.5, 8), case((3, 30, 28), 7.0, 2, True), case((2, 9, 9), 0.9, 0)]
path = pathlib.Path(__file__).with_name("golden.json")
path.write_text(json.dumps({"torch": torch.__version__, "numpy": np.__version__, "size": SIZE, "clip": CLIP, "mean": MEAN, "sd": SD,
                            "cases": cases}) + "\n")
