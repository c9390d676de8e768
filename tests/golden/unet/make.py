"""Golden U-Net: a tiny PlainConvUNet in PyTorch with nnU-Net v2's names, its plan, one input and its logits.

Run with PyTorch 2.8.0 (CPU), safetensors 0.8: `python make.py` in this folder.
"""

import json

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

FEATURES = [3, 4, 5]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
ENCODER_CONVS = [2, 1, 2]
DECODER_CONVS = [1, 2]
CLASSES = 3
PATCH = [4, 8, 12]


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, [(k - 1) // 2 for k in kernel])
        self.norm = nn.InstanceNorm3d(outputs, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU()
        # nnU-Net registers the same modules a second time under this name; a reader must cope with it.
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x):
        return self.all_modules(x)


class Stack(nn.Module):
    def __init__(self, count, inputs, outputs, kernel, stride):
        super().__init__()
        self.convs = nn.Sequential(
            Block(inputs, outputs, kernel, stride),
            *[Block(outputs, outputs, kernel, [1, 1, 1]) for _ in range(count - 1)],
        )

    def forward(self, x):
        return self.convs(x)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        stages, inputs = [], 1
        for count, outputs, kernel, stride in zip(ENCODER_CONVS, FEATURES, KERNELS, STRIDES):
            stages.append(nn.Sequential(Stack(count, inputs, outputs, kernel, stride)))
            inputs = outputs
        self.stages = nn.Sequential(*stages)

    def forward(self, x):
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        stages, ups, heads = [], [], []
        for i, count in enumerate(DECODER_CONVS):
            below, skip = FEATURES[-1 - i], FEATURES[-2 - i]
            ups.append(nn.ConvTranspose3d(below, skip, STRIDES[-1 - i], STRIDES[-1 - i]))
            stages.append(Stack(count, 2 * skip, skip, KERNELS[-2 - i], [1, 1, 1]))
            heads.append(nn.Conv3d(skip, CLASSES, 1))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(ups)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips):
        x = skips[-1]
        for i, (up, stage) in enumerate(zip(self.transpconvs, self.stages)):
            x = stage(torch.cat((up(x), skips[-2 - i]), 1))
        return self.seg_layers[-1](x)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(self.encoder)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def main():
    torch.manual_seed(20)
    net = UNet().eval()
    with torch.no_grad():
        for name, value in net.named_parameters():
            if ".norm." in name:
                value.uniform_(0.5, 1.5) if name.endswith("weight") else value.uniform_(-0.5, 0.5)
        x = torch.randn(1, 1, *PATCH)
        # A trained network's logits tell classes apart, and every class occurs.
        head = net.decoder.seg_layers[-1]
        head.weight *= 4
        head.bias -= net(x).mean((0, 2, 3, 4))
        logits = net(x)
    state = {k: v.clone().contiguous() for k, v in net.state_dict().items()}
    # One duplicate of nnU-Net's is kept as a witness; the others would triple the file.
    witness = "decoder.encoder.stages.0.0.convs.0.conv.bias"
    keep = {k: v for k, v in state.items() if k == witness or not ("all_modules" in k or k.startswith("decoder.encoder"))}
    save_file(keep, "weights.safetensors")
    np.save("input.npy", x.numpy())
    np.save("logits.npy", logits.numpy())
    plans = {
        "dataset_name": "Dataset999_Golden",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": {"spacing": [1.5, 1.5], "patch_size": [8, 12]},
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "batch_size": 2,
                "patch_size": PATCH,
                "spacing": [3.0, 1.5, 1.5],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {
                    "is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None,
                },
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 3,
                        "features_per_stage": FEATURES,
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": KERNELS,
                        "strides": STRIDES,
                        "n_conv_per_stage": ENCODER_CONVS,
                        "n_conv_per_stage_decoder": DECODER_CONVS,
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            },
        },
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 3071.0, "mean": 112.75457, "median": 112.0, "min": -1015.0,
                "percentile_00_5": -40.0, "percentile_99_5": 347.0, "std": 97.87436,
            }
        },
    }
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "tumour": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    for name, value in (("plans", plans), ("dataset", dataset)):
        with open(f"{name}.json", "w") as file:
            json.dump(value, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
