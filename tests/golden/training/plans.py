"""Plans and prepared cases of nnU-Net v2.8.1 for data sets that are given by numbers alone.

    python plans.py     writes plans.json and case.safetensors beside itself

plans.json: drawn fingerprints (spacings and sizes of the cases) with what nnU-Net's ExperimentPlanner makes of them. fingerprint:
the intensities that its DatasetFingerprintExtractor finds in five small images. case.safetensors: one of these images and its
labels after its DefaultPreprocessor. The images follow from `image` and `labels` below, which the tests repeat.
"""

import contextlib
import io
import json
import pathlib

import numpy as np
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def planner(fingerprint, classes, channels=("CT",), memory=8.0):
    p = ExperimentPlanner.__new__(ExperimentPlanner)
    labels = {"background": 0, **{f"l{i}": i for i in range(1, classes)}}
    p.dataset_json = {
        "channel_names": {str(i): c for i, c in enumerate(channels)},
        "labels": labels,
        "numTraining": len(fingerprint["spacings"]),
        "file_ending": ".nii.gz",
    }
    # What __init__ sets, without the folders that it wants.
    from nnunetv2.configuration import ANISO_THRESHOLD
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    p.dataset_name = "Dataset001_Test"
    p.suppress_transpose = False
    p.dataset_fingerprint = fingerprint
    p.anisotropy_threshold = ANISO_THRESHOLD
    p.UNet_base_num_features = 32
    p.UNet_class = PlainConvUNet
    p.UNet_reference_val_3d = 560000000
    p.UNet_reference_val_2d = 85000000
    p.UNet_reference_com_nfeatures = 32
    p.UNet_reference_val_corresp_GB = 8
    p.UNet_reference_val_corresp_bs_2d = 12
    p.UNet_reference_val_corresp_bs_3d = 2
    p.UNet_featuremap_min_edge_length = 4
    p.UNet_blocks_per_stage_encoder = (2,) * 14
    p.UNet_blocks_per_stage_decoder = (2,) * 13
    p.UNet_min_batch_size = 2
    p.UNet_max_features_2d = 512
    p.UNet_max_features_3d = 320
    p.max_dataset_covered = 0.05
    p.UNet_vram_target_GB = memory
    p.lowres_creation_threshold = 0.25
    p.preprocessor_name = "DefaultPreprocessor"
    p.plans_identifier = "nnUNetPlans"
    p.overwrite_target_spacing = None
    p.plans = None
    p.raw_dataset_folder = "."
    p.determine_reader_writer = lambda: type("SimpleITKIO", (), {})
    p.save_plans = lambda plans: None
    return p


@contextlib.contextmanager
def quiet():
    import shutil

    copy, shutil.copy = shutil.copy, lambda *a: None
    import nnunetv2.experiment_planning.experiment_planners.default_experiment_planner as module

    module.nnUNet_preprocessed = "."
    with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
        yield
    shutil.copy = copy


def plain(value):
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def drawn(rng):
    cases = int(rng.choice([1, 3, 8, 40]))
    kind = rng.integers(6)
    base = [
        [5.0, 0.8, 0.8],
        [1.0, 1.0, 1.0],
        [3.0, 1.5, 1.5],
        [0.7, 0.7, 10.0],
        [2.5, 0.5, 0.9],
        [12.0, 1.3, 1.3],
    ][kind]
    size = [
        [40, 512, 512],
        [155, 240, 240],
        [90, 210, 190],
        [320, 320, 12],
        [120, 512, 400],
        [10, 230, 200],
    ][kind]
    spacings = [[round(float(s * rng.uniform(0.8, 1.25)), 4) for s in base] for _ in range(cases)]
    shapes = [[max(1, int(s * rng.uniform(0.6, 1.3))) for s in size] for _ in range(cases)]
    return spacings, shapes, int(rng.integers(2, 6)), float(rng.choice([8.0, 8.0, 24.0, 4.0]))


def plans():
    rng = np.random.default_rng(7)
    found = []
    for _ in range(36):
        spacings, shapes, classes, memory = drawn(rng)
        properties = {"0": {"mean": 1.0, "std": 1.0, "percentile_00_5": 0.0, "percentile_99_5": 2.0, "min": 0.0, "max": 3.0, "median": 1.0}}
        fingerprint = {
            "spacings": spacings,
            "shapes_after_crop": shapes,
            "foreground_intensity_properties_per_channel": properties,
            "median_relative_size_after_cropping": 1.0,
        }
        with quiet():
            p = planner(fingerprint, classes, memory=memory).plan_experiment()
        configurations = {}
        for name, c in p["configurations"].items():
            if "patch_size" not in c:
                continue
            kw = c["architecture"]["arch_kwargs"]
            configurations[name] = plain(
                {
                    "spacing": c["spacing"],
                    "median": c["median_image_size_in_voxels"],
                    "patch": c["patch_size"],
                    "batch": c["batch_size"],
                    "features": kw["features_per_stage"],
                    "kernels": kw["kernel_sizes"],
                    "strides": kw["strides"],
                    "batch_dice": c["batch_dice"],
                }
            )
        found.append(
            {
                "spacings": spacings,
                "shapes": shapes,
                "classes": classes,
                "memory": memory,
                "transpose": plain(p["transpose_forward"]),
                "configurations": configurations,
            }
        )
    return found


SHAPE = (10, 14, 12)


def image(case):
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    values = (z * 7 + y * 13 + x * 29 + z * y * x * 3 + case * 31) % 200 - 50
    values[: 1 + case % 2] = 0
    values[:, :, 11:] = 0
    return values.astype(np.float32)


def labels(case):
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    found = np.zeros(SHAPE, np.int16)
    found[(z - 5) ** 2 + (y - 7) ** 2 + (x - 5) ** 2 < 16] = 1
    found[(z - 5) ** 2 + (y - 8) ** 2 + (x - 6 + case) ** 2 < 5] = 2
    return found


def fingerprint():
    drawn, shapes = [], []
    for case in range(5):
        data, seg, _ = crop_to_nonzero(image(case)[None], labels(case)[None])
        shapes.append(list(data.shape[1:]))
        drawn.append(DatasetFingerprintExtractor.collect_foreground_intensities(seg, data, num_samples=20_000_000)[0][0])
    values = np.concatenate(drawn)
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return plain(
        {
            "shapes": shapes,
            "mean": float(np.mean(values, dtype=np.float64)),
            "std": float(np.std(values, dtype=np.float64)),
            "median": median,
            "min": values.min(),
            "max": values.max(),
            "percentile_00_5": low,
            "percentile_99_5": high,
            "samples": len(values),
        }
    )


def case():
    properties = {"spacing": [4.0, 1.0, 0.75]}
    function = "resample_data_or_seg_to_shape"
    kwargs = lambda is_seg, order: {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
    plan = {
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 40.0, "std": 50.0, "percentile_00_5": -40.0, "percentile_99_5": 130.0}
        },
        "configurations": {
            "3d_fullres": {
                "preprocessor_name": "DefaultPreprocessor",
                "spacing": [2.5, 0.8, 0.8],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": function,
                "resampling_fn_data_kwargs": kwargs(False, 3),
                "resampling_fn_seg": function,
                "resampling_fn_seg_kwargs": kwargs(True, 1),
                "patch_size": [8, 8, 8],
                "architecture": {},
            }
        },
    }
    manager = PlansManager(plan)
    dataset = {"labels": {"background": 0, "one": 1, "two": 2}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    data, seg, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        image(1)[None], labels(1)[None], properties, manager, manager.get_configuration("3d_fullres"), dataset
    )
    return {"image": np.ascontiguousarray(data, np.float32), "labels": np.ascontiguousarray(seg, np.float32)}


if __name__ == "__main__":
    found = {"fingerprint": fingerprint(), "plans": plans()}
    text = json.dumps(found["fingerprint"])
    lines = ",\n".join(json.dumps(plan, separators=(",", ":")) for plan in found["plans"])
    (HERE / "plans.json").write_text(f'{{"fingerprint": {text},\n"plans": [\n{lines}\n]}}\n')
    save_file(case(), HERE / "case.safetensors")
