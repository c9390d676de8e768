"""Golden gradients from PyTorch's autograd, in f64 on the CPU.

python tests/golden/gradients.py > tests/golden/gradients.txt
A line an array: the case, the operand, and the gradient in PyTorch's order. Operands are made by `values` below and in
compute/tests/it/golden_gradients.rs, which has the same cases.
"""

import torch
import torch.nn.functional as F

EPS, SLOPE = 1e-5, 0.01


def values(shape, salt):
    """From -2 to 2 in steps of 1 / 256, all different up to 1024 of them, without a random generator."""
    n = torch.Size(shape).numel()
    flat = [(i * 7919 + salt * 331) % 1024 / 256 - 2 for i in range(n)]
    return torch.tensor(flat, dtype=torch.float64).reshape(shape)


def case(name, operands, function):
    """`operands`: name -> shape. The gradients of sum(dy * function(operands))."""
    inputs = {key: values(shape, salt).requires_grad_() for salt, (key, shape) in enumerate(operands.items())}
    y = function(*inputs.values())
    gradients = torch.autograd.grad(y, list(inputs.values()), values(y.shape, 7))
    for key, gradient in zip(inputs, gradients):
        print(name, key, *gradient.flatten().tolist())


def main():
    print(f"# torch {torch.__version__}")
    for shape in [(2, 3, 3, 4, 5), (1, 17, 2, 3, 4)]:
        c = shape[1]
        operands = {"dx": shape, "dweight": (c,), "dbias": (c,)}

        def instance_norm(x, weight, bias):
            return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias, eps=EPS), SLOPE)

        def batch_norm(x, weight, bias):
            return F.leaky_relu(F.batch_norm(x, None, None, weight, bias, True, 0.0, EPS), SLOPE)

        case(f"instance_norm{shape}".replace(" ", ""), operands, instance_norm)
        case(f"batch_norm{shape}".replace(" ", ""), operands, batch_norm)
    for x, w, stride, padding in [
        ((2, 5, 2, 3, 4), (5, 3, 2, 2, 2), (2, 2, 2), (0, 0, 0)),
        ((1, 2, 3, 2, 3), (2, 4, 4, 3, 2), (3, 1, 2), (1, 1, 0)),
    ]:
        operands = {"dx": x, "dw": w, "db": (w[1],)}
        function = lambda x, w, b: F.conv_transpose3d(x, w, b, stride=stride, padding=padding)
        case(f"conv_transpose3d{w}".replace(" ", ""), operands, function)
    for shape, kernel, stride, padding in [
        ((2, 3, 5, 7, 6), (3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((1, 5, 4, 6, 9), (2, 2, 3), (2, 1, 2), (0, 1, 1)),
    ]:
        name = f"{shape}".replace(" ", "")
        case(f"max_pool3d{name}", {"dx": shape}, lambda x: F.max_pool3d(x, kernel, stride, padding))
        # Whole numbers: windows with several maxima.
        case(f"max_pool3d_ties{name}", {"dx": shape}, lambda x: F.max_pool3d((x * 256).remainder(3), kernel, stride, padding))
        case(f"avg_pool3d{name}", {"dx": shape}, lambda x: F.avg_pool3d(x, kernel, stride, padding))
    case("linear", {"dx": (3, 7), "dw": (5, 7), "db": (5,)}, F.linear)
    case("leaky_relu", {"dx": (1024,)}, lambda x: F.leaky_relu(x, SLOPE))


if __name__ == "__main__":
    main()
