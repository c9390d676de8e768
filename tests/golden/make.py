#!/usr/bin/env python3
"""Makes ops.safetensors and cases.json: small cases of every op, computed in float64 by the systems that nephron
follows. Each output carries a bound derived from float32 rounding, element by element.

Needs: torch, numpy, scipy, monai, safetensors (versions are written into cases.json). Run: python3 make.py
"""
import json
import platform

import monai
import numpy as np
import scipy
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from monai.networks.blocks import Warp
from safetensors.numpy import save_file
from scipy import ndimage

U = 2.0**-24  # unit roundoff of float32
rng = np.random.default_rng(20261123)
arrays, cases = {}, []


def gamma(k):
    return k * U / (1 - k * U)


def t(a):
    return torch.from_numpy(np.asarray(a)).double()


def draw(*shape):
    """Uniform in [-1, 1), exact in float32."""
    return rng.uniform(-1, 1, shape).astype(np.float32)


def case(op, inputs, outputs, attrs=()):
    """outputs: name -> (value, bound), float64."""
    name = f"{op}.{sum(c['op'] == op for c in cases)}"
    entry = {"op": op, "name": name, "attrs": list(attrs), "inputs": [], "outputs": []}
    for key, value in inputs.items():
        value = np.ascontiguousarray(value)
        arrays[f"{name}/in/{key}"] = value.astype(np.float32)
        entry["inputs"].append({"name": key, "labels": value.dtype == np.uint8})
    for key, (value, bound) in outputs.items():
        value = np.asarray(value, dtype=np.float64)
        bound = np.broadcast_to(np.asarray(bound, dtype=np.float64), value.shape)
        assert np.isfinite(value).all() and (bound >= 0).all(), name
        # The golden value is itself rounded to float32 in the file.
        arrays[f"{name}/want/{key}"] = value.astype(np.float32)
        arrays[f"{name}/bound/{key}"] = (bound + 2 * U * np.abs(value) + 1e-38).astype(np.float32)
        entry["outputs"].append(key)
    cases.append(entry)


def csv(values):
    return ",".join(str(v) for v in values)


def conv_cases():
    table = [  # n, ci, co, size, kernel, stride, padding, dilation, groups, bias
        (1, 1, 1, (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, True),
        (2, 3, 5, (5, 7, 6), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, True),
        (1, 4, 7, (5, 9, 7), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), 1, False),
        (2, 2, 3, (3, 6, 5), (1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 1), 1, True),
        (1, 3, 2, (7, 3, 4), (3, 1, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1), 1, True),
        (1, 6, 4, (4, 5, 5), (3, 3, 3), (1, 1, 1), (2, 2, 2), (2, 2, 2), 2, True),
        (1, 5, 5, (3, 4, 5), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 5, False),
        (1, 17, 19, (2, 3, 3), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, True),
        (1, 3, 4, (1, 11, 13), (1, 7, 7), (1, 2, 2), (0, 3, 3), (1, 1, 1), 1, False),
        (1, 2, 2, (5, 5, 5), (2, 4, 2), (2, 1, 3), (1, 2, 0), (1, 1, 1), 1, True),
    ]
    for n, ci, co, size, kernel, stride, padding, dilation, groups, bias in table:
        x, w = draw(n, ci, *size), draw(co, ci // groups, *kernel)
        b = draw(co) if bias else None
        options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        attrs = [f"stride={csv(stride)}", f"padding={csv(padding)}", f"dilation={csv(dilation)}", f"groups={groups}"]
        inputs = {"x": x, "w": w} | ({"b": b} if bias else {})
        y = F.conv3d(t(x), t(w), None if b is None else t(b), **options)
        magnitude = F.conv3d(t(x).abs(), t(w).abs(), None if b is None else t(b).abs(), **options)
        terms = w[0].size + 1
        case("conv3d", inputs, {"y": (y, gamma(terms) * magnitude)}, attrs)

        dy = draw(*y.shape)
        grads = []
        for sign in (lambda v: v, torch.abs):
            vx, vw = sign(t(x)).requires_grad_(), sign(t(w)).requires_grad_()
            vb = torch.zeros(co, dtype=torch.float64, requires_grad=True)
            F.conv3d(vx, vw, vb, **options).backward(sign(t(dy)))
            grads.append((vx.grad, vw.grad, vb.grad))
        (dx, dw, db), (mx, mw, mb) = grads
        per_x, per_w = co // groups * int(np.prod(kernel)), dy.size // co
        outputs = {"dx": (dx, gamma(per_x + 1) * mx), "dw": (dw, gamma(per_w + 1) * mw), "db": (db, gamma(per_w + 1) * mb)}
        case("conv3d_backward", {"x": x, "w": w, "dy": dy}, outputs, attrs)

    for n, ci, co, size, kernel, stride, padding in [
        (1, 1, 1, (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        (2, 5, 3, (3, 4, 5), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
        (1, 3, 4, (2, 5, 3), (1, 2, 2), (1, 2, 2), (0, 0, 0)),
        (1, 2, 3, (3, 4, 3), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        (1, 2, 2, (3, 3, 3), (4, 3, 2), (3, 1, 2), (1, 1, 0)),
    ]:
        x, w, b = draw(n, ci, *size), draw(ci, co, *kernel), draw(co)
        options = dict(stride=stride, padding=padding)
        y = F.conv_transpose3d(t(x), t(w), t(b), **options)
        magnitude = F.conv_transpose3d(t(x).abs(), t(w).abs(), t(b).abs(), **options)
        attrs = [f"stride={csv(stride)}", f"padding={csv(padding)}"]
        bound = gamma(ci * int(np.prod(kernel)) + 1) * magnitude
        case("conv_transpose3d", {"x": x, "w": w, "b": b}, {"y": (y, bound)}, attrs)


def norm_cases():
    for shape, scale, offset in [((2, 3, 3, 4, 5), 1, 0), ((1, 5, 1, 1, 1), 1, 0), ((1, 2, 5, 7, 3), 2, 100)]:
        x = (draw(*shape) * scale + offset).astype(np.float32)
        c, voxels = shape[1], int(np.prod(shape[2:]))
        weight, bias, mean = draw(c), draw(c), draw(c)
        var = (rng.uniform(0.5, 2, c)).astype(np.float32)
        if voxels > 1:
            y = F.instance_norm(t(x), weight=t(weight), bias=t(bias), eps=1e-5)
        else:  # torch refuses a single voxel; its variance is 0, so the bias is what remains
            y = t(bias).reshape(1, c, 1, 1, 1).expand(*shape)
        # y = w (x - m) / s + b: m and s carry a relative error of gamma_{n+2}, and x - m one of |m|'s.
        s = torch.sqrt(t(x).var(dim=(2, 3, 4), unbiased=False, keepdim=True) + 1e-5)
        m = t(x).mean(dim=(2, 3, 4), keepdim=True)
        gain = t(weight).abs().reshape(1, c, 1, 1, 1)
        magnitude = gain * (t(x).abs() + m.abs()) / s + t(bias).abs().reshape(1, c, 1, 1, 1)
        case("instance_norm", {"x": x, "weight": weight, "bias": bias}, {"y": (y, gamma(voxels + 8) * magnitude)}, ["eps=1e-5"])
        y = F.batch_norm(t(x), t(mean), t(var), t(weight), t(bias), False, 0.0, 1e-5)
        root = torch.sqrt(t(var) + 1e-5).reshape(1, c, 1, 1, 1)
        magnitude = gain * (t(x).abs() + t(mean).abs().reshape(1, c, 1, 1, 1)) / root + t(bias).abs().reshape(1, c, 1, 1, 1)
        inputs = {"x": x, "weight": weight, "bias": bias, "mean": mean, "var": var}
        case("batch_norm", inputs, {"y": (y, gamma(10) * magnitude)}, ["eps=1e-5"])
        case("leaky_relu", {"x": x}, {"y": (F.leaky_relu(t(x), 0.01), gamma(2) * t(x).abs())}, ["slope=0.01"])
        # exp(x - max): the difference carries u |x - max| into the exponent.
        y = F.softmax(t(x), dim=1)
        spread = (t(x).amax(1, keepdim=True) - t(x)).abs()
        case("softmax", {"x": x}, {"y": (y, gamma(c + 8) * y * (1 + spread + t(x).abs().amax(1, keepdim=True)))})


def pool_cases():
    for shape, kernel, stride, padding in [
        ((1, 1, 1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((2, 3, 5, 7, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((1, 5, 4, 6, 9), (2, 2, 3), (2, 1, 2), (0, 1, 1)),
        ((1, 2, 1, 7, 7), (1, 7, 7), (1, 1, 1), (0, 0, 0)),
    ]:
        x = draw(*shape)
        attrs = [f"kernel={csv(kernel)}", f"stride={csv(stride)}", f"padding={csv(padding)}"]
        case("max_pool3d", {"x": x}, {"y": (F.max_pool3d(t(x), kernel, stride, padding), 0)}, attrs)
        mean = F.avg_pool3d(t(x).abs(), kernel, stride, padding)
        bound = gamma(int(np.prod(kernel)) + 2) * mean
        case("avg_pool3d", {"x": x}, {"y": (F.avg_pool3d(t(x), kernel, stride, padding), bound)}, attrs)


def sampling_bound(x, sizes, roundings=8):
    """Weights and sums, plus coordinates that are off by a few u * size, times the steepest step of x."""
    return gamma(12) * np.abs(x).max() + roundings * U * max(sizes) * 3 * (x.max() - x.min())


def sampling_cases():
    for shape, size in [((1, 1, 1, 1, 1), (2, 3, 1)), ((2, 3, 5, 7, 6), (8, 4, 11)), ((1, 2, 4, 1, 9), (3, 5, 4)), ((1, 1, 6, 5, 7), (6, 5, 7))]:
        x = draw(*shape)
        for align in (False, True):
            y = F.interpolate(t(x), size=size, mode="trilinear", align_corners=align)
            attrs = [f"size={csv(size)}", "mode=trilinear", f"align_corners={str(align).lower()}"]
            case("interpolate3d", {"x": x}, {"y": (y, sampling_bound(x, shape[2:]))}, attrs)
        y = F.interpolate(torch.from_numpy(x), size=size, mode="nearest")
        case("interpolate3d", {"x": x}, {"y": (y, 0)}, [f"size={csv(size)}", "mode=nearest"])

        n = shape[0]
        for align in (False, True):
            theta = (np.eye(3, 4)[None] + 0.3 * rng.uniform(-1, 1, (n, 3, 4))).astype(np.float32)
            full = (n, shape[1], *size)
            grid = F.affine_grid(t(theta), list(full), align_corners=align)
            bound = gamma(8) * F.affine_grid(t(theta).abs(), list(full), align_corners=align).abs().amax() * np.ones(grid.shape)
            flag = f"align_corners={str(align).lower()}"
            case("affine_grid3d", {"theta": theta}, {"grid": (grid, bound * 2)}, [f"size={csv(full)}", flag])
            points = rng.uniform(-1.4, 1.4, (n, *size, 3)).astype(np.float32)
            for padding in ("zeros", "border"):
                y = F.grid_sample(t(x), t(points), mode="bilinear", padding_mode=padding, align_corners=align)
                attrs = ["mode=bilinear", f"padding={padding}", flag]
                case("grid_sample3d", {"x": x, "grid": points}, {"y": (y, sampling_bound(x, shape[2:]) + 24 * U * max(shape[2:]) * np.abs(x).max())}, attrs)
                y = F.grid_sample(torch.from_numpy(x), torch.from_numpy(points), mode="nearest", padding_mode=padding, align_corners=align)
                case("grid_sample3d", {"x": x, "grid": points}, {"y": (y, 0)}, ["mode=nearest", f"padding={padding}", flag])

        flow = (2 * rng.uniform(-1, 1, (n, 3, *shape[2:]))).astype(np.float32)
        if min(shape[2:]) > 1:  # MONAI divides by size - 1
            y = Warp(mode="bilinear", padding_mode="border")(t(x), t(flow))
            case("warp3d", {"x": x, "flow": flow}, {"y": (y, sampling_bound(x, shape[2:]))})

        planes = [[ndimage.zoom(t(v).numpy(), [o / i for o, i in zip(size, shape[2:])], order=3, mode="nearest", grid_mode=True) for v in image] for image in x]
        y = np.clip(np.array(planes), x.min(axis=(2, 3, 4), keepdims=True), x.max(axis=(2, 3, 4), keepdims=True))
        # The prefilter's gain is 3 an axis at the most (sum of |coefficients| of the inverse), its recursion ~26 terms.
        case("bspline_resample3d", {"x": x}, {"y": (y, 27 * gamma(90) * np.abs(x).max() + sampling_bound(x, shape[2:]) * 9)}, [f"size={csv(size)}"])


def dice_cases():
    for shape in [(1, 1, 1, 1, 1), (2, 3, 3, 4, 5), (1, 2, 7, 5, 3)]:
        voxels = int(np.prod(shape[2:]))
        p = rng.uniform(0, 1, shape).astype(np.float32)
        g = (rng.uniform(0, 1, shape) > 0.5).astype(np.float32)
        tp = t(p).requires_grad_()
        loss = DiceLoss(smooth_nr=1e-5, smooth_dr=1e-5)(tp, t(g))
        loss.backward()
        total = float(np.prod(shape[:2]))
        least = float((t(p).sum((2, 3, 4)) + t(g).sum((2, 3, 4))).min()) + 1e-5
        bound = gamma(4 * voxels + 16)
        case("dice", {"p": p, "g": g}, {"loss": ([loss.item()], 2 * bound), "dp": (tp.grad, bound * 8 / (total * least))}, ["smooth=1e-5"])

        c = max(shape[1], 2)
        logits = (3 * draw(shape[0], c, *shape[2:])).astype(np.float32)
        labels = rng.integers(0, c, (shape[0], *shape[2:])).astype(np.uint8)
        tl = t(logits).requires_grad_()
        target = torch.from_numpy(labels.astype(np.int64))
        onehot = F.one_hot(target, c).movedim(-1, 1).double()
        loss = F.cross_entropy(tl, target) + DiceLoss(smooth_nr=1e-5, smooth_dr=1e-5)(F.softmax(tl, 1), onehot)
        loss.backward()
        terms = gamma(4 * voxels * shape[0] + 40)
        least = float((F.softmax(t(logits), 1).sum((2, 3, 4)) + onehot.sum((2, 3, 4))).min()) + 1e-5
        scale = 2 / (voxels * shape[0]) + 8 / (shape[0] * c * least)
        case("dice_ce", {"logits": logits, "labels": labels}, {"loss": ([loss.item()], terms * 16), "dlogits": (tl.grad, terms * scale * 4)}, ["smooth=1e-5"])


def blob(shape, centre, radius):
    z, y, x = np.meshgrid(*[np.arange(s) for s in shape], indexing="ij")
    d = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radius))
    labels = (d < 1).astype(np.uint8)
    labels[d < 0.2] = 2
    return labels


def affine_dice_cases():
    for fixed_shape, moving_shape in [((9, 10, 11), (9, 10, 11)), ((7, 12, 9), (8, 9, 13))]:
        fixed = blob(fixed_shape, [s / 2 for s in fixed_shape], [s / 3 for s in fixed_shape])
        moving = blob(moving_shape, [s / 2 - 0.6 for s in moving_shape], [s / 3.3 for s in moving_shape])
        for align in (True, False):
            theta = (np.eye(3, 4) + 0.1 * rng.uniform(-1, 1, (3, 4))).astype(np.float32)
            th = t(theta)[None].requires_grad_()
            grid = F.affine_grid(th, [1, 1, *fixed_shape], align_corners=align)
            losses = []
            for members in ([2], [1, 2]):
                m = t(np.isin(moving, members).astype(np.float64))[None, None]
                f = t(np.isin(fixed, members).astype(np.float64))[None, None]
                warped = F.grid_sample(m, grid, padding_mode="border", align_corners=align)
                losses.append(-(2 * (warped * f).sum() + 1) / (warped.sum() + f.sum() + 1))
            loss = torch.stack(losses).mean()
            loss.backward()
            grad = th.grad[0].numpy()
            # Coordinates are off by ~8 u * size; each moves a value by that much at the most, and its gradient across a
            # face by a whole step with the probability of being that close to it.
            bound = 64 * U * max(moving_shape) * max(1.0, np.abs(grad).max())
            flags = [f"align_corners={str(align).lower()}", "smooth=1"]
            inputs = {"fixed": fixed, "moving": moving, "theta": theta}
            case("affine_dice", inputs, {"loss": ([loss.item()], bound), "dtheta": (grad, bound * 4)}, flags)


def gradients(function, operands, dy):
    """By all operands, and those with every operand replaced by its absolute value: the sums of absolute terms."""
    results = []
    for sign in (lambda v: v, torch.abs):
        inputs = [sign(t(v)).requires_grad_() for v in operands]
        results.append(torch.autograd.grad(function(*inputs), inputs, sign(t(dy))))
    return results


def norm_gradient_bounds(x, weight, bias, dy, axes, count):
    """What the rounding of dx, dweight and dbias is a multiple of, to first order: the mean is off by a multiple of mean |x|, the standard
    deviation of itself and mean |x|. dy where the argument of the activation is that close to 0 has to be 0."""
    mean, scale = x.mean(axes, keepdim=True), x.abs().mean(axes, keepdim=True)
    sd = (x.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
    rough = (x.abs() + scale + (x - mean).abs() * (4 + scale / sd)) / sd
    by_weight = (dy.abs() * rough).sum(axes, keepdim=True)
    by_bias = dy.abs().sum(axes, keepdim=True)
    w = weight.abs().reshape(1, -1, 1, 1, 1)
    by_x = w / sd * (dy.abs() + by_bias / count + rough * by_weight / count) * (4 + 2 * scale / sd)
    near = ((x - mean) / sd * weight.reshape(w.shape) + bias.reshape(w.shape)).abs() < 1e-4 * (w * rough + bias.abs().reshape(w.shape))
    return by_x, by_weight.sum((0, 2, 3, 4)), by_bias.sum((0, 2, 3, 4)), near


def training_cases():
    """Gradients and losses; a generator of their own, so that they can be made without the cases before them."""
    global rng
    rng = np.random.default_rng(20261127)
    for n, ci, co, size, kernel, stride, padding in [
        (1, 1, 1, (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        (2, 5, 3, (3, 4, 5), (2, 2, 2), (2, 2, 2), (0, 0, 0)),
        (1, 2, 3, (3, 4, 3), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        (1, 2, 2, (3, 3, 3), (4, 3, 2), (3, 1, 2), (1, 1, 0)),
    ]:
        x, w = draw(n, ci, *size), draw(ci, co, *kernel)
        function = lambda x, w, b: F.conv_transpose3d(x, w, b, stride=stride, padding=padding)
        dy = draw(*function(t(x), t(w), t(np.zeros(co))).shape)
        (dx, dw, db), (mx, mw, mb) = gradients(function, (x, w, np.zeros(co)), dy)
        terms = (co * int(np.prod(kernel)), x.size // ci, dy.size // co)
        outputs = {"dx": (dx, gamma(terms[0] + 1) * mx), "dw": (dw, gamma(terms[1] + 1) * mw), "db": (db, gamma(terms[2] + 1) * mb)}
        attrs = [f"stride={csv(stride)}", f"padding={csv(padding)}"]
        case("conv_transpose3d_backward", {"x": x, "w": w, "dy": dy}, outputs, attrs)

    for shape, slope in [((2, 3, 3, 4, 5), 0.01), ((1, 2, 5, 7, 3), 1.0), ((3, 17, 2, 1, 3), 0.0)]:
        x, dy, weight, bias = draw(*shape), draw(*shape), draw(shape[1]), draw(shape[1])
        for op, axes in [("instance_norm", (2, 3, 4)), ("batch_norm_train", (0, 2, 3, 4))]:
            count = int(np.prod([shape[a] for a in axes]))
            own = dy.copy()
            own[norm_gradient_bounds(t(x), t(weight), t(bias), t(dy), axes, count)[3].numpy()] = 0
            vx, vw, vb = (t(v).requires_grad_() for v in (x, weight, bias))
            if op == "instance_norm":
                y = F.instance_norm(vx, weight=vw, bias=vb, eps=1e-5)
            else:
                y = F.batch_norm(vx, None, None, vw, vb, True, 0.0, 1e-5)
            F.leaky_relu(y, slope).backward(t(own))
            bx, bw, bb, _ = norm_gradient_bounds(t(x), t(weight), t(bias), t(own), axes, count)
            k = gamma(4 * (count + 40))
            outputs = {"dx": (vx.grad, k * bx), "dweight": (vw.grad, k * bw), "dbias": (vb.grad, k * bb)}
            inputs = {"x": x, "weight": weight, "bias": bias, "dy": own}
            case(f"{op}_backward", inputs, outputs, ["eps=1e-5", f"slope={slope}"])
        vx = t(x).requires_grad_()
        F.leaky_relu(vx, 0.01).backward(t(dy))
        case("leaky_relu_backward", {"x": x, "dy": dy}, {"dx": (vx.grad, gamma(2) * vx.grad.abs())}, ["slope=0.01"])

    for shape, kernel, stride, padding in [
        ((1, 1, 1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((2, 3, 5, 7, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((1, 5, 4, 6, 9), (2, 2, 3), (2, 1, 2), (0, 1, 1)),
        ((1, 2, 1, 7, 7), (1, 7, 7), (1, 1, 1), (0, 0, 0)),
    ]:
        # Few values, so that windows have several maxima.
        x = np.round(3 * draw(*shape)).astype(np.float32)
        dy = draw(*F.max_pool3d(t(x), kernel, stride, padding).shape)
        attrs = [f"kernel={csv(kernel)}", f"stride={csv(stride)}", f"padding={csv(padding)}"]
        k = gamma(int(np.prod(kernel)) + 4)
        for op, function in [("max", F.max_pool3d), ("avg", F.avg_pool3d)]:
            vx = t(x).requires_grad_()
            (dx,) = torch.autograd.grad(function(vx, kernel, stride, padding), vx, t(dy))
            (mx,) = torch.autograd.grad(function(vx, kernel, stride, padding), vx, t(dy).abs())
            inputs = {"x": x, "dy": dy} if op == "max" else {"dy": dy}
            size = [] if op == "max" else [f"size={csv(shape)}"]
            case(f"{op}_pool3d_backward", inputs, {"dx": (dx, k * mx)}, attrs + size)

    for shape in [(1, 2, 7, 5, 3), (3, 4, 1, 2, 4)]:
        n, c, *size = shape
        voxels = int(np.prod(size))
        logits = (3 * draw(*shape)).astype(np.float32)
        labels = rng.integers(0, c, (n, *size)).astype(np.uint8)
        target = torch.from_numpy(labels.astype(np.int64))
        onehot = F.one_hot(target, c).movedim(-1, 1).double()
        terms = gamma(4 * voxels * n + 40)
        for batch, background in [(False, False), (True, False), (True, True)]:
            tl = t(logits).requires_grad_()
            axes = (0, 2, 3, 4) if batch else (2, 3, 4)
            p, g = (v[:, 0 if background else 1 :] for v in (F.softmax(tl, 1), onehot))
            below = (p + g).sum(axes) + 1e-5
            loss = F.cross_entropy(tl, target) - ((2 * (p * g).sum(axes) + 1e-5) / below).mean()
            loss.backward()
            scale = 2 / (voxels * n) + 8 / (below.numel() * float(below.detach().min()))
            attrs = [f"batch={str(batch).lower()}", f"background={str(background).lower()}", "smooth=1e-5"]
            outputs = {"loss": ([loss.item()], terms * 16), "dlogits": (tl.grad, terms * scale * 4)}
            case("segmentation_loss", {"logits": logits, "labels": labels}, outputs, attrs)
        tl = t(logits).requires_grad_()
        loss = F.cross_entropy(tl, target)
        loss.backward()
        outputs = {"loss": ([loss.item()], gamma(40) * 16), "dlogits": (tl.grad, gamma(40) * 8 / (voxels * n))}
        case("cross_entropy", {"logits": logits, "labels": labels}, outputs)


def adaptive_pool_cases():
    for shape, size in [((2, 3, 1, 9, 11), (1, 6, 6)), ((1, 5, 4, 7, 3), (2, 3, 5))]:
        x = draw(*shape)
        largest = int(np.prod([-(-s // b) + 1 for s, b in zip(shape[2:], size)]))
        bound = gamma(largest + 2) * F.adaptive_avg_pool3d(t(x).abs(), size)
        case("adaptive_avg_pool3d", {"x": x}, {"y": (F.adaptive_avg_pool3d(t(x), size), bound)}, [f"size={csv(size)}"])


conv_cases()
norm_cases()
pool_cases()
sampling_cases()
dice_cases()
affine_dice_cases()
training_cases()
adaptive_pool_cases()
save_file(arrays, "ops.safetensors")
versions = {m.__name__: m.__version__ for m in (torch, np, scipy, monai)} | {"python": platform.python_version()}
with open("cases.json", "w") as out:
    json.dump({"versions": versions, "cases": cases}, out, indent=1)
print(len(cases), "cases,", sum(a.nbytes for a in arrays.values()) // 1024, "KiB")
