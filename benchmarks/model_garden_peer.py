"""TFLite files of the official TensorFlow Model Garden: MoViNet streams, fp32 and full-integer int8.

    python benchmarks/model_garden_peer.py FOLDER --frames frames.npz --models a0 a1 a2

`benchmarks/streaming.py` runs this in an environment of its own, which has `tf-models-official` and no mvtool. The model is exported with the flags that the
Model Garden's README gives for phones, one frame per call, states as inputs and outputs; int8 follows its `quantize_movinet.py`: three random frames
of every clip, the first among them, with the states rolled up to there, and int8 ports. Weights are the initial ones: latency and size do not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from official.projects.movinet.tools.export_saved_model import build_and_export_saved_model

SIZES = {"a0": 172, "a1": 172, "a2": 224}
SAMPLES_PER_CLIP = 3


def export(model: str, folder: str) -> None:
    """Write the SavedModel of a stream, one frame per call."""
    build_and_export_saved_model(
        export_path=folder,
        model_id=model,
        causal=True,
        conv_type="2plus1d",
        se_type="2plus3d",
        activation="hard_swish",
        gating_activation="hard_sigmoid",
        use_positional_encoding=False,
        num_classes=600,
        input_shape=(1, 1, SIZES[model], SIZES[model], 3),
        bundle_input_init_states_fn=False,
    )


def samples(folder: str, clips: np.ndarray) -> Iterator[dict[str, tf.Tensor]]:
    """Inputs of some calls, with the states that a clip has led to.

    Args:
        folder: SavedModel.
        clips: `(clips, frames, H, W, 3)`, 0..1.
    """
    call = tf.saved_model.load(folder).signatures["serving_default"]
    specs = call.structured_input_signature[1]
    chosen = np.random.default_rng(0)
    for clip in clips:
        inputs = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
        kept = {0, *chosen.integers(1, len(clip), SAMPLES_PER_CLIP - 1).tolist()}
        for index, frame in enumerate(clip):
            inputs["image"] = tf.constant(frame[None, None], tf.float32)
            if index in kept:
                yield dict(inputs)
            states = call(**inputs)
            inputs = {name: states[name] for name in specs if name != "image"}


def convert(folder: str, clips: np.ndarray | None) -> bytes:
    """A `.tflite` of a SavedModel: int8 if there are clips to calibrate on."""
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    if clips is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: samples(folder, clips)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def main() -> None:
    """Write two files for each model that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=Path, required=True, help="One array (clips, frames, H, W, 3) per size")
    parser.add_argument("--models", nargs="+", default=list(SIZES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for model in arguments.models:
        clips = np.load(arguments.frames)[str(SIZES[model])]
        with tempfile.TemporaryDirectory() as saved:
            export(model, saved)
            for precision, calibration in (("fp32", None), ("int8", clips)):
                print(f"model garden {model} {precision}", flush=True)
                path = arguments.folder / f"model_garden_{model}_{precision}.tflite"
                path.write_bytes(convert(saved, calibration))


if __name__ == "__main__":
    main()
